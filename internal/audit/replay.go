package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// lockFile is held with flock(2) by the one writer of a directory. The kernel
// lets go of it when the writer dies.
const lockFile = "lock"

func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another weir agent writes the audit log in %s; stop it, or set another state_dir", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// replay takes the log as the agent before left it, and begins a segment with
// what there is to say about that.
func (s *Spool) replay() error {
	if err := removeTemps(s.dir); err != nil {
		return err
	}
	segments, err := auditlog.Segments(s.dir)
	if err != nil {
		return err
	}
	note, err := os.ReadFile(filepath.Join(s.dir, auditlog.CheckpointFile))
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	fresh := missing && len(segments) == 0
	if s.signer, err = loadSigner(s.StateDir, s.Node, fresh, s.Log); err != nil {
		return err
	}
	if fresh {
		// A log without a checkpoint is one whose checkpoint was removed: the
		// first one comes before the first segment.
		if err := s.writeCheckpoint(auditlog.Position{}, false); err != nil {
			return err
		}
		return s.start(auditlog.CauseFirst, finding{table: newTable(), closed: true, anew: s.signer.found})
	}
	f, err := inspect(s.dir, segments, note, s.signer.public)
	if err != nil {
		return err
	}
	cause := auditlog.CauseStart
	if f.pos == (auditlog.Position{}) && f.damage == "" {
		cause = auditlog.CauseFirst // killed between its checkpoint and its first segment
	} else if f.damage == "" {
		// Removes an incomplete record. What was written before a crash may be in
		// memory only: it must be on disk before anything is chained to it.
		path := filepath.Join(s.dir, auditlog.SegmentName(f.pos.Segment))
		if err := s.FS.Truncate(path, f.pos.Offset); err != nil {
			return fmt.Errorf("repair the last segment: %w", err)
		}
	}
	return s.start(cause, f)
}

// start begins the agent's first segment behind what was found.
func (s *Spool) start(cause auditlog.Cause, f finding) error {
	s.pos, s.table = f.pos, f.table
	var events []*auditlog.Event
	if gap := f.gap(s.Now().UTC()); gap != nil {
		s.Log.Warn("the audit log is not as the agent before should have left it", "cause", gap.Gap.Cause, "reason", gap.Reason)
		events = append(events, gap)
	}
	events = append(events, f.table.closings(flow.ReasonAgentLost)...)
	s.disk.own()
	if err := s.begin(cause, f.damage != "", nil, events); err != nil {
		s.disk.disown()
		return err
	}
	return s.writeCheckpoint(s.pos, false)
}

// finding is what replay finds.
type finding struct {
	pos    auditlog.Position // the end of what can be relied on
	table  table
	last   time.Time // of the last event
	closed bool      // the agent before signed the end
	torn   int64     // bytes of an incomplete record
	anew   bool      // there is no log, but a key of one
	damage string    // why the log is not what was written; "" when it is
}

func (f *finding) gap(now time.Time) *auditlog.Event {
	info := &auditlog.GapInfo{Cause: auditlog.GapCrash, From: f.last, To: now, After: f.pos.Seq}
	reason := "the agent ended without closing the log"
	switch {
	case f.damage != "":
		info.Cause, reason = auditlog.GapDamage, "the log was cut or altered: "+f.damage
	case f.anew:
		info.Cause, info.From = auditlog.GapDamage, now
		reason = "a new log begins although its key is older: the log before was moved away or removed, unless the very first start was interrupted"
	case f.torn > 0:
		info.Cause, info.Bytes = auditlog.GapTorn, f.torn
		reason = "the agent ended in the middle of a write; the incomplete record, which nobody relied on, was removed"
	case f.closed:
		return nil
	}
	return &auditlog.Event{Kind: auditlog.Gap, Reason: reason, Gap: info}
}

// inspect reads the newest segment: it holds or repeats all that is open.
func inspect(dir string, segments []uint64, note []byte, key auditlog.PublicKey) (finding, error) {
	f := finding{table: newTable()}
	c, noteErr := auditlog.ParseCheckpoint(note, key)
	switch {
	case len(note) == 0:
		f.damage = "the file with the last signed checkpoint is missing"
	case noteErr != nil:
		f.damage = noteErr.Error()
	case c.Inside:
		f.damage = "the file with the last signed checkpoint holds one from inside the log"
	}
	if len(segments) == 0 {
		f.pos, f.closed = c.Position, c.Position == auditlog.Position{}
		if f.damage == "" && !f.closed {
			f.damage = "all segments are missing"
		}
		return f, nil
	}
	newest := segments[len(segments)-1]
	file, err := os.Open(filepath.Join(dir, auditlog.SegmentName(newest)))
	if err != nil {
		return f, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return f, err
	}
	met := noteErr != nil || c.Position.Segment < newest
	err = f.read(file, newest, key, func(p auditlog.Position) {
		met = met || p == c.Position
	})
	var damage *auditlog.DamageError
	switch {
	case errors.As(err, &damage):
		f.damage = damage.Error()
	case err != nil:
		return f, err
	case f.pos.Offset < st.Size():
		f.torn = st.Size() - f.pos.Offset
	}
	if f.damage == "" && (!met || (c.Closed && c.Position.Segment == newest && (c.Position != f.pos || f.torn > 0))) {
		f.damage = fmt.Sprintf("the log ends after event %d, which is not where the checkpoint signed at %s says (event %d)",
			f.pos.Seq, c.Time.Format(time.RFC3339), c.Position.Seq)
	}
	if f.damage != "" {
		f.leap(newest, st.Size(), c.Position)
	}
	return f, nil
}

// leap moves the end of a damaged log to where no number that it used can be used
// again.
func (f *finding) leap(newest uint64, size int64, signed auditlog.Position) {
	unread := uint64(size-f.pos.Offset) / auditlog.MinRecord
	if f.pos.Chain == (auditlog.Chain{}) {
		f.pos.Chain = signed.Chain
	}
	f.pos.Segment = max(newest, signed.Segment)
	f.pos.Seq = max(f.pos.Seq, signed.Seq) + unread
}

// read replays segment n and tells each position in it to at.
func (f *finding) read(src io.Reader, n uint64, key auditlog.PublicKey, at func(auditlog.Position)) error {
	seg, err := auditlog.NewSegmentReader(src)
	if errors.Is(err, auditlog.ErrTorn) {
		return &auditlog.DamageError{Segment: n, Why: "the header is not complete"}
	}
	if err != nil {
		return err
	}
	if h := seg.Header(); h.Segment != n {
		return &auditlog.DamageError{Segment: n, Why: fmt.Sprintf("the segment is number %d by its header", h.Segment)}
	}
	f.pos, f.last = seg.Position(), seg.Header().Created
	at(f.pos)
	for {
		rec, err := seg.Next()
		if err == io.EOF || errors.Is(err, auditlog.ErrTorn) {
			return nil
		}
		if err == nil {
			err = f.record(rec, key)
		}
		if err != nil {
			return err
		}
		f.pos = rec.End
		at(f.pos)
	}
}

func (f *finding) record(rec auditlog.Record, key auditlog.PublicKey) error {
	wrong := func(err error) error {
		return &auditlog.DamageError{Segment: f.pos.Segment, Offset: f.pos.Offset, Seq: f.pos.Seq + 1, Why: err.Error()}
	}
	f.closed = false
	if rec.Kind == auditlog.RecordCheckpoint {
		c, err := auditlog.ParseCheckpoint(rec.Payload, key)
		if err != nil {
			return wrong(err)
		}
		f.closed = c.Closed
		return nil
	}
	ev := new(auditlog.Event)
	if err := json.Unmarshal(rec.Payload, ev); err != nil {
		return wrong(errors.New("the record does not hold an event"))
	}
	if rec.Kind == auditlog.RecordEvent {
		f.last = ev.Time
	}
	f.table.observe(ev)
	return nil
}
