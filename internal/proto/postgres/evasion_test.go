package postgres

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// The ways round the masks and the rules that a red team found, with the real
// analyser, catalogue and server. Nothing of theirs stays in the shop: each test
// has a schema of its own.

const evasionPolicy = `
policies:
  - name: orders
    backends: ["*"]
    rules:
      - {name: developers read the shop, actions: [connect, select, copy_out, explain], resources: ["shop.*"], effect: allow}
      - {name: a place of their own, actions: [create, alter, drop, select, insert, update, merge, copy_out, copy_in, maintain], resources: ["sandbox.*", "pg_temp.*"], effect: allow}
      - {name: functions of their own, actions: [create, drop], resources: ["function:sandbox.*"], effect: allow}
      - {name: they write, actions: [insert, update], resources: ["shop.orders", "shop.payments"], effect: allow}
    masks:
      - {name: cards, columns: ["shop.payments.card_number"], with: last4}
`

// newSandbox is a world in which developers have a schema of their own.
func newSandbox(t *testing.T, sql string) *world {
	t.Helper()
	w := newRealWorld(t)
	set, err := policy.Compile([]policy.File{{Name: "policy.yaml", Data: []byte(evasionPolicy)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.set(func() {
		w.decide = set.Decide
		w.masks = set.Masks(w.who, "orders")
		w.revision++
	})
	direct := func(sql string) error {
		c, err := pgx.Connect(context.Background(), w.upstream)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		_, err = c.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	t.Cleanup(func() {
		if err := direct("drop schema sandbox cascade"); err != nil {
			t.Error(err)
		}
	})
	if err := direct("drop schema if exists sandbox cascade; create schema sandbox; " + sql); err != nil {
		t.Fatal(err)
	}
	return w
}

// pipeline sends a script in the shop and returns what comes back, up to n
// ReadyForQuery.
func (w *world) pipelined(t *testing.T, c net.Conn, n int, script string) string {
	t.Helper()
	if _, err := c.Write(clientBytes(script)); err != nil {
		t.Fatal(err)
	}
	var out []string
	for range n {
		out = append(out, readUntil(t, c, 'Z'))
	}
	return strings.Join(out, " | ")
}

func (w *world) shop(t *testing.T, params ...string) net.Conn {
	t.Helper()
	c := w.dial(t)
	if _, err := c.Write(startupPacket(version30, append([]string{"user", "x", "database", "shop"}, params...)...)); err != nil {
		t.Fatal(err)
	}
	readUntil(t, c, 'Z')
	return c
}

// cardLeaks looks for card numbers as they are and backwards.
func cardLeaks(s string) bool {
	r := []rune(s)
	for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
		r[i], r[j] = r[j], r[i]
	}
	return leaks(s) || leaks(string(r))
}

// TestStringsChangeInABatch: the server reads the texts behind the change in
// another way before it says so.
func TestStringsChangeInABatch(t *testing.T) {
	w := newRealWorld(t)
	rules := w.decide
	w.set(func() { // the change itself passes, as by a rule on unknown
		w.decide = func(in policy.Input) policy.Decision {
			if strings.Contains(in.Action.Text, "set standard_conforming_strings") {
				return policy.Decision{Verdict: flow.Allow, Rule: "all"}
			}
			return unkept(rules(in))
		}
	})
	const hidden = `select '\' || $q$', reverse(card_number) from shop.payments -- $q$`
	for _, change := range []string{"set standard_conforming_strings = off", "begin; set standard_conforming_strings = off"} {
		c := w.shop(t)
		script := "P - set standard_conforming_strings = off | B - - | E - | H"
		if strings.HasPrefix(change, "begin") {
			script = "P - begin | B - - | E - | " + script
		}
		got := w.pipelined(t, c, 1, script+" | P - "+hidden+" | B - - | E - | S")
		if cardLeaks(got) || !strings.Contains(got, "E 42501 weir: ") {
			t.Errorf("%s: %s", change, got)
		}
	}
	c := w.shop(t)
	// What every server reads alike passes in the same batch, the rest behind Sync.
	got := w.pipelined(t, c, 2, `P - set standard_conforming_strings = on | B - - | E - | P - select 'a' | B - - | E - | S | P - select '\' | B - - | E - | S`)
	if !strings.Contains(got, "D a") || !strings.Contains(got, `D \`) {
		t.Errorf("no change at all: %s", got)
	}
	got = w.pipelined(t, c, 1, `P - set client_encoding = latin1 | B - - | E - | P - select 'é' | B - - | E - | S`)
	if !strings.Contains(got, "E 42501 weir: ") {
		t.Errorf("an encoding in a batch: %s", got)
	}
	got = w.pipelined(t, c, 2, `P - set client_encoding = utf8 | B - - | E - | S | P - select 'é' | B - - | E - | S`)
	if !strings.Contains(got, "D é") {
		t.Errorf("an encoding before a batch: %s", got)
	}
	// A statement is read once, when it is prepared.
	got = w.pipelined(t, c, 3, `P a select 'é' | S | P - set client_encoding = latin1 | B - - | E - | B - a | E - | S | B - a | E - | S`)
	if strings.Count(got, "D \xe9") != 2 {
		t.Errorf("a statement from before: %q", got)
	}
	got = w.pipelined(t, c, 1, `Q select 'é'`)
	if !strings.Contains(got, "E 42501 weir: ") {
		t.Errorf("an encoding that is known: %s", got)
	}
	w.pipelined(t, c, 1, "Q set standard_conforming_strings = off")
	got = w.pipelined(t, c, 1, "Q "+hidden)
	if cardLeaks(got) || !strings.Contains(got, "E 42501 weir: ") {
		t.Errorf("behind the report: %s", got)
	}
}

// TestCopyInAnotherNameSpace: COPY (query) is described where the session's
// temporary relations are not.
func TestCopyInAnotherNameSpace(t *testing.T) {
	w := newSandbox(t, "create view sandbox.notes as select id, note as item from shop.payments where id < 4")
	for _, make := range []string{
		"create temp view orders as select id, reverse(card_number) as item from shop.payments",
		"create temp table orders as select id, reverse(card_number) as item from shop.payments",
		"begin; create or replace view sandbox.notes as select id, reverse(card_number) as item from shop.payments",
	} {
		c := w.connect(t, "search_path=shop")
		if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, make); got != "" {
			t.Fatalf("%s: %s", make, got)
		}
		for _, sql := range []string{"copy (select item from orders) to stdout", "copy (select item || '' from orders) to stdout", "copy (select item from sandbox.notes) to stdout",
			"copy (select item from orders) to stdout (format binary)", "copy orders to stdout"} {
			var b strings.Builder
			if _, err := c.PgConn().CopyTo(context.Background(), &b, sql); err == nil && cardLeaks(b.String()) {
				t.Errorf("%s; %s gave %.100q", make, sql, b.String())
			}
		}
		c.Close(context.Background())
	}
}

// TestApplicationName: a client may name its session, but not as Weir's own.
func TestApplicationName(t *testing.T) {
	w := newRealWorld(t)
	c := w.connect(t, "application_name=weir%3Acatalogue")
	name := func() string {
		return rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, "show application_name")
	}
	if got := name(); !strings.HasPrefix(got, "weir:01") || !strings.HasSuffix(got, " weir:catalogue") {
		t.Errorf("at startup: %q", got)
	}
	for _, sql := range []string{"set application_name = 'weir:catalogue'", "set local application_name to ' WEIR:x'", "select set_config('application_name', 'weir:catalogue', false)",
		"select set_config('application_name', 'weir' || ':catalogue', false)", "select set_config('APPLICATION_NAME', 'weir:a', true) from shop.orders", "begin; set application_name = 'weir:catalogue'"} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			if mode == pgx.QueryExecModeExec && strings.Contains(sql, ";") {
				continue
			}
			if got := rowsOf(t, c, mode, sql); !strings.HasPrefix(got, "22023 weir: application_name ") {
				t.Errorf("%s: %s", sql, got)
			}
		}
	}
	if got := name(); !strings.HasPrefix(got, "weir:01") {
		t.Errorf("behind the refusals: %q", got)
	}
	if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, "set application_name = 'PostgreSQL JDBC Driver'"); got != "" || name() != "PostgreSQL JDBC Driver" {
		t.Errorf("a name: %q, %q", got, name())
	}
	if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, "reset application_name"); got != "" || !strings.HasPrefix(name(), "weir:01") {
		t.Errorf("reset: %q, %q", got, name())
	}
}

// TestViewsOfTheOpenTransaction: the catalogue's own connection does not see DDL
// that is not committed.
func TestViewsOfTheOpenTransaction(t *testing.T) {
	w := newSandbox(t, `create view sandbox.notes as select id, note as c from shop.payments; create view sandbox.below as select id, c from sandbox.notes;
		create table sandbox.plain (id int, c text); create table sandbox.parent (c text); insert into sandbox.plain values (1, 'open')`)
	const replace = "create or replace view sandbox.notes as select id, reverse(card_number) as c from shop.payments"
	c := w.connect(t, "search_path=sandbox,shop")
	tx := func(sql ...string) string {
		t.Helper()
		var out []string
		for _, s := range append(append([]string{"begin"}, sql...), "rollback") {
			out = append(out, rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, s))
		}
		got := strings.Join(out, "\n")
		if cardLeaks(got) {
			t.Errorf("%s\ngave %s", sql, got)
		}
		return got
	}
	tx(replace, "select c from sandbox.notes", "select upper(c) from notes", "select c from sandbox.below", "select max(c) from sandbox.below", "table notes")
	tx(replace, "prepare p as select c from sandbox.notes", "execute p", "declare d cursor for select c from notes", "fetch 3 from d", "copy (select c from notes) to stdout")
	tx("create view sandbox.orders as select id, reverse(card_number) as item from shop.payments", "select item from orders", "select upper(item) from orders")
	tx("alter table sandbox.plain rename to other", "create view sandbox.plain as select id, reverse(card_number) as c from shop.payments", "select c from sandbox.plain", "select c || '' from plain")
	if got := tx("create table sandbox.t (a int)", "select count(*) from shop.orders", "select c from sandbox.plain", "select item from shop.orders where id = 1"); strings.Contains(got, "masked") || !strings.Contains(got, "open") {
		t.Errorf("what has nothing to do with the new table gave %s", got)
	}
	// One string.
	raw := w.shop(t)
	got := w.pipelined(t, raw, 1, "Q "+replace+"; select c from sandbox.notes; select upper(c) from sandbox.below")
	if cardLeaks(got) || strings.Count(got, "D [masked]") < 2 {
		t.Errorf("one string gave %s", got)
	}
	got = w.pipelined(t, raw, 1, "P - "+replace+" | B - - | E - | P - select c from sandbox.below | B - - | D P  | E - | S")
	if cardLeaks(got) {
		t.Errorf("one batch gave %s", got)
	}
	// Once it is committed the catalogue says what the view reads.
	if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, "select c from sandbox.notes order by id limit 1"); got != "[masked]" {
		t.Errorf("committed: %q", got)
	}
	// A function of the transaction's hides behind one of the server's.
	got = tx("create function sandbox.lower(int) returns text language sql as 'select reverse(card_number) from shop.payments where id = $1'", "select lower(3)")
	if !strings.Contains(got, "42501 weir: ") {
		t.Errorf("a new function: %s", got)
	}
}

// TestValuesStayWhereTheyAreMasked: what a mask hides is not stored elsewhere.
func TestValuesStayWhereTheyAreMasked(t *testing.T) {
	w := newSandbox(t, "create table sandbox.t (id int, c text); create view sandbox.pay as select id, card_number as c from shop.payments; create materialized view sandbox.m as select card_number from shop.payments")
	c := w.connect(t, "")
	refused := []string{
		"create table sandbox.x as select reverse(card_number) as c from shop.payments",
		"create table sandbox.x as table shop.payments",
		"select reverse(card_number) c into sandbox.x from shop.payments",
		"insert into sandbox.t select id, reverse(card_number) from shop.payments",
		"insert into sandbox.t select id, c from sandbox.pay",
		"insert into sandbox.t select id, p::text from shop.payments p",
		"with x as (select card_number as y from shop.payments) insert into sandbox.t select 1, y from x",
		"with x as (insert into sandbox.t select id, card_number from shop.payments returning 1) select 1",
		"update sandbox.t set c = card_number from shop.payments p where p.id = t.id",
		"update shop.payments set note = card_number",
		"update sandbox.t set c = (select card_number from shop.payments where id = 3)",
		"merge into sandbox.t using shop.payments p on p.id = t.id when not matched then insert values (p.id, p.card_number)",
		"insert into shop.payments (id, note) values (3, '') on conflict (id) do update set note = payments.card_number",
		"prepare ins as insert into sandbox.t select id, card_number from shop.payments",
		"copy (insert into sandbox.t select id, card_number from shop.payments returning 1) to stdout",
		"explain analyze create table sandbox.x as select card_number from shop.payments",
		"begin; create temp table mine as select card_number c from shop.payments; insert into sandbox.t select 1, c from mine",
	}
	because := func(s string) bool { return strings.Contains(s, " would store ") && strings.Contains(s, "from you") }
	for _, sql := range refused {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			if mode == pgx.QueryExecModeExec && strings.Contains(sql, ";") {
				continue
			}
			got := rowsOf(t, c, mode, sql)
			if !strings.HasPrefix(got, "42501 weir: this ") || !because(got) {
				t.Errorf("%s: %s", sql, got)
			}
		}
	}
	recorded := 0
	for _, e := range w.snapshot() {
		if e.Action != nil && e.Action.Phase == auditlog.PhaseIntent && e.Verdict == "deny" && e.Result != nil && e.Result.Status == auditlog.StatusDenied && because(e.Reason) {
			recorded++
		}
	}
	if recorded < len(refused) {
		t.Errorf("%d denials with their reason are on record, want at least %d", recorded, len(refused))
	}
	for _, sql := range []string{
		"create table sandbox.ok as select id, note, amount from shop.payments", "insert into sandbox.t values (1, 'x')", "insert into sandbox.t select id, item from shop.orders",
		"create view sandbox.v as select card_number from shop.payments", "create materialized view sandbox.mv as select reverse(card_number) as c from shop.payments", "refresh materialized view sandbox.m",
		"create temp table mine as select * from shop.payments",
		"begin; update shop.payments set card_number = '0', note = 'x' where card_number = '1'; rollback",
		"begin; insert into shop.payments (id, customer_id, card_number, amount) values (99, 1, '4111 1111 1111 1111', 1) returning id; rollback",
		"begin; create table sandbox.fresh (id int); insert into sandbox.fresh select id from shop.orders; rollback",
	} {
		if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, sql); strings.Contains(got, "weir: ") || strings.HasPrefix(got, "42") {
			t.Errorf("%s: %s", sql, got)
		}
	}
	for _, sql := range []string{"select card_number from sandbox.v", "select c from sandbox.mv", "select card_number || '' from sandbox.m"} { // followed to what they are made of
		if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, sql); cardLeaks(got) || !strings.Contains(got, "1") && !strings.Contains(got, "[masked]") {
			t.Errorf("%s: %s", sql, got)
		}
	}
	// Who may see them may store them.
	w.setMasks()
	if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, refused[0]); got != "" {
		t.Errorf("without a mask: %s", got)
	}
}

// TestOperatorsRunFunctions: nobody runs a function by an operator without `call`.
func TestOperatorsRunFunctions(t *testing.T) {
	w := newSandbox(t, `create function sandbox.f(int) returns text language plpgsql as 'begin return (select string_agg(reverse(card_number), '','') from shop.payments); end';
		create operator sandbox.### (function = sandbox.f, rightarg = int)`)
	c := w.connect(t, "search_path=sandbox")
	for _, sql := range []string{"select ### 1", "select operator(sandbox.###) 1", "select 1 where 'a' = ### 1",
		"create operator sandbox.@@@ (function = pg_catalog.ts_rewrite, leftarg = tsquery, rightarg = text)",
		"create operator sandbox.!!! (function = sandbox.f, rightarg = int)", "create aggregate sandbox.agg (int) (sfunc = sandbox.h, stype = text)"} {
		if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, sql); !strings.HasPrefix(got, "42501 weir: ") {
			t.Errorf("%s: %s", sql, got)
		}
	}
	rules := w.decide
	w.set(func() {
		w.revision++
		w.decide = func(in policy.Input) policy.Decision {
			if len(in.Action.Accesses) > 0 && in.Action.Accesses[0] == (flow.Access{Verb: flow.Call, Resource: "function:sandbox.f"}) {
				return policy.Decision{Verdict: flow.Allow, Rule: "call"}
			}
			return unkept(rules(in))
		}
	})
	if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, "select ### 1"); cardLeaks(got) || got != "[masked]" {
		t.Errorf("with a rule: %s", got)
	}
}
