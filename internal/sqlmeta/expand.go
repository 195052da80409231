package sqlmeta

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/weirproxy/weir/internal/flow"
)

// expansion is what the tracers of one statement share while they look into views
// and functions.
type expansion struct {
	active map[uint32]bool // being looked into just now
	cuts   int             // how often that ended a look
	wanted map[uint32]bool
	wants  []Definition
	unread int // how often a text was missing
	// leans counts functions that were read under a search path that is not their own:
	// what rests on one of them depends on the session.
	leans int
	// steps counts the expressions looked at. Some are looked at again and again (a
	// recursive query within a recursive one), and a client may write what it likes.
	steps int
}

// maxSteps bounds the work on one statement with all that stands behind it. The
// longest text has about half as many tokens.
const maxSteps = 1 << 19

// step reports whether there is work left to be done.
func (x *expansion) step() bool {
	x.steps++
	return x.steps <= maxSteps
}

func (x *expansion) exhausted() bool { return x.steps > maxSteps }

// tooMuch is the problem of a statement on which the work was given up.
const tooMuch = "a statement, with the views and functions that it uses, that is too complicated to follow"

func (x *expansion) want(d Definition) {
	x.unread++
	if !x.wanted[d.OID] {
		if x.wanted == nil {
			x.wanted = make(map[uint32]bool)
		}
		x.wanted[d.OID] = true
		x.wants = append(x.wants, d)
	}
}

// enter notes that a view or function is being looked into, until leave is called.
func (x *expansion) enter(oid uint32) (leave func()) {
	if x.active == nil {
		x.active = make(map[uint32]bool)
	}
	x.active[oid] = true
	return func() { delete(x.active, oid) }
}

// relation is the columns of whatever a relation's name can mean, and its schema when
// that is certain.
func (t *tracer) relation(schema, name string) (row, string) {
	list := t.w.resolveName(schema, name)
	if len(list) == 1 {
		return t.columnsOf(list[0]), list[0].schema
	}
	var out row
	out.rest = constant()
	for i, n := range list {
		r := t.columnsOf(n)
		if i == 0 {
			out = r
			continue
		}
		both := row{open: true, rest: either(out.all(), r.all())}
		for _, name := range append(out.names[:len(out.names):len(out.names)], r.names...) {
			a, _, _ := out.find(name)
			b, _, _ := r.find(name)
			if _, found, _ := both.find(name); !found {
				both.add(name, either(a, b))
			}
		}
		out = both
	}
	return out, ""
}

// sampleColumns of the server's own relations hold values of users' tables, or texts
// in which they stand.
var sampleColumns = set(`attmissingval data query statement`)

// statistics describe what the values of columns are like; apart from identityColumns
// they tell about them.
var (
	statistics      = set(`pg_statistic pg_stats pg_statistic_ext_data pg_stats_ext pg_stats_ext_exprs`)
	identityColumns = set(`
		schemaname tablename attname inherited tableoid ctid starelid staattnum stainherit stxoid stxdinherit
		statistics_schemaname statistics_name statistics_owner attnames kinds expr
	`)
)

const samples = "samples of any table's values"

// columnsOf is the columns of one relation.
func (t *tracer) columnsOf(n named) row {
	if n.rel == nil {
		return t.unknownRelation(n)
	}
	r := n.rel
	switch {
	case r.OID < firstUserOID:
		return systemRow(r)
	case r.Kind == 'v' || r.Kind == 'm':
		return t.view(r)
	case r.Kind == 'S':
		return row{names: []string{"last_value", "log_cnt", "is_called"}, values: []value{constant(), constant(), constant()}}
	}
	var out row
	for i, name := range r.Columns {
		if name != "" {
			out.add(name, value{Lineage: Lineage{Plain: true, Columns: []Column{{ColumnID{r.OID, int16(i + 1)}, r.Schema, r.Name, name}}}})
		}
	}
	return out
}

func systemRow(r *Relation) row {
	out := row{open: len(r.Columns) == 0, rest: constant()}
	if r.Schema == pgCatalog && dataRelations[r.Name] {
		out.rest = unknownValue(samples)
	}
	for _, name := range r.Columns {
		v := constant()
		if sampleColumns[name] || r.Schema == pgCatalog && statistics[r.Name] && !identityColumns[name] {
			v = unknownValue(samples)
		}
		out.add(name, v)
	}
	return out
}

func (t *tracer) unknownRelation(n named) row {
	switch {
	case n.schema == pgTemp:
		return row{open: true, rest: unknownValue("a temporary relation")}
	case n.schema == pgCatalog && (!t.w.c.hasSystem() || t.w.s.Offline), n.schema == infoSchema:
		v := constant()
		if dataRelations[n.name] {
			v = unknownValue(samples)
		}
		return row{open: true, rest: v}
	case t.w.s.Offline:
		return row{open: true, tables: []named{n}, rest: value{Lineage: Lineage{Columns: []Column{{Schema: n.schema, Table: n.name}}}}}
	}
	return row{open: true, rest: unknownValue("relation " + n.resource() + ", which is not in the catalogue")}
}

// view is the columns of a view as what they carry of base tables.
func (t *tracer) view(r *Relation) row {
	if found, ok := t.w.c.viewRow(r.OID); ok {
		return found
	}
	unread, cuts, leans := t.x.unread, t.x.cuts, t.x.leans
	out := t.readView(r)
	out.names = r.Columns
	for i, name := range r.Columns { // a mask may name the view's own columns
		v := value{Lineage: out.values[i].Lineage}
		v.join(Lineage{Plain: true, Columns: []Column{{ColumnID{r.OID, int16(i + 1)}, r.Schema, r.Name, name}}})
		out.values[i] = v
	}
	if t.x.unread == unread && t.x.cuts == cuts && t.x.leans == leans && !t.x.exhausted() {
		t.w.c.keepView(r.OID, out)
	}
	return out
}

// readView is the rows of a view's definition.
func (t *tracer) readView(r *Relation) row {
	d, ok := t.w.c.definition(r.OID)
	body := t.w.c.body(r.OID)
	switch {
	case ok && body == nil:
		t.x.want(d)
		return t.opaqueView(r, "a view that is not read yet")
	case body == nil || body.Problem != "" || len(body.Statements) != 1:
		return t.opaqueView(r, "")
	case t.x.active[r.OID]:
		t.x.cuts++
		return t.opaqueView(r, "a view that reads itself")
	}
	defer t.x.enter(r.OID)()
	in := t.inside(d)
	out := in.rowsOf(body.Statements[0].GetStmt(), nil)
	if implied := in.operators(body.Statements[0].GetStmt()); !implied.Empty() {
		for i := range out.values {
			out.values[i] = computed(out.values[i], implied)
		}
	}
	if out.open || len(out.values) != len(r.Columns) {
		return t.opaqueView(r, "")
	}
	out.values = slices.Clone(out.values)
	return out
}

// opaqueView takes each column for one that carries whatever the view's rule reads, as
// the server's dependencies have it.
func (t *tracer) opaqueView(r *Relation, why string) row {
	v := constant()
	for _, b := range r.BaseColumns {
		base := t.w.c.Relations[b.Relation]
		switch {
		case base == nil:
			v.join(unknownValue("a view of what is not in the catalogue").Lineage)
		case base.OID < firstUserOID, base.Kind == 'v', base.Kind == 'm', b.Attr == NoColumn:
		case b.Attr > 0 && int(b.Attr) <= len(base.Columns):
			v.join(Lineage{Columns: []Column{{b, base.Schema, base.Name, base.Columns[b.Attr-1]}}})
		default:
			v.join(Lineage{Columns: []Column{{ColumnID{base.OID, 0}, base.Schema, base.Name, ""}}})
		}
	}
	switch {
	case why != "":
		v.join(unknownValue(why).Lineage)
	case r.Opaque:
		v.join(unknownValue("a view that calls functions which may read anything").Lineage)
	}
	v.Plain = v.Empty()
	out := row{open: len(r.Columns) == 0, rest: v}
	for _, name := range r.Columns {
		out.add(name, v)
	}
	return out
}

// inside is a tracer for the text of a view or function: under its own search path,
// with findings of its own.
func (t *tracer) inside(d Definition) *tracer {
	s := *t.w.s
	s.Prepared, s.Cursor, s.inNewSchema = nil, nil, false
	caller := t.caller
	switch {
	case d.Kind == ViewDefinition: // which is bound to its relations, whatever the session makes
		s.Temp = nil
		s.SearchPath, s.Certain = d.SearchPath, true
	case d.SearchPath != nil:
		s.SearchPath, s.Certain = d.SearchPath, true
		caller = &s
	default:
		s.SearchPath, s.Certain = caller.SearchPath, caller.Certain
	}
	w := &walker{s: &s, c: t.w.c, st: &Statement{}}
	return &tracer{w: w, x: t.x, caller: caller, found: newFindings(), body: d.Kind != ViewDefinition}
}

// effect is what a function can read by itself, apart from its arguments.
func (t *tracer) effect(c callee) value {
	v, _ := t.effectOf(c)
	return v
}

// effectOf says besides whether the function may keep what it is called with, where
// somebody can read it later.
func (t *tracer) effectOf(c callee) (reads value, keeps bool) {
	if c.builtIn {
		switch {
		case c.harmless():
			return constant(), false
		case carrierFunctions[c.name], lockFunctions[c.name], dataless[c.name], c.name == "current_setting", c.name == "set_config":
			return constant(), true
		}
		return t.called(unknownValue("function " + c.qualified() + ", which can read anything")), true
	}
	overloads := t.w.c.overloads(c.schema, c.name)
	if len(overloads) == 0 {
		return t.called(unknownValue("function " + c.qualified() + ", which is not in the catalogue")), true
	}
	out := constant()
	for i := range overloads {
		v, k := t.function(&overloads[i])
		out.join(v.Lineage)
		keeps = keeps || k
	}
	t.writes = t.writes || keeps
	return t.called(computed(out)), keeps
}

// called notes what functions read.
func (t *tracer) called(v value) value {
	t.found.calls.join(v.Lineage)
	t.took(v)
	for _, c := range v.Columns {
		t.w.addRead(Read{OID: c.Relation, Schema: c.Schema, Name: c.Table})
	}
	return v
}

// functionEffect is what is known of a function. It is kept: see memo.
type functionEffect struct {
	reads  Lineage
	stored []Stored
	writes bool // it may keep what it is called with
}

func (t *tracer) function(f *Function) (reads value, keeps bool) {
	t.w.note(f)
	name := "function " + qualified(f.Schema, f.Name)
	if f.Contained {
		return constant(), false
	}
	d, ok := t.w.c.definition(f.OID)
	if !ok || d.Kind == UnreadFunction || d.Kind == ViewDefinition {
		return unknownValue(name + ", written in " + f.Language), true
	}
	body := t.w.c.body(f.OID)
	if body == nil {
		t.x.want(d)
		return unknownValue(name + ", which is not read yet"), true
	}
	key := effectKey{f.OID, ""}
	if d.SearchPath == nil {
		key.path = t.caller.pathKey()
		t.x.leans++
	}
	lasts := len(t.caller.Temp) == 0 // whose names come first in its texts
	e, known := t.w.c.effect(key)
	if !known || !lasts {
		if t.x.active[f.OID] { // it calls itself: whoever is at it has the rest
			t.x.cuts++
			return constant(), false
		}
		unread, cuts := t.x.unread, t.x.cuts
		leave := t.x.enter(f.OID)
		e = t.readBody(d, body, name)
		leave()
		if t.x.unread == unread && t.x.cuts == cuts && lasts && !t.x.exhausted() {
			t.w.c.keepEffect(key, e)
		}
	}
	t.found.stored = append(t.found.stored, e.stored...)
	return value{Lineage: e.reads}, e.writes
}

// readBody gathers what the statements of a function read and store. Its variables and
// parameters carry nothing by themselves: what goes into them stands in the same body,
// or in the call.
func (t *tracer) readBody(d Definition, body *Body, name string) functionEffect {
	in := t.inside(d)
	in.variables = make(map[string]struct{}, len(body.Variables)+len(d.Arguments)+1)
	for v := range body.Variables {
		in.variables[v] = struct{}{}
	}
	for _, a := range d.Arguments {
		in.variables[strings.ToLower(a)] = struct{}{}
	}
	in.variables[strings.ToLower(strings.Trim(name[strings.LastIndexByte(name, '.')+1:], `"`))] = struct{}{} // function.parameter
	out := functionEffect{reads: Lineage{Plain: true}}
	if body.Problem != "" {
		out.reads.join(unknownValue(name + ": " + body.Problem).Lineage)
	}
	for _, raw := range body.Statements {
		in.bodyStatement(raw.GetStmt())
		in.operators(raw.GetStmt())
	}
	out.reads.join(in.found.read)
	out.stored = in.found.stored
	out.writes = in.writes || out.reads.Unknown != ""
	out.reads.Plain = out.reads.Empty()
	return out
}

// operators is what the operators in a text read whose functions are somebody's.
func (t *tracer) operators(n *pg.Node) value {
	m := unwrap(n)
	if len(t.w.c.operators) == 0 || m == nil {
		return constant()
	}
	t.w.top, t.w.verb = m, flow.Select
	t.w.statement(m)
	out := constant()
	for _, c := range t.w.implied {
		out.join(t.effect(c).Lineage)
	}
	t.w.implied = nil
	return out
}

// bodyStatement goes through one statement of a function.
func (t *tracer) bodyStatement(n *pg.Node) {
	switch n.GetNode().(type) {
	case *pg.Node_SelectStmt, *pg.Node_ReturnStmt, *pg.Node_LockStmt, *pg.Node_ConstraintsSetStmt, *pg.Node_TransactionStmt:
	default:
		t.writes = true
	}
	switch x := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		r := t.query(x.SelectStmt, nil)
		t.stores(x.SelectStmt.GetIntoClause(), r)
	case *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		t.change(unwrap(n), nil)
	case *pg.Node_CallStmt:
		t.call(x.CallStmt.GetFunccall(), nil)
	case *pg.Node_CreateTableAsStmt:
		r := t.rowsOf(x.CreateTableAsStmt.GetQuery(), nil)
		t.stores(x.CreateTableAsStmt.GetInto(), r)
	case *pg.Node_ReturnStmt:
		t.value(x.ReturnStmt.GetReturnval(), nil)
	case *pg.Node_TransactionStmt, *pg.Node_VariableSetStmt, *pg.Node_TruncateStmt, *pg.Node_LockStmt,
		*pg.Node_NotifyStmt, *pg.Node_ListenStmt, *pg.Node_UnlistenStmt, *pg.Node_DropStmt, *pg.Node_ConstraintsSetStmt:
		// They bring no rows into the function.
	default:
		t.took(unknownValue("a function with a statement that weir does not follow"))
	}
}

// note keeps what is visible to policy of a function that a statement calls.
func (w *walker) note(f *Function) {
	w.st.SecurityDefiner = w.st.SecurityDefiner || f.SecurityDefiner
	if w.languages == nil {
		w.languages = make(map[string]struct{}, 2)
	}
	w.languages[f.Language] = struct{}{}
}

// pathKey is the search path as part of a key.
func (s *Session) pathKey() string {
	if !s.Certain {
		return "?"
	}
	return strings.Join(s.SearchPath, "\x00")
}
