package sqlmeta

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/weirproxy/weir/internal/flow"
)

func analyzeOne(t *testing.T, sql string) *Statement {
	t.Helper()
	list := mustAnalyze(sql, newContext(testCatalog(), ""))
	if len(list) != 1 {
		t.Fatalf("%s: %d statements", sql, len(list))
	}
	return list[0]
}

func TestEffects(t *testing.T) {
	for sql, want := range map[string]Effects{
		"begin":                   {Tx: TxBegin},
		"start transaction":       {Tx: TxBegin},
		"commit":                  {Tx: TxCommit},
		"end":                     {Tx: TxCommit},
		"rollback":                {Tx: TxRollback},
		"savepoint a":             {Tx: TxSavepoint, Savepoint: "a"},
		"release a":               {Tx: TxRelease, Savepoint: "a"},
		"rollback to a":           {Tx: TxRollbackTo, Savepoint: "a"},
		"prepare transaction 'x'": {Tx: TxCommit, UnsureSearchPath: true},
		"set search_path = a, \"B c\", \"$user\"":               {Settings: []SettingChange{{Name: "search_path", Values: []string{"a", "B c", "$user"}}}},
		"set local search_path to ''":                           {Settings: []SettingChange{{Name: "search_path", Values: []string{""}, Local: true}}},
		"set schema 'x'":                                        {Settings: []SettingChange{{Name: "search_path", Values: []string{"x"}}}},
		"set search_path to default":                            {Settings: []SettingChange{{Name: "search_path"}}},
		"reset search_path":                                     {Settings: []SettingChange{{Name: "search_path"}}},
		"reset all":                                             {Settings: []SettingChange{{Name: "*"}}},
		"set role dba":                                          {Settings: []SettingChange{{Name: "role", Values: []string{"dba"}}}},
		"SET \"TimeZone\" = 'UTC'":                              {Settings: []SettingChange{{Name: "timezone", Values: []string{"UTC"}}}},
		"set extra_float_digits = 3":                            {Settings: []SettingChange{{Name: "extra_float_digits", Values: []string{"3"}}}},
		"set geqo_seed = 0.5":                                   {Settings: []SettingChange{{Name: "geqo_seed", Values: []string{"0.5"}}}},
		"set jit = off":                                         {Settings: []SettingChange{{Name: "jit", Values: []string{"off"}}}},
		"set transaction read only":                             {Settings: []SettingChange{{Name: "transaction_read_only", Values: []string{"1"}, Local: true}}},
		"select set_config('search_path', 'a, \"B\"', false)":   {Settings: []SettingChange{{Name: "search_path", Values: []string{"a", "B"}}}},
		"select pg_catalog.set_config('search_path', '', true)": {Settings: []SettingChange{{Name: "search_path", Values: []string{}, Local: true}}},
		"select set_config('search_path', 'a', false), set_config('jit', 'off', 'on')": {Settings: []SettingChange{
			{Name: "search_path", Values: []string{"a"}}, {Name: "jit", Values: []string{"off"}, Local: true}}},
		"select set_config('search_path', 'a', false) where false": {UnsureSearchPath: true,
			Settings: []SettingChange{{Name: "search_path", Values: []string{"a"}, Unsure: true}}},
		"select set_config('search_path', a, false) from t": {UnsureSearchPath: true,
			Settings: []SettingChange{{Name: "search_path", Values: []string{}, Unsure: true}}},
		"select 1, set_config('search_path', 'a', false)": {UnsureSearchPath: true,
			Settings: []SettingChange{{Name: "search_path", Values: []string{"a"}, Unsure: true}}},
		"select set_config('search_path', 'ab'::char(1), false)": {UnsureSearchPath: true,
			Settings: []SettingChange{{Name: "search_path", Values: []string{}, Unsure: true}}},
		"select set_config(a, 'x', false) from t": {UnsureSearchPath: true},
		"select shop.total(1)":                    {UnsureSearchPath: true},
		"call shop.close_month(1)":                {UnsureSearchPath: true},
		"do 'begin end'":                          {UnsureSearchPath: true},
		"select nextval('x')":                     {},
		"deallocate p":                            {Deallocate: "p"},
		"deallocate all":                          {Deallocate: "*"},
		"close c":                                 {CloseCursor: "c"},
		"close all":                               {CloseCursor: "*"},
		"discard temp":                            {DropsTemp: []string{"*"}},
		"discard plans":                           {},
		"execute knownset":                        {Settings: []SettingChange{{Name: "search_path", Values: []string{"evil"}}}},
		"create temp table a (b int)":             {CreatesTemp: []string{"a"}, ChangesCatalogue: true},
		"select * into temp a from t":             {CreatesTemp: []string{"a"}, ChangesCatalogue: true},
		"create table pg_temp.a (b int)":          {CreatesTemp: []string{"a"}, ChangesCatalogue: true},
		"create temp view a as select 1":          {CreatesTemp: []string{"a"}, ChangesCatalogue: true},
		"drop table t":                            {ChangesCatalogue: true},
		"alter table t add c int":                 {ChangesCatalogue: true},
		"insert into t values (1)":                {},
		"create function f() returns int language sql set search_path = x as ''": {ChangesCatalogue: true},
	} {
		got := analyzeOne(t, sql).Effects
		got.Inner = nil
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", sql, d)
		}
	}
	all := analyzeOne(t, "discard all").Effects
	if all.Deallocate != "*" || all.CloseCursor != "*" || !all.UnsureSearchPath || len(all.Settings) != 3 {
		t.Errorf("discard all: %+v", all)
	}
}

func TestInner(t *testing.T) {
	for sql, want := range map[string]struct {
		effect func(Effects) string
		name   string
		tag    string
	}{
		"prepare p as delete from t":                    {func(e Effects) string { return e.Prepare }, "p", "DELETE"},
		"declare c cursor for select * from t":          {func(e Effects) string { return e.DeclareCursor }, "c", "SELECT"},
		"explain delete from t":                         {func(e Effects) string { return "" }, "", "DELETE"},
		"explain analyze select * from t":               {func(e Effects) string { return e.Prepare }, "", "SELECT"},
		"copy (select a from t) to stdout":              {func(e Effects) string { return "" }, "", "SELECT"},
		"execute known(1)":                              {func(e Effects) string { return e.Prepare }, "", "SELECT"},
		"fetch all from opened":                         {func(e Effects) string { return e.DeclareCursor }, "", "SELECT"},
		"explain analyze declare c cursor for select 1": {func(e Effects) string { return e.DeclareCursor }, "", "DECLARE CURSOR"},
	} {
		e := analyzeOne(t, sql).Effects
		if e.Inner == nil || e.Inner.Tag != want.tag || want.effect(e) != want.name {
			t.Errorf("%s: %+v", sql, e)
		}
	}
}

// reads are the reads of a statement as text, "*" behind those through a view.
func reads(st *Statement) string {
	var out []string
	for _, r := range st.Reads {
		name := r.Schema + "." + r.Name
		if r.DependsOnViews {
			name += "*"
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestReads(t *testing.T) {
	for sql, want := range map[string]struct {
		reads, names string
		opaque       bool
	}{
		"select 1": {},
		"select id, name as card from shop.customers where email = 'x'":        {reads: "shop.customers", names: "email id name"},
		"select c.card_number from shop.payments c":                            {reads: "shop.payments", names: "card_number"},
		"select * from shop.payments":                                          {reads: "shop.payments"},
		"select p.* from shop.payments p":                                      {reads: "shop.payments"},
		"select count(*) from shop.payments":                                   {reads: "shop.payments"},
		"select p from shop.payments p":                                        {reads: "shop.payments", names: "p"},
		"select payments from shop.payments":                                   {reads: "shop.payments", names: "payments"},
		"select row_to_json(p) from shop.payments p":                           {reads: "shop.payments", names: "p"},
		"select p.row_to_json from shop.payments p":                            {reads: "shop.payments", names: "row_to_json"},
		"select (p).card_number from shop.payments p":                          {reads: "shop.payments", names: "card_number p"},
		"select x from shop.payments as p(a, b, x)":                            {reads: "shop.payments", names: "x"},
		"select j.x from (shop.payments a join t on true) as j(x)":             {reads: "public.t shop.payments", names: "x"},
		"select 1 from shop.payments join shop.customers using (id)":           {reads: "shop.customers shop.payments", names: "id"},
		"select 1 from shop.payments natural join shop.customers":              {reads: "shop.customers shop.payments"},
		"select s.x from (select card_number from shop.payments) s(x)":         {reads: "shop.payments", names: "card_number x"},
		"with w(x) as (select card_number from shop.payments) select x from w": {reads: "shop.payments", names: "card_number x"},
		"select x from generate_series(1, 2) x":                                {names: "x"},
		"select * from shop.cards":                                             {reads: "shop.cards* shop.payments*"},
		"select n from shop.opaque":                                            {reads: "shop.opaque*", names: "n", opaque: true},
		"select id from shop.orders":                                           {reads: "shop.orders shop.orders_2025", names: "id"},
		"select shop.total(1)":                                                 {opaque: true},
		"select nextval('s')":                                                  {},
		"select lower('x')":                                                    {},
		"select pg_read_file('x')":                                             {opaque: true},
		"select query_to_xml('select 1', true, true, '')":                      {opaque: true},
		"call shop.close_month(1)":                                             {opaque: true},
		"delete from shop.orders where id = 1":                                 {names: "id"},
		"delete from shop.orders where id = 1 returning total":                 {reads: "shop.orders shop.orders_2025", names: "id total"},
		"insert into t select card_number from shop.payments":                  {reads: "shop.payments", names: "card_number"},
		"insert into t values (1) returning *":                                 {reads: "public.t"},
		"update t set a = p.card_number from shop.payments p returning b":      {reads: "public.t shop.payments", names: "b card_number"},
		"execute known(1)":                                                     {reads: "shop.payments", names: "id"},
		"fetch opened":                                                         {reads: "shop.payments", names: "card_number"},
		"explain select card_number from shop.payments":                        {reads: "shop.payments", names: "card_number"},
		"copy shop.payments (card_number) to stdout":                           {reads: "shop.payments", names: "card_number"},
		"copy shop.payments to stdout":                                         {reads: "shop.payments"},
		"copy (select card_number from shop.payments) to stdout":               {reads: "shop.payments", names: "card_number"},
		"copy shop.orders from stdin":                                          {},
		"do 'x'":                                                               {opaque: true},
	} {
		st := analyzeOne(t, sql)
		names := strings.Join(slices.Sorted(maps.Keys(st.Names)), " ")
		if reads(st) != want.reads || names != want.names || st.Opaque != want.opaque {
			t.Errorf("%s:\n got  %q %q opaque=%v\n want %q %q opaque=%v", sql,
				reads(st), names, st.Opaque, want.reads, want.names, want.opaque)
		}
	}
}

func TestCopy(t *testing.T) {
	for sql, want := range map[string]Copy{
		"copy shop.payments to stdout": {OID: 16410, Schema: "shop", Relation: "payments",
			Columns: []string{"id", "customer_id", "card_number", "amount", "note"}, Format: "text", Delimiter: '\t', Null: `\N`},
		"copy shop.payments (note, masked) to stdout csv header": {OID: 16410, Schema: "shop", Relation: "payments",
			Columns: []string{"note", "masked"}, Format: "csv", Delimiter: ',', Quote: '"', Escape: '"', Header: true},
		`copy t to stdout (format csv, delimiter ';', quote '''', escape '\', null 'NULL', header false, encoding 'LATIN1')`: {OID: 16440, Schema: "public",
			Relation: "t", Columns: []string{"a", "b"}, Format: "csv", Delimiter: ';', Quote: '\'', Escape: '\\', Null: "NULL", Encoding: "LATIN1"},
		"copy t to stdout (format binary)": {OID: 16440, Schema: "public", Relation: "t", Columns: []string{"a", "b"}, Format: "binary", Delimiter: '\t', Null: `\N`},
		"copy binary t to stdout":          {OID: 16440, Schema: "public", Relation: "t", Columns: []string{"a", "b"}, Format: "binary", Delimiter: '\t', Null: `\N`},
		"copy t to stdout with delimiter '|' null 'x'": {OID: 16440, Schema: "public", Relation: "t", Columns: []string{"a", "b"},
			Format: "text", Delimiter: '|', Null: "x"},
		"copy t (b) from stdin (header match)": {In: true, OID: 16440, Schema: "public", Relation: "t", Columns: []string{"b"},
			Format: "text", Delimiter: '\t', Null: `\N`, Header: true},
		"copy nosuch from '/x'":                           {In: true, File: true, Schema: "public", Relation: "nosuch", Format: "text", Delimiter: '\t', Null: `\N`},
		"copy t from program 'x'":                         {In: true, Program: true, OID: 16440, Schema: "public", Relation: "t", Columns: []string{"a", "b"}, Format: "text", Delimiter: '\t', Null: `\N`},
		"copy /* ( */ (select (1), ')' from t) to stdout": {Query: "select (1), ')' from t", Format: "text", Delimiter: '\t', Null: `\N`},
	} {
		got := analyzeOne(t, sql).Copy
		if got == nil {
			t.Errorf("%s: no copy", sql)
			continue
		}
		if d := cmp.Diff(want, *got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: -want +got\n%s", sql, d)
		}
	}
}

func TestText(t *testing.T) {
	sql := " /* a */ select 1 ; ;\n delete from t -- x\n;  select 'é' "
	want := []string{"/* a */ select 1", "delete from t -- x", "select 'é'"}
	var got []string
	for _, st := range mustAnalyze(sql, newContext(testCatalog(), "")) {
		got = append(got, st.Text)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if list := mustAnalyze(" ; -- nothing\n", newContext(nil, "")); len(list) != 0 {
		t.Errorf("%d statements in an empty text", len(list))
	}
}

func TestUnresolved(t *testing.T) {
	for sql, want := range map[string]bool{
		"select * from shop.orders": false, "select * from nosuch": true, "select * from shop.nosuch": true,
		"select * from pg_class": false, "select nosuch(1)": true, "select lower('x')": false,
		"create table new (a int)": false, "select * from t": false, "select * from pg_catalog.nosuch": true,
		"drop function nosuch": true,
	} {
		if got := analyzeOne(t, sql).Unresolved; got != want {
			t.Errorf("%s: %v", sql, got)
		}
	}
}

func TestDropTemp(t *testing.T) {
	c := newContext(testCatalog(), "temp scratch")
	for sql, want := range map[string][]string{
		"drop table scratch": {"scratch"}, "drop table pg_temp.scratch": {"scratch"}, "drop table t": nil, "drop table shop.scratch": nil,
	} {
		if got := mustAnalyze(sql, c)[0].Effects.DropsTemp; !slices.Equal(got, want) {
			t.Errorf("%s: %v", sql, got)
		}
	}
}

func TestKey(t *testing.T) {
	base := testSession()
	catalog := testCatalog()
	seen := map[string]string{string(base.AppendKey(nil, catalog)): "base"}
	for name, change := range map[string]func(*Session) *Catalog{
		"database":   func(s *Session) *Catalog { s.Database = "other"; return catalog },
		"role":       func(s *Session) *Catalog { s.Role = "other"; return catalog },
		"path":       func(s *Session) *Catalog { s.SearchPath = []string{"pub", "lic"}; return catalog },
		"empty path": func(s *Session) *Catalog { s.SearchPath = nil; return catalog },
		"certain":    func(s *Session) *Catalog { s.Certain = false; return catalog },
		"strings":    func(s *Session) *Catalog { s.StandardConformingStrings = false; return catalog },
		"encoding":   func(s *Session) *Catalog { s.Encoding = "LATIN1"; return catalog },
		"no catalog": func(s *Session) *Catalog { return nil },
		"version":    func(s *Session) *Catalog { return NewCatalog(2, nil, nil, nil) },
		"other":      func(s *Session) *Catalog { return NewCatalog(2, []string{"a"}, nil, nil) },
		"one column": func(s *Session) *Catalog {
			return NewCatalog(2, nil, []*Relation{{OID: 1, Columns: []string{"a"}}}, nil)
		},
		"two columns": func(s *Session) *Catalog {
			return NewCatalog(2, nil, []*Relation{{OID: 1, Columns: []string{"a", "b"}}}, nil)
		},
		"a function": func(s *Session) *Catalog { return NewCatalog(2, nil, nil, []Function{{OID: 1, Name: "a"}}) },
	} {
		s := base
		c := change(&s)
		key := string(s.AppendKey(nil, c))
		if other, ok := seen[key]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[key] = name
	}
}

func TestSplitSearchPath(t *testing.T) {
	for text, want := range map[string][]string{
		"": {}, "  ": {}, "public": {"public"}, `"$user", public`: {"$user", "public"}, `A, "B""c" ,d`: {"a", `B"c`, "d"}, `""`: {""},
	} {
		got, ok := SplitSearchPath(text)
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%q: %q %v", text, got, ok)
		}
	}
	for _, text := range []string{",", "a,", `"a`, `a b`, `"a"b`, ",a"} {
		if got, ok := SplitSearchPath(text); ok {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestQuoteName(t *testing.T) {
	for name, want := range map[string]string{
		"a": "a", "a_1$": "a_1$", "A": `"A"`, "a.b": `"a.b"`, `a"b`: `"a""b"`, "": `""`, "1a": `"1a"`, "a b": `"a b"`, "*": `"*"`, "é": "é",
	} {
		if got := quoteName(name); got != want {
			t.Errorf("%q: %s", name, got)
		}
	}
}

func TestActions(t *testing.T) {
	long := "select '" + strings.Repeat("é", flow.MaxRecordedText) + "'"
	list := append(mustAnalyze("select 1; "+long, newContext(nil, "")), Unreadable("selec", "syntax error", 1))
	actions := Actions(list)
	if len(actions) != 3 {
		t.Fatal(len(actions))
	}
	if a := actions[0]; a.Text != "select 1" || a.Bytes != 8 || a.Digest != "sha256:822ae07d4783158bc1912bb623e5107cc9002d519e1143a9c200ed6ee18b6d0f" {
		t.Errorf("%+v", a)
	}
	if a := actions[1]; len(a.Text) > flow.MaxRecordedText || len(a.Text) < flow.MaxRecordedText-4 || a.Bytes != int64(len(long)) || !strings.HasPrefix(long, a.Text) {
		t.Errorf("%d %d", len(a.Text), a.Bytes)
	}
	if a := actions[2]; a.Problem != "syntax error" || a.Accesses[0].Verb != flow.Unknown {
		t.Errorf("%+v", a)
	}
}

func TestTooManyStatements(t *testing.T) {
	sql := strings.Repeat("select 1;", MaxStatements+1)
	list := mustAnalyze(sql, newContext(nil, ""))
	if len(list) != 1 || list[0].Problem == "" {
		t.Errorf("%d statements", len(list))
	}
}

func TestSliceRefusesOtherText(t *testing.T) {
	tree, err := pg.Parse("select 1; select 2")
	if err != nil {
		t.Fatal(err)
	}
	list := Analyze(tree, "select", testSession(), nil)
	if len(list) != 1 || list[0].Problem == "" {
		t.Errorf("%+v", list)
	}
}

// FuzzAnalyze: whatever parses has at least one access a statement, and the same
// text means the same twice.
func FuzzAnalyze(f *testing.F) {
	for _, sql := range []string{
		"select * from shop.orders o where o.total > 1 for update", "with a as (delete from t returning *) insert into t select * from a on conflict do nothing",
		"copy (select 1) to stdout", "explain (analyze off) select (a).b.c[1:2].d from x.y.z", "set a.b = 'c', d", "select f(variadic a => b) over (w)",
		"create table a (b int default c(), foreign key (d) references e)", "merge into a using b on true when matched then delete",
		"grant all on all tables in schema a, b to c", "alter table a rename to b", "drop function if exists a.b(int), c cascade", "select ('x').pg_read_file.b",
		"prepare a as execute b", "comment on operator + (int, int) is 'x'", "create schema a create view b as table c", "select json_table('x', '$' columns (a int))",
		"create function f() returns int begin atomic select 1; end", "select set_config('a', 'b', c)", "declare a cursor for values (1)",
	} {
		f.Add(sql)
	}
	for _, name := range []string{"testdata/lineage.txt", "testdata/accesses.txt"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n") {
			if sql, ok := strings.CutPrefix(line, "> "); ok {
				f.Add(sql)
			}
		}
	}
	catalog := lineageCatalog(f)
	contexts := []testContext{newContext(catalog, ""), newContext(catalog, "uncertain"), newContext(nil, "without catalogue")}
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 4000 {
			return
		}
		tree, err := parse(sql)
		if err != nil {
			return
		}
		for _, c := range contexts {
			list := Analyze(tree, sql, c.session, c.catalog)
			again := Analyze(tree, sql, c.session, c.catalog)
			for i, st := range list {
				if len(st.Accesses) == 0 || st.Tag == "" {
					t.Errorf("%q: %+v", sql, st)
				}
				if strings.Contains(st.Problem, "shape") {
					t.Errorf("%q: a panic", sql)
				}
				if d := cmp.Diff(st.Output, again[i].Output) + cmp.Diff(st.Tests, again[i].Tests) + cmp.Diff(st.Stored, again[i].Stored); d != "" {
					t.Errorf("%q: %s", sql, d)
				}
				if st.Problem == "" && !slices.Equal(st.Accesses, again[i].Accesses) {
					t.Errorf("%q: %v and then %v", sql, st.Accesses, again[i].Accesses)
				}
			}
		}
	})
}
