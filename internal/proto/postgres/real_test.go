package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/catalog"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/internal/sqlparse"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// The tests of this file run with the real analyser, the real catalogue and a real
// policy on the shop.

const shopPolicy = `
policies:
  - name: orders
    backends: ["*"]
    rules:
      - {name: developers read the shop, actions: [connect, select, copy_out, explain], resources: ["shop.*"], effect: allow}
      - {name: they write orders, actions: [insert, update, delete, copy_in], resources: ["shop.orders"], effect: allow}
      - {name: settings, actions: [set], resources: ["setting:*"], effect: allow}
    masks:
      - name: cards
        columns: ["shop.payments.card_number"]
        detect: [payment_card]
        with: last4
`

var (
	poolOnce sync.Once
	pool     *sqlparse.Pool
	poolErr  error
)

// newRealWorld is a world with the real analyser, catalogue and policy.
func newRealWorld(t testing.TB) *world {
	t.Helper()
	url := strings.Replace(startBackend(t), "/postgres?", "/shop?", 1)
	poolOnce.Do(func() { pool, poolErr = sqlparse.New(sqlparse.Config{Size: 2, Log: quiet()}) })
	if poolErr != nil {
		t.Fatal(poolErr)
	}
	set, err := policy.Compile([]policy.File{{Name: "policy.yaml", Data: []byte(shopPolicy)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cache := catalog.New(catalog.Config{Log: quiet(), Connect: func(ctx context.Context, k catalog.Key) (*pgconn.PgConn, error) {
		c, err := pgconn.ParseConfig(url)
		if err != nil {
			return nil, err
		}
		c.Database, c.RuntimeParams["application_name"] = k.Database, "weir:catalogue"
		return pgconn.ConnectConfig(ctx, c)
	}})
	t.Cleanup(cache.Close)
	key := func(g session.Grant) catalog.Key {
		f := g.Flow()
		return catalog.Key{Backend: f.Backend, Address: "a", Database: f.Database, Login: f.Login}
	}
	analyzer := &sqlparse.Analyzer{Pool: pool, Cache: sqlparse.NewCache(0)}
	w := newWorld(t, url, func(c *Config) {
		c.Analyze = analyzer.Analyze
		c.Catalog = func(ctx context.Context, g session.Grant) (*sqlmeta.Catalog, error) { return cache.Get(ctx, key(g)) }
		c.Invalidate = func(g session.Grant) { cache.Invalidate(key(g)) }
		c.Defaults = func(ctx context.Context, g session.Grant) (Defaults, error) {
			d, err := cache.Defaults(ctx, key(g))
			return Defaults{d.SearchPath, d.Role}, err
		}
	})
	w.set(func() {
		w.decide = set.Decide
		w.masks = set.Masks(w.who, "orders")
	})
	return w
}

// connect opens a pgx connection to the shop through w.
func (w *world) connect(t testing.TB, options string) *pgx.Conn {
	t.Helper()
	host, port := w.addr()
	c, err := pgx.Connect(context.Background(), fmt.Sprintf("postgres://x@%s:%s/shop?sslmode=disable&%s", host, port, options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// rowsOf runs a query and returns all values as text, or the error's SQLSTATE.
func rowsOf(t testing.TB, c *pgx.Conn, mode pgx.QueryExecMode, sql string, args ...any) string {
	t.Helper()
	rows, err := c.Query(context.Background(), sql, append([]any{mode}, args...)...)
	var out []string
	if err == nil {
		for rows.Next() {
			values, err := rows.Values()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprint(values...))
		}
		err = rows.Err()
	}
	if err != nil {
		var pg *pgconn.PgError
		if asPg(err, &pg) {
			return pg.Code + " " + pg.Message + "~" + pg.Detail + "~" + pg.Where
		}
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(out, ";")
}

func asPg(err error, pg **pgconn.PgError) bool {
	for ; err != nil; err = unwrap(err) {
		if p, ok := err.(*pgconn.PgError); ok {
			*pg = p
			return true
		}
	}
	return false
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

const aCard = "4111 1111 1111 1111"

// TestRealMasks: no way to the card numbers by a statement that policy allows.
func TestRealMasks(t *testing.T) {
	w := newRealWorld(t)
	c := w.connect(t, "")
	ctx := context.Background()
	tests := []struct{ sql, want string }{
		{"select card_number from shop.payments where id = 1", "**** **** **** 1111"},
		{"select * from shop.payments where id = 1", "*"},
		{"select p from shop.payments p where id = 1", "<nil>"},
		{"select upper(card_number) from shop.payments where id = 1", "[masked]"},
		{"select reverse(card_number) from shop.payments where id = 1", "[masked]"},
		{"select substr(c, 1, 6) from shop.payments as p(a, b, c, d, e) where a = 1", "[masked]"},
		{"select row_to_json(p) from shop.payments p where id = 1", "masked"},
		{"select array_agg(card_number) from shop.payments where id = 1", "<nil>"},
		{"with x as (select card_number as y from shop.payments where id = 1) select y || '' from x", "[masked]"},
		{"select card_number from shop.payments where id = 1 union all select card_number from shop.payments where id = 1", "**** **** **** 1111"},
		{"table shop.payments limit 1", "*"},
		{"select max(encode(sha256(card_number::bytea), 'hex')) from shop.payments", "a calculation that can fail"},
		{"select (select card_number from shop.payments where id = 1)", "**** **** **** 1111"},
		{"select note from shop.payments where id = 4", "paid with card ****-****-****-1117"},
		{"select count(*) from shop.payments", "10"},
		{"select id, amount from shop.payments where id = 1", "1"},
		{"select ascii(substr(card_number, 1, 1)) from shop.payments where id = 1", "<nil>"},
	}
	for _, test := range tests {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
			got := rowsOf(t, c, mode, test.sql)
			if leaks(got) {
				t.Errorf("mode %v: %s gave %q", mode, test.sql, got)
			}
			if test.want != "paid with card ****-****-****-1117" && !strings.Contains(got, test.want) {
				t.Errorf("mode %v: %s gave %q, want %q in it", mode, test.sql, got, test.want)
			}
		}
	}
	// COPY in its formats.
	for _, sql := range []string{"copy shop.payments to stdout", "copy shop.payments (card_number) to stdout csv header", "copy shop.payments to stdout (format binary)",
		"copy (select card_number from shop.payments) to stdout", "copy (select reverse(card_number) r, id from shop.payments) to stdout csv"} {
		var b strings.Builder
		if _, err := c.PgConn().CopyTo(ctx, &b, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		} else if leaks(b.String()) || b.Len() < 50 {
			t.Errorf("%s gave %.300q", sql, b.String())
		}
	}
	// Errors and cursors.
	for _, sql := range []string{"select card_number::int from shop.payments", "select 1/(length(card_number)-19) from shop.payments"} {
		if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, sql); leaks(got) || !strings.HasPrefix(got, "42501 weir: mask \"cards\"") {
			t.Errorf("%s gave %q", sql, got)
		}
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"declare cu cursor for select card_number from shop.payments", "fetch 3 from cu"} {
		if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, sql); leaks(got) || strings.HasPrefix(got, "42") {
			t.Errorf("%s gave %q", sql, got)
		}
	}
	_ = tx.Rollback(ctx)
	found := false
	for _, e := range w.snapshot() {
		for _, m := range e.Masks {
			found = found || m.Column == "shop.payments.card_number" && m.Method == "last4" && m.Source == "origin" && m.Count > 0
		}
	}
	if !found {
		t.Error("no mask of the card number was recorded")
	}
}

// leaks reports whether any part of a card number beyond its last four digits shows.
func leaks(s string) bool {
	for _, part := range []string{"4111 1", "41111", "5555 5", "55555", "37828", "1111 1111", "6011-", "40128", "51051", "35301", "30569", "1114", "1111 1114"} {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// TestRealStatements: what contract section 3 promises to a rule with connect and
// select, and what it does not.
func TestRealStatements(t *testing.T) {
	w := newRealWorld(t)
	c := w.connect(t, "")
	tests := []struct{ sql, want string }{
		{"select 1", "1"},
		{"show server_version_num", "15"},
		{"begin", ""}, {"commit", ""},
		{"drop table shop.orders", "42501 weir: "},
		{"truncate shop.orders", "42501 weir: "},
		{"select pg_read_file('/etc/passwd')", "42501 weir: "},
		{"select rolpassword from pg_authid", "42501 weir: "},
		{"do $$begin end$$", "42501 weir: "},
		{"selec 1", "42601 weir: "},
		{"update shop.orders set total = 1 where id = -1 returning item", ""},
		{"update shop.customers set name = 'x'", "42501 weir: "},
		{"with d as (delete from shop.customers returning *) select * from d", "42501 weir: "},
		{"set search_path = shop", ""},
		{"select count(*) > 0 from orders", "true"},
		{"set search_path = public; drop table shop.orders", "42501 weir: "},
		{"explain select * from shop.orders", "Seq Scan"},
	}
	for _, test := range tests {
		if got := rowsOf(t, c, pgx.QueryExecModeSimpleProtocol, test.sql); !strings.Contains(got, test.want) {
			t.Errorf("%s gave %q, want %q in it", test.sql, got, test.want)
		}
	}
	host, port := w.addr()
	out := w.script(t, "psql", "-X", "-h", host, "-p", port, "-d", "shop", "-v", "ON_ERROR_STOP=1",
		"-c", `\d shop.payments`, "-c", `\dt shop.*`, "-c", `\l`, "-c", `\du`, "-c", `\df shop.*`, "-c", `\conninfo`)
	if !strings.Contains(out, "card_number") || strings.Contains(out, "masked") {
		t.Errorf("psql said %s", out)
	}
	file := filepath.Join(t.TempDir(), "o.tsv")
	w.script(t, "psql", "-X", "-h", host, "-p", port, "-d", "shop", "-v", "ON_ERROR_STOP=1", "-c", `\copy shop.payments to '`+file+`'`)
	if b, err := os.ReadFile(file); err != nil || leaks(string(b)) || len(b) == 0 {
		t.Errorf("%v %q", err, b)
	}
}

// TestRealMaskReload: the next statement goes by the new policy.
func TestRealMaskReload(t *testing.T) {
	w := newRealWorld(t)
	c := w.connect(t, "")
	const sql = "select card_number from shop.payments where id = 1"
	masks := w.masks
	if got := rowsOf(t, c, pgx.QueryExecModeCacheStatement, sql); got != "**** **** **** 1111" {
		t.Errorf("%q", got)
	}
	w.setMasks()
	if got := rowsOf(t, c, pgx.QueryExecModeCacheStatement, sql); got != aCard {
		t.Errorf("%q", got)
	}
	w.setMasks(masks...)
	if got := rowsOf(t, c, pgx.QueryExecModeCacheStatement, sql); got != "**** **** **** 1111" {
		t.Errorf("%q", got)
	}
}

// TestRealPgbench compares the server's log with ours under the real analyser.
func TestRealPgbench(t *testing.T) {
	startBackend(t)
	initPgbench(t)
	for _, mode := range []string{"simple", "extended", "prepared"} {
		w := newRealWorld(t)
		w.set(func() { w.decide = allowAll })
		start := time.Now()
		w.script(t, "pgbench", "-n", "-M", mode, "-c", "8", "-j", "2", "-t", "20")
		t.Logf("%s: %v", mode, time.Since(start))
		w.compareLogs(t, 8*20*7)
		for _, e := range w.snapshot() {
			if e.Action != nil && e.Action.Phase == auditlog.PhaseIntent && len(e.Action.Verbs) > 0 && e.Action.Verbs[0] == "unknown" {
				t.Errorf("unknown: %s", e.Action.Text)
			}
		}
	}
}
