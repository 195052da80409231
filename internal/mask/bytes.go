package mask

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
)

// hexPrefix begins the hex format of bytea.
var hexPrefix = []byte(`\x`)

// bytea searches the text form of a bytea, of either bytea_output: the bytes as
// text. Nothing but NULL stands for them.
func (s *search) bytea(v []byte) Result {
	raw := s.take()
	ok := false
	if bytes.HasPrefix(v, hexPrefix) {
		digits := v[len(hexPrefix):]
		raw = slices.Grow(raw, hex.DecodedLen(len(digits)))[:hex.DecodedLen(len(digits))]
		_, err := hex.Decode(raw, digits)
		ok = err == nil
	} else {
		raw, ok = unescapeBytea(raw, v)
	}
	r := IsNull
	if ok {
		r = s.find(raw)
	}
	s.give(raw)
	return r
}

// unescapeBytea undoes the escape format: \\ and three octal digits.
func unescapeBytea(dst, v []byte) ([]byte, bool) {
	for i := 0; i < len(v); i++ {
		switch {
		case v[i] != '\\':
			dst = append(dst, v[i])
		case i+1 < len(v) && v[i+1] == '\\':
			dst = append(dst, '\\')
			i++
		case i+3 < len(v) && v[i+1]-'0' <= 3 && v[i+2]-'0' <= 7 && v[i+3]-'0' <= 7:
			dst = append(dst, (v[i+1]-'0')<<6|(v[i+2]-'0')<<3|v[i+3]-'0')
			i += 3
		default:
			return dst, false
		}
	}
	return dst, true
}

// tsvector searches the words of a binary tsvector (PostgreSQL source,
// tsvectorsend): their number, then each with a zero byte after it, the number of
// its positions and those, two bytes each.
func (s *search) tsvector(v []byte) Result {
	if len(v) < 4 {
		return IsNull
	}
	words, rest := binary.BigEndian.Uint32(v), v[4:]
	for ; words > 0; words-- {
		n := bytes.IndexByte(rest, 0)
		if n < 0 || len(rest) < n+3 {
			return IsNull
		}
		if r := s.find(rest[:n]); r != Unchanged {
			return r
		}
		positions := 2 * int(binary.BigEndian.Uint16(rest[n+1:]))
		if rest = rest[n+3:]; len(rest) < positions {
			return IsNull
		}
		rest = rest[positions:]
	}
	if len(rest) > 0 {
		return IsNull
	}
	return Unchanged
}
