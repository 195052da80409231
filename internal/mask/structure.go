package mask

import (
	"bytes"
	"encoding/binary"
)

// maxDepth bounds how deep binary arrays and records are followed; PostgreSQL's
// own arrays have at most 6 dimensions, which are no depth.
const maxDepth = 16

// appendClass searches a value of a class. What cannot be read becomes NULL.
func (s *Set) appendClass(dst, v []byte, class Class, binary bool, hits []int64, depth int) ([]byte, Result) {
	switch class {
	case Text, XML:
		return s.AppendMasked(dst, v, hits)
	case JSON:
		return s.appendJSON(dst, v, hits)
	case JSONB:
		return s.appendJSONB(dst, v, binary, hits)
	case TextArray:
		if binary {
			return s.appendArray(dst, v, hits)
		}
		return s.appendLiteral(dst, v, "{},", hits)
	case Record:
		if binary {
			return s.appendRecord(dst, v, hits, depth)
		}
		return s.appendLiteral(dst, v, "(),", hits)
	case Unknown:
		var buf [8]Span
		spans := s.Scan(buf[:0], v)
		if len(spans) == 0 {
			return dst, Unchanged
		}
		for _, f := range spans {
			count(hits, f)
		}
		return dst, IsNull
	}
	return dst, Unchanged
}

func (s *Set) appendJSONB(dst, v []byte, binary bool, hits []int64) ([]byte, Result) {
	if !binary {
		return s.appendJSON(dst, v, hits)
	}
	if len(v) == 0 || v[0] != jsonbVersion {
		return dst, IsNull
	}
	out, r := s.appendJSON(append(dst, jsonbVersion), v[1:], hits)
	if r != Changed {
		return dst, r
	}
	return out, r
}

// appendLiteral searches an array's or record's text form element by element.
// marks are the characters that stand between elements.
func (s *Set) appendLiteral(dst, v []byte, marks string, hits []int64) ([]byte, Result) {
	w := rewriter{set: s, dst: dst, begin: len(dst), v: v, hits: hits}
	for i := 0; i < len(v) && !w.null; {
		begin := i
		if v[i] == '"' {
			i = quotedEnd(v, i, true)
			w.quoted(begin, i, unescapeLiteral, escapeLiteral)
			continue
		}
		for i < len(v) && v[i] != '"' && bytes.IndexByte([]byte(marks), v[i]) < 0 {
			i++
		}
		if i > begin {
			w.bare(begin, i, escapeLiteral)
		} else {
			i++
		}
	}
	return w.result()
}

// appendJSON searches the strings and numbers of a JSON document.
func (s *Set) appendJSON(dst, v []byte, hits []int64) ([]byte, Result) {
	if len(s.patterns) == 0 && bytes.IndexByte(v, '\\') < 0 {
		// Without escapes and without patterns, which may ask for the edges of the
		// text, a finding in a token is one in the document.
		var buf [8]Span
		if len(s.Scan(buf[:0], v)) == 0 {
			return dst, Unchanged
		}
	}
	w := rewriter{set: s, dst: dst, begin: len(dst), v: v, hits: hits}
	for i := 0; i < len(v) && !w.null; {
		begin := i
		switch {
		case v[i] == '"':
			i = quotedEnd(v, i, false)
			w.quoted(begin, i, unescapeJSON, escapeJSON)
		case isDigit(v[i]) || v[i] == '-':
			for i < len(v) && inNumber(v[i]) {
				i++
			}
			w.bare(begin, i, escapeJSON)
		default:
			i++
		}
	}
	return w.result()
}

func inNumber(b byte) bool {
	return isDigit(b) || b == '-' || b == '+' || b == '.' || b == 'e' || b == 'E'
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

// rewriter copies a structured text and replaces what the set finds in its
// elements.
type rewriter struct {
	set     *Set
	dst     []byte
	begin   int // length of dst at the start
	v       []byte
	last    int // v up to here has been written
	hits    []int64
	changed bool
	null    bool
	plain   []byte // scratch: an element without its escapes
	masked  []byte // scratch: that element masked
}

// escaper appends text as it is written between quotes.
type escaper func(dst, v []byte) []byte

// quoted searches the quoted element v[begin:end].
func (w *rewriter) quoted(begin, end int, unescape func(dst, v []byte) ([]byte, bool), escape escaper) {
	inner := w.v[begin+1:]
	if end-1 > begin && w.v[end-1] == '"' {
		inner = w.v[begin+1 : end-1]
	}
	plain := inner
	if bytes.IndexByte(inner, '\\') >= 0 || bytes.IndexByte(inner, '"') >= 0 {
		ok := false
		if w.plain, ok = unescape(w.plain[:0], inner); !ok {
			w.null = true // not what the server would send
			return
		}
		plain = w.plain
	}
	masked, r := w.set.AppendMasked(w.masked[:0], plain, w.hits)
	w.masked = masked
	w.apply(r, begin, end, escape)
}

// bare searches the unquoted element v[begin:end]; a masked one gets quotes.
func (w *rewriter) bare(begin, end int, escape escaper) {
	masked, r := w.set.AppendMasked(w.masked[:0], w.v[begin:end], w.hits)
	w.masked = masked
	w.apply(r, begin, end, escape)
}

func (w *rewriter) apply(r Result, begin, end int, escape escaper) {
	switch r {
	case IsNull:
		w.null = true
	case Changed:
		w.dst = append(append(w.dst, w.v[w.last:begin]...), '"')
		w.dst = append(escape(w.dst, w.masked), '"')
		w.last, w.changed = end, true
	}
}

func (w *rewriter) result() ([]byte, Result) {
	switch {
	case w.null:
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

// appendArray searches a binary array of text elements (PostgreSQL source,
// array_send: dimensions, flags, element type, length and lower bound of each
// dimension, then length and bytes of each element, -1 for NULL).
func (s *Set) appendArray(dst, v []byte, hits []int64) ([]byte, Result) {
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
	flags := len(dst) + 4
	b := binaryRewriter{set: s, dst: append(dst, v[:at]...), rest: v[at:], hits: hits}
	for len(b.rest) > 0 {
		if !b.element(Text, 0) {
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

// appendRecord searches a binary record (record_send: number of columns, then
// type, length and bytes of each, -1 for NULL).
func (s *Set) appendRecord(dst, v []byte, hits []int64, depth int) ([]byte, Result) {
	if len(v) < 4 || depth >= maxDepth {
		return dst, IsNull
	}
	n := binary.BigEndian.Uint32(v)
	b := binaryRewriter{set: s, dst: append(dst, v[:4]...), rest: v[4:], hits: hits}
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

// binaryRewriter copies elements of length and bytes.
type binaryRewriter struct {
	set     *Set
	dst     []byte
	rest    []byte
	hits    []int64
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
	out, r := b.set.appendClass(append(b.dst, 0, 0, 0, 0), v, class, true, b.hits, depth)
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
