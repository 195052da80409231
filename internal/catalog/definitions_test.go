package catalog

import (
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// lineage is what the columns of a statement can carry, with every text supplied that
// it asks for.
func (w *world) lineage(sql string) string {
	w.t.Helper()
	tree, err := pg.Parse(sql)
	if err != nil {
		w.t.Fatal(err)
	}
	c := w.get()
	s := sqlmeta.Session{Database: w.db, SearchPath: []string{"public"}, Certain: true, StandardConformingStrings: true}
	for {
		list := sqlmeta.Analyze(tree, sql, s, c)
		wants := sqlmeta.Wants(list)
		if len(wants) == 0 {
			var out []string
			for i := range list[0].Output {
				out = append(out, list[0].Output[i].Describe())
			}
			return strings.Join(out, "; ")
		}
		for _, d := range wants {
			b := &sqlmeta.Body{}
			texts := []string{d.Text}
			if d.Defaults != "" {
				texts = append(texts, "SELECT "+d.Defaults)
			}
			if d.Kind == sqlmeta.PLpgSQLFunction {
				text, err := pg.ParsePlPgSqlToJSON(d.Text)
				if err != nil {
					w.t.Fatalf("%v: %s", err, d.Text)
				}
				p, err := sqlmeta.ReadPLpgSQL([]byte(text))
				if err != nil {
					w.t.Fatal(err)
				}
				texts, b.Variables, b.Problem = append(p.Texts, texts[1:]...), p.Variables, p.Problem
			}
			for _, text := range texts {
				tree, err := pg.Parse(text)
				if err != nil {
					w.t.Fatalf("%v: %s", err, text)
				}
				b.Statements = append(b.Statements, tree.Stmts...)
			}
			c.Supply(d.OID, b)
		}
	}
}

// TestDefinitions: the picture has what lineage needs of views, functions, casts and
// rules, as the server writes them.
func TestDefinitions(t *testing.T) {
	w := newWorld(t, `CREATE SCHEMA "Odd"; CREATE SCHEMA own;
		CREATE EXTENSION pgcrypto; CREATE EXTENSION "uuid-ossp"; CREATE EXTENSION citext; CREATE EXTENSION dblink;
		CREATE TABLE t (id int, card text, note text, g text GENERATED ALWAYS AS (card || note) STORED);
		CREATE TABLE "Odd"."T x" ("A b" int, c citext);
		CREATE VIEW v AS SELECT id AS i, upper(card) AS u FROM t;
		CREATE VIEW "Odd"."V w" AS SELECT x."A b" + 1 AS "D e", v.u FROM "Odd"."T x" x, v;
		CREATE MATERIALIZED VIEW m AS SELECT u FROM v;
		CREATE FUNCTION plain(k int) RETURNS text LANGUAGE sql AS 'SELECT card FROM t WHERE id = k';
		CREATE FUNCTION atomic(k int) RETURNS text LANGUAGE sql RETURN (SELECT note FROM t WHERE id = k LIMIT 1);
		CREATE FUNCTION listed() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT id FROM t; SELECT note FROM t; END;
		CREATE TABLE own.t (card text);
		CREATE FUNCTION own_path() RETURNS text LANGUAGE sql SET search_path = own, pg_temp AS 'SELECT card FROM t';
		CREATE FUNCTION user_path() RETURNS text LANGUAGE sql SET search_path = "$user", own AS 'SELECT card FROM t';
		CREATE FUNCTION block(OUT a int, OUT b text) LANGUAGE plpgsql AS 'BEGIN SELECT t.id, t.note INTO a, b FROM t; END';
		CREATE FUNCTION plus(int, int) RETURNS int LANGUAGE sql AS 'SELECT max(id) FROM t';
		CREATE FUNCTION last_id() RETURNS int LANGUAGE sql AS 'SELECT max(id) FROM t';
		CREATE FUNCTION defaulted(a text, b int DEFAULT last_id(), c text DEFAULT 'x, y') RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN a || b; END';
		CREATE AGGREGATE longest (text) (SFUNC = textcat, STYPE = text);
		CREATE AGGREGATE peeking (int) (SFUNC = plus, STYPE = int);
		CREATE TYPE coded AS (a text);
		CREATE FUNCTION code(int) RETURNS coded LANGUAGE sql AS 'SELECT ROW(card)::coded FROM t';
		CREATE CAST (int AS coded) WITH FUNCTION code(int);
		CREATE TABLE ruled (a int); CREATE RULE r AS ON UPDATE TO ruled DO INSTEAD SELECT card FROM t;`)
	for sql, want := range map[string]string{
		"SELECT i, u FROM v":          "one of public.t.id, public.v.i; computed from public.t.card, public.v.u",
		`SELECT * FROM "Odd"."V w"`:   "computed from Odd.T x.A b, Odd.V w.D e; computed from public.t.card, public.v.u, Odd.V w.u",
		"SELECT u FROM m":             "computed from public.t.card, public.v.u, public.m.u",
		"SELECT plain(1), atomic(1)":  "computed from public.t.id, public.t.card; computed from public.t.id, public.t.note",
		"SELECT listed()":             "computed from public.t.id, public.t.note",
		"SELECT defaulted('a')":       "computed from public.t.id",
		"SELECT own_path()":           "computed from own.t.card",
		"SELECT user_path()":          "computed from what weir cannot follow (function public.user_path, written in sql)",
		"SELECT block()":              "computed from public.t.id, public.t.note",
		"SELECT longest(note) FROM t": "computed from public.t.note",
		"SELECT peeking(id) FROM t":   "computed from public.t.id, what weir cannot follow (function public.peeking, written in internal)",
		"SELECT 1::coded":             "computed from public.t.card",
		"SELECT 'x'::citext, gen_salt('md5'), uuid_generate_v4(), digest(note, 'md5') FROM t": "no column; no column; no column; computed from public.t.note",
		"SELECT dblink('x', 'y')":            "computed from what weir cannot follow (function public.dblink, written in c)",
		"UPDATE ruled SET a = 1 RETURNING a": "",
	} {
		if got := w.lineage(sql); got != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
	}
	if r := w.get().Relation("public", "ruled"); r == nil || !r.Rewritten {
		t.Errorf("rules are not known: %+v", r)
	}
	if r := w.get().Relation("public", "t"); r == nil || len(r.GeneratedFrom) != 4 || len(r.GeneratedFrom[3]) != 2 || r.Rewritten {
		t.Errorf("generated columns are not known: %+v", r)
	}
	// A change of any of it is noticed.
	for _, change := range []string{
		"CREATE OR REPLACE FUNCTION plain(k int) RETURNS text LANGUAGE sql AS 'SELECT note FROM t'",
		"CREATE OR REPLACE VIEW v AS SELECT id AS i, upper(note) AS u FROM t",
		"CREATE RULE s AS ON DELETE TO ruled DO NOTHING",
		"DROP CAST (int AS coded)",
	} {
		before := w.get()
		w.psql(w.db, change)
		w.Invalidate(w.key)
		if w.get() == before {
			t.Errorf("%s leaves the picture as it was", change)
		}
	}
}
