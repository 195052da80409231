package bypass

import (
	"strings"
	"testing"
)

// letters writes the digits of a value as letters, as quotation marks and numbers
// alone do not hide it.
const letters = `translate(card_number, '0123456789 -', 'abcdefghij')`

// selects are statements that a developer's rule allows or that weir refuses; none
// may bring a masked value out, in any of the forms that leaks knows.
var selects = []string{
	// Values by themselves.
	`SELECT card_number FROM shop.payments`,
	`SELECT * FROM shop.payments`,
	`TABLE shop.payments`,
	`SELECT card_number::varchar FROM shop.payments`,
	`SELECT replace(replace(card_number, ' ', ''), '-', '')::bigint FROM shop.payments WHERE id IN (3, 5, 10)`,
	`SELECT card_number::bytea FROM shop.payments`,
	`SELECT encode(card_number::bytea, 'hex'), encode(card_number::bytea, 'base64') FROM shop.payments`,
	`SELECT reverse(card_number) FROM shop.payments`,
	`SELECT ` + letters + ` FROM shop.payments`,
	`SELECT substr(card_number, 1, 8), right(card_number, 8), left(card_number, -4) FROM shop.payments`,
	`SELECT ascii(substr(card_number, n, 1)) FROM shop.payments, generate_series(1, 8) n`,
	`SELECT regexp_split_to_table(card_number, '') FROM shop.payments`,
	`SELECT unnest(string_to_array(card_number, NULL)) FROM shop.payments`,
	`SELECT md5(card_number), sha256(card_number::bytea), hashtext(card_number) FROM shop.payments`,
	`SELECT to_tsvector('simple', card_number), card_number::xml, to_json(card_number), to_jsonb(card_number) FROM shop.payments`,
	`SELECT format('%s %L %I', card_number, card_number, card_number) FROM shop.payments`,
	`SELECT CASE WHEN true THEN card_number ELSE '' END, coalesce(card_number, ''), nullif(card_number, ''), greatest(card_number, '') FROM shop.payments`,
	`SELECT (SELECT card_number FROM shop.payments p WHERE p.id = o.id) FROM shop.orders o`,
	`SELECT iban, iban::text, lower(iban), iban || '' FROM shop.customers`,
	`SELECT point(substr(card_number, 1, 7)::float8, substr(card_number, 8, 7)::float8) FROM shop.payments WHERE id IN (3, 5, 10)`,
	`SELECT '2000-01-01'::date + substr(card_number, 1, 6)::int FROM shop.payments WHERE id IN (3, 5, 10)`,
	// Rows.
	`SELECT p FROM shop.payments p`,
	`SELECT payments FROM shop.payments`,
	`SELECT p::text FROM shop.payments p`,
	`SELECT (p).card_number || '' FROM shop.payments p`,
	`SELECT (p.*)::text FROM shop.payments p`,
	`SELECT shop.payments.*::text FROM shop.payments`,
	`SELECT card_number(p) FROM shop.payments p`,
	`SELECT ROW(card_number, 1), ARRAY[card_number], ARRAY[ROW(card_number)] FROM shop.payments`,
	`SELECT row_to_json(p), to_jsonb(p) FROM shop.payments p`,
	`SELECT to_jsonb(p) - 'id' - 'amount' FROM shop.payments p`,
	`SELECT to_jsonb(p) ->> 'card_number' FROM shop.payments p`,
	`SELECT value FROM shop.payments p, jsonb_each_text(to_jsonb(p))`,
	`SELECT j->>(chr(99) || 'ard_number') FROM (SELECT to_jsonb(x) j FROM (SELECT * FROM shop.payments) x) y`,
	`SELECT (jsonb_populate_record(NULL::shop.payments, to_jsonb(p))).* FROM shop.payments p`,
	`SELECT r.c FROM shop.payments p, jsonb_to_record(to_jsonb(p)) AS r(card_number text), LATERAL (SELECT r.card_number || '' AS c) q(c)`,
	`SELECT hash_record(p) FROM shop.payments p`,
	`SELECT xmlforest(card_number), xmlelement(name a, card_number), xmlconcat(card_number::xml) FROM shop.payments WHERE id = 3`,
	`SELECT x.c FROM shop.payments p, XMLTABLE('/a' PASSING xmlelement(name a, p.card_number) COLUMNS c text PATH '.') x`,
	`SELECT x.* FROM shop.payments p, XMLTABLE('/a' PASSING ('<a>' || (p::text) || '</a>')::xml COLUMNS c text PATH '.') x`,
	// Renamed on the way.
	`SELECT q.a FROM shop.payments AS q(i, c, a, d, e)`,
	`SELECT q.a || '' FROM shop.payments AS q(i, c, a, d, e)`,
	`SELECT b.a || '' FROM (shop.payments NATURAL JOIN (SELECT 1 AS id) z) AS b(i, c, a, d, e)`,
	`SELECT z.a || '' FROM (SELECT * FROM shop.payments) AS z(i, c, a, d, e)`,
	`WITH z(i, c, a, d, e) AS (TABLE shop.payments) SELECT a || '' FROM z`,
	`WITH RECURSIVE z(i, a) AS (SELECT id, card_number FROM shop.payments UNION ALL SELECT i + 100, a FROM z WHERE i < 50) SELECT a || 'x' FROM z`,
	`SELECT z.a || '' FROM (VALUES ((SELECT card_number FROM shop.payments WHERE id = 3))) z(a)`,
	`SELECT note FROM (SELECT card_number AS note FROM shop.payments UNION ALL SELECT '' ) z`,
	`SELECT note FROM shop.payments UNION SELECT card_number FROM shop.payments`,
	`SELECT note FROM shop.payments EXCEPT SELECT 'x' UNION TABLE (SELECT card_number FROM shop.payments) LIMIT 100`,
	`(SELECT note FROM shop.payments WHERE false) UNION ALL (SELECT card_number FROM shop.payments ORDER BY 1)`,
	`SELECT o.item FROM (SELECT id, item FROM shop.orders WHERE id = 0 UNION ALL SELECT id, card_number FROM shop.payments) o`,
	`SELECT x FROM shop.payments p CROSS JOIN LATERAL (SELECT p.card_number) y(x)`,
	`SELECT x || '' FROM shop.payments p CROSS JOIN LATERAL (SELECT p.*) y(a, b, x, c, d)`,
	`SELECT f.c || '' FROM shop.payments p, ROWS FROM (unnest(ARRAY[p.card_number]), generate_series(1, 1)) AS f(c, n)`,
	`SELECT pg_typeof(p), (SELECT j.card_number FROM (SELECT (p).*) j) || '' FROM shop.payments p`,
	// Aggregates and windows.
	`SELECT max(card_number), min(card_number), string_agg(card_number, ','), array_agg(card_number) FROM shop.payments`,
	`SELECT json_agg(p), jsonb_object_agg(id, p), xmlagg(p::text::xml) FROM shop.payments p WHERE id = 3`,
	`SELECT mode() WITHIN GROUP (ORDER BY card_number), percentile_disc(0.5) WITHIN GROUP (ORDER BY card_number) FROM shop.payments`,
	`SELECT lag(card_number) OVER w, first_value(card_number) OVER w, nth_value(card_number, 2) OVER w FROM shop.payments WINDOW w AS (ORDER BY id)`,
	`SELECT card_number, count(*) FROM shop.payments GROUP BY GROUPING SETS ((card_number), (card_number, id))`,
	`SELECT DISTINCT ON (card_number) card_number || '' FROM shop.payments`,
	`SELECT bit_and(substr(card_number, 1, 8)::int), sum(substr(card_number, 1, 8)::int) FROM shop.payments WHERE id = 3`,
	// Views.
	`SELECT * FROM shop.customer_payments`,
	`SELECT card_number || '' FROM shop.customer_payments`,
	`SELECT * FROM shop.rows`,
	`SELECT j FROM shop.rows`,
	`SELECT k FROM shop.rows_again`,
	`SELECT upper(k) FROM shop.rows_again`,
	`SELECT note FROM shop.renamed`,
	`SELECT note || '' FROM shop.renamed`,
	// What the server knows besides.
	`SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = 'payments'`,
	`SELECT stavalues1 FROM pg_statistic`,
	`SELECT * FROM pg_catalog.pg_stats_ext`,
	`SELECT query FROM pg_stat_activity`,
	`SELECT pg_stat_get_activity(NULL)`,
	`SELECT pg_read_file('base/1/1259'), pg_ls_dir('.')`,
	`SELECT query_to_xml('SELECT card_number FROM shop.payments', true, true, '')`,
	`SELECT table_to_xml('shop.payments', true, true, '')`,
	`SELECT database_to_xml(true, true, '')`,
	`SELECT ('SELECT card_number::text FROM shop.payments WHERE id=3', '').query_to_xml`,
	`SELECT word FROM ts_stat('SELECT to_tsvector(card_number) FROM shop.payments')`,
	`SELECT lo_get(lo_from_bytea(0, card_number::bytea)) FROM shop.payments`,
	`SELECT pg_get_viewdef('shop.renamed'), pg_get_expr(adbin, adrelid) FROM pg_attrdef`,
	`SELECT attmissingval FROM pg_attribute`,
	`SELECT pg_notify('a', card_number) FROM shop.payments`,
	`SELECT pg_advisory_lock(substr(card_number, 1, 8)::int) FROM shop.payments WHERE id = 3`,
	`SELECT nextval(card_number::regclass) FROM shop.payments`,
	`SELECT pg_logical_emit_message(false, 'a', card_number) FROM shop.payments`,
	`SELECT pg_export_snapshot(), pg_create_restore_point(card_number) FROM shop.payments`,
	`EXPLAIN (VERBOSE) SELECT card_number FROM shop.payments WHERE card_number > ''`,
	`EXPLAIN (ANALYZE, VERBOSE) SELECT card_number || '' FROM shop.payments ORDER BY card_number`,
	// Errors and notices.
	`SELECT card_number::date FROM shop.payments WHERE id = 3`,
	`SELECT card_number::int FROM shop.payments WHERE id = 3`,
	`SELECT card_number::regclass FROM shop.payments WHERE id = 3`,
	`SELECT card_number::json -> 'a' FROM shop.customers, (SELECT '{' || iban AS card_number FROM shop.customers WHERE id = 4) z`,
	`SELECT ('[' || iban)::json FROM shop.customers WHERE id = 4`,
	`SELECT chr(substr(card_number, 1, 8)::int) FROM shop.payments WHERE id = 3`,
	`SELECT make_date(substr(card_number, 1, 6)::int, 77, 77) FROM shop.payments WHERE id = 3`,
	`SELECT setseed(substr(card_number, 1, 8)::float8) FROM shop.payments WHERE id = 3`,
	`SELECT unistr('\+' || substr(card_number, 1, 6)) FROM shop.payments WHERE id = 3`,
	`SELECT get_byte('', substr(card_number, 1, 8)::int) FROM shop.payments WHERE id = 3`,
	`SELECT card_number::regtype FROM shop.payments WHERE id = 3`,
	`SELECT to_timestamp(card_number, 'YYYY') FROM shop.payments WHERE id = 3`,
	`SELECT 'a' ~ ('(' || card_number) FROM shop.payments WHERE id = 3`,
	`SELECT (card_number || '(')::regprocedure FROM shop.payments WHERE id = 3`,
	`SELECT 1 FROM shop.payments WHERE card_number::inet IS NULL`,
	`SELECT ('<' || card_number)::xml FROM shop.payments WHERE id = 3`,
	`SELECT ('<' || iban || '/')::xml FROM shop.customers WHERE id = 4`,
	`SELECT xpath('/' || card_number || '[', '<a/>') FROM shop.payments WHERE id = 3`,
	`SELECT has_table_privilege(card_number, 'SELECT') FROM shop.payments WHERE id = 3`,
	`SELECT convert_from(card_number::bytea, card_number) FROM shop.payments WHERE id = 3`,
	`SELECT current_setting(card_number) FROM shop.payments WHERE id = 3`,
	`SELECT set_config(card_number, '', false) FROM shop.payments WHERE id = 3`,
	`SELECT set_config('datestyle', card_number, false) FROM shop.payments WHERE id = 3`,
	`SELECT ('"' || card_number || '"')::regoper FROM shop.payments WHERE id = 3`,
	`SELECT pg_get_object_address('cast', ARRAY['int4'], ARRAY['xml']), ` + letters + ` FROM shop.payments WHERE id = 3`,
	`SELECT pg_get_object_address('table', ARRAY[` + letters + `], '{}') FROM shop.payments WHERE id = 3`,
	`SELECT (` + letters + ` || '.b.c')::regclass FROM shop.payments WHERE id = 3`,
	`SELECT pg_size_bytes('1 ' || ` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT date_trunc(` + letters + `, now()) FROM shop.payments WHERE id = 3`,
	`SELECT extract(epoch FROM now() AT TIME ZONE ` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT ts_lexize(` + letters + `, 'a') FROM shop.payments WHERE id = 3`,
	`SELECT (` + letters + ` || ' & (')::tsquery FROM shop.payments WHERE id = 3`,
	`SELECT plainto_tsquery(` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT encode('', ` + letters + `), decode('', ` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT ('$.' || ` + letters + ` || ' +')::jsonpath FROM shop.payments WHERE id = 3`,
	`SELECT jsonb_path_query('{}', ('strict $.' || ` + letters + `)::jsonpath) FROM shop.payments WHERE id = 3`,
	`SELECT jsonb_set('{"a":[]}', ARRAY['a', ` + letters + `], '1') FROM shop.payments WHERE id = 3`,
	`SELECT jsonb_insert('{"a":1}', ARRAY['a', ` + letters + `], '1') FROM shop.payments WHERE id = 3`,
	`SELECT parse_ident('1' || ` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT makeaclitem(10, 10, ` + letters + `, false) FROM shop.payments WHERE id = 3`,
	`SELECT (` + letters + ` || '=x/y')::aclitem FROM shop.payments WHERE id = 3`,
	`SELECT (` + letters + `)::bit(8), ('{' || ` + letters + `)::int[] FROM shop.payments WHERE id = 3`,
	`SELECT json_object(ARRAY[` + letters + `]), json_populate_record(NULL::shop.orders, ('{"id":"' || ` + letters + ` || '"}')::json) FROM shop.payments WHERE id = 3`,
	`SELECT to_number(` + letters + `, ` + letters + `), to_char(1, ` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT to_date('x', '"` + `' || ` + letters + ` || '"YYYYY-Q') FROM shop.payments WHERE id = 3`,
	`SELECT has_column_privilege('shop.payments', ` + letters + `, 'select') FROM shop.payments WHERE id = 3`,
	`SELECT col_description('shop.payments'::regclass, substr(card_number, 1, 8)::int), lo_get(substr(card_number, 1, 8)::oid) FROM shop.payments WHERE id = 3`,
	`SELECT format('%' || ` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT regexp_replace('a', 'a', 'b', ` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT convert('a', ` + letters + `, 'utf8') FROM shop.payments WHERE id = 3`,
	`SELECT setseed(0), pg_sequence_parameters(substr(card_number, 1, 8)::oid) FROM shop.payments WHERE id = 3`,
	`SELECT pg_get_serial_sequence(` + letters + `, 'x') FROM shop.payments WHERE id = 3`,
	`SELECT pg_get_serial_sequence('shop.payments', ` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT pg_relation_size('shop.payments', ` + letters + `) FROM shop.payments WHERE id = 3`,
	`SELECT pg_get_userbyid(substr(card_number, 1, 8)::oid), format_type(substr(card_number, 1, 8)::oid, 0) FROM shop.payments WHERE id = 3`,
	`SELECT pg_describe_object(1259, substr(card_number, 1, 8)::oid, 0) FROM shop.payments WHERE id = 3`,
	`SELECT pg_tablespace_size(` + letters + `::name) FROM shop.payments WHERE id = 3`,
	`SELECT pg_database_size(` + letters + `::name) FROM shop.payments WHERE id = 3`,
	`SELECT substr(card_number, 1, 8)::int * 1000 FROM shop.payments WHERE id = 3`,
	`SELECT width_bucket(substr(card_number, 1, 8)::int, 5, 5, 5) FROM shop.payments WHERE id = 3`,
	`SELECT enum_range(NULL::anyenum), ` + letters + `::macaddr FROM shop.payments WHERE id = 3`,
	`SELECT ts_headline(` + letters + `, 'a'::tsquery, ` + letters + ` || '=1') FROM shop.payments WHERE id = 3`,
	`SELECT setweight('a'::tsvector, substr(` + letters + `, 1, 1)::"char"), ts_debug(` + letters + `::regconfig, 'x') FROM shop.payments WHERE id = 3`,
	`SELECT ts_token_type(` + letters + `), ts_parse(` + letters + `, 'a') FROM shop.payments WHERE id = 3`,
	`SELECT float8 '1' / (id - 3), card_number FROM shop.payments`,
}

// TestMaskedValuesStay runs each of them in every way in which rows come.
func TestMaskedValuesStay(t *testing.T) {
	for _, who := range []string{"ann", "dee"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			c := connect(t, who)
			for _, sql := range selects {
				c = stays(t, c, who, sql)
			}
		})
	}
}

// ways are how a query's rows come to a client.
var ways = []struct {
	name string
	run  func(c *client, sql string)
}{
	{"simple", func(c *client, sql string) { c.query(sql) }},
	{"text", func(c *client, sql string) { c.extended(sql) }},
	{"binary", func(c *client, sql string) { c.extended(sql, 1) }},
	{"cursor", func(c *client, sql string) {
		c.query(`BEGIN; DECLARE c CURSOR FOR ` + sql + `; FETCH ALL FROM c; COMMIT`)
		c.query(`ROLLBACK`)
	}},
	{"binary cursor", func(c *client, sql string) {
		c.query(`BEGIN`)
		c.query(`DECLARE c BINARY CURSOR FOR ` + sql)
		c.query(`FETCH ALL FROM c`)
		c.query(`ROLLBACK`)
	}},
	{"prepared", func(c *client, sql string) {
		c.query(`PREPARE p AS ` + sql)
		c.query(`EXECUTE p`)
		c.query(`DEALLOCATE p`)
	}},
}

// stays fails when a statement brings a planted value out. It returns the
// connection to go on with: a row that is too long to be masked ends one.
func stays(t *testing.T, c *client, who, sql string) *client {
	t.Helper()
	for _, way := range ways {
		if strings.HasPrefix(sql, "EXPLAIN") && (way.name == "prepared" || strings.HasSuffix(way.name, "cursor")) {
			continue
		}
		c.seen = nil
		way.run(c, sql)
		if l := leaks(c.seen); l != "" {
			t.Errorf("%s, %s: %s shows: %.300q", sql, way.name, l, c.seen)
		}
		if len(c.seen) == 0 {
			c = connect(t, who)
		}
	}
	return c
}

// TestCopyStays: COPY TO in all of its formats, of relations and of queries.
func TestCopyStays(t *testing.T) {
	options := []string{"", "(FORMAT csv)", "(FORMAT csv, HEADER)", "(FORMAT binary)", "BINARY", "(FORMAT 'TEXT')",
		"(FORMAT csv, DELIMITER '3')", "(FORMAT csv, QUOTE '3')", "(FORMAT csv, QUOTE '7', ESCAPE '8', FORCE_QUOTE *)",
		"(FORMAT csv, NULL '378')", "(DELIMITER ' ')", "(DELIMITER '-')", "(DELIMITER '[', NULL 'masked')", "(NULL '')",
		"(ENCODING 'latin1')", "(ENCODING 'sql_ascii')", "(FORMAT csv, FORCE_QUOTE (card_number))",
		"WITH CSV HEADER QUOTE AS '''' ESCAPE AS '8'", "(FORMAT csv, HEADER match)", "(FORMAT text, HEADER true)"}
	sources := []string{"shop.payments", "shop.payments (card_number)", "payments (note, card_number, id)", "shop.customers", "shop.customers (iban)",
		"(SELECT card_number, reverse(card_number) FROM shop.payments)", "(TABLE payments)", "(SELECT p FROM payments p)",
		"(SELECT * FROM shop.customer_payments)", "(SELECT j FROM shop.rows)", "(SELECT note FROM shop.renamed)",
		"(WITH a AS (SELECT card_number c FROM payments) SELECT c FROM a)",
		`(SELECT E'\\')' , ')', $$)$$, ")" FROM (SELECT card_number AS ")" FROM payments) z)`,
		"(SELECT /* ) */ card_number -- )\n FROM payments)",
		"(SELECT id::text FROM shop.payments WHERE 'a' = E'a'\n'\\') AND ''=''' UNION ALL SELECT card_number FROM payments)",
		"(SELECT note FROM shop.payments WHERE U&'a)' UESCAPE '!' = 'x' OR false UNION ALL (SELECT card_number FROM payments))"}
	c := connect(t, "tom", "search_path", "shop")
	for _, source := range sources {
		for _, option := range options {
			c.seen = nil
			all := c.query("COPY " + source + " TO STDOUT " + option)
			if l := leaks(c.seen); l != "" {
				t.Errorf("COPY %s %s: %s shows: %s", source, option, l, show(all))
			}
			if status(all) == 0 {
				t.Errorf("COPY %s %s ended the connection: %s", source, option, show(all))
				c = connect(t, "tom", "search_path", "shop")
			}
		}
	}
}

// TestTemporaryStays: what was stored in a temporary relation is as masked as what
// it came from.
func TestTemporaryStays(t *testing.T) {
	for _, make := range []string{
		`CREATE TEMP VIEW orders AS SELECT id, card_number AS item FROM shop.payments`,
		`CREATE TEMP TABLE orders AS SELECT id, card_number AS item FROM shop.payments`,
		`CREATE TEMP TABLE mine (id int, item text); INSERT INTO mine SELECT id, reverse(card_number) FROM shop.payments; CREATE TEMP VIEW orders AS TABLE mine`,
	} {
		c := connect(t, "tom", "search_path", "shop")
		if f := failure(c.query(make)); f != "" {
			t.Fatalf("%s: %s", make, f)
		}
		for _, sql := range []string{
			`SELECT item FROM orders`, `SELECT reverse(item) FROM orders`, `SELECT o::text FROM orders o`, `TABLE pg_temp.orders`,
			`SELECT pg_temp.orders.item FROM pg_temp.orders`, `SELECT note FROM (SELECT item AS note FROM orders) z`,
			`COPY (SELECT id, reverse(item) FROM orders) TO STDOUT`, `COPY orders TO STDOUT`, `COPY pg_temp.orders (item) TO STDOUT`,
			`COPY (TABLE orders) TO STDOUT (FORMAT binary)`, `UPDATE orders SET item = item || '' RETURNING item`,
			`SELECT item::int FROM orders`, `EXPLAIN SELECT item FROM orders`,
		} {
			c.seen = nil
			c.query(sql)
			if l := leaks(c.seen); l != "" {
				t.Errorf("%s; %s: %s shows: %.300q", make, sql, l, c.seen)
			}
		}
	}
}
