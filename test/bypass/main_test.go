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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/sqlparse"
	"github.com/weirproxy/weir/internal/testkit/world"
)

// party is a world with its attackers.
type party struct {
	*world.World
	dialers map[string]*dialer // person -> process that connects as them
	mu      sync.Mutex
	open    []net.Conn // of all tests so far

	ctx      context.Context // ends with the tests
	plants   []plant
	detector *detector
	lastOID  uint32 // whatever has a higher one was made by a test
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
	"eve": {"developer", "plain", "raider"},           // may do nearly everything, except to see what is masked
	"max": {"dba", "plain", "everything"},             // the same, with the server's superuser behind it
	"mig": {"developer", "plain", "keeper"},           // keeps the shop's and the vault's tables: an application, a migration
	"dum": {"developer", "plain", "keeper", "dumper"}, // runs pg_dump --schema-only
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
      - name: raiders read and write
        groups: [raider]
        actions: [select, insert, update, delete, merge, truncate, copy_out, copy_in, explain, lock, maintain]
        resources: ["vault.*", "sandbox.*", "shop.*", "pg_temp.*", "pg_catalog.*"]
        effect: allow
      - name: raiders make things of their own
        groups: [raider]
        actions: [create, alter, drop, call]
        resources: ["sandbox.*", "pg_temp.*", "function:sandbox.*", "function:pg_temp.*"]
        effect: allow
      - name: raiders call
        groups: [raider]
        actions: [call]
        resources: ["function:vault.*", "function:ext.*", "function:pg_catalog.*"]
        effect: allow
      - name: raiders set, listen, lock and explain
        groups: [raider]
        actions: [set, listen, lock, explain]
        effect: allow
      - name: keepers change the shop and read the vault
        groups: [keeper]
        actions: [select, insert, update, delete, merge, truncate, create, alter, drop, grant, lock, copy_in, copy_out, explain, maintain]
        resources: ["shop.*", "pg_temp.*", "ext.*"]
        effect: allow
      - name: keepers work on the vault
        groups: [keeper]
        actions: [select, insert, update, delete, merge, lock, explain, copy_out]
        resources: ["vault.*"]
        effect: allow
      - name: keepers set and lock
        groups: [keeper]
        actions: [set, lock, call, listen, explain]
        resources: ["setting:*", "function:shop.*", "function:pg_catalog.*", "function:ext.*", "channel:*"]
        effect: allow
      - name: what pg_dump --schema-only reads besides the catalogue, and the locks of keepers
        groups: [dumper]
        actions: [select]
        resources: ["pg_catalog.pg_settings", "pg_catalog.pg_subscription"]
        effect: allow
      - name: pg_dump's set_config of a name that is read from pg_settings, which weir cannot read
        groups: [dumper]
        actions: [unknown]
        effect: allow
      - name: everything
        groups: [everything]
        actions: [connect, select, insert, update, delete, truncate, merge, create, alter, drop, grant, copy_in, copy_out, call, set, lock, listen, explain, maintain]
        effect: allow
    masks:
      - name: vault cards
        columns: ["vault.cards.card"]
        with: last4
      - name: vault accounts
        columns: ["vault.cards.iban", "vault.gen.card", "vault.parts.card", "vault.by_card.num", "vault.child.card", "vault.younger.card",
          "vault.fenced.card", "vault.points.card", "vault.apart.card", "vault.noisy.card", "vault.strict.card", "vault.shouting.card",
          "vault.ruled.card", "vault.silent.card", "vault.sizes.memo", "vault.blobs.content", "vault.f_file.card", "vault.f_cards.card", "vault.remote.card"]
        with: redact
      - name: vault addresses
        columns: ["vault.cards.mail"]
        with: email
      - name: vault types
        columns: ["vault.wide.t", "vault.wide.num", "vault.wide.big", "vault.wide.flt", "vault.wide.bytes", "vault.wide.js", "vault.wide.jb",
          "vault.wide.x", "vault.wide.tarr", "vault.wide.narr", "vault.wide.duo", "vault.wide.rng", "vault.wide.mrng", "vault.wide.hst", "vault.wide.dom",
          "vault.wide.d", "vault.wide.ts", "vault.wide.iv", "vault.wide.u", "vault.wide.ip", "vault.wide.mac", "vault.wide.bits", "vault.wide.pt",
          "vault.wide.ch", "vault.wide.nm", "vault.wide.cit", "vault.wide.tsv", "vault.wide.cash"]
        with: redact
      - name: vault tested
        columns: ["vault.open.card"]
        with: redact
        predicates: allow
      - name: vault counted
        columns: ["vault.metered.card"]
        with: redact
        predicates: {budget: 5}
      - name: vault tokens
        columns: ["vault.tokens.card"]
        with: token
      - name: vault codes
        columns: ["vault.tokens.code"]
        with: hash
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
	sqlparse.ChildMain() // the analyser of TestDifferential
	if s := os.Getenv(roleVar); s != "" {
		os.Exit(helper(s))
	}
	code := 1
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.ctx = ctx
	err := w.start()
	if err == nil {
		if code = m.Run(); code == 0 || *update {
			err = results.report()
		}
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
	if err := w.makeVaults(); err != nil {
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
