package sqlmeta

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// storedOf writes the parts: what is read, the names of columns, * for a whole row
// and ? for anything; parts without a relation are left out.
func storedOf(st *Statement) string {
	var parts []string
	for _, p := range st.Stored {
		var reads []string
		for _, r := range p.Reads {
			reads = append(reads, r.Name)
		}
		if len(reads) == 0 && !p.Opaque {
			continue
		}
		s := strings.Join(reads, " ") + ":" + strings.Join(slices.Sorted(maps.Keys(p.Names)), " ")
		if p.Star {
			s += "*"
		}
		if p.Opaque {
			s += "?"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

func TestStored(t *testing.T) {
	c := newContext(testCatalog(), "usual")
	c.session.Temp = map[string]struct{}{"mine": {}}
	tests := []struct{ sql, want string }{
		{"create table x as select reverse(card_number) from shop.payments", "payments:card_number"},
		{"create table x as select * from shop.payments with no data", ""},
		{"create temp table x as select * from shop.payments", ""},
		{"select note into x from shop.payments", "payments:note"},
		{"select note into temp x from shop.payments", ""},
		{"create materialized view x as select id from shop.payments", "payments:id"},
		{"create view x as select card_number from shop.payments", ""},
		{"refresh materialized view shop.cards", "cards payments:"},
		{"create table x as execute known", "payments:id*"},
		{"insert into t select card_number from shop.payments", "payments:card_number"},
		{"insert into t values (1, $1)", ""},
		{"insert into t values ((select card_number from shop.payments), 2)", "payments:card_number"},
		{"insert into shop.payments (id, card_number) values (1, '4') returning *", ""},
		{"insert into mine select card_number from shop.payments", ""},
		{"insert into pg_temp.mine select card_number from shop.payments", ""},
		{"insert into shop.payments (id, card_number) values (1, '4') on conflict (id) do update set card_number = excluded.card_number", ""},
		{"insert into shop.payments (id) values (1) on conflict (id) do update set note = payments.card_number", "payments:card_number"},
		{"insert into shop.payments as p (id, card_number) values (1, '4') on conflict (id) do update set card_number = excluded.card_number, amount = p.amount + 1", "payments:amount"},
		{"with c as (select card_number as x from shop.payments) insert into t select x from c", "payments:card_number x"},
		{"with i as (insert into t select card_number from shop.payments returning 1) select 1", "payments:card_number; payments t:card_number"},
		{"update shop.payments set note = card_number", "payments:card_number"},
		{"update shop.payments set card_number = $1 where card_number = $2 returning *", ""},
		{"update t set a = p.card_number from shop.payments p where p.id = t.b", "payments:card_number"},
		{"update shop.payments p set card_number = s.b from t s where s.a = p.id", "t:b"},
		{"update shop.payments set note = (select b from t where t.a = 1)", "t:a b; payments:b"},
		{"delete from shop.payments where card_number = '4'", ""},
		{"merge into t using shop.payments p on p.id = t.a when matched then update set b = p.card_number when not matched then insert values (p.id)", "payments:card_number id"},
		{"merge into shop.payments p using t on t.a = p.id when matched then update set card_number = t.b", "t:b"},
		{"merge into shop.payments p using t on t.a = p.id when matched then update set note = p.card_number", "t:card_number; payments:card_number"},
		{"insert into t select shop.total()", ":?"},
		{"insert into t select p from shop.payments p", "payments:p*"},
		{"prepare i as insert into t select card_number from shop.payments", "payments:card_number"},
		{"explain insert into t select card_number from shop.payments", ""},
		{"explain analyze insert into t select card_number from shop.payments", "payments:card_number"},
		{"copy (insert into t select card_number from shop.payments returning 1) to stdout", "payments:card_number"},
		{"create rule r as on insert to shop.payments do also insert into t values (1, new.card_number)", "payments:card_number"},
		{"alter table shop.payments add g text generated always as (reverse(card_number)) stored", "payments:card_number"},
		{"alter table shop.payments alter note type text using card_number", "payments:card_number"},
		{"alter table shop.payments add g text", ""},
	}
	for _, test := range tests {
		st := mustAnalyze(test.sql, c)[0]
		got := storedOf(st)
		if st.Problem != "" || got != test.want {
			t.Errorf("%s\n got %q (%s)\nwant %q", test.sql, got, st.Problem, test.want)
		}
	}
	for _, sql := range []string{
		"create temp table x () inherits (shop.orders)", "create temp table x partition of shop.orders default",
		"alter table mine inherit public.t", "alter table public.t attach partition pg_temp.mine default",
	} {
		if st := mustAnalyze(sql, c)[0]; st.Problem != temporaryPart {
			t.Errorf("%s: %q", sql, st.Problem)
		}
	}
}

// TestStoredLeavesTheStatement: what is looked at twice is counted once.
func TestStoredLeavesTheStatement(t *testing.T) {
	c := newContext(testCatalog(), "usual")
	st := mustAnalyze("update shop.payments p set note = card_number from public.t s where s.a = 1 returning p.id", c)[0]
	var reads []string
	for _, r := range st.Reads {
		reads = append(reads, r.Name)
	}
	if got := strings.Join(reads, " "); got != "t payments" {
		t.Errorf("reads %s", got)
	}
	// The parts of a prepared statement are shared: who uses it must not change them.
	in := mustAnalyze("insert into public.t select id from shop.payments", c)[0]
	c.session.Prepared = func(string) *Statement { return in }
	outer := mustAnalyze("execute x", c)[0]
	outer.Stored[0].Opaque = true
	if in.Stored[0].Opaque {
		t.Error("the prepared statement was changed")
	}
}
