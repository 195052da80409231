package ca

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/netip"
	"strings"
	"sync"
)

// maxLeaves bounds the leaf certificates kept, about 2 KiB each. A client that
// asks for ever new names only makes others' be made again (some 0.1 ms each).
const maxLeaves = 1024

// renewBefore is how long before its end a leaf is replaced: a connection that
// starts now should not show a certificate that ends soon.
const renewBefore = leafLife / 3

// Server is what Weir stands for towards a client.
type Server struct {
	Destination netip.Addr // where the client wanted to go
	Names       []string   // the backend's configured host names
	ALPN        []string   // protocols offered, the first ones preferred; none: no ALPN
}

// TLSConfig is the server's side of TLS with a client that believes to talk to
// s. The certificate carries the name that the client asks for (SNI), the
// backend's names and the destination.
func (c *CA) TLSConfig(s Server) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: s.ALPN,
		// Each flow has a configuration of its own, so no ticket would ever be met
		// again.
		SessionTicketsDisabled: true,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.leaf(s.Destination.Unmap(), s.Names, h.ServerName)
		},
	}
}

// leaves are the latest leaf certificates, by what stands in them.
type leaves struct {
	mu    sync.Mutex
	byKey map[string]*list.Element
	order *list.List // of *leaf, the latest used first
}

type leaf struct {
	key  string
	cert *tls.Certificate
}

func newLeaves() leaves { return leaves{byKey: map[string]*list.Element{}, order: list.New()} }

func (c *CA) leaf(destination netip.Addr, names []string, sni string) (*tls.Certificate, error) {
	dns := dnsNames(sni, names)
	key := destination.String() + " " + strings.Join(dns, " ")
	l := &c.leaves
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.byKey[key]
	if e != nil && c.now().Add(renewBefore).Before(e.Value.(*leaf).cert.Leaf.NotAfter) {
		l.order.MoveToFront(e)
		return e.Value.(*leaf).cert, nil
	}
	cert, err := c.issue(destination, dns)
	if err != nil {
		return nil, err
	}
	if e != nil {
		l.order.Remove(e)
	}
	l.byKey[key] = l.order.PushFront(&leaf{key, cert})
	if l.order.Len() > maxLeaves {
		last := l.order.Remove(l.order.Back()).(*leaf)
		delete(l.byKey, last.key)
	}
	return cert, nil
}

// issue makes a leaf. It never outlives the authority.
func (c *CA) issue(destination netip.Addr, dns []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := c.now()
	end := now.Add(leafLife)
	if c.cert.NotAfter.Before(end) {
		end = c.cert.NotAfter
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Weir"}},
		NotBefore: now.Add(-skew), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, DNSNames: dns,
	}
	if destination.IsValid() {
		tmpl.IPAddresses = append(tmpl.IPAddresses, destination.WithZone("").AsSlice())
	}
	// A common name is for people and very old clients; it must fit in 64
	// characters (RFC 5280, ub-common-name).
	if tmpl.Subject.CommonName = destination.String(); len(dns) > 0 && len(dns[0]) <= 64 {
		tmpl.Subject.CommonName = dns[0]
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, &key.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, c.cert.Raw}, PrivateKey: key, Leaf: parsed}, nil
}

// dnsNames are the host names of a leaf, each once, the client's own first.
func dnsNames(sni string, names []string) []string {
	var dns []string
	seen := map[string]bool{}
	for _, n := range append([]string{sni}, names...) {
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		if !seen[n] && isHostName(n) {
			seen[n] = true
			dns = append(dns, n)
		}
	}
	return dns
}

// isHostName reports whether s may stand in a certificate as a DNS name: labels
// of letters, digits, - and _ (RFC 1034, 3.5; the underscore is common inside
// clusters), at most 253 bytes, no address.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-' && i > 0 && i < len(label)-1) {
				return false
			}
		}
	}
	return true
}
