package mask

import (
	"bytes"
	"encoding/binary"
)

// literal searches the text form of an array, whose elements have the class
// element, or of a record, whose fields may have any. What becomes NULL is written
// as such.
func (s *search) literal(dst, v []byte, element Class, record bool, depth int) ([]byte, Result) {
	w := rewriter{dst: dst, begin: len(dst), v: v}
	null, open, end, i := "NULL", byte('{'), byte('}'), bytes.IndexByte(v, '{')
	if record {
		null, open, end, i = "", '(', ')', 0
	} else if i < 0 { // the bounds of dimensions stand before the first brace
		return dst, IsNull
	}
	plain, masked := s.take(), s.take()
	for i < len(v) {
		begin := i
		if v[i] == '"' {
			i = quotedEnd(v, i, true)
		} else {
			for i < len(v) && v[i] != '"' && v[i] != ',' && v[i] != open && v[i] != end {
				i++
			}
			if i == begin {
				i++
				continue
			}
		}
		text, ok := v[begin:i], true
		if text[0] == '"' {
			text, plain, ok = unquote(plain, text, unescapeLiteral)
		}
		if !ok {
			w.broken = true // not what the server would send
			break
		}
		var r Result
		switch {
		case record:
			masked, r = s.field(masked[:0], text)
		case v[begin] != '"' && string(text) == null:
		default:
			masked, r = s.value(masked[:0], text, element, false, depth+1)
		}
		switch r {
		case IsNull:
			w.replace(begin, i)
			w.dst = append(w.dst, null...)
		case Changed:
			w.replace(begin, i)
			w.dst = append(escapeLiteral(append(w.dst, '"'), masked), '"')
		}
	}
	s.give(plain)
	s.give(masked)
	return w.result()
}

// field searches a field of a record in its text form, about whose type nothing is
// known. Text is masked in place; what may be of another type, for which masked
// text is no value, becomes NULL.
func (s *search) field(dst, v []byte) ([]byte, Result) {
	if onlyText(v) {
		if dst, r := s.set.AppendMasked(dst, v, s.hits); r != Unchanged {
			return dst, r
		}
		return dst, s.guess(v, false, 0)
	}
	return dst, s.unknown(v, false, 0)
}

// onlyText reports that a value is not the text form of a type but text: numbers,
// addresses, bytea, arrays, records, ranges, JSON, tsvector, hstore and jsonpath
// start with a certain character or consist of a few.
func onlyText(v []byte) bool {
	if len(v) == 0 || bytes.IndexByte([]byte(`{[("'\$`), v[0]) >= 0 {
		return false
	}
	for i, b := range v {
		if !isHex(b) && b != '.' && b != ':' && b != '/' && (b != '-' || i > 0) && (b != '+' || i == 0 || v[i-1]|0x20 != 'e') {
			return true
		}
	}
	return false
}

// unquote gives a quoted element without quotes and escapes: a part of v or, when
// there are escapes, what it writes into the scratch memory, which it returns too.
func unquote(scratch, v []byte, unescape func(dst, v []byte) ([]byte, bool)) (text, used []byte, ok bool) {
	inner := v[1:]
	if n := len(inner); n > 0 && inner[n-1] == '"' {
		inner = inner[:n-1]
	}
	if bytes.IndexByte(inner, '\\') < 0 && bytes.IndexByte(inner, '"') < 0 {
		return inner, scratch, true
	}
	text, ok = unescape(scratch[:0], inner)
	return text, text, ok
}

// quotedEnd is the offset after the quoted text that starts at v[i]. With
// doubled, two quotes in a row are one character.
func quotedEnd(v []byte, i int, doubled bool) int {
	for i++; i < len(v); i++ {
		switch {
		case v[i] == '\\':
			i++
		case v[i] == '"' && doubled && i+1 < len(v) && v[i+1] == '"':
			i++
		case v[i] == '"':
			return i + 1
		}
	}
	return len(v)
}

// rewriter copies a text and replaces parts of it.
type rewriter struct {
	dst     []byte
	begin   int // length of dst at the start
	v       []byte
	last    int // v up to here has been written or replaced
	changed bool
	broken  bool // NULL is all that can be said
}

// replace copies what stands before v[begin:end]; the caller appends to dst what
// stands for it.
func (w *rewriter) replace(begin, end int) {
	w.dst = append(w.dst, w.v[w.last:begin]...)
	w.last, w.changed = end, true
}

func (w *rewriter) result() ([]byte, Result) {
	switch {
	case w.broken:
		return w.dst[:w.begin], IsNull
	case !w.changed:
		return w.dst[:w.begin], Unchanged
	}
	return append(w.dst, w.v[w.last:]...), Changed
}

// unescapeLiteral undoes the quoting of array_out and record_out.
func unescapeLiteral(dst, v []byte) ([]byte, bool) {
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' || v[i] == '"' {
			if i++; i == len(v) {
				return dst, false
			}
		}
		dst = append(dst, v[i])
	}
	return dst, true
}

func escapeLiteral(dst, v []byte) []byte {
	for _, b := range v {
		if b == '\\' || b == '"' {
			dst = append(dst, '\\')
		}
		dst = append(dst, b)
	}
	return dst
}

// array searches a binary array (PostgreSQL source, array_send: dimensions, flags,
// element type, length and lower bound of each dimension, then length and bytes of
// each element, -1 for NULL). Elements of an unknown class are told by that type.
func (s *search) array(dst, v []byte, element Class, depth int) ([]byte, Result) {
	const head, perDimension, maxDimensions = 12, 8, 6
	if len(v) < head {
		return dst, IsNull
	}
	dimensions := int32(binary.BigEndian.Uint32(v))
	if dimensions < 0 || dimensions > maxDimensions {
		return dst, IsNull
	}
	at := head + int(dimensions)*perDimension
	if at > len(v) {
		return dst, IsNull
	}
	if element == Unknown {
		element = ClassOf(binary.BigEndian.Uint32(v[8:]))
	}
	if !s.set.searches(element) {
		return dst, Unchanged
	}
	flags := len(dst) + 4
	b := binaryRewriter{search: s, dst: append(dst, v[:at]...), rest: v[at:]}
	for len(b.rest) > 0 {
		if !b.element(element, depth+1) {
			return dst, IsNull
		}
	}
	if !b.changed {
		return dst, Unchanged
	}
	if b.nulls {
		binary.BigEndian.PutUint32(b.dst[flags:], 1) // the array has NULLs now
	}
	return b.dst, Changed
}

// arrayOfAny searches what may be a binary array.
func (s *search) arrayOfAny(dst, v []byte, depth int) ([]byte, Result) {
	return s.array(dst, v, Unknown, depth)
}

// record searches a binary record (record_send: number of columns, then type,
// length and bytes of each, -1 for NULL).
func (s *search) record(dst, v []byte, depth int) ([]byte, Result) {
	if len(v) < 4 {
		return dst, IsNull
	}
	n := binary.BigEndian.Uint32(v)
	b := binaryRewriter{search: s, dst: append(dst, v[:4]...), rest: v[4:]}
	for ; n > 0; n-- {
		if len(b.rest) < 4 {
			return dst, IsNull
		}
		class := ClassOf(binary.BigEndian.Uint32(b.rest))
		b.dst, b.rest = append(b.dst, b.rest[:4]...), b.rest[4:]
		if !b.element(class, depth+1) {
			return dst, IsNull
		}
	}
	if len(b.rest) > 0 {
		return dst, IsNull
	}
	if !b.changed {
		return dst, Unchanged
	}
	return b.dst, Changed
}

// hstore searches what may be a binary hstore (hstore_send: number of pairs, then
// length and bytes of key and value, -1 for a NULL value).
func (s *search) hstore(dst, v []byte, depth int) ([]byte, Result) {
	if len(v) < 4 {
		return dst, IsNull
	}
	b := binaryRewriter{search: s, dst: append(dst, v[:4]...), rest: v[4:]}
	for n := 2 * uint64(binary.BigEndian.Uint32(v)); n > 0; n-- {
		if !b.element(Text, depth+1) {
			return dst, IsNull
		}
	}
	if len(b.rest) > 0 || !b.changed {
		return dst, Unchanged
	}
	return b.dst, Changed
}

// The flags of a binary range (rangetypes.h).
const (
	rangeEmpty    = 0x01
	rangeNoLower  = 0x08
	rangeNoUpper  = 0x10
	rangeAllFlags = 0x7f
)

// bounds searches a range or multirange; a finding makes the whole NULL, because a
// masked bound might be greater than the other. On the wire a range is its flags,
// then length and bytes of each bound that there is (range_send); a multirange is
// the number of ranges, then length and bytes of each (multirange_send).
func (s *search) bounds(v []byte, class Class, wire bool, depth int) Result {
	bound := class &^ (rangeBit | multirangeBit)
	if !wire {
		if bound == Unknown {
			return s.unknown(v, false, depth)
		}
		return s.find(v)
	}
	if class&rangeBit != 0 {
		return s.rangeBounds(v, bound, depth)
	}
	if len(v) < 4 {
		return IsNull
	}
	n, rest := binary.BigEndian.Uint32(v), v[4:]
	for ; n > 0; n-- {
		one, left, ok := sized(rest)
		if !ok {
			return IsNull
		}
		if r := s.rangeBounds(one, bound, depth); r != Unchanged {
			return r
		}
		rest = left
	}
	if len(rest) > 0 {
		return IsNull
	}
	return Unchanged
}

func (s *search) rangeBounds(v []byte, bound Class, depth int) Result {
	if len(v) == 0 || v[0]&^rangeAllFlags != 0 {
		return IsNull
	}
	flags, rest := v[0], v[1:]
	for _, without := range [...]byte{rangeEmpty | rangeNoLower, rangeEmpty | rangeNoUpper} {
		if flags&without != 0 {
			continue
		}
		one, left, ok := sized(rest)
		if !ok {
			return IsNull
		}
		scratch := s.take()
		scratch, r := s.value(scratch, one, bound, true, depth+1)
		s.give(scratch)
		if r != Unchanged {
			return IsNull
		}
		rest = left
	}
	if len(rest) > 0 {
		return IsNull
	}
	return Unchanged
}

// sized cuts off bytes with their length before them.
func sized(v []byte) (one, rest []byte, ok bool) {
	if len(v) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(v)
	if uint64(n) > uint64(len(v)-4) {
		return nil, nil, false
	}
	return v[4 : 4+n], v[4+n:], true
}

// binaryRewriter copies elements of length and bytes.
type binaryRewriter struct {
	*search
	dst     []byte
	rest    []byte
	changed bool
	nulls   bool
}

// element copies the next element, masked; false when it is cut short.
func (b *binaryRewriter) element(class Class, depth int) bool {
	if len(b.rest) < 4 {
		return false
	}
	n := int32(binary.BigEndian.Uint32(b.rest))
	if n < -1 || int(n) > len(b.rest)-4 {
		return false
	}
	if n == -1 {
		b.dst, b.rest = append(b.dst, b.rest[:4]...), b.rest[4:]
		return true
	}
	v := b.rest[4 : 4+n]
	at := len(b.dst)
	out, r := b.value(append(b.dst, 0, 0, 0, 0), v, class, true, depth)
	b.dst = out
	switch r {
	case Changed:
		binary.BigEndian.PutUint32(b.dst[at:], uint32(len(b.dst)-at-4))
		b.changed = true
	case IsNull:
		b.dst = append(b.dst[:at], 0xff, 0xff, 0xff, 0xff)
		b.changed, b.nulls = true, true
	default:
		b.dst = append(b.dst[:at], b.rest[:4+n]...)
	}
	b.rest = b.rest[4+n:]
	return true
}
