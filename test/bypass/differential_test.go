package bypass

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/catalog"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/internal/sqlparse"
)

const docsDB = "docs"

// Floors: so much is compared at least. What cannot be compared is counted, not failed.
const (
	differentialFloor = 120
	relationsFloor    = 150 // relations that the server counted something for
	originsFloor      = 150 // output columns that the server names an origin for
	plansFloor        = 100 // references of base columns in plans' outputs
)

// TestDifferential holds what Weir says of statements against what the server says
// itself: which relations they turned to and how, what the columns of their results are
// called, and which columns of tables are in them.
func TestDifferential(t *testing.T) {
	if _, err := w.psql("postgres", "CREATE DATABASE "+docsDB); err != nil {
		t.Fatal(err)
	}
	if err := w.script(docsDB, "docs.sql", nil); err != nil {
		t.Fatal(err)
	}
	cases := loadCorpus(t, "differential")
	if len(cases) < differentialFloor {
		t.Errorf("%d statements, want at least %d", len(cases), differentialFloor)
	}
	t.Run("relations", func(t *testing.T) { compareRelations(t, cases) })
	t.Run("columns", func(t *testing.T) { compareColumns(t, cases) })
}

// touched is what the server counted for one relation.
type touched struct{ scans, ins, upd, del int }

const countsSQL = `SELECT schemaname || '.' || relname, coalesce(seq_scan, 0) + coalesce(idx_scan, 0), n_tup_ins, n_tup_upd, n_tup_del
	FROM pg_catalog.pg_stat_xact_all_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')`

// counts reads what this transaction did so far.
func counts(t *testing.T, c *client) map[string]touched {
	t.Helper()
	c.seen = nil
	if f := failure(c.query(countsSQL)); f != "" {
		t.Fatal(f)
	}
	out := map[string]touched{}
	for _, m := range split(c.seen) {
		if m.kind != 'D' {
			continue
		}
		v := rowValues(m.body)
		n := func(i int) int { x, _ := strconv.Atoi(string(v[i])); return x }
		out[tempName(string(v[0]))] = touched{n(1), n(2), n(3), n(4)}
	}
	return out
}

var tempSchema = regexp.MustCompile(`^pg_temp_[0-9]+\.`)

func tempName(s string) string { return tempSchema.ReplaceAllString(s, "pg_temp.") }

// parents of partitions and children, by name.
func parentsOf(t *testing.T) map[string][]string {
	t.Helper()
	out, err := w.DB.Query(t.Context(), docsDB, `SELECT inhrelid::regclass, inhparent::regclass FROM pg_inherits i JOIN pg_class c ON c.oid = inhrelid WHERE relkind IN ('r', 'p')`)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]string{}
	for line := range strings.Lines(out) {
		child, parent, _ := strings.Cut(strings.TrimSpace(line), "|")
		m["docs."+child] = append(m["docs."+child], "docs."+parent)
	}
	return m
}

// compareRelations runs each case in a transaction through Weir as somebody who may do
// everything, and asks the server in the same transaction what it counted.
func compareRelations(t *testing.T, cases []*sqlCase) {
	deltas := make([]map[string]touched, len(cases))
	c := through(t, "max", docsDB)
	for i, k := range cases {
		c.query("BEGIN")
		before := counts(t, c)
		for s := range k.steps {
			st := k.steps[s]
			st.sql = mark(i) + st.sql
			c.seen = nil
			c.simple(&st)
			if f := failure(split(c.seen)); f != "" {
				t.Errorf("%s: %s", k, f)
			}
		}
		if c.seen = nil; !t.Failed() {
			deltas[i] = map[string]touched{}
			for name, after := range counts(t, c) {
				b := before[name]
				if d := (touched{after.scans - b.scans, after.ins - b.ins, after.upd - b.upd, after.del - b.del}); d != (touched{}) {
					deltas[i][name] = d
				}
			}
		}
		if status(c.query("ROLLBACK")) != 'I' {
			t.Fatalf("%s left no session", k)
		}
	}
	recorded := recordedAccesses(t, len(cases))
	parents := parentsOf(t)
	n := 0
	for i, k := range cases {
		if recorded[i] == nil {
			t.Errorf("%s: nothing is recorded", k)
		}
		n += len(deltas[i])
		for _, said := range disagree(deltas[i], recorded[i], parents, strings.Fields(k.keys["except"])) {
			t.Errorf("%s: %s\nserver %+v\nweir %v\n%s", k, said, deltas[i], recorded[i], k.text())
		}
	}
	t.Logf("%d statements, %d relations counted by the server", len(cases), n)
	if n < relationsFloor {
		t.Errorf("the server counted for %d relations, want at least %d", n, relationsFloor)
	}
}

func mark(i int) string { return fmt.Sprintf("/*differs-%d*/ ", i) }

// recordedAccesses are the verbs of each case on each relation, as they were recorded.
func recordedAccesses(t *testing.T, n int) []map[string][]string {
	t.Helper()
	events, err := w.Node.Events(t.Context(), "--text", "/*differs-", "--kind", "action")
	if err != nil {
		t.Fatal(err)
	}
	out := make([]map[string][]string, n)
	for _, e := range events {
		action, _ := e["action"].(map[string]any)
		text, _ := action["text"].(string)
		_, rest, _ := strings.Cut(text, "/*differs-")
		number, _, _ := strings.Cut(rest, "*/")
		i, err := strconv.Atoi(number)
		if err != nil || i >= n || action["phase"] != "intent" {
			continue
		}
		if out[i] == nil {
			out[i] = map[string][]string{}
		}
		add := func(verb, resource string) { out[i][resource] = append(out[i][resource], verb) }
		if list, ok := action["accesses"].([]any); ok {
			for _, a := range list {
				a, _ := a.(map[string]any)
				resource, _ := a["resource"].(string)
				add(fmt.Sprint(a["verb"]), resource)
			}
			continue
		}
		verbs, _ := action["verbs"].([]any)
		resources, _ := action["resources"].([]any)
		if len(verbs) > 1 && len(resources) > 0 {
			t.Errorf("%s: verbs %v and no accesses", text, verbs)
		}
		for _, r := range resources {
			add(fmt.Sprint(verbs[0]), fmt.Sprint(r))
		}
	}
	return out
}

// disagree says where the server's counters and the record differ.
func disagree(server map[string]touched, weir map[string][]string, parents map[string][]string, except []string) (all []string) {
	family := func(name string) []string { // the relation and all above it
		out := []string{name}
		for i := 0; i < len(out); i++ {
			out = append(out, parents[out[i]]...)
		}
		return out
	}
	verbs := func(name string) (out []string) {
		for _, r := range family(name) {
			out = append(out, weir[r]...)
		}
		return out
	}
	some := func(have []string, want ...string) bool {
		return slices.ContainsFunc(want, func(v string) bool { return slices.Contains(have, v) })
	}
	for _, name := range sorted(server) {
		d := server[name]
		if slices.Contains(except, name) {
			continue
		}
		have := verbs(name)
		for _, c := range []struct {
			n    int
			what string
			want []string
		}{
			{d.ins, "rows came in", []string{"insert", "copy_in", "merge", "create"}},
			{d.upd, "rows were changed", []string{"update", "merge"}},
			{d.del, "rows went", []string{"delete", "merge"}},
		} {
			if c.n > 0 && !some(have, c.want...) {
				all = append(all, fmt.Sprintf("%s: %s, recorded is %v", name, c.what, have))
			}
		}
		if d.scans > 0 && len(have) == 0 {
			all = append(all, name+": it was read, and nothing is recorded")
		}
	}
	// And the other way round: what is recorded as a change was one.
	for _, name := range sorted(weir) {
		if slices.Contains(except, name) {
			continue
		}
		var sum touched
		known := false
		for r, d := range server {
			if slices.Contains(family(r), name) {
				known = true
				sum.ins, sum.upd, sum.del = sum.ins+d.ins, sum.upd+d.upd, sum.del+d.del
			}
		}
		for _, c := range []struct {
			n    int
			verb string
		}{{sum.ins, "insert"}, {sum.ins, "copy_in"}, {sum.upd, "update"}, {sum.del, "delete"}} {
			if slices.Contains(weir[name], c.verb) && c.n == 0 {
				all = append(all, fmt.Sprintf("%s: %s is recorded, the server counted none (known: %v)", name, c.verb, known))
			}
		}
	}
	return all
}

// analysis is sqlmeta with the parser's process and the catalogue of the server.
type analysis struct {
	analyzer *sqlparse.Analyzer
	catalog  *sqlmeta.Catalog
	session  sqlmeta.Session
}

func newAnalysis(t *testing.T) *analysis {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	pool, err := sqlparse.New(sqlparse.Config{Size: 1, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	cache := catalog.New(catalog.Config{Log: log, Connect: func(ctx context.Context, k catalog.Key) (*pgconn.PgConn, error) {
		return pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=%s", w.DB.Socket, w.DB.Port, k.Login, k.Database))
	}})
	t.Cleanup(cache.Close)
	key := catalog.Key{Backend: "shop", Address: "a", Database: docsDB, Login: "weir_dba"}
	a := &analysis{analyzer: &sqlparse.Analyzer{Pool: pool}}
	if a.catalog, err = cache.Get(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	a.session = sqlmeta.Session{Database: docsDB, Role: "weir_dba", SearchPath: []string{"docs"}, Certain: true, StandardConformingStrings: true}
	return a
}

// compared is how much was compared.
type compared struct{ statements, open, unnamed, origins, plans, unresolved, skipped int }

// compareColumns holds Output against RowDescription and the plan.
func compareColumns(t *testing.T, cases []*sqlCase) {
	a := newAnalysis(t)
	c := direct(t, "weir_dba", docsDB)
	var n compared
	for _, k := range cases {
		if len(k.steps) != 1 || k.steps[0].bound {
			continue
		}
		sql := k.steps[0].sql
		fields, ok := c.fields(sql)
		if !ok {
			continue
		}
		list, err := a.analyzer.Analyze(t.Context(), sql, a.session, a.catalog)
		if err != nil || len(list) != 1 {
			t.Errorf("%s: %v\n%s", k, err, sql)
			continue
		}
		st := list[0]
		if st.Output == nil && st.Rows { // what a function returns its text does not show
			n.open++
			for _, f := range fields {
				if f.table != 0 && f.attr > 0 && !a.carries(&st.All, sqlmeta.ColumnID{Relation: f.table, Attr: f.attr}) {
					t.Errorf("%s: column %q is not in %s\n%s", k, f.name, st.All.Describe(), sql)
				}
			}
			continue
		}
		if len(st.Output) != len(fields) {
			t.Errorf("%s: weir sees %d columns %v (%s), the server %d\n%s", k, len(st.Output), st.Output, st.Problem, len(fields), sql)
			continue
		}
		n.statements++
		for i, f := range fields {
			a.compareField(t, k, sql, i, f, &st.Output[i], &n)
		}
		if !strings.HasPrefix(st.Tag, "EXPLAIN") {
			a.comparePlan(t, c, k, sql, st, &n)
		}
	}
	results.say("differential", fmt.Sprintf("%d statements with rows: %d origins that the server names and %d references in its plans are in the lineage.", n.statements, n.origins, n.plans))
	t.Logf("%d statements with rows, %d columns without a name of weir's, %d origins, %d references in plans (%d of no column in sight), %d columns left to weir as unresolved",
		n.statements, n.unnamed, n.origins, n.plans, n.skipped, n.unresolved)
	if n.origins < originsFloor || n.plans < plansFloor {
		t.Errorf("%d origins and %d references are compared, want at least %d and %d", n.origins, n.plans, originsFloor, plansFloor)
	}
}

func (a *analysis) compareField(t *testing.T, k *sqlCase, sql string, i int, f field, o *sqlmeta.Output, n *compared) {
	t.Helper()
	switch {
	case o.Name == "":
		n.unnamed++
	case o.Name != f.name:
		t.Errorf("%s: column %d is %q for weir, %q for the server\n%s", k, i+1, o.Name, f.name, sql)
	}
	if o.Unknown != "" {
		n.unresolved++
		t.Logf("%s: column %d: %s", k, i+1, o.Unknown)
	}
	if f.table == 0 || f.attr <= 0 {
		return
	}
	n.origins++
	if !a.carries(&o.Lineage, sqlmeta.ColumnID{Relation: f.table, Attr: f.attr}) {
		t.Errorf("%s: column %d (%s) is column %d of %s for the server, %s for weir\n%s", k, i+1, f.name, f.attr, a.catalog.Relations[f.table].Name, o.Describe(), sql)
	}
}

// carries reports whether a lineage holds a column, or says that it may hold anything.
func (a *analysis) carries(l *sqlmeta.Lineage, c sqlmeta.ColumnID) bool {
	if l.Unknown != "" {
		return true
	}
	return slices.ContainsFunc(l.Columns, func(x sqlmeta.Column) bool { return x.Relation == c.Relation && (x.Attr == c.Attr || x.Attr == 0) })
}

// field is one of a RowDescription.
type field struct {
	name  string
	table uint32
	attr  int16
}

// fields describes a statement; false when it returns no rows or is none that can be
// described.
func (c *client) fields(sql string) ([]field, bool) {
	c.seen = nil
	c.send(&pgproto3.Parse{Query: sql}, &pgproto3.Describe{ObjectType: 'S'}, &pgproto3.Sync{})
	c.until('Z')
	for _, m := range split(c.seen) {
		if m.kind != 'T' {
			continue
		}
		var out []field
		for b := m.body[2:]; len(b) > 0; {
			i := bytes.IndexByte(b, 0)
			f := b[i+1:]
			out = append(out, field{string(b[:i]), binary.BigEndian.Uint32(f), int16(binary.BigEndian.Uint16(f[4:]))})
			b = f[18:]
		}
		return out, true
	}
	return nil, false
}

// plan is a node of EXPLAIN (FORMAT JSON).
type plan struct {
	Type     string `json:"Node Type"`
	Schema   string
	Relation string `json:"Relation Name"`
	Alias    string
	Output   []string
	Plans    []plan
}

// reference is a column with its table's alias as EXPLAIN (VERBOSE) writes it.
var reference = regexp.MustCompile(`'(?:[^']|'')*'|("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)\.("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*|\*)(\()?`)

// comparePlan looks for the base columns in the output of the plan's top.
func (a *analysis) comparePlan(t *testing.T, c *client, k *sqlCase, sql string, st *sqlmeta.Statement, n *compared) {
	t.Helper()
	if slices.Contains([]string{"EXPLAIN", "FETCH", "COPY", "SHOW"}, st.Tag) {
		return
	}
	c.seen = nil
	if f := failure(c.query("EXPLAIN (VERBOSE, COSTS off, FORMAT JSON) " + sql)); f != "" {
		t.Errorf("%s: %s", k, f)
		return
	}
	var text []byte
	for _, m := range split(c.seen) {
		if m.kind == 'D' {
			text = append(text, rowValues(m.body)[0]...)
		}
	}
	var top []struct{ Plan plan }
	if err := json.Unmarshal(text, &top); err != nil || len(top) != 1 {
		t.Errorf("%s: %v: %s", k, err, text)
		return
	}
	relations := map[string]*sqlmeta.Relation{} // by alias
	a.aliases(&top[0].Plan, relations)
	for i, expr := range top[0].Plan.Output {
		if i >= len(st.Output) { // what the plan sorts by, and does not return
			break
		}
		for _, m := range reference.FindAllStringSubmatch(expr, -1) {
			if m[1] == "" || m[3] != "" {
				continue
			}
			r := relations[unquote(m[1])]
			if r == nil {
				n.skipped++ // of a subquery, a function, a CTE
				continue
			}
			for _, id := range columnsNamed(r, unquote(m[2])) {
				n.plans++
				if !a.carriesOrAbove(&st.Output[i].Lineage, r, id) {
					t.Errorf("%s: column %d is %s in the plan, and weir has %s without %s.%s\n%s", k, i+1, expr, st.Output[i].Describe(), r.Name, r.Columns[id-1], sql)
				}
			}
		}
	}
}

func unquote(s string) string {
	if strings.HasPrefix(s, `"`) {
		return strings.ReplaceAll(s[1:len(s)-1], `""`, `"`)
	}
	return s
}

func (a *analysis) aliases(p *plan, out map[string]*sqlmeta.Relation) {
	if p.Relation != "" && p.Alias != "" {
		if r := a.catalog.Relation(p.Schema, p.Relation); r != nil {
			out[p.Alias] = r
		}
	}
	for i := range p.Plans {
		a.aliases(&p.Plans[i], out)
	}
}

// columnsNamed are the numbers of a column, or of all for a whole row.
func columnsNamed(r *sqlmeta.Relation, name string) (all []int16) {
	for i, c := range r.Columns {
		if c != "" && (c == name || name == "*") {
			all = append(all, int16(i+1))
		}
	}
	return all
}

// carriesOrAbove: a plan names the partition or the child, the statement what is above.
func (a *analysis) carriesOrAbove(l *sqlmeta.Lineage, r *sqlmeta.Relation, attr int16) bool {
	if a.carries(l, sqlmeta.ColumnID{Relation: r.OID, Attr: attr}) {
		return true
	}
	for _, oid := range r.Parents {
		p := a.catalog.Relations[oid]
		if p == nil {
			continue
		}
		for _, id := range columnsNamed(p, r.Columns[attr-1]) {
			if a.carriesOrAbove(l, p, id) {
				return true
			}
		}
	}
	return false
}
