package bypass

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// denied are statements that a developer's rule does not allow, in forms that
// disguise it. None may reach the server.
var denied = []string{
	`DELETE FROM shop.orders`, `TRUNCATE shop.orders`, `DROP TABLE shop.orders`, `UPDATE shop.orders SET item = ''`,
	`INSERT INTO shop.orders SELECT * FROM shop.orders`, `MERGE INTO shop.orders o USING shop.payments p ON o.id = p.id WHEN MATCHED THEN DELETE`,
	`WITH d AS (DELETE FROM shop.orders RETURNING *) SELECT * FROM d`,
	`SELECT (WITH d AS (SELECT 1) SELECT 1 FROM d), 1; DROP TABLE shop.orders`,
	`EXPLAIN ANALYZE DELETE FROM shop.orders`, `EXPLAIN (ANALYZE true) DELETE FROM shop.orders`, `EXPLAIN (ANALYZE off, ANALYZE on) DELETE FROM shop.orders`,
	`PREPARE z AS DELETE FROM shop.orders`, `EXECUTE z`, `COPY (DELETE FROM shop.orders RETURNING *) TO STDOUT`,
	`COPY shop.orders FROM STDIN`, `COPY shop.orders TO '/tmp/x'`, `COPY shop.orders TO PROGRAM 'cat'`, `COPY shop.orders FROM '/etc/passwd'`,
	`CREATE TABLE shop.x AS SELECT 1`, `SELECT 1 INTO shop.x`, `CREATE TEMP TABLE x ()`, `CREATE VIEW shop.x AS SELECT 1`, `CREATE TABLE x ()`,
	`ALTER TABLE shop.payments RENAME card_number TO c`, `ALTER ROLE weir_app SET search_path = x`, `COMMENT ON TABLE shop.orders IS 'x'`,
	`GRANT ALL ON shop.orders TO PUBLIC`, `ALTER TABLE shop.orders OWNER TO postgres`, `REASSIGN OWNED BY weir_app TO postgres`,
	`SELECT * FROM shop.orders FOR UPDATE`, `LOCK TABLE shop.orders`, `VACUUM`, `ANALYZE shop.orders`, `CHECKPOINT`, `REINDEX TABLE shop.orders`, `CLUSTER`,
	`SET ROLE postgres`, `SET SESSION AUTHORIZATION postgres`, `SET search_path = shop`, `SET session_replication_role = replica`, `SET log_statement = none`,
	`SELECT set_config('search_path', 'shop', false)`, `SELECT set_config('ro' || 'le', 'postgres', false)`, `SELECT set_config('log_statement', 'none', false)`,
	`SET client_encoding = 'SJIS'`, `SET NAMES 'BIG5'`, `SELECT set_config('client_encoding', 'SJ' || 'IS', false)`,
	`LISTEN a`, `NOTIFY a`, `SELECT pg_notify('a', 'b')`, `DO 'begin end'`, `CALL shop.x()`, `LOAD 'x'`,
	`SELECT shop.customer_total(1)`, `SELECT customer_total FROM (SELECT 1) x(a), shop.customer_total(1)`,
	`SELECT pg_terminate_backend(1)`, `SELECT pg_reload_conf()`, `SELECT lo_import('/etc/passwd')`, `SELECT lo_get(1)`, `SELECT nextval('x')`, `SELECT setval('x', 1)`,
	`SELECT pg_read_file('x')`, `SELECT pg_catalog.pg_read_file('x')`, `SELECT "pg_read_file"('x')`, `SELECT * FROM pg_read_file('x')`,
	`SELECT ('/etc/passwd'::text).pg_read_file`, `SELECT x.pg_read_file FROM (SELECT '/etc/passwd'::text) x`, `SELECT pg_ls_dir('.')`,
	`SELECT query_to_xml('DELETE FROM shop.orders', true, true, '')`, `SELECT ts_stat('SELECT 1')`, `SELECT pg_stat_reset()`, `SELECT pg_advisory_lock(1)`,
	`SELECT * FROM pg_authid`, `SELECT * FROM pg_shadow`, `SELECT * FROM pg_user_mappings`, `SELECT * FROM pg_largeobject`, `SELECT * FROM pg_stats`,
	`SELECT * FROM pg_stat_activity`, `SELECT * FROM pg_file_settings`, `SELECT * FROM pg_hba_file_rules`, `SELECT * FROM information_schema.user_mapping_options`,
	`SHOW ALL`, `SHOW data_directory`, `SELECT current_setting('data_dir' || 'ectory')`,
	`BEGIN; PREPARE TRANSACTION 'x'`, `COMMIT PREPARED 'x'`, `SELECT 1 OPERATOR(shop.+) 1`, `IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c`, `CREATE EXTENSION dblink`,
}

// TestDeniedStaysAway: a denied statement is refused in both protocols, recorded,
// and the server's own log does not have it.
func TestDeniedStaysAway(t *testing.T) {
	c := connect(t, "ann")
	for i, sql := range denied {
		for form, do := range map[string]func(string) []message{"s": c.query, "x": func(s string) []message { return c.extended(s) }} {
			mark := fmt.Sprintf("/*denied-%d%s*/", i, form)
			got := do(mark + " " + sql)
			if f := failure(got); !strings.Contains(f, "weir:") {
				t.Errorf("%s (%s): %q", sql, form, f)
			}
			if status(got) != 'I' {
				t.Errorf("%s (%s): status %q", sql, form, status(got))
			}
		}
	}
	if log := serverLog(t); strings.Contains(log, "/*denied-") {
		i := strings.Index(log, "/*denied-")
		t.Errorf("the server saw %.200s", log[i:])
	}
	events, err := w.Node.Events(t.Context(), "--text", "/*denied-", "--verdict", "deny")
	if err != nil {
		t.Fatal(err)
	}
	if len(events) < 2*len(denied) {
		t.Errorf("%d denials are recorded, want %d", len(events), 2*len(denied))
	}
}

func serverLog(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(w.DB.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLogsAgree: what the server ran is what was recorded as allowed, statement by
// statement, through pipelines with refusals and errors in their midst.
func TestLogsAgree(t *testing.T) {
	c := connect(t, "ann")
	n := 0
	mark := func(sql string) string { n++; return fmt.Sprintf("%s /*agree-%d*/", sql, n) }
	for range 20 {
		c.send(all(run(mark("SELECT 1")), run(mark("DELETE FROM shop.orders")), run(mark("SELECT 2")), end,
			run(mark("SELECT 3")), run(mark("SELECT 1/0")), run(mark("SELECT 4")), end,
			query(mark("SELECT 5")), query(mark("TRUNCATE shop.orders")), query(mark("SELECT 6")))...)
		for range 5 {
			c.until('Z')
		}
	}
	server := map[string]bool{}
	for line := range strings.Lines(serverLog(t)) {
		if _, rest, ok := strings.Cut(line, "/*agree-"); ok && (strings.Contains(line, "LOG:  statement:") || strings.Contains(line, "LOG:  execute ")) {
			number, _, _ := strings.Cut(rest, "*/")
			server[number] = true
		}
	}
	events, err := w.Node.Events(t.Context(), "--text", "/*agree-")
	if err != nil {
		t.Fatal(err)
	}
	allowed, refused := map[string]bool{}, map[string]bool{}
	for _, e := range events {
		action, _ := e["action"].(map[string]any)
		text, _ := action["text"].(string)
		_, rest, _ := strings.Cut(text, "/*agree-")
		number, _, _ := strings.Cut(rest, "*/")
		switch e["verdict"] {
		case "allow":
			allowed[number] = true
		case "deny":
			refused[number] = true
		}
	}
	for number := range server {
		if !allowed[number] || refused[number] {
			t.Errorf("the server ran statement %s, which is not recorded as allowed", number)
		}
	}
	if len(server) != 20*4 { // 1, 3, 5 and 6; the rest is refused, skipped, or fails before it runs
		t.Errorf("the server ran %d statements, want %d", len(server), 20*4)
	}
}
