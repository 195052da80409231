package bypass

import "testing"

// ddlAttacks make something of their own whose reading brings a masked value out.
var ddlAttacks = []attack{
	{"copy of a temporary view", "tom", []string{"search_path", "shop"}, []string{`CREATE TEMP VIEW orders AS SELECT id, card_number AS item FROM shop.payments`, `COPY (SELECT item FROM orders) TO STDOUT`}},
	{"view replaced in a transaction", "sam", nil, []string{`BEGIN`, `CREATE OR REPLACE VIEW sandbox.notes AS SELECT id, reverse(card_number) AS c FROM shop.payments`, `SELECT c FROM sandbox.notes`, `SELECT upper(c) FROM sandbox.notes`, `ROLLBACK`}},
	{"view replaced in a string", "sam", nil, []string{`BEGIN; CREATE OR REPLACE VIEW sandbox.notes AS SELECT id, reverse(card_number) AS c FROM shop.payments; SELECT c FROM sandbox.notes; ROLLBACK`}},
	{"view replaced under a statement", "sam", nil, []string{`CREATE VIEW sandbox.o AS SELECT id, item AS c FROM shop.orders`, `PREPARE p AS SELECT c || '' FROM sandbox.o`, `EXECUTE p`, `BEGIN`,
		`CREATE OR REPLACE VIEW sandbox.o AS SELECT id, reverse(card_number) AS c FROM shop.payments`, `EXECUTE p`, `ROLLBACK`, `DROP VIEW sandbox.o`}},
	{"operator over a function", "sam", []string{"search_path", "sandbox"}, []string{`CREATE FUNCTION sandbox.f(int) RETURNS text LANGUAGE sql AS 'SELECT string_agg(reverse(card_number), '','') FROM shop.payments'`,
		`CREATE OPERATOR sandbox.### (FUNCTION = sandbox.f, RIGHTARG = int)`, `SELECT ### 1`}},
	{"operator over a built-in", "sam", []string{"search_path", "sandbox"}, []string{`CREATE OPERATOR sandbox.@@@ (FUNCTION = pg_catalog.ts_rewrite, LEFTARG = tsquery, RIGHTARG = text)`,
		`SELECT 'a'::tsquery @@@ 'SELECT ''a''::tsquery, plainto_tsquery(''simple'', reverse(card_number)) FROM shop.payments WHERE id = 3'`}},
	{"explain analyze", "ann", nil, []string{`EXPLAIN ANALYZE SELECT 1 FROM generate_series(1, (SELECT substr(card_number, 1, 6)::int FROM shop.payments WHERE id = 3))`}},
	{"table of one's own", "sam", nil, []string{`CREATE TABLE sandbox.t AS SELECT reverse(card_number) AS c FROM shop.payments`, `SELECT c FROM sandbox.t`, `DROP TABLE sandbox.t`}},
}

func TestDDLAttacks(t *testing.T) { runAttacks(t, ddlAttacks) }
