package mask

import (
	"encoding/binary"
	"math/bits"
)

// digitsIn marks the bytes of x that are ASCII digits by their highest bits.
func digitsIn(x uint64) uint64 {
	const (
		zeros = 0x3030303030303030
		low   = 0x7f7f7f7f7f7f7f7f
		over9 = 0x7676767676767676 // 0x7f - 9
		high  = 0x8080808080808080
	)
	x ^= zeros // digits are 0..9 now
	return ^((x&low + over9) | x) & high
}

// indexDigit is the offset of the first ASCII digit at or after i, -1 for none.
// It looks at sixteen bytes at a time, then eight; the last eight may overlap
// those before.
func indexDigit(v []byte, i int) int {
	for ; i+16 <= len(v); i += 16 {
		a, b := digitsIn(binary.LittleEndian.Uint64(v[i:])), digitsIn(binary.LittleEndian.Uint64(v[i+8:]))
		if a != 0 {
			return i + bits.TrailingZeros64(a)/8
		}
		if b != 0 {
			return i + 8 + bits.TrailingZeros64(b)/8
		}
	}
	if i+8 <= len(v) {
		if m := digitsIn(binary.LittleEndian.Uint64(v[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
		i += 8
	}
	if last := len(v) - 8; last >= 0 && i < len(v) {
		m := digitsIn(binary.LittleEndian.Uint64(v[last:])) >> (8 * (i - last))
		if m == 0 {
			return -1
		}
		return i + bits.TrailingZeros64(m)/8
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
