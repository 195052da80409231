package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// The server of all tests; each test has a database of its own.
var (
	server    *postgres.Server
	databases atomic.Int32
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "weir-catalog-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if server, err = postgres.Start(context.Background(), postgres.Config{Dir: dir, Shop: true}); err != nil {
			panic(err)
		}
		defer server.Stop()
		return m.Run()
	}())
}

// world is a database, a cache for it and a clock that stands still.
type world struct {
	*Cache
	t        *testing.T
	db       string
	key      Key
	connects atomic.Int32
	refuse   atomic.Bool // connections fail

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T, script string) *world {
	t.Helper()
	w := &world{t: t, db: fmt.Sprintf("test_%d", databases.Add(1)), now: time.Unix(1e9, 0)}
	w.key = Key{Backend: "shop", Address: server.Addr(), Database: w.db, Login: postgres.Superuser}
	w.psql("postgres", `CREATE DATABASE "`+w.db+`"`)
	if script != "" {
		w.psql(w.db, script)
	}
	w.Cache = New(Config{Connect: w.connect, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: w.clock})
	t.Cleanup(w.Close)
	return w
}

func (w *world) connect(ctx context.Context, k Key) (*Conn, error) {
	w.connects.Add(1)
	if w.refuse.Load() {
		return nil, errors.New("connection refused")
	}
	return pgconn.Connect(ctx, server.URL(k.Login, k.Database)+"&application_name=weir%3Acatalogue")
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(time.Microsecond) // "after" must be true of later
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	w.now = w.now.Add(d)
	w.mu.Unlock()
}

func (w *world) psql(db, sql string) string {
	w.t.Helper()
	out, err := server.Query(w.t.Context(), db, sql)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) get() *sqlmeta.Catalog {
	w.t.Helper()
	c, err := w.Get(w.t.Context(), w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// bases are the columns that a view reads, as "relation.column", "relation.*" for
// the whole row and "relation" for no column.
func bases(c *sqlmeta.Catalog, schema, view string) []string {
	var out []string
	for _, id := range c.Relation(schema, view).BaseColumns {
		r := c.Relations[id.Relation]
		switch {
		case id.Attr > 0:
			out = append(out, r.Name+"."+r.Columns[id.Attr-1])
		case id.Attr == sqlmeta.NoColumn:
			out = append(out, r.Name)
		case id.Attr == 0:
			out = append(out, r.Name+".*")
		}
	}
	slices.Sort(out)
	return out
}

func TestLoad(t *testing.T) {
	w := newWorld(t, `
		CREATE SCHEMA shop; CREATE SCHEMA "Odd.Name";
		CREATE TABLE shop.payments (id int, gone int, card text, amount numeric, doubled numeric GENERATED ALWAYS AS (amount * 2) STORED);
		ALTER TABLE shop.payments DROP COLUMN gone;
		CREATE TABLE "Odd.Name"."T x" ("A b" int);
		CREATE VIEW shop.cards AS SELECT card AS number, amount FROM shop.payments WHERE id > 0;
		CREATE VIEW shop.above AS SELECT upper(number) FROM shop.cards;
		CREATE VIEW shop.whole AS SELECT p FROM shop.payments p;
		CREATE VIEW shop.counted AS SELECT count(*) FROM shop.payments;
		CREATE MATERIALIZED VIEW shop.kept AS SELECT card FROM shop.payments;
		CREATE RECURSIVE VIEW shop.loops (n) AS SELECT id FROM shop.payments UNION SELECT n FROM loops WHERE n < 0;
		CREATE FUNCTION shop.peek() RETURNS text LANGUAGE sql STABLE AS 'SELECT card FROM shop.payments LIMIT 1';
		CREATE FUNCTION shop.peek(int) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NULL; END';
		CREATE VIEW shop.peeks AS SELECT shop.peek();
		CREATE VIEW shop.over_peeks AS SELECT * FROM shop.peeks;
		CREATE VIEW shop.xml AS SELECT query_to_xml('SELECT card FROM shop.payments', true, true, '');
		CREATE OPERATOR shop.|-| (RIGHTARG = int, FUNCTION = shop.peek);
		CREATE VIEW shop.operated AS SELECT OPERATOR(shop.|-|) 1;
		CREATE AGGREGATE shop.joined(text) (SFUNC = textcat, STYPE = text);
		CREATE VIEW shop.aggregated AS SELECT shop.joined('x');
		CREATE EXTENSION citext SCHEMA public;
		CREATE EXTENSION hstore SCHEMA public;
		CREATE TABLE shop.texts (a citext, b citext[], c hstore);
		CREATE VIEW shop.lowered AS SELECT lower(a::text), hstore('a', 'b') -> 'a' FROM shop.texts;
		CREATE TYPE shop.mood AS ENUM ('good', 'bad');
		CREATE TYPE shop.pair AS (a text, b int);
		CREATE TABLE shop.parent (id int, card text) PARTITION BY RANGE (id);
		CREATE TABLE shop.part PARTITION OF shop.parent FOR VALUES FROM (1) TO (10);
		CREATE TABLE shop.heir (extra int) INHERITS (shop.payments);
		CREATE TEMP TABLE fleeting (id int);
		CREATE SEQUENCE shop.seq;`)
	c := w.get()

	payments := c.Relation("shop", "payments")
	want := &sqlmeta.Relation{OID: payments.OID, Schema: "shop", Name: "payments", Kind: 'r', Columns: []string{"id", "", "card", "amount", "doubled"},
		Generated: []bool{false, false, false, false, true}, GeneratedFrom: [][]int16{nil, nil, nil, nil, {4}}, Children: []uint32{c.Relation("shop", "heir").OID}}
	if diff := cmp.Diff(want, payments); diff != "" {
		t.Error(diff)
	}
	if got := w.psql(w.db, "SELECT 'shop.payments'::regclass::oid"); got != fmt.Sprint(payments.OID) {
		t.Errorf("OID %d, the server says %s", payments.OID, got)
	}
	if !c.Schemas["Odd.Name"] || !c.Schemas["shop"] || !c.Schemas["pg_catalog"] || c.Relation("Odd.Name", "T x") == nil {
		t.Error("schemas or quoted names are missing")
	}
	for schema := range c.Schemas {
		if strings.HasPrefix(schema, "pg_temp") || strings.HasPrefix(schema, "pg_toast") {
			t.Errorf("schema %s is there", schema)
		}
	}
	for view, want := range map[string][]string{
		"cards":   {"payments.amount", "payments.card", "payments.id"},
		"above":   {"cards.number", "payments.amount", "payments.card", "payments.id"},
		"whole":   {"payments.*"},
		"counted": {"payments"},
		"kept":    {"payments.card"},
		"loops":   {"payments.id"},
	} {
		if diff := cmp.Diff(want, bases(c, "shop", view)); diff != "" {
			t.Errorf("view %s reads %s", view, diff)
		}
	}
	for view, want := range map[string]bool{"cards": false, "counted": false, "lowered": false, "peeks": true, "over_peeks": true, "xml": true, "operated": true, "aggregated": true} {
		if got := c.Relation("shop", view).Opaque; got != want {
			t.Errorf("view %s: opaque %v, want %v", view, got, want)
		}
	}
	peek := c.Functions["shop.peek"]
	if len(peek) != 2 || c.FunctionName(peek[0].OID) != "shop.peek" {
		t.Fatalf("shop.peek: %v", peek)
	}
	for _, f := range peek {
		definer := f.Language == "plpgsql"
		if f.SecurityDefiner != definer || f.BuiltIn || (f.Volatility == 's') == definer {
			t.Errorf("%+v", f)
		}
	}
	if len(c.Functions["pg_catalog.lower"]) == 0 || !c.Functions["pg_catalog.lower"][0].BuiltIn {
		t.Error("built-in functions are missing")
	}
	part, parent := c.Relation("shop", "part"), c.Relation("shop", "parent")
	if !slices.Equal(part.Parents, []uint32{parent.OID}) || !slices.Equal(parent.Children, []uint32{part.OID}) || parent.Kind != 'p' {
		t.Errorf("partition %+v of %+v", part, parent)
	}
	if c.Relation("shop", "seq").Kind != 'S' || c.Relation("shop", "kept").Kind != 'm' {
		t.Error("wrong kinds")
	}
	for name, want := range map[string]sqlmeta.Type{
		"public.citext": {Kind: 'b', TextWire: true}, "public.hstore": {Kind: 'b'}, "shop.mood": {Kind: 'e'}, "shop.pair": {Kind: 'c'},
		"public.citext[]": {Kind: 'b', Element: 1},
	} {
		var oid uint32
		fmt.Sscan(w.psql(w.db, "SELECT '"+name+"'::regtype::oid"), &oid)
		got, ok := c.Type(oid)
		if got.Element != 0 && want.Element != 0 {
			got.Element = 1
		}
		if !ok || got != want {
			t.Errorf("type %s: %+v, %v", name, got, ok)
		}
	}
}

// TestProbe runs DDL of every kind past Weir: each must change the picture, and
// what changes nothing in it must not.
func TestProbe(t *testing.T) {
	w := newWorld(t, `CREATE TABLE t (id int, card text); CREATE VIEW v AS SELECT id FROM t; CREATE TABLE p (id int) PARTITION BY RANGE (id);
		CREATE TABLE p1 (id int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'`)
	before := w.get()
	for _, ddl := range []string{
		"ALTER TABLE t ADD COLUMN b int", "ALTER TABLE t RENAME COLUMN card TO number", "ALTER TABLE t DROP COLUMN b", "ALTER TABLE t RENAME TO u",
		"CREATE OR REPLACE VIEW v AS SELECT id FROM u WHERE id > 1", "CREATE SCHEMA s", "ALTER TABLE u SET SCHEMA s", "ALTER SCHEMA s RENAME TO s2", "DROP VIEW v",
		"ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (1) TO (2)", "ALTER TABLE p DETACH PARTITION p1", "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
		"DROP FUNCTION f()", "CREATE TYPE e AS ENUM ('a')", "DROP TABLE s2.u", "BEGIN; CREATE TABLE x (); DROP TABLE x; CREATE TABLE x (); COMMIT",
	} {
		w.psql(w.db, ddl)
		w.advance(behind)
		after := w.get()
		if after == before || after.Version <= before.Version {
			t.Errorf("%s was not seen", ddl)
		}
		before = after
	}
	w.psql(w.db, "ANALYZE") // sees that p has no children left, which is a change
	w.advance(behind)
	before = w.get()
	// A session with temporary objects, rows that change, statistics.
	steady := func(what string) {
		t.Helper()
		w.advance(behind)
		if after := w.get(); after != before {
			t.Errorf("%s made a new picture", what)
			before = after
		}
	}
	for _, sql := range []string{"INSERT INTO p1 SELECT generate_series(1, 1000)", "ANALYZE", "VACUUM p1", "BEGIN; CREATE TABLE y (); ROLLBACK"} {
		w.psql(w.db, sql)
		steady(sql)
	}
	other, err := pgconn.Connect(t.Context(), server.URL(postgres.Superuser, w.db))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	if _, err := other.Exec(t.Context(), "CREATE TEMP TABLE tmp (id serial, x text); CREATE TEMP VIEW tv AS SELECT * FROM tmp").ReadAll(); err != nil {
		t.Fatal(err)
	}
	steady("temporary objects")
}

func TestFreshness(t *testing.T) {
	w := newWorld(t, "CREATE TABLE t (id int)")
	first := w.get()
	w.psql(w.db, "CREATE TABLE u (id int)")
	w.advance(fresh - time.Millisecond)
	if w.get() != first {
		t.Error("a fresh picture was not used")
	}
	w.Invalidate(Key{Backend: w.key.Backend, Address: w.key.Address, Database: "other"})
	if w.get() != first {
		t.Error("another database's change made a difference")
	}
	seenBy := w.key
	seenBy.Login = postgres.DBARole // DDL through another login
	w.Invalidate(seenBy)
	second := w.get()
	if second.Relation("public", "u") == nil {
		t.Fatal("after Invalidate the old picture was used")
	}
	// Between fresh and behind the old one serves and a new one comes beside it.
	w.psql(w.db, "CREATE TABLE v (id int)")
	w.advance(fresh)
	if w.get() != second {
		t.Error("somebody had to wait for a refresh")
	}
	for deadline := time.Now().Add(20 * time.Second); w.get().Relation("public", "v") == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the refresh beside never came")
		}
	}
	// Older: whoever asks waits.
	w.psql(w.db, "CREATE TABLE x (id int)")
	w.advance(behind)
	if w.get().Relation("public", "x") == nil {
		t.Error("a picture that is behind was used")
	}
	if n := w.connects.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
}

func TestServerAway(t *testing.T) {
	w := newWorld(t, "CREATE TABLE t (id int)")
	cat := w.get()
	w.refuse.Store(true)
	w.kill()
	w.advance(behind)
	before := w.connects.Load()
	for range 20 {
		if w.get() != cat {
			t.Fatal("the last picture did not serve")
		}
	}
	if n := w.connects.Load() - before; n != 1 {
		t.Errorf("a server that is away was asked %d times at once, want 1", n)
	}
	w.advance(retry)
	w.get()
	if n := w.connects.Load() - before; n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
	w.Invalidate(w.key)
	w.advance(retry)
	if _, err := w.Get(t.Context(), w.key); err == nil || !strings.Contains(err.Error(), w.db) {
		t.Errorf("a picture that is known to be outdated served: %v", err)
	}
	w.refuse.Store(false)
	w.advance(retry)
	if w.get() == nil {
		t.Error("no picture after the server came back")
	}
	w.refuse.Store(true)
	w.kill()
	w.advance(stale)
	if _, err := w.Get(t.Context(), w.key); err == nil {
		t.Error("a stale picture served")
	}
}

// kill ends the cache's connections from the server's side.
func (w *world) kill() {
	w.t.Helper()
	w.psql("postgres", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'weir:catalogue' AND datname = '"+w.db+"'")
}

// TestBrokenConnection: one that ended since its last use is replaced at once.
func TestBrokenConnection(t *testing.T) {
	w := newWorld(t, "CREATE TABLE t (id int)")
	w.get()
	w.kill()
	w.Invalidate(w.key)
	w.get()
	w.kill()
	if _, err := w.Defaults(t.Context(), w.key); err != nil {
		t.Error(err)
	}
	if n := w.connects.Load(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

func TestSingleFlight(t *testing.T) {
	w := newWorld(t, "CREATE TABLE t (id int)")
	var group sync.WaitGroup
	cats := make([]*sqlmeta.Catalog, 20)
	for i := range cats {
		group.Go(func() { cats[i], _ = w.Get(t.Context(), w.key) })
	}
	group.Wait()
	for _, c := range cats {
		if c == nil || c.Version != 1 {
			t.Fatalf("%d pictures were loaded, want 1", cats[0].Version)
		}
	}
	// Whoever waits for a failing attempt shares its outcome.
	w.refuse.Store(true)
	w.kill()
	w.Invalidate(w.key)
	before := w.connects.Load()
	for range 20 {
		group.Go(func() {
			if _, err := w.Get(t.Context(), w.key); err == nil {
				t.Error("an outdated picture served")
			}
		})
	}
	group.Wait()
	if n := w.connects.Load() - before; n != 1 {
		t.Errorf("20 callers made %d attempts, want 1", n)
	}
}

// TestHangingServer: a server that accepts and says nothing holds nobody longer
// than they want to wait, and Close ends at once.
func TestHangingServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := New(Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Connect: func(ctx context.Context, k Key) (*Conn, error) {
		return pgconn.Connect(ctx, "postgres://x@"+l.Addr().String()+"/x?sslmode=disable")
	}})
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() { _, err := c.Get(ctx, Key{}); results <- err }()
	go func() { _, err := c.Get(t.Context(), Key{}); results <- err }()
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	cancel()
	c.Close()
	for range 2 {
		if err := <-results; err == nil {
			t.Error("an answer from nowhere")
		}
	}
	if _, err := c.Get(t.Context(), Key{}); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
	c.Close()
}

func TestSweep(t *testing.T) {
	w := newWorld(t, "CREATE TABLE t (id int)")
	cat := w.get()
	backends := func() string {
		return w.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir:catalogue' AND datname = '"+w.db+"'")
	}
	w.advance(idle - time.Second)
	w.sweep()
	if backends() != "1" {
		t.Error("a connection was closed too early")
	}
	w.advance(2 * time.Second)
	w.sweep()
	for deadline := time.Now().Add(20 * time.Second); backends() != "0"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("an idle connection stays")
		}
	}
	if w.get() != cat {
		t.Error("the picture did not survive its connection")
	}
	w.advance(forget)
	w.sweep()
	if len(w.entries) != 0 {
		t.Error("an unused picture stays")
	}
	if w.get() == cat {
		t.Error("a forgotten picture came back")
	}
}

func TestDefaults(t *testing.T) {
	w := newWorld(t, "CREATE SCHEMA mine; CREATE ROLE other_role; GRANT other_role TO weir_app")
	defer w.psql("postgres", "DROP ROLE other_role")
	w.psql("postgres", `ALTER ROLE weir_app IN DATABASE "`+w.db+`" SET search_path = "$user", mine, "Odd, one"`)
	w.psql("postgres", `ALTER DATABASE "`+w.db+`" SET standard_conforming_strings = off`)
	app := w.key
	app.Login = postgres.AppRole
	d, err := w.Defaults(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Defaults{SearchPath: `"$user", mine, "Odd, one"`, Role: postgres.AppRole}); d != want {
		t.Errorf("got %+v, want %+v", d, want)
	}
	d, err = w.Defaults(t.Context(), w.key)
	if want := (Defaults{SearchPath: `"$user", public`, Role: postgres.Superuser}); err != nil || d != want {
		t.Errorf("got %+v, %v, want %+v", d, err, want)
	}
	w.psql("postgres", `ALTER ROLE weir_app IN DATABASE "`+w.db+`" SET role = other_role`)
	again := app
	again.Namespace = 1 // a session of its own
	if d, err = w.Defaults(t.Context(), again); err != nil || d.Role != "other_role" {
		t.Errorf("got %+v, %v", d, err)
	}
	w.psql("postgres", `ALTER ROLE weir_app IN DATABASE "`+w.db+`" RESET ALL`)
}

// wants are the texts that the analysis of a statement asks the picture for.
func (w *world) wants(sql string) int {
	w.t.Helper()
	tree, err := pg.Parse(sql)
	if err != nil {
		w.t.Fatal(err)
	}
	s := sqlmeta.Session{Database: w.db, SearchPath: []string{"public"}, Certain: true, StandardConformingStrings: true}
	return len(sqlmeta.Wants(sqlmeta.Analyze(tree, sql, s, w.get())))
}

// TestLocked: nobody who has locked a table holds up the picture. The texts that need
// the lock come once it is gone.
func TestLocked(t *testing.T) {
	w := newWorld(t, "CREATE TABLE t (id int); CREATE VIEW v AS TABLE t; CREATE TABLE free (id int); CREATE VIEW other AS TABLE free")
	client, err := pgconn.Connect(t.Context(), server.URL(postgres.Superuser, w.db))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	if _, err := client.Exec(t.Context(), "BEGIN; ALTER TABLE t ADD COLUMN x int").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if c := w.get(); c.Relation("public", "t") == nil || c.Relation("public", "v") == nil {
		t.Error("no picture while a table is locked")
	}
	if n, other := w.wants("SELECT id FROM v"), w.wants("SELECT id FROM other"); n != 0 || other != 1 {
		t.Errorf("while a table is locked: %d and %d texts", n, other)
	}
	if _, err := client.Exec(t.Context(), "ROLLBACK").ReadAll(); err != nil {
		t.Fatal(err)
	}
	w.Invalidate(w.key)
	if n := w.wants("SELECT id FROM v"); n != 1 {
		t.Errorf("behind the lock: %d texts", n)
	}
}

// TestHostileSearchPath gives the login a search path full of look-alikes of what
// the queries use; none of them may be called (CVE-2025-12819).
func TestHostileSearchPath(t *testing.T) {
	w := newWorld(t, `CREATE SCHEMA evil; CREATE TABLE evil.called (by text);
		CREATE TABLE evil.pg_class (oid oid, relname name); CREATE TABLE evil.pg_settings (name text, reset_val text);
		INSERT INTO evil.pg_settings VALUES ('search_path', 'evil');
		CREATE FUNCTION evil.trap(name text) RETURNS void LANGUAGE sql AS 'INSERT INTO evil.called VALUES (name)';
		CREATE FUNCTION evil.concat_ws(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM evil.trap(''concat_ws''); RETURN ''1''; END';
		CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM evil.trap(''current_setting''); RETURN ''evil''; END';
		CREATE FUNCTION evil.count() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN PERFORM evil.trap(''count''); RETURN 1; END';
		CREATE FUNCTION evil.nameeqtext(name, text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM evil.trap(''=''); RETURN true; END';
		CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.nameeqtext);
		CREATE OPERATOR evil.!~ (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.nameeqtext);
		CREATE FUNCTION evil.nameeq(name, name) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM evil.trap(''=''); RETURN true; END';
		CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.nameeq);
		CREATE FUNCTION evil.oideq(oid, oid) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM evil.trap(''oid =''); RETURN true; END';
		CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.oideq);
		CREATE OPERATOR evil.<> (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.oideq);
		CREATE OPERATOR evil.>= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.oideq);
		CREATE DOMAIN evil.text AS pg_catalog.text; CREATE DOMAIN evil.int8 AS pg_catalog.int8; CREATE DOMAIN evil.oid AS pg_catalog.oid;`)
	w.psql("postgres", `ALTER ROLE postgres IN DATABASE "`+w.db+`" SET search_path = evil, pg_catalog`)
	if got := w.psql(w.db, "BEGIN; SELECT concat_ws(',', 'a') FROM pg_namespace WHERE nspname = 'x' AND oid <> 0; SELECT pg_catalog.string_agg(DISTINCT by, ' ') FROM evil.called; ROLLBACK"); !strings.Contains(got, "concat_ws") || !strings.Contains(got, "=") {
		t.Fatalf("the trap does not work: %q", got)
	}
	c := w.get()
	if c.Relation("evil", "pg_class") == nil || c.Relation("pg_catalog", "pg_class") == nil {
		t.Error("the picture is wrong")
	}
	d, err := w.Defaults(t.Context(), w.key)
	if err != nil || d.SearchPath != "evil, pg_catalog" {
		t.Errorf("%+v, %v", d, err)
	}
	if got := w.psql(w.db, "SELECT string_agg(by, ', ') FROM evil.called"); got != "" {
		t.Errorf("called: %s", got)
	}
}

// TestLargeDatabase loads 50,000 columns and looks at what the picture costs.
func TestLargeDatabase(t *testing.T) {
	w := newWorld(t, "")
	var ddl bytes.Buffer
	for i := range 500 {
		fmt.Fprintf(&ddl, "CREATE TABLE t%d (id int", i)
		for j := range 99 {
			fmt.Fprintf(&ddl, ", column_%d text", j)
		}
		fmt.Fprintf(&ddl, "); CREATE VIEW v%d AS SELECT id, column_1 FROM t%d;\n", i, i)
	}
	conn, err := pgconn.Connect(t.Context(), server.URL(postgres.Superuser, w.db))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), ddl.String()).ReadAll(); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	c := w.get()
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	n := 0
	for _, r := range c.Relations {
		n += len(r.Columns)
	}
	kept := after.HeapAlloc - before.HeapAlloc
	t.Logf("%d relations, %d columns: %v, %d KiB kept", len(c.Relations), n, took.Round(time.Millisecond), kept>>10)
	if n < 50000 || kept > 32<<20 {
		t.Errorf("%d columns, %d bytes kept", n, kept)
	}
	if got := bases(c, "public", "v499"); !slices.Equal(got, []string{"t499.column_1", "t499.id"}) {
		t.Errorf("v499 reads %v", got)
	}
}

func BenchmarkGet(b *testing.B) {
	c := New(Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Connect: func(ctx context.Context, k Key) (*Conn, error) {
		return pgconn.Connect(ctx, server.URL(postgres.Superuser, postgres.ShopDatabase))
	}})
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(b.Context(), Key{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProbeAndLoad(b *testing.B) {
	conn, err := pgconn.Connect(b.Context(), server.URL(postgres.Superuser, postgres.ShopDatabase))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(b.Context())
	b.Run("probe", func(b *testing.B) {
		for b.Loop() {
			if _, err := probe(b.Context(), conn); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := load(b.Context(), conn, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
