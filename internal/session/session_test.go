package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// world is a session server with everything around it in memory.
type world struct {
	recording string // what the policy asks of everybody
	mu        sync.Mutex
	events    []*auditlog.Event
	fail      error
	who       *flow.Principal
	whoErr    error
	asked     int
	onAsk     func(n int)
	verdict   policy.Decision
	now       time.Time
	server    *session.Server
}

func (w *world) Identify(context.Context, *flow.Process) (*flow.Principal, error) {
	w.mu.Lock()
	w.asked++
	n, ask, who, err := w.asked, w.onAsk, w.who, w.whoErr
	w.mu.Unlock()
	if ask != nil {
		ask(n)
	}
	return who, err
}

func (w *world) Current(string) (*flow.Principal, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.who, w.whoErr
}

func (w *world) Append(_ context.Context, _ bool, events ...*auditlog.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	w.events = append(w.events, events...)
	return nil
}

func (w *world) Revision() string { return "sha256:test" }

func (w *world) Decide(policy.Input) policy.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.verdict
}

func (w *world) Masks(*flow.Principal, string) []*policy.Mask { return nil }

func (w *world) Recording(*flow.Principal, string) string { return w.recording }

func (w *world) kinds() []auditlog.Kind {
	w.mu.Lock()
	defer w.mu.Unlock()
	var k []auditlog.Kind
	for _, e := range w.events {
		k = append(k, e.Kind)
	}
	return k
}

func (w *world) last() *auditlog.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events[len(w.events)-1]
}

// lineEngine treats each line of the client as an action and each line of the
// server as its outcome.
type lineEngine struct {
	buf     []byte
	pending *session.Question
	line    []byte
	open    []session.Ticket
}

func (e *lineEngine) Client(b []byte, _ *session.Output) (int, error) {
	if bytes.HasPrefix(b, []byte("panic")) {
		panic("a fault")
	}
	for i, c := range b {
		e.buf = append(e.buf, c)
		if c == '\n' {
			e.line, e.buf = e.buf, nil
			text := string(e.line)
			e.pending = &session.Question{Resolve: func(context.Context) ([]*flow.Action, any) {
				return []*flow.Action{{Text: text, Accesses: []flow.Access{{Verb: flow.Select, Resource: "s.t"}}}}, nil
			}}
			return i + 1, nil
		}
	}
	return len(b), nil
}

func (e *lineEngine) Server(b []byte, out *session.Output) error {
	for range bytes.Count(b, []byte("\n")) {
		if len(e.open) == 0 {
			return &session.End{Reason: flow.ReasonProtocol}
		}
		out.Outcomes = append(out.Outcomes, session.Outcome{Ticket: e.open[0], Status: auditlog.StatusOK, Rows: 1})
		e.open = e.open[1:]
	}
	out.ToClient.Forward(b)
	return nil
}

func (e *lineEngine) Pending() *session.Question { return e.pending }

func (e *lineEngine) Answer(a *session.Answered, out *session.Output) error {
	e.pending = nil
	if a.Decision.Allowed() {
		e.open = append(e.open, a.Decision.Tickets...)
		out.ToServer.Append(e.line)
		return nil
	}
	out.ToClient.Append([]byte(a.Decision.Refusal.Message + "\n"))
	if a.Decision.Refusal.Fatal {
		return a.Decision.Refusal
	}
	return nil
}

func (e *lineEngine) Held(n session.Notice, out *session.Output) {
	out.ToClient.Append([]byte("held " + n.ID + "\n"))
}

func (e *lineEngine) Idle() bool { return len(e.open) == 0 && e.pending == nil }

func (e *lineEngine) Goodbye(r *session.Refusal, out *session.Output) {
	out.ToClient.Append([]byte(r.Message + "\n"))
}

func (e *lineEngine) End(out *session.Output) {
	for _, t := range e.open {
		out.Outcomes = append(out.Outcomes, session.Outcome{Ticket: t, Status: auditlog.StatusLost})
	}
	e.open = nil
}

// lineHandler admits, "dials" an echo server and relays.
type lineHandler struct{ admitted chan session.Grant }

func (h lineHandler) Serve(ctx context.Context, c net.Conn, g *session.Gate) error {
	grant, err := g.Admit(ctx, "db", "database:db")
	if err != nil {
		io.WriteString(c, err.Error()+"\n")
		return err
	}
	if h.admitted != nil {
		h.admitted <- grant
	}
	ours, theirs := tcpPair()
	var echo sync.WaitGroup
	echo.Go(func() { io.Copy(theirs, theirs); theirs.Close() })
	defer echo.Wait()
	if err := g.Opened(ctx, auditlog.Upstream{Address: "x:1"}, "inspected"); err != nil {
		ours.Close()
		return err
	}
	return session.Relay(ctx, g, &lineEngine{}, c, ours)
}

func tcpPair() (net.Conn, net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	b, err := l.Accept()
	if err != nil {
		panic(err)
	}
	return a, b
}

type conn struct {
	net.Conn
	f *flow.Flow
}

func (c conn) Flow() *flow.Flow  { return c.f }
func (c conn) NetConn() net.Conn { return c.Conn }

func newWorld(t *testing.T) *world {
	w := &world{verdict: policy.Decision{Verdict: flow.Allow, Rule: "r"}, now: time.Now(),
		who: &flow.Principal{Issuer: "i", Subject: "ann", User: "ann@example.com", Kind: flow.Human, Expires: time.Now().Add(time.Hour)}}
	w.server = session.New(session.Config{
		Node: "n", Identify: w, Policy: func() session.Policy { return w }, Record: w,
		Login:    func(string, *flow.Principal) (string, bool) { return "app", true },
		Handlers: map[flow.Protocol]session.Handler{flow.Postgres: lineHandler{}},
		Now:      func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return w
}

// client starts a flow and returns the client's end and a wait for its end.
func (w *world) client(t *testing.T) (net.Conn, func()) {
	t.Helper()
	ours, theirs := tcpPair()
	done := make(chan struct{})
	f := &flow.Flow{ID: "F", Protocol: flow.Postgres, Backend: "b", Destination: netip.MustParseAddrPort("10.0.0.1:5432"), Start: time.Now(),
		Process: flow.Process{PID: 1, LoginUID: flow.Unset, AuditSession: flow.Unset}}
	go func() { defer close(done); w.server.Serve(context.Background(), conn{theirs, f}) }()
	t.Cleanup(func() { ours.Close(); <-done })
	return ours, func() { <-done }
}

func line(t *testing.T, c net.Conn, send string) string {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if send != "" {
		if _, err := io.WriteString(c, send); err != nil {
			t.Fatal(err)
		}
	}
	var got []byte
	one := make([]byte, 1)
	for {
		if _, err := c.Read(one); err != nil {
			return string(got) + "<" + err.Error() + ">"
		}
		if one[0] == '\n' {
			return string(got)
		}
		got = append(got, one[0])
	}
}

func TestAllowedFlowIsRecordedFromOpenToClose(t *testing.T) {
	w := newWorld(t)
	c, wait := w.client(t)
	if got := line(t, c, "hello\n"); got != "hello" {
		t.Fatalf("answer %q", got)
	}
	c.Close()
	wait()
	want := []auditlog.Kind{auditlog.FlowOpen, auditlog.ActionEvent, auditlog.ActionEvent, auditlog.FlowClose}
	if got := w.kinds(); !equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	intent, outcome := w.events[1], w.events[2]
	if intent.Action.Phase != "intent" || intent.Verdict != "allow" || outcome.Action.Phase != "outcome" ||
		outcome.Action.ID != intent.Action.ID || outcome.Result.Status != "ok" || intent.Principal.User != "ann@example.com" {
		t.Errorf("intent %+v outcome %+v", intent, outcome)
	}
	if w.last().Reason != "client_closed" {
		t.Errorf("reason %q", w.last().Reason)
	}
}

func equal(a, b []auditlog.Kind) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestNobodyIsRefusedWithOneEvent(t *testing.T) {
	w := newWorld(t)
	w.who, w.whoErr = nil, errors.New("nobody is signed in here; run `weir login`")
	c, wait := w.client(t)
	if got := line(t, c, ""); got != "weir: nobody is signed in here; run `weir login`" {
		t.Errorf("message %q", got)
	}
	wait()
	if got := w.kinds(); !equal(got, []auditlog.Kind{auditlog.FlowRefused}) || w.last().Reason != "no_identity" {
		t.Errorf("events %v reason %q", got, w.last().Reason)
	}
}

func TestDeniedActionLeavesTheFlow(t *testing.T) {
	w := newWorld(t)
	c, _ := w.client(t)
	line(t, c, "one\n")
	w.mu.Lock()
	w.verdict = policy.Decision{Verdict: flow.Deny, Rule: "no", Reason: `rule "no" denies it`}
	w.mu.Unlock()
	if got := line(t, c, "two\n"); got != `weir: rule "no" denies it` {
		t.Errorf("answer %q", got)
	}
	if ev := w.last(); ev.Verdict != "deny" || ev.Rule != "no" || ev.Result.Status != "denied" {
		t.Errorf("event %+v", ev)
	}
	w.mu.Lock()
	w.verdict = policy.Decision{Verdict: flow.Allow}
	w.mu.Unlock()
	if got := line(t, c, "three\n"); got != "three" {
		t.Errorf("after a denial: %q", got)
	}
}

func TestUnrecordableIsRefused(t *testing.T) {
	w := newWorld(t)
	c, wait := w.client(t)
	line(t, c, "one\n")
	w.mu.Lock()
	w.fail = errors.New("disk full")
	w.mu.Unlock()
	if got := line(t, c, "two\n"); !bytes.HasPrefix([]byte(got), []byte("weir: this cannot be recorded")) {
		t.Errorf("answer %q", got)
	}
	wait()
}

func TestExpiredTokenRefusesTheNextActionThenEnds(t *testing.T) {
	w := newWorld(t)
	c, wait := w.client(t)
	line(t, c, "one\n")
	w.mu.Lock()
	w.now = w.who.Expires.Add(time.Second)
	w.mu.Unlock()
	if got := line(t, c, "two\n"); !bytes.Contains([]byte(got), []byte("expired")) {
		t.Errorf("answer %q", got)
	}
	wait()
	if w.last().Kind != auditlog.FlowClose || w.last().Reason != "expired" {
		t.Errorf("end %+v", w.last())
	}
}

func TestRenewedSignInCarriesTheFlowOn(t *testing.T) {
	w := newWorld(t)
	c, _ := w.client(t)
	line(t, c, "one\n")
	w.mu.Lock()
	w.now = w.who.Expires.Add(time.Second)
	renewed := *w.who
	renewed.Expires = w.now.Add(time.Hour)
	renewed.TokenID = "second"
	w.who = &renewed
	w.mu.Unlock()
	if got := line(t, c, "two\n"); got != "two" {
		t.Errorf("answer %q", got)
	}
	if id := w.last().Principal.TokenID; id != "second" {
		t.Errorf("recorded under token %q", id)
	}
}

func TestRevokedFlowIsToldAndCut(t *testing.T) {
	w := newWorld(t)
	c, wait := w.client(t)
	line(t, c, "one\n")
	if n := w.server.Live().Revoke(func(p *flow.Principal) bool { return p.Subject == "ann" }, session.ErrRevoked); n != 1 {
		t.Fatalf("%d flows cut", n)
	}
	if got := line(t, c, ""); !bytes.Contains([]byte(got), []byte("withdrawn")) {
		t.Errorf("goodbye %q", got)
	}
	wait()
	if w.last().Reason != "revoked" {
		t.Errorf("reason %q", w.last().Reason)
	}
}

// A revocation between the identifier's answer and its entry in the table must
// make the flow ask again.
func TestRevocationDuringIdentification(t *testing.T) {
	w := newWorld(t)
	w.onAsk = func(n int) {
		if n == 1 {
			w.mu.Lock()
			w.whoErr = errors.New("signed out")
			w.mu.Unlock()
			w.server.Live().Revoke(func(*flow.Principal) bool { return true }, session.ErrRevoked)
		}
	}
	c, wait := w.client(t)
	if got := line(t, c, ""); got != "weir: signed out" {
		t.Errorf("answer %q", got)
	}
	wait()
	if w.asked != 2 {
		t.Errorf("identified %d times, want 2", w.asked)
	}
}

func TestDrainEndsIdleFlows(t *testing.T) {
	w := newWorld(t)
	c, wait := w.client(t)
	line(t, c, "one\n")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	w.server.Live().Drain(ctx)
	if ctx.Err() != nil {
		t.Error("an idle flow was not ended before the deadline")
	}
	if got := line(t, c, ""); !bytes.Contains([]byte(got), []byte("stopping")) {
		t.Errorf("goodbye %q", got)
	}
	wait()
	if w.last().Reason != "drained" || len(w.server.Live().List(false)) != 0 {
		t.Errorf("reason %q", w.last().Reason)
	}
}

func TestProtocolWithoutEngineIsRefused(t *testing.T) {
	w := newWorld(t)
	delete(w.server.Handlers, flow.Postgres)
	c, wait := w.client(t)
	line(t, c, "")
	wait()
	if e := w.last(); e.Kind != auditlog.FlowRefused || e.Reason != string(flow.ReasonUnsupported) {
		t.Errorf("end %+v", e)
	}
}

// A fault in an engine ends its flow, not the agent, and is on record.
func TestPanicEndsOneFlow(t *testing.T) {
	w := newWorld(t)
	other, _ := w.client(t)
	c, wait := w.client(t)
	line(t, c, "one\n")
	line(t, c, "panic\n")
	wait()
	if e := w.last(); e.Kind != auditlog.FlowClose || e.Reason != string(flow.ReasonInternal) {
		t.Errorf("end %+v", e)
	}
	if got := line(t, other, "still here\n"); got != "still here" {
		t.Errorf("another flow: %q", got)
	}
}

func TestZeroGrantIsNoGrant(t *testing.T) {
	if (session.Grant{}).Valid() {
		t.Error("the zero Grant is valid")
	}
	if (&session.Decision{}).Allowed() || (*session.Decision)(nil).Allowed() {
		t.Error("the zero Decision allows")
	}
}

func TestBytesKeepsOrderAndMergesRanges(t *testing.T) {
	var b session.Bytes
	in := []byte("abcdefgh")
	b.Forward(in[:2])
	b.Forward(in[2:4])
	b.Append([]byte("1"))
	b.Append([]byte("2"))
	b.Forward(in[4:6])
	b.Append([]byte("3"))
	b.Forward(in[6:])
	if got := string(bytes.Join(b.Ranges(), nil)); got != "abcd12ef3gh" {
		t.Errorf("joined %q", got)
	}
	if n := len(b.Ranges()); n != 5 {
		t.Errorf("%d ranges, want 5: neighbours are merged", n)
	}
	if b.Len() != 11 {
		t.Errorf("length %d", b.Len())
	}
}
