package mask

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonb searches a jsonb in either format.
func (s *search) jsonb(dst, v []byte, wire bool) ([]byte, Result) {
	if !wire {
		return s.json(dst, v)
	}
	if len(v) == 0 || v[0] != jsonbVersion {
		return dst, IsNull
	}
	out, r := s.json(append(dst, jsonbVersion), v[1:])
	if r != Changed {
		return dst, r
	}
	return out, r
}

// json searches the strings and numbers of a JSON document. A string stays a
// string; a number that is found becomes one.
func (s *search) json(dst, v []byte) ([]byte, Result) {
	exponents := s.set.card >= 0 && hasExponent(v)
	if !exponents && len(s.set.patterns) == 0 && bytes.IndexByte(v, '\\') < 0 {
		// Without escapes and without patterns, which may ask for the edges of the
		// text, a finding in a token is one in the document.
		var buf [8]Span
		if len(s.set.Scan(buf[:0], v)) == 0 {
			return dst, Unchanged
		}
	}
	w := rewriter{dst: dst, begin: len(dst), v: v}
	plain, masked := s.take(), s.take()
	for i := 0; i < len(v) && !w.broken; {
		begin := i
		text, r := []byte(nil), Unchanged
		switch {
		case v[i] == '"':
			i = quotedEnd(v, i, false)
			ok := false
			if text, plain, ok = unquote(plain, v[begin:i], unescapeJSON); !ok {
				w.broken = true // not what the server would send
				continue
			}
			masked, r = s.set.AppendMasked(masked[:0], text, s.hits)
		case isDigit(v[i]) || v[i] == '-':
			for i < len(v) && inNumber(v[i]) {
				i++
			}
			if masked, r = s.set.AppendMasked(masked[:0], v[begin:i], s.hits); r == Unchanged && exponents {
				plain = appendPlain(plain[:0], v[begin:i])
				masked, r = s.set.AppendMasked(masked[:0], plain, s.hits)
			}
		default:
			i++
		}
		switch r {
		case IsNull:
			w.broken = true
		case Changed:
			w.replace(begin, i)
			w.dst = append(escapeJSON(append(w.dst, '"'), masked), '"')
		}
	}
	s.give(plain)
	s.give(masked)
	return w.result()
}

func inNumber(b byte) bool {
	return isDigit(b) || b == '-' || b == '+' || b == '.' || b == 'e' || b == 'E'
}

// hasExponent reports whether an e stands after a digit anywhere, as in numbers
// with an exponent; jsonb has none.
func hasExponent(v []byte) bool {
	for i := 1; i < len(v); i++ {
		if v[i]|0x20 == 'e' && isDigit(v[i-1]) {
			return true
		}
	}
	return false
}

// unescapeJSON undoes the escapes of a JSON string (RFC 8259, section 7).
func unescapeJSON(dst, v []byte) ([]byte, bool) {
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' {
			dst = append(dst, v[i])
			continue
		}
		if i++; i == len(v) {
			return dst, false
		}
		switch v[i] {
		case '"', '\\', '/':
			dst = append(dst, v[i])
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, ok := hex4(v[i+1:])
			if !ok {
				return dst, false
			}
			i += 4
			if utf16.IsSurrogate(r) && i+6 < len(v) && v[i+1] == '\\' && v[i+2] == 'u' {
				if low, ok := hex4(v[i+3:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
					r = utf16.DecodeRune(r, low)
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			return dst, false
		}
	}
	return dst, true
}

func hex4(v []byte) (rune, bool) {
	if len(v) < 4 {
		return 0, false
	}
	var r rune
	for _, b := range v[:4] {
		switch {
		case isDigit(b):
			r = r<<4 | rune(b-'0')
		case isHex(b):
			r = r<<4 | rune(b|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// escapeJSON writes text for a JSON string; bytes that need no escape stay as
// they are.
func escapeJSON(dst, v []byte) []byte {
	const digits = "0123456789abcdef"
	for _, b := range v {
		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b < ' ':
			dst = append(dst, '\\', 'u', '0', '0', digits[b>>4], digits[b&15])
		default:
			dst = append(dst, b)
		}
	}
	return dst
}
