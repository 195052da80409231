package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/weirproxy/weir/internal/flow"
)

// cte is a WITH name in scope.
type cte struct {
	name  string
	outer *cte
}

func (w *walker) findCTE(name string) *cte {
	for c := w.ctes; c != nil; c = c.outer {
		if c.name == name {
			return c
		}
	}
	return nil
}

// lockable is a relation that FOR UPDATE would lock.
type lockable struct{ alias, resource string }

// scope remembers what a query changes for what is inside it.
func (w *walker) scope() func() {
	ctes, verb := w.ctes, w.verb
	w.verb = flow.Select
	return func() { w.ctes, w.verb = ctes, verb }
}

// with brings WITH names into scope, in the order in which they see each other.
func (w *walker) with(c *pg.WithClause) {
	if c == nil {
		return
	}
	if c.GetRecursive() {
		for _, n := range c.GetCtes() {
			w.ctes = &cte{n.GetCommonTableExpr().GetCtename(), w.ctes}
		}
		w.nodes(c.GetCtes())
		return
	}
	for _, n := range c.GetCtes() {
		w.node(n)
		w.ctes = &cte{n.GetCommonTableExpr().GetCtename(), w.ctes}
	}
}

func (w *walker) selectStmt(s *pg.SelectStmt) {
	if s == nil {
		return
	}
	defer w.scope()()
	w.with(s.GetWithClause())
	w.into(s.GetIntoClause())
	w.selectStmt(s.GetLarg())
	w.selectStmt(s.GetRarg())
	w.from(s)
	w.nodes(s.GetDistinctClause())
	w.nodes(s.GetTargetList())
	w.node(s.GetWhereClause())
	w.nodes(s.GetGroupClause())
	w.node(s.GetHavingClause())
	w.nodes(s.GetWindowClause())
	w.nodes(s.GetValuesLists())
	w.nodes(s.GetSortClause())
	w.node(s.GetLimitOffset())
	w.node(s.GetLimitCount())
}

// from walks FROM and turns FOR UPDATE and its like into lock.
func (w *walker) from(s *pg.SelectStmt) {
	if len(s.GetLockingClause()) == 0 {
		w.nodes(s.GetFromClause())
		return
	}
	outer := w.locked
	var named []lockable
	w.locked = &named
	w.nodes(s.GetFromClause())
	w.locked = outer
	if outer != nil {
		*outer = append(*outer, named...)
	}
	for _, n := range s.GetLockingClause() {
		w.lockRows(n.GetLockingClause().GetLockedRels(), named)
	}
}

func (w *walker) lockRows(of []*pg.Node, named []lockable) {
	if len(of) == 0 {
		for _, l := range named {
			w.add(flow.Lock, l.resource)
		}
		return
	}
	for _, n := range of {
		found := false
		for _, l := range named {
			if l.alias == n.GetRangeVar().GetRelname() {
				w.add(flow.Lock, l.resource)
				found = true
			}
		}
		if !found { // a subquery's alias: everything that it may lock
			w.lockRows(nil, named)
		}
	}
}

// rangeVar is a relation's name where a relation is read, or, in DDL, where it
// is changed.
func (w *walker) rangeVar(r *pg.RangeVar) {
	if w.verb != flow.Select {
		w.relation(w.verb, r)
		return
	}
	w.readRelation(r)
}

func aliasOf(r *pg.RangeVar) string {
	if a := r.GetAlias().GetAliasname(); a != "" {
		return a
	}
	return r.GetRelname()
}

func (w *walker) readRelation(r *pg.RangeVar) {
	if r == nil {
		return
	}
	if r.GetSchemaname() == "" && r.GetCatalogname() == "" && w.findCTE(r.GetRelname()) != nil {
		return
	}
	for _, n := range w.resolve(r) {
		w.read(n)
		if w.locked != nil {
			*w.locked = append(*w.locked, lockable{aliasOf(r), n.resource()})
		}
	}
}

// read is reading from one relation.
func (w *walker) read(n named) {
	if !n.harmless() {
		w.add(flow.Select, n.resource())
	}
	if n.rel == nil {
		w.addRead(Read{Schema: n.schema, Name: n.name})
		return
	}
	w.readTree(n.rel, false, make(map[uint32]bool))
}

// readTree adds a relation with what stands behind it: children, and what views
// read.
func (w *walker) readTree(r *Relation, viaView bool, seen map[uint32]bool) {
	if seen[r.OID] {
		return
	}
	seen[r.OID] = true
	w.st.Opaque = w.st.Opaque || r.Opaque
	isView := r.Kind == 'v' || r.Kind == 'm'
	w.addRead(Read{OID: r.OID, Schema: r.Schema, Name: r.Name, DependsOnViews: viaView || isView})
	for _, id := range r.Children {
		if child := w.c.Relations[id]; child != nil {
			w.readTree(child, viaView, seen)
		}
	}
	for _, b := range r.BaseColumns {
		if base := w.c.Relations[b.Relation]; base != nil {
			w.readTree(base, true, seen)
		}
	}
}

// addRead keeps one entry a relation; one behind a view stays marked.
func (w *walker) addRead(r Read) {
	key := Read{OID: r.OID, Schema: r.Schema, Name: r.Name}
	if i, ok := w.reads[key]; ok {
		have := &w.st.Reads[i]
		have.DependsOnViews = have.DependsOnViews || r.DependsOnViews
		return
	}
	if w.reads == nil {
		w.reads = make(map[Read]int, 4)
	}
	w.reads[key] = len(w.st.Reads)
	w.st.Reads = append(w.st.Reads, r)
}

// resolve is what a relation's name can mean.
func (w *walker) resolve(r *pg.RangeVar) []named {
	return w.resolveName(r.GetSchemaname(), r.GetRelname())
}

func (w *walker) resolveName(schema, name string) []named {
	if schema == "" {
		out, found := w.s.relations(w.c, name)
		w.st.Unresolved = w.st.Unresolved || !found
		if len(w.s.Temp) > 0 {
			w.st.looksUp = true
		}
		return out
	}
	n := named{schema: schema, name: name, rel: w.c.Relation(schema, name)}
	system := schema == pgCatalog || schema == infoSchema
	if n.rel == nil && schema != pgTemp && (!system || w.c.hasSystem()) {
		w.st.Unresolved = true
	}
	return []named{n}
}

// relation adds a verb on every relation that a name can mean.
func (w *walker) relation(v flow.Verb, r *pg.RangeVar) []named {
	if r == nil {
		return nil
	}
	list := w.resolve(r)
	for _, n := range list {
		w.add(v, n.resource())
	}
	return list
}

// target is the relation that INSERT, UPDATE, DELETE or MERGE changes. WITH names
// do not hide it.
func (w *walker) target(v flow.Verb, r *pg.RangeVar, unrestricted bool) []named {
	list := w.resolve(r)
	for _, n := range list {
		w.set.add(flow.Access{Verb: v, Resource: n.resource(), Unrestricted: unrestricted})
	}
	return list
}

// returning: rows of the target come back, so it is read. WHERE and SET of the
// target alone do not make it a select: what they look at stays in the server,
// except for how many rows there were.
func (w *walker) returning(list []*pg.Node, target []named) {
	if len(list) == 0 {
		return
	}
	for _, n := range target {
		w.read(n)
	}
	w.nodes(list)
}

func (w *walker) insert(s *pg.InsertStmt) {
	defer w.scope()()
	w.with(s.GetWithClause())
	target := w.target(flow.Insert, s.GetRelation(), false)
	w.nodes(s.GetCols())
	w.node(s.GetSelectStmt())
	if c := s.GetOnConflictClause(); c != nil {
		if c.GetAction() == pg.OnConflictAction_ONCONFLICT_UPDATE {
			for _, n := range target {
				w.add(flow.Update, n.resource())
			}
		}
		w.children(c)
	}
	w.returning(s.GetReturningList(), target)
}

func (w *walker) update(s *pg.UpdateStmt) {
	defer w.scope()()
	w.with(s.GetWithClause())
	target := w.target(flow.Update, s.GetRelation(), !containsColumn(s.GetWhereClause()))
	for _, n := range w.resolve(s.GetRelation()) {
		if n.schema == pgCatalog && n.name == "pg_settings" {
			w.fail("an UPDATE of pg_settings changes settings that weir has to follow; use SET")
		}
	}
	w.nodes(s.GetFromClause())
	w.nodes(s.GetTargetList())
	w.node(s.GetWhereClause())
	w.returning(s.GetReturningList(), target)
}

func (w *walker) delete(s *pg.DeleteStmt) {
	defer w.scope()()
	w.with(s.GetWithClause())
	target := w.target(flow.Delete, s.GetRelation(), !containsColumn(s.GetWhereClause()))
	w.nodes(s.GetUsingClause())
	w.node(s.GetWhereClause())
	w.returning(s.GetReturningList(), target)
}

func (w *walker) merge(s *pg.MergeStmt) {
	defer w.scope()()
	w.with(s.GetWithClause())
	target := w.target(flow.Merge, s.GetRelation(), false)
	w.node(s.GetJoinCondition())
	w.node(s.GetSourceRelation())
	for _, n := range s.GetMergeWhenClauses() {
		w.mergeWhen(n.GetMergeWhenClause(), target)
	}
	w.returning(s.GetReturningList(), target)
}

func (w *walker) mergeWhen(c *pg.MergeWhenClause, target []named) {
	if c == nil {
		w.fail("a form of MERGE that weir does not know")
		return
	}
	for _, t := range target {
		switch c.GetCommandType() {
		case pg.CmdType_CMD_INSERT:
			w.add(flow.Insert, t.resource())
		case pg.CmdType_CMD_UPDATE:
			w.add(flow.Update, t.resource())
		case pg.CmdType_CMD_DELETE:
			w.add(flow.Delete, t.resource())
		}
	}
	w.children(c)
}

func (w *walker) join(x *pg.JoinExpr) {
	w.node(x.GetLarg())
	w.node(x.GetRarg())
	w.node(x.GetQuals())
	for _, n := range texts(x.GetUsingClause()) {
		w.name(n)
	}
	if x.GetIsNatural() || len(x.GetUsingClause()) > 0 {
		w.equals()
	}
}

// into is SELECT INTO and the target of CREATE TABLE AS.
func (w *walker) into(x *pg.IntoClause) {
	if x == nil {
		return
	}
	w.create(x.GetRel())
	w.nodes(x.GetOptions())
}
