package bypass

import "testing"

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
