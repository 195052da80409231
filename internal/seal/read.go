package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// ErrOtherSpool says that the spool is not the one whose events are sealed.
var ErrOtherSpool = errors.New("the spool is not the one that was sealed; restore it from a backup, or keep STATE_DIR/log/tiles and STATE_DIR/log/checkpoints " +
	"elsewhere and start again to begin a new sealed log")

// locate finds where in the spool the tree ends.
func (s *Sealer) locate(t *tree) error {
	s.last, s.pos = t.last.Seq, auditlog.Position{}
	if t.sum.Size() == 0 {
		return nil
	}
	if s.Spool.Status().Seq < s.last {
		return ErrOtherSpool
	}
	return s.find(t.last)
}

// find sets s.pos behind the event of the last leaf; when that one cannot be read
// any more, in front of the first one behind it.
func (s *Sealer) find(leaf auditlog.Entry) error {
	dir := auditlog.SpoolDir(s.StateDir)
	segments, err := auditlog.Segments(dir)
	if err != nil {
		return err
	}
	for i := len(segments) - 1; i >= 0; i-- {
		s.pos = auditlog.Position{Segment: segments[i]}
		h, err := auditlog.ReadHeader(filepath.Join(dir, auditlog.SegmentName(segments[i])))
		if err == nil && h.First <= leaf.Seq {
			break
		}
	}
	r, err := s.reader()
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		var damage *auditlog.DamageError
		switch {
		case errors.As(err, &damage):
			r.Skip()
			continue
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case rec.Kind != auditlog.RecordEvent || rec.Seq < leaf.Seq:
			continue
		case rec.Seq > leaf.Seq:
			s.pos = auditlog.Position{Segment: rec.End.Segment}
			return nil
		case !bytes.Equal(rec.Payload, leaf.Payload):
			return ErrOtherSpool
		}
		s.pos = rec.End
		return nil
	}
}

// reader reads the spool from s.pos on. It reads ahead, and behind what is on disk
// there may be bytes that the spool takes back: so each batch has its own.
func (s *Sealer) reader() (*auditlog.Reader, error) {
	dir := auditlog.SpoolDir(s.StateDir)
	if s.pos.Segment != 0 && s.pos.Offset == 0 {
		return auditlog.OpenDirSegment(dir, s.pos.Segment)
	}
	return auditlog.OpenDirAt(dir, s.pos)
}

// batch is what is sealed in one step.
type batch struct {
	leaves [][]byte
	long   [][]byte // events that are too long for their leaf
	bytes  int
	last   uint64 // number of the last event
	end    auditlog.Position
	full   bool
	// missing is what to say when numbers are missing.
	missing *auditlog.Event
}

// read reads the next events of the spool, in front of limit. What is damaged is
// passed over: that events are missing shows in their numbers, in the sealed log
// too, and the log says so.
func (s *Sealer) read(limit auditlog.Position) (*batch, error) {
	b := &batch{last: s.last, end: s.pos}
	r, err := s.reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	why := ""
	for {
		rec, err := r.Next()
		var damage *auditlog.DamageError
		switch {
		case errors.As(err, &damage):
			why = damage.Error()
			if damage.Segment >= limit.Segment {
				return s.atDamage(b, why)
			}
			r.Skip()
			continue
		case err == io.EOF:
			return b, nil
		case err != nil:
			return nil, fmt.Errorf("read the spool: %w", err)
		}
		if limit.Before(rec.End) {
			return b, nil
		}
		if rec.Kind == auditlog.RecordEvent && rec.Seq > b.last {
			if rec.Seq != b.last+1 && b.missing == nil {
				b.missing = s.missing(b.last, rec.Seq, why)
			}
			if err := b.add(rec); err != nil {
				return nil, err
			}
		}
		b.end = rec.End
		if len(b.leaves) == maxBatch || b.bytes >= maxBatchBytes {
			b.full = true
			return b, nil
		}
	}
}

// atDamage ends a batch in front of damage behind which nothing can be read yet.
func (s *Sealer) atDamage(b *batch, why string) (*batch, error) {
	if len(b.leaves) == 0 {
		return nil, fmt.Errorf("the spool is damaged (%s); `weir audit verify` says more, and a restart of the agent goes on behind it", why)
	}
	return b, nil
}

func (b *batch) add(rec auditlog.Record) error {
	payload := bytes.Clone(rec.Payload)
	leaf, err := auditlog.Leaf(payload)
	if err != nil {
		return fmt.Errorf("seal event %d: %w", rec.Seq, err)
	}
	if len(leaf) != len(payload) {
		b.long = append(b.long, payload)
	}
	b.leaves, b.bytes, b.last = append(b.leaves, leaf), b.bytes+len(payload), rec.Seq
	return nil
}

func (s *Sealer) missing(last, next uint64, why string) *auditlog.Event {
	now := s.Now().UTC()
	reason := fmt.Sprintf("events %d to %d are not in the sealed log: they cannot be read in the spool", last+1, next-1)
	if why != "" {
		reason += " (" + why + ")"
	}
	return &auditlog.Event{Kind: auditlog.Gap, Reason: reason,
		Gap: &auditlog.GapInfo{Cause: auditlog.GapDamage, From: now, To: now, After: last}}
}

// clean removes segments that are sealed and events that are expired.
func (s *Sealer) clean(ctx context.Context, now time.Time) error {
	if s.tree == nil || s.pos == (auditlog.Position{}) {
		return nil
	}
	old := time.Time{}
	if s.Retention > 0 {
		old = now.Add(-s.Retention)
	}
	keep := s.pos
	for _, where := range s.Keep {
		if p := where(); p.Before(keep) {
			keep = p
		}
	}
	n, err := s.Spool.Remove(s.pos, keep, old)
	if n > 0 {
		s.Log.Info("segments of the spool that are sealed were removed", "segments", n)
	}
	if err != nil || old.IsZero() {
		return err
	}
	err = s.expire(ctx, old)
	if errors.Is(err, audit.ErrUnwritable) {
		return nil
	}
	return err
}

// keepFile is where published heads are kept.
func (s *Sealer) keepFile() string { return auditlog.HeadsFile(s.StateDir) }
