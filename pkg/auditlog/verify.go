package auditlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Report is what a verification found.
type Report struct {
	Dir  string
	Node string // by the newest segment
	Key  PublicKey

	Segments    int
	Bytes       int64
	Events      uint64
	FirstSeq    uint64
	LastSeq     uint64
	First, Last time.Time // of the first and the last event
	Checkpoints int       // signed ones inside the log
	Gaps        int       // gap events: what the log says that it could not keep

	// Checkpoint is the one in the file beside the log.
	Checkpoint *Checkpoint
	// Uncovered counts the events behind that checkpoint: chained, not yet signed.
	Uncovered uint64
	// Unfinished is the length of an incomplete record at the very end, bytes: a
	// write under way, or one that a crash cut short and that nobody relied on.
	Unfinished int64

	// Wrong is the first wrong entry, nil when the log is intact.
	Wrong *DamageError
}

// Intact reports whether nothing wrong was found.
func (r *Report) Intact() bool { return r.Wrong == nil }

// ErrNoLog is the error of a directory in which there is no log.
var ErrNoLog = errors.New("there is no audit log here")

// Verify reads the whole log in dir (see SpoolDir) and checks it with the public
// key alone: every hash, the place of every segment and event, every signature,
// and that the log reaches as far as the checkpoint beside it. The error is that
// of a log that could not be read; what is wrong with one that could is in the
// report. An agent may write to the log meanwhile. A log whose first segments
// were removed, because they are sealed, is VerifyLog's business.
func Verify(dir string, key PublicKey) (*Report, error) {
	return verifySpool(dir, key, func() (uint64, error) { return 0, nil })
}

// verifySpool is Verify with sealed, which returns the number of the last event
// that is sealed: up to there segments may be gone. It is asked after they were
// listed, since an agent removes what it has sealed before.
func verifySpool(dir string, key PublicKey, sealed func() (uint64, error)) (*Report, error) {
	v := &verifier{report: &Report{Dir: dir, Key: key}, sealed: sealed}
	// The checkpoint first: the log is at least as long as it was then.
	note, err := os.ReadFile(filepath.Join(dir, CheckpointFile))
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return nil, fmt.Errorf("read the checkpoint: %w", err)
	}
	segments, err := Segments(dir)
	if errors.Is(err, os.ErrNotExist) || (err == nil && len(segments) == 0 && missing) {
		return nil, fmt.Errorf("%w: %s", ErrNoLog, dir)
	}
	if err != nil {
		return nil, err
	}
	var noteErr error
	if missing {
		noteErr = errors.New("the file with the last signed checkpoint is missing: the end of the log may have been cut off")
	} else if c, err := ParseCheckpoint(note, key); err != nil {
		noteErr = fmt.Errorf("the file %s: %w", CheckpointFile, err)
	} else if c.Inside {
		noteErr = fmt.Errorf("the file %s holds a checkpoint from inside the log: the end of the log may have been cut off", CheckpointFile)
	} else {
		v.report.Checkpoint = &c
		v.found = c.Position == Position{}
	}
	for i, n := range segments {
		err := v.segment(n, i == len(segments)-1)
		var damage *DamageError
		if errors.As(err, &damage) {
			v.report.Wrong = damage
			return v.report, nil
		}
		if err != nil {
			return nil, err
		}
	}
	v.end(noteErr)
	return v.report, nil
}

type verifier struct {
	report *Report
	pos    Position // up to here the log is right
	found  bool     // the checkpoint's position was met
	sealed func() (uint64, error)
}

// segment checks segment n. Damage is returned as a *DamageError.
func (v *verifier) segment(n uint64, newest bool) error {
	file, err := os.Open(filepath.Join(v.report.Dir, SegmentName(n)))
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer file.Close()
	seg, err := NewSegmentReader(file)
	if errors.Is(err, ErrTorn) {
		err = &DamageError{Why: "the header is not complete"}
	}
	var damage *DamageError
	if errors.As(err, &damage) {
		return &DamageError{Segment: n, Seq: v.pos.Seq + 1, Why: damage.Why}
	}
	if err != nil {
		return err
	}
	if err := v.begin(seg.Header(), n); err != nil {
		return err
	}
	v.pos = seg.Position()
	if err := v.meet(v.pos); err != nil {
		return err
	}
	for {
		before := v.pos
		rec, err := seg.Next()
		switch {
		case err == nil:
			err = v.record(rec, before)
		case err == io.EOF:
			return v.leave(file, newest, false)
		case errors.Is(err, ErrTorn):
			return v.leave(file, newest, true)
		}
		if err != nil {
			return err
		}
	}
}

// begin checks a header.
func (v *verifier) begin(h Header, n uint64) error {
	wrong := func(why string) error { return &DamageError{Segment: n, Seq: v.pos.Seq + 1, Why: why} }
	first := v.report.Segments == 0
	if first && n != 1 {
		sealed, err := v.sealed()
		if err != nil {
			return err
		}
		if sealed == 0 || h.First > sealed+1 {
			return wrong("the segments before this one are missing, and not all of their events are in the sealed log")
		}
	}
	if why := linkProblem(h, n, v.pos, v.pos.Segment); why != "" {
		return wrong(why)
	}
	if first && n == 1 && (h.Prev != Chain{} || h.First != 1 || h.Cause != CauseFirst) {
		return wrong("the header is not that of a log's first segment")
	}
	if !first && h.Cause == CauseFirst {
		return wrong("the header is that of a log's first segment")
	}
	if h.Damaged {
		return wrong(fmt.Sprintf("when the agent began this segment (%s) it found the log before it cut or altered; the gap event here says more",
			h.Created.Format(time.RFC3339)))
	}
	v.report.Segments++
	v.report.Node = h.Node
	return nil
}

// record checks what a record holds, its hash being right.
func (v *verifier) record(rec Record, before Position) error {
	wrong := func(why string) error {
		return &DamageError{Segment: before.Segment, Offset: before.Offset, Seq: before.Seq + 1, Why: why}
	}
	switch rec.Kind {
	case RecordEvent:
		if err := v.event(rec); err != nil {
			return wrong(err.Error())
		}
	case RecordCheckpoint:
		c, err := ParseCheckpoint(rec.Payload, v.report.Key)
		if err != nil {
			return wrong(err.Error())
		}
		if c.Position != before || !c.Inside {
			return wrong("the checkpoint here was signed for another log or another place")
		}
		v.report.Checkpoints++
	case RecordCarry:
		if !json.Valid(rec.Payload) {
			return wrong("the record does not hold JSON")
		}
	}
	v.pos = rec.End
	return v.meet(rec.End)
}

var gapKind = []byte(`"kind":"gap"`)

func (v *verifier) event(rec Record) error {
	r := v.report
	// Decoding all events would take ten times longer than the hashes do.
	if !json.Valid(rec.Payload) {
		return errors.New("the record does not hold JSON")
	}
	at, ok := timeOf(rec.Payload)
	if !ok {
		return errors.New("the event has no time")
	}
	if r.Events == 0 {
		r.FirstSeq, r.First = rec.Seq, at
	}
	r.LastSeq, r.Last = rec.Seq, at
	r.Events++
	if r.Checkpoint != nil && rec.Seq > r.Checkpoint.Position.Seq {
		r.Uncovered++
	}
	if bytes.Contains(rec.Payload, gapKind) {
		var ev Event
		if json.Unmarshal(rec.Payload, &ev) == nil && ev.Kind == Gap {
			r.Gaps++
		}
	}
	return nil
}

// timeOf reads the time out of an event's JSON as the log's writer orders it.
func timeOf(payload []byte) (time.Time, bool) {
	_, rest, ok := bytes.Cut(payload, []byte(`,"time":"`))
	if !ok {
		return time.Time{}, false
	}
	text, _, ok := bytes.Cut(rest, []byte{'"'})
	if !ok || len(text) > len(time.RFC3339Nano) {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(text))
	return at, err == nil
}

// meet compares p with the checkpoint beside the log once it is there.
func (v *verifier) meet(p Position) error {
	c := v.report.Checkpoint
	if v.found || c == nil || p.Before(c.Position) {
		return nil
	}
	if p != c.Position {
		return &DamageError{Segment: p.Segment, Offset: p.Offset, Seq: p.Seq,
			Why: fmt.Sprintf("the log is not the one whose checkpoint was signed at %s", c.Time.Format(time.RFC3339))}
	}
	v.found = true
	return nil
}

// leave ends a segment at v.pos.
func (v *verifier) leave(file *os.File, newest, torn bool) error {
	wrong := func(why string) error {
		return &DamageError{Segment: v.pos.Segment, Offset: v.pos.Offset, Seq: v.pos.Seq + 1, Why: why}
	}
	v.report.Bytes += v.pos.Offset
	c := v.report.Checkpoint
	if c != nil && !v.found && v.pos.Segment >= c.Position.Segment {
		return wrong(v.cutOff())
	}
	if !torn {
		if c != nil && c.Closed && c.Position.Segment == v.pos.Segment && c.Position != v.pos {
			return wrong("records follow the signed end of this segment")
		}
		return nil
	}
	if !newest {
		return wrong("the segment ends within a record")
	}
	if c != nil && c.Closed && c.Position.Segment == v.pos.Segment {
		return wrong("bytes follow the signed end of the log")
	}
	if st, err := file.Stat(); err == nil {
		v.report.Unfinished = max(0, st.Size()-v.pos.Offset)
	}
	return nil
}

func (v *verifier) cutOff() string {
	c := v.report.Checkpoint
	return fmt.Sprintf("the log ends here, after event %d, but the checkpoint signed at %s covers event %d: its end was cut off",
		v.pos.Seq, c.Time.Format(time.RFC3339), c.Position.Seq)
}

// end checks what can be said when all segments are read.
func (v *verifier) end(noteErr error) {
	switch c := v.report.Checkpoint; {
	case noteErr != nil:
		v.report.Wrong = &DamageError{Segment: v.pos.Segment, Offset: v.pos.Offset, Seq: v.pos.Seq + 1, Why: noteErr.Error()}
	case c != nil && !v.found:
		v.report.Wrong = &DamageError{Segment: v.pos.Segment + 1, Seq: v.pos.Seq + 1, Why: v.cutOff()}
	}
}
