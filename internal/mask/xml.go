package mask

import (
	"bytes"
	"unicode/utf8"
)

// seam is a place in decoded text from which on it runs along with the original
// again: plain[i] is from v[i-seam.plain+seam.raw].
type seam struct{ plain, raw int }

// xml searches an XML document as text, with the character references decoded
// (&#52; and &#x34; are the digit 4) and the five entities that every document has.
// Tags, comments and CDATA sections are text like any other; what a document
// defines itself is not followed.
func (s *search) xml(dst, v []byte) ([]byte, Result) {
	if bytes.IndexByte(v, '&') < 0 {
		return s.set.AppendMasked(dst, v, s.hits)
	}
	var seamBuf [16]seam
	plain, seams := unescapeXML(s.take(), v, seamBuf[:0])
	var buf [8]Span
	spans := s.set.Scan(buf[:0], plain)
	if len(spans) == 0 {
		s.give(plain)
		return dst, Unchanged
	}
	w := rewriter{dst: dst, begin: len(dst), v: v}
	masked := s.take()
	for _, f := range spans {
		count(s.hits, f)
		m := s.set.detectors[f.Detector].method
		if m == Null {
			w.broken = true
			continue
		}
		w.replace(rawOffset(seams, f.Start), rawOffset(seams, f.End))
		masked = appendText(masked[:0], m, plain[f.Start:f.End], s.set.key)
		w.dst = escapeXML(w.dst, masked)
	}
	s.give(masked)
	s.give(plain)
	return w.result()
}

// rawOffset is the offset in the original of a place between two characters of the
// decoded text.
func rawOffset(seams []seam, plain int) int {
	low, high := 0, len(seams) // the first seam behind plain
	for low < high {
		if mid := (low + high) / 2; seams[mid].plain <= plain {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == 0 {
		return plain
	}
	return plain - seams[low-1].plain + seams[low-1].raw
}

// unescapeXML decodes references; seams gets where each one ends.
func unescapeXML(dst, v []byte, seams []seam) ([]byte, []seam) {
	for i := 0; i < len(v); {
		k := bytes.IndexByte(v[i:], '&')
		if k < 0 {
			return append(dst, v[i:]...), seams
		}
		dst = append(dst, v[i:i+k]...)
		i += k
		n := 0
		if dst, n = appendReference(dst, v[i:]); n == 0 {
			dst, n = append(dst, '&'), 1 // no reference
		}
		i += n
		seams = append(seams, seam{len(dst), i})
	}
	return dst, seams
}

// maxReference bounds the length of a character reference, bytes: leading zeros are
// allowed, and no writer puts many.
const maxReference = 32

// appendReference decodes the reference at the start of v and returns its length, 0
// when there is none.
func appendReference(dst, v []byte) ([]byte, int) {
	end := bytes.IndexByte(v[:min(len(v), maxReference)], ';')
	if end < 2 {
		return dst, 0
	}
	name := v[1:end]
	switch string(name) {
	case "lt":
		return append(dst, '<'), end + 1
	case "gt":
		return append(dst, '>'), end + 1
	case "amp":
		return append(dst, '&'), end + 1
	case "apos":
		return append(dst, '\''), end + 1
	case "quot":
		return append(dst, '"'), end + 1
	}
	if name[0] != '#' || len(name) < 2 {
		return dst, 0
	}
	base, digits := rune(10), name[1:]
	if digits[0] == 'x' && len(digits) > 1 {
		base, digits = 16, digits[1:]
	}
	r := rune(0)
	for _, b := range digits {
		d := rune(b - '0')
		if base == 16 && !isDigit(b) && isHex(b) {
			d = rune(b|0x20-'a') + 10
		} else if !isDigit(b) {
			return dst, 0
		}
		if r = r*base + d; r > utf8.MaxRune {
			return dst, 0
		}
	}
	return utf8.AppendRune(dst, r), end + 1
}

// escapeXML writes masked text between tags or in an attribute.
func escapeXML(dst, v []byte) []byte {
	for _, b := range v {
		switch b {
		case '<':
			dst = append(dst, "&lt;"...)
		case '&':
			dst = append(dst, "&amp;"...)
		case '"':
			dst = append(dst, "&quot;"...)
		default:
			dst = append(dst, b)
		}
	}
	return dst
}
