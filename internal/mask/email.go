package mask

import (
	"bytes"
	"unicode/utf8"
)

// Character sets of an address. Bytes of other alphabets count as letters; of
// RFC 5322's atext the characters that quote or separate in SQL, JSON and shells
// are left out.
var (
	localPart = charset("._%+-", true)
	hostLabel = charset("-", true)
)

func charset(extra string, other bool) (set [256]bool) {
	for b := range set {
		set[b] = isAlnum(byte(b)) || other && b >= utf8.RuneSelf
	}
	for _, b := range []byte(extra) {
		set[b] = true
	}
	return set
}

// scanEmail looks left and right of every @. The host has two labels or more and
// its last one starts with a letter and has two characters or more; labels after
// the last such one do not belong to it.
func scanEmail(v []byte, out []Span, detector int) []Span {
	for from, i := 0, 0; ; {
		k := bytes.IndexByte(v[i:], '@')
		if k < 0 {
			return out
		}
		at := i + k
		i = at + 1
		begin := at
		for begin > from && localPart[v[begin-1]] {
			begin--
		}
		for begin < at && v[begin] == '.' {
			begin++
		}
		if begin == at {
			continue
		}
		if end := hostEnd(v, at+1); end > 0 {
			out = append(out, Span{begin, end, detector})
			from, i = end, end
		}
	}
}

func hostEnd(v []byte, j int) int {
	end := 0
	for labels := 1; ; labels++ {
		begin := j
		for j < len(v) && hostLabel[v[j]] {
			j++
		}
		if j == begin {
			return end
		}
		if labels >= 2 && j-begin >= 2 && (isLetter(v[begin]) || v[begin] >= utf8.RuneSelf) {
			end = j
		}
		if j >= len(v) || v[j] != '.' {
			return end
		}
		j++
	}
}
