package session_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// deciding is a handler that has actions decided and keeps the answer.
type deciding struct {
	actions []*flow.Action
	got     *session.Decision
}

func (h *deciding) Serve(ctx context.Context, _ net.Conn, g *session.Gate) error {
	if _, err := g.Admit(ctx, "db", "database:db"); err != nil {
		return err
	}
	h.got = g.Decide(ctx, session.Run, h.actions)
	return nil
}

// TestForbiddenIsDenied: what a mask forbids is denied although a rule allows it,
// with all that came in the same message, and the record says why.
func TestForbiddenIsDenied(t *testing.T) {
	w := newWorld(t)
	h := &deciding{actions: []*flow.Action{{Text: "a"}, {Text: "b", Forbidden: "this would store values"}}}
	w.server.Handlers[flow.Postgres] = h
	c, wait := w.client(t)
	_, _ = io.ReadAll(c)
	wait()
	if h.got.Allowed() || h.got.Refusal == nil || h.got.Refusal.Message != "weir: this would store values" || h.got.Refusal.Fatal || len(h.got.Tickets) != 0 {
		t.Fatalf("decided %+v, %v", h.got, h.got.Refusal)
	}
	reasons := map[string]string{}
	for _, e := range w.events {
		if e.Kind == auditlog.ActionEvent {
			if e.Verdict != "deny" || e.Result == nil || e.Result.Status != auditlog.StatusDenied {
				t.Errorf("%s is on record as %s", e.Action.Text, e.Verdict)
			}
			reasons[e.Action.Text] = e.Reason
		}
	}
	if reasons["b"] != "this would store values" || reasons["a"] != "another statement of the same message was refused" {
		t.Errorf("reasons %v", reasons)
	}
}
