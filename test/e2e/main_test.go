// Package e2e runs the built binary against the real kernel, PostgreSQL and
// identity provider, with the clients that people use. Everything it starts is
// started once, in TestMain, and taken out at the end; the last check is that
// nothing stays behind.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/testkit/dex"
	"github.com/weirproxy/weir/internal/testkit/world"
)

const briefLife = 8 * time.Second

// The one world of this test binary and its second provider, whose tokens live
// for briefLife; set by TestMain before any test runs.
var (
	w     *world.World
	brief *dex.Provider
)

// people are the persons of the tests and their groups.
var people = map[string][]string{
	"ann":   {"developer"},
	"dora":  {"dba"},
	"bench": {"bench"},
	"eve":   {"visitors"},
	// For BenchmarkMasks: nothing is masked for one, what it reads for the other.
	"plain":  {"bench", "dba"},
	"masked": {"seen"},
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
        groups: [bench, seen]
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
      - name: balances
        columns: ["public.pgbench_accounts.abalance"]
        with: "null"
        unless_groups: [dba, bench, developer, visitors]
`

func TestMain(m *testing.M) {
	code := 1
	var err error
	w, err = world.Start(world.Config{People: people, Policy: policyText, Issuers: startBrief,
		InitSQL: "\\connect shop\nGRANT CREATE, USAGE ON SCHEMA public TO weir_app;\n",
		Backends: fmt.Sprintf(`  - name: netns-shop
    protocol: postgres
    addresses: ["%s:%d"]
    credentials:
      - {username: weir_app}
`, netnsAddr, netnsPort)})
	if err == nil {
		code = m.Run()
		err = w.Stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
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

// command is a command as somebody; "" for nobody.
func command(ctx context.Context, who, name string, args ...string) *exec.Cmd {
	if who == "" {
		return exec.CommandContext(ctx, name, args...)
	}
	return w.Node.As(ctx, w.Files[who], name, args...)
}

// run runs a command as somebody in the captured cgroup and returns what it
// printed on both outputs.
func run(t testing.TB, who, name string, args ...string) (string, error) {
	t.Helper()
	cmd := command(t.Context(), who, name, args...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "PGCONNECT_TIMEOUT=30")
	return w.Node.Run(cmd)
}

// psql runs psql against the shop's own address.
func psql(t *testing.T, who string, args ...string) (string, error) {
	t.Helper()
	return run(t, who, "psql", append([]string{"-X", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop"}, args...)...)
}

// mustPsql is psql that must succeed.
func mustPsql(t *testing.T, who string, args ...string) string {
	t.Helper()
	out, err := psql(t, who, args...)
	if err != nil {
		t.Fatalf("psql %q: %v: %s\nagent: %s", args, err, out, w.Node.LogTail())
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
	t.Fatalf("still not so: %s\nagent: %s", what, w.Node.LogTail())
}

// events asks the audit log.
func events(t *testing.T, flags ...string) []map[string]any {
	t.Helper()
	all, err := w.Node.Events(t.Context(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// count asks the server itself, round Weir, over its private socket.
func ask(t testing.TB, sql string) string {
	t.Helper()
	out, err := w.DB.Query(t.Context(), "shop", sql)
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
