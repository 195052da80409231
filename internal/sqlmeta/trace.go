package sqlmeta

import (
	"maps"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// tracer follows where values come from. It goes over the same tree as the walker,
// which has decided what the statement does; the tracer says which columns stand
// behind what comes out of it, and which ones decide what happens.
//
// It never guesses in favour of the reader: a name that it cannot resolve is
// unknown, a node that it does not know can carry whatever stands below it.
type tracer struct {
	w *walker    // of the statement: session, catalogue and where findings go
	x *expansion // shared with the tracers of views and functions
	// caller is under whose search path functions run that set none: a view's text has
	// its own, what it calls has not.
	caller *Session
	ctes   *namedRows

	// Of a body: names of parameters and variables, which are no columns. What is
	// assigned to them comes from the same body.
	variables map[string]struct{}
	// windows of the query at hand, by name.
	windows map[string]value

	// deciding is above 0 inside an expression that is a test as a whole: what can
	// fail in it tells no more than the test.
	deciding int

	implied    value // of functions that operators run; see imply
	conditions bool  // there are any
	writes     bool  // the body that is being read may keep what it is given
	found      *findings
}

// findings is what a trace came across, of one statement or one body.
type findings struct {
	read   Lineage // every column that a name stood for, shown or not; and what is unknown
	calls  Lineage // what the functions called can read by themselves
	stored []Stored
	tests  []Test
	seen   map[testKey]int
	writes map[string]struct{}
}

type testKey struct {
	column Column
	kind   TestKind
	where  string
	bad    bool
}

// namedRows is a WITH name in scope.
type namedRows struct {
	name  string
	row   row
	outer *namedRows
}

func (w *walker) newTracer() *tracer {
	return &tracer{w: w, caller: w.s, found: newFindings(), x: &expansion{}}
}

func newFindings() *findings {
	f := &findings{}
	f.read.Plain, f.calls.Plain = true, true
	return f
}

// maxTests bounds what is told apart; beyond it everything is one unknown test.
const maxTests = 512

// test notes that a value decides something.
func (t *tracer) test(v value, kind TestKind, count int, where string) {
	for _, c := range v.Columns {
		t.found.test(Test{Column: c, Kind: kind, Count: count, Where: where})
	}
	if v.Unknown != "" {
		t.found.test(Test{Unknown: v.Unknown, Kind: Free, Count: count, Where: where})
	}
}

func (f *findings) test(next Test) {
	key := testKey{next.Column, next.Kind, next.Where, next.Unknown != ""}
	if i, ok := f.seen[key]; ok {
		f.tests[i].Count += next.Count
		return
	}
	if len(f.tests) == maxTests {
		next = Test{Unknown: "more tests of columns than weir counts", Kind: Free, Count: 1, Where: next.Where}
	} else if len(f.tests) > maxTests {
		return
	}
	if f.seen == nil {
		f.seen = make(map[testKey]int, 8)
	}
	f.seen[key] = len(f.tests)
	f.tests = append(f.tests, next)
}

// wrote notes a column that is written to.
func (f *findings) wrote(column string) {
	if f.writes == nil {
		f.writes = make(map[string]struct{}, 4)
	}
	f.writes[column] = struct{}{}
}

func sorted(m map[string]struct{}) []string {
	if len(m) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m))
}

func columnNames(list []Column) []string {
	names := make(map[string]struct{}, len(list))
	for _, c := range list {
		names[c.String()] = struct{}{}
	}
	return sorted(names)
}

func testedNames(list []Test) []string {
	names := make(map[string]struct{}, len(list))
	for i := range list {
		if list[i].Unknown == "" && list[i].Where != canFail {
			names[list[i].Column.String()] = struct{}{}
		}
	}
	return sorted(names)
}

// fold is what is computed from all of a list, which may be long.
func (t *tracer) fold(list []*pg.Node, s *scope) value {
	out := constant()
	for _, n := range list {
		v := t.value(n, s)
		out.join(v.Lineage)
	}
	out.Plain = out.Empty()
	return out
}

// values evaluates a list of expressions.
func (t *tracer) values(list []*pg.Node, s *scope) []value {
	out := make([]value, 0, len(list))
	for _, n := range list {
		out = append(out, t.value(n, s))
	}
	return out
}

// value is what an expression can carry.
func (t *tracer) value(n *pg.Node, s *scope) value {
	if !t.x.step() {
		return unknownValue(tooMuch)
	}
	switch x := n.GetNode().(type) {
	case nil, *pg.Node_AConst, *pg.Node_ParamRef, *pg.Node_String_, *pg.Node_Integer, *pg.Node_SetToDefault,
		*pg.Node_SqlvalueFunction, *pg.Node_CurrentOfExpr, *pg.Node_GroupingFunc, *pg.Node_MergeSupportFunc:
		return constant()
	case *pg.Node_ColumnRef:
		return t.columnRef(x.ColumnRef, s)
	case *pg.Node_ResTarget:
		return t.value(x.ResTarget.GetVal(), s)
	case *pg.Node_AExpr:
		return t.operation(x.AExpr, s)
	case *pg.Node_BoolExpr:
		return t.fold(x.BoolExpr.GetArgs(), s)
	case *pg.Node_FuncCall:
		return t.call(x.FuncCall, s)
	case *pg.Node_TypeCast:
		return t.cast(x.TypeCast, s)
	case *pg.Node_CollateClause:
		return t.value(x.CollateClause.GetArg(), s)
	case *pg.Node_CaseExpr:
		return t.caseOf(x.CaseExpr, s)
	case *pg.Node_CoalesceExpr:
		return either(t.values(x.CoalesceExpr.GetArgs(), s)...)
	case *pg.Node_NullTest:
		return t.nullTest(x.NullTest, s)
	case *pg.Node_SubLink:
		return t.subLink(x.SubLink, s)
	case *pg.Node_AIndirection:
		return t.indirection(x.AIndirection, s)
	case *pg.Node_RowExpr:
		return t.rowOf(x.RowExpr, s)
	case *pg.Node_List:
		return t.fold(x.List.GetItems(), s)
	case *pg.Node_AArrayExpr:
		return t.fold(x.AArrayExpr.GetElements(), s)
	case *pg.Node_SelectStmt:
		r := t.query(x.SelectStmt, s)
		return r.all()
	}
	return t.anything(unwrap(n), s)
}

// anything is for nodes without a rule of their own: they can carry all that stands
// below them.
func (t *tracer) anything(m proto.Message, s *scope) value {
	switch m.(type) {
	case nil:
		return constant()
	case *pg.InsertStmt, *pg.UpdateStmt, *pg.DeleteStmt, *pg.MergeStmt: // of a rule
		r := t.change(m, s)
		return r.all()
	}
	if t.fallible(m) {
		v := t.children(m, s)
		t.mayFail(v)
		return v
	}
	return t.children(m, s)
}

// fallible reports constructs whose success depends on their arguments: XMLPARSE,
// JSON() and their like.
func (t *tracer) fallible(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.XmlExpr:
		return x.GetOp() == pg.XmlExprOp_IS_XMLPARSE || x.GetOp() == pg.XmlExprOp_IS_XMLPI || x.GetOp() == pg.XmlExprOp_IS_XMLROOT
	case *pg.XmlSerialize, *pg.JsonParseExpr, *pg.JsonFuncExpr, *pg.JsonSerializeExpr, *pg.JsonTable, *pg.RangeTableFunc:
		return true
	}
	return false
}

func (t *tracer) children(m proto.Message, s *scope) value {
	out := constant()
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case !fd.IsList():
			out.join(t.message(v.Message().Interface(), s).Lineage)
		default:
			for i := range v.List().Len() {
				out.join(t.message(v.List().Get(i).Message().Interface(), s).Lineage)
			}
		}
		return true
	})
	out.Plain = out.Empty()
	return out
}

// message is value for what is not wrapped in a Node.
func (t *tracer) message(m proto.Message, s *scope) value {
	switch x := m.(type) {
	case *pg.Node:
		return t.value(x, s)
	case *pg.FuncCall:
		return t.call(x, s)
	case *pg.ColumnRef:
		return t.columnRef(x, s)
	case *pg.A_Expr:
		return t.operation(x, s)
	case *pg.SelectStmt:
		r := t.query(x, s)
		return r.all()
	case *pg.TypeCast:
		return t.cast(x, s)
	case *pg.SubLink:
		return t.subLink(x, s)
	}
	return t.anything(m, s)
}

// columnRef resolves a name. See scope.column for the order in which the server
// looks.
func (t *tracer) columnRef(c *pg.ColumnRef, s *scope) value {
	parts := make([]string, 0, 4)
	star := false
	for _, f := range c.GetFields() {
		if name, ok := text(f); ok {
			parts = append(parts, name)
		} else {
			star = true
		}
	}
	switch n := len(parts); {
	case star && n == 0: // count(*) has no argument; this is a * where the grammar has none
		r := s.star()
		return t.took(r.all())
	case star:
		return t.took(t.rowNamed(parts, s))
	case n == 0:
		return unknownValue("a column without a name")
	case n == 1:
		return t.bare(parts[0], s)
	}
	return t.qualified(parts, s)
}

// took notes what a name stood for.
func (t *tracer) took(v value) value {
	t.found.read.join(v.Lineage)
	return v
}

// bare is a name by itself: a column, a variable, or the row of a name in FROM.
func (t *tracer) bare(name string, s *scope) value {
	v, found := s.column(name)
	if found {
		return t.took(v)
	}
	if en := s.entry("", name); en != nil {
		return t.took(en.whole())
	}
	if t.isVariable(name) {
		return constant()
	}
	v.join(unknownValue("a column " + quoteName(name) + " that weir does not find").Lineage)
	return t.took(v)
}

func (t *tracer) isVariable(name string) bool {
	_, ok := t.variables[strings.ToLower(name)]
	return ok
}

// qualified is a.b, s.a.b or d.s.a.b: a column of a name in FROM, or a function of
// that row written as if it were one.
func (t *tracer) qualified(parts []string, s *scope) value {
	n := len(parts)
	name, column, schema := parts[n-2], parts[n-1], ""
	if n > 2 {
		schema = parts[n-3]
	}
	if en := s.entry(schema, name); en != nil {
		return t.took(t.part(en.whole(), en.relation, column))
	}
	if t.isVariable(parts[0]) {
		return constant()
	}
	if schema != "" { // (schema-qualified table).column of a whole row is not written so
		if en := s.entry("", schema); en != nil {
			return t.took(t.part(t.part(en.whole(), en.relation, name), false, column))
		}
	}
	return t.took(unknownValue("a name " + quoteName(name) + " that weir does not find in FROM"))
}

// part is row.name. Attribute notation calls a function when the row has no such
// column: ('/x'::text).pg_read_file reads a file (manual, 8.16.5 and 4.2.6).
func (t *tracer) part(v value, relation bool, name string) value {
	if v.row != nil {
		c, found, certain := v.row.find(name)
		switch {
		case found && certain:
			return c
		case relation && systemColumns[name]:
			return constant()
		case v.row.tables != nil:
			return c
		case !certain:
			v = value{Lineage: c.Lineage}
		}
	}
	out := computed(v)
	callees, found := t.w.s.callees(t.w.c, "", name)
	if !found {
		if v.row != nil && !v.row.open {
			out.join(unknownValue("a column " + quoteName(name) + " that weir does not find").Lineage)
		}
		return out
	}
	for _, c := range callees {
		out.join(t.effect(c).Lineage)
		if !c.harmless() {
			t.w.call(c)
		}
	}
	out.Plain = out.Empty()
	return out
}

// rowNamed is name.*: the whole row of a name in FROM.
func (t *tracer) rowNamed(parts []string, s *scope) value {
	n := len(parts)
	schema := ""
	if n > 1 {
		schema = parts[n-2]
	}
	if en := s.entry(schema, parts[n-1]); en != nil {
		return en.whole()
	}
	if n == 1 && t.isVariable(parts[0]) {
		return constant()
	}
	return unknownValue("a name " + quoteName(parts[n-1]) + " that weir does not find in FROM")
}

// indirection is (expression).field, (expression).* and subscripts.
func (t *tracer) indirection(x *pg.A_Indirection, s *scope) value {
	v := t.value(x.GetArg(), s)
	for _, n := range x.GetIndirection() {
		if name, ok := text(n); ok {
			v = t.part(v, false, name)
			continue
		}
		if n.GetAStar() != nil {
			continue
		}
		v = computed(v, t.children(n.GetAIndices(), s))
	}
	return v
}

func (t *tracer) rowOf(x *pg.RowExpr, s *scope) value {
	if len(x.GetArgs()) > maxColumns {
		return t.fold(x.GetArgs(), s)
	}
	parts := t.values(x.GetArgs(), s)
	v := computed(parts...)
	r := row{}
	for i, n := range x.GetArgs() {
		if isStar(n) {
			return v // f1, f2, ... are of unsure positions
		}
		r.add("f"+itoa(int64(i+1)), parts[i])
	}
	v.row = &r
	return v
}

func isStar(n *pg.Node) bool {
	fields := n.GetColumnRef().GetFields()
	if list := n.GetAIndirection().GetIndirection(); len(list) > 0 {
		fields = list
	}
	return len(fields) > 0 && fields[len(fields)-1].GetAStar() != nil
}

// cast keeps a value as it is when the type is text or varchar without a length.
func (t *tracer) cast(x *pg.TypeCast, s *scope) value {
	v := t.value(x.GetArg(), s)
	if plainText(x.GetTypeName()) {
		v.row = nil
		return v
	}
	out := computed(v)
	if quietCast(x.GetTypeName()) {
		return out
	}
	t.mayFail(out)
	names := texts(x.GetTypeName().GetNames())
	if len(names) == 0 {
		return out
	}
	schema := ""
	if len(names) > 1 {
		schema = names[len(names)-2]
	}
	for _, c := range t.w.c.castsTo(schema, names[len(names)-1]) {
		if f := (callee{schema: c.FunctionSchema, name: c.Function}); !t.w.c.contained(f) {
			out.join(t.effect(f).Lineage)
			t.w.call(f)
		}
	}
	out.Plain = out.Empty()
	return out
}

func plainText(n *pg.TypeName) bool {
	if len(n.GetTypmods()) > 0 || len(n.GetArrayBounds()) > 0 || n.GetSetof() {
		return false
	}
	switch strings.Join(texts(n.GetNames()), ".") {
	case "text", "pg_catalog.text", "varchar", "pg_catalog.varchar":
		return true
	}
	return false
}

// quietCast reports casts that cannot fail for any text or number: to a shorter
// text, to JSON strings.
func quietCast(n *pg.TypeName) bool {
	if len(n.GetArrayBounds()) > 0 || n.GetSetof() {
		return false
	}
	switch strings.Join(texts(n.GetNames()), ".") {
	case "varchar", "pg_catalog.varchar", "bpchar", "pg_catalog.bpchar", "name", "char", "pg_catalog.char", "text", "pg_catalog.text":
		return true
	}
	return false
}

// caseOf is CASE: its conditions are tests, and what it gives tells how they came out.
func (t *tracer) caseOf(x *pg.CaseExpr, s *scope) value {
	out := constant()
	conditions := constant()
	arg := x.GetArg()
	for _, n := range x.GetArgs() {
		when := n.GetCaseWhen()
		if arg != nil {
			conditions.join(t.compare(arg, []*pg.Node{when.GetExpr()}, s, "CASE").Lineage)
		} else {
			conditions.join(t.condition(when.GetExpr(), s, "CASE").Lineage)
		}
		out.join(t.value(when.GetResult(), s).Lineage)
	}
	out.join(t.value(x.GetDefresult(), s).Lineage)
	if conditions.Empty() {
		return out
	}
	return computed(out, conditions)
}

// nullTest tells of a column as it is only what its mask tells too.
func (t *tracer) nullTest(x *pg.NullTest, s *scope) value {
	v := t.value(x.GetArg(), s)
	if v.Plain {
		return constant()
	}
	return computed(v)
}

// subLink is a subquery in an expression.
func (t *tracer) subLink(x *pg.SubLink, s *scope) value {
	r := t.query(x.GetSubselect().GetSelectStmt(), s)
	switch x.GetSubLinkType() {
	case pg.SubLinkType_EXISTS_SUBLINK:
		return constant() // what its conditions tell is in the tests
	case pg.SubLinkType_EXPR_SUBLINK:
		if len(r.values) == 1 && !r.open {
			return r.values[0]
		}
		return computed(r.all())
	case pg.SubLinkType_MULTIEXPR_SUBLINK:
		v := computed(r.all())
		v.row = &r
		return v
	case pg.SubLinkType_ARRAY_SUBLINK:
		return computed(r.all())
	}
	return computed(t.value(x.GetTestexpr(), s), r.all())
}

// canFail is a test that is none to who wrote it.
const canFail = "a calculation that can fail"

// mayFail notes that whether a statement succeeds depends on a value, which one can
// ask for without seeing it: 1 / (value - 5).
func (t *tracer) mayFail(v value) {
	if t.deciding == 0 && !v.Empty() {
		t.test(v, Compare, 1, canFail)
	}
}
