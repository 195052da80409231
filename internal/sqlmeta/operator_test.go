package sqlmeta

import (
	"slices"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
)

// testOperators stand in schemas on the path (public, shop) and off it (odd).
var testOperators = []Operator{
	{Schema: "public", Name: "###", FunctionSchema: "app", Function: "run"},
	{Schema: "public", Name: "@@@", FunctionSchema: pgCatalog, Function: "ts_rewrite", BuiltIn: true},
	{Schema: "public", Name: "%%", FunctionSchema: "public", Function: "similar", Harmless: true},
	{Schema: "public", Name: "!!!", FunctionSchema: pgCatalog, Function: "lower", BuiltIn: true},
	{Schema: "odd", Name: "=", FunctionSchema: "odd", Function: "eq"},
	{Schema: "odd", Name: ">=", FunctionSchema: "odd", Function: "ge"},
	{Schema: "odd", Name: "~~", FunctionSchema: "odd", Function: "like"},
}

func callsOf(st *Statement) string {
	var out []string
	for _, a := range st.Accesses {
		if a.Verb == flow.Call || a.Verb == flow.Unknown {
			out = append(out, string(a.Verb)+" "+strings.TrimPrefix(a.Resource, "function:"))
		}
	}
	slices.Sort(out)
	if st.Opaque {
		out = append(out, "opaque")
	}
	return strings.Join(out, ", ")
}

// TestOperatorsAreCalls: an operator runs a function that nobody has named.
func TestOperatorsAreCalls(t *testing.T) {
	usual := newContext(testCatalog(), "usual")
	odd := newContext(testCatalog(), "path odd")
	unsure := newContext(testCatalog(), "uncertain")
	tests := []struct {
		sql                string
		usual, odd, unsure string
	}{
		{"select ### 1", "call app.run, opaque", "", "call app.run, opaque"},
		{"select 'a' @@@ 'b'", "call pg_catalog.ts_rewrite, opaque", "", "call pg_catalog.ts_rewrite, opaque"},
		{"select 'a' %% 'b', !!! 'a'", "", "", ""},
		{"select 1 operator(public.###) 2", "call app.run, opaque", "call app.run, opaque", "call app.run, opaque"},
		{"select 1 operator(pg_catalog.+) 2, 1 + 2", "", "", ""},
		{"select 1 operator(other.###) 2", "call other.\"###\", opaque", "call other.\"###\", opaque", "call other.\"###\", opaque"},
		{"select 1 = 2", "", "call odd.eq, opaque", "call odd.eq, opaque"},
		{"select case 1 when 2 then 3 end", "", "call odd.eq, opaque", "call odd.eq, opaque"},
		{"select case when true then 3 end", "", "", ""},
		{"select nullif(1, 2)", "", "call odd.eq, opaque", "call odd.eq, opaque"},
		{"select 1 is distinct from 2", "", "call odd.eq, opaque", "call odd.eq, opaque"},
		{"select 1 in (2, 3)", "", "call odd.eq, opaque", "call odd.eq, opaque"},
		{"select 1 in (select 2)", "", "call odd.eq, opaque", "call odd.eq, opaque"},
		{"select 1 = any (select 2)", "", "call odd.eq, opaque", "call odd.eq, opaque"},
		{"select 1 from public.t a join public.t b using (a)", "", "call odd.eq, opaque", "call odd.eq, opaque"},
		{"select 1 from public.t a natural join public.t b", "", "call odd.eq, opaque", "call odd.eq, opaque"},
		{"select 1 between 2 and 3", "", "call odd.ge, opaque", "call odd.ge, opaque"},
		{"select 1 not between symmetric 2 and 3", "", "call odd.ge, opaque", "call odd.ge, opaque"},
		{"select 'a' like 'b'", "", "call odd.like, opaque", "call odd.like, opaque"},
		{"select a from public.t order by a using ###", "call app.run, opaque", "", "call app.run, opaque"},
	}
	for _, test := range tests {
		for _, c := range []struct {
			name, want string
			in         testContext
		}{{"usual", test.usual, usual}, {"odd", test.odd, odd}, {"unsure", test.unsure, unsure}} {
			if got := callsOf(mustAnalyze(test.sql, c.in)[0]); got != c.want {
				t.Errorf("%s: %s: got %q, want %q", c.name, test.sql, got, c.want)
			}
		}
	}
}

// TestDefinitionsAreCalls: what CREATE hands to the server to call.
func TestDefinitionsAreCalls(t *testing.T) {
	c := newContext(testCatalog(), "usual")
	for sql, want := range map[string]string{
		"create operator public.@ (function = app.lower, rightarg = int)":                                  "call app.lower",
		"create operator public.@ (procedure = 'pg_read_file', rightarg = text)":                           "call pg_catalog.pg_read_file",
		"create operator public.@ (function = int4eq, rightarg = int, restrict = app.r, join = app.j)":     "call app.j, call app.r, call public.int4eq",
		"create operator public.@ (function = app.lower, rightarg = int, commutator = ###)":                "call app.lower, call app.run, opaque",
		"create operator public.@ (function = app.lower, leftarg = int, commutator = operator(public.@@))": "call app.lower",
		"create aggregate public.g (int) (sfunc = app.s, stype = int, finalfunc = app.f)":                  "call app.f, call app.s",
		"create aggregate public.g (basetype = int, sfunc1 = app.s, stype1 = int)":                         "call app.s",
		"create type public.b (input = app.i, output = app.o)":                                             "call app.i, call app.o",
		"create type public.r as range (subtype = int, subtype_diff = app.d)":                              "call app.d",
		"create text search template public.t (init = app.i, lexize = app.l)":                              "call app.i, call app.l",
		"alter operator public.@ (int, int) set (restrict = app.r)":                                        "call app.r",
		"create operator class public.c for type int using btree as function 1 app.cmp(int, int)":          "call app.cmp",
	} {
		if got := callsOf(mustAnalyze(sql, c)[0]); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
}
