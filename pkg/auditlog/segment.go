package auditlog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// ErrTorn is the error of bytes at the end of a segment that are the beginning
// of a record: a write that has not ended, because it is under way or because
// its writer was killed. Nobody was told that such a record exists.
var ErrTorn = errors.New("the last record is not complete")

// DamageError is the error of a log that is not what was written.
type DamageError struct {
	Segment uint64 // number of the segment, 0 when it has no readable header
	Offset  int64  // bytes from its start to the first wrong record
	Seq     uint64 // of the first event that is wrong or missing, as far as known
	Why     string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("segment %d, offset %d, event %d: %s", e.Segment, e.Offset, e.Seq, e.Why)
}

// errShort asks for more bytes than there are.
var errShort = errors.New("too few bytes")

// Record is one record of a segment.
type Record struct {
	Kind    RecordKind
	Seq     uint64 // of the event; for other kinds of the event before
	Payload []byte // valid until the next call of Next
	Start   int64  // its offset in the segment
	End     Position
}

// SegmentReader reads one segment and checks its chain. Its memory is bounded by
// the longest record in it, MaxPayload.
type SegmentReader struct {
	src    io.Reader
	header Header
	pos    Position
	sha    hash.Hash

	buf        []byte // buf[start:end] is read and not consumed
	start, end int
	err        error // sticky
}

// readBuffer is how much a SegmentReader reads at once, bytes.
const readBuffer = 64 << 10

// NewSegmentReader reads the header. An incomplete header gives ErrTorn, any
// other wrong one a *DamageError.
func NewSegmentReader(src io.Reader) (*SegmentReader, error) {
	r := &SegmentReader{src: src, sha: sha256.New(), buf: make([]byte, readBuffer)}
	if err := r.fill(maxHeaderLen); err != nil && !errors.Is(err, errShort) {
		return nil, fmt.Errorf("read a segment: %w", err)
	}
	h, n, err := parseHeader(r.buf[:r.end])
	if errors.Is(err, errShort) {
		return nil, ErrTorn
	}
	if err != nil {
		return nil, &DamageError{Why: err.Error()}
	}
	r.header, r.start = h, n
	r.pos = Position{Segment: h.Segment, Offset: int64(n), Seq: h.First - 1, Chain: h.Chain}
	return r, nil
}

// ReadHeader reads the header of the segment in a file.
func ReadHeader(path string) (Header, error) {
	f, err := os.Open(path)
	if err != nil {
		return Header{}, err
	}
	defer f.Close()
	r, err := NewSegmentReader(f)
	if err != nil {
		return Header{}, err
	}
	return r.Header(), nil
}

// resumeSegment goes on at p in the segment whose header is h; src stands at p.
func resumeSegment(src io.Reader, h Header, p Position) *SegmentReader {
	return &SegmentReader{src: src, header: h, pos: p, sha: sha256.New(), buf: make([]byte, readBuffer)}
}

// Header is the segment's header.
func (r *SegmentReader) Header() Header { return r.header }

// Position is where the next record starts.
func (r *SegmentReader) Position() Position { return r.pos }

// Next returns the next record; io.EOF at the end of the segment. ErrTorn may go
// away when the writer goes on; a *DamageError does not.
func (r *SegmentReader) Next() (Record, error) {
	if r.err != nil {
		return Record{}, r.err
	}
	rec, err := r.next()
	var damage *DamageError
	if errors.As(err, &damage) {
		r.err = err
	}
	return rec, err
}

func (r *SegmentReader) next() (Record, error) {
	if err := r.fill(recordHead); err != nil {
		return Record{}, r.atEnd(err)
	}
	kind, n, err := parseHead(r.buf[r.start:])
	if err != nil {
		if r.onlyZeros() {
			r.err = ErrTorn // the zeros are consumed
			return Record{}, ErrTorn
		}
		return Record{}, r.damage("%v", err)
	}
	if err := r.fill(n + recordExtra); err != nil {
		return Record{}, r.atEnd(err)
	}
	raw := r.buf[r.start : r.start+n+recordExtra]
	body := raw[:recordHead+n]
	var sum Chain
	r.sha.Reset()
	r.sha.Write(r.pos.Chain[:])
	r.sha.Write(body)
	r.sha.Sum(sum[:0])
	if string(sum[:]) != string(raw[recordHead+n:]) {
		return Record{}, r.damage("the record does not continue the hash chain")
	}
	seq := r.pos.Seq
	if kind == RecordEvent {
		seq++
		if got, ok := seqOf(body[recordHead:]); !ok || got != seq {
			return Record{}, r.damage("the record should hold event %d", seq)
		}
	}
	start := r.pos.Offset
	r.start += len(raw)
	r.pos = Position{Segment: r.pos.Segment, Offset: start + int64(len(raw)), Seq: seq, Chain: sum}
	return Record{Kind: kind, Seq: seq, Payload: body[recordHead:], Start: start, End: r.pos}, nil
}

// atEnd turns "too few bytes" into the end of the segment or a torn record.
func (r *SegmentReader) atEnd(err error) error {
	if !errors.Is(err, errShort) {
		return fmt.Errorf("read a segment: %w", err)
	}
	if r.start == r.end {
		return io.EOF
	}
	return ErrTorn
}

func (r *SegmentReader) damage(format string, args ...any) error {
	return &DamageError{Segment: r.pos.Segment, Offset: r.pos.Offset, Seq: r.pos.Seq + 1, Why: fmt.Sprintf(format, args...)}
}

// onlyZeros reports whether the rest of the segment is zeros: what some file
// systems leave of a write after a loss of power. It consumes the rest.
func (r *SegmentReader) onlyZeros() bool {
	for {
		for _, b := range r.buf[r.start:r.end] {
			if b != 0 {
				return false
			}
		}
		r.start = r.end
		if err := r.fill(1); err != nil {
			return errors.Is(err, errShort)
		}
	}
}

// fill makes n unconsumed bytes available; errShort when the source has fewer.
// It may be called again when the source has grown.
func (r *SegmentReader) fill(n int) error {
	if r.end-r.start >= n {
		return nil
	}
	if r.start+n > len(r.buf) {
		dst := r.buf
		if n > len(r.buf) {
			dst = make([]byte, max(n, min(2*len(r.buf), MaxPayload+recordExtra)))
		}
		r.end = copy(dst, r.buf[r.start:r.end])
		r.buf, r.start = dst, 0
	}
	for r.end-r.start < n {
		m, err := r.src.Read(r.buf[r.end:])
		r.end += m
		if err == io.EOF || (m == 0 && err == nil) {
			if r.end-r.start >= n {
				return nil
			}
			return errShort
		}
		if err != nil {
			return err
		}
	}
	return nil
}
