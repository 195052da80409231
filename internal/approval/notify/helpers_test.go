package notify

import (
	"bytes"
	"context"
	"io"
	stdlog "log"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

// patience is how long a test waits for what must come; a good run waits for none of it.
const patience = 20 * time.Second

// receive takes the next value, or fails.
func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing came", what)
		panic("unreachable")
	}
}

// journal is a log that can be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) log() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// soon is a backoff without a wait worth the name.
func soon(int) time.Duration { return time.Millisecond }

// closeNow closes and fails the test when something runs on.
func closeNow(t *testing.T, c interface{ Close(context.Context) error }) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	left := func() string {
		buf := make([]byte, 1<<20)
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "notify.(*outbox)") || strings.Contains(g, "notify.(*Slack)") || strings.Contains(g, "notify.(*Webhook)") {
				return g
			}
		}
		return ""
	}
	if g := left(); g != "" {
		t.Errorf("a goroutine is left after Close:\n%s", g)
	}
}

const (
	testID     = "01JABCDEFGHJKMNPQRSTVWXYZ0"
	testSecret = "a row of a customer"
)

// testRequest waits for two people of dba, who decide in a session. What must not get
// out by a webhook holds testSecret.
func testRequest() approval.Request {
	now := time.Now().Truncate(time.Second)
	rows := int64(7)
	return approval.Request{
		ID: testID, Status: approval.Pending, Digest: "sha256:00ff", Nonce: "AP8", Requester: "ann@example.com",
		Principal: approval.Person{Issuer: "https://idp", Subject: "ann", User: "ann@example.com"},
		Node:      "node-a", Flow: "01F", Backend: "orders", Protocol: "postgres", Database: "shop",
		State: []approval.Setting{{Name: "search_path", Value: testSecret}},
		Action: approval.Action{Verbs: []string{"delete"}, Resources: []string{"shop.orders"}, Text: "DELETE FROM shop.orders -- " + testSecret,
			Params: []string{testSecret}, Digest: "sha256:11", Bytes: 10, Unrestricted: true},
		Rule: "destructive", Rules: []approval.Rule{{Rule: "destructive", Proof: approval.ProofSession}},
		Created: now, Expires: now.Add(time.Hour), Grant: "once", Needed: []approval.Needed{{Groups: []string{"dba"}, Count: 2}},
		Preview:  []approval.Preview{{Plan: testSecret, Rows: &rows}},
		Document: testSecret,
	}
}

// after is the request as it is some way on.
func after(r approval.Request, s approval.Status, d ...approval.Decision) approval.Request {
	r.Status, r.Decisions = s, d
	return r
}

func approvedBy(user string) approval.Decision {
	return approval.Decision{User: user, Decided: approval.DecidedApproved, At: time.Now(), Reason: testSecret, Proof: approval.ProofSlack}
}

// discard is for servers of tests that say what is expected.
func discard() *stdlog.Logger { return stdlog.New(io.Discard, "", 0) }
