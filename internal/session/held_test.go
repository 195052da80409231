package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// board is where the tests decide on requests.
type board struct {
	mu       sync.Mutex
	holds    []*hold
	standing session.Consent
	ended    []flow.ID
	opened   chan *hold
}

func newBoard(w *world) *board {
	b := &board{opened: make(chan *hold, 16)}
	w.server.Approvals = b
	return b
}

// needs has everything need approval from now on.
func (w *world) needs() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verdict = needsApproval
}

var needsApproval = policy.Decision{Verdict: flow.Approve, Rule: "two", Policy: "p", Needs: []policy.Need{{Rule: "two", Policy: "p", Approve: &policy.Approve{Grant: "once"}}}}

func (b *board) Standing(*session.Ask) (session.Consent, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.standing, b.standing.ID != ""
}

func (b *board) Ask(_ context.Context, a *session.Ask) (session.Hold, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := &hold{id: fmt.Sprintf("R%d", len(b.holds)+1), waiting: "1 of dba", ask: a, changed: make(chan struct{})}
	b.holds = append(b.holds, h)
	b.opened <- h
	return h, nil
}

func (b *board) EndFlow(id flow.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = append(b.ended, id)
}

type hold struct {
	mu        sync.Mutex
	id        string
	waiting   string
	ask       *session.Ask
	changed   chan struct{}
	over      bool
	consent   session.Consent
	err       error
	withdrawn string
	claimed   int
}

func (h *hold) Notice() session.Notice {
	h.mu.Lock()
	defer h.mu.Unlock()
	return session.Notice{ID: h.id, Rule: "two", Waiting: h.waiting, Until: time.Now().Add(time.Minute)}
}

func (h *hold) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (h *hold) Ended() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.over
}

func (h *hold) Claim(context.Context, *session.Ask) (session.Consent, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claimed++
	if h.withdrawn != "" {
		return session.Consent{}, &session.Refusal{Reason: flow.ReasonDenied, Message: "weir: withdrawn"}
	}
	return h.consent, h.err
}

func (h *hold) Withdraw(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.withdrawn = why
	}
	h.end()
}

func (h *hold) state() (withdrawn string, claimed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.withdrawn, h.claimed
}

func (h *hold) end() {
	h.over = true
	close(h.changed)
	h.changed = make(chan struct{})
}

// decide ends the request with a consent, or an error for the client.
func (h *hold) decide(c session.Consent, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.consent, h.err = c, err
	h.end()
}

func (h *hold) progress(waiting string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting = waiting
	close(h.changed)
	h.changed = make(chan struct{})
}

func consent() (session.Consent, context.CancelCauseFunc) {
	live, end := context.WithCancelCause(context.Background())
	return session.Consent{ID: "R1", Digest: "sha256:d", Requester: "ann@example.com", Approvers: []string{"dora@example.com"}, Proof: "idp", Live: live, Release: func() {}}, end
}

// admitted is a world whose connections need nobody's approval, but what is sent does.
func admitted(t *testing.T) (*world, *board, func(send string) string, func()) {
	w := newWorld(t)
	b := newBoard(w)
	c, wait := w.client(t)
	line(t, c, "first\n")
	w.needs()
	return w, b, func(send string) string { return line(t, c, send) }, func() { c.Close(); wait() }
}

func TestHeldThenApproved(t *testing.T) {
	w, b, say, end := admitted(t)
	if got := say("drop\n"); got != "held R1" {
		t.Fatalf("the client hears %q", got)
	}
	h := <-b.opened
	if h.ask.Actions[0].Text != "drop\n" || h.ask.Who.User != "ann@example.com" || h.ask.Needs[0].Rule != "two" {
		t.Errorf("asked %+v", h.ask)
	}
	h.progress("1 of lead")
	if got := say(""); got != "held R1" {
		t.Errorf("progress: %q", got)
	}
	c, _ := consent()
	h.decide(c, nil)
	if got := say(""); got != "drop" {
		t.Errorf("approved: %q", got)
	}
	w.mu.Lock()
	var intents []*auditlog.Event
	for _, e := range w.events {
		if e.Kind == auditlog.ActionEvent && e.Verdict == "approve" {
			intents = append(intents, e)
		}
	}
	w.mu.Unlock()
	if len(intents) != 1 || intents[0].Approval == nil || intents[0].Approval.Decided != "approved" || intents[0].Action.ID != h.ask.Actions[0].ID {
		t.Errorf("intents %+v", intents)
	}
	end()
	if len(b.ended) != 1 {
		t.Errorf("the flow's end was told %d times", len(b.ended))
	}
}

func TestHeldThenRefused(t *testing.T) {
	w, b, say, _ := admitted(t)
	say("drop\n")
	(<-b.opened).decide(session.Consent{}, &session.Refusal{Reason: flow.ReasonDenied, Message: "weir: denied by dora"})
	if got := say(""); got != "weir: denied by dora" {
		t.Errorf("answer %q", got)
	}
	if ev := w.last(); ev.Verdict != "deny" || ev.Action.RefusedBy != auditlog.ByApproval || ev.Result.Status != "denied" {
		t.Errorf("event %+v", ev)
	}
	w.mu.Lock()
	w.verdict = policy.Decision{Verdict: flow.Allow}
	w.mu.Unlock()
	if got := say("on\n"); got != "on" {
		t.Errorf("the flow does not go on: %q", got)
	}
}

// TestHeldClientLeaves: with bytes of it unread, too.
func TestHeldClientLeaves(t *testing.T) {
	for _, more := range []string{"", "more\nand more\n"} {
		w := newWorld(t)
		b := newBoard(w)
		c, wait := w.client(t)
		line(t, c, "first\n")
		w.needs()
		line(t, c, "drop\n")
		h := <-b.opened
		if _, err := io.WriteString(c, more); err != nil {
			t.Fatal(err)
		}
		c.Close()
		wait()
		if why, claimed := h.state(); why != "the client has gone" || claimed != 0 {
			t.Errorf("withdrawn %q, claimed %d", why, claimed)
		}
		if r := w.last().Reason; r != "client_closed" {
			t.Errorf("reason %q", r)
		}
	}
}

func TestHeldFlowIsCut(t *testing.T) {
	w, b, say, _ := admitted(t)
	say("drop\n")
	h := <-b.opened
	w.server.Live().Revoke(func(*flow.Principal) bool { return true }, session.ErrRevoked)
	if got := say(""); !strings.HasPrefix(got, "weir: the sign-in that this connection hangs on was withdrawn") {
		t.Errorf("answer %q", got)
	}
	if got := say(""); !strings.Contains(got, "EOF") {
		t.Errorf("still open: %q", got)
	}
	if why, _ := h.state(); why == "" {
		t.Error("the request still waits")
	}
}

// TestConsentEnds: what runs under a consent that ends is cut, or comes to its end where
// the policy says so and it has only run out. (The lineEngine's server echoes at once, so
// a connection that was approved stands for what runs.)
func TestConsentEnds(t *testing.T) {
	for name, x := range map[string]struct {
		finish bool
		cause  error
		cut    bool
	}{
		"expired":           {false, session.ErrGrantExpired, true},
		"expired, finish":   {true, session.ErrGrantExpired, false},
		"withdrawn, finish": {true, session.ErrGrantWithdrawn, true},
	} {
		w := newWorld(t)
		b := newBoard(w)
		w.needs()
		c, end := consent()
		c.Finish = x.finish
		b.standing = c
		client, wait := w.client(t)
		if got := line(t, client, "on\n"); got != "on" {
			t.Fatalf("%s: %q", name, got)
		}
		end(x.cause)
		if x.cut {
			wait()
			if got := line(t, client, ""); !strings.Contains(got, x.cause.Error()) {
				t.Errorf("%s: the client hears %q", name, got)
			}
			continue
		}
		b.mu.Lock()
		b.standing, _ = consent()
		b.mu.Unlock()
		if got := line(t, client, "still\n"); got != "still" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestNobodyToAsk: without approvals, and when they do not work, it is refused.
func TestNobodyToAsk(t *testing.T) {
	for want, approvals := range map[string]session.Approvals{
		"nobody can be asked just now": failing{&board{}}, "approvals are not configured": nil,
	} {
		w := newWorld(t)
		w.server.Approvals = approvals
		c, _ := w.client(t)
		line(t, c, "first\n")
		w.needs()
		if got := line(t, c, "drop\n"); !strings.Contains(got, want) {
			t.Errorf("answer %q", got)
		}
	}
}

type failing struct{ *board }

func (failing) Ask(context.Context, *session.Ask) (session.Hold, error) {
	return nil, errors.New("the store is gone")
}

// TestPolicyChangesWhileHeld: the policy of the moment decides in the end.
func TestPolicyChangesWhileHeld(t *testing.T) {
	w, b, say, _ := admitted(t)
	say("drop\n")
	h := <-b.opened
	w.mu.Lock()
	w.verdict = policy.Decision{Verdict: flow.Deny, Rule: "never", Reason: `rule "never" denies it`}
	w.mu.Unlock()
	c, _ := consent()
	h.decide(c, nil)
	if got := say(""); got != `weir: rule "never" denies it` {
		t.Errorf("answer %q", got)
	}
	if _, claimed := h.state(); claimed != 0 {
		t.Error("the consent was taken for nothing")
	}
}
