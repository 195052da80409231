package sqlmeta

import (
	"crypto/sha256"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Operator is an operator that a user or an extension made (pg_operator). Those of
// the server run harmless functions and are not listed.
type Operator struct {
	Schema, Name string
	// Function, in FunctionSchema, is what the operator runs; BuiltIn is set when
	// it came with the server.
	FunctionSchema, Function string
	BuiltIn                  bool
	// Harmless is set when the function is compiled (language c or internal), came
	// with the server or with an extension that a superuser owns, and is IMMUTABLE:
	// such a function cannot be made by a user and reads no table, as those of
	// citext, hstore or PostGIS. A STABLE one is as harmless when the operator
	// itself is the extension's, as pg_trgm's %. Any other operator is a `call` of
	// its function.
	Harmless bool
}

// WithOperators adds the operators and returns c. It is called before c is shared.
func (c *Catalog) WithOperators(list []Operator) *Catalog {
	c.operators = make(map[string][]Operator, len(list))
	b := append([]byte(nil), c.digest[:]...)
	for _, o := range list {
		c.operators[o.Name] = append(c.operators[o.Name], o)
		for _, s := range []string{o.Schema, o.Name, o.FunctionSchema, o.Function} {
			b = appendString(b, s)
		}
		b = append(b, bit(o.BuiltIn), bit(o.Harmless))
	}
	if len(list) > 0 {
		c.digest = sha256.Sum256(b)
	}
	return c
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// operatorsNamed are the users' operators of a name.
func (c *Catalog) operatorsNamed(name string) []Operator {
	if c == nil {
		return nil
	}
	return c.operators[name]
}

func (w *walker) operator(x *pg.A_Expr) {
	switch x.GetKind() {
	case pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN,
		pg.A_Expr_Kind_AEXPR_BETWEEN_SYM, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		for _, name := range []string{"<", "<=", ">", ">="} {
			w.runs("", name)
		}
	default:
		w.operatorName(x.GetName())
	}
	w.node(x.GetLexpr())
	w.node(x.GetRexpr())
}

// operatorName is an operator as it is written: op, or OPERATOR(schema.op).
func (w *walker) operatorName(name []*pg.Node) {
	parts := texts(name)
	switch n := len(parts); n {
	case 0:
	case 1:
		w.runs("", parts[0])
	default:
		w.runs(parts[n-2], parts[n-1])
	}
}

// equals is a construct that looks for the operator = itself: CASE x WHEN y,
// x IN (SELECT ...), JOIN ... USING.
func (w *walker) equals() { w.runs("", "=") }

// runs is the use of an operator. Operand types decide which one of the path it is,
// so each of the name that is somebody's is a call of its function.
func (w *walker) runs(schema, name string) {
	found := false
	for _, o := range w.c.operatorsNamed(name) {
		if schema != "" && o.Schema != schema || schema == "" && o.Schema != pgCatalog && w.s.Certain && !w.s.onPath(o.Schema) {
			continue
		}
		found = true
		if c := (callee{o.FunctionSchema, o.Function, o.BuiltIn}); !o.Harmless && !c.harmless() {
			w.imply(c)
		}
	}
	if schema != "" && schema != pgCatalog && !found {
		w.st.Unresolved = w.st.Unresolved || w.c != nil
		w.imply(callee{schema: schema, name: name})
	}
}

// imply is the call of a function that is not written as one. Where in the statement
// its result goes the tracer does not follow.
func (w *walker) imply(c callee) {
	w.call(c)
	w.implied = append(w.implied, c)
}

// runsLater are the options of CREATE OPERATOR, AGGREGATE, TYPE and TEXT SEARCH, and
// of their ALTER, that name a function.
var runsLater = set(`
	function procedure restrict join
	sfunc sfunc1 sfunc2 finalfunc combinefunc serialfunc deserialfunc msfunc minvfunc mfinalfunc
	input output receive send typmod_in typmod_out analyze subscript canonical subtype_diff
	start gettoken end lextypes headline init lexize
`)

// definition walks the options of an object whose functions the server will call
// without their names being written: each is a call now.
func (w *walker) definition(options []*pg.Node) {
	for _, n := range options {
		o := n.GetDefElem()
		switch name := asciiLower(o.GetDefname()); {
		case runsLater[name]:
			w.handlerNamed(names(o.GetArg()))
		case name == "commutator" || name == "negator" || name == "sortop":
			if parts := names(o.GetArg()); len(parts) == 1 {
				w.runs("", parts[0])
			} else if len(parts) > 1 {
				w.runsIfKnown(parts[len(parts)-2], parts[len(parts)-1])
			}
		}
	}
	w.nodes(options)
}

// runsIfKnown is runs for an operator that need not exist yet.
func (w *walker) runsIfKnown(schema, name string) {
	for _, o := range w.c.operatorsNamed(name) {
		if o.Schema == schema {
			w.runs(schema, name)
			return
		}
	}
}

// opClassItems: the support functions of CREATE OPERATOR CLASS and ALTER OPERATOR
// FAMILY.
func (w *walker) opClassItems(items []*pg.Node) {
	for _, n := range items {
		if i := n.GetCreateOpClassItem(); i.GetItemtype() == opClassFunction {
			w.handlerNamed(texts(i.GetName().GetObjname()))
		}
	}
}

// opClassFunction is OPCLASS_ITEM_FUNCTION (parsenodes.h).
const opClassFunction = 2
