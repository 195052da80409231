package session_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// recorder is a session.Recordings and its one Recording, with errors in the way.
type recorder struct {
	mu                 sync.Mutex
	ready, start, fail error
	entries            []session.Entry
	started            int
	closed             []flow.Reason
}

func (r *recorder) Ready() error { r.mu.Lock(); defer r.mu.Unlock(); return r.ready }

func (r *recorder) Start(context.Context, *auditlog.Event, string) (session.Recording, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.start != nil {
		return nil, r.start
	}
	r.started++
	return r, nil
}

func (r *recorder) Originals() bool { return true }

func (r *recorder) Write(e *session.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	r.entries = append(r.entries, *e)
	return nil
}

func (r *recorder) Close(reason flow.Reason) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, reason)
	return nil
}

// set changes what fails from now on.
func (r *recorder) set(start, fail error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start, r.fail = start, fail
}

func (r *recorder) kinds() (list []session.EntryKind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.entries {
		list = append(list, r.entries[i].Kind)
	}
	return list
}

// recordedHandler is a lineHandler whose flows can be recorded.
type recordedHandler struct{ lineHandler }

func (recordedHandler) Recorded() bool { return true }

func recordedWorld(t *testing.T, strict string) (*world, *recorder) {
	w, r := newWorld(t), &recorder{}
	w.verdict.Record, w.recording = strict, strict
	w.server.Recordings = r
	w.server.Handlers = map[flow.Protocol]session.Handler{flow.Postgres: recordedHandler{}}
	return w, r
}

func TestActionsAreRecorded(t *testing.T) {
	w, r := recordedWorld(t, policy.RecordRefuse)
	c, wait := w.client(t)
	line(t, c, "one\n")
	w.mu.Lock()
	w.verdict = policy.Decision{Verdict: flow.Deny, Reason: "no"}
	w.mu.Unlock()
	line(t, c, "two\n")
	c.Close()
	wait()
	want := []session.EntryKind{session.EntryAction, session.EntryOutcome, session.EntryRefused}
	if got := r.kinds(); !slices.Equal(got, want) || r.started != 1 || !slices.Equal(r.closed, []flow.Reason{flow.ReasonClientClosed}) {
		t.Errorf("%v, %d begun, %v", got, r.started, r.closed)
	}
}

// TestStrictness: what happens without a recorder, and when one fails.
func TestStrictness(t *testing.T) {
	boom := errors.New("boom")
	const refused = "weir: this session has to be recorded"
	for _, strict := range []string{policy.RecordRefuse, policy.RecordEnd, policy.RecordContinue} {
		t.Run(strict+" without one", func(t *testing.T) {
			w, r := recordedWorld(t, strict)
			r.ready = boom
			r.set(boom, nil)
			w.mu.Lock()
			w.verdict.Record = "" // of the connection; the rule is about what follows
			w.mu.Unlock()
			c, wait := w.client(t)
			got := ""
			if strict == policy.RecordRefuse {
				got = line(t, c, "") // not even a session
			} else {
				line(t, c, "one\n")
				w.mu.Lock()
				w.verdict.Record = strict
				w.mu.Unlock()
				got = line(t, c, "two\n")
			}
			if strict != policy.RecordContinue {
				wait()
				if ev := w.last(); !strings.HasPrefix(got, refused) || ev.Reason != string(flow.ReasonRecorder) {
					t.Errorf("%q, %+v", got, ev)
				}
				return
			}
			if got != "two" || line(t, c, "three\n") != "three" {
				t.Errorf("%q", got)
			}
			if gaps := gapsOf(w); gaps != 1 {
				t.Errorf("%d gaps", gaps)
			}
		})
		t.Run(strict+" that fails", func(t *testing.T) {
			w, r := recordedWorld(t, strict)
			c, wait := w.client(t)
			if got := line(t, c, "one\n"); got != "one" {
				t.Fatal(got)
			}
			r.set(boom, boom)
			got := line(t, c, "two\n")
			if strict == policy.RecordContinue {
				if got != "two" || gapsOf(w) != 1 {
					t.Errorf("%q, %d gaps", got, gapsOf(w))
				}
				return
			}
			wait()
			if ev := w.last(); strings.HasPrefix(got, "two") || ev.Reason != string(flow.ReasonRecorder) {
				t.Errorf("%q, %+v", got, ev)
			}
		})
	}
}

// TestProtocolWithoutRecorder: what cannot be recorded is refused where it has to be.
func TestProtocolWithoutRecorder(t *testing.T) {
	w, _ := recordedWorld(t, policy.RecordEnd)
	w.server.Handlers = map[flow.Protocol]session.Handler{flow.Postgres: lineHandler{}}
	_, wait := w.client(t)
	wait()
	if ev := w.last(); ev.Reason != string(flow.ReasonRecorder) {
		t.Errorf("%+v", ev)
	}
}

func gapsOf(w *world) int {
	n := 0
	for _, k := range w.kinds() {
		if k == auditlog.Gap {
			n++
		}
	}
	return n
}
