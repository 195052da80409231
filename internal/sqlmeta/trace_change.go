package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// change is INSERT, UPDATE, DELETE or MERGE: what it stores, what it tests, and the
// rows of RETURNING.
func (t *tracer) change(m proto.Message, outer *scope) row {
	defer func(ctes *namedRows) { t.ctes = ctes }(t.ctes)
	switch x := m.(type) {
	case *pg.InsertStmt:
		return t.insert(x, outer)
	case *pg.UpdateStmt:
		t.with(x.GetWithClause(), outer)
		g := t.target(x.GetRelation())
		s := t.beside(g, x.GetFromClause(), outer)
		t.assign(g, x.GetTargetList(), s)
		t.condition(x.GetWhereClause(), s, "WHERE")
		return t.returning(g, x.GetReturningList(), s)
	case *pg.DeleteStmt:
		t.with(x.GetWithClause(), outer)
		g := t.target(x.GetRelation())
		s := t.beside(g, x.GetUsingClause(), outer)
		t.condition(x.GetWhereClause(), s, "WHERE")
		return t.returning(g, x.GetReturningList(), s)
	case *pg.MergeStmt:
		t.with(x.GetWithClause(), outer)
		g := t.target(x.GetRelation())
		s := t.beside(g, []*pg.Node{x.GetSourceRelation()}, outer)
		t.condition(x.GetJoinCondition(), s, "MERGE")
		for _, n := range x.GetMergeWhenClauses() {
			t.mergeWhen(g, n.GetMergeWhenClause(), s)
		}
		return t.returning(g, x.GetReturningList(), s)
	}
	return row{}
}

// goal is a relation that is written to.
type goal struct {
	list    []named
	columns row
	item    item
	lasting bool
	rules   value // unknown when the server makes another statement of this one
}

func (t *tracer) target(r *pg.RangeVar) *goal {
	g := &goal{list: t.w.resolve(r), rules: constant()}
	g.lasting = lasting(g.list)
	g.columns, _ = t.relation(r.GetSchemaname(), r.GetRelname())
	g.item = named1(r.GetAlias(), r.GetRelname(), g.columns)
	g.item.entries[0].relation = true
	for _, n := range g.list {
		if n.rel != nil && n.rel.Rewritten {
			g.rules = unknownValue("rules of " + n.resource())
			t.took(g.rules)
		}
	}
	if r.GetAlias() == nil && len(g.list) == 1 {
		g.item.entries[0].schema = g.list[0].schema
	}
	return g
}

// column is a column of the target; an empty name is one that does not show.
func (g *goal) column(name string) Column {
	n := g.list[0]
	c := Column{Schema: n.schema, Table: n.name, Name: name}
	if n.rel != nil {
		c.Relation = n.rel.OID
		for i, have := range n.rel.Columns {
			if have == name && name != "" {
				c.Attr = int16(i + 1)
			}
		}
	}
	return c
}

// lasting reports whether one of the targets outlives the session. Rows of temporary
// relations are masked as a whole: the catalogue does not know them.
func lasting(targets []named) bool {
	for _, n := range targets {
		if n.schema != pgTemp {
			return true
		}
	}
	return len(targets) == 0
}

// store notes that a value goes into a column of the target.
func (t *tracer) store(g *goal, name string, v value) {
	v.join(t.implied.Lineage)
	c := g.column(name)
	t.found.wrote(c.String())
	if g.lasting && !v.Empty() {
		t.found.stored = append(t.found.stored, Stored{c, v.Lineage})
	}
}

// beside is the scope of a target with what stands beside it.
func (t *tracer) beside(g *goal, list []*pg.Node, outer *scope) *scope {
	s := &scope{outer: outer}
	s.add(g.item)
	t.sources(list, s)
	return s
}

// assign is SET of UPDATE, MERGE and ON CONFLICT.
func (t *tracer) assign(g *goal, list []*pg.Node, s *scope) {
	for _, n := range list {
		x := n.GetResTarget()
		v := t.assigned(x.GetVal(), s)
		for _, sub := range x.GetIndirection() {
			v = computed(v, t.value(sub, s))
		}
		t.store(g, x.GetName(), v)
	}
}

// assigned is a value, or one of several that are set together: (a, b) = (...).
func (t *tracer) assigned(n *pg.Node, s *scope) value {
	m := n.GetMultiAssignRef()
	if m == nil {
		return t.value(n, s)
	}
	v := t.value(m.GetSource(), s)
	if i := int(m.GetColno()); v.row != nil && !v.row.open && i >= 1 && i <= len(v.row.values) {
		return v.row.values[i-1]
	}
	return computed(v)
}

// returning is the rows that a change returns. old and new are names of PostgreSQL 18.
func (t *tracer) returning(g *goal, list []*pg.Node, s *scope) row {
	if len(list) == 0 {
		return row{}
	}
	if g.rules.Unknown != "" {
		t.targets(list, s)
		return row{open: true, rest: g.rules}
	}
	also := item{entries: []*entry{{name: "old", row: g.columns, last: true}, {name: "new", row: g.columns, last: true}}}
	return t.targets(list, &scope{outer: s.outer, items: append(s.items[:len(s.items):len(s.items)], also)})
}

func (t *tracer) insert(x *pg.InsertStmt, outer *scope) row {
	t.with(x.GetWithClause(), outer)
	g := t.target(x.GetRelation())
	source := row{}
	if q := x.GetSelectStmt().GetSelectStmt(); q != nil {
		source = t.query(q, outer)
	}
	names := make([]string, 0, len(x.GetCols()))
	for _, n := range x.GetCols() {
		names = append(names, n.GetResTarget().GetName())
	}
	if len(names) == 0 {
		names = g.columns.names
	}
	excluded := row{open: source.open, rest: source.rest}
	for i, v := range source.values {
		name := ""
		if i < len(names) && !source.open {
			name = names[i]
		}
		t.store(g, name, v)
		excluded.add(name, v)
	}
	if source.open {
		t.store(g, "", source.all())
	}
	s := &scope{outer: outer}
	s.add(g.item)
	if c := x.GetOnConflictClause(); c != nil {
		t.conflict(g, c, x, names)
		with := &scope{outer: outer, items: []item{g.item, {entries: []*entry{{name: "excluded", row: excluded}}}}}
		t.assign(g, c.GetTargetList(), with)
		t.condition(c.GetWhereClause(), with, "ON CONFLICT")
	}
	return t.returning(g, x.GetReturningList(), s)
}

// conflict: which rows are there already is a test of the columns that must be unique.
func (t *tracer) conflict(g *goal, c *pg.OnConflictClause, x *pg.InsertStmt, written []string) {
	var names []string
	for _, n := range c.GetInfer().GetIndexElems() {
		if name := n.GetIndexElem().GetName(); name != "" {
			names = append(names, name)
		} else {
			t.decides(n.GetIndexElem().GetExpr(), &scope{items: []item{g.item}}, "ON CONFLICT")
		}
	}
	t.condition(c.GetInfer().GetWhereClause(), &scope{items: []item{g.item}}, "ON CONFLICT")
	if c.GetInfer() == nil || c.GetInfer().GetConname() != "" {
		names = written
	}
	kind, count := Free, 1
	if lists := x.GetSelectStmt().GetSelectStmt().GetValuesLists(); allValues(lists) {
		kind, count = Equal, len(lists)
	}
	for _, name := range names {
		if v, found, _ := g.columns.find(name); found {
			t.test(v, kind, count, "ON CONFLICT")
		}
	}
}

// allValues reports whether VALUES has nothing but values that stand in the statement.
func allValues(lists []*pg.Node) bool {
	for _, l := range lists {
		for _, n := range l.GetList().GetItems() {
			if !isValue(n) && n.GetSetToDefault() == nil {
				return false
			}
		}
	}
	return len(lists) > 0
}

func (t *tracer) mergeWhen(g *goal, c *pg.MergeWhenClause, s *scope) {
	t.condition(c.GetCondition(), s, "MERGE")
	if len(c.GetValues()) == 0 {
		t.assign(g, c.GetTargetList(), s)
		return
	}
	names := g.columns.names
	if len(c.GetTargetList()) > 0 {
		names = nil
		for _, n := range c.GetTargetList() {
			names = append(names, n.GetResTarget().GetName())
		}
	}
	for i, v := range t.values(c.GetValues(), s) {
		name := ""
		if i < len(names) {
			name = names[i]
		}
		t.store(g, name, v)
	}
}

// stores is SELECT INTO and CREATE TABLE AS.
func (t *tracer) stores(x *pg.IntoClause, r row) {
	if x == nil || x.GetSkipData() || x.GetRel().GetRelpersistence() == "t" || x.GetRel().GetSchemaname() == pgTemp {
		return
	}
	c := Column{Schema: x.GetRel().GetSchemaname(), Table: x.GetRel().GetRelname()}
	if c.Schema == "" {
		c.Schema = t.w.s.target(t.w.c)
	}
	v := r.all()
	v.join(t.implied.Lineage)
	if c.Schema == pgTemp || v.Empty() {
		return
	}
	t.found.stored = append(t.found.stored, Stored{c, v.Lineage})
}

// trace follows the values of a statement. Those that stand around another statement
// (EXPLAIN, EXECUTE, FETCH, COPY of a query, ...) take what that one has.
func (w *walker) trace(m proto.Message) {
	t := w.newTracer()
	t.impliedCalls()
	switch x := m.(type) {
	case *pg.SelectStmt:
		r := t.query(x, nil)
		if x.GetIntoClause() == nil {
			w.output(r, t.implied)
		}
		t.stores(x.GetIntoClause(), r)
	case *pg.InsertStmt, *pg.UpdateStmt, *pg.DeleteStmt, *pg.MergeStmt:
		w.output(t.change(x, nil), t.implied)
	case *pg.CopyStmt:
		w.traceCopy(t, x)
	case *pg.CallStmt:
		w.output(row{open: true, rest: computed(t.call(x.GetFunccall(), nil))}, t.implied)
	case *pg.ExecuteStmt:
		v := computed(t.values(x.GetParams(), nil)...)
		for i := range w.st.Output {
			w.st.Output[i].join(v.Lineage)
		}
		w.st.All.join(v.Lineage)
	case *pg.CreateTableAsStmt:
		var r row
		if x.GetQuery().GetExecuteStmt() != nil { // its rows go into the table, not to the client
			r = row{open: true, rest: value{Lineage: w.st.All}}
			w.st.Rows, w.st.Output, w.st.All = false, nil, Lineage{Plain: true}
		} else {
			r = t.rowsOf(x.GetQuery(), nil)
		}
		if x.GetObjtype() != pg.ObjectType_OBJECT_MATVIEW { // whose columns are followed as a view's
			t.stores(x.GetInto(), r)
		}
	case *pg.ViewStmt:
		t.rowsOf(x.GetQuery(), nil)
	case *pg.CreateSchemaStmt:
		for _, n := range x.GetSchemaElts() {
			w.trace(unwrap(n))
		}
		return
	case *pg.AlterTableStmt:
		t.alterTable(x)
	case *pg.IndexStmt:
		t.definition(x, x.GetRelation())
	case *pg.CreateTrigStmt:
		t.definition(x, x.GetRelation())
	case *pg.RuleStmt:
		t.definition(x, x.GetRelation())
	case *pg.CreatePolicyStmt:
		t.definition(x, x.GetTable())
	case *pg.AlterPolicyStmt:
		t.definition(x, x.GetTable())
	case *pg.CreateStatsStmt:
		for _, n := range x.GetRelations() {
			t.definition(x, n.GetRangeVar())
		}
	}
	if t.conditions { // where in them an operator stands is not followed
		t.test(t.implied, Free, 1, "an operator")
	}
	if t.x.exhausted() {
		w.fail(tooMuch)
	}
	w.collect(t.found, t.x)
}

// impliedCalls takes what operators of users read as if it could be anywhere.
func (t *tracer) impliedCalls() {
	v := constant()
	for _, c := range t.w.implied {
		v.join(t.effect(c).Lineage)
	}
	t.w.st.All.join(v.Lineage)
	t.implied = v
}

// output enters the rows that a statement returns.
func (w *walker) output(r row, implied value) {
	if len(r.values) == 0 && !r.open {
		return // no RETURNING
	}
	w.st.Rows = true
	w.st.All.join(r.all().Lineage)
	if r.open || w.st.Output != nil {
		w.st.Output = nil
		return
	}
	w.st.Output = make([]Output, len(r.values))
	for i, v := range r.values {
		v.join(implied.Lineage)
		w.st.Output[i] = Output{r.names[i], v.Lineage}
	}
}

// collect enters what a trace came across.
func (w *walker) collect(f *findings, x *expansion) {
	w.st.reads.join(f.read)
	w.st.calls.join(f.calls)
	w.st.Opaque = w.st.Opaque || f.calls.Unknown != ""
	w.st.Tests = append(w.st.Tests, f.tests...)
	w.st.Stored = append(w.st.Stored, f.stored...)
	w.st.wants = append(w.st.wants, x.wants...)
	for name := range f.writes {
		w.written(name)
	}
}

func (w *walker) traceCopy(t *tracer, x *pg.CopyStmt) {
	if x.GetQuery() != nil { // its own statement has been traced
		w.storesFile(x.GetFilename(), x.GetIsProgram())
		return
	}
	g := t.target(x.GetRelation())
	s := &scope{}
	s.add(g.item)
	t.condition(x.GetWhereClause(), s, "WHERE")
	names := texts(x.GetAttlist())
	if len(names) == 0 && w.st.Copy != nil {
		names = w.st.Copy.Columns
	}
	if x.GetIsFrom() {
		for _, name := range names {
			t.found.wrote(g.column(name).String())
		}
		return
	}
	defer w.storesFile(x.GetFilename(), x.GetIsProgram())
	out := row{open: len(names) == 0 && g.columns.open, rest: g.columns.rest}
	for _, name := range names {
		v, found, _ := g.columns.find(name)
		if !found && !g.columns.open {
			v = unknownValue("a column " + quoteName(name) + " that weir does not find")
		}
		out.add(name, t.took(v))
	}
	w.output(out, t.implied)
}

// storesFile: what goes to a file or program of the server is masked by nobody.
func (w *walker) storesFile(name string, program bool) {
	if name == "" && !program || w.st.All.Empty() {
		return
	}
	c := Column{Schema: "the server's files", Table: name}
	if program {
		c.Schema = "a program of the server"
	}
	w.st.Stored = append(w.st.Stored, Stored{c, w.st.All})
}

// definition: an index, a trigger or a policy that looks at a column's values tells
// about them by what it makes of the rows.
func (t *tracer) definition(m proto.Message, r *pg.RangeVar) {
	g := t.target(r)
	s := &scope{}
	s.add(g.item)
	s.add(item{entries: []*entry{{name: "old", row: g.columns, last: true}, {name: "new", row: g.columns, last: true}}})
	v := t.quietly(func() value { return t.children(m, s) })
	t.test(v, Compare, 1, "a definition")
}

func (t *tracer) alterTable(x *pg.AlterTableStmt) {
	g := t.target(x.GetRelation())
	s := &scope{}
	s.add(g.item)
	for _, n := range x.GetCmds() {
		c := n.GetAlterTableCmd()
		v := t.quietly(func() value { return t.children(c, s) })
		switch c.GetSubtype() {
		case pg.AlterTableType_AT_AddColumn: // GENERATED
			t.store(g, c.GetDef().GetColumnDef().GetColname(), computed(v))
		case pg.AlterTableType_AT_AlterColumnType: // USING
			t.store(g, c.GetName(), computed(v))
		default:
			t.test(v, Compare, 1, "a definition")
		}
	}
}
