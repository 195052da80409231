package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

// following runs a feed until the test ends; what it says comes out of the channel.
func following(t *testing.T, agent *fakeAgent) <-chan any {
	t.Helper()
	said := make(chan any, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	f := &feed{agent: agent.client(), retry: time.Millisecond}
	go func() { done <- f.run(ctx, func(m any) error { said <- m; return nil }) }()
	t.Cleanup(func() {
		cancel()
		for {
			select {
			case <-said:
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
				return
			}
		}
	})
	return said
}

// news waits for the next request that a feed tells.
func news(t *testing.T, said <-chan any) approval.Request {
	t.Helper()
	for m := range said {
		if n, ok := m.(feedNews); ok {
			return n.request
		}
	}
	panic("unreachable")
}

func TestFeedGoesOnOverARestart(t *testing.T) {
	first, second := testRequest(1), testRequest(2)
	agent := startFakeAgent(t, first, second)
	said := following(t, agent)
	if _, ok := (<-said).(feedUp); !ok {
		t.Fatal("the first word is not that the agent answers")
	}
	if a, b := news(t, said), news(t, said); a.ID != first.ID || b.ID != second.ID {
		t.Fatalf("%s, %s", a.ID, b.ID)
	}
	agent.stop()
	if _, ok := (<-said).(feedDown); !ok {
		t.Fatal("nothing about the agent's end")
	}
	<-agent.service.closed // what served the inbox has let go
	// While it is away one request ends, one is lost, and one comes.
	first.Status = approval.Denied
	agent.service = newFakeApprovals(first, testRequest(3))
	agent.start(t)
	for {
		if _, ok := (<-said).(feedUp); ok {
			break
		}
	}
	var ended, gone, came bool
	for !ended || !gone || !came {
		switch m := (<-said).(type) {
		case feedNews:
			ended = ended || m.request.ID == first.ID && m.request.Status == approval.Denied
			came = came || m.request.ID == testRequest(3).ID
		case feedGone:
			gone = m.id == second.ID
		case feedDown:
			t.Fatalf("down: %v", m.err)
		}
	}
}

func TestFeedTellsEachChangeOnce(t *testing.T) {
	r := testRequest(1)
	agent := startFakeAgent(t, r)
	said := following(t, agent)
	news(t, said)
	agent.service.put(r) // as it was
	agent.service.put(testRequest(2))
	if got := news(t, said); got.ID == r.ID {
		t.Error("a request was told again as it was")
	}
}

// TestInboxEndsWithTheSignIn: an open connection shows nothing to whoever signed out.
func TestInboxEndsWithTheSignIn(t *testing.T) {
	agent := startFakeAgent(t, testRequest(1))
	said := following(t, agent)
	news(t, said)
	agent.as(approval.Viewer{}, errors.New("nobody is signed in: weir login"))
	agent.service.put(testRequest(2))
	for m := range said {
		if n, ok := m.(feedNews); ok {
			t.Fatalf("%s was shown to nobody", n.request.ID)
		}
		if down, ok := m.(feedDown); ok && strings.Contains(downText(down.err), "weir login") {
			break
		}
	}
	<-agent.service.closed
	agent.as(approval.Viewer{Who: bob()}, nil)
	if got := news(t, said); got.ID != testRequest(2).ID {
		t.Errorf("after the sign-in: %s", got.ID)
	}
}

func TestWatcherIsClosedWhenTheCallerGoes(t *testing.T) {
	agent := startFakeAgent(t)
	ctx, cancel := context.WithCancel(t.Context())
	f := &feed{agent: agent.client(), retry: time.Millisecond}
	if err := f.run(ctx, func(any) error { cancel(); return nil }); err != nil {
		t.Fatal(err)
	}
	<-agent.service.closed
}

func TestFeedWithoutAnAgent(t *testing.T) {
	agent := startFakeAgent(t)
	agent.stop()
	f := &feed{agent: agent.client(), retry: time.Millisecond}
	if err := f.run(t.Context(), func(any) error { return nil }); err == nil || !strings.Contains(err.Error(), "no weir agent answers") {
		t.Errorf("%v", err)
	}
	stop := errors.New("stop")
	agent.start(t)
	if err := f.run(t.Context(), func(any) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func TestPlainInbox(t *testing.T) {
	var out, errs bytes.Buffer
	p := &plainInbox{out: &out, errs: &errs, now: testTime}
	say := func(messages ...any) {
		t.Helper()
		for _, m := range messages {
			if err := p.take(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := testRequest(1, func(r *approval.Request) { r.Action.Text = "DELETE\nFROM shop.orders" })
	say(feedUp{}, feedNews{request: r})
	for _, want := range []string{"NEW  " + r.ID, "ann@example.com: delete shop.orders (no WHERE: all rows)",
		"        DELETE\n        FROM shop.orders\n", "1 of dba", "in 10m00s", "weir approvals approve " + r.ID} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the block does not say %q:\n%s", want, out.String())
		}
	}
	if !strings.Contains(errs.String(), "waiting for requests") {
		t.Errorf("stderr %q", errs.String())
	}
	out.Reset()
	withPreview := r
	withPreview.Preview = []approval.Preview{{Note: "counted"}}
	say(feedNews{request: withPreview})
	if out.Len() != 0 {
		t.Errorf("a block again: %s", out.String())
	}
	half := r
	half.Decisions = []approval.Decision{{User: "carl@example.com", Decided: approval.DecidedApproved}}
	say(feedNews{request: half})
	if !strings.Contains(out.String(), "NOW  "+r.ID) || !strings.Contains(out.String(), "carl@example.com") {
		t.Errorf("an approval: %q", out.String())
	}
	out.Reset()
	denied := r
	denied.Status, denied.Ended = approval.Denied, "denied by bob@example.com"
	denied.Decisions = []approval.Decision{{User: "bob@example.com", Decided: approval.DecidedDenied, Reason: "not\x1b now"}}
	say(feedNews{request: denied}, feedNews{request: denied})
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "END  "+r.ID) || !strings.Contains(got, "denied by bob@example.com: not<U+001B> now") {
		t.Errorf("the end: %q", got)
	}
	out.Reset()
	errs.Reset()
	hostile := testRequest(2, hostileRequest)
	say(feedDown{nil}, feedDown{nil}, feedUp{}, feedNews{request: hostile}, feedGone{hostile.ID})
	if strings.Count(errs.String(), "trying again") != 1 || !strings.Contains(errs.String(), "answers again") {
		t.Errorf("a restart: %q", errs.String())
	}
	if !strings.Contains(out.String(), "may not see it") {
		t.Errorf("a request that is gone: %q", out.String())
	}
	harmless(t, "plain", out.String())
}

func TestWatchPrintsJSONLines(t *testing.T) {
	var out, errs bytes.Buffer
	take := jsonLines(&out, &errs)
	for _, m := range []any{feedUp{}, feedNews{raw: []byte(`{"id":"1"}`)}, feedDown{errors.New("away\x1b")}, feedUp{}, feedNews{raw: []byte(`{"id":"2"}`)}} {
		if err := take(m); err != nil {
			t.Fatal(err)
		}
	}
	if out.String() != "{\"id\":\"1\"}\n{\"id\":\"2\"}\n" {
		t.Errorf("%q", out.String())
	}
	if !strings.Contains(errs.String(), "trying again") || !strings.Contains(errs.String(), "answers again") {
		t.Errorf("%q", errs.String())
	}
	harmless(t, "stderr", errs.String())
}
