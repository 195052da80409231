package sqlmeta

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A mask hides a column's values in results. Conditions, orders and groups tell
// about them all the same: WHERE card LIKE '4%' needs no result at all. What follows
// finds these places and says how much they can tell.

// condition evaluates what decides whether something happens.
func (t *tracer) condition(n *pg.Node, s *scope, where string) value {
	t.conditions = t.conditions || n != nil
	switch x := n.GetNode().(type) {
	case nil:
		return constant()
	case *pg.Node_BoolExpr:
		out := constant()
		for _, arg := range x.BoolExpr.GetArgs() {
			out.join(t.condition(arg, s, where).Lineage)
		}
		return computed(out)
	case *pg.Node_BooleanTest:
		return t.condition(x.BooleanTest.GetArg(), s, where)
	case *pg.Node_NullTest:
		v := t.quietly(func() value { return t.nullTest(x.NullTest, s) })
		t.test(v, Compare, 1, where)
		return v
	case *pg.Node_AExpr:
		if v, ok := t.equality(x.AExpr, s, where); ok {
			return v
		}
	case *pg.Node_SubLink:
		return t.subCondition(x.SubLink, s, where)
	}
	return t.decides(n, s, where)
}

// quietly evaluates what is a test as a whole.
func (t *tracer) quietly(f func() value) value {
	t.deciding++
	defer func() { t.deciding-- }()
	return f()
}

// decides makes a test of an expression as a whole.
func (t *tracer) decides(n *pg.Node, s *scope, where string) value {
	t.conditions = true
	v := t.quietly(func() value { return t.value(n, s) })
	if v.Empty() {
		return v
	}
	kind := Free
	p := bounds{t: t, s: s}
	p.visit(n.ProtoReflect())
	if p.bounded() {
		kind = Compare
	}
	t.test(v, kind, 1, where)
	return computed(v)
}

// equality is the comparison of a column, as it is, with values.
func (t *tracer) equality(x *pg.A_Expr, s *scope, where string) (value, bool) {
	name := texts(x.GetName())
	if len(name) == 0 || name[len(name)-1] != "=" && name[len(name)-1] != "<>" || len(name) > 1 && name[0] != pgCatalog {
		return value{}, false
	}
	left, right := x.GetLexpr(), []*pg.Node{x.GetRexpr()}
	if a, b := left.GetRowExpr().GetArgs(), right[0].GetRowExpr().GetArgs(); len(a) > 0 && len(a) == len(b) {
		out := constant()
		for i := range a { // (a, b) = ('x', 'y')
			out.join(t.compare(a[i], b[i:i+1], s, where).Lineage)
		}
		return out, true
	}
	switch x.GetKind() {
	case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_DISTINCT, pg.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		if isValue(left) {
			left, right = x.GetRexpr(), []*pg.Node{x.GetLexpr()}
		}
	case pg.A_Expr_Kind_AEXPR_IN:
		right = x.GetRexpr().GetList().GetItems()
	case pg.A_Expr_Kind_AEXPR_OP_ANY, pg.A_Expr_Kind_AEXPR_OP_ALL:
		right = elements(x.GetRexpr())
	default:
		return value{}, false
	}
	if left == nil || len(right) == 0 {
		return value{}, false
	}
	for _, n := range right {
		if !isValue(n) {
			return value{}, false
		}
	}
	return t.compare(left, right, s, where), true
}

// compare holds an expression against others for equality.
func (t *tracer) compare(left *pg.Node, right []*pg.Node, s *scope, where string) value {
	values := true
	for _, n := range right {
		values = values && isValue(n)
	}
	v := t.quietly(func() value { return t.value(whole(left), s) })
	switch {
	case !values:
		v = computed(v, t.quietly(func() value { return computed(t.values(right, s)...) }))
		kind := Free
		p := bounds{t: t, s: s}
		for _, n := range append([]*pg.Node{left}, right...) {
			p.visit(n.ProtoReflect())
		}
		if p.bounded() {
			kind = Compare
		}
		t.test(v, kind, 1, where)
	case v.Plain:
		t.test(v, Equal, len(right), where)
	default:
		return t.decides(left, s, where)
	}
	return computed(v)
}

// whole takes off what keeps two values apart that are apart without it, or joins
// only what people write in different ways: lower(email) = 'a@b.c'.
func whole(n *pg.Node) *pg.Node {
	f := n.GetFuncCall()
	if len(f.GetArgs()) != 1 {
		return n
	}
	switch name := texts(f.GetFuncname()); strings.Join(name, ".") {
	case "lower", "upper", "pg_catalog.lower", "pg_catalog.upper", "btrim", "pg_catalog.btrim":
		return f.GetArgs()[0]
	}
	return n
}

// isValue reports whether an expression is one value that stands in the statement or
// is bound to it.
func isValue(n *pg.Node) bool {
	switch x := n.GetNode().(type) {
	case *pg.Node_AConst, *pg.Node_ParamRef:
		return true
	case *pg.Node_TypeCast:
		return len(x.TypeCast.GetTypeName().GetArrayBounds()) == 0 && isValue(x.TypeCast.GetArg())
	case *pg.Node_CollateClause:
		return isValue(x.CollateClause.GetArg())
	case *pg.Node_AExpr:
		name := texts(x.AExpr.GetName())
		return x.AExpr.GetLexpr() == nil && len(name) == 1 && name[0] == "-" && isValue(x.AExpr.GetRexpr())
	case *pg.Node_FuncCall: // lower($1)
		return whole(n) != n && isValue(whole(n))
	}
	return false
}

// elements are the values of an array that stands in the statement: ARRAY['a', 'b'],
// '{a,b}'; nil for one that does not show. How many a bind parameter holds does not.
func elements(n *pg.Node) []*pg.Node {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().GetArg()
	}
	if a := n.GetAArrayExpr(); a != nil {
		return a.GetElements()
	}
	if s, ok := literal(n); ok && strings.HasPrefix(s, "{") {
		out := make([]*pg.Node, strings.Count(s, ",")+1)
		for i := range out {
			out[i] = n
		}
		return out
	}
	return nil
}

// subCondition is EXISTS, IN (SELECT ...) and their like as a condition.
func (t *tracer) subCondition(x *pg.SubLink, s *scope, where string) value {
	v := t.quietly(func() value { return t.subLink(x, s) })
	if x.GetSubLinkType() == pg.SubLinkType_EXISTS_SUBLINK {
		return v
	}
	t.test(v, Free, 1, where)
	return computed(v)
}

// bounds looks at an expression that is a test: it tells about one bit for each row
// when it depends on one column and on what stands in the statement, and on nothing
// that could be another value each time.
type bounds struct {
	t       *tracer
	s       *scope
	column  string
	columns int
	other   bool
}

func (p *bounds) bounded() bool { return p.columns == 1 && !p.other }

func (p *bounds) visit(m protoreflect.Message) {
	if p.other || !p.t.x.step() {
		p.other = true
		return
	}
	switch x := m.Interface().(type) {
	case *pg.ColumnRef:
		name := strings.Join(texts(x.GetFields()), ".")
		if p.columns == 0 || name != p.column {
			p.columns++
		}
		p.column = name
		if isStar(&pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: x}}) || p.t.isVariable(name) {
			p.other = true
		}
		return
	case *pg.SubLink, *pg.SelectStmt, *pg.CurrentOfExpr:
		p.other = true
		return
	case *pg.FuncCall:
		parts := texts(x.GetFuncname())
		if len(parts) == 0 || unsteadyFunctions[parts[len(parts)-1]] || !p.t.harmlessCall(x) {
			p.other = true
		}
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case !fd.IsList():
			p.visit(v.Message())
		default:
			for i := range v.List().Len() {
				p.visit(v.List().Get(i).Message())
			}
		}
		return true
	})
}

// harmlessCall reports whether every function that a call can mean came with the
// server and reads nothing.
func (t *tracer) harmlessCall(f *pg.FuncCall) bool {
	schema, name, ok := t.w.functionName(f.GetFuncname())
	if !ok {
		return false
	}
	callees, _ := t.w.s.callees(t.w.c, schema, name)
	for _, c := range callees {
		if !c.harmless() {
			return false
		}
	}
	return true
}

// unsteadyFunctions give another value each time, or one that the session has put
// somewhere: a condition with one of them is a new one each time that it runs.
var unsteadyFunctions = set(`
	random random_normal clock_timestamp timeofday currval lastval current_setting
	txid_current txid_current_if_assigned pg_current_xact_id pg_current_xact_id_if_assigned
	gen_random_uuid uuidv4 uuidv7 statement_timestamp
`)
