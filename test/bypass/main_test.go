// Package bypass attacks a real node as a signed-in developer who speaks the
// protocol by hand: get a masked value out, get a denied statement executed, be
// somebody else, wear the agent out. A case here is one that failed once or that
// is worth never failing; what it looks for is in the bytes that came back and in
// the server's own log.
package bypass

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/testkit/world"
)

// party is a world with its attackers.
type party struct {
	*world.World
	dialers map[string]*dialer // person -> process that connects as them
	mu      sync.Mutex
	open    []net.Conn // of all tests so far
}

// The one world of this test binary, set by TestMain before any test runs.
var w = &party{dialers: map[string]*dialer{}}

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
	code := 1
	err := w.start()
	if err == nil {
		code = m.Run()
	}
	if err := errors.Join(err, w.stop()); err != nil {
		fmt.Fprintln(os.Stderr, "bypass:", err)
		code = 1
	}
	os.Exit(code)
}

func (w *party) start() error {
	var err error
	if w.World, err = world.Start(world.Config{People: people, Policy: policyText, InitSQL: initSQL}); err != nil {
		return err
	}
	for name := range people {
		if w.dialers[name], err = startDialer(name); err != nil {
			return err
		}
	}
	return nil
}

func (w *party) stop() error {
	var errs []error
	for _, d := range w.dialers {
		if d != nil {
			errs = append(errs, d.stop())
		}
	}
	return errors.Join(append(errs, w.World.Stop())...)
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
	t.Fatalf("still not so: %s\nagent: %s", what, w.Node.LogTail())
}

// ask asks the server itself, round Weir, over its private socket.
func ask(t *testing.T, sql string) string {
	t.Helper()
	out, err := w.DB.Query(t.Context(), "shop", sql)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// closeAll ends every connection of the tests so far.
func (w *party) closeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
}
