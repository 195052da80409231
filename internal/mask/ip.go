package mask

import (
	"bytes"
	"net/netip"
)

// ipv4At returns the end of the dotted quad that starts at the run of digits
// v[p:], 0 for none. Octets have no leading zero, and no further word or number
// is glued to it.
func ipv4At(v []byte, p int) int {
	if p > 0 && (isWord(v[p-1]) || v[p-1] == '.') {
		return 0
	}
	j := p
	for octet := 0; ; octet++ {
		n, begin := 0, j
		for ; j < len(v) && isDigit(v[j]); j++ {
			if n = n*10 + int(v[j]-'0'); n > 255 {
				return 0
			}
		}
		if j == begin || j-begin > 1 && v[begin] == '0' {
			return 0
		}
		if octet == 3 {
			break
		}
		if j >= len(v) || v[j] != '.' {
			return 0
		}
		j++
	}
	if j < len(v) && (isWord(v[j]) || v[j] == '.' && j+1 < len(v) && isDigit(v[j+1])) {
		return 0
	}
	return j
}

// longestIPv6 is the length of the longest text form with an embedded IPv4
// address, bytes.
const longestIPv6 = 45

// scanIPv6 looks at every longest run of hexadecimal digits, colons and dots that
// has two colons.
func scanIPv6(v []byte, out []Span, detector int) []Span {
	for i := 0; ; {
		k := bytes.IndexByte(v[i:], ':')
		if k < 0 {
			return out
		}
		colon := i + k
		if !secondColon(v[colon+1:]) {
			i = colon + 1
			continue
		}
		begin, end := colon, colon+1
		for begin > i && inIPv6(v[begin-1]) {
			begin--
		}
		for end < len(v) && inIPv6(v[end]) {
			end++
		}
		i = end
		begin, end = trimIPv6(v, begin, end)
		if isIPv6(v, begin, end) {
			out = append(out, Span{begin, end, detector})
		}
	}
}

func inIPv6(b byte) bool { return isHex(b) || b == ':' || b == '.' }

// secondColon reports whether at most four hexadecimal digits and then a colon
// follow a colon: there is no address without this.
func secondColon(v []byte) bool {
	for j := 0; j < len(v) && j <= 4; j++ {
		if v[j] == ':' {
			return true
		}
		if !isHex(v[j]) {
			return false
		}
	}
	return false
}

// trimIPv6 takes off the punctuation of the sentence around.
func trimIPv6(v []byte, begin, end int) (int, int) {
	for begin < end && v[begin] == '.' {
		begin++
	}
	for begin < end && v[end-1] == '.' {
		end--
	}
	if end-begin >= 2 && v[begin] == ':' && v[begin+1] != ':' {
		begin++
	}
	if end-begin >= 2 && v[end-1] == ':' && v[end-2] != ':' {
		end--
	}
	return begin, end
}

// isIPv6 wants a valid address that is not taken for one by chance: three groups
// or more, or a first group of a global, local or link-local network (2xxx, 3xxx,
// fxxx). Eight groups of two digits are an EUI-64.
func isIPv6(v []byte, begin, end int) bool {
	if end-begin > longestIPv6 || begin > 0 && isWord(v[begin-1]) || end < len(v) && isWord(v[end]) {
		return false
	}
	text := v[begin:end]
	colons := bytes.Count(text, []byte{':'})
	if colons < 2 || colons < 6 && !bytes.Contains(text, []byte("::")) {
		return false
	}
	addr, err := netip.ParseAddr(string(text))
	if err != nil || !addr.Is6() || addr.IsUnspecified() || addr.IsLoopback() {
		return false
	}
	groups, pairs, size := 0, 0, 0
	for i := 0; i <= len(text); i++ {
		if i < len(text) && text[i] != ':' {
			size++
			continue
		}
		if size > 0 {
			groups++
		}
		if size == 2 {
			pairs++
		}
		size = 0
	}
	if pairs == 8 {
		return false
	}
	first := text[0]
	wide := bytes.IndexByte(text, ':') == 4 && (first == '2' || first == '3' || first|0x20 == 'f')
	return groups >= 3 || groups == 2 && wide
}
