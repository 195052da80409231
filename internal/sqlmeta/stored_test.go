package sqlmeta

import (
	"strings"
	"testing"
)

// storedOf writes what is stored: "table.column < what it carries".
func storedOf(st *Statement) string {
	parts := make([]string, 0, len(st.Stored))
	for i := range st.Stored {
		parts = append(parts, st.Stored[i].Target.String()+" < "+st.Stored[i].Describe())
	}
	return strings.Join(parts, "; ")
}

func TestStored(t *testing.T) {
	c := newContext(testCatalog(), "usual")
	c.session.Temp = map[string]struct{}{"mine": {}}
	tests := []struct{ sql, want string }{
		{"create table x as select reverse(card_number) from shop.payments", "public.x.* < computed from shop.payments.card_number"},
		{"create table x as select * from shop.payments with no data", ""},
		{"create temp table x as select * from shop.payments", ""},
		{"select note into x from shop.payments", "public.x.* < shop.payments.note"},
		{"select note into temp x from shop.payments", ""},
		{"create materialized view x as select id from shop.payments", ""},
		{"create view x as select card_number from shop.payments", ""},
		{"refresh materialized view shop.cards", ""},
		{"create table x as execute known", "public.x.* < one of shop.payments.id, shop.payments.customer_id, shop.payments.card_number, shop.payments.amount, shop.payments.note, shop.payments.masked"},
		{"insert into t select card_number from shop.payments", "public.t.a < shop.payments.card_number"},
		{"insert into t values (1, $1)", ""},
		{"insert into t values ((select card_number from shop.payments), 2)", "public.t.a < shop.payments.card_number"},
		{"insert into shop.payments (id, card_number) values (1, '4') returning *", ""},
		{"insert into mine select card_number from shop.payments", ""},
		{"insert into pg_temp.mine select card_number from shop.payments", ""},
		{"insert into shop.payments (id, card_number) values (1, '4') on conflict (id) do update set card_number = excluded.card_number", ""},
		{"insert into shop.payments (id) values (1) on conflict (id) do update set note = payments.card_number", "shop.payments.note < shop.payments.card_number"},
		{"insert into shop.payments as p (id, card_number) values (1, '4') on conflict (id) do update set card_number = excluded.card_number, amount = p.amount + 1", "shop.payments.amount < computed from shop.payments.amount"},
		{"with c as (select card_number as x from shop.payments) insert into t select x from c", "public.t.a < shop.payments.card_number"},
		{"with i as (insert into t select card_number from shop.payments returning 1) select 1", "public.t.a < shop.payments.card_number"},
		{"update shop.payments set note = card_number", "shop.payments.note < shop.payments.card_number"},
		{"update shop.payments set card_number = $1 where card_number = $2 returning *", ""},
		{"update t set a = p.card_number from shop.payments p where p.id = t.b", "public.t.a < shop.payments.card_number"},
		{"update shop.payments p set card_number = s.b from t s where s.a = p.id", "shop.payments.card_number < public.t.b"},
		{"update shop.payments set note = (select b from t where t.a = 1)", "shop.payments.note < public.t.b"},
		{"delete from shop.payments where card_number = '4'", ""},
		{"merge into t using shop.payments p on p.id = t.a when matched then update set b = p.card_number when not matched then insert values (p.id)", "public.t.b < shop.payments.card_number; public.t.a < shop.payments.id"},
		{"merge into shop.payments p using t on t.a = p.id when matched then update set card_number = t.b", "shop.payments.card_number < public.t.b"},
		{"merge into shop.payments p using t on t.a = p.id when matched then update set note = p.card_number", "shop.payments.note < shop.payments.card_number"},
		{"insert into t select shop.total()", "public.t.a < computed from what weir cannot follow (function shop.total, written in sql)"},
		{"insert into t select p from shop.payments p", "public.t.a < computed from shop.payments.id, shop.payments.customer_id, shop.payments.card_number, shop.payments.amount, shop.payments.note, shop.payments.masked"},
		{"prepare i as insert into t select card_number from shop.payments", "public.t.a < shop.payments.card_number"},
		{"explain insert into t select card_number from shop.payments", ""},
		{"explain analyze insert into t select card_number from shop.payments", "public.t.a < shop.payments.card_number"},
		{"copy (insert into t select card_number from shop.payments returning 1) to stdout", "public.t.a < shop.payments.card_number"},
		{"create rule r as on insert to shop.payments do also insert into t values (1, new.card_number)", "public.t.b < shop.payments.card_number"},
		{"alter table shop.payments add g text generated always as (reverse(card_number)) stored", "shop.payments.g < computed from shop.payments.card_number"},
		{"alter table shop.payments alter note type text using card_number", "shop.payments.note < computed from shop.payments.card_number"},
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
