package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// query is what each column of a SELECT's rows can carry. outer is the scope that it
// stands in.
func (t *tracer) query(q *pg.SelectStmt, outer *scope) row {
	switch {
	case q == nil:
		return row{}
	case !t.x.step():
		return row{open: true, rest: unknownValue(tooMuch)}
	}
	defer func(ctes *namedRows, windows map[string]value) { t.ctes, t.windows = ctes, windows }(t.ctes, t.windows)
	t.windows = nil
	t.with(q.GetWithClause(), outer)
	switch {
	case q.GetLarg() != nil:
		return t.union(q, outer)
	case len(q.GetValuesLists()) > 0:
		r := t.valueLists(q.GetValuesLists(), outer)
		t.sortAndLimit(q, &scope{outer: outer, items: []item{{columns: r}}}, r)
		return r
	}
	s := t.from(q.GetFromClause(), outer)
	for _, n := range q.GetWindowClause() {
		w := n.GetWindowDef()
		if t.windows == nil {
			t.windows = make(map[string]value)
		}
		t.windows[w.GetName()] = t.window(w, s)
	}
	t.condition(q.GetWhereClause(), s, "WHERE")
	out := t.targets(q.GetTargetList(), s)
	for _, n := range q.GetGroupClause() {
		t.group(n, s, out)
	}
	t.condition(q.GetHavingClause(), s, "HAVING")
	t.distinct(q.GetDistinctClause(), s, out)
	t.sortAndLimit(q, s, out)
	return out
}

// union is UNION, INTERSECT and EXCEPT. Where they leave rows out by comparing whole
// rows, that is a test of every column.
func (t *tracer) union(q *pg.SelectStmt, outer *scope) row {
	left, right := t.query(q.GetLarg(), outer), t.query(q.GetRarg(), outer)
	out := zip(left, right)
	if q.GetOp() != pg.SetOperation_SETOP_UNION || !q.GetAll() {
		t.test(out.all(), Free, 1, map[pg.SetOperation]string{pg.SetOperation_SETOP_UNION: "UNION without ALL",
			pg.SetOperation_SETOP_INTERSECT: "INTERSECT", pg.SetOperation_SETOP_EXCEPT: "EXCEPT"}[q.GetOp()])
	}
	t.sortAndLimit(q, &scope{outer: outer, items: []item{{columns: out}}}, out)
	return out
}

// zip unites two rows column by column, under the names of the first.
func zip(a, b row) row {
	if a.open || b.open || len(a.values) != len(b.values) {
		rest := either(a.all(), b.all())
		out := row{open: true, rest: rest}
		for _, name := range a.names {
			out.add(name, rest)
		}
		return out
	}
	var out row
	for i := range a.values {
		out.add(a.names[i], either(a.values[i], b.values[i]))
	}
	return out
}

func (t *tracer) valueLists(lists []*pg.Node, outer *scope) row {
	var out row
	s := &scope{outer: outer}
	width := len(lists[0].GetList().GetItems())
	for k := range min(width, maxColumns) {
		out.add("column"+itoa(int64(k+1)), constant())
	}
	out.rest = constant()
	for _, n := range lists {
		for k, item := range n.GetList().GetItems() {
			v := t.value(item, s)
			if k < len(out.values) {
				out.values[k].join(v.Lineage)
			} else { // an error to the server
				out.open = true
				out.rest.join(v.Lineage)
			}
		}
	}
	return out
}

// maxColumns is how many columns the server lets a row have (MaxTupleAttributeNumber,
// htup_details.h).
const maxColumns = 1664

// targets is a target list, or RETURNING.
func (t *tracer) targets(list []*pg.Node, s *scope) row {
	var out row
	if len(list) > maxColumns { // which the server refuses
		return row{open: true, rest: t.fold(list, s)}
	}
	for _, n := range list {
		x := n.GetResTarget()
		if isStar(x.GetVal()) {
			r := t.starOf(x.GetVal(), s)
			t.took(r.all())
			out.append(&r)
			continue
		}
		name := x.GetName()
		if name == "" {
			name = outputName(x.GetVal())
		}
		out.add(name, t.value(x.GetVal(), s))
	}
	return out
}

// starOf is *, name.* or (expression).* as a list of columns.
func (t *tracer) starOf(n *pg.Node, s *scope) row {
	if x := n.GetAIndirection(); x != nil {
		v := t.indirection(x, s)
		if v.row != nil {
			return *v.row
		}
		return row{open: true, rest: computed(v)}
	}
	parts := texts(n.GetColumnRef().GetFields())
	if len(parts) == 0 {
		r := s.star()
		return r
	}
	v := t.rowNamed(parts, s)
	if v.row != nil {
		return *v.row
	}
	return row{open: true, rest: computed(v)}
}

func (t *tracer) group(n *pg.Node, s *scope, out row) {
	if set := n.GetGroupingSet(); set != nil {
		for _, c := range set.GetContent() {
			t.group(c, s, out)
		}
		return
	}
	if r := n.GetRowExpr(); r != nil {
		for _, c := range r.GetArgs() {
			t.group(c, s, out)
		}
		return
	}
	if l := n.GetList(); l != nil {
		for _, c := range l.GetItems() {
			t.group(c, s, out)
		}
		return
	}
	// A column of FROM comes before one of the target list here (manual, SELECT).
	if name, ok := bareName(n); ok {
		if _, found := s.column(name); found {
			t.decides(n, s, "GROUP BY")
			return
		}
	}
	t.byPosition(n, s, out, "GROUP BY")
}

// byPosition tests an element of ORDER BY, GROUP BY or DISTINCT ON, which may be the
// number or the name of an output column.
func (t *tracer) byPosition(n *pg.Node, s *scope, out row, where string) value {
	if c := n.GetAConst(); c != nil {
		if i := int(c.GetIval().GetIval()); c.GetIval() != nil && i >= 1 && i <= len(out.values) && !out.open {
			t.test(out.values[i-1], Compare, 1, where)
			return out.values[i-1]
		}
		v := out.all()
		if out.open {
			t.test(v, Compare, 1, where)
			return v
		}
		return constant()
	}
	if name, ok := bareName(n); ok {
		if v, found, _ := out.find(name); found {
			t.test(v, Compare, 1, where)
			return v
		}
	}
	return t.decides(n, s, where)
}

func bareName(n *pg.Node) (string, bool) {
	fields := n.GetColumnRef().GetFields()
	if len(fields) != 1 {
		return "", false
	}
	return text(fields[0])
}

func (t *tracer) distinct(list []*pg.Node, s *scope, out row) {
	for _, n := range list {
		if n.GetNode() == nil { // DISTINCT without ON
			t.test(out.all(), Compare, 1, "DISTINCT")
			continue
		}
		t.byPosition(n, s, out, "DISTINCT ON")
	}
}

// order is one element of ORDER BY.
func (t *tracer) order(n *pg.Node, s *scope, out row, where string) value {
	by := n.GetSortBy()
	if by == nil {
		return t.byPosition(n, s, out, where)
	}
	return t.byPosition(by.GetNode(), s, out, where)
}

func (t *tracer) sortAndLimit(q *pg.SelectStmt, s *scope, out row) {
	for _, n := range q.GetSortClause() {
		t.order(n, s, out, "ORDER BY")
	}
	for _, n := range []*pg.Node{q.GetLimitCount(), q.GetLimitOffset()} {
		t.test(t.quietly(func() value { return t.value(n, s) }), Free, 1, "LIMIT")
	}
}

// window is what a window's definition makes known.
func (t *tracer) window(w *pg.WindowDef, s *scope) value {
	out := constant()
	for _, name := range []string{w.GetRefname(), w.GetName()} {
		if v, ok := t.windows[name]; ok && name != "" {
			out.join(v.Lineage)
		}
	}
	for _, n := range w.GetPartitionClause() {
		out.join(t.decides(n, s, "PARTITION BY").Lineage)
	}
	for _, n := range w.GetOrderClause() {
		out.join(t.decides(n.GetSortBy().GetNode(), s, "ORDER BY of a window").Lineage)
	}
	for _, n := range []*pg.Node{w.GetStartOffset(), w.GetEndOffset()} {
		v := t.quietly(func() value { return t.value(n, s) })
		t.test(v, Free, 1, "the frame of a window")
		out.join(v.Lineage)
	}
	return computed(out)
}

// with brings WITH names into scope, in the order in which they see each other.
func (t *tracer) with(c *pg.WithClause, outer *scope) {
	if c.GetRecursive() {
		t.recursive(c.GetCtes(), outer)
		return
	}
	for _, n := range c.GetCtes() {
		x := n.GetCommonTableExpr()
		t.ctes = &namedRows{x.GetCtename(), t.cte(x, outer), t.ctes}
	}
}

// cte is one WITH query.
func (t *tracer) cte(x *pg.CommonTableExpr, outer *scope) row {
	r := t.rowsOf(x.GetCtequery(), outer).renamed(texts(x.GetAliascolnames()))
	if search := x.GetSearchClause(); search != nil {
		r.add(search.GetSearchSeqColumn(), computed(r.all()))
	}
	if cycle := x.GetCycleClause(); cycle != nil {
		all := computed(r.all())
		t.test(all, Compare, 1, "CYCLE")
		r.add(cycle.GetCycleMarkColumn(), all)
		r.add(cycle.GetCyclePathColumn(), all)
	}
	return r
}

// maxRounds bounds how often recursive queries are gone through, apart from once for
// each of them. Each round can only add columns, and one more than there are columns
// that depend on each other is enough.
const maxRounds = 16

// recursive goes through queries that see themselves and each other, those that come
// later too, until nothing is added. The first time their names bring nothing.
func (t *tracer) recursive(list []*pg.Node, outer *scope) {
	names := make([]*namedRows, len(list))
	for i, n := range list {
		x := n.GetCommonTableExpr()
		t.ctes = &namedRows{x.GetCtename(), row{open: true, rest: constant()}, t.ctes}
		names[i] = t.ctes
	}
	settled := false
	for round := 0; !settled && round < maxRounds+len(list); round++ {
		settled = true
		for i, n := range list {
			x := n.GetCommonTableExpr()
			next := t.again(func() row { return t.start(x, round, outer) })
			settled = settled && same(next, names[i].row)
			names[i].row = next
		}
	}
	for i, n := range list {
		names[i].row = t.cte(n.GetCommonTableExpr(), outer)
		if settled {
			continue
		}
		why := unknownValue("recursive queries with too many columns that depend on each other")
		for k := range names[i].row.values {
			names[i].row.values[k].join(why.Lineage)
		}
	}
}

// start is a WITH query as it is gone through; in the first round only what does not
// depend on itself.
func (t *tracer) start(x *pg.CommonTableExpr, round int, outer *scope) row {
	if q := x.GetCtequery().GetSelectStmt(); round == 0 && q.GetLarg() != nil && q.GetWithClause() == nil && x.GetSearchClause() == nil && x.GetCycleClause() == nil {
		return t.query(q.GetLarg(), outer).renamed(texts(x.GetAliascolnames()))
	}
	return t.cte(x, outer)
}

// again evaluates what will be evaluated once more: its findings are dropped.
func (t *tracer) again(f func() row) row {
	own := t.found
	t.found = newFindings()
	r := f()
	t.found = own
	return r
}

func same(a, b row) bool {
	if a.open != b.open || len(a.values) != len(b.values) {
		return false
	}
	for i := range a.values {
		if !equal(a.values[i], b.values[i]) {
			return false
		}
	}
	return !a.open || equal(a.rest, b.rest)
}

func equal(a, b value) bool {
	if a.Plain != b.Plain || a.Unknown != b.Unknown || len(a.Columns) != len(b.Columns) {
		return false
	}
	for i := range a.Columns {
		if a.Columns[i] != b.Columns[i] {
			return false
		}
	}
	return true
}

// rowsOf is the rows that any statement in a WITH returns.
func (t *tracer) rowsOf(n *pg.Node, outer *scope) row {
	if q := n.GetSelectStmt(); q != nil {
		return t.query(q, outer)
	}
	return t.change(unwrap(n), outer)
}

// from evaluates FROM: what stands to the left is seen by functions and LATERAL.
func (t *tracer) from(list []*pg.Node, outer *scope) *scope {
	s := &scope{outer: outer}
	t.sources(list, s)
	return s
}

// sources adds elements of FROM to a scope.
func (t *tracer) sources(list []*pg.Node, s *scope) {
	if len(list) > maxFrom {
		v := t.took(unknownValue("more elements of FROM than weir follows"))
		s.add(item{columns: row{open: true, rest: v}})
		return
	}
	for _, n := range list {
		s.add(t.source(n, s))
	}
}

// maxFrom bounds the elements of one FROM.
const maxFrom = 2048

// source is one element of FROM. s holds what stands to its left, and outside.
func (t *tracer) source(n *pg.Node, s *scope) item {
	switch x := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		return t.relationItem(x.RangeVar)
	case *pg.Node_RangeSubselect:
		seen := s.outer
		if x.RangeSubselect.GetLateral() {
			seen = s
		}
		return named1(x.RangeSubselect.GetAlias(), "", t.rowsOf(x.RangeSubselect.GetSubquery(), seen))
	case *pg.Node_RangeFunction:
		return t.functionItem(x.RangeFunction, s)
	case *pg.Node_RangeTableSample:
		i := t.source(x.RangeTableSample.GetRelation(), s)
		v := t.quietly(func() value {
			return computed(append(t.values(x.RangeTableSample.GetArgs(), s), t.value(x.RangeTableSample.GetRepeatable(), s))...)
		})
		t.test(v, Free, 1, "TABLESAMPLE")
		return i
	case *pg.Node_RangeTableFunc:
		return t.xmlTable(x.RangeTableFunc, s)
	case *pg.Node_JsonTable:
		return t.jsonTable(x.JsonTable, s)
	case *pg.Node_JoinExpr:
		return t.joinItem(x.JoinExpr, s)
	}
	v := t.anything(unwrap(n), s)
	v.join(unknownValue("an element of FROM that weir does not know").Lineage)
	t.took(v)
	return item{columns: row{open: true, rest: v}}
}

// named1 is an item with one name. Without an alias it has none (PostgreSQL 16).
func named1(a *pg.Alias, name string, r row) item {
	r = r.renamed(texts(a.GetColnames()))
	if a.GetAliasname() != "" {
		name = a.GetAliasname()
	}
	i := item{columns: r}
	if name != "" {
		i.entries = []*entry{{name: name, row: r}}
	}
	return i
}

// relationItem is a table, a view or a WITH name.
func (t *tracer) relationItem(r *pg.RangeVar) item {
	if r.GetSchemaname() == "" && r.GetCatalogname() == "" {
		for c := t.ctes; c != nil; c = c.outer {
			if c.name == r.GetRelname() {
				return named1(r.GetAlias(), c.name, c.row)
			}
		}
	}
	columns, schema := t.relation(r.GetSchemaname(), r.GetRelname())
	i := named1(r.GetAlias(), r.GetRelname(), columns)
	i.entries[0].relation = true
	if r.GetAlias() == nil {
		i.entries[0].schema = schema
	}
	return i
}

// functionItem is FROM f(...): of what it returns mostly the names do not show.
func (t *tracer) functionItem(x *pg.RangeFunction, s *scope) item {
	out := row{open: true, rest: constant()}
	name := ""
	for _, n := range x.GetFunctions() {
		for k, f := range n.GetList().GetItems() {
			if k > 0 { // the definition of its columns
				for _, d := range f.GetList().GetItems() {
					out.add(d.GetColumnDef().GetColname(), out.rest)
				}
				continue
			}
			v := t.value(f, s)
			v.row = nil
			out.rest.join(v.Lineage)
			if name == "" {
				name = outputName(f)
			}
		}
	}
	for _, d := range x.GetColdeflist() {
		out.add(d.GetColumnDef().GetColname(), out.rest)
	}
	out.rest.Plain = out.rest.Empty()
	for i := range out.values {
		out.values[i] = out.rest
	}
	if a := x.GetAlias().GetAliasname(); a != "" {
		name = a
	}
	if names := texts(x.GetAlias().GetColnames()); len(names) > 0 && len(out.values) == 0 {
		for _, c := range names {
			out.add(c, out.rest)
		}
	} else if len(out.values) == 0 {
		out.add(name, out.rest) // of a function that returns one value
		out.values[0] = out.rest
	} else {
		out = out.renamed(names)
	}
	if x.GetOrdinality() {
		out.add("ordinality", out.rest)
	}
	return item{columns: out, entries: []*entry{{name: name, row: out}}}
}

func (t *tracer) xmlTable(x *pg.RangeTableFunc, s *scope) item {
	v := computed(t.value(x.GetDocexpr(), s), t.value(x.GetRowexpr(), s), computed(t.values(x.GetNamespaces(), s)...))
	var out row
	for _, n := range x.GetColumns() {
		c := n.GetRangeTableFuncCol()
		out.add(c.GetColname(), computed(v, t.value(c.GetColexpr(), s), t.value(c.GetColdefexpr(), s)))
	}
	t.test(out.all(), Free, 1, "the number of rows of XMLTABLE")
	return named1(x.GetAlias(), "xmltable", out)
}

func (t *tracer) jsonTable(x *pg.JsonTable, s *scope) item {
	v := computed(t.children(x, s))
	var out row
	var columns func(list []*pg.Node)
	columns = func(list []*pg.Node) {
		for _, n := range list {
			c := n.GetJsonTableColumn()
			if len(c.GetColumns()) > 0 {
				columns(c.GetColumns())
			} else {
				out.add(c.GetName(), v)
			}
		}
	}
	columns(x.GetColumns())
	t.test(v, Free, 1, "the number of rows of JSON_TABLE")
	return named1(x.GetAlias(), "json_table", out)
}

// joinItem is a JOIN. Columns of USING are merged and come first.
func (t *tracer) joinItem(x *pg.JoinExpr, s *scope) item {
	left := t.source(x.GetLarg(), s)
	seen := &scope{outer: s.outer, items: append(s.items[:len(s.items):len(s.items)], left)}
	right := t.source(x.GetRarg(), seen)
	using := texts(x.GetUsingClause())
	if x.GetIsNatural() {
		using = t.common(&left.columns, &right.columns)
	}
	merged := t.merge(using, left.columns, right.columns)
	both := item{entries: append(left.entries[:len(left.entries):len(left.entries)], right.entries...), columns: merged}
	if x.GetQuals() != nil {
		t.condition(x.GetQuals(), &scope{outer: s.outer, items: append(s.items[:len(s.items):len(s.items)], both)}, "JOIN")
	}
	if a := x.GetJoinUsingAlias().GetAliasname(); a != "" {
		shared := row{names: merged.names[:len(using)], values: merged.values[:len(using)]}
		both.entries = append(both.entries, &entry{name: a, row: shared})
	}
	if a := x.GetAlias(); a != nil {
		return named1(a, "", both.columns)
	}
	return both
}

// common are the names that NATURAL JOIN compares.
func (t *tracer) common(a, b *row) []string {
	if a.open || b.open {
		v := either(a.all(), b.all())
		t.test(v, Free, 1, "NATURAL JOIN")
	}
	var out []string
	for _, name := range a.names {
		if _, found, _ := b.find(name); found {
			out = append(out, name)
		}
	}
	return out
}

// merge is the columns of a JOIN. What USING compares is a test of both sides.
func (t *tracer) merge(using []string, left, right row) row {
	var out row
	out.rest = constant()
	shared := make(map[string]bool, len(using))
	for _, name := range using {
		l, _, _ := left.find(name)
		r, _, _ := right.find(name)
		v := either(l, r)
		t.test(v, Free, 1, "JOIN")
		t.took(v)
		out.add(name, v)
		shared[name] = true
	}
	for _, side := range []*row{&left, &right} {
		rest := row{open: side.open, rest: side.rest, tables: side.tables}
		for i, name := range side.names {
			if !shared[name] {
				rest.add(name, side.values[i])
			}
		}
		out.append(&rest)
	}
	return out
}
