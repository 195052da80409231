package mask

import (
	"encoding/hex"
	"net/netip"
	"strconv"
)

// Families of inet on the wire (PostgreSQL source, inet_net_pton): AF_INET and the
// number after it, whatever the system's AF_INET6 is.
const (
	familyIPv4 = 2
	familyIPv6 = 3
)

// address searches a network or hardware address; nothing but NULL stands for one.
func (s *search) address(v []byte, class Class, wire bool) Result {
	if !wire {
		return s.find(v)
	}
	text := s.take()
	ok := false
	if class == Inet {
		text, ok = appendInet(text, v)
	} else {
		text, ok = appendMAC(text, v)
	}
	r := IsNull
	if ok {
		r = s.find(text)
	}
	s.give(text)
	return r
}

// appendInet writes a binary inet or cidr as the server does: family, bits of the
// mask, whether it is a cidr, length and bytes of the address.
func appendInet(dst, v []byte) ([]byte, bool) {
	const head = 4
	if len(v) < head || int(v[3]) != len(v)-head {
		return dst, false
	}
	addr, ok := netip.AddrFromSlice(v[head:])
	if !ok || addr.Is4() != (v[0] == familyIPv4) || addr.Is6() != (v[0] == familyIPv6) {
		return dst, false
	}
	dst = addr.AppendTo(dst)
	if int(v[1]) != addr.BitLen() || v[2] != 0 {
		dst = strconv.AppendUint(append(dst, '/'), uint64(v[1]), 10)
	}
	return dst, true
}

// appendMAC writes a binary macaddr or macaddr8.
func appendMAC(dst, v []byte) ([]byte, bool) {
	if len(v) != 6 && len(v) != 8 {
		return dst, false
	}
	for i, b := range v {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = hex.AppendEncode(dst, []byte{b})
	}
	return dst, true
}
