package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/internal/strictyaml"
)

// Address is one protected destination: a prefix (of full length for a single
// address) or a host name, and a port. Exactly one of Prefix and Host is set.
type Address struct {
	Prefix netip.Prefix // masked; never IPv4-mapped
	Host   string       // lower case, no trailing dot
	Port   uint16
}

// ParseScalar reads host:port, a.b.c.d:port, a.b.c.d/n:port, [v6]:port or
// [v6]/n:port.
func (a *Address) ParseScalar(text string) error {
	host, port, ok := splitPort(text)
	if !ok {
		return &strictyaml.FixError{What: "this is no address with a port", Fix: "write host:port, 10.0.0.1:5432, 10.1.0.0/16:5432, [fd00::1]:5432 or [fd00::]/64:5432"}
	}
	a.Port = port
	if strings.HasPrefix(host, "[") {
		return a.parseV6(host)
	}
	if strings.Contains(host, ":") {
		return &strictyaml.FixError{What: "an IPv6 address stands without brackets", Fix: "write [fd00::1]:5432 or [fd00::]/64:5432"}
	}
	if strings.Contains(host, "/") || looksNumeric(host) {
		return a.parsePrefix(host)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "*" {
		return &strictyaml.FixError{What: "a host cannot be *", Fix: "write 0.0.0.0/0:PORT and [::]/0:PORT for every address"}
	}
	if !isHostName(host) {
		return &strictyaml.FixError{What: "this is neither an address nor a host name", Fix: "use letters, digits, dashes and dots (RFC 1123)"}
	}
	a.Host = host
	return nil
}

func (a *Address) parseV6(host string) error {
	inner, rest, closed := strings.Cut(host[1:], "]")
	if !closed {
		return &strictyaml.FixError{What: "a bracket is not closed", Fix: "write [fd00::1]:5432 or [fd00::]/64:5432"}
	}
	if strings.Contains(inner, "/") && rest == "" { // [fd00::/64]:port
		return &strictyaml.FixError{What: "the prefix length stands inside the brackets", Fix: "write [fd00::]/64:5432"}
	}
	if strings.Contains(inner, "%") {
		return &strictyaml.FixError{What: "an address with a zone cannot be protected", Fix: "leave the zone out"}
	}
	if ip, err := netip.ParseAddr(inner); err != nil || !ip.Is6() {
		return &strictyaml.FixError{What: "what stands in brackets is no IPv6 address", Fix: "write [fd00::1]:5432 or [fd00::]/64:5432"}
	}
	return a.parsePrefix(inner + rest)
}

func (a *Address) parsePrefix(text string) error {
	var p netip.Prefix
	if ip, err := netip.ParseAddr(text); err == nil {
		if ip.IsUnspecified() {
			return &strictyaml.FixError{What: "the unspecified address is no destination", Fix: "write a prefix (0.0.0.0/0, [::]/0) for every address"}
		}
		p = netip.PrefixFrom(ip, ip.BitLen())
	} else if p, err = netip.ParsePrefix(text); err != nil {
		return &strictyaml.FixError{What: "this is no IP address or prefix", Fix: "write 10.0.0.1:5432, 10.1.0.0/16:5432 or [fd00::]/64:5432"}
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return &strictyaml.FixError{What: "this prefix holds more than the IPv4-mapped addresses", Fix: "write the IPv4 prefix (10.1.0.0/16) and the IPv6 one"}
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if m := p.Masked(); m != p {
		return &strictyaml.FixError{What: "the prefix has bits behind its length", Fix: "write " + Address{Prefix: m, Port: a.Port}.String()}
	}
	a.Prefix = p
	return nil
}

// splitPort cuts at the last colon.
func splitPort(text string) (host string, port uint16, ok bool) {
	i := strings.LastIndexByte(text, ':')
	if i <= 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil || n == 0 || text[i+1] == '+' {
		return "", 0, false
	}
	return text[:i], uint16(n), true
}

// String is the address as the file writes it.
func (a Address) String() string {
	port := ":" + strconv.Itoa(int(a.Port))
	if a.Host != "" {
		return a.Host + port
	}
	ip := a.Prefix.Addr().String()
	if a.Prefix.Addr().Is6() {
		ip = "[" + ip + "]"
	}
	if !a.Prefix.IsSingleIP() {
		ip += "/" + strconv.Itoa(a.Prefix.Bits())
	}
	return ip + port
}

// MarshalYAML writes it as it is read.
func (a Address) MarshalYAML() (any, error) { return a.String(), nil }

// MarshalText does the same for JSON.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// looksNumeric: only digits and dots, as in an IPv4 address that may be wrong.
func looksNumeric(s string) bool {
	return strings.Trim(s, "0123456789.") == ""
}

// isHostName checks RFC 1123 names, with underscores as they occur in practice.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return false
			}
		}
	}
	return true
}

// isHostPort reports whether text is a host or an IP address (v6 in brackets)
// and a port.
func isHostPort(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return !looksNumeric(host) && isHostName(strings.ToLower(strings.TrimSuffix(host, ".")))
}
