package sqlmeta

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/flow"
)

const alterVerb = flow.Alter

// text is the value of a String node.
func text(n *pg.Node) (string, bool) {
	s, ok := n.GetNode().(*pg.Node_String_)
	if !ok {
		return "", false
	}
	return s.String_.GetSval(), true
}

// texts are the values of a list of String nodes, others left out.
func texts(list []*pg.Node) []string {
	out := make([]string, 0, len(list))
	for _, n := range list {
		if s, ok := text(n); ok {
			out = append(out, s)
		}
	}
	return out
}

// literal is the value of a constant as SET would take it: a string, a number, a
// boolean. Casts that keep the value are looked through; 'ab'::char(1) is none.
func literal(n *pg.Node) (string, bool) {
	switch x := n.GetNode().(type) {
	case *pg.Node_TypeCast:
		t := x.TypeCast.GetTypeName()
		names := texts(t.GetNames())
		if len(names) == 0 || len(t.GetTypmods()) > 0 || len(t.GetArrayBounds()) > 0 || t.GetSetof() {
			return "", false
		}
		switch strings.Join(names, ".") {
		case "text", "pg_catalog.text", "bool", "pg_catalog.bool":
			return literal(x.TypeCast.GetArg())
		}
		return "", false
	case *pg.Node_String_:
		return x.String_.GetSval(), true
	case *pg.Node_AConst:
		switch v := x.AConst.GetVal().(type) {
		case *pg.A_Const_Sval:
			return v.Sval.GetSval(), true
		case *pg.A_Const_Ival:
			return itoa(int64(v.Ival.GetIval())), true
		case *pg.A_Const_Fval:
			return v.Fval.GetFval(), true
		case *pg.A_Const_Boolval:
			if v.Boolval.GetBoolval() {
				return "true", true
			}
			return "false", true
		}
	}
	return "", false
}

// columnRef notes the last part of a column's name. What it stands for the tracer
// finds out, and whether it is the call of a function (see tracer.part).
func (w *walker) columnRef(c *pg.ColumnRef) {
	if fields := c.GetFields(); len(fields) > 0 {
		if last, ok := text(fields[len(fields)-1]); ok {
			w.name(last)
		}
	}
}

// indirection is (expression).field, (expression).* and subscripts.
func (w *walker) indirection(x *pg.A_Indirection) {
	w.node(x.GetArg())
	for _, n := range x.GetIndirection() {
		if name, ok := text(n); ok {
			w.name(name)
		} else {
			w.node(n)
		}
	}
}

func (w *walker) sqlValue(x *pg.SQLValueFunction) {
	// system_user is a keyword since PostgreSQL 16 and a column's name before.
	w.name(sqlValueName(x))
}

func sqlValueName(x *pg.SQLValueFunction) string {
	name := strings.ToLower(strings.TrimPrefix(x.GetOp().String(), "SVFOP_"))
	return strings.TrimSuffix(name, "_n") // with a precision
}

// funcCall is any call in function notation, aggregates and window functions
// included.
func (w *walker) funcCall(f *pg.FuncCall) {
	w.funcArgs(f)
	schema, name, ok := w.functionName(f.GetFuncname())
	if !ok {
		w.fail("a function without a name")
		return
	}
	callees, found := w.s.callees(w.c, schema, name)
	w.st.Unresolved = w.st.Unresolved || !found
	for _, c := range callees {
		if c.builtIn && c.schema == pgCatalog && w.special(c, f) {
			continue
		}
		if c.harmless() {
			w.function(c.qualified())
			continue
		}
		w.call(c)
	}
}

func (w *walker) funcArgs(f *pg.FuncCall) {
	w.nodes(f.GetArgs())
	w.nodes(f.GetAggOrder())
	w.node(f.GetAggFilter())
	if f.GetOver() != nil {
		w.children(f.GetOver())
	}
}

// functionName takes a dotted name apart; a leading database is dropped, the
// server accepts only its own.
func (w *walker) functionName(parts []*pg.Node) (schema, name string, ok bool) {
	names := texts(parts)
	switch n := len(names); n {
	case 0:
		return "", "", false
	case 1:
		return "", names[0], true
	default:
		return names[n-2], names[n-1], true
	}
}

// call is the call of a function that is not harmless.
func (w *walker) call(c callee) {
	w.function(c.qualified())
	w.add(flow.Call, functionResource(c.schema, c.name))
	if !c.builtIn {
		w.st.Effects.UnsureSearchPath = true
	}
	w.st.sideEffects = w.st.sideEffects || !c.builtIn || !dataless[c.name]
}

// dataless are built-in functions that are no harmless ones and yet bring no
// data of a table into the output.
var dataless = set(`
	nextval setval pg_terminate_backend pg_cancel_backend pg_reload_conf pg_rotate_logfile
	pg_switch_wal pg_notify pg_stat_reset pg_stat_clear_snapshot pg_create_restore_point
`)

// special decides functions whose arguments count. It reports whether it did.
func (w *walker) special(c callee, f *pg.FuncCall) bool {
	arg := func(i int) (string, bool) {
		if i >= len(f.GetArgs()) {
			return "", false
		}
		return literal(f.GetArgs()[i])
	}
	switch {
	case carrierFunctions[c.name]:
		w.carries(f.GetArgs(), flow.Access{Verb: flow.Call, Resource: functionResource(c.schema, c.name)})
	case lockFunctions[c.name]: // everybody sees the keys in pg_locks
		w.carries(f.GetArgs(), flow.Access{Verb: flow.Call, Resource: functionResource(c.schema, c.name)})
		w.add(flow.Lock, functionResource(c.schema, c.name))
	case c.name == "pg_notify":
		w.carries(f.GetArgs(), flow.Access{Verb: flow.Call, Resource: functionResource(c.schema, c.name)})
		channel, ok := arg(0)
		if !ok {
			w.add(flow.Listen, functionResource(c.schema, c.name))
			break
		}
		w.add(flow.Listen, channelResource(channel))
	case c.name == "current_setting":
		setting, ok := arg(0)
		if !ok {
			w.add(flow.Select, qualified(pgCatalog, "pg_settings"))
			break
		}
		w.show(setting)
	case c.name == "set_config":
		w.setConfig(f)
	default:
		return false
	}
	w.function(c.qualified())
	return true
}

// keywordFunction adds the call that an older server makes of a construct.
func (w *walker) keywordFunction(m proto.Message, name string) {
	if x, ok := m.(*pg.JsonFuncExpr); ok {
		name = jsonFunctionName(x)
	}
	for _, o := range w.c.functionsNamed(name) {
		if !o.builtIn && (!w.s.Certain || w.s.onPath(o.schema)) {
			w.imply(callee{o.schema, name, false})
		}
	}
}

func jsonFunctionName(x *pg.JsonFuncExpr) string {
	switch x.GetOp() {
	case pg.JsonExprOp_JSON_EXISTS_OP:
		return "json_exists"
	case pg.JsonExprOp_JSON_VALUE_OP:
		return "json_value"
	}
	return "json_query"
}

// tableSample: the method is a function; the two of the server are harmless.
func (w *walker) tableSample(x *pg.RangeTableSample) {
	w.node(x.GetRelation())
	w.nodes(x.GetArgs())
	w.node(x.GetRepeatable())
	schema, name, _ := w.functionName(x.GetMethod())
	if name == "bernoulli" || name == "system" {
		if schema == pgCatalog {
			return
		}
		if callees, found := w.s.callees(w.c, schema, name); schema == "" && (!found || len(callees) == 1 && callees[0].builtIn) {
			return
		}
	}
	callees, _ := w.s.callees(w.c, schema, name)
	for _, c := range callees {
		w.imply(c)
	}
}

// containsColumn reports whether an expression depends on a row at all.
func containsColumn(n *pg.Node) bool {
	if n == nil {
		return false
	}
	probe := &columnProbe{}
	probe.visit(n.ProtoReflect())
	return probe.found
}
