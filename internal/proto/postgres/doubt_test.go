package postgres

import (
	"testing"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

func ddl(verb flow.Verb, resources ...string) *sqlmeta.Statement {
	st := &sqlmeta.Statement{Effects: sqlmeta.Effects{ChangesCatalogue: true}}
	for _, r := range resources {
		st.Accesses = append(st.Accesses, flow.Access{Verb: verb, Resource: r})
	}
	return st
}

func TestDoubt(t *testing.T) {
	cat := testCatalog()
	read := func(schema, name string) *sqlmeta.Statement {
		r := sqlmeta.Read{Schema: schema, Name: name}
		if rel := cat.Relation(schema, name); rel != nil {
			r.OID = rel.OID
		}
		return &sqlmeta.Statement{Text: "select x from " + name, Reads: []sqlmeta.Read{r}, Stored: make([]sqlmeta.Stored, 1)}
	}
	tests := []struct {
		before *sqlmeta.Statement
		then   *sqlmeta.Statement
		opaque bool
	}{
		{&sqlmeta.Statement{}, read("shop", "v"), false},
		{ddl(flow.Create, "a.other"), read("shop", "orders"), false},
		{ddl(flow.Create, "a.other"), read("shop", "v"), true}, // a view may stand on anything
		{ddl(flow.Create, "a.other"), read("shop", "gone"), true},
		{ddl(flow.Create, "a.other"), read("pg_catalog", "pg_class"), false},
		{ddl(flow.Create, "a.orders"), read("shop", "orders"), true}, // found first in the path
		{ddl(flow.Alter, `shop."orders"`), read("shop", "orders"), true},
		{ddl(flow.Drop, "*.*"), read("shop", "orders"), true},
		{ddl(flow.Create, "a.*"), read("shop", "orders"), true},
		{ddl(flow.Create, `a."@@@"`), read("shop", "orders"), true}, // an operator
		{ddl(flow.Create, "pg_temp.orders"), read("shop", "orders"), false},
		{ddl(flow.Alter, "role:orders"), read("shop", "orders"), false},
		{&sqlmeta.Statement{Problem: "unreadable"}, read("shop", "orders"), true},
	}
	for _, test := range tests {
		got := (*doubt)(nil).after(test.before).mark(test.then, cat)
		if got.Opaque != test.opaque || (got.Stored[0].Unknown != "") != test.opaque {
			t.Errorf("after %v: %s: opaque %v, stored %v, want %v", test.before.Accesses, test.then.Text, got.Opaque, (got.Stored[0].Unknown != ""), test.opaque)
		}
		if test.then.Opaque || test.then.Stored[0].Unknown != "" {
			t.Fatal("the statement itself was changed")
		}
	}
	// A function that the transaction has made is called under a name that the
	// catalogue has for another one only.
	d := (*doubt)(nil).after(ddl(flow.Create, "function:a.lower"))
	for _, st := range []*sqlmeta.Statement{{Text: "select Lower(3)"}, {Functions: []string{"pg_catalog.lower"}}, {Names: map[string]struct{}{"lower": {}}}} {
		if got := d.mark(st, cat); !got.Opaque || len(got.Accesses) != 1 || got.Accesses[0] != (flow.Access{Verb: flow.Call, Resource: "function:a.lower"}) {
			t.Errorf("%+v became %+v", st, got)
		}
	}
	if got := d.mark(&sqlmeta.Statement{Text: "select upper(3)"}, cat); len(got.Accesses) != 0 || got.Opaque {
		t.Errorf("a statement that does not call it became %+v", got)
	}
}

func TestLastPart(t *testing.T) {
	for resource, want := range map[string]string{"a.b": "b", "b": "b", `"x.y".b`: "b", `a."x.y"`: "x.y", `a."x""y"`: `x"y`, "*.*": "*", "function:a.f": "f", `function:a."f.g"`: "f.g"} {
		if got := lastPart(resource); got != want {
			t.Errorf("%s: %q, want %q", resource, got, want)
		}
	}
}

// TestReadingFollows: when texts may be read in another way than reported.
func TestReadingFollows(t *testing.T) {
	change := &sqlmeta.Effects{Settings: []sqlmeta.SettingChange{{Name: "standard_conforming_strings", Values: []string{"off"}}}}
	function := &sqlmeta.Effects{UnsureSearchPath: true}
	other := &sqlmeta.Effects{Settings: []sqlmeta.SettingChange{{Name: "statement_timeout", Values: []string{"1"}}}}
	reset := &sqlmeta.Effects{Settings: []sqlmeta.SettingChange{{Name: "*"}}}
	encoding := &sqlmeta.Effects{Settings: []sqlmeta.SettingChange{{Name: "client_encoding", Values: []string{"LATIN1"}}}}
	rollback, back, commit := &sqlmeta.Effects{Tx: sqlmeta.TxRollback}, &sqlmeta.Effects{Tx: sqlmeta.TxRollbackTo, Savepoint: "a"}, &sqlmeta.Effects{Tx: sqlmeta.TxCommit}
	type ready byte
	for _, test := range []struct {
		name  string
		steps []any
		want  bool
	}{
		{"nothing", []any{other, rollback, commit}, false},
		{"set", []any{change}, true},
		{"encoding", []any{encoding}, true},
		{"reset all", []any{reset}, true},
		{"a function", []any{function}, true},
		{"reported", []any{change, ready('I')}, false},
		{"reported in the transaction", []any{change, ready('T')}, false},
		{"taken back", []any{change, ready('T'), rollback}, true},
		{"taken back in part", []any{change, ready('T'), back}, true},
		{"set local ends", []any{change, ready('T'), commit}, true},
		{"over", []any{change, ready('T'), rollback, ready('I')}, false},
		{"another transaction", []any{change, ready('I'), rollback}, false},
	} {
		s := newSettings([]string{"public"}, "x")
		before := s.generation
		for _, step := range test.steps {
			switch x := step.(type) {
			case *sqlmeta.Effects:
				s.complete(x, "")
			case ready:
				s.ready(byte(x))
			}
		}
		if s.unread != test.want {
			t.Errorf("%s: unread %v", test.name, s.unread)
		}
		if test.want && s.generation == before {
			t.Errorf("%s: what was analysed before would still count", test.name)
		}
	}
}
