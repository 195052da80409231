package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

const netnsCookie = 4711

// accounts is a fixed set of credentials.
type accounts struct {
	user, password string
	err            error

	mu       sync.Mutex
	rejected int
	handed   [][]byte
}

func (a *accounts) Password(context.Context, string, *flow.Principal) (string, []byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var pw []byte
	if a.password != "" {
		pw = []byte(a.password)
		a.handed = append(a.handed, pw)
	}
	return a.user, pw, a.err
}

func (a *accounts) Rejected(string, *flow.Principal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rejected++
}

// checkWiped fails when a password that was handed out is still in memory.
func (a *accounts) checkWiped(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, pw := range a.handed {
		if strings.Trim(string(pw), "\x00") != "" {
			t.Error("a password was not wiped after use")
		}
	}
}

type everybody struct{}

func (everybody) Identify(context.Context, *flow.Process) (*flow.Principal, error) {
	return &flow.Principal{Issuer: "https://idp.example.com", Subject: "1", User: "ann@example.com", Kind: flow.Human}, nil
}

func (e everybody) Current(string) (*flow.Principal, error) {
	return e.Identify(context.Background(), nil)
}

type allowAll struct{}

func (allowAll) Revision() string                             { return "sha256:test" }
func (allowAll) Decide(policy.Input) policy.Decision          { return policy.Decision{Verdict: flow.Allow} }
func (allowAll) Masks(*flow.Principal, string) []*policy.Mask { return nil }
func (allowAll) Recording(*flow.Principal, string) string     { return "" }

type discard struct{}

func (discard) Append(context.Context, bool, ...*auditlog.Event) error { return nil }

type pipeConn struct {
	net.Conn
	flow *flow.Flow
}

func (c pipeConn) Flow() *flow.Flow { return c.flow }

type handlerFunc func(context.Context, net.Conn, *session.Gate) error

func (f handlerFunc) Serve(ctx context.Context, c net.Conn, g *session.Gate) error {
	return f(ctx, c, g)
}

// grant takes a flow through a real gate, the only maker of grants.
func grant(t *testing.T, backend, destination, login, database string) session.Grant {
	t.Helper()
	var got session.Grant
	s := session.New(session.Config{
		Node: "test", Identify: everybody{}, Policy: func() session.Policy { return allowAll{} }, Record: discard{},
		Login: func(string, *flow.Principal) (string, bool) { return login, true },
		Handlers: map[flow.Protocol]session.Handler{flow.Postgres: handlerFunc(func(ctx context.Context, _ net.Conn, g *session.Gate) error {
			var err error
			got, err = g.Admit(ctx, database, "database:"+database)
			return err
		})},
		Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	a, b := net.Pipe()
	defer b.Close()
	s.Serve(context.Background(), pipeConn{a, &flow.Flow{ID: "01TEST", Protocol: flow.Postgres, Backend: backend,
		Destination: netip.MustParseAddrPort(destination), Process: flow.Process{NetNS: netnsCookie}}})
	if !got.Valid() {
		t.Fatal("the gate gave no grant")
	}
	return got
}

// dialer makes a Dialer with one backend named "db".
func dialer(t *testing.T, b Backend, creds Credentials) *Dialer {
	t.Helper()
	d, err := New(Config{Backends: map[string]Backend{"db": b}, Credentials: creds, DialNetNS: dialHere})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func dialHere(ctx context.Context, cookie uint64, network, address string) (net.Conn, error) {
	if cookie != netnsCookie {
		return nil, fmt.Errorf("dialled from namespace %d", cookie)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// wantEnd checks an error's reason and kind and that its text is fit for users.
func wantEnd(t *testing.T, err error, kind Kind, parts ...string) {
	t.Helper()
	var end *session.End
	var own *Error
	if !errors.As(err, &end) || !errors.As(err, &own) {
		t.Fatalf("got %v, want a *session.End around an *Error", err)
	}
	if own.Kind != kind {
		t.Errorf("kind %d, want %d: %v (%v)", own.Kind, kind, own, own.Unwrap())
	}
	wantReason := flow.ReasonUnreachable
	if kind == Refused || kind == NoPassword {
		wantReason = flow.ReasonUpstreamLogin
	}
	if end.Reason != wantReason {
		t.Errorf("reason %s, want %s", end.Reason, wantReason)
	}
	for _, p := range parts {
		if !strings.Contains(own.Error(), p) {
			t.Errorf("%q does not say %q", own.Error(), p)
		}
	}
}

// listen serves each connection with f until the test ends.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func TestDialRefusesTheZeroGrant(t *testing.T) {
	d := dialer(t, Backend{}, &accounts{})
	if _, err := d.Dial(context.Background(), session.Grant{}); !errors.Is(err, ErrNoGrant) {
		t.Errorf("Dial: %v", err)
	}
	if _, err := d.SignInPostgres(context.Background(), session.Grant{}, nil); !errors.Is(err, ErrNoGrant) {
		t.Errorf("SignInPostgres: %v", err)
	}
	if _, err := d.ConnectCatalogue(context.Background(), session.Grant{}); !errors.Is(err, ErrNoGrant) {
		t.Errorf("ConnectCatalogue: %v", err)
	}
	if err := d.CancelPostgres(context.Background(), session.Grant{}, 1, []byte{1}); !errors.Is(err, ErrNoGrant) {
		t.Errorf("CancelPostgres: %v", err)
	}
}

func TestDial(t *testing.T) {
	hello := func(c net.Conn) { _, _ = c.Write([]byte("hello")) }
	there := listen(t, hello)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	_, port, _ := net.SplitHostPort(there)

	for name, c := range map[string]struct {
		backend     Backend
		destination string
		lookup      []string
		fails       string
	}{
		"where the client wanted to go": {Backend{}, there, nil, ""},
		"v4-mapped":                     {Backend{}, "[::ffff:127.0.0.1]:" + port, nil, ""},
		"dial an address":               {Backend{Dial: there}, "192.0.2.1:1", nil, ""},
		"dial a name":                   {Backend{Dial: "db.invalid:" + port}, "192.0.2.1:1", []string{"127.0.0.1"}, ""},
		"second address of a name":      {Backend{Dial: "db.invalid:" + port}, "192.0.2.1:1", []string{"127.0.0.2", "127.0.0.1"}, ""},
		"nobody there":                  {Backend{}, closed.Addr().String(), nil, "connection refused"},
		"unknown name":                  {Backend{Dial: "db.invalid:" + port}, "192.0.2.1:1", nil, "cannot be resolved"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := New(Config{Backends: map[string]Backend{"db": c.backend}, DialNetNS: dialHere, Credentials: &accounts{},
				LookupHost: func(_ context.Context, host string) ([]string, error) {
					if host != "db.invalid" {
						t.Errorf("looked up %q", host)
					}
					return c.lookup, nil
				}})
			if err != nil {
				t.Fatal(err)
			}
			conn, err := d.Dial(context.Background(), grant(t, "db", c.destination, "weir_app", "shop"))
			if c.fails != "" {
				wantEnd(t, err, Unreachable, c.fails, `backend "db"`)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			b := make([]byte, 5)
			if _, err := conn.Read(b); err != nil || string(b) != "hello" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

func TestUnknownBackend(t *testing.T) {
	d := dialer(t, Backend{}, &accounts{})
	if _, err := d.Dial(context.Background(), grant(t, "gone", "127.0.0.1:1", "weir_app", "shop")); err == nil {
		t.Error("dialled for a backend that is not configured")
	}
}

func TestNewRefusesBadBackends(t *testing.T) {
	for name, b := range map[string]Backend{
		"dial without port": {Dial: "db.internal"},
		"unknown mode":      {TLS: TLS{Mode: "verify-ca"}},
		"no CA file":        {TLS: TLS{CAFile: "/does/not/exist"}},
		"empty CA file":     {TLS: TLS{CAFile: "/dev/null"}},
	} {
		if _, err := New(Config{Backends: map[string]Backend{"db": b}}); err == nil || !strings.Contains(err.Error(), `"db"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
