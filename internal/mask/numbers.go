package mask

import (
	"encoding/binary"
	"math/bits"
)

// indexDigit is the offset of the first ASCII digit at or after i, -1 for none.
// It looks at eight bytes at a time.
func indexDigit(v []byte, i int) int {
	const (
		zeros = 0x3030303030303030
		low   = 0x7f7f7f7f7f7f7f7f
		over9 = 0x7676767676767676 // 0x7f - 9
		high  = 0x8080808080808080
	)
	for ; i+8 <= len(v); i += 8 {
		x := binary.LittleEndian.Uint64(v[i:]) ^ zeros // digits are 0..9 now
		if m := ^((x&low + over9) | x) & high; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(v); i++ {
		if isDigit(v[i]) {
			return i
		}
	}
	return -1
}

// scanNumbers walks the runs of digits and tries, at the start of each, the
// detectors that begin there. Each keeps the offset at which it may go on, so
// that its findings do not overlap and nothing is read over and over.
func (s *Set) scanNumbers(v []byte, out []Span) []Span {
	var cardNext, ibanNext, ssnNext, phoneNext, ipNext int
	for i := indexDigit(v, 0); i >= 0; {
		end := i + 1
		for end < len(v) && isDigit(v[end]) {
			end++
		}
		if s.iban >= 0 && end-i >= 2 && i >= 2 && i-2 >= ibanNext {
			if e := ibanAt(v, i-2); e > 0 {
				out = append(out, Span{i - 2, e, s.iban})
				ibanNext = e
			}
		}
		if s.card >= 0 && i >= cardNext && mayBeCard(v, i) {
			e, next := cardAt(v, i)
			if e > 0 {
				out = append(out, Span{i, e, s.card})
			}
			cardNext = next
		}
		if s.ssn >= 0 && end-i == 3 && i >= ssnNext && ssnAt(v, i) {
			ssnNext = i + ssnLength
			out = append(out, Span{i, ssnNext, s.ssn})
		}
		if s.phone >= 0 && (end-i == 3 || i > 0 && v[i-1] == '+') {
			if b, e := phoneAt(v, i, end); e > 0 && b >= phoneNext {
				out = append(out, Span{b, e, s.phone})
				phoneNext = e
			}
		}
		if s.ip >= 0 && end-i <= 3 && i >= ipNext && end < len(v) && v[end] == '.' {
			if e := ipv4At(v, i); e > 0 {
				out = append(out, Span{i, e, s.ip})
				ipNext = e
			}
		}
		i = indexDigit(v, end)
	}
	return out
}
