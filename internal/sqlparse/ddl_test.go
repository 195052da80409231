package sqlparse

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

const dump = `--
-- PostgreSQL database dump
--
\restrict x
SELECT pg_catalog.set_config('search_path', '', false);
CREATE SCHEMA shop;
CREATE TABLE shop.payments (
    id integer NOT NULL,
    card text NOT NULL,
    amount numeric(10,2),
    reversed text GENERATED ALWAYS AS (reverse(card)) STORED
);
COPY shop.payments (id, card) FROM stdin;
1	CREATE TABLE shop.nosuch (a int);
\.
CREATE TABLE shop.orders (id int, item text, gone int) PARTITION BY RANGE (id);
ALTER TABLE shop.orders DROP COLUMN gone, ADD COLUMN note text;
CREATE TABLE shop.orders_1 PARTITION OF shop.orders FOR VALUES FROM (1) TO (9);
CREATE VIEW shop.pay AS SELECT p.id AS n, p.card AS c FROM shop.payments p;
CREATE VIEW shop.above(x) AS SELECT upper(c), n FROM shop.pay;
CREATE MATERIALIZED VIEW shop.kept AS SELECT * FROM shop.above WITH NO DATA;
CREATE FUNCTION shop.card_of(k integer) RETURNS text LANGUAGE sql STABLE AS $$ SELECT card FROM shop.payments WHERE id = k $$;
CREATE FUNCTION shop.item_of(k integer) RETURNS text LANGUAGE plpgsql AS $_$
DECLARE r record;
BEGIN
  SELECT o.item INTO r FROM shop.orders o WHERE o.id = k;
  RETURN r.item;
END;
$_$;
CREATE FUNCTION shop.atomic() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT note FROM shop.orders; END;
SET search_path = shop;
CREATE TABLE later (a int, b int);
ALTER TABLE later RENAME COLUMN b TO c;
CREATE TABLE brief (a int); DROP TABLE brief;
ALTER TABLE ONLY shop.payments ADD CONSTRAINT payments_pkey PRIMARY KEY (id);
`

// TestCatalogFromDDL: what a dump says is known as if a server had been asked.
func TestCatalogFromDDL(t *testing.T) {
	p, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, warnings, err := CatalogFromDDL(context.Background(), p, dump)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "shop.later is renamed") {
		t.Errorf("warnings %q", warnings)
	}
	a := &Analyzer{Pool: p}
	s := sqlmeta.Session{Database: "x", SearchPath: []string{"shop"}, Certain: true, StandardConformingStrings: true, Offline: true}
	for sql, want := range map[string]string{
		"select * from pay":         "n=one of shop.pay.n, shop.payments.id; c=one of shop.pay.c, shop.payments.card",
		"select x, n from above":    "x=computed from shop.above.x, shop.pay.c, shop.payments.card; n=one of shop.above.n, shop.pay.n, shop.payments.id",
		"select x from kept":        "x=computed from shop.above.x, shop.kept.x, shop.pay.c, shop.payments.card",
		"select * from orders":      "id=shop.orders.id; item=shop.orders.item; note=shop.orders.note",
		"select item from orders_1": "item=shop.orders_1.item",
		"select card_of(1)":         "card_of=computed from shop.payments.card, shop.payments.id",
		"select shop.item_of(1)":    "item_of=computed from shop.orders.id, shop.orders.item",
		"select atomic()":           "atomic=computed from shop.orders.note",
		"select * from later":       "a=shop.later.a; c=shop.later.c",
		"select count(*), lower(relname) from pg_class group by 2": "count=no column; lower=no column",
	} {
		list, err := a.Analyze(context.Background(), sql, s, c)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		var got []string
		for i := range list[0].Output {
			l := list[0].Output[i].Lineage
			names := make([]string, 0, len(l.Columns))
			for _, col := range l.Columns {
				names = append(names, col.String())
			}
			words := l.Describe()
			if len(names) > 1 { // in the order of names, not of made-up identifiers
				words = words[:strings.Index(words, names[0])] + strings.Join(slices.Sorted(slices.Values(names)), ", ")
			}
			got = append(got, list[0].Output[i].Name+"="+words)
		}
		if s := strings.Join(got, "; "); s != want {
			t.Errorf("%s\n got %s\nwant %s", sql, s, want)
		}
	}
	r := c.Relation("shop", "payments")
	if r == nil || len(r.Generated) != 4 || !r.Generated[3] || len(r.GeneratedFrom[3]) != 1 || r.GeneratedFrom[3][0] != 2 {
		t.Errorf("%+v", r)
	}
	for _, gone := range []string{"nosuch", "brief"} {
		if c.Relation("shop", gone) != nil {
			t.Errorf("%s is there", gone)
		}
	}
	if _, _, err := CatalogFromDDL(context.Background(), p, "CREATE TABLE a (b int);\n\nCREATE TABEL c ();\n"); err == nil || !strings.Contains(err.Error(), "line 3: syntax error") {
		t.Errorf("a misspelt word: %v", err)
	}
}

// TestReadDefinition: bodies of every kind become statements, and what cannot be
// followed says so.
func TestReadDefinition(t *testing.T) {
	p, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	a := &Analyzer{Pool: p}
	c := sqlmeta.NewCatalog(1, nil, nil, nil).WithDefinitions(nil)
	block := func(body string) string {
		return "CREATE FUNCTION f(k int) RETURNS int LANGUAGE plpgsql AS $x$" + body + "$x$"
	}
	for _, test := range []struct {
		kind       sqlmeta.DefinitionKind
		text       string
		statements int
		problem    string
	}{
		{sqlmeta.ViewDefinition, "SELECT 1", 1, ""},
		{sqlmeta.SQLFunction, "INSERT INTO t VALUES (1); SELECT 1", 2, ""},
		{sqlmeta.SQLFunction, "SELEC 1", 0, "its text cannot be read"},
		{sqlmeta.SQLFunction, "SELECT 1" + strings.Repeat("+1", 6000), 0, "nested too deeply"},
		{sqlmeta.PLpgSQLFunction, block("BEGIN RETURN k + 1; END"), 1, ""},
		{sqlmeta.PLpgSQLFunction, block("DECLARE x int := 2; BEGIN x := x -1; x[2] := 3; FOR k IN 1..x LOOP PERFORM g(k); END LOOP; RETURN 1; END"), 8, ""},
		{sqlmeta.PLpgSQLFunction, block("BEGIN EXECUTE 'drop table t'; RETURN 1; END"), 2, "dynamic SQL"},
		{sqlmeta.PLpgSQLFunction, block("DECLARE r record; BEGIN FOR r IN EXECUTE 'select 1' LOOP NULL; END LOOP; RETURN 1; END"), 2, "dynamic SQL"},
		{sqlmeta.PLpgSQLFunction, block("BEGIN RETURN QUERY EXECUTE 'select 1'; END"), 0, ""},
		{sqlmeta.PLpgSQLFunction, block("BEGIN RETURN 1" + strings.Repeat("+1", 6000) + "; END"), 0, "nested too deeply"},
		{sqlmeta.PLpgSQLFunction, block("BEGIN nonsense"), 0, "cannot be read"},
	} {
		b, err := a.read(context.Background(), sqlmeta.Definition{Kind: test.kind, Text: test.text}, c)
		if err != nil {
			t.Errorf("%.80s: %v", test.text, err)
			continue
		}
		if test.statements == 0 && test.problem == "" { // RETURN QUERY in a function that returns no set: an error
			test.problem = "cannot be read"
		}
		if len(b.Statements) != test.statements || !strings.Contains(b.Problem, test.problem) || test.problem == "" && b.Problem != "" {
			t.Errorf("%.80s: %d statements, %q", test.text, len(b.Statements), b.Problem)
		}
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	held := make([]*process, 0, cap(p.idle)) // nobody is free
	for range cap(p.idle) {
		held = append(held, <-p.idle)
	}
	if b, err := a.read(gone, sqlmeta.Definition{Text: "SELECT 1"}, c); err == nil {
		t.Errorf("a moment's trouble is kept: %+v", b)
	}
	for _, child := range held {
		p.idle <- child
	}
}
