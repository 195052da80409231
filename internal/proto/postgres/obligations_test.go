package postgres

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
)

// setPredicates lets the mask of the cards answer tests in another way.
func (w *world) setPredicates(mode string, budget int) {
	w.set(func() {
		own := *w.masks[0]
		own.Predicates, own.Budget, own.Per = mode, budget, time.Hour
		w.masks = []*policy.Mask{&own}
		w.revision++
	})
}

// spent takes what has been taken out of budgets so far.
func (w *world) spent() []flow.Spend {
	w.budgets.mu.Lock()
	defer w.budgets.mu.Unlock()
	taken := w.budgets.taken
	w.budgets.taken = nil
	return taken
}

// TestPredicates: what a mask lets somebody find out by testing its column.
func TestPredicates(t *testing.T) {
	w := newSandbox(t, `create view sandbox.pay as select id, card_number as c from shop.payments;
		create function sandbox.has(text) returns boolean language sql stable as 'select exists (select from shop.payments where card_number = $1)'`)
	c := w.connect(t, "")
	const (
		equal   = policy.PredicatesDeny // passes under it, and is counted
		compare = policy.PredicatesBudget
		free    = policy.PredicatesAllow
		none    = "" // tells nothing
	)
	for _, test := range []struct {
		sql   string
		mode  string // the strictest under which it passes
		count int
	}{
		{"select id from shop.payments where card_number = '4111 1111 1111 1111'", equal, 1},
		{"select id from shop.payments where card_number in ('a', 'b', 'c')", equal, 3},
		{"select id from shop.payments where card_number <> 'a' and lower(card_number) = lower('B')", equal, 2},
		{"select id from sandbox.pay where c = 'a'", equal, 1},
		{"update shop.payments set note = 'x' where card_number = 'nosuch'", equal, 1},
		{"select id from shop.payments where card_number like '4%'", compare, 1},
		{"select id from sandbox.pay where c > '4'", compare, 1},
		{"select id from shop.payments order by card_number", compare, 1},
		{"select count(*) from shop.payments group by card_number", compare, 1},
		{"select distinct card_number from shop.payments", compare, 1},
		{"select case when card_number > '4' then 1 end from shop.payments", compare, 1},
		{"select sum(amount) filter (where card_number < '5') from shop.payments", compare, 1},
		{"select rank() over (order by card_number) from shop.payments", compare, 1},
		{"select 1 / (ascii(card_number) - 52) from shop.payments where id = 7", compare, 1},
		{"explain select id from shop.payments where card_number like '4%'", compare, 1},
		{"select p.id from shop.payments p join shop.customers c on c.iban = p.card_number", free, 0},
		{"select id from shop.payments p where exists (select from generate_series(1, 9) g where p.card_number like g || '%')", free, 0},
		{"select card_number from shop.payments intersect select 'x'", free, 0},
		{"select 1 from shop.payments, regexp_matches(card_number, '^4')", free, 0},
		{"select id from shop.payments limit (select max(length(card_number)) from shop.payments)", free, 0},
		{"select id, amount, card_number, upper(card_number) from shop.payments where id > 3 and note is not null order by amount, id", none, 0},
		{"select p.card_number, c.email from shop.payments p join shop.customers c on c.id = p.customer_id where c.email like 'a%' order by c.name", none, 0},
		{"select count(*), count(card_number), max(card_number), sum(amount) from shop.payments where amount > 20", none, 0},
		{"select id from shop.payments where card_number is not null", none, 0},
	} {
		for _, mode := range []string{equal, compare, free} {
			w.setPredicates(mode, 50)
			for _, exec := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
				w.spent()
				got := rowsOf(t, c, exec, test.sql)
				passes := test.mode == none || mode == free || mode == test.mode || mode == compare && test.mode == equal
				if refused := strings.HasPrefix(got, "42501 weir: mask \"cards\""); refused == passes {
					t.Errorf("predicates: %s: %s gave %.200s", mode, test.sql, got)
				}
				want := "[]"
				if passes && test.count > 0 && mode != free {
					want = fmt.Sprint([]flow.Spend{{Policy: "orders", Mask: "cards", Column: "shop.payments.card_number", Tests: test.count, Limit: 50, Per: time.Hour}})
				}
				if spent := fmt.Sprint(w.spent()); spent != want {
					t.Errorf("predicates: %s: %s spent %s, want %s", mode, test.sql, spent, want)
				}
			}
		}
	}
}

// TestTestsAreCountedOnce: preparing tests nothing, each execution does, and going on
// with the rows of one does not.
func TestTestsAreCountedOnce(t *testing.T) {
	w := newSandbox(t, "")
	w.setPredicates(policy.PredicatesBudget, 50)
	c := w.shop(t)
	for _, test := range []struct {
		script string
		syncs  int
		want   int
	}{
		{"Q prepare p as select id from shop.payments where card_number like '4%'", 1, 0},
		{"Q execute p | Q execute p", 2, 2},
		{"P a select id from shop.payments where card_number = $1 | S", 1, 0},
		{"B - a x | E - | B - a y | E - | S", 1, 2},
		{"P b select id from shop.payments where card_number > ' ' | B - b | E - 2 | E - 2 | E - | S", 1, 1},
		{"Q begin | Q declare d cursor for select id from shop.payments where card_number > ' ' | Q fetch 2 from d | Q fetch 2 from d | Q commit", 5, 1},
	} {
		w.spent()
		got := w.pipelined(t, c, test.syncs, test.script)
		n := 0
		for _, s := range w.spent() {
			n += s.Tests
		}
		if n != test.want || strings.Contains(got, "E 42501") {
			t.Errorf("%s: %d tests, want %d: %s", test.script, n, test.want, got)
		}
	}
}

// TestNullsOfComputedColumns: whether a computed value is NULL is no answer either.
func TestNullsOfComputedColumns(t *testing.T) {
	w := newSandbox(t, "")
	c := w.connect(t, "")
	for _, sql := range []string{
		"select nullif(card_number, '4111 1111 1111 1111') from shop.payments where id in (1, 2) order by id",
		"select substring(card_number from '^4') from shop.payments where id in (1, 2) order by id",
		"select (array[card_number])[2] from shop.payments where id in (1, 2) order by id",
		"select to_json(nullif(card_number, '4111 1111 1111 1111')) from shop.payments where id in (1, 2) order by id",
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
			got := strings.Split(rowsOf(t, c, mode, sql), ";")
			if len(got) != 2 || got[0] != got[1] || !strings.Contains(got[0], "[masked]") {
				t.Errorf("%s gave %q", sql, got)
			}
		}
		var b strings.Builder
		if _, err := c.PgConn().CopyTo(t.Context(), &b, "copy ("+sql+") to stdout"); err != nil || strings.Contains(b.String(), `\N`) {
			t.Errorf("copy (%s) gave %q, %v", sql, b.String(), err)
		}
	}
}

// TestThroughViewsAndFunctions: masks follow a column through what the database
// defines, and leave alone what does not carry it.
func TestThroughViewsAndFunctions(t *testing.T) {
	w := newSandbox(t, `
		create table sandbox.base (id int, card text, reversed text generated always as (reverse(card)) stored, note text);
		insert into sandbox.base values (1, '4111 1111 1111 1111', default, 'open');
		create view sandbox.pay as select id, card_number as c, note as n from shop.payments;
		create view sandbox.again as select id as i, c || '' as j, n as k, (select count(*) from sandbox.pay) as total from sandbox.pay;
		create function sandbox.card(int) returns text language sql stable as 'select card_number from shop.payments where id = $1';
		create function sandbox.item(k int) returns text language plpgsql stable as 'declare r record; begin select o.item into r from shop.orders o where o.id = k; return r.item; end';
		create function sandbox.card_by_block(k int) returns text language plpgsql stable as 'declare r record; begin for r in select p.card_number as v from shop.payments p where p.id = k loop return r.v; end loop; end';
		create function sandbox.dynamic(k int) returns text language plpgsql stable as 'declare r text; begin execute ''select item from shop.orders where id = '' || k into r; return r; end'`)
	w.set(func() {
		rules := w.decide
		w.decide = func(in policy.Input) policy.Decision {
			for _, a := range in.Action.Accesses {
				if a.Verb == flow.Call {
					return policy.Decision{Verdict: flow.Allow, Rule: "calls"}
				}
			}
			return unkept(rules(in))
		}
		own := *w.masks[0]
		own.Columns = append(own.Columns, mustGlob(t, "sandbox.base.card"))
		w.masks = []*policy.Mask{&own}
		w.revision++
	})
	c := w.connect(t, "search_path=sandbox")
	for sql, want := range map[string]string{
		"select c, n, id from sandbox.pay where id = 1":           "**** **** **** 1111first order1",
		"select i, j, k, total from sandbox.again where i = 1":    "1[masked]first order10",
		"select k || '' from sandbox.again where i = 1":           "first order",
		"select card, reversed, note from sandbox.base":           "**** **** **** 1111[masked]open",
		"select sandbox.card(1), sandbox.item(1)":                 "[masked]kettle",
		"select sandbox.card_by_block(1)":                         "[masked]",
		"select card(1) from (select 1) z":                        "[masked]",
		"select sandbox.dynamic(1)":                               "[masked]",
		"select upper(item(1)), length(item(1))":                  "KETTLE6",
		"select t.v from (select card(1) as v) t, (select 1) u":   "[masked]",
		"with x as (select item(1) as a) select a || 'x' from x":  "kettlex",
		"select max(k), min(j) from sandbox.again where i in (1)": "first order[masked]",
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
			if got := rowsOf(t, c, mode, sql); got != want {
				t.Errorf("%s gave %q, want %q", sql, got, want)
			}
		}
	}
}

func mustGlob(t *testing.T, text string) policy.Glob {
	t.Helper()
	g, err := policy.NewGlob(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}
