package catalog

import (
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// TestOperators: the picture knows whose functions operators run, as far as to
// decide statements that use them. Extensions stay usable.
func TestOperators(t *testing.T) {
	w := newWorld(t, `CREATE EXTENSION citext; CREATE EXTENSION pg_trgm; CREATE EXTENSION hstore;
		CREATE TABLE public.a (id int, name citext, tags hstore);
		CREATE SCHEMA own;
		CREATE FUNCTION own.f(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'select ''x''';
		CREATE OPERATOR own.### (FUNCTION = own.f, RIGHTARG = int);
		CREATE OPERATOR own.@@@ (FUNCTION = pg_catalog.ts_rewrite, LEFTARG = tsquery, RIGHTARG = text);
		CREATE OPERATOR own.=== (FUNCTION = pg_catalog.int4eq, LEFTARG = int, RIGHTARG = int);
		CREATE OPERATOR own.%% (FUNCTION = public.similarity_op, LEFTARG = text, RIGHTARG = text);`)
	session := sqlmeta.Session{Database: w.db, SearchPath: []string{"own", "public"}, Certain: true, StandardConformingStrings: true}
	calls := func(sql string) string {
		t.Helper()
		tree, err := pg.Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		list := sqlmeta.Analyze(tree, sql, session, w.get())
		var out []string
		for _, a := range list[0].Accesses {
			if a.Verb == "call" {
				out = append(out, strings.TrimPrefix(a.Resource, "function:"))
			}
		}
		return strings.Join(out, " ")
	}
	for sql, want := range map[string]string{
		"select ### 1":                     "own.f",
		"select 'a'::tsquery @@@ 'select'": "pg_catalog.ts_rewrite",
		"select 1 === 2":                   "",
		"select 'a' %% 'b'":                "public.similarity_op", // STABLE, and not the extension's operator
		"select id % 2, name % 'b' from a": "",
		"select 1 from a where name = 'Ann' and name like 'a%' and name ~ 'a' and name in ('b')": "",
		"select tags -> 'a', tags @> 'a=>1', tags || 'b=>2' from a":                              "",
	} {
		if got := calls(sql); got != want {
			t.Errorf("%s: calls %q, want %q", sql, got, want)
		}
	}
	before := w.get()
	w.psql(w.db, `CREATE OPERATOR own.!!! (FUNCTION = own.f, RIGHTARG = int)`)
	w.Invalidate(w.key)
	if w.get() == before {
		t.Error("a new operator leaves the picture as it was")
	}
	if got := calls("select !!! 1"); got != "own.f" {
		t.Errorf("a new operator calls %q", got)
	}
}
