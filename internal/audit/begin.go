package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// tempSuffix marks files that do not have their name yet.
const tempSuffix = ".new"

// flushAt is how many bytes a new segment collects before it writes them.
const flushAt = 1 << 20

// begin starts a segment behind s.pos. Its first records (what is carried over,
// the events, a checkpoint) are on disk before the segment gets its name: it is
// there with all of them or not at all. Start and rotation, recovery from a crash
// and from a failure all come through here. Called with mu held and the disk
// owned; on success the disk has been given up, on an error it has not.
func (s *Spool) begin(cause auditlog.Cause, damaged bool, carry, events []*auditlog.Event) error {
	now := s.Now().UTC()
	h := auditlog.Header{Cause: cause, Damaged: damaged, Segment: s.pos.Segment + 1, First: s.pos.Seq + 1,
		Created: now, Prev: s.pos.Chain, Node: s.Node}
	path := filepath.Join(s.dir, auditlog.SegmentName(h.Segment))
	file, err := s.FS.Create(path + tempSuffix)
	if err != nil {
		return fmt.Errorf("begin a segment: %w", err)
	}
	w := &segmentWriter{file: file}
	w.header(h)
	for _, ev := range carry {
		w.carry(ev)
	}
	for _, ev := range events {
		ev.V, ev.Node, ev.Seq, ev.Time = auditlog.Version, s.Node, w.pos.Seq+1, now
		w.event(ev)
	}
	w.checkpoint(s)
	w.flush()
	if w.err == nil {
		w.err = file.Sync()
	}
	if w.err == nil {
		w.err = s.FS.Rename(path+tempSuffix, path)
	}
	if w.err == nil {
		w.err = s.FS.SyncDir(s.dir)
	}
	if w.err != nil {
		file.Close()
		// A segment that has its name already but may not keep it is made anew,
		// with the same number and nothing in it that anybody relies on.
		return fmt.Errorf("begin segment %d: %w", h.Segment, w.err)
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.pos, s.carried = file, w.pos, w.pos.Offset
	s.mark += uint64(w.pos.Offset)
	s.disk.replace(file, place{mark: s.mark, seq: s.pos.Seq})
	for _, ev := range events {
		s.table.observe(ev)
	}
	for _, sub := range s.subs {
		sub.publish(nil, s.pos) // a new segment's own events are read from it
	}
	return nil
}

// rotate ends the segment at hand and begins the next one. Called with mu held.
func (s *Spool) rotate() error {
	s.disk.own()
	if err := s.file.Sync(); err != nil {
		after, unsure := s.disk.broke(err)
		return s.failSync(fmt.Errorf("sync: %w", err), after, unsure)
	}
	if err := s.begin(auditlog.CauseRotate, false, s.table.open(), nil); err != nil {
		s.disk.disown()
		return s.fail(auditlog.GapWrite, err)
	}
	s.unsigned = true
	s.wake()
	return nil
}

// segmentWriter writes the start of a segment. The first error sticks.
type segmentWriter struct {
	file File
	buf  []byte // ends with the chain value of what is written
	sent int    // bytes at the start of buf that are written
	pos  auditlog.Position
	err  error
}

func (w *segmentWriter) header(h auditlog.Header) {
	w.buf, w.pos.Chain, w.err = auditlog.AppendHeader(nil, h)
	w.pos.Segment, w.pos.Offset, w.pos.Seq = h.Segment, int64(len(w.buf)), h.First-1
}

func (w *segmentWriter) event(ev *auditlog.Event) {
	w.record(auditlog.RecordEvent, func(b []byte) ([]byte, error) {
		return auditlog.AppendEventBody(auditlog.AppendEventHead(b, ev.Seq, ev.Time), ev)
	})
	w.pos.Seq++
}

func (w *segmentWriter) carry(ev *auditlog.Event) {
	w.record(auditlog.RecordCarry, func(b []byte) ([]byte, error) {
		j, err := json.Marshal(ev)
		return append(b, j...), err
	})
}

func (w *segmentWriter) record(kind auditlog.RecordKind, payload func([]byte) ([]byte, error)) {
	if w.err != nil {
		return
	}
	start := len(w.buf)
	buf, mark := auditlog.BeginRecord(w.buf, kind)
	if buf, w.err = payload(buf); w.err != nil {
		return
	}
	w.buf, w.pos.Chain, w.err = auditlog.SealRecord(buf, mark)
	w.pos.Offset += int64(len(w.buf) - start)
	if len(w.buf)-w.sent >= flushAt {
		w.flush()
	}
}

func (w *segmentWriter) checkpoint(s *Spool) {
	if w.err == nil {
		w.buf, w.pos, w.err = s.appendCheckpoint(w.buf, w.pos, false)
	}
}

func (w *segmentWriter) flush() {
	if w.err != nil {
		return
	}
	out := w.buf[w.sent:]
	n, err := w.file.Write(out)
	if err == nil && n < len(out) {
		err = io.ErrShortWrite
	}
	w.err = err
	w.sent = copy(w.buf, w.pos.Chain[:])
	w.buf = w.buf[:w.sent]
}

// removeTemps removes files that an earlier agent did not give their name.
func removeTemps(dir string) error {
	list, err := filepath.Glob(filepath.Join(dir, "*"+tempSuffix))
	if err != nil {
		return err
	}
	for _, path := range list {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
