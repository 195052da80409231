package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/flow"
)

// statement applies the rule of a statement, at the top or inside another one.
// It reports whether there is one.
func (w *walker) statement(m proto.Message) bool {
	return w.queryStatement(m) || w.sessionStatement(m) || w.tableStatement(m) ||
		w.objectStatement(m) || w.serverStatement(m)
}

// mayBeHarmless lists the kinds of statements that may come out with nothing to
// decide. Any other one has an access of its own, or weir has misread it.
func mayBeHarmless(m proto.Message) bool {
	switch m.(type) {
	case *pg.SelectStmt, *pg.PrepareStmt, *pg.ExecuteStmt, *pg.DeallocateStmt, *pg.DeclareCursorStmt,
		*pg.FetchStmt, *pg.ClosePortalStmt, *pg.ExplainStmt, *pg.TransactionStmt, *pg.ConstraintsSetStmt,
		*pg.VariableSetStmt, *pg.VariableShowStmt, *pg.DiscardStmt, *pg.UnlistenStmt:
		return true
	}
	return false
}

// queryStatement: what reads and writes rows.
func (w *walker) queryStatement(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.SelectStmt:
		w.selectStmt(x)
		w.plainConfig(x)
	case *pg.InsertStmt:
		w.insert(x)
	case *pg.UpdateStmt:
		w.update(x)
	case *pg.DeleteStmt:
		w.delete(x)
	case *pg.MergeStmt:
		w.merge(x)
	case *pg.TruncateStmt:
		w.each(flow.Truncate, x.GetRelations())
		w.cascade(flow.Truncate, x.GetBehavior())
	case *pg.CopyStmt:
		w.copy(x)
	case *pg.CallStmt:
		w.procedure(x)
	case *pg.DoStmt:
		w.fail("a code block (DO) cannot be looked into")
	case *pg.ReplicaIdentityStmt:
		// Part of ALTER TABLE; it names an index of the table.
	case *pg.ReturnStmt:
		w.node(x.GetReturnval())
	case *pg.ExplainStmt:
		w.explain(x)
	case *pg.PrepareStmt:
		w.prepare(x)
	case *pg.ExecuteStmt:
		w.execute(x)
	case *pg.DeallocateStmt:
		w.effects(m, func(e *Effects) { e.Deallocate = orAll(x.GetName(), x.GetIsall()) })
	case *pg.DeclareCursorStmt:
		w.declareCursor(x)
	case *pg.FetchStmt:
		w.fetch(x)
	case *pg.ClosePortalStmt:
		w.effects(m, func(e *Effects) { e.CloseCursor = orAll(x.GetPortalname(), false) })
	default:
		return false
	}
	return true
}

// orAll is a name, or "*" for all of them: how the grammar writes ALL differs.
func orAll(name string, all bool) string {
	if all || name == "" {
		return "*"
	}
	return name
}

// effects changes the statement's effects if m is the statement itself.
func (w *walker) effects(m proto.Message, f func(*Effects)) {
	if w.top == m {
		f(&w.st.Effects)
	}
}

// each adds a verb on every relation of a list of RangeVars.
func (w *walker) each(v flow.Verb, list []*pg.Node) {
	for _, n := range list {
		w.relation(v, n.GetRangeVar())
	}
}

// cascade: what else a CASCADE reaches the text does not show.
func (w *walker) cascade(v flow.Verb, b pg.DropBehavior) {
	if b == pg.DropBehavior_DROP_CASCADE {
		w.add(v, everyObject)
	}
}

func (w *walker) procedure(x *pg.CallStmt) {
	f := x.GetFunccall()
	w.funcArgs(f)
	schema, name, ok := w.functionName(f.GetFuncname())
	if !ok {
		w.fail("CALL without a name")
		return
	}
	callees, found := w.s.callees(w.c, schema, name)
	w.st.Unresolved = w.st.Unresolved || !found
	for _, c := range callees {
		c.builtIn = false // no procedure is harmless
		w.call(c)
	}
}

// explain: EXPLAIN is explain plus reading, since plans show what the planner
// knows and constants that it computed. EXPLAIN ANALYZE is its statement.
func (w *walker) explain(x *pg.ExplainStmt) {
	inner := w.sub(x.GetQuery())
	w.effects(x, func(e *Effects) { e.Inner = inner })
	analyze := false
	for _, n := range x.GetOptions() {
		o := n.GetDefElem()
		w.node(o.GetArg())
		if o.GetDefname() == "analyze" {
			value, ok := literal(o.GetArg())
			analyze = analyze || !ok || truth(value)
		}
	}
	if analyze {
		w.st.Tag = "EXPLAIN ANALYZE" // its rows count what it read
		w.take(inner)
		w.planOutput(inner.reads)
		w.effects(x, func(e *Effects) {
			*e = inner.Effects
			e.Inner = inner
			e.Prepare, e.DeclareCursor = "", ""
		})
		return
	}
	w.explained(inner)
	w.planOutput(inner.calls) // the planner computes what does not change
}

// planOutput is the one column of EXPLAIN.
func (w *walker) planOutput(l Lineage) {
	l.Plain = l.Empty()
	w.st.Rows, w.st.Output = true, []Output{{"QUERY PLAN", l}}
	w.st.All.join(l)
}

func (w *walker) explained(inner *Statement) {
	if inner.Problem != "" {
		w.fail(inner.Problem)
	}
	any := false
	for _, a := range inner.Accesses {
		switch a.Verb {
		case flow.Connect:
		case flow.Select, flow.Insert, flow.Update, flow.Delete, flow.Merge, flow.Lock, flow.Create, flow.Maintain:
			any = true
			w.add(flow.Explain, a.Resource)
			if a.Verb != flow.Create { // which does not exist yet
				w.add(flow.Select, a.Resource)
			}
		default:
			w.set.add(a)
		}
	}
	if !any {
		w.add(flow.Explain, databaseResource(w.s.Database))
	}
	w.takeReads(inner)
}

// truth reads a boolean option as defGetBoolean does; what it does not know is
// true here, the careful answer.
func truth(v string) bool {
	switch asciiLower(v) {
	case "false", "off", "0":
		return false
	}
	return true
}

func (w *walker) prepare(x *pg.PrepareStmt) {
	inner := w.sub(x.GetQuery())
	w.nodes(x.GetArgtypes())
	w.take(inner)
	w.effects(x, func(e *Effects) { e.Prepare, e.Inner = x.GetName(), inner })
}

// execute is decided as what it executes, and has its effects.
func (w *walker) execute(x *pg.ExecuteStmt) {
	w.st.looksUp = true
	w.nodes(x.GetParams())
	var inner *Statement
	if w.s.Prepared != nil {
		inner = w.s.Prepared(x.GetName())
	}
	if inner == nil {
		w.fail("EXECUTE of a prepared statement that weir has not seen")
		return
	}
	w.take(inner)
	w.takeOutput(inner)
	w.fill(x.GetParams())
	if w.top != proto.Message(x) { // CREATE TABLE AS EXECUTE
		w.st.Effects.unsure(inner)
	}
	w.effects(x, func(e *Effects) {
		*e = inner.Effects
		e.Prepare, e.Inner = "", inner
	})
}

func (w *walker) declareCursor(x *pg.DeclareCursorStmt) {
	inner := w.sub(x.GetQuery())
	w.take(inner)
	w.effects(x, func(e *Effects) {
		e.DeclareCursor, e.Inner = x.GetPortalname(), inner
		e.unsure(inner)
	})
}

// unsure takes over settings that another statement changes at a time that the
// text does not show.
func (e *Effects) unsure(inner *Statement) {
	for _, s := range inner.Effects.Settings {
		s.Unsure = true
		e.Settings = append(e.Settings, s)
	}
	e.UnsureSearchPath = e.UnsureSearchPath || inner.Effects.UnsureSearchPath || len(inner.Effects.Settings) > 0
}

// fetch brings rows of the cursor's query, so it is decided as that.
func (w *walker) fetch(x *pg.FetchStmt) {
	w.st.looksUp = true
	var inner *Statement
	if w.s.Cursor != nil {
		inner = w.s.Cursor(x.GetPortalname())
	}
	if inner == nil {
		w.fail("FETCH from a cursor that weir has not seen")
		return
	}
	w.take(inner)
	w.st.Tests = nil // they are those of DECLARE
	if !x.GetIsmove() {
		w.takeOutput(inner)
	}
	w.effects(x, func(e *Effects) {
		e.Inner = inner
		e.unsure(inner)
	})
}
