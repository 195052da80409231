// Package approvals runs held actions through the whole path: a real kernel,
// PostgreSQL, identity provider and psql, with the built binary. What must not let an
// action through is tried on it as well.
package approvals

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/testkit/dex"
	"github.com/weirproxy/weir/internal/testkit/host"
	"github.com/weirproxy/weir/internal/testkit/world"
)

// The one world of this test binary, and a provider whose tokens live for briefLife.
var (
	w       *world.World
	brief   *dex.Provider
	console string // host:port
)

const briefLife = 4 * time.Second

var people = map[string][]string{
	"ann": {"developer"}, "dora": {"dba"}, "dan": {"dba", "lead"}, "lea": {"lead"}, "eve": {"visitors"},
	"olga": {"developer", "oncall"}, "carol": {"developer"}, "amy": {"developer", "dba"}, "bench": {"bench"}, "held": {"held"},
}

const initSQL = `\connect shop
CREATE TABLE shop.ledger (id int, note text);
CREATE TABLE shop.vault (id int, note text);
CREATE TABLE shop.reports (id int);
CREATE TABLE shop.queue (id int);
CREATE TABLE shop.cards (id int, card text);
INSERT INTO shop.cards SELECT n, '4111111111111' || 100 + n FROM generate_series(1, 20) n;
GRANT SELECT ON shop.cards TO weir_app;
INSERT INTO shop.ledger SELECT n, 'note ' || n FROM generate_series(1, 42) n;
INSERT INTO shop.vault VALUES (1, 'one');
INSERT INTO shop.reports VALUES (1);
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.ledger, shop.vault, shop.reports, shop.queue TO weir_app;
GRANT CREATE, USAGE ON SCHEMA public TO weir_app;
`

const policyText = `policies:
  - name: shop
    masks:
      - {name: cards, columns: [shop.cards.card], with: last4}
    rules:
      - name: everyday
        groups: [developer]
        actions: [connect, select, insert, update, delete]
        resources: ["shop.*"]
        effect: allow
      - name: waiting
        groups: [developer]
        actions: [call]
        resources: ["function:pg_catalog.pg_sleep"]
        effect: allow
      - name: destructive needs a second person
        groups: [developer]
        actions: [delete]
        resources: ["shop.ledger"]
        when: '!action.has_where'
        effect: approve
        approve: {groups: [dba], timeout: 10m, break_glass: {groups: [oncall]}}
      - name: the vault needs two
        groups: [developer]
        actions: [update]
        resources: ["shop.vault"]
        effect: approve
        approve: {all_of: [{groups: [dba]}, {groups: [lead]}], require_reason: true}
      - name: reports for a while
        groups: [developer]
        actions: [select]
        resources: ["shop.reports"]
        effect: approve
        approve: {groups: [dba], grant: 30m, proof: session}
      - name: soon over
        groups: [developer]
        actions: [update]
        resources: ["shop.reports"]
        effect: approve
        approve: {groups: [dba], timeout: 2s}
      - name: brief reports
        groups: [developer]
        actions: [insert]
        resources: ["shop.reports"]
        effect: approve
        approve: {groups: [dba], grant: 3s}
      - name: carol needs a hand
        users: [carol@example.com]
        actions: [connect]
        effect: approve
        approve: {groups: [dba], grant: session}
      - name: pgbench
        groups: [bench, held]
        actions: [connect, select, insert, update, truncate, maintain, create, drop, alter, copy_in]
        resources: ["public.pgbench_*"]
        effect: allow
      - name: held for the benchmark
        groups: [held]
        actions: [select]
        resources: ["shop.queue"]
        effect: approve
        approve: {groups: [dba]}
`

func TestMain(m *testing.M) {
	code := 1
	port, err := host.FreePort()
	if err == nil {
		console = fmt.Sprintf("127.0.0.1:%d", port)
		w, err = world.Start(world.Config{People: people, Policy: policyText, InitSQL: initSQL, Issuers: startBrief, MaxConnections: "1200",
			Console: fmt.Sprintf("{listen: %q}", console)})
	}
	if err == nil {
		code = m.Run()
		err = w.Stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "approvals:", err)
		code = 1
	}
	os.Exit(code)
}

func startBrief(ctx context.Context, w *world.World) error {
	dir := filepath.Join(w.Dir, "brief")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var err error
	if brief, err = dex.Start(ctx, dex.Config{Dir: dir, TokenLifetime: briefLife}); err == nil {
		w.MoreIssuers = append(w.MoreIssuers, brief)
	}
	return err
}

// client is a psql under way.
type client struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan error

	mu  sync.Mutex
	out bytes.Buffer
}

func (c *client) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(b)
}

func (c *client) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

// psql starts psql as somebody. It is ended with the test.
func psql(t *testing.T, who string, args ...string) *client {
	t.Helper()
	return start(t, w.Node.As(t.Context(), w.Files[who], "psql", append([]string{"-X", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop"}, args...)...))
}

func start(t *testing.T, cmd *exec.Cmd) *client {
	t.Helper()
	c := &client{t: t, cmd: cmd, done: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = c, c
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "PGCONNECT_TIMEOUT=0")
	if err := w.Node.Start(cmd); err != nil {
		t.Fatal(err)
	}
	go func() { c.done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return c
}

// wait waits for the client's end and returns what it printed.
func (c *client) wait() (string, error) {
	c.t.Helper()
	select {
	case err := <-c.done:
		c.done <- err
		return c.text(), err
	case <-time.After(60 * time.Second): // for broken code
		c.t.Fatalf("still running:\n%s\nagent: %s", c.text(), w.Node.LogTail())
	}
	return "", nil
}

var requestID = regexp.MustCompile(`request ([0-9A-Z]{26})`)

// held waits until the client has been told that it waits, and returns the request's id.
func (c *client) held() string {
	c.t.Helper()
	var id string
	eventually(c.t, "the client waits", func() bool {
		m := requestID.FindStringSubmatch(c.text())
		if m != nil {
			id = m[1]
		}
		select {
		case err := <-c.done:
			c.done <- err
			c.t.Fatalf("ended without waiting: %v\n%s\nagent: %s", err, c.text(), w.Node.LogTail())
		default:
		}
		return m != nil
	})
	return id
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("still not so: %s\nagent: %s", what, w.Node.LogTail())
}

func holds(t *testing.T, out string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(out, word) {
			t.Errorf("no %q in:\n%s", word, out)
		}
	}
}

// ask asks the server itself, round Weir.
func ask(t testing.TB, sql string) string {
	t.Helper()
	out, err := w.DB.Query(t.Context(), "shop", sql)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// weir runs a weir command as root, as itself, and returns its output and exit status.
func weir(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return finish(t, w.Node.Weir(t.Context(), args...))
}

// weirAs runs a weir command under somebody's identity.
func weirAs(t *testing.T, who string, args ...string) (string, int) {
	t.Helper()
	return finish(t, w.Node.As(t.Context(), w.Files[who], w.Weir, append([]string{"--config", w.Node.ConfigFile()}, args...)...))
}

func finish(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	out, err := w.Node.Run(cmd)
	if err == nil {
		return out, 0
	}
	if exit, ok := err.(*exec.ExitError); ok {
		return out, exit.ExitCode()
	}
	t.Fatal(err)
	return "", 0
}

// show is a request as root sees it.
func show(t *testing.T, id string) approval.Request {
	t.Helper()
	out, code := weir(t, "approvals", "show", id, "-o", "json")
	var r approval.Request
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s", code, err, out)
	}
	return r
}

func wantStatus(t *testing.T, id string, want approval.Status) {
	t.Helper()
	eventually(t, fmt.Sprintf("request %s is %s", id, want), func() bool { return show(t, id).Status == want })
}

// token has the provider sign somebody in for a nonce, and returns the token's file.
func token(t *testing.T, p *dex.Provider, who, nonce string, groups ...string) string {
	t.Helper()
	if groups == nil {
		groups = people[who]
	}
	raw, err := p.TokenWithNonce(t.Context(), who, who+"@example.com", groups, nonce)
	if err != nil {
		t.Fatal(err)
	}
	return tokenFile(t, raw)
}

func tokenFile(t *testing.T, raw string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(f, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// approve approves a request with a fresh token.
func approve(t *testing.T, who, id string, flags ...string) {
	t.Helper()
	out, code := weir(t, append([]string{"approvals", "approve", id, "--token-file", token(t, w.IDP, who, show(t, id).Nonce)}, flags...)...)
	if code != 0 {
		t.Fatalf("exit %d: %s\nagent: %s", code, out, w.Node.LogTail())
	}
}

// interrupt sends Ctrl-C to psql itself, below weir exec.
func (c *client) interrupt() {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		c.t.Fatal(err)
	}
}

// since gives a --from flag for events of this test only.
func since() string { return time.Now().UTC().Add(-time.Millisecond).Format(time.RFC3339Nano) }

func events(t *testing.T, flags ...string) []map[string]any {
	t.Helper()
	all, err := w.Node.Events(t.Context(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// field walks a decoded event.
func field(e map[string]any, path ...string) any {
	var v any = e
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}
