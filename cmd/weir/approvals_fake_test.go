package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/flow"
)

// testTime is when the requests of these tests were made.
func testTime() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) }

// testRequest is a request with a document that says what it shows.
func testRequest(n int, change ...func(*approval.Request)) approval.Request {
	r := approval.Request{
		ID: fmt.Sprintf("01JDTESTTESTTEST%010d", n), Status: approval.Pending, Requester: "ann@example.com", Node: "node-a", Flow: "01JDFLOW",
		Principal: approval.Person{Issuer: "https://idp.example.com", Subject: "ann", User: "ann@example.com", Kind: "human", Groups: []string{"developer"}},
		Backend:   "orders", Protocol: "postgres", Database: "shop", Login: "app", State: []approval.Setting{{Name: "search_path", Value: "shop, public"}},
		Action: approval.Action{Verbs: []string{"delete"}, Resources: []string{"shop.orders"}, Text: "DELETE FROM shop.orders", Unrestricted: true, Digest: "sha256:00"},
		Rule:   "two people",
		Rules: []approval.Rule{{Policy: "orders", Rule: "two people", Proof: approval.ProofIDP, Grant: "once",
			Needed: []approval.Needed{{Groups: []string{"dba"}, Count: 1}}}},
		Created: testTime().Add(time.Duration(n) * time.Second), Expires: testTime().Add(10 * time.Minute), Grant: "once",
		Needed: []approval.Needed{{Groups: []string{"dba"}, Count: 1}}, May: []string{"approve", "deny"},
	}
	for _, c := range change {
		c(&r)
	}
	sealed(&r)
	return r
}

// sealed gives a request the document that says what it shows, and its digest.
func sealed(r *approval.Request) {
	document, err := json.Marshal(map[string]any{"weir_approval": 1, "id": r.ID, "node": r.Node, "rules": r.Rules, "scope": map[string]any{
		"requester": r.Principal, "backend": r.Backend, "protocol": r.Protocol, "database": r.Database, "login": r.Login, "state": r.State, "actions": actionsOf(r)}})
	if err != nil {
		panic(err)
	}
	r.Document = string(document)
	sum := sha256.Sum256(document)
	r.Digest, r.Nonce = "sha256:"+hex.EncodeToString(sum[:]), base64.RawURLEncoding.EncodeToString(sum[:])
}

// bySession makes a request's rule content with a session.
func bySession(r *approval.Request) { r.Rules[0].Proof = approval.ProofSession }

// inTime makes a request of now, for commands that look at the clock.
func inTime(r *approval.Request) {
	r.Created = time.Now()
	r.Expires = r.Created.Add(time.Hour)
}

// fakeApprovals is a Service without rules: it does what it is asked and remembers it.
type fakeApprovals struct {
	mu       sync.Mutex
	requests []approval.Request
	attempts []fakeAttempt
	refuse   error // of every decision
	watchers []*fakeWatcher
	closed   chan struct{} // a value for each watcher that was closed
}

type fakeAttempt struct {
	verb, id string
	approval.Attempt
}

func newFakeApprovals(requests ...approval.Request) *fakeApprovals {
	return &fakeApprovals{requests: requests, closed: make(chan struct{}, 100)}
}

func (f *fakeApprovals) List(_ context.Context, _ approval.Viewer, all bool) ([]approval.Request, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []approval.Request
	for i := range f.requests {
		if all || open(&f.requests[i]) {
			out = append(out, f.requests[i])
		}
	}
	return out, nil
}

func (f *fakeApprovals) find(id string) (*approval.Request, error) {
	at := slices.IndexFunc(f.requests, func(r approval.Request) bool { return r.ID == id })
	if at < 0 {
		return nil, &approval.NotFound{ID: id}
	}
	return &f.requests[at], nil
}

func (f *fakeApprovals) Show(_ context.Context, _ approval.Viewer, id string) (*approval.Request, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.find(id)
	if err != nil {
		return nil, err
	}
	copied := *r
	return &copied, nil
}

func (f *fakeApprovals) decide(verb, id string, a approval.Attempt, status approval.Status) (*approval.Request, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts = append(f.attempts, fakeAttempt{verb, id, a})
	r, err := f.find(id)
	if err != nil {
		return nil, err
	}
	if f.refuse != nil {
		return nil, f.refuse
	}
	r.Status = status
	copied := *r
	f.tell(copied)
	return &copied, nil
}

func (f *fakeApprovals) Approve(_ context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide("approve", id, a, approval.Approved)
}

func (f *fakeApprovals) Deny(_ context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide("deny", id, a, approval.Denied)
}

func (f *fakeApprovals) Withdraw(_ context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide("withdraw", id, a, approval.Withdrawn)
}

func (f *fakeApprovals) BreakGlass(_ context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide("break-glass", id, a, approval.Approved)
}

func (f *fakeApprovals) Review(_ context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide("review", id, a, approval.Used)
}

// put adds a request, or changes it, and tells the watchers.
func (f *fakeApprovals) put(r approval.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, err := f.find(r.ID); err == nil {
		*old = r
	} else {
		f.requests = append(f.requests, r)
	}
	f.tell(r)
}

func (f *fakeApprovals) tell(r approval.Request) {
	for _, w := range f.watchers {
		w.news <- r
	}
}

type fakeWatcher struct {
	news chan approval.Request
	f    *fakeApprovals
}

func (f *fakeApprovals) Watch(context.Context, approval.Viewer) approval.Watcher {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &fakeWatcher{news: make(chan approval.Request, 1000), f: f}
	for i := range f.requests {
		if open(&f.requests[i]) {
			w.news <- f.requests[i]
		}
	}
	f.watchers = append(f.watchers, w)
	return w
}

func (w *fakeWatcher) Next(ctx context.Context) (*approval.Request, error) {
	select {
	case r := <-w.news:
		return &r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *fakeWatcher) Close() { w.f.closed <- struct{}{} }

// fakeAgent answers on a control socket as the agent does. The caller is somebody who
// is signed in, until a test says otherwise.
type fakeAgent struct {
	dir     string
	service *fakeApprovals

	mu     sync.Mutex
	viewer approval.Viewer
	why    error

	stop func()
}

func startFakeAgent(t *testing.T, requests ...approval.Request) *fakeAgent {
	t.Helper()
	dir, err := os.MkdirTemp("", "weir-approvals") // short: a unix socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	a := &fakeAgent{dir: dir, service: newFakeApprovals(requests...), viewer: approval.Viewer{Who: bob()}}
	a.start(t)
	t.Cleanup(func() { a.stop(); os.RemoveAll(dir) })
	return a
}

func bob() *flow.Principal {
	return &flow.Principal{Issuer: "https://idp.example.com", Subject: "bob", User: "bob@example.com", Groups: []string{"dba"}, Kind: flow.Human, Session: "1"}
}

func (a *fakeAgent) start(t *testing.T) {
	t.Helper()
	l, err := control.Listen(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	s := control.NewServer(func(*net.UnixConn) (int, error) { return 0, nil }, func(int) {})
	(&approvalRoutes[int]{service: a.service, check: time.Millisecond, viewer: func(int) (approval.Viewer, error, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.viewer, a.why, nil
	}}).handle(s)
	s.Handle("GET /v1/issuers", func(context.Context, int, []byte, *http.Request) (any, error) {
		return []control.Issuer{{Issuer: "https://ci.example.com", ClientID: "weir", Kind: "ci"}, {Issuer: "https://idp.example.com", ClientID: "weir", Kind: "human"}}, nil
	})
	s.Handle("GET /v1/whoami", func(context.Context, int, []byte, *http.Request) (any, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.viewer.Who == nil {
			return nil, control.Refuse(http.StatusUnauthorized, "weir: nobody is signed in")
		}
		return control.Identity{User: a.viewer.Who.User, Issuer: a.viewer.Who.Issuer, Kind: string(a.viewer.Who.Kind)}, nil
	})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	a.stop = sync.OnceFunc(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel() // streams do not end by themselves
		if err := s.Shutdown(ended); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// refuse makes every decision fail.
func (a *fakeAgent) refuse(err error) {
	a.service.mu.Lock()
	defer a.service.mu.Unlock()
	a.service.refuse = err
}

// as changes who calls.
func (a *fakeAgent) as(v approval.Viewer, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.viewer, a.why = v, why
}

func (a *fakeAgent) client() *control.Client { return control.NewClient(a.dir) }

// attempts are those that the service was asked for.
func (a *fakeAgent) attempts() []fakeAttempt {
	a.service.mu.Lock()
	defer a.service.mu.Unlock()
	return slices.Clone(a.service.attempts)
}

// weir runs a command line against the agent in a process of its own.
func (a *fakeAgent) weir(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), asWeir+"=1", "WEIR_RUN_DIR="+a.dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	_ = cmd.Run() // the exit status says it
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
