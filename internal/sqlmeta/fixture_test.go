package sqlmeta

import "strings"

// testCatalog is a small shop beside the server's own objects.
func testCatalog() *Catalog {
	relations := []*Relation{
		{OID: 16400, Schema: "shop", Name: "customers", Kind: 'r', Columns: []string{"id", "name", "email", "phone", "iban"}},
		{OID: 16410, Schema: "shop", Name: "payments", Kind: 'r', Columns: []string{"id", "customer_id", "card_number", "", "amount", "note", "masked"}, Generated: []bool{false, false, false, false, false, false, true}},
		{OID: 16420, Schema: "shop", Name: "orders", Kind: 'p', Columns: []string{"id", "customer_id", "item", "total", "placed_at"}, Children: []uint32{16421}},
		{OID: 16421, Schema: "shop", Name: "orders_2025", Kind: 'r', Columns: []string{"id", "customer_id", "item", "total", "placed_at"}, Parents: []uint32{16420}},
		{OID: 16430, Schema: "shop", Name: "cards", Kind: 'v', Columns: []string{"card_number"}, BaseColumns: []ColumnID{{16410, 3}}},
		{OID: 16435, Schema: "shop", Name: "opaque", Kind: 'v', Columns: []string{"n"}, Opaque: true},
		{OID: 16440, Schema: "public", Name: "t", Kind: 'r', Columns: []string{"a", "b"}},
		{OID: 16450, Schema: "public", Name: "Mixed.Case", Kind: 'r', Columns: []string{"x"}},
		{OID: 16460, Schema: "evil", Name: "orders", Kind: 'r', Columns: []string{"id"}},
		{OID: 16470, Schema: "evil", Name: "pg_class", Kind: 'r', Columns: []string{"oid"}},
		{OID: 16480, Schema: "pg_catalog", Name: "pg_stat_statements", Kind: 'v', Columns: []string{"query"}},
	}
	ownRelations, ownFunctions := serverObjects()
	functions := []Function{
		{OID: 16500, Schema: "shop", Name: "total", Language: "sql"},
		{OID: 16501, Schema: "shop", Name: "close_month", Language: "plpgsql"},
		{OID: 16502, Schema: "app", Name: "lower", Language: "plpgsql"},
		{OID: 16503, Schema: "public", Name: "dblink", Language: "c"},
	}
	relations, functions = append(relations, ownRelations...), append(functions, ownFunctions...)
	return NewCatalog(1, []string{"public", "shop", "app", "evil", pgCatalog, infoSchema}, relations, functions).WithOperators(testOperators)
}

// testContext is the session of a block of cases in testdata.
type testContext struct {
	session Session
	catalog *Catalog
}

func newContext(full *Catalog, directive string) testContext {
	c := testContext{session: testSession(), catalog: full}
	c.session.SearchPath = []string{"public", "shop"}
	prepared := map[string]*Statement{}
	for name, sql := range map[string]string{
		"known":    "select * from shop.payments where id = $1",
		"knownset": "set search_path = evil",
		"seed":     "select setseed($1)",
	} {
		prepared[name] = mustAnalyze(sql, c)[0]
	}
	opened := mustAnalyze("declare opened cursor for select card_number from shop.payments", c)[0].Effects.Inner
	c.session.Prepared = func(name string) *Statement { return prepared[name] }
	c.session.Cursor = func(name string) *Statement {
		if name == "opened" {
			return opened
		}
		return nil
	}
	verb, rest, _ := strings.Cut(directive, " ")
	switch verb {
	case "path":
		c.session.SearchPath, _ = SplitSearchPath(rest)
	case "uncertain":
		c.session.Certain = false
	case "temp":
		c.session.Temp = map[string]struct{}{}
		for _, name := range strings.Split(rest, ", ") {
			c.session.Temp[name] = struct{}{}
		}
	case "without":
		c.catalog = nil
	case "encoding":
		c.session.Encoding = rest
	case "backslashes":
		c.session.StandardConformingStrings = false
	}
	return c
}
