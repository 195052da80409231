package explain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/catalog"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/internal/sqlparse"
	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// What an engine makes of it is tested in proto/postgres, on the whole way. Here stands
// what only this package answers for: that the server confirms what sqlmeta foresaw, and
// that nothing changes whatever is asked.

var (
	server    *postgres.Server
	parser    *sqlparse.Pool
	databases atomic.Int32
)

func TestMain(m *testing.M) {
	sqlparse.ChildMain()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "weir-explain-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if server, err = postgres.Start(context.Background(), postgres.Config{Dir: dir}); err != nil {
			panic(err)
		}
		defer server.Stop()
		if parser, err = sqlparse.New(sqlparse.Config{Size: 2, Log: slog.New(slog.DiscardHandler)}); err != nil {
			panic(err)
		}
		defer parser.Close()
		return m.Run()
	}())
}

// base has touch(), which leaves a trace in the server's log when it runs, and tables.
const base = `
	CREATE FUNCTION touch() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE LOG 'touched'; RETURN 1; END $$;
	CREATE FUNCTION touch(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE LOG 'touched'; RETURN true; END $$;
	CREATE SCHEMA far; CREATE SEQUENCE s;
	CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 20) n; ANALYZE t;`

type world struct {
	*Explainer
	t  *testing.T
	db string
}

func newWorld(t *testing.T, sql string) *world {
	t.Helper()
	w := &world{t: t, db: fmt.Sprintf("explain_%d", databases.Add(1))}
	w.psql("postgres", "CREATE DATABASE "+w.db)
	w.psql(w.db, base+sql)
	w.Explainer = New(func(ctx context.Context, _ session.Grant) (*pgconn.PgConn, error) {
		return pgconn.Connect(ctx, server.URL(postgres.Superuser, w.db))
	})
	return w
}

func (w *world) psql(db, sql string) string {
	w.t.Helper()
	out, err := server.Query(w.t.Context(), db, sql)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// forecast is sqlmeta's, under a catalogue of now.
func (w *world) forecast(sql string) *sqlmeta.Forecast {
	w.t.Helper()
	cache := catalog.New(catalog.Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Connect: func(ctx context.Context, _ catalog.Key) (*catalog.Conn, error) {
			return pgconn.Connect(ctx, server.URL(postgres.Superuser, w.db))
		}})
	defer cache.Close()
	c, err := cache.Get(w.t.Context(), catalog.Key{Backend: "b", Database: w.db, Login: postgres.Superuser})
	if err != nil {
		w.t.Fatal(err)
	}
	a := &sqlparse.Analyzer{Pool: parser}
	f, err := a.Foresee(w.t.Context(), sql, sqlmeta.Session{Database: w.db, Role: postgres.Superuser, SearchPath: []string{"public"}, Certain: true,
		StandardConformingStrings: true}, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) ask(sql string, f *sqlmeta.Forecast) Explained {
	w.t.Helper()
	x, err := w.Explain(w.t.Context(), session.Grant{}, Request{Text: sql, Forecast: f, Kept: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return x
}

func (x Explained) String() string {
	rows := "-"
	if x.Rows != nil {
		rows = fmt.Sprint(*x.Rows)
	}
	return fmt.Sprintf("rows %s, plan %q, notes %q", rows, x.Plan, x.Notes)
}

// TestConfirm: what tables, types, operators and casts run of a user's stands against
// asking; what came with the server or an extension does not.
func TestConfirm(t *testing.T) {
	for name, c := range map[string]struct{ make, sql, note string }{
		"plain":              {"", "DELETE FROM t WHERE id < 4", ""},
		"citext":             {"CREATE EXTENSION citext; CREATE TABLE c (x citext); INSERT INTO c VALUES ('A'), ('b'), ('a')", "DELETE FROM c WHERE x = 'a' OR x = ANY ('{b}')", ""},
		"hstore":             {"CREATE EXTENSION hstore; CREATE TABLE h (x hstore); INSERT INTO h VALUES ('a=>1'), ('b=>2'), ('a=>3')", "DELETE FROM h WHERE x ? 'a' OR x @> 'b=>2'", ""},
		"trigrams":           {"CREATE EXTENSION pg_trgm; CREATE INDEX ON t USING gist (name gist_trgm_ops)", "DELETE FROM t WHERE name LIKE 'name 1' OR id IN (2, 3)", ""},
		"enums":              {"CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE m (x mood, y mood[]); INSERT INTO m SELECT 'a', '{a,b}' FROM generate_series(1, 3)", "DELETE FROM m WHERE x = 'a' AND 'b' = ANY (y)", ""},
		"domain":             {"CREATE DOMAIN d AS int CHECK (VALUE > 0); CREATE TABLE x (d d, e d[]); INSERT INTO x SELECT 1, '{1}' FROM generate_series(1, 3)", "DELETE FROM x WHERE d = 1::d", ""},
		"expression index":   {"CREATE INDEX ON t (lower(name))", "DELETE FROM t WHERE lower(name) IN ('name 1', 'name 2', 'name 3')", ""},
		"other schema":       {"CREATE FUNCTION far.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'", "DELETE FROM t WHERE lower(name) IN ('name 1', 'name 2', 'name 3')", ""},
		"column's name":      {"CREATE FUNCTION name(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", "DELETE FROM t WHERE name IN ('name 1', 'name 2', 'name 3')", ""},
		"own index":          {"CREATE FUNCTION i(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'; CREATE INDEX ON t (i(id))", "DELETE FROM t", "an index"},
		"predicate":          {"CREATE INDEX ON t (id) WHERE touch() = 2", "DELETE FROM t", "an index"},
		"statistics":         {"CREATE STATISTICS st ON (touch(id)), name FROM t", "DELETE FROM t WHERE id = 1", "an index"},
		"partition key":      {"CREATE TABLE p (id int) PARTITION BY LIST ((touch(id)))", "DELETE FROM p", "an index"},
		"partition's index":  {"CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE INDEX ON p1 (touch(id))", "DELETE FROM p", "an index"},
		"domain's check":     {"CREATE DOMAIN d AS int CHECK (touch(VALUE)); CREATE TABLE x (d d[])", "DELETE FROM x", "an index"},
		"composite":          {"CREATE TYPE pair AS (a int, b int); CREATE TABLE x (p pair)", "DELETE FROM x", "a type"},
		"range":              {"CREATE TYPE span AS RANGE (SUBTYPE = int); CREATE TABLE x (s span)", "DELETE FROM x", "a type"},
		"row type":           {"", "DELETE FROM t WHERE json_populate_record(NULL::t, '{\"id\": 1}') IS NULL", "a type"},
		"implicit cast":      {"CREATE TYPE mood AS ENUM ('a'); CREATE FUNCTION m(mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT touch()'; CREATE CAST (mood AS int) WITH FUNCTION m(mood) AS IMPLICIT; CREATE TABLE m (x mood)", "DELETE FROM m WHERE x = 1", "a cast"},
		"cast of row":        {"CREATE FUNCTION r(t) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT ''1''::json'; CREATE CAST (t AS json) WITH FUNCTION r(t)", "DELETE FROM t WHERE to_json(t) IS NULL", "a cast"},
		"operator elsewhere": {"CREATE OPERATOR far.= (FUNCTION = far.eq, LEFTARG = int, RIGHTARG = text)", "DELETE FROM t WHERE id IN (1, 2)", "an operator"},
		"selectivity":        {"CREATE OPERATOR far.< (FUNCTION = far.eq, LEFTARG = int, RIGHTARG = text)", "DELETE FROM t WHERE id BETWEEN 1 AND 3", "an operator"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(c.make, "far.eq") {
				c.make = "CREATE FUNCTION far.eq(int, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT touch() = 1'; " + c.make
			}
			w := newWorld(t, c.make)
			f := w.forecast(c.sql)
			if c.note == "" && (f.Unplanned != "" || f.Count == "") {
				t.Fatalf("foreseen: %q, %q", f.Unplanned, f.Uncounted)
			}
			if c.note != "" { // whatever was foreseen
				f.Unplanned = ""
				f.Count = strings.Replace(c.sql, "DELETE", "SELECT pg_catalog.count(*)", 1)
				f.Counted = f.Named
			}
			x := w.ask(c.sql, f)
			if c.note == "" {
				if x.Rows == nil || *x.Rows != 3 || x.Plan == "" || len(x.Notes) > 0 {
					t.Error(x)
				}
				return
			}
			if x.Rows != nil || x.Plan != "" || len(x.Notes) != 2 || !strings.Contains(x.Notes[0], c.note) || !strings.Contains(x.Notes[1], c.note) {
				t.Error(x)
			}
		})
	}
	// The making of indexes runs functions, and so does this; nothing else may.
	w := newWorld(t, "")
	w.psql(w.db, "/* control */ SELECT count(*) FROM t WHERE touch(id)")
	log, err := os.ReadFile(server.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, line := range strings.Split(string(log), "\n") {
		switch {
		case !strings.Contains(line, "STATEMENT:"):
		case strings.Contains(line, "control"):
			seen = true
		case strings.Contains(line, "EXPLAIN"), strings.Contains(line, "count(*)"):
			t.Errorf("a function ran in: %s", line)
		}
	}
	if !seen {
		t.Error("the server's log does not tell of functions that run")
	}
}

// TestReadOnly: were the forecast wrong, the server would still change nothing.
func TestReadOnly(t *testing.T) {
	w := newWorld(t, "")
	f := w.forecast("DELETE FROM t")
	for _, count := range []string{"SELECT nextval('s')", "SELECT count(*) FROM (SELECT FROM t FOR UPDATE) x", "SELECT 1 AS n INTO made", "DELETE FROM t RETURNING 1",
		"WITH w AS (DELETE FROM t RETURNING id) SELECT count(*) FROM w", "SELECT 1; DELETE FROM t", "SELECT 1; COMMIT; DELETE FROM t", "COMMIT", "SELECT set_config('transaction_read_only', 'off', false)",
		"SELECT pg_advisory_lock(1)", "CREATE TABLE made (id int)", "SELECT 'x'", "SELECT -1", "SELECT 1 FROM t", "SELECT NULL"} {
		wrong := *f
		wrong.Unplanned, wrong.Count = "not asked", count
		if x := w.ask("DELETE FROM t", &wrong); x.Rows != nil || len(x.Notes) == 0 {
			t.Errorf("%s: %v", count, x)
		}
	}
	for _, text := range []string{"DELETE FROM t; DELETE FROM t", "TRUNCATE t", "CREATE TABLE made AS SELECT 1", "ANALYZE t", "EXPLAIN ANALYZE DELETE FROM t", "COMMIT"} {
		wrong := *f
		wrong.Count = ""
		if x := w.ask(text, &wrong); strings.Contains(x.Plan, "actual") {
			t.Errorf("%s: %v", text, x)
		}
	}
	if got := w.psql(w.db, "SELECT (SELECT count(*) FROM t), (SELECT is_called FROM s), to_regclass('made'), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"); got != "20|f||0" {
		t.Errorf("something has changed: %s", got)
	}
}

// TestErrors: no word of the server's, which quote values, gets into a note.
func TestErrors(t *testing.T) {
	w := newWorld(t, "")
	f := w.forecast("DELETE FROM t WHERE name::int = 1")
	x := w.ask("DELETE FROM t WHERE name::int = 1", f)
	if x.Rows != nil || x.Plan == "" || len(x.Notes) != 1 || !strings.Contains(x.Notes[0], "22P02") || strings.Contains(x.Notes[0], "name 1") {
		t.Error(x)
	}
	if s := inWords(t.Context(), &pgconn.PgError{Code: "se'c\nret", Message: "name 1"}); s != "the server refused it (SQLSTATE none)" {
		t.Error(s)
	}
	for name, err := range map[string]error{"broken": io.ErrUnexpectedEOF, "hidden": errors.New("password 1")} {
		if s := inWords(t.Context(), err); s != "the connection to the server failed" {
			t.Errorf("%s: %s", name, s)
		}
	}
	refused := New(func(context.Context, session.Grant) (*pgconn.PgConn, error) {
		return nil, errors.New("password secret")
	})
	if _, err := refused.Explain(t.Context(), session.Grant{}, Request{Forecast: f}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

// TestBounds: a plan is cut, a statement is stopped by the server, and whoever waits for
// a turn waits no longer than its context.
func TestBounds(t *testing.T) {
	w := newWorld(t, "CREATE TABLE wide (id int) PARTITION BY LIST (id);"+func() string {
		var all strings.Builder
		for n := range 400 {
			fmt.Fprintf(&all, "CREATE TABLE wide_with_a_name_that_is_as_long_as_they_may_be_%d PARTITION OF wide FOR VALUES IN (%[1]d);", n)
		}
		return all.String()
	}())
	x := w.ask("SELECT * FROM wide", w.forecast("SELECT * FROM wide"))
	if len(x.Plan) > MaxPlan || len(x.Plan) < MaxPlan/2 || !strings.HasSuffix(x.Plan, "\n... (cut)") || len(x.Notes) != 0 {
		t.Errorf("%d bytes, %q", len(x.Plan), x.Notes)
	}
	w.timeout = "1500" // long enough for a plan on a busy machine, never for the count
	slow := "DELETE FROM t WHERE EXISTS (SELECT FROM generate_series(1, 100000000) a, generate_series(1, 100000) b WHERE a + b < 0)"
	if x := w.ask(slow, w.forecast(slow)); x.Rows != nil || len(x.Notes) != 1 || !strings.Contains(x.Notes[0], "longer") {
		t.Error(x)
	}
	for range perBackend {
		done, err := w.turn(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer done()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := w.Explain(ctx, session.Grant{}, Request{Forecast: w.forecast(slow), Text: slow}); err == nil {
		t.Error("no wait for a turn")
	}
	done, err := w.turn(t.Context(), "another backend")
	if err != nil {
		t.Fatal(err)
	}
	done()
}

// TestSizes: what a TRUNCATE would empty.
func TestSizes(t *testing.T) {
	w := newWorld(t, `CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
		INSERT INTO p VALUES (1), (1), (2); ANALYZE p1; ANALYZE p2; CREATE TABLE fresh (id int)`)
	x := w.ask("TRUNCATE p, t, fresh", w.forecast("TRUNCATE p, t, fresh"))
	if len(x.Notes) != 1 || x.Rows != nil || x.Plan != "" {
		t.Fatal(x)
	}
	for _, want := range []string{"about 3 rows in p", "about 20 rows in t", "an unknown number of rows in fresh"} {
		if !strings.Contains(x.Notes[0], want) {
			t.Errorf("%q is not in %q", want, x.Notes)
		}
	}
}
