package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/catalog"
	"github.com/weirproxy/weir/internal/explain"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/internal/sqlparse"
)

// What approvers see is tested against the real server, analyser and catalogue.

// seeing is a database with an engine's view of it.
type seeing struct {
	t        *testing.T
	db, url  string
	config   Config
	analyzer *sqlparse.Analyzer
	params   map[string]string
	defaults Defaults
	set      map[string]string
	status   byte
	before   string // statements that the connection has run before it is used
	connects atomic.Int32
	entered  chan struct{} // one for each connection, as long as there is room
}

var seeingDatabases atomic.Int32

// previewSQL makes tables of which every function that somebody calls leaves a trace
// outside of its transaction: it moves a sequence, or fails in a read-only transaction.
const previewSQL = `
	CREATE SEQUENCE trace; CREATE TABLE traces (n int);
	CREATE FUNCTION touch() RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE EXCEPTION 'touched'; END $$;
	CREATE FUNCTION touch(anyelement) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE EXCEPTION 'touched'; END $$;
	CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2), at timestamp);
	INSERT INTO items SELECT n, 'item ' || n, n, '2026-01-01'::timestamp + n * interval '1 day' FROM generate_series(1, 100) n;
	CREATE TABLE marks (item int, mark text);
	INSERT INTO marks SELECT 1 + mod(n, 10), 'm' FROM generate_series(1, 50) n;
	CREATE TABLE log (id int, at date) PARTITION BY RANGE (at);
	CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
	CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
	INSERT INTO log SELECT n, '2026-01-01'::date + n FROM generate_series(0, 49) n;
	CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent);
	INSERT INTO parent SELECT generate_series(1, 3); INSERT INTO child SELECT generate_series(1, 4);
	CREATE VIEW cheap AS SELECT * FROM items WHERE price < 10;
	CREATE SCHEMA other; CREATE TABLE other.items (id int); INSERT INTO other.items SELECT generate_series(1, 7);
	CREATE TABLE guarded (id int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
	CREATE POLICY p ON guarded USING (touch(id));
	CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE moods (id int, m mood); INSERT INTO moods VALUES (1, 'good'), (2, 'bad'), (3, 'bad');
	CREATE FUNCTION untouched(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN true; END $$;
	CREATE TABLE odd (id int); CREATE INDEX ON odd (id) WHERE untouched(1);
	CREATE DOMAIN odd_domain AS int CHECK (untouched(VALUE)); CREATE TABLE domains (id odd_domain);
	CREATE DOMAIN plain_domain AS int CHECK (VALUE > 0); CREATE TABLE plain_domains (id plain_domain); INSERT INTO plain_domains VALUES (1), (2);
	CREATE DOMAIN touchy AS int CHECK (touch(VALUE));
	CREATE ROLE reader_%[1]s; GRANT SELECT, DELETE ON items TO reader_%[1]s; GRANT DELETE ON marks TO reader_%[1]s;
	ANALYZE;`

func newSeeing(t *testing.T) *seeing {
	t.Helper()
	url := startBackend(t)
	poolOnce.Do(func() { pool, poolErr = sqlparse.New(sqlparse.Config{Size: 2, Log: quiet()}) })
	if poolErr != nil {
		t.Fatal(poolErr)
	}
	s := &seeing{t: t, db: fmt.Sprintf("preview_%d", seeingDatabases.Add(1)), status: 'I', defaults: Defaults{"public", "postgres"},
		params:   map[string]string{"standard_conforming_strings": "on", "client_encoding": "UTF8", "TimeZone": "UTC", "DateStyle": "ISO, MDY", "IntervalStyle": "postgres"},
		analyzer: &sqlparse.Analyzer{Pool: pool, Cache: sqlparse.NewCache(0)}}
	s.psql("postgres", `CREATE DATABASE `+s.db)
	s.psql(s.db, fmt.Sprintf(previewSQL, s.db))
	s.url = strings.Replace(url, "/postgres?", "/"+s.db+"?", 1)
	cache := catalog.New(catalog.Config{Log: quiet(), Connect: func(ctx context.Context, k catalog.Key) (*pgconn.PgConn, error) { return pgconn.Connect(ctx, s.url) }})
	t.Cleanup(cache.Close)
	key := catalog.Key{Backend: "b", Database: s.db, Login: "postgres"}
	e := explain.New(func(ctx context.Context, _ session.Grant) (*pgconn.PgConn, error) {
		s.connects.Add(1)
		select {
		case s.entered <- struct{}{}:
		default:
		}
		conn, err := pgconn.Connect(ctx, s.url+"&application_name=weir%3Acatalogue")
		if err == nil && s.before != "" {
			_, err = conn.Exec(ctx, s.before).ReadAll()
		}
		return conn, err
	})
	s.config = Config{Analyze: s.analyzer.Analyze, Foresee: s.analyzer.Foresee, Log: quiet(), Now: time.Now,
		Catalog: func(ctx context.Context, _ session.Grant) (*sqlmeta.Catalog, error) {
			cache.Invalidate(key)
			return cache.Get(ctx, key)
		},
		Explain: func(ctx context.Context, g session.Grant, r ExplainRequest) (Explained, error) {
			in := explain.Request{Forecast: r.Forecast, Text: r.Text, Types: r.Types, Values: r.Values, Formats: r.Formats, Kept: r.Kept}
			for _, s := range r.Settings {
				in.Settings = append(in.Settings, explain.Setting(s))
			}
			a, err := e.Explain(ctx, g, in)
			return Explained(a), err
		}}
	return s
}

func (s *seeing) psql(db, sql string) string {
	s.t.Helper()
	out, err := backend.Query(s.t.Context(), db, sql)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// previewer is the preview of a question that the engine asks just now.
func previewer(e *Engine, a asked) func(context.Context, any) []session.Preview {
	from := &resolving{cfg: e.cfg, grant: e.grant, session: e.snapshot(), settings: e.settings, state: e.state(), kind: a.kind, portal: a.portal, inTransaction: e.status != 'I'}
	return func(ctx context.Context, extra any) []session.Preview {
		r, _ := extra.(*resolved)
		r.from = from
		return preview(ctx, r)
	}
}

func (s *seeing) engine() *Engine {
	return NewEngine(EngineConfig{Config: &s.config, Database: s.db, Defaults: s.defaults, Parameters: s.params, Status: s.status, Set: s.set})
}

// resolved is the message's analysis, as a resolver makes it.
func (s *seeing) resolved(e *Engine, sql string) *resolved {
	s.t.Helper()
	cat, err := s.config.Catalog(s.t.Context(), session.Grant{})
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := s.analyzer.Analyze(s.t.Context(), sql, e.snapshot(), cat)
	if err != nil {
		s.t.Fatal(err)
	}
	return &resolved{stmts: list, catalog: cat, reading: e.reading()}
}

// query previews a simple query.
func (s *seeing) query(sql string) []session.Preview {
	s.t.Helper()
	e := s.engine()
	return previewer(e, asked{kind: msgQuery, text: sql})(s.t.Context(), s.resolved(e, sql))
}

// execute previews a statement with bound values: nil, a string in text or []byte in
// binary.
func (s *seeing) execute(sql string, types []uint32, values ...any) session.Preview {
	s.t.Helper()
	body := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		format := uint16(0)
		if _, ok := v.([]byte); ok {
			format = 1
		}
		body = binary.BigEndian.AppendUint16(body, format)
	}
	body = binary.BigEndian.AppendUint16(body, uint16(len(values)))
	for _, v := range values {
		var b []byte
		switch x := v.(type) {
		case nil:
			body = append(body, 0xff, 0xff, 0xff, 0xff)
			continue
		case string:
			b = []byte(x)
		case []byte:
			b = x
		}
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(b))), b...)
	}
	body = append(body, 0, 0)
	scan := newBindScanner(int64(len(body)))
	for _, b := range body { // a byte at a time
		if err := scan.feed([]byte{b}); err != nil {
			s.t.Fatal(err)
		}
	}
	parse := append(append([]byte("name\x00"), sql...), 0)
	parse = binary.BigEndian.AppendUint16(parse, uint16(len(types)))
	for _, oid := range types {
		parse = binary.BigEndian.AppendUint32(parse, oid)
	}
	e := s.engine()
	p := &portal{prep: &prepared{text: sql, reading: e.reading(), types: parsedTypes(parse)}, generation: e.settings.generation,
		params: scan.rec.done(), kinds: scan.rec.kinds}
	out := previewer(e, asked{kind: msgExecute, portal: p})(s.t.Context(), s.resolved(e, sql))
	if len(out) != 1 {
		s.t.Fatalf("%d previews", len(out))
	}
	return out[0]
}

func shown(p session.Preview) string {
	rows := "-"
	if p.Rows != nil {
		rows = fmt.Sprint(*p.Rows)
	}
	return fmt.Sprintf("rows %s, plan %q, note %q", rows, p.Plan, p.Note)
}

func int4(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// TestPreviewCounts: the number is that of the rows that the statement touches when it
// then runs.
func TestPreviewCounts(t *testing.T) {
	s := newSeeing(t)
	for sql, want := range map[string]int64{
		"DELETE FROM items": 100,
		"delete from public.items as i where i.id <= 7 returning *":                                            7,
		"DELETE FROM items WHERE name LIKE 'item 1%' AND at > '2026-01-15' AND id = ANY ('{10,11,15,16,17}')":  3,
		"UPDATE items SET price = price * 2, name = upper(name) WHERE price BETWEEN 10 AND 19.5":               10,
		"UPDATE items SET price = 0 FROM marks WHERE marks.item = items.id":                                    10,
		"UPDATE items i SET price = 0 FROM marks m JOIN marks n USING (item) WHERE m.item = i.id AND i.id > 5": 5,
		"DELETE FROM items USING marks WHERE item = id":                                                        10,
		"DELETE FROM items USING generate_series(1, 3) g WHERE id = g OR id = g + 1":                           4,
		"DELETE FROM log":                                      50,
		"DELETE FROM log USING marks WHERE true":               50,
		"DELETE FROM log WHERE at >= '2026-02-01'":             19,
		"DELETE FROM ONLY log":                                 0,
		"DELETE FROM parent":                                   7,
		"DELETE FROM ONLY parent":                              3,
		"DELETE FROM parent USING marks":                       7, // places are of one table each
		"DELETE FROM other.items":                              7,
		"DELETE FROM moods WHERE m = 'bad'":                    2,
		"DELETE FROM plain_domains WHERE id = 1::plain_domain": 1,
		"WITH w AS (SELECT item FROM marks) DELETE FROM items WHERE id IN (SELECT item FROM w)":                                              10,
		"WITH RECURSIVE w(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM w WHERE n < 6) UPDATE items SET price = 1 FROM w WHERE w.n = items.id": 6,
		"DELETE FROM items WHERE EXISTS (SELECT FROM marks WHERE item = items.id)":                                                           10,
	} {
		p := s.query(sql)
		if len(p) != 1 || p[0].Rows == nil || *p[0].Rows != want || p[0].Note != "" || p[0].Plan == "" {
			t.Errorf("%s: %s", sql, shown(p[0]))
			continue
		}
		if strings.Contains(p[0].Plan, "cost=") || strings.Contains(p[0].Plan, "rows=") {
			t.Errorf("%s: the plan shows estimates: %s", sql, p[0].Plan)
		}
		if tag := s.runUnder("SET datestyle = 'ISO, MDY'", sql); tag != fmt.Sprint(want) {
			t.Errorf("%s: counted %d, and it touched %s", sql, want, tag)
		}
	}
	s.unchanged()
}

func (s *seeing) unchanged() {
	s.t.Helper()
	if got := s.psql(s.db, `SELECT (SELECT count(*) FROM items), (SELECT sum(price) FROM items), (SELECT count(*) FROM marks), (SELECT count(*) FROM log),
		(SELECT count(*) FROM parent), (SELECT count(*) FROM other.items), (SELECT is_called FROM trace), (SELECT count(*) FROM traces)`); got != "100|5050.00|50|50|7|7|f|0" {
		s.t.Errorf("something has changed: %s", got)
	}
}

// TestPreviewParameters: bound values count as the sender meant them, and stand in no
// plan.
func TestPreviewParameters(t *testing.T) {
	s := newSeeing(t)
	for name, c := range map[string]struct {
		got  session.Preview
		rows int64
	}{
		"text":        {s.execute("DELETE FROM items WHERE id <= $1", nil, "42"), 42},
		"binary":      {s.execute("DELETE FROM items WHERE id <= $1", nil, int4(42)), 42},
		"declared":    {s.execute("DELETE FROM items WHERE id <= $1", []uint32{20}, append(int4(0), int4(42)...)), 42},
		"NULL":        {s.execute("DELETE FROM items WHERE id = $1", nil, nil), 0},
		"two":         {s.execute("DELETE FROM items WHERE id > $2 AND name LIKE $1", []uint32{25, 0}, "item 9%", int4(89)), 10},
		"of SET":      {s.execute("UPDATE items SET name = $1, price = $2 WHERE id = $3", nil, strings.Repeat("x", 5000), nil, "7"), 1},
		"array":       {s.execute("DELETE FROM items WHERE id = ANY ($1)", nil, "{1,2,3}"), 3},
		"enum":        {s.execute("DELETE FROM moods WHERE m = $1", nil, "bad"), 2},
		"UTF8":        {s.execute("DELETE FROM items WHERE name <> $1", nil, "Chloé"), 100},
		`\x`:          {s.execute("DELETE FROM items WHERE name <> $1", nil, `\x41`), 100},
		"timestamptz": {s.execute("DELETE FROM items WHERE at < $1", []uint32{1184}, "2026-01-03 00:00:00+00"), 1},
	} {
		if c.got.Rows == nil || *c.got.Rows != c.rows || c.got.Note != "" || c.got.Plan == "" {
			t.Errorf("%s: %s", name, shown(c.got))
		}
		for _, value := range []string{"42", "item 9", "bad", "xxx", "Chlo"} {
			if strings.Contains(c.got.Plan, value) {
				t.Errorf("%s: the plan shows a bound value: %s", name, c.got.Plan)
			}
		}
	}
	for name, c := range map[string]struct {
		got  session.Preview
		note string
	}{
		"long":     {s.execute("DELETE FROM items WHERE name = $1", nil, strings.Repeat("x", 5000)), "too long to be kept"},
		"size":     {s.execute("DELETE FROM items WHERE id = $1", nil, []byte{0, 0, 7}), "08P01"},
		"garbage":  {s.execute("DELETE FROM items WHERE id = $1", nil, "7x"), "22P02"},
		"missing":  {s.execute("DELETE FROM items WHERE id = $1 OR id = $2", nil, "7"), "more was bound"},
		"many":     {s.execute("DELETE FROM items WHERE name = $1", nil, "x", "y"), "do not go with the parameters"},
		"no type":  {s.execute("DELETE FROM items WHERE $1 IS NULL", nil, "x"), "42P18"},
		"overflow": {s.execute("DELETE FROM items WHERE id = $1", []uint32{23}, "99999999999"), "22003"},
	} {
		if c.got.Rows != nil || !strings.Contains(c.got.Note, c.note) || strings.Contains(c.got.Note, "7x") || strings.Contains(c.got.Note, "9999") {
			t.Errorf("%s: %s", name, shown(c.got))
		}
	}
	// Without the declared types nothing is counted.
	e := s.engine()
	r := s.resolved(e, "DELETE FROM items WHERE id = $1")
	p := &portal{prep: &prepared{text: r.stmts[0].Text}, generation: e.settings.generation, params: []string{"1"}, kinds: []byte{paramText}}
	if got := previewer(e, asked{kind: msgExecute, portal: p})(t.Context(), r)[0]; got.Rows != nil || got.Plan == "" || !strings.Contains(got.Note, "types") {
		t.Errorf("without types: %s", shown(got))
	}
	// Values in another encoding than UTF8 are not taken for what they are not.
	s.params["client_encoding"] = "LATIN1"
	if got := s.execute("DELETE FROM items WHERE name <> $1", nil, "Chlo\xe9"); got.Rows != nil || !strings.Contains(got.Note, "encoding") {
		t.Errorf("LATIN1: %s", shown(got))
	}
	s.unchanged()
}

// TestPreviewRefuses: what could run somebody's function is not asked about, whoever
// would run it. touch() fails whenever it is run, and the server logs that.
func TestPreviewRefuses(t *testing.T) {
	s := newSeeing(t)
	for sql, c := range map[string]struct {
		rows    int64 // -1: no count
		planned bool
		note    string
	}{
		"DELETE FROM items WHERE touch()":                             {-1, false, "public.touch"},
		"DELETE FROM items WHERE touch(id)":                           {-1, false, "public.touch"},
		"DELETE FROM items WHERE items.touch":                         {-1, false, "touch"},
		"UPDATE items SET price = 1 WHERE id = 1 AND public.touch(1)": {-1, false, "public.touch"},
		"UPDATE items SET price = touch()::int WHERE id = 1":          {1, false, "public.touch"},
		"DELETE FROM items WHERE id = ANY ('{1}'::touchy[])":          {-1, false, "calls a user's function"},
		"SELECT touch()": {-1, false, "public.touch"},
		"INSERT INTO traces SELECT 1 WHERE touch()":               {-1, false, "public.touch"},
		"DELETE FROM items WHERE pg_sleep(100) IS NULL":           {-1, false, "pg_sleep"},
		"UPDATE items SET id = nextval('trace')":                  {100, false, "nextval"},
		"DELETE FROM items WHERE id > random()":                   {-1, false, "random"},
		"DELETE FROM cheap":                                       {-1, false, "view"},
		"DELETE FROM items USING cheap WHERE items.id = cheap.id": {-1, false, "view"},
		"DELETE FROM odd":                                         {-1, false, "calls a user's function"},
		"DELETE FROM domains":                                     {-1, false, "calls a user's function"},
		"DELETE FROM items WHERE id = 1::odd_domain":              {-1, false, "calls a user's function"},
		"WITH w AS (DELETE FROM marks RETURNING item) DELETE FROM items WHERE id IN (SELECT item FROM w)": {-1, true, "changes data"},
		"DELETE FROM items WHERE id IN (SELECT item FROM marks FOR UPDATE)":                               {-1, true, "plain read"},
		"MERGE INTO items USING marks ON item = id WHEN MATCHED THEN DELETE":                              {-1, true, "MERGE"},
		"INSERT INTO marks SELECT id, name FROM items":                                                    {-1, true, ""},
		"SELECT * FROM items WHERE id = 5":                                                                {-1, true, ""},
		"DROP TABLE items":                                                                                {-1, false, "about 100 rows"},
		"TRUNCATE log, marks":                                                                             {-1, false, "about 50 rows in marks"},
		"ALTER TABLE items ADD x int":                                                                     {-1, false, "no plan for ALTER TABLE"},
		"EXECUTE something":                                                                               {-1, false, "cannot read it"},
		"DO 'BEGIN PERFORM touch(); END'":                                                                 {-1, false, "cannot read it"},
	} {
		p := s.query(sql)
		if len(p) != 1 {
			t.Fatalf("%s: %d previews", sql, len(p))
		}
		rows := int64(-1)
		if p[0].Rows != nil {
			rows = *p[0].Rows
		}
		if rows != c.rows || (p[0].Plan != "") != c.planned || !strings.Contains(p[0].Note, c.note) || (c.note == "") != (p[0].Note == "") {
			t.Errorf("%s: %s", sql, shown(p[0]))
		}
	}
	// As a role to which row-level security applies.
	s.psql(s.db, "GRANT SELECT, DELETE ON guarded TO reader_"+s.db)
	s.defaults.Role = "reader_" + s.db
	if p := s.query("DELETE FROM guarded"); p[0].Rows != nil || p[0].Plan != "" || !strings.Contains(p[0].Note, "row-level security") {
		t.Errorf("row-level security: %s", shown(p[0]))
	}
	s.unchanged()
	if log := s.log(); strings.Contains(log, "touched") {
		t.Error("the function was run")
	}
}

// TestPreviewStale: what Weir's picture of the catalogue does not show yet the server
// says itself. Each case makes, behind its back, something that would run touch().
func TestPreviewStale(t *testing.T) {
	for name, c := range map[string]struct{ change, sql, note string }{
		"function":     {"CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE EXCEPTION ''touched''; END'", "DELETE FROM items WHERE lower('X'::varchar) = 'x'", "names is a user's"},
		"operator":     {"CREATE OPERATOR = (FUNCTION = touch2, LEFTARG = int, RIGHTARG = text)", "DELETE FROM items WHERE id = 'x'::text", "may be a user's"},
		"cast":         {"CREATE CAST (mood AS int) WITH FUNCTION mood_int(mood) AS IMPLICIT", "DELETE FROM moods WHERE id = 1", "cast"},
		"view":         {"ALTER TABLE items RENAME TO old; CREATE VIEW items AS SELECT * FROM old WHERE touch(id)", "DELETE FROM items", "another table"},
		"other schema": {"CREATE SCHEMA first; CREATE TABLE first.items (id int)", "DELETE FROM items", "another table"},
		"dropped":      {"DROP TABLE items CASCADE", "DELETE FROM items", "another table"},
		"policy":       {"ALTER TABLE marks ENABLE ROW LEVEL SECURITY, OWNER TO reader_%s, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON marks USING (touch(item))", "DELETE FROM marks", "row-level security"},
		"rule":         {"CREATE RULE r AS ON DELETE TO items DO INSTEAD SELECT touch()", "DELETE FROM items", "rules"},
		"check":        {"ALTER TABLE items ADD CHECK (touch()) NOT VALID", "DELETE FROM items", ""},
		"default":      {"ALTER TABLE items ADD ok bool; ALTER TABLE items ALTER ok SET DEFAULT touch()", "DELETE FROM items", ""},
		"foreign":      {"CREATE EXTENSION IF NOT EXISTS file_fdw; CREATE SERVER f FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE far () INHERITS (items) SERVER f OPTIONS (filename '/dev/null')", "DELETE FROM items", "not a plain table"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSeeing(t)
			s.psql(s.db, "CREATE FUNCTION touch2(int, text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE EXCEPTION ''touched''; END'; CREATE FUNCTION mood_int(mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'")
			s.defaults.SearchPath = "first, public"
			if name == "policy" {
				s.defaults.Role = "reader_" + s.db
			}
			old, err := s.config.Catalog(t.Context(), session.Grant{})
			if err != nil {
				t.Fatal(err)
			}
			s.config.Catalog = func(context.Context, session.Grant) (*sqlmeta.Catalog, error) { return old, nil }
			change := c.change
			if strings.Contains(change, "%s") {
				change = fmt.Sprintf(change, s.db)
			}
			s.psql(s.db, change)
			// Without a note: what would run touch() does not, in a plan or a count.
			if p := s.query(c.sql); (p[0].Rows == nil) != (c.note != "") || (p[0].Plan == "") != (c.note != "") || !strings.Contains(p[0].Note, c.note) {
				t.Error(shown(p[0]))
			}
		})
	}
	if log := (&seeing{t: t}).log(); strings.Contains(log, "touched") {
		t.Error("the function was run")
	}
}

// log is what the server has logged of errors.
func (s *seeing) log() string {
	s.t.Helper()
	b, err := os.ReadFile(backend.LogFile)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, line := range strings.Split(string(b), "\n") {
		if strings.Contains(line, "ERROR:") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// TestPreviewSession: the statement means what it means in the session.
func TestPreviewSession(t *testing.T) {
	s := newSeeing(t)
	// A login with settings of its own does not matter.
	s.before = "SET search_path = pg_temp; SET statement_timeout = 0; SET default_transaction_read_only = off; SET plan_cache_mode = force_custom_plan"
	rows := func(want int64) {
		t.Helper()
		if p := s.query("DELETE FROM items"); p[0].Rows == nil || *p[0].Rows != want {
			t.Errorf("want %d rows, %s", want, shown(p[0]))
		}
	}
	rows(100)
	s.defaults.SearchPath = `other, public`
	rows(7)
	s.defaults.SearchPath = `"$user", public`
	rows(100)
	for style, want := range map[string]int64{"ISO, MDY": 2, "ISO, DMY": 32} {
		s.params["DateStyle"] = style
		if p := s.query("DELETE FROM items WHERE at < '01/04/2026' OR at < '03/02/2026' AND id > 60"); p[0].Rows == nil {
			t.Errorf("%s: %s", style, shown(p[0]))
		} else if got := s.runUnder("SET datestyle = '"+style+"'", "DELETE FROM items WHERE at < '01/04/2026' OR at < '03/02/2026' AND id > 60"); got != fmt.Sprint(*p[0].Rows) {
			t.Errorf("%s: counted %d, it touched %s (%d)", style, *p[0].Rows, got, want)
		}
	}
	s.set = map[string]string{"transform_null_equals": "on", "work_mem": "(changed in a way that weir cannot read)"}
	if p := s.query("DELETE FROM items WHERE NULL = name OR name = NULL OR id = 3"); p[0].Rows == nil || *p[0].Rows != 1 {
		t.Errorf("transform_null_equals: %s", shown(p[0]))
	}
	s.set = map[string]string{"bytea_output": "(changed in a way that weir cannot read)"}
	if p := s.query("DELETE FROM items"); p[0].Rows != nil || p[0].Plan != "" || !strings.Contains(p[0].Note, "bytea_output") {
		t.Errorf("unsure setting: %s", shown(p[0]))
	}
	s.set = nil
	// Who may not read cannot have it counted, and the plan asks for no rights.
	s.defaults.Role = "reader_" + s.db
	rows(100)
	if p := s.query("DELETE FROM marks"); p[0].Rows != nil || !strings.Contains(p[0].Note, "42501") {
		t.Errorf("without the right to read: %s", shown(p[0]))
	}
	s.defaults.Role = "postgres"
	s.status = 'T'
	if p := s.query("DELETE FROM items"); p[0].Rows == nil || !strings.Contains(p[0].Note, "open transaction") {
		t.Errorf("in a transaction: %s", shown(p[0]))
	}
	s.status = 'I'
	p := s.query("DELETE FROM marks; DELETE FROM items; SET search_path = other; DELETE FROM items" + strings.Repeat("; SELECT 1", 10))
	if len(p) != 14 || p[0].Note != "" || p[1].Rows == nil || !strings.Contains(p[1].Note, "before it") || p[3].Rows != nil || !strings.Contains(p[3].Note, "changes what it means") || p[13].Rows != nil {
		t.Errorf("several statements: %v", p)
	}
	if p := s.query(strings.Repeat("SELECT 1;", 20)); !strings.Contains(p[19].Note, "first 8") || p[7].Plan == "" {
		t.Errorf("many statements: %v", p)
	}
	// The session's own temporary tables, and what it can no longer tell.
	e := s.engine()
	r := s.resolved(e, "DELETE FROM items")
	e.settings.temp = map[string]struct{}{"items": {}}
	if got := previewer(e, asked{kind: msgQuery})(t.Context(), r)[0]; got.Rows != nil || !strings.Contains(got.Note, "temporary") {
		t.Errorf("a temporary table: %s", shown(got))
	}
	e = s.engine()
	e.settings.unsure()
	if got := previewer(e, asked{kind: msgQuery})(t.Context(), r)[0]; got.Rows != nil || got.Plan != "" {
		t.Errorf("an unsure path: %s", shown(got))
	}
	before := previewer(e, asked{kind: msgExecute, portal: &portal{prep: &prepared{}, generation: e.settings.generation - 1}})
	if got := before(t.Context(), r)[0]; got.Plan != "" || !strings.Contains(got.Note, "since the statement was bound") {
		t.Errorf("bound under another path: %s", shown(got))
	}
	s.unchanged()
}

// runUnder runs a statement under a setting, takes it back and says how many rows it
// touched.
func (s *seeing) runUnder(set, sql string) string {
	s.t.Helper()
	conn, err := pgconn.Connect(s.t.Context(), s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	r, err := conn.Exec(s.t.Context(), set+"; BEGIN; "+sql).ReadAll()
	if err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprint(r[2].CommandTag.RowsAffected())
}

// TestPreviewLimits: a locked table and a count without end end in a note, and Weir's
// own connection is gone afterwards.
func TestPreviewLimits(t *testing.T) {
	s := newSeeing(t)
	conn, err := pgconn.Connect(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if p := s.query("DELETE FROM items"); p[0].Rows != nil || !strings.Contains(p[0].Note, "holds a lock") {
		t.Errorf("locked: %s", shown(p[0]))
	}
	if _, err := conn.Exec(t.Context(), "ROLLBACK").ReadAll(); err != nil {
		t.Fatal(err)
	}
	endless := "DELETE FROM items WHERE EXISTS (SELECT FROM generate_series(1, 100000000) a, generate_series(1, 100000) b WHERE a + b < 0)"
	if p := s.query(endless); p[0].Rows != nil || p[0].Plan == "" || !strings.Contains(p[0].Note, "takes the server longer than") {
		t.Errorf("endless: %s", shown(p[0]))
	}
	// Many at once, all given up by whoever asks.
	ctx, cancel := context.WithCancel(t.Context())
	e := s.engine()
	r := s.resolved(e, endless)
	entered := s.connects.Load()
	s.entered = make(chan struct{}, 2)
	var wg sync.WaitGroup
	notes := make([]string, 20)
	for i := range notes {
		find := previewer(e, asked{kind: msgQuery})
		wg.Go(func() { notes[i] = find(ctx, r)[0].Note })
	}
	for range cap(s.entered) { // two are under way
		<-s.entered
	}
	cancel()
	wg.Wait()
	if slices.Contains(notes, "") {
		t.Errorf("given up: %q", notes)
	}
	if n := s.connects.Load() - entered; n > 2+2 { // two more may slip in as slots come free
		t.Errorf("%d connections", n)
	}
	// A server that accepts and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.url = "postgres://x@" + l.Addr().String() + "/x?sslmode=disable"
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if a, err := s.config.Explain(ctx, session.Grant{}, ExplainRequest{Text: "SELECT 1", Forecast: &sqlmeta.Forecast{}}); err == nil || a.Plan != "" {
		t.Errorf("a silent server: %v %v", a, err)
	}
	s.unchanged()
}
