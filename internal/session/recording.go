package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// Recordings makes recordings of what passes in flows whose policy asks for it.
type Recordings interface {
	// Ready says why no recording could begin just now; nil when one could.
	Ready() error
	// Start begins a recording. about is what the log's events about it say of its flow.
	Start(ctx context.Context, about *auditlog.Event, format string) (Recording, error)
}

// Recording is one that runs. Its methods are safe for concurrent use.
type Recording interface {
	// Originals reports whether it may hold what stands behind a mask: it is sealed to
	// the auditors' keys.
	Originals() bool
	// Write adds an entry, which it does not keep. After an error nothing more is taken.
	Write(e *Entry) error
	// Close brings what it has to the disk and ends it. reason is the flow's (Reason*).
	Close(reason flow.Reason) error
}

// EntryKind is the type of an Entry.
type EntryKind string

// The kinds of entries. The first ones are the gate's, the others an engine's.
const (
	EntryAction  EntryKind = "action"  // is forwarded: Action, Text, Params
	EntryRefused EntryKind = "refused" // is not: Action, Text, Params; Data says why
	EntryOutcome EntryKind = "outcome" // Action, Status, Code, N rows

	EntryColumns EntryKind = "columns" // Values are the names of what follows
	EntryRow     EntryKind = "row"     // N counts rows of the recording; Values
	EntryResult  EntryKind = "result"  // of a function call: Values
	EntryDone    EntryKind = "done"    // Text is the server's word on what it did
	EntryError   EntryKind = "error"   // Code, Text
	EntryNotice  EntryKind = "notice"  // Code, Text
	EntryCopyIn  EntryKind = "copy_in" // Data, as the client sent it
	EntryCopyOut EntryKind = "copy_out"
	// EntryOriginal is what stands behind a mask, in sealed recordings only: of row N
	// Column, of parameter Column of Action (N is 0), or of the message that follows
	// (Column is -1); Data.
	EntryOriginal EntryKind = "original"

	EntryOutput EntryKind = "o" // of a terminal: Data
	EntryInput  EntryKind = "i" // Data
	EntryResize EntryKind = "r" // Text is COLUMNSxROWS
)

// Entry is one line of a recording. Which fields count is said by its kind.
type Entry struct {
	Kind         EntryKind
	Action       string // its id
	Status, Code string
	Text         string
	Params       []string
	N            int64
	Column       int // from 0
	Values       []Value
	Data         Value
}

// Value is a value as the client saw it.
type Value struct {
	Bytes []byte
	Null  bool
	Cut   int64 // bytes left out at its end
}

// RecordingHandler is a Handler whose flows can be recorded: what it relays goes
// through a RecordedEngine.
type RecordingHandler interface {
	Handler
	Recorded() bool
}

// RecordedEngine is an Engine that can tell what passes through it.
type RecordedEngine interface {
	Engine
	// StartRecording makes the engine collect what Record passes on; with originals also
	// what stands behind masks. It is called between two steps.
	StartRecording(originals bool)
	// Record passes to keep what a step put into out. It is called after every step,
	// before anything of out is written. The first error of keep ends it and is
	// returned.
	Record(out *Output, keep func(*Entry) error) error
	StopRecording()
}

// ErrRecorder is the cause for which a flow is cut whose recording has failed.
var ErrRecorder = errors.New("the recording of this session has failed, and the policy does not let it go on without one")

// recording is what a gate knows of its flow's recording; guarded by the gate's mu.
type recording struct {
	running Recording
	strict  string // policy.Record*: the strictest that was asked for
	at      string // that the connection's own admission asked for
	off     bool   // failed, and the policy let the flow go on
	can     bool   // the handler can be recorded
}

// Recording is the one that runs; nil for none.
func (g *Gate) Recording() Recording {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.recording.running
}

// ready refuses a connection that could not be recorded by somebody whose every
// session is to be (policy.RecordRefuse).
func (g *Gate) ready(strict string) *Refusal {
	if strict != policy.RecordRefuse || g.server.Observe {
		return nil
	}
	if err := g.canRecord(); err != nil {
		return g.unrecorded(err)
	}
	if err := g.server.Recordings.Ready(); err != nil {
		return g.unrecorded(err)
	}
	return nil
}

func (g *Gate) canRecord() error {
	switch {
	case g.server.Recordings == nil:
		return errors.New("no recorder is configured")
	case !g.recording.can:
		return fmt.Errorf("weir has no recorder for protocol %q", g.flow.Protocol)
	}
	return nil
}

// unrecorded is the refusal of what cannot be recorded.
func (g *Gate) unrecorded(err error) *Refusal {
	g.server.Log.Error("a session cannot be recorded, so it is refused as the policy wants", "flow", g.flow.ID, "error", err)
	return &Refusal{Reason: flow.ReasonRecorder, Fatal: true,
		Message: "weir: this session has to be recorded and cannot be just now, so it is refused; tell whoever runs weir on this node (its log and `weir status` say why)"}
}

// record sees to it that a recording runs when the policy asks for one.
func (g *Gate) record(ctx context.Context, strict string) *Refusal {
	if strict == "" {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r := &g.recording
	r.strict = policy.Stricter(r.strict, strict)
	if r.running != nil || r.off && r.strict == policy.RecordContinue {
		return nil
	}
	err := g.canRecord()
	if err == nil {
		r.running, err = g.server.Recordings.Start(ctx, g.event(auditlog.Recording), auditlog.RecordingEvents)
	}
	switch {
	case err == nil:
		r.off = false
		return nil
	case g.lenient():
		r.off = true
		g.gap(err)
		return nil
	}
	return g.unrecorded(err)
}

// lenient reports whether the flow goes on without its recording. It is called with mu.
func (g *Gate) lenient() bool {
	return g.server.Observe || g.recording.strict == policy.RecordContinue
}

// keep adds an entry to the recording, if one runs. An error ends the flow.
func (g *Gate) keep(e *Entry) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := &g.recording
	if r.running == nil {
		return nil
	}
	err := r.running.Write(e)
	if err == nil {
		return nil
	}
	g.closeRecording(flow.ReasonRecorder)
	if g.lenient() {
		r.off = true
		g.gap(err)
		return nil
	}
	g.server.Log.Error("the recording of a session has failed; the session is ended as the policy wants", "flow", g.flow.ID, "error", err)
	g.entry.cancel(ErrRecorder)
	return refusalFor(ErrRecorder)
}

// keepActions adds what is about to be forwarded, or was refused.
func (g *Gate) keepActions(kind EntryKind, actions []*flow.Action, why string) error {
	rec := g.Recording()
	if rec == nil {
		return nil
	}
	for _, a := range actions {
		e := Entry{Kind: kind, Action: a.ID, Text: a.Text, Params: a.Params, Data: Value{Bytes: []byte(why)}}
		if err := g.keep(&e); err != nil {
			return err
		}
		if !rec.Originals() {
			continue
		}
		for _, h := range a.Hidden {
			e := Entry{Kind: EntryOriginal, Action: a.ID, Column: h.Param, Data: Value{Bytes: []byte(h.Value)}}
			if err := g.keep(&e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Gate) keepOutcomes(outcomes []Outcome) error {
	if g.Recording() == nil {
		return nil
	}
	for i := range outcomes {
		o := &outcomes[i]
		if err := g.keep(&Entry{Kind: EntryOutcome, Action: o.Ticket.id, Status: o.Status, Code: o.Code, N: o.Rows}); err != nil {
			return err
		}
	}
	return nil
}

// closeRecording ends the recording that runs. It is called with mu.
func (g *Gate) closeRecording(reason flow.Reason) {
	rec := g.recording.running
	if rec == nil {
		return
	}
	g.recording.running = nil
	if err := rec.Close(reason); err != nil && reason != flow.ReasonRecorder {
		g.gap(err) // its last words are missing, whatever the policy wants
	}
}

// gap records that a part of the flow is in no recording.
func (g *Gate) gap(err error) {
	g.server.Log.Error("a session goes on without its recording, as the policy lets it", "flow", g.flow.ID, "error", err)
	ev := g.event(auditlog.Gap)
	now := g.server.Now().UTC()
	ev.Reason = "what passes in this flow from here on is not recorded: the recorder failed"
	ev.Gap = &auditlog.GapInfo{Cause: auditlog.GapRecording, From: now, To: now}
	if err := g.server.Record.Append(context.Background(), true, ev); err != nil {
		g.server.Log.Error("a gap in a recording could not be put into the audit log", "flow", g.flow.ID, "error", err)
	}
}
