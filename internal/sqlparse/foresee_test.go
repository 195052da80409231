package sqlparse

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// foreseeCatalog is a shop with the functions that the cases call. lower of public is a
// user's and evil is on no path.
func foreseeCatalog() *sqlmeta.Catalog {
	rel := func(oid uint32, schema, name string, kind byte, columns ...string) *sqlmeta.Relation {
		return &sqlmeta.Relation{OID: oid, Schema: schema, Name: name, Kind: kind, Columns: columns}
	}
	ruled := rel(20005, "public", "ruled", 'r', "id")
	ruled.Rewritten = true
	builtIn := func(oid uint32, name string, volatility byte) sqlmeta.Function {
		return sqlmeta.Function{OID: oid, Schema: "pg_catalog", Name: name, Language: "internal", Volatility: volatility, BuiltIn: true, Contained: true}
	}
	return sqlmeta.NewCatalog(1, []string{"public", "shop", "evil"}, []*sqlmeta.Relation{
		rel(1259, "pg_catalog", "pg_class", 'r', "oid", "relname"),
		rel(20000, "public", "t", 'r', "id", "name", "at"), rel(20001, "public", "u", 'r', "id", "t_id"), rel(20002, "shop", "Odd t", 'p', "id"),
		rel(20003, "public", "v", 'v', "id"), rel(20004, "public", "f", 'f', "id"), ruled,
	}, []sqlmeta.Function{builtIn(2147, "count", 'i'), builtIn(2077, "set_config", 'v'), builtIn(870, "lower", 'i'), builtIn(1299, "now", 's'),
		builtIn(2626, "pg_sleep", 'v'), builtIn(1598, "random", 'v'), builtIn(2096, "pg_terminate_backend", 'v'), builtIn(2077+1, "current_setting", 's'),
		builtIn(2168, "pg_cancel_backend", 'v'), builtIn(871, "upper", 'i'), builtIn(1574, "nextval", 'v'),
		{OID: 20100, Schema: "public", Name: "mine", Language: "plpgsql", Volatility: 'i'},
		{OID: 20101, Schema: "public", Name: "upper", Language: "sql", Volatility: 'i'},
		{OID: 20102, Schema: "evil", Name: "lower", Language: "sql", Volatility: 'i'}}).
		WithOperators([]sqlmeta.Operator{{Schema: "public", Name: "~=~", FunctionSchema: "public", Function: "mine"}}).
		WithDefinitions(nil)
}

// TestForesee: what is asked of the server, or why it is not.
func TestForesee(t *testing.T) {
	a, c := newAnalyzer(t), foreseeCatalog()
	for sql, want := range map[string]struct{ count, uncounted, unplanned string }{
		"DELETE FROM t":                             {count: "SELECT pg_catalog.count(*) FROM t"},
		"DELETE FROM ONLY public.t AS x":            {count: "SELECT pg_catalog.count(*) FROM ONLY public.t x"},
		"delete from shop.\"Odd t\" where id > $1":  {count: `SELECT pg_catalog.count(*) FROM shop."Odd t" WHERE id > $1`},
		"UPDATE t SET name = $1 WHERE id = $2":      {count: "SELECT pg_catalog.count(*) FROM t WHERE id = $2"},
		"DELETE FROM t WHERE id = 1 RETURNING name": {count: "SELECT pg_catalog.count(*) FROM t WHERE id = 1"},
		`DELETE FROM t WHERE name = 'it''s \ "x"'`:  {count: `SELECT pg_catalog.count(*) FROM t WHERE name = E'it''s \\ "x"'`},
		"DELETE FROM t USING u WHERE u.t_id = t.id": {
			count: "SELECT pg_catalog.count(*) FROM (SELECT DISTINCT t.tableoid, t.ctid FROM t, u WHERE u.t_id = t.id) touched"},
		"UPDATE t \"X y\" SET id = 1 FROM u LEFT JOIN t z ON true WHERE u.id = \"X y\".id": {
			count: `SELECT pg_catalog.count(*) FROM (SELECT DISTINCT "X y".tableoid, "X y".ctid FROM t "X y", u LEFT JOIN t z ON true WHERE u.id = "X y".id) touched`},
		"WITH w AS (SELECT id FROM u) DELETE FROM t WHERE id IN (SELECT id FROM w)": {
			count: "WITH w AS (SELECT id FROM u) SELECT pg_catalog.count(*) FROM t WHERE id IN (SELECT id FROM w)"},
		"WITH RECURSIVE w AS (SELECT 1 AS id UNION ALL SELECT id FROM w) DELETE FROM t USING w WHERE t.id = w.id": {
			count: "WITH RECURSIVE w AS (SELECT 1 AS id UNION ALL SELECT id FROM w) SELECT pg_catalog.count(*) FROM (SELECT DISTINCT t.tableoid, t.ctid FROM t, w WHERE t.id = w.id) touched"},
		"DELETE FROM t WHERE at < now() AND lower(name) = 'x'":       {count: "SELECT pg_catalog.count(*) FROM t WHERE at < now() AND lower(name) = 'x'"},
		"UPDATE t SET name = mine() WHERE id = 1":                    {count: "SELECT pg_catalog.count(*) FROM t WHERE id = 1", unplanned: "public.mine"},
		"UPDATE t SET id = nextval('s')":                             {count: "SELECT pg_catalog.count(*) FROM t", unplanned: "pg_catalog.nextval"},
		"DELETE FROM t WHERE mine()":                                 {uncounted: "public.mine", unplanned: "public.mine"},
		"DELETE FROM t WHERE upper(name) = 'X'":                      {uncounted: "public.upper", unplanned: "public.upper"},
		"DELETE FROM t WHERE evil.lower(name) = 'X'":                 {uncounted: "evil.lower", unplanned: "evil.lower"},
		"DELETE FROM t WHERE name ~=~ 'x'":                           {uncounted: "public.mine", unplanned: "public.mine"},
		"DELETE FROM t WHERE t.mine":                                 {uncounted: "public.mine", unplanned: "public.mine"},
		"DELETE FROM t WHERE (t).mine":                               {uncounted: "public.mine", unplanned: "public.mine"},
		"DELETE FROM t WHERE pg_sleep(1) IS NULL":                    {uncounted: "pg_sleep", unplanned: "pg_sleep"},
		"DELETE FROM t WHERE pg_terminate_backend(id)":               {uncounted: "pg_terminate_backend", unplanned: "pg_terminate_backend"},
		"DELETE FROM t WHERE random() < 0.5":                         {uncounted: "random", unplanned: "random"},
		"DELETE FROM t WHERE name = current_setting('a.b')":          {uncounted: "current_setting", unplanned: "current_setting"},
		"DELETE FROM t WHERE set_config('jit', 'off', true) IS NULL": {uncounted: "set_config", unplanned: "set_config"},
		"DELETE FROM v":                    {uncounted: "view", unplanned: "view"},
		"DELETE FROM t USING v WHERE true": {uncounted: "view", unplanned: "view"},
		"DELETE FROM f":                    {uncounted: "foreign table", unplanned: "foreign table"},
		"DELETE FROM ruled":                {uncounted: "rules", unplanned: "rules"},
		"DELETE FROM pg_temp.t":            {uncounted: "temporary", unplanned: "temporary"},
		"DELETE FROM nowhere":              {uncounted: "for sure", unplanned: "for sure"},
		"DELETE FROM t WHERE CURRENT OF c": {uncounted: "CURRENT OF"},
		"DELETE FROM t USING u TABLESAMPLE system (10) WHERE u.id = t.id":                     {uncounted: "TABLESAMPLE"},
		"WITH w AS (DELETE FROM u RETURNING id) DELETE FROM t WHERE id IN (SELECT id FROM w)": {uncounted: "changes data"},
		"DELETE FROM t WHERE id IN (SELECT id FROM u FOR UPDATE SKIP LOCKED)":                 {uncounted: "plain read"},
		"WITH t AS (SELECT 1 AS id) DELETE FROM u WHERE id IN (SELECT id FROM t)":             {uncounted: "WITH query and for a table", unplanned: "WITH query and for a table"},
		"MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE":                        {uncounted: "MERGE"},
		"SELECT * FROM t":                             {},
		"SELECT * INTO t FROM t":                      {unplanned: "plain read"},
		"INSERT INTO t SELECT * FROM t":               {},
		"TRUNCATE t":                                  {unplanned: "no plan for TRUNCATE"},
		"DROP TABLE t":                                {unplanned: "no plan for DROP TABLE"},
		"EXPLAIN ANALYZE DELETE FROM t":               {unplanned: "no plan for EXPLAIN ANALYZE"},
		"COPY (DELETE FROM t RETURNING id) TO STDOUT": {unplanned: "no plan for COPY"},
		"DO 'BEGIN DELETE FROM t; END'":               {unplanned: "no plan for DO"},
	} {
		f, err := a.Foresee(context.Background(), sql, benchSession, c)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		if f.Count != want.count || (f.Uncounted == "") != (want.uncounted == "") || !strings.Contains(f.Uncounted, want.uncounted) {
			t.Errorf("%s:\n count %s\n  want %s\n   why %q, want %q", sql, f.Count, want.count, f.Uncounted, want.uncounted)
		}
		if (f.Unplanned == "") != (want.unplanned == "") || !strings.Contains(f.Unplanned, want.unplanned) {
			t.Errorf("%s: unplanned %q, want %q", sql, f.Unplanned, want.unplanned)
		}
	}
	unsure := benchSession
	unsure.Certain = false
	if f, err := a.Foresee(context.Background(), "DELETE FROM t", unsure, c); err != nil || f.Count != "" || f.Unplanned == "" {
		t.Errorf("on an uncertain path: %+v %v", f, err)
	}
	temp := benchSession
	temp.Temp = map[string]struct{}{"t": {}}
	if f, err := a.Foresee(context.Background(), "DELETE FROM t", temp, c); err != nil || f.Count != "" || !strings.Contains(f.Unplanned, "temporary") {
		t.Errorf("with a temporary table: %+v %v", f, err)
	}
	if f, err := a.Foresee(context.Background(), "DELETE FROM u", temp, c); err != nil || f.Count == "" {
		t.Errorf("beside a temporary table: %+v %v", f, err)
	}
	if f, err := a.Foresee(context.Background(), "DELETE FROM t", benchSession, nil); err != nil || f.Count != "" || f.Unplanned == "" {
		t.Errorf("without a catalogue: %+v %v", f, err)
	}
	if _, err := a.Foresee(context.Background(), "DELETE FROM t; DELETE FROM u", benchSession, c); err == nil {
		t.Error("two statements at once")
	}
	if f, err := a.Foresee(context.Background(), "TRUNCATE t, v, shop.\"Odd t\"", benchSession, c); err != nil || len(f.Emptied) != 2 || f.Emptied[1].OID != 20002 {
		t.Errorf("TRUNCATE: %+v %v", f, err)
	}
}

// FuzzForesee: whatever the text, the parser processes live, and a count that comes out
// does nothing but read.
func FuzzForesee(f *testing.F) {
	a, c := newAnalyzer(f), foreseeCatalog()
	for _, seed := range []string{"DELETE FROM t", "UPDATE t AS x SET id = $1 FROM u, LATERAL (SELECT 1) y WHERE x.id = u.id",
		"WITH w AS MATERIALIZED (SELECT * FROM u) DELETE FROM ONLY t USING w WHERE t.id = ANY (ARRAY[1, 2]) AND name ~ E'\\n' RETURNING *",
		"DELETE FROM t WHERE (id, name) IN (VALUES (1, 'a')) OR EXISTS (SELECT 1 FROM u WHERE t_id = t.id GROUP BY CUBE (id) HAVING count(*) > 1)",
		"UPDATE t SET (id, name) = (SELECT 1, 'x') WHERE CASE WHEN id IS NULL THEN true ELSE id::int8 BETWEEN 1 AND 2 END",
		"DELETE FROM t WHERE json_exists(name, '$.a') OR xmlelement(name x) IS NULL OR name COLLATE \"C\" LIKE 'a%' ESCAPE '!'",
		"DELETE FROM t USING generate_series(1, 2) WITH ORDINALITY AS g (a, b) WHERE id = a AT TIME ZONE 'UTC' OR id = a[1:2]",
		"DELETE FROM t WHERE CURRENT OF c", "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		died := a.Pool.Deaths()
		forecast, err := a.Foresee(context.Background(), sql, benchSession, c)
		if a.Pool.Deaths() != died || errors.Is(err, ErrParserDied) || errors.Is(err, ErrTimeout) {
			t.Fatalf("a parser process died of it: %v", err)
		}
		if err != nil || forecast.Count == "" {
			return
		}
		list, err := a.Analyze(context.Background(), forecast.Count, benchSession, c)
		if err != nil || len(list) != 1 || list[0].Tag != "SELECT" {
			t.Fatalf("%s: %v", forecast.Count, err)
		}
		for _, x := range list[0].Accesses {
			if x.Verb != flow.Select && x.Verb != flow.Connect {
				t.Errorf("%s: %v", forecast.Count, x)
			}
		}
	})
}

// TestForeseeDeep: the deepest statements of which a count is made do not come near to
// what the process that writes it survives; deeper ones never get there.
func TestForeseeDeep(t *testing.T) {
	a, c := newAnalyzer(t), foreseeCatalog()
	shapes := func(n int) []string {
		return []string{
			"DELETE FROM t WHERE id = 1" + strings.Repeat(" + 1", n),
			"DELETE FROM t WHERE " + strings.Repeat("NOT ", n) + "true",
			"DELETE FROM t WHERE id = " + strings.Repeat("- ", n/2) + "1",
			"DELETE FROM t WHERE id = " + strings.Repeat("(SELECT ", n/2) + "1" + strings.Repeat(")", n/2),
			"DELETE FROM t WHERE id = " + strings.Repeat("CASE WHEN id = ", n/5) + "1" + strings.Repeat(" THEN 1 END", n/5),
			"DELETE FROM t USING " + strings.Repeat("(u JOIN ", n/2) + "u" + strings.Repeat(" ON true)", n/2),
			"DELETE FROM t WHERE EXISTS (SELECT 1" + strings.Repeat(" UNION SELECT 1", n/2) + ")",
			"DELETE FROM t WHERE id = 1" + strings.Repeat("::int", n),
			"DELETE FROM t WHERE id = " + strings.Repeat("lower(", n) + "'a'" + strings.Repeat(")", n),
			"DELETE FROM t WHERE id = t" + strings.Repeat(".a", n),
			"DELETE FROM t WHERE id = " + strings.Repeat("ARRAY[", n) + "1" + strings.Repeat("]", n),
		}
	}
	written := 0
	for _, n := range []int{maxCountDepth - 50, sqlmeta.MaxDepth - 50} {
		for _, sql := range shapes(n) {
			f, err := a.Foresee(context.Background(), sql, benchSession, c)
			if err == nil && f.Count != "" {
				written++
			}
			if deaths := a.Pool.Deaths(); deaths != 0 {
				t.Fatalf("%.60s...: a parser process died of it", sql)
			}
		}
	}
	if written == 0 {
		t.Error("no count was made at all")
	}
	// And there is room to spare.
	for _, sql := range shapes(3 * maxCountDepth) {
		tree, err := a.Pool.Parse(context.Background(), sql)
		if err != nil {
			continue // deeper than the decoder goes
		}
		counts, _ := sqlmeta.CountTree(tree)
		b, err := proto.Marshal(counts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Pool.deparse(context.Background(), b); errors.Is(err, ErrParserDied) {
			t.Fatalf("%.60s...: a parser process died of it", sql)
		}
	}
}
