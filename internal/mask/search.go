package mask

import (
	"bytes"
	"encoding/binary"
)

// maxDepth bounds how deep arrays and records within each other are followed;
// PostgreSQL's own arrays have at most 6 dimensions, which are no depth.
const maxDepth = 16

// search looks into the values of one column. It holds what they share: counters
// and scratch memory.
type search struct {
	set  *Set
	hits []int64
	free [][]byte // scratch that nobody uses
	deep bool     // something was too deep to be read
}

// keepScratch bounds a buffer that is kept from one value to the next, bytes.
const keepScratch = 64 << 10

// take gives a scratch buffer; give takes it back.
func (s *search) take() []byte {
	n := len(s.free)
	if n == 0 {
		return nil
	}
	b := s.free[n-1]
	s.free = s.free[:n-1]
	return b[:0]
}

func (s *search) give(b []byte) {
	if cap(b) > 0 && cap(b) <= keepScratch {
		s.free = append(s.free, b)
	}
}

// searches reports whether any detector of the set can find something in a class:
// a number holds a card at most, an address of the network an IP, and the user's
// own patterns may ask for anything.
func (s *Set) searches(class Class) bool {
	if len(s.detectors) == 0 {
		return false
	}
	switch class &^ (arrayBit | rangeBit | multirangeBit) {
	case Opaque, Char:
		return false
	case Int4, MACAddr:
		return len(s.patterns) > 0
	case Int8, Float, Numeric, Money:
		return len(s.patterns) > 0 || s.card >= 0
	case Inet:
		return len(s.patterns) > 0 || s.ip >= 0
	}
	return true
}

// value searches a value of a class and appends it masked. What cannot be read
// becomes NULL.
func (s *search) value(dst, v []byte, class Class, wire bool, depth int) ([]byte, Result) {
	switch {
	case depth > maxDepth:
		s.deep = true
		return dst, IsNull
	case class&arrayBit != 0:
		if wire {
			return s.array(dst, v, class&^arrayBit, depth)
		}
		return s.literal(dst, v, class&^arrayBit, false, depth)
	case class&(rangeBit|multirangeBit) != 0:
		return dst, s.bounds(v, class, wire, depth)
	}
	switch class {
	case Text:
		return s.set.AppendMasked(dst, v, s.hits)
	case XML:
		return s.xml(dst, v)
	case JSON:
		return s.json(dst, v)
	case JSONB:
		return s.jsonb(dst, v, wire)
	case Record:
		if wire {
			return s.record(dst, v, depth)
		}
		return s.literal(dst, v, Unknown, true, depth)
	case Int4, Int8, Float, Numeric, Money:
		return dst, s.number(v, class, wire)
	case Inet, MACAddr:
		return dst, s.address(v, class, wire)
	case Bytes:
		if wire {
			return dst, s.find(v)
		}
		return dst, s.bytea(v)
	case TSVector:
		if wire {
			return dst, s.tsvector(v)
		}
		return dst, s.find(v)
	case Unknown:
		return dst, s.unknown(v, wire, depth)
	}
	return dst, Unchanged
}

// find searches bytes that are replaced whole: IsNull when something is in them.
func (s *search) find(v []byte) Result {
	var buf [8]Span
	spans := s.set.Scan(buf[:0], v)
	if len(spans) == 0 {
		return Unchanged
	}
	for _, f := range spans {
		count(s.hits, f)
	}
	return IsNull
}

// unknown searches a value of which only the bytes are known: as text, and in all
// the forms that it may be. A form more only costs time; a finding makes the whole
// NULL, which every type can be.
func (s *search) unknown(v []byte, wire bool, depth int) Result {
	if r := s.find(v); r != Unchanged {
		return r
	}
	return s.guess(v, wire, depth)
}

// guess searches a value in the forms that it may be, besides plain text.
func (s *search) guess(v []byte, wire bool, depth int) Result {
	before := s.found()
	if wire {
		s.guessBinary(v, depth)
	} else {
		s.guessText(v)
	}
	if s.deep || s.found() > before {
		return IsNull
	}
	return Unchanged
}

// found is the number of findings so far.
func (s *search) found() (n int64) {
	for _, h := range s.hits {
		n += h
	}
	return n
}

// guessText searches text that may be the text form of another type, with escapes
// or numbers that the plain search cannot read. Only what it counts matters.
func (s *search) guessText(v []byte) {
	if len(v) == 0 {
		return
	}
	scratch := s.take()
	switch first := v[0]; {
	case first == '\\':
		s.bytea(v)
	case isDigit(first) || first == '-':
		s.number(v, Float, false)
	case (first == '{' || first == '[' || first == '"') && bytes.IndexByte(v, '\\') >= 0:
		scratch, _ = s.json(scratch[:0], v)
	}
	if bytes.IndexByte(v, '&') >= 0 {
		scratch, _ = s.xml(scratch[:0], v)
	}
	s.give(scratch)
}

// guessBinary searches bytes that may be a number or a container on the wire. A
// domain's values come like this within records. Only what it counts matters.
func (s *search) guessBinary(v []byte, depth int) {
	switch {
	case len(v) == 4:
		s.number(v, Int4, true)
		return
	case len(v) == 8:
		// Cards have at most 16 digits in practice; beyond, the bits of other types of
		// eight bytes would look like numbers with a good check digit.
		if binary.BigEndian.Uint64(v) < 1e16 {
			s.number(v, Int8, true)
		}
		s.number(v, Float, true)
		return
	case isNumeric(v):
		s.number(v, Numeric, true)
		return
	}
	scratch, before := s.take(), s.found()
	for _, read := range [...]func([]byte, []byte, int) ([]byte, Result){s.record, s.arrayOfAny, s.hstore} {
		if scratch, _ = read(scratch[:0], v, depth); s.found() > before {
			break
		}
	}
	s.give(scratch)
}
