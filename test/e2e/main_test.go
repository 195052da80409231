// Package e2e runs the built binary against the real kernel, PostgreSQL and
// identity provider, with the clients that people use. Everything it starts is
// started once, in TestMain, and taken out at the end; the last check is that
// nothing stays behind.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/testkit/dex"
	"github.com/weirproxy/weir/internal/testkit/node"
	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// world is what the tests share.
type world struct {
	dir   string
	weir  string
	db    *postgres.Server
	idp   *dex.Provider
	brief *dex.Provider // its tokens live for briefLife
	node  *node.Node
	files map[string]string // person -> token file
}

const briefLife = 8 * time.Second

// The one world of this test binary, set by TestMain before any test runs.
var w = &world{}

// people are the persons of the tests and their groups.
var people = map[string][]string{
	"ann":   {"developer"},
	"dora":  {"dba"},
	"bench": {"bench"},
	"eve":   {"visitors"},
}

const policyText = `policies:
  - name: shop
    backends: [shop, netns-shop]
    rules:
      - name: developers read the shop
        groups: [developer]
        actions: [connect, select, copy_out, explain]
        resources: ["shop.*"]
        effect: allow
      - name: developers keep their own settings
        groups: [developer]
        actions: [create, insert, select, update, drop]
        resources: ["pg_temp.*"]
        effect: allow
      - name: administrators do everything
        groups: [dba]
        effect: allow
      - name: pgbench
        groups: [bench]
        actions: [connect, select, insert, update, truncate, maintain, create, drop, alter, copy_in]
        resources: ["public.pgbench_*"]
        effect: allow
      - name: no drops
        groups: [developer]
        actions: [drop, truncate]
        resources: ["shop.*"]
        effect: deny
    masks:
      - name: cards
        columns: ["shop.payments.card_number"]
        detect: [payment_card]
        with: last4
        unless_groups: [dba]
`

func TestMain(m *testing.M) {
	code, err := 1, errors.New("not started")
	func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		err = w.start(ctx)
	}()
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, "e2e: cannot start:", err)
	}
	if err := w.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: something stays behind:", err)
		code = 1
	}
	os.Exit(code)
}

func (w *world) start(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("these tests attach eBPF programs: run them as root")
	}
	var err error
	if w.dir, err = os.MkdirTemp("", "weir-e2e-"); err != nil {
		return err
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"db", "idp", "brief", "node", "out"} {
		if err := os.Mkdir(filepath.Join(w.dir, d), 0o755); err != nil {
			return err
		}
	}
	w.weir = filepath.Join(w.dir, "weir")
	build := exec.CommandContext(ctx, "go", "build", "-o", w.weir, "../../cmd/weir")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build weir: %w: %s", err, out)
	}
	if w.db, err = postgres.Start(ctx, postgres.Config{Dir: filepath.Join(w.dir, "db"), Shop: true, Settings: map[string]string{
		"log_statement": "all", "log_line_prefix": "[%p|%a|%e] ", "max_connections": "200", "log_min_duration_statement": "-1",
	}}); err != nil {
		return err
	}
	if _, err := w.db.Psql(ctx, "-d", postgres.ShopDatabase, "-c", "GRANT CREATE, USAGE ON SCHEMA public TO weir_app"); err != nil {
		return err
	}
	if w.idp, err = dex.Start(ctx, dex.Config{Dir: filepath.Join(w.dir, "idp"), TokenLifetime: time.Hour}); err != nil {
		return err
	}
	if w.brief, err = dex.Start(ctx, dex.Config{Dir: filepath.Join(w.dir, "brief"), TokenLifetime: briefLife}); err != nil {
		return err
	}
	if err := w.tokens(ctx); err != nil {
		return err
	}
	w.node, err = node.Start(ctx, node.Config{Dir: filepath.Join(w.dir, "node"), Weir: w.weir, Policy: policyText, Config: w.config()})
	return err
}

func (w *world) config() string {
	secret := func(role string) string {
		f := filepath.Join(w.dir, role+".password")
		_ = os.WriteFile(f, []byte(w.db.Password(role)), 0o600) // a missing one fails the first login
		return "file:" + f
	}
	return fmt.Sprintf(`identity:
  issuers:
    - {issuer: %q, client_id: weir, kind: human}
    - {issuer: %q, client_id: weir, kind: human}
backends:
  - name: shop
    protocol: postgres
    addresses: ["127.0.0.1:%[3]d", "[::1]:%[3]d"]
    credentials:
      - {groups: [dba], username: weir_dba, password: %[4]q}
      - {username: weir_app, password: %[5]q}
  - name: netns-shop
    protocol: postgres
    addresses: ["%[6]s:%[7]d"]
    credentials:
      - {username: weir_app}
console: {listen: ""}
`, w.idp.Issuer, w.brief.Issuer, w.db.Port, secret("weir_dba"), secret("weir_app"), netnsAddr, netnsPort)
}

func (w *world) tokens(ctx context.Context) error {
	w.files = map[string]string{}
	for name, groups := range people {
		token, err := w.idp.Token(ctx, name, name+"@example.com", groups)
		if err != nil {
			return fmt.Errorf("sign %s in: %w", name, err)
		}
		w.files[name] = filepath.Join(w.dir, name+".jwt")
		if err := os.WriteFile(w.files[name], []byte(token), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if w.node != nil {
		errs = append(errs, w.node.Stop(ctx))
	}
	for _, p := range []*dex.Provider{w.idp, w.brief} {
		if p != nil {
			errs = append(errs, p.Stop())
		}
	}
	if w.db != nil {
		errs = append(errs, w.db.Stop())
	}
	if errors.Join(errs...) == nil && w.dir != "" {
		errs = append(errs, os.RemoveAll(w.dir))
	}
	return errors.Join(errs...)
}

// command is a command as somebody; "" for nobody.
func command(ctx context.Context, who, name string, args ...string) *exec.Cmd {
	if who == "" {
		return exec.CommandContext(ctx, name, args...)
	}
	return w.node.As(ctx, w.files[who], name, args...)
}

// run runs a command as somebody in the captured cgroup and returns what it
// printed on both outputs.
func run(t *testing.T, who, name string, args ...string) (string, error) {
	t.Helper()
	cmd := command(t.Context(), who, name, args...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "PGCONNECT_TIMEOUT=30")
	return w.node.Run(cmd)
}

// psql runs psql against the shop's own address.
func psql(t *testing.T, who string, args ...string) (string, error) {
	t.Helper()
	return run(t, who, "psql", append([]string{"-X", "-h", "127.0.0.1", "-p", fmt.Sprint(w.db.Port), "-d", "shop"}, args...)...)
}

// mustPsql is psql that must succeed.
func mustPsql(t *testing.T, who string, args ...string) string {
	t.Helper()
	out, err := psql(t, who, args...)
	if err != nil {
		t.Fatalf("psql %q: %v: %s\nagent: %s", args, err, out, w.node.LogTail())
	}
	return out
}

// holds fails unless out holds every word.
func holds(t *testing.T, out string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(out, word) {
			t.Errorf("no %q in:\n%s", word, out)
		}
	}
}

// eventually waits for a condition; the deadline is for broken code, not for
// slow machines.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("still not so: %s\nagent: %s", what, w.node.LogTail())
}

// events asks the audit log.
func events(t *testing.T, flags ...string) []map[string]any {
	t.Helper()
	all, err := w.node.Events(t.Context(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// count asks the server itself, round Weir, over its private socket.
func ask(t *testing.T, sql string) string {
	t.Helper()
	out, err := w.db.Query(t.Context(), "shop", sql)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// since gives a --from flag for events of this test only.
func since() string { return time.Now().UTC().Add(-time.Millisecond).Format(time.RFC3339Nano) }

// field walks a decoded event: field(e, "principal", "user").
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

func lines(s string) []string {
	return strings.Split(strings.TrimRight(s, "\n"), "\n")
}
