package auditlog

import (
	"errors"
	"io"
	"io/fs"
	"iter"
)

// LogEvent is an event as LogReader finds it.
type LogEvent struct {
	Seq     uint64
	Payload []byte // its JSON; valid until the next call of Next
	// Sealed says that Index is its index in the sealed log.
	Sealed bool
	Index  uint64
}

// LogReader reads all events of a node in order: the sealed log, then what is in
// the spool only. An agent may write meanwhile. It is not safe for concurrent use.
type LogReader struct {
	stateDir string
	key      PublicKey

	origin string
	size   uint64 // leaves that were read
	seq    uint64 // of the last event that was read
	broken bool   // the sealed log was given up, see Skip
	next   func() (Entry, error, bool)
	stop   func()
	spool  *Reader
}

// OpenLog makes a reader at the start of the log in a state directory. Key
// verifies the sealed log's checkpoint; a log that is not sealed yet is read from
// the spool alone. A *SealedError comes with a reader whose Skip goes on.
func OpenLog(stateDir string, key PublicKey) (*LogReader, error) {
	return OpenLogAt(stateDir, key, 0)
}

// OpenLogAt is OpenLog from the event with that number on.
func OpenLogAt(stateDir string, key PublicKey, seq uint64) (*LogReader, error) {
	r := &LogReader{stateDir: stateDir, key: key}
	if seq > 1 {
		r.seq = seq - 1
		tiles, err := OpenTiles(TilesDir(stateDir), key)
		if err == nil {
			r.size, err = tiles.Find(seq)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
	}
	return r, r.openTiles()
}

// openTiles reads on in the sealed log, as far as it reaches now.
func (r *LogReader) openTiles() error {
	if r.broken {
		return nil
	}
	tiles, err := OpenTiles(TilesDir(r.stateDir), r.key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.origin = tiles.Head().Origin
	if tiles.Head().Size > r.size {
		r.next, r.stop = iter.Pull2(tiles.Entries(r.size, tiles.Head().Size))
	}
	return nil
}

// Origin names the sealed log; "" when there is none.
func (r *LogReader) Origin() string { return r.origin }

// Close closes the reader.
func (r *LogReader) Close() {
	if r.stop != nil {
		r.stop()
		r.next, r.stop = nil, nil
	}
	if r.spool != nil {
		r.spool.Close()
		r.spool = nil
	}
}

// Next returns the next event. io.EOF means that there is no more for now: call
// again to see what was written since. A *RemovedError tells of events that are
// not there any more; behind it the next call goes on. A *DamageError tells of damage
// in the spool, a *SealedError of damage in the sealed log: Skip passes it.
func (r *LogReader) Next() (LogEvent, error) {
	for {
		if r.next != nil {
			ev, ok, err := r.sealed()
			if ok || err != nil {
				return ev, err
			}
			continue
		}
		if r.spool == nil {
			if err := r.openSpool(); err != nil {
				return LogEvent{}, err
			}
			if r.next != nil {
				continue
			}
		}
		rec, err := r.spool.Next()
		var damage *DamageError
		if errors.As(err, &damage) {
			// Segments that were removed meanwhile are in the sealed log.
			if err := r.openTiles(); err != nil {
				return LogEvent{}, err
			}
			if r.next != nil {
				r.spool.Close()
				r.spool = nil
				continue
			}
		}
		if err != nil {
			return LogEvent{}, err
		}
		if rec.Kind != RecordEvent || rec.Seq <= r.seq {
			continue
		}
		r.seq = rec.Seq
		return LogEvent{Seq: rec.Seq, Payload: rec.Payload}, nil
	}
}

// sealed reads from the sealed log; false at its end.
func (r *LogReader) sealed() (LogEvent, bool, error) {
	e, err, ok := r.next()
	if !ok {
		r.stop()
		r.next, r.stop = nil, nil
		return LogEvent{}, false, nil
	}
	var removed *RemovedError
	if errors.As(err, &removed) {
		r.size = removed.To
		return LogEvent{}, false, err
	}
	if err != nil {
		return LogEvent{}, false, err
	}
	r.size = e.Index + 1
	if e.Seq <= r.seq {
		return LogEvent{}, false, nil // was read from the spool
	}
	r.seq = e.Seq
	return LogEvent{Seq: e.Seq, Payload: e.Payload, Sealed: true, Index: e.Index}, true, nil
}

// openSpool finds the segment that holds the event after the last one. Segments
// that went meanwhile were sealed before that: then the sealed log has grown, and
// r.next is set again.
func (r *LogReader) openSpool() error {
	dir := SpoolDir(r.stateDir)
	for again := false; ; again = true {
		segments, err := Segments(dir)
		if errors.Is(err, fs.ErrNotExist) && r.origin != "" {
			return io.EOF // the sealed log alone, a copy
		}
		if err != nil {
			return err
		}
		if len(segments) == 0 {
			return io.EOF
		}
		spool, err := r.segmentOf(dir, segments)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed
		}
		if err != nil {
			return err
		}
		if spool.seg.Header().First > r.seq+1 && !again {
			spool.Close()
			if err := r.openTiles(); err != nil || r.next != nil {
				return err
			}
			continue
		}
		r.spool = spool
		return nil
	}
}

// segmentOf opens the newest segment that can hold the next event, else the
// oldest.
func (r *LogReader) segmentOf(dir string, segments []uint64) (*Reader, error) {
	for i := len(segments) - 1; ; i-- {
		spool, err := OpenDirSegment(dir, segments[i])
		if i == 0 || errors.Is(err, fs.ErrNotExist) {
			return spool, err
		}
		if err != nil {
			continue // damage, which is met again from the segment before
		}
		if spool.seg.Header().First <= r.seq+1 {
			return spool, nil
		}
		spool.Close()
	}
}

// Skip goes on behind damage: behind that of the sealed log with what the spool
// has.
func (r *LogReader) Skip() {
	if r.spool != nil {
		r.spool.Skip()
		return
	}
	r.broken = true
	if r.stop != nil {
		r.stop()
		r.next, r.stop = nil, nil
	}
}
