package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// CountTree makes, of the tree of one UPDATE or DELETE, that of a SELECT for how many
// rows it would touch. It shares nodes with tree. A nil tree: there is none, and why
// says so; why is "" for a statement that does not touch rows that are there.
//
// A row that the statement's other tables bring up several times is touched once, so a
// join counts the different places (tableoid, ctid) of rows (PostgreSQL manual, UPDATE).
func CountTree(tree *pg.ParseResult) (_ *pg.ParseResult, why string) {
	if len(tree.GetStmts()) != 1 {
		return nil, "it is not one statement"
	}
	var c counting
	switch x := tree.GetStmts()[0].GetStmt().GetNode().(type) {
	case *pg.Node_UpdateStmt:
		u := x.UpdateStmt
		c = counting{u.GetRelation(), u.GetFromClause(), u.GetWhereClause(), u.GetWithClause()}
	case *pg.Node_DeleteStmt:
		d := x.DeleteStmt
		c = counting{d.GetRelation(), d.GetUsingClause(), d.GetWhereClause(), d.GetWithClause()}
	case *pg.Node_MergeStmt:
		return nil, "which rows a MERGE touches its WHEN clauses decide one by one"
	default:
		return nil, ""
	}
	if c.target == nil {
		return nil, "it has a shape that weir does not know"
	}
	for _, n := range c.with.GetCtes() {
		if n.GetCommonTableExpr().GetCtequery().GetSelectStmt() == nil {
			return nil, "a WITH query of it changes data"
		}
	}
	if c.where.GetCurrentOfExpr() != nil { // the grammar has it only as a whole WHERE
		return nil, "WHERE CURRENT OF is the row of a cursor, which is the session's own"
	}
	return &pg.ParseResult{Version: tree.GetVersion(), Stmts: []*pg.RawStmt{{Stmt: selecting(c.statement())}}}, ""
}

// counting are the parts of an UPDATE or DELETE that say which rows.
type counting struct {
	target *pg.RangeVar
	others []*pg.Node
	where  *pg.Node
	with   *pg.WithClause
}

func (c *counting) statement() *pg.SelectStmt {
	target := &pg.Node{Node: &pg.Node_RangeVar{RangeVar: proto.CloneOf(c.target)}}
	out := plainSelect()
	out.WithClause = c.with
	out.TargetList = []*pg.Node{resultOf(&pg.Node{Node: &pg.Node_FuncCall{FuncCall: &pg.FuncCall{
		Funcname: []*pg.Node{stringOf(pgCatalog), stringOf("count")}, AggStar: true, Funcformat: pg.CoercionForm_COERCE_EXPLICIT_CALL}}})}
	if len(c.others) == 0 {
		out.FromClause, out.WhereClause = []*pg.Node{target}, c.where
		return out
	}
	inner := plainSelect()
	inner.DistinctClause = []*pg.Node{{}}
	name := aliasOf(c.target)
	inner.TargetList = []*pg.Node{resultOf(columnOf(name, "tableoid")), resultOf(columnOf(name, "ctid"))}
	inner.FromClause = append([]*pg.Node{target}, c.others...)
	inner.WhereClause = c.where
	out.FromClause = []*pg.Node{{Node: &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{
		Subquery: selecting(inner), Alias: &pg.Alias{Aliasname: "touched"}}}}}
	return out
}

func plainSelect() *pg.SelectStmt {
	return &pg.SelectStmt{LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE}
}

func selecting(s *pg.SelectStmt) *pg.Node {
	return &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: s}}
}

func resultOf(n *pg.Node) *pg.Node {
	return &pg.Node{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Val: n}}}
}

func columnOf(parts ...string) *pg.Node {
	fields := make([]*pg.Node, len(parts))
	for i, p := range parts {
		fields[i] = stringOf(p)
	}
	return &pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: &pg.ColumnRef{Fields: fields}}}
}

func stringOf(s string) *pg.Node {
	return &pg.Node{Node: &pg.Node_String_{String_: &pg.String{Sval: s}}}
}
