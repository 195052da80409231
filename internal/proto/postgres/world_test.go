package postgres

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/oklog/ulid/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
	testpg "github.com/weirproxy/weir/internal/testkit/postgres"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// world is weir around one backend, with everything but the engine and the backend
// in memory.
type world struct {
	t        testing.TB
	listener net.Listener
	server   *session.Server
	upstream string // URL of the backend
	ctx      context.Context
	flows    sync.WaitGroup

	mu       sync.Mutex
	events   []*auditlog.Event
	who      *flow.Principal
	whoErr   error
	decide   func(policy.Input) policy.Decision
	masks    []*policy.Mask
	catalog  *sqlmeta.Catalog
	revision int
	budgets  endless
}

// newWorld starts weir in front of the server that url names.
func newWorld(t testing.TB, url string, change func(*Config)) *world {
	t.Helper()
	w := &world{t: t, upstream: url, catalog: sqlmeta.NewCatalog(1, []string{"public"}, nil, nil)}
	w.who = &flow.Principal{Issuer: "https://idp.test", Subject: "ann", User: "ann@example.com"}
	key, err := mask.NewKey(make([]byte, mask.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Analyze:    fakeAnalyze,
		Catalog:    func(context.Context, session.Grant) (*sqlmeta.Catalog, error) { return w.cat(), nil },
		Invalidate: func(session.Grant) {},
		Defaults: func(context.Context, session.Grant) (Defaults, error) {
			return Defaults{"public", "postgres"}, nil
		},
		SignIn:         w.signIn,
		CancelUpstream: w.cancelUpstream,
		TLS:            func(*session.Gate, string) (*tls.Config, error) { return testTLS(t), nil },
		Masks:          MaskConfig{Key: key},
		Log:            quiet(), Now: time.Now,
	}
	if change != nil {
		change(&c)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.server = session.New(session.Config{Node: "test", Identify: w, Policy: func() session.Policy { return w }, Record: w, Budgets: &w.budgets,
		Login:    func(string, *flow.Principal) (string, bool) { return "postgres", true },
		Handlers: map[flow.Protocol]session.Handler{flow.Postgres: h}, Now: time.Now, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	if w.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	w.flows.Add(1)
	go w.accept()
	t.Cleanup(func() {
		w.listener.Close()
		cancel()
		w.flows.Wait()
	})
	return w
}

// unkept is a decision that rests on more than rules do, so that no gate keeps it.
func unkept(d policy.Decision) policy.Decision {
	d.Rests = 0
	return d
}

// endless are budgets that are never used up, and the log of what was taken.
type endless struct {
	mu    sync.Mutex
	taken []flow.Spend
}

func (e *endless) Take(_ *flow.Principal, spends []flow.Spend) (left []int, short int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.taken = append(e.taken, spends...)
	return e.Look(nil, spends)
}

func (e *endless) Look(_ *flow.Principal, spends []flow.Spend) (left []int, short int, err error) {
	return make([]int, len(spends)), -1, nil
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	if testing.Verbose() {
		fmt.Print(string(b))
	}
	return len(b), nil
}

func (w *world) accept() {
	defer w.flows.Done()
	for {
		c, err := w.listener.Accept()
		if err != nil {
			return
		}
		f := &flow.Flow{ID: flow.ID(ulid.Make().String()), Node: "test", Protocol: flow.Postgres, Backend: "orders",
			Destination: netip.MustParseAddrPort("192.0.2.1:5432"), Start: time.Now()}
		w.flows.Add(1)
		go func() {
			defer w.flows.Done()
			w.server.Serve(w.ctx, &testConn{c, f})
		}()
	}
}

type testConn struct {
	net.Conn
	f *flow.Flow
}

func (c *testConn) Flow() *flow.Flow { return c.f }

func (w *world) cat() *sqlmeta.Catalog {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.catalog
}

func (w *world) signIn(ctx context.Context, g session.Grant, params map[string]string) (*Upstream, error) {
	c, err := pgconn.ParseConfig(w.upstream)
	if err != nil {
		return nil, err
	}
	f := g.Flow()
	if f.Database != "" {
		c.Database = f.Database
	}
	c.RuntimeParams = params
	pc, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return nil, &session.End{Reason: flow.ReasonUnreachable, Err: err}
	}
	hj, err := pc.Hijack()
	if err != nil {
		return nil, err
	}
	return &Upstream{Conn: hj.Conn, PID: hj.PID, Secret: hj.SecretKey, Parameters: hj.ParameterStatuses, TxStatus: hj.TxStatus,
		Address: hj.Conn.RemoteAddr().String()}, nil
}

func (w *world) cancelUpstream(_ context.Context, _ session.Grant, pid uint32, secret []byte) error {
	c, err := pgconn.ParseConfig(w.upstream)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(c.Host, fmt.Sprint(c.Port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	b := []byte{0, 0, 0, 16, 4, 210, 22, 46, byte(pid >> 24), byte(pid >> 16), byte(pid >> 8), byte(pid)}
	if _, err := conn.Write(append(b, secret...)); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, conn)
	return nil
}

func (w *world) Identify(context.Context, *flow.Process) (*flow.Principal, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.who, w.whoErr
}

func (w *world) Current(string) (*flow.Principal, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.who, w.whoErr
}

func (w *world) Append(_ context.Context, _ bool, events ...*auditlog.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, events...)
	return nil
}

func (w *world) Revision() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("sha256:%d", w.revision)
}

func (w *world) Decide(in policy.Input) policy.Decision {
	w.mu.Lock()
	decide := w.decide
	w.mu.Unlock()
	if decide != nil {
		return decide(in)
	}
	return decideFake(in)
}

// decideFake denies what has "secret" in its name, drops, and what is unknown.
func decideFake(in policy.Input) policy.Decision {
	for _, a := range in.Action.Accesses {
		if a.Verb == flow.Unknown || a.Verb == flow.Drop || strings.Contains(a.Resource, "secret") {
			return policy.Decision{Verdict: flow.Deny, Rule: "no secrets", Access: a, Reason: `rule "no secrets" denies this`}
		}
	}
	return policy.Decision{Verdict: flow.Allow, Rule: "all"}
}

func (w *world) Recording(*flow.Principal, string) string { return "" }

func (w *world) Masks(*flow.Principal, string) []*policy.Mask {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.masks
}

func (w *world) setMasks(m ...*policy.Mask) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.masks = m
	w.revision++
}

// set changes the world while it runs.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// addr is where clients connect.
func (w *world) addr() (host, port string) {
	h, p, _ := net.SplitHostPort(w.listener.Addr().String())
	return h, p
}

// snapshot is the log so far.
func (w *world) snapshot() []*auditlog.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*auditlog.Event(nil), w.events...)
}

// outcomes are the results of the actions whose intent has the text.
func (w *world) outcomes(text string) []*auditlog.Event {
	ids := map[string]bool{}
	var out []*auditlog.Event
	for _, e := range w.snapshot() {
		if e.Action == nil {
			continue
		}
		if e.Action.Phase == auditlog.PhaseIntent && e.Action.Text == text {
			ids[e.Action.ID] = true
		}
		if e.Action.Phase == auditlog.PhaseOutcome && ids[e.Action.ID] {
			out = append(out, e)
		}
	}
	return out
}

// waitFor polls until ok, with a deadline that only a fault reaches.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

var (
	backendOnce sync.Once
	backendURL  string
	backend     *testpg.Server
	backendErr  error
)

// startBackend gives the URL of one real server for all tests of the package.
func startBackend(t testing.TB) string {
	t.Helper()
	backendOnce.Do(func() {
		dir, err := tempDir()
		if err != nil {
			backendErr = err
			return
		}
		backend, backendErr = testpg.Start(context.Background(), testpg.Config{Dir: dir, HBA: "host all all all trust",
			Settings: map[string]string{"log_statement": "all", "log_line_prefix": "%a|%p|", "max_connections": "200"}, Shop: true})
		if backendErr == nil {
			backendURL = fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", backend.Addr())
		}
	})
	if backendErr != nil {
		t.Fatalf("start PostgreSQL: %v", backendErr)
	}
	return backendURL
}
