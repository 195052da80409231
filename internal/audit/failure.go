package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// fail makes the spool refuse until a probe succeeds. It returns the error for
// those whose events the failure hit. Called with mu held.
func (s *Spool) fail(cause string, err error) error {
	if s.failure == nil {
		s.failure = &failure{err: err, cause: cause, at: s.Now().UTC(), after: s.pos.Seq}
		s.refusing.Store(true)
		s.Log.Error("the audit log cannot be written; everything is refused until it can", "dir", s.dir, "error", err)
	}
	return fmt.Errorf("%w: %w", ErrUnwritable, err)
}

// failSync is fail for a sync: the events in unsure are in the log and may not
// reach the disk. Called with mu held.
func (s *Spool) failSync(err error, after, unsure uint64) error {
	e := s.fail(auditlog.GapSync, err)
	s.failure.after, s.failure.unsure = min(s.failure.after, after), max(s.failure.unsure, unsure)
	return e
}

// attend does what a failure leaves to do: it probes a broken spool, and records
// what was refused while one was being repaired.
func (s *Spool) attend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
	case s.failure != nil:
		if err := s.recover(); err != nil {
			s.Log.Warn("the audit log still cannot be written", "dir", s.dir, "refused", s.lost.n, "error", err)
		}
	case s.removed():
	case s.lost.n > 0:
		if err := s.account(); err != nil {
			s.Log.Warn("a gap could not be recorded yet", "error", err)
		}
	}
}

// removed fails the spool when the segment that it writes to is not there any
// more, or not all of it: writing on would be writing to nowhere. Called with mu
// held.
func (s *Spool) removed() bool {
	path := filepath.Join(s.dir, auditlog.SegmentName(s.pos.Segment))
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		_ = s.fail(auditlog.GapDamage, fmt.Errorf("segment %d was removed under the running agent", s.pos.Segment))
	case err == nil && st.Size() < s.pos.Offset:
		_ = s.fail(auditlog.GapDamage, fmt.Errorf("segment %d was cut under the running agent", s.pos.Segment))
	default:
		return false
	}
	return true
}

// recover is the probe: it removes what a failed write left behind the last whole
// batch, and begins a fresh segment with a gap event. When that is on disk, the
// log can be written again. Called with mu held.
func (s *Spool) recover() error {
	s.disk.own()
	damaged := s.failure.cause == auditlog.GapDamage
	if !damaged {
		path := filepath.Join(s.dir, auditlog.SegmentName(s.pos.Segment))
		if err := s.FS.Truncate(path, s.pos.Offset); err != nil {
			s.disk.disown()
			return fmt.Errorf("remove an incomplete write: %w", err)
		}
	}
	events := append([]*auditlog.Event{s.gap()}, s.lost.closings(&s.table)...)
	if err := s.begin(auditlog.CauseFailure, damaged, s.table.open(), events); err != nil {
		s.disk.disown()
		return err
	}
	s.Log.Info("the audit log can be written again", "dir", s.dir, "refused", s.lost.n, "failed_for", s.Now().Sub(s.failure.at))
	s.failure = nil
	s.lost = lostEvents{}
	s.unsigned = true
	s.refusing.Store(false)
	return nil
}

// account records a gap for what was refused after the gap event of a recovery
// was made. Called with mu held.
func (s *Spool) account() error {
	r, err := s.encode(append([]*auditlog.Event{s.gap()}, s.lost.closings(&s.table)...))
	if err != nil {
		return err
	}
	defer s.queue.release(r)
	if err := s.writeLocked([]*request{r}); err != nil {
		return err
	}
	s.lost = lostEvents{}
	return nil
}

// gap is the event that says what was lost. Called with mu held.
func (s *Spool) gap() *auditlog.Event {
	now := s.Now().UTC()
	info := &auditlog.GapInfo{Cause: auditlog.GapWrite, From: now, To: now, After: s.pos.Seq, Lost: s.lost.n, Kinds: s.lost.kinds}
	if !s.lost.since.IsZero() {
		info.From = s.lost.since
	}
	reason := "events came while the log was being repaired; what they were about was refused"
	if f := s.failure; f != nil {
		info.Cause, info.From, info.After, info.Unsure = f.cause, f.at, f.after, f.unsure
		reason = "the log could not be written: " + f.err.Error()
	}
	return &auditlog.Event{Kind: auditlog.Gap, Reason: reason, Gap: info}
}

// maxLost bounds how many ended flows and actions a broken spool remembers. More
// stay open in the log until the agent is started again.
const maxLost = 1 << 16

// lostEvents counts what a broken spool refused. Guarded by Spool.mu.
type lostEvents struct {
	n       uint64
	kinds   map[auditlog.Kind]uint64
	since   time.Time
	flows   []string    // that ended meanwhile
	actions [][2]string // that ended meanwhile: flow and action
}

func (l *lostEvents) add(events []*auditlog.Event, now time.Time) {
	if l.n == 0 {
		l.since, l.kinds = now, make(map[auditlog.Kind]uint64)
	}
	for _, ev := range events {
		l.n++
		l.kinds[ev.Kind]++
		if len(l.flows)+len(l.actions) >= maxLost {
			continue
		}
		switch {
		case ev.Kind == auditlog.FlowClose:
			l.flows = append(l.flows, ev.Flow)
		case ev.Kind == auditlog.ActionEvent && ev.Action != nil && ev.Action.Phase == auditlog.PhaseOutcome:
			l.actions = append(l.actions, [2]string{ev.Flow, ev.Action.ID})
		}
	}
}

// closings are the events that end in the log what has ended without it.
func (l *lostEvents) closings(t *table) []*auditlog.Event {
	ended := newTable()
	for _, id := range l.flows {
		if f := t.flows[id]; f != nil {
			ended.flows[id] = f
		}
	}
	for _, a := range l.actions {
		f := t.flows[a[0]]
		if f == nil || ended.flows[a[0]] == f {
			continue
		}
		i := slices.IndexFunc(f.intents, func(ev *auditlog.Event) bool { return ev.Action.ID == a[1] })
		if i < 0 {
			continue
		}
		e := ended.flow(a[0])
		e.intents = append(e.intents, f.intents[i])
	}
	return ended.closings(flow.ReasonRecorder)
}
