package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// value is what an expression can carry and, when it is a row, its parts.
type value struct {
	Lineage
	row *row // nil: no row, or one whose parts do not show
}

// constant carries nothing.
func constant() value { return value{Lineage: Lineage{Plain: true}} }

func unknownValue(why string) value { return value{Lineage: Lineage{Unknown: why}} }

// either is the value of one of several.
func either(list ...value) value {
	out := constant()
	for i := range list {
		out.join(list[i].Lineage)
	}
	return out
}

// computed is a value made from others.
func computed(list ...value) value {
	out := either(list...)
	out.Plain = out.Empty()
	return out
}

// row is the columns of a row in order.
type row struct {
	names  []string
	values []value
	// open is set when there may be columns that the text does not show; each of
	// them can carry rest.
	open bool
	rest value
	// tables are set where no catalogue can be asked: a column is then one of theirs if
	// the text takes it for one.
	tables []named
}

func (r *row) add(name string, v value) {
	r.names = append(r.names, name)
	r.values = append(r.values, v)
}

// all is what any column of the row can carry.
func (r *row) all() value {
	out := either(r.values...)
	if r.open {
		out.join(r.rest.Lineage)
	}
	return out
}

// find is what a name means in the row; certain is false when a column that the text
// does not show may be meant.
func (r *row) find(name string) (v value, found, certain bool) {
	v = constant()
	for i, n := range r.names {
		if n == name {
			v, found = r.merge(v, found, r.values[i])
		}
	}
	switch {
	case found || !r.open:
		return v, found, true
	case r.tables != nil:
		for _, n := range r.tables {
			v.join(Lineage{Plain: true, Columns: []Column{{Schema: n.schema, Table: n.name, Name: name}}})
		}
		return v, false, false
	}
	return r.rest, false, false
}

// merge keeps the parts of a row that is the only one found.
func (r *row) merge(v value, found bool, next value) (value, bool) {
	if !found {
		return next, true
	}
	v.join(next.Lineage)
	v.row = nil
	return v, true
}

// renamed gives the first columns other names.
func (r row) renamed(names []string) row {
	if len(names) == 0 {
		return r
	}
	out := row{open: r.open, rest: r.rest}
	if r.open { // which column is which does not show
		for _, name := range names {
			out.add(name, computed(r.all()))
		}
		out.append(&row{names: r.names, values: r.values})
		return out
	}
	for i := range max(len(names), len(r.values)) {
		switch {
		case i >= len(r.values): // an error to the server
			out.add(names[i], r.all())
		case i < len(names):
			out.add(names[i], r.values[i])
		default:
			out.add(r.names[i], r.values[i])
		}
	}
	return out
}

// entry is a name in FROM with its columns.
type entry struct {
	schema, name string // schema "" when the name is an alias
	row          row
	relation     bool // it stands for a table or view, whose system columns have names too
	last         bool // found only when nothing else has the name: old and new of RETURNING
}

func (en *entry) whole() value {
	v := en.row.all()
	v.Plain = v.Empty()
	own := en.row
	v.row = &own
	return v
}

// item is one element of FROM: the names that it brings, and its columns as * shows
// them.
type item struct {
	entries []*entry
	columns row
}

// scope is what names mean at some place.
type scope struct {
	items []item
	outer *scope
}

func (s *scope) add(i item) { s.items = append(s.items, i) }

// systemColumns exist in every table (manual, 5.5).
var systemColumns = set(`ctid xmin xmax cmin cmax tableoid`)

// column finds an unqualified name, innermost scope first.
func (s *scope) column(name string) (v value, found bool) {
	v = constant()
	for ; s != nil; s = s.outer {
		here, relation := value{}, false
		hit := false
		for i := range s.items {
			if c, ok, _ := s.items[i].columns.find(name); ok {
				here, hit = s.items[i].columns.merge(here, hit, c)
			}
			for _, en := range s.items[i].entries {
				relation = relation || en.relation
			}
		}
		switch {
		case hit && !found:
			return here, true
		case hit:
			v.join(here.Lineage)
			return v, true
		case relation && systemColumns[name]:
			return v, true
		}
		for i := range s.items { // one that does not show, or one further out
			if c, _, certain := s.items[i].columns.find(name); !certain {
				v.join(c.Lineage)
				found = true
			}
		}
	}
	return v, found
}

// entry finds a name that stands for rows.
func (s *scope) entry(schema, name string) *entry {
	for ; s != nil; s = s.outer {
		var late *entry
		for i := range s.items {
			for _, en := range s.items[i].entries {
				if en.name != name || schema != "" && en.schema != schema {
					continue
				}
				if !en.last {
					return en
				}
				late = en
			}
		}
		if late != nil {
			return late
		}
	}
	return nil
}

// star is every column of the innermost scope, in order.
func (s *scope) star() row {
	var out row
	out.rest = constant()
	for i := range s.items {
		out.append(&s.items[i].columns)
	}
	return out
}

// append adds the columns of another row. Behind columns that do not show no
// position is certain.
func (r *row) append(other *row) {
	r.tables = append(r.tables, other.tables...)
	r.names = append(r.names, other.names...)
	r.values = append(r.values, other.values...)
	if other.open {
		rest := r.rest
		if !r.open {
			rest = constant()
		}
		rest.join(other.rest.Lineage)
		rest.row = nil
		r.open, r.rest = true, rest
	}
}

// outputName is the name that the server gives an output column without AS
// (FigureColname in parse_target.c); "" when the text does not show it.
func outputName(n *pg.Node) string {
	name, _ := figure(n)
	if name == "" {
		return "?column?"
	}
	return name
}

// figure gives a name and how sure it is: 0 none, 1 a makeshift, 2 a good one.
func figure(n *pg.Node) (string, int) {
	switch x := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		return lastText(x.ColumnRef.GetFields())
	case *pg.Node_AIndirection:
		if name, how := lastText(x.AIndirection.GetIndirection()); how > 0 {
			return name, how
		}
		return figure(x.AIndirection.GetArg())
	case *pg.Node_FuncCall:
		return lastText(x.FuncCall.GetFuncname())
	case *pg.Node_AExpr:
		if x.AExpr.GetKind() == pg.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif", 2
		}
	case *pg.Node_TypeCast:
		if name, how := figure(x.TypeCast.GetArg()); how > 1 {
			return name, how
		}
		if name, how := lastText(x.TypeCast.GetTypeName().GetNames()); how > 0 {
			return name, 1
		}
	case *pg.Node_CollateClause:
		return figure(x.CollateClause.GetArg())
	case *pg.Node_GroupingFunc:
		return "grouping", 2
	case *pg.Node_MergeSupportFunc:
		return "merge_action", 2
	case *pg.Node_SubLink:
		return figureSubLink(x.SubLink)
	case *pg.Node_CaseExpr:
		if name, how := figure(x.CaseExpr.GetDefresult()); how > 1 {
			return name, how
		}
		return "case", 1
	case *pg.Node_AArrayExpr:
		return "array", 2
	case *pg.Node_RowExpr:
		return "row", 2
	case *pg.Node_CoalesceExpr:
		return "coalesce", 2
	case *pg.Node_MinMaxExpr:
		if x.MinMaxExpr.GetOp() == pg.MinMaxOp_IS_GREATEST {
			return "greatest", 2
		}
		return "least", 2
	case *pg.Node_SqlvalueFunction, *pg.Node_XmlExpr, *pg.Node_XmlSerialize,
		*pg.Node_JsonObjectConstructor, *pg.Node_JsonArrayConstructor, *pg.Node_JsonArrayQueryConstructor,
		*pg.Node_JsonObjectAgg, *pg.Node_JsonArrayAgg, *pg.Node_JsonParseExpr, *pg.Node_JsonScalarExpr,
		*pg.Node_JsonSerializeExpr, *pg.Node_JsonFuncExpr:
		return keywordName(n), 2
	}
	return "", 0
}

func figureSubLink(x *pg.SubLink) (string, int) {
	switch x.GetSubLinkType() {
	case pg.SubLinkType_EXISTS_SUBLINK:
		return "exists", 2
	case pg.SubLinkType_ARRAY_SUBLINK:
		return "array", 2
	case pg.SubLinkType_EXPR_SUBLINK:
		s := x.GetSubselect().GetSelectStmt()
		for s.GetLarg() != nil {
			s = s.GetLarg()
		}
		if len(s.GetTargetList()) > 0 {
			t := s.GetTargetList()[0].GetResTarget()
			if t.GetName() != "" {
				return t.GetName(), 2
			}
			return figure(t.GetVal())
		}
	}
	return "", 0
}

// lastText is the last name of a list.
func lastText(list []*pg.Node) (string, int) {
	for i := len(list) - 1; i >= 0; i-- {
		if s, ok := text(list[i]); ok {
			return s, 2
		}
	}
	return "", 0
}

// keywordName is the name of a function that is written with keywords.
func keywordName(n *pg.Node) string {
	switch x := n.GetNode().(type) {
	case *pg.Node_SqlvalueFunction:
		return sqlValueName(x.SqlvalueFunction)
	case *pg.Node_XmlExpr:
		return [...]string{pg.XmlExprOp_IS_XMLCONCAT: "xmlconcat", pg.XmlExprOp_IS_XMLELEMENT: "xmlelement", pg.XmlExprOp_IS_XMLFOREST: "xmlforest",
			pg.XmlExprOp_IS_XMLPARSE: "xmlparse", pg.XmlExprOp_IS_XMLPI: "xmlpi", pg.XmlExprOp_IS_XMLROOT: "xmlroot",
			pg.XmlExprOp_IS_XMLSERIALIZE: "xmlserialize", pg.XmlExprOp_IS_DOCUMENT: ""}[x.XmlExpr.GetOp()]
	case *pg.Node_XmlSerialize:
		return "xmlserialize"
	case *pg.Node_JsonFuncExpr:
		return jsonFunctionName(x.JsonFuncExpr)
	}
	if m := unwrap(n); m != nil {
		return keywordFunctions[m.ProtoReflect().Descriptor().Name()]
	}
	return ""
}
