// Package bypass attacks a real node as a signed-in developer who speaks the
// protocol by hand: get a masked value out, get a denied statement executed, be
// somebody else, wear the agent out. A case here is one that failed once or that
// is worth never failing; what it looks for is in the bytes that came back and in
// the server's own log.
package bypass

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/testkit/dex"
	"github.com/weirproxy/weir/internal/testkit/node"
	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// world is what the tests share.
type world struct {
	dir     string
	weir    string
	db      *postgres.Server
	idp     *dex.Provider
	node    *node.Node
	files   map[string]string  // person -> token file
	dialers map[string]*dialer // person -> process that connects as them
	mu      sync.Mutex
	open    []net.Conn // of all tests so far
}

// The one world of this test binary, set by TestMain before any test runs.
var w = &world{}

// people are the attackers and their groups. Detectors work for those who are not
// in plain, so that what only they stop shows.
var people = map[string][]string{
	"ann": {"developer", "plain"},
	"dee": {"developer"},
	"bob": {"developer", "plain"},
	"tom": {"developer", "plain", "temp", "copier"},
	"sam": {"developer", "plain", "sandbox", "copier"},
}

const policyText = `policies:
  - name: shop
    backends: [shop]
    rules:
      - name: developers read the shop
        groups: [developer]
        actions: [connect, select]
        resources: ["shop.*"]
        effect: allow
      - name: developers connect
        groups: [developer]
        actions: [connect]
        effect: allow
      - name: copies
        groups: [copier]
        actions: [copy_out, explain]
        resources: ["shop.*", "pg_temp.*", "sandbox.*"]
        effect: allow
      - name: own temporary tables
        groups: [temp]
        actions: [create, insert, select, update, drop]
        resources: ["pg_temp.*"]
        effect: allow
      - name: own path
        groups: [temp, sandbox]
        actions: [set]
        resources: ["setting:search_path"]
        effect: allow
      - name: own schema
        groups: [sandbox]
        actions: [create, insert, select, update, drop, alter]
        resources: ["sandbox.*"]
        effect: allow
    masks:
      - name: cards
        columns: ["shop.payments.card_number"]
        with: last4
      - name: accounts
        columns: ["shop.customers.iban"]
        with: redact
      - name: values
        detect: [payment_card, iban]
        with: last4
        unless_groups: [plain]
`

// initSQL makes what the sandboxed developer works with.
const initSQL = `\connect shop
CREATE SCHEMA sandbox AUTHORIZATION weir_app;
SET ROLE weir_app;
CREATE VIEW sandbox.notes AS SELECT id, note AS c FROM shop.payments;
CREATE VIEW shop.rows AS SELECT id, row_to_json(p)::text AS j FROM shop.payments p;
CREATE VIEW shop.rows_again AS SELECT j AS k FROM shop.rows;
CREATE VIEW shop.renamed AS SELECT id, card_number AS note FROM shop.payments;
`

func TestMain(m *testing.M) {
	if s := os.Getenv(roleVar); s != "" {
		os.Exit(helper(s))
	}
	code, err := 1, errors.New("not started")
	func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		err = w.start(ctx)
	}()
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, "bypass: cannot start:", err)
	}
	if err := w.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "bypass: something stays behind:", err)
		code = 1
	}
	os.Exit(code)
}

func (w *world) start(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("these tests attach eBPF programs: run them as root")
	}
	var err error
	if w.dir, err = os.MkdirTemp("", "weir-bypass-"); err != nil {
		return err
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"db", "idp", "node"} {
		if err := os.Mkdir(filepath.Join(w.dir, d), 0o755); err != nil {
			return err
		}
	}
	w.weir = filepath.Join(w.dir, "weir")
	build := exec.CommandContext(ctx, "go", "build", "-o", w.weir, "../../cmd/weir")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build weir: %w: %s", err, out)
	}
	if w.db, err = postgres.Start(ctx, postgres.Config{Dir: filepath.Join(w.dir, "db"), Shop: true, InitSQL: initSQL, Settings: map[string]string{
		"log_statement": "all", "log_line_prefix": "[%p|%a|%e] ", "max_connections": "300", "log_min_duration_statement": "-1",
	}}); err != nil {
		return err
	}
	if w.idp, err = dex.Start(ctx, dex.Config{Dir: filepath.Join(w.dir, "idp"), TokenLifetime: time.Hour}); err != nil {
		return err
	}
	if err := w.tokens(ctx); err != nil {
		return err
	}
	if w.node, err = node.Start(ctx, node.Config{Dir: filepath.Join(w.dir, "node"), Weir: w.weir, Policy: policyText, Config: w.config()}); err != nil {
		return err
	}
	w.dialers = map[string]*dialer{}
	for name := range people {
		if w.dialers[name], err = startDialer(name); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) config() string {
	file := filepath.Join(w.dir, "weir_app.password")
	_ = os.WriteFile(file, []byte(w.db.Password("weir_app")), 0o600) // a missing one fails the first login
	return fmt.Sprintf(`identity:
  issuers:
    - {issuer: %[1]q, client_id: weir, kind: human}
backends:
  - name: shop
    protocol: postgres
    addresses: ["127.0.0.1:%[2]d", "[::1]:%[2]d"]
    credentials:
      - {username: weir_app, password: %[3]q}
console: {listen: ""}
`, w.idp.Issuer, w.db.Port, "file:"+file)
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
	for _, d := range w.dialers {
		if d != nil {
			errs = append(errs, d.stop())
		}
	}
	if w.node != nil {
		errs = append(errs, w.node.Stop(ctx))
	}
	if w.idp != nil {
		errs = append(errs, w.idp.Stop())
	}
	if w.db != nil {
		errs = append(errs, w.db.Stop())
	}
	if errors.Join(errs...) == nil && w.dir != "" {
		errs = append(errs, os.RemoveAll(w.dir))
	}
	return errors.Join(errs...)
}

// eventually waits for a condition; the deadline is for broken code, not for slow
// machines.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("still not so: %s\nagent: %s", what, w.node.LogTail())
}

// ask asks the server itself, round Weir, over its private socket.
func ask(t *testing.T, sql string) string {
	t.Helper()
	out, err := w.db.Query(t.Context(), "shop", sql)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// closeAll ends every connection of the tests so far.
func (w *world) closeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
}
