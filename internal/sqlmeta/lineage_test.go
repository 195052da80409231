package sqlmeta

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pg "github.com/pganalyze/pg_query_go/v6"
)

// lineageCatalog is the test catalogue with views and functions that can be read.
func lineageCatalog(t testing.TB) *Catalog {
	base := testCatalog()
	var relations []*Relation
	for _, r := range base.Relations {
		relations = append(relations, r)
	}
	view := func(oid uint32, name string, columns ...string) {
		relations = append(relations, &Relation{OID: oid, Schema: "shop", Name: name, Kind: 'v', Columns: columns})
	}
	view(16600, "customer_payments", "customer", "email", "card", "amount")
	view(16601, "labels", "label", "n")
	view(16602, "above", "x", "y")
	view(16603, "whole", "p")
	view(16604, "unread", "a", "b")
	relations[len(relations)-1].BaseColumns = []ColumnID{{16410, 3}, {16410, 1}}
	view(16605, "calls", "t")
	var functions []Function
	for _, list := range base.Functions {
		functions = append(functions, list...)
	}
	for i, f := range []Function{
		{Name: "card_of", Language: "sql", Volatility: 's'},
		{Name: "orders_of", Language: "sql", Volatility: 's', SecurityDefiner: true},
		{Name: "by_path", Language: "sql"},
		{Name: "fixed_path", Language: "sql"},
		{Name: "loops", Language: "sql"},
		{Name: "dynamic", Language: "plpgsql"},
		{Name: "copies", Language: "plpgsql"},
		{Name: "in_python", Language: "plpython3u"},
		{Name: "contained", Language: "c", Contained: true, Extension: "x"},
	} {
		f.OID, f.Schema = uint32(16650+i), "app"
		functions = append(functions, f)
	}
	c := NewCatalog(2, []string{"public", "shop", "app", "evil", pgCatalog, infoSchema}, relations, functions).WithOperators(testOperators).
		WithCasts([]Cast{{"app", "coded", "app", "card_of"}})
	texts := map[uint32]Definition{
		16600: {Text: "SELECT c.id, c.email, p.card_number, p.amount FROM shop.customers c JOIN shop.payments p ON p.customer_id = c.id"},
		16601: {Text: "SELECT (email || ' ') || name, count(*) FROM shop.customers GROUP BY email, name"},
		16602: {Text: "SELECT label, (SELECT max(card) FROM shop.customer_payments) FROM shop.labels"},
		16603: {Text: "SELECT p FROM shop.payments p"},
		16605: {Text: "SELECT app.by_path(1)"},
		16650: {Kind: SQLFunction, Text: "SELECT card_number FROM shop.payments WHERE id = payment OR $1 = 2", Arguments: []string{"payment"}},
		16651: {Kind: SQLFunction, Text: "SELECT count(*), max(placed_at) FROM shop.orders WHERE customer_id = orders_of.who", Arguments: []string{"who"}},
		16652: {Kind: SQLFunction, Text: "SELECT id FROM orders"},
		16653: {Kind: SQLFunction, Text: "SELECT id FROM orders", SearchPath: []string{"evil"}},
		16654: {Kind: SQLFunction, Text: "SELECT note FROM shop.payments; SELECT app.loops()"},
		16655: {Kind: PLpgSQLFunction, Text: "SELECT id FROM shop.orders"},
		16656: {Kind: PLpgSQLFunction, Text: "INSERT INTO public.t (a) SELECT card_number FROM shop.payments WHERE id = k"},
		16657: {Kind: UnreadFunction},
	}
	var list []Definition
	for oid, d := range texts {
		d.OID = oid
		list = append(list, d)
	}
	c.WithDefinitions(list)
	for oid, d := range texts {
		if d.Kind == UnreadFunction {
			continue
		}
		tree, err := pg.Parse(d.Text)
		if err != nil {
			t.Fatal(d.Text, err)
		}
		b := &Body{Statements: tree.Stmts, Variables: map[string]struct{}{"k": {}}}
		if oid == 16655 {
			b.Problem = dynamicSQL
		}
		c.Supply(oid, b)
	}
	return c
}

// TestLineage holds what statements return, store and test against
// testdata/lineage.txt. Cases are lines that begin with "> "; "@ ..." changes the
// session as in testdata/accesses.txt.
func TestLineage(t *testing.T) {
	const file = "testdata/lineage.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	full := lineageCatalog(t)
	ctx := newContext(full, "")
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "  "):
			continue
		case strings.HasPrefix(line, "@ "):
			ctx = newContext(full, strings.TrimPrefix(line, "@ "))
			if line == "@ offline" {
				ctx.catalog, ctx.session.Offline = nil, true
			}
		}
		out.WriteString(line + "\n")
		if sql, ok := strings.CutPrefix(line, "> "); ok {
			for _, st := range mustAnalyze(sql, ctx) {
				out.WriteString(lineageOf(st))
			}
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(string(text), out.String()); d != "" {
		t.Errorf("-want +got (go test -run TestLineage -update, then look at the difference)\n%s", d)
	}
}

func lineageOf(st *Statement) string {
	var b strings.Builder
	say := func(format string, a ...any) {
		b.WriteString("  " + strings.ReplaceAll(strings.ReplaceAll(fmt.Sprintf(format, a...), "shop.payments.", "P."), "shop.customers.", "C.") + "\n")
	}
	if st.Problem != "" {
		say("problem: %s", st.Problem)
	}
	for i := range st.Output {
		say("%s = %s", st.Output[i].Name, st.Output[i].Describe())
	}
	if st.Output == nil && !st.All.Empty() {
		say("any = %s", st.All.Describe())
	}
	for i := range st.Stored {
		say("store %s < %s", st.Stored[i].Target, st.Stored[i].Describe())
	}
	for _, x := range st.Tests {
		what := x.Column.String()
		if x.Unknown != "" {
			what = "? (" + x.Unknown + ")"
		}
		say("test %s %d of %s: %s", x.Kind, x.Count, what, x.Where)
	}
	for _, a := range st.Accesses {
		if a.Verb == "call" {
			say("call %s", a.Resource)
		}
	}
	if len(st.Languages) > 0 {
		say("languages %v definer %v", st.Languages, st.SecurityDefiner)
	}
	return b.String()
}
