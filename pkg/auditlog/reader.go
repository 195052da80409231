package auditlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Reader reads the records of a whole log in order, while an agent writes to it
// too. It is not safe for concurrent use.
type Reader struct {
	dir    string
	number uint64 // of the segment at hand; 0 before the first
	last   Position
	file   *os.File
	seg    *SegmentReader
	// final is set when a later segment exists: what the segment at hand holds
	// now is all that it will ever hold.
	final bool
	torn  bool // final, and ends within a record
	// ahead is set when records were returned that their writer has taken back
	// since. The next segment follows those before them.
	ahead bool
}

// OpenDir makes a reader at the start of the log in dir (see SpoolDir).
func OpenDir(dir string) (*Reader, error) { return OpenDirAt(dir, Position{}) }

// OpenDirAt makes a reader at p, which an earlier read of the same log returned.
// The zero Position is the start.
func OpenDirAt(dir string, p Position) (*Reader, error) {
	if _, err := Segments(dir); err != nil {
		return nil, err
	}
	r := &Reader{dir: dir, number: p.Segment, last: p}
	if p.Segment == 0 {
		return r, nil
	}
	if err := r.openSegment(); err != nil {
		r.Close()
		return nil, err
	}
	if _, err := r.file.Seek(p.Offset, io.SeekStart); err != nil {
		r.Close()
		return nil, fmt.Errorf("read the log: %w", err)
	}
	r.seg = resumeSegment(r.file, r.seg.Header(), p)
	return r, nil
}

// OpenDirSegment makes a reader at the start of segment n, whatever stands before
// it.
func OpenDirSegment(dir string, n uint64) (*Reader, error) {
	r := &Reader{dir: dir, number: n}
	if err := r.openSegment(); err != nil {
		return nil, err
	}
	return r, nil
}

// Close closes the reader.
func (r *Reader) Close() {
	if r.file != nil {
		r.file.Close()
	}
	r.file, r.seg = nil, nil
}

// Position is where the next record starts.
func (r *Reader) Position() Position {
	if r.seg != nil {
		return r.seg.Position()
	}
	return r.last
}

// Header is the header of the segment that it reads.
func (r *Reader) Header() Header { return r.seg.Header() }

// Next returns the next record. io.EOF means that there is no more for now: call
// again to see what was written since. After a *DamageError, Skip goes on behind
// the damage.
func (r *Reader) Next() (Record, error) {
	for {
		if r.seg == nil {
			if err := r.nextSegment(); err != nil {
				return Record{}, err
			}
		}
		rec, err := r.seg.Next()
		if err == nil {
			return rec, nil
		}
		if err != io.EOF && !errors.Is(err, ErrTorn) {
			return Record{}, err
		}
		if !r.final {
			later, lookErr := r.laterSegment()
			if lookErr != nil {
				return Record{}, lookErr
			}
			if later == 0 {
				return Record{}, io.EOF
			}
			// What came between the read and the look is read now, and what was read
			// ahead is read again: a writer takes back a write that failed.
			if err := r.reread(); err != nil {
				return Record{}, err
			}
			continue
		}
		if errors.Is(err, ErrTorn) {
			r.torn = true
			return Record{}, r.seg.damage("the segment ends within a record")
		}
		r.leave()
	}
}

// reread reads the rest of a segment anew that nobody writes to any more.
func (r *Reader) reread() error {
	pos := r.seg.Position()
	st, err := r.file.Stat()
	if err == nil {
		_, err = r.file.Seek(pos.Offset, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	r.final, r.ahead = true, st.Size() < pos.Offset
	r.seg = resumeSegment(r.file, r.seg.Header(), pos)
	return nil
}

// Skip goes on behind damage: with the next segment, if the one at hand cannot be
// read on.
func (r *Reader) Skip() {
	if r.seg != nil && (r.seg.err != nil || r.torn) {
		r.leave()
	}
}

func (r *Reader) leave() {
	r.last = r.seg.Position()
	r.Close()
}

// laterSegment returns the number of the next segment, 0 if there is none.
func (r *Reader) laterSegment() (uint64, error) {
	if _, err := os.Stat(filepath.Join(r.dir, SegmentName(r.number+1))); err == nil {
		return r.number + 1, nil
	}
	list, err := Segments(r.dir)
	if err != nil {
		return 0, err
	}
	for _, n := range list {
		if n > r.number {
			return n, nil
		}
	}
	return 0, nil
}

// nextSegment opens the next segment; io.EOF when there is none yet. It makes the
// step also when it reports damage, so that Skip can go on.
func (r *Reader) nextSegment() error {
	number, err := r.laterSegment()
	if err != nil {
		return err
	}
	if number == 0 {
		return io.EOF
	}
	before, ahead := r.number, r.ahead
	r.number = number
	if err := r.openSegment(); err != nil {
		return err
	}
	h := r.seg.Header()
	if why := linkProblem(h, number, r.last, before); why != "" && !ahead {
		return &DamageError{Segment: number, Seq: h.First, Why: why}
	}
	return nil
}

// linkProblem says why a segment does not follow the position last in segment
// before, "" when it does.
func linkProblem(h Header, number uint64, last Position, before uint64) string {
	switch {
	case h.Segment != number:
		return fmt.Sprintf("the segment is number %d by its header", h.Segment)
	case number != before+1 && before != 0:
		return fmt.Sprintf("segment %d is missing", before+1)
	case before == 0:
		return "" // where a log starts is Verify's business
	case h.Prev != last.Chain:
		return "the segment does not continue the hash chain of the one before"
	case !h.Damaged && h.First != last.Seq+1:
		return fmt.Sprintf("event %d should come next", last.Seq+1)
	}
	return ""
}

func (r *Reader) openSegment() error {
	r.final, r.torn, r.ahead = false, false, false
	file, err := os.Open(filepath.Join(r.dir, SegmentName(r.number)))
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	seg, err := NewSegmentReader(file)
	if err != nil {
		file.Close()
		if errors.Is(err, ErrTorn) {
			// A segment gets its name when its header is complete.
			err = &DamageError{Why: "the header is not complete"}
		}
		var damage *DamageError
		if errors.As(err, &damage) {
			damage.Segment, damage.Seq = r.number, r.last.Seq+1
		}
		return err
	}
	r.file, r.seg = file, seg
	return nil
}
