package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
)

// bindScanner walks the body of a Bind as it arrives, in any pieces, with memory
// that does not grow with the values: portal, statement, formats, values, result
// formats (PostgreSQL manual, 55.7).
type bindScanner struct {
	left    int64 // bytes of the body that were not fed yet
	step    bindStep
	acc     []byte // a field that arrives in pieces
	want    int    // length of that field
	codes   []byte
	params  int
	param   int
	value   int64 // bytes of the current value still to come
	rec     paramRecorder
	sum     hash.Hash
	results []int16
}

type bindStep int

const (
	bindFormatCount bindStep = iota
	bindFormats
	bindParamCount
	bindParamLength
	bindParamValue
	bindResultCount
	bindResults
	bindDone
)

// bindNames splits the two names off the start of a Bind's body; ok is false while
// more bytes are needed, an error says that they are too long.
func bindNames(b []byte) (portal, statement string, n int, ok bool, err error) {
	names := [2]string{}
	for i := range names {
		k := bytes.IndexByte(b[n:], 0)
		if k > maxName || (k < 0 && len(b)-n > maxName) {
			return "", "", 0, false, fmt.Errorf("message type 'B' with a name longer than %d bytes", maxName)
		}
		if k < 0 {
			return "", "", 0, false, nil
		}
		names[i] = string(b[n : n+k])
		n += k + 1
	}
	return names[0], names[1], n, true, nil
}

// newBindScanner makes a scanner for the left bytes that follow the names.
func newBindScanner(left int64) *bindScanner {
	return &bindScanner{left: left, want: 2, sum: sha256.New()}
}

// feed walks b, which is at most as long as what is left.
func (s *bindScanner) feed(b []byte) error {
	s.sum.Write(b)
	s.left -= int64(len(b))
	for {
		if s.step == bindParamValue {
			k := min(int64(len(b)), s.value)
			s.rec.write(b[:k])
			b = b[k:]
			if s.value -= k; s.value > 0 {
				return s.ended()
			}
			s.rec.end()
			s.nextParam()
			continue
		}
		if s.step == bindDone {
			if len(b) > 0 {
				return fmt.Errorf("message type 'B' with bytes after its end: %w", errMalformed)
			}
			return s.ended()
		}
		field := b
		if need := s.want - len(s.acc); len(b) < need {
			s.acc = append(s.acc, b...)
			return s.ended()
		} else if len(s.acc) > 0 {
			s.acc = append(s.acc, b[:need]...)
			field, b = s.acc, b[need:]
		} else {
			field, b = b[:need], b[need:]
		}
		if err := s.field(field, s.left+int64(len(b))); err != nil {
			return err
		}
		s.acc = s.acc[:0]
	}
}

// ended reports a body that is over before its fields are.
func (s *bindScanner) ended() error {
	if s.left == 0 && s.step != bindDone {
		return fmt.Errorf("message type 'B' ends too early: %w", errMalformed)
	}
	return nil
}

// field takes a whole field; rest is the length of the body behind it.
func (s *bindScanner) field(b []byte, rest int64) error {
	switch s.step {
	case bindFormatCount:
		s.set(bindFormats, 2*int(binary.BigEndian.Uint16(b)))
	case bindFormats:
		s.codes = append([]byte(nil), b...)
		s.set(bindParamCount, 2)
	case bindParamCount:
		s.params = int(binary.BigEndian.Uint16(b))
		s.param = -1
		s.nextParam()
	case bindParamLength:
		n := int64(int32(binary.BigEndian.Uint32(b)))
		if n < -1 || n > rest {
			return fmt.Errorf("message type 'B' with a value longer than the message: %w", errMalformed)
		}
		s.rec.begin(n, formatOf(s.codes, s.param))
		s.value = max(n, 0)
		s.step = bindParamValue
	case bindResultCount:
		s.set(bindResults, 2*int(binary.BigEndian.Uint16(b)))
	case bindResults:
		s.results = make([]int16, len(b)/2)
		for i := range s.results {
			s.results[i] = int16(binary.BigEndian.Uint16(b[2*i:]))
		}
		s.set(bindDone, 0)
	}
	return nil
}

func (s *bindScanner) set(step bindStep, want int) { s.step, s.want = step, want }

func (s *bindScanner) nextParam() {
	s.param++
	if s.param < s.params {
		s.set(bindParamLength, 4)
	} else {
		s.set(bindResultCount, 2)
	}
}

// whole reports whether the scan came to the end of the message.
func (s *bindScanner) whole() bool { return s.step == bindDone && s.left == 0 }
