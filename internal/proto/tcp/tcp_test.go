package tcp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// node is a session server with everything around it in memory and a tcp
// backend whose far end the test plays.
type node struct {
	deny    bool
	failLog bool
	server  *session.Server
	backend net.Listener

	mu     sync.Mutex
	events []*auditlog.Event
	asked  []flow.Access
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{backend: listen(t)}
	h := New(Config{Dial: func(ctx context.Context, g session.Grant) (net.Conn, error) {
		if !g.Valid() {
			t.Error("dialled without a grant")
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", g.Flow().Destination.String())
		if err != nil {
			return nil, &session.End{Reason: flow.ReasonUnreachable, Err: err}
		}
		return c, nil
	}})
	n.server = session.New(session.Config{Node: "test", Identify: n, Policy: func() session.Policy { return n }, Record: n,
		Login:    func(string, *flow.Principal) (string, bool) { return "", true },
		Handlers: map[flow.Protocol]session.Handler{flow.TCP: h}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	return n
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (n *node) Identify(context.Context, *flow.Process) (*flow.Principal, error) {
	return &flow.Principal{Subject: "1", User: "ann@example.com"}, nil
}

func (n *node) Current(string) (*flow.Principal, error) { return n.Identify(context.Background(), nil) }

func (n *node) Append(_ context.Context, _ bool, events ...*auditlog.Event) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failLog {
		return errors.New("disk full")
	}
	n.events = append(n.events, events...)
	return nil
}

func (n *node) Revision() string { return "sha256:test" }

func (n *node) Decide(in policy.Input) policy.Decision {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, in.Action.Accesses...)
	if n.deny {
		return policy.Decision{Verdict: flow.Deny, Rule: "nobody", Reason: "denied"}
	}
	return policy.Decision{Verdict: flow.Allow, Rule: "all"}
}

func (*node) Recording(*flow.Principal, string) string { return "" }

func (n *node) Masks(*flow.Principal, string) []*policy.Mask { return nil }

type captured struct {
	*net.TCPConn
	flow *flow.Flow
}

func (c captured) Flow() *flow.Flow { return c.flow }

// connect gives the client's end of a flow that is being served, the accepted
// far end when there is one, and a function that waits for the flow's end.
func (n *node) connect(t *testing.T, ctx context.Context, destination string) (client *net.TCPConn, wait func()) {
	t.Helper()
	l := listen(t)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		n.server.Serve(ctx, captured{accepted.(*net.TCPConn), &flow.Flow{ID: "01TEST", Protocol: flow.TCP, Backend: "raw", Destination: netip.MustParseAddrPort(destination)}})
	})
	return c.(*net.TCPConn), wg.Wait
}

func (n *node) accept(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := n.backend.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// check compares the flow's events with kinds and the reason of the last one.
func (n *node) check(t *testing.T, reason flow.Reason, kinds ...auditlog.Kind) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	var got []auditlog.Kind
	for _, e := range n.events {
		got = append(got, e.Kind)
		if opened := e.Kind != auditlog.FlowRefused; opened && e.Assurance != "passthrough" {
			t.Errorf("%s: assurance %q", e.Kind, e.Assurance)
		}
	}
	if d := cmp.Diff(kinds, got); d != "" {
		t.Error(d)
		return
	}
	if last := n.events[len(n.events)-1]; last.Reason != string(reason) {
		t.Errorf("reason %q, want %q", last.Reason, reason)
	}
}

func TestBytesPassBothWays(t *testing.T) {
	n := newNode(t)
	client, wait := n.connect(t, context.Background(), n.backend.Addr().String())
	server := n.accept(t)
	up, down := make([]byte, 3<<20), make([]byte, 5<<20)
	_, _ = rand.Read(up)
	_, _ = rand.Read(down)
	var wg sync.WaitGroup
	var gotUp, gotDown []byte
	wg.Go(func() { _, _ = client.Write(up); _ = client.CloseWrite() })
	wg.Go(func() {
		var written sync.WaitGroup
		written.Go(func() { _, _ = server.Write(down) })
		gotUp, _ = io.ReadAll(server)
		written.Wait()
		_ = server.CloseWrite()
	})
	wg.Go(func() { gotDown, _ = io.ReadAll(client) })
	wg.Wait()
	wait()
	if !bytes.Equal(up, gotUp) || !bytes.Equal(down, gotDown) {
		t.Errorf("%d of %d up, %d of %d down", len(gotUp), len(up), len(gotDown), len(down))
	}
	n.check(t, flow.ReasonClientClosed, auditlog.FlowOpen, auditlog.FlowClose)
	if got := n.events[0].Upstream.Address; got != n.backend.Addr().String() {
		t.Errorf("upstream %q", got)
	}
	row := n.server.Live().List(true)[0]
	if row.BytesUp != int64(len(up)) || row.BytesDown != int64(len(down)) {
		t.Errorf("counted %d and %d", row.BytesUp, row.BytesDown)
	}
}

func TestServerEndsFirstAndClientGoesOn(t *testing.T) {
	n := newNode(t)
	client, wait := n.connect(t, context.Background(), n.backend.Addr().String())
	server := n.accept(t)
	if err := server.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
		t.Fatalf("the client did not see the end: %q, %v", b, err)
	}
	if _, err := client.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(server); err != nil || string(b) != "still here" {
		t.Errorf("the server got %q, %v", b, err)
	}
	wait()
	n.check(t, flow.ReasonServerClosed, auditlog.FlowOpen, auditlog.FlowClose)
}

func TestServerResets(t *testing.T) {
	n := newNode(t)
	client, wait := n.connect(t, context.Background(), n.backend.Addr().String())
	server := n.accept(t)
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil { // the flow is open
		t.Fatal(err)
	}
	_ = server.SetLinger(0)
	server.Close()
	_, _ = io.ReadAll(client)
	wait()
	n.check(t, flow.ReasonServerClosed, auditlog.FlowOpen, auditlog.FlowClose)
}

func TestRevokedWhileHalfClosed(t *testing.T) {
	n := newNode(t)
	client, wait := n.connect(t, context.Background(), n.backend.Addr().String())
	server := n.accept(t)
	if err := server.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(client); err != nil {
		t.Fatal(err)
	}
	if got := n.server.Live().Revoke(func(*flow.Principal) bool { return true }, session.ErrRevoked); got != 1 {
		t.Fatalf("%d flows revoked", got)
	}
	wait()
	if _, err := io.ReadAll(server); err != nil {
		t.Logf("the server saw %v", err)
	}
	n.check(t, flow.ReasonRevoked, auditlog.FlowOpen, auditlog.FlowClose)
}

func TestDenied(t *testing.T) {
	n := newNode(t)
	n.deny = true
	client, wait := n.connect(t, context.Background(), "[::ffff:192.0.2.1]:6379")
	if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	wait()
	n.check(t, flow.ReasonDenied, auditlog.FlowRefused)
	if d := cmp.Diff([]flow.Access{{Verb: flow.Connect, Resource: "192.0.2.1:6379"}}, n.asked); d != "" {
		t.Error(d)
	}
}

func TestUnreachable(t *testing.T) {
	n := newNode(t)
	address := n.backend.Addr().String()
	n.backend.Close()
	client, wait := n.connect(t, context.Background(), address)
	_, _ = io.ReadAll(client)
	wait()
	n.check(t, flow.ReasonUnreachable, auditlog.FlowRefused)
}

func TestNothingPassesUnrecorded(t *testing.T) {
	n := newNode(t)
	n.failLog = true
	client, wait := n.connect(t, context.Background(), n.backend.Addr().String())
	server := n.accept(t)
	_, _ = client.Write([]byte("secret"))
	if b, _ := io.ReadAll(server); len(b) != 0 {
		t.Errorf("%q passed without a record", b)
	}
	wait()
}

func TestResource(t *testing.T) {
	for in, want := range map[string]string{"10.0.0.1:80": "10.0.0.1:80", "[::ffff:10.0.0.1]:80": "10.0.0.1:80", "[fd00::1]:80": "[fd00::1]:80"} {
		if got := resource(netip.MustParseAddrPort(in)); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
