package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// unwrap is the message that a Node holds, nil for none.
func unwrap(n *pg.Node) proto.Message {
	if n == nil || n.Node == nil {
		return nil
	}
	m := n.ProtoReflect()
	fd := m.WhichOneof(nodeOneof)
	if fd == nil {
		return nil
	}
	return m.Get(fd).Message().Interface()
}

var nodeOneof = (&pg.Node{}).ProtoReflect().Descriptor().Oneofs().Get(0)

// node walks what may stand behind a Node. The commonest kinds are dealt with
// before reflection.
func (w *walker) node(n *pg.Node) {
	if n == nil {
		return
	}
	switch x := n.Node.(type) {
	case nil, *pg.Node_AConst, *pg.Node_ParamRef, *pg.Node_String_, *pg.Node_Integer, *pg.Node_SetToDefault:
	case *pg.Node_ColumnRef:
		w.columnRef(x.ColumnRef)
	case *pg.Node_AExpr:
		w.operator(x.AExpr)
	case *pg.Node_ResTarget:
		w.nodes(x.ResTarget.GetIndirection())
		w.node(x.ResTarget.GetVal())
	case *pg.Node_FuncCall:
		w.funcCall(x.FuncCall)
	case *pg.Node_RangeVar:
		w.rangeVar(x.RangeVar)
	case *pg.Node_List:
		w.nodes(x.List.GetItems())
	case *pg.Node_BoolExpr:
		w.nodes(x.BoolExpr.GetArgs())
	default:
		w.message(unwrap(n))
	}
}

func (w *walker) nodes(list []*pg.Node) {
	for _, n := range list {
		w.node(n)
	}
}

// message walks one message of the tree: kinds that mean something by
// themselves here, statements by their rule, the rest through all of its fields.
func (w *walker) message(m proto.Message) {
	switch x := m.(type) {
	case nil:
	case *pg.Node:
		w.node(x)
	case *pg.ColumnRef:
		w.columnRef(x)
	case *pg.FuncCall:
		w.funcCall(x)
	case *pg.A_Expr:
		w.operator(x)
	case *pg.SubLink:
		w.operatorName(x.GetOperName())
		if x.GetSubLinkType() == pg.SubLinkType_ANY_SUBLINK && len(x.GetOperName()) == 0 {
			w.equals()
		}
		w.node(x.GetTestexpr())
		w.node(x.GetSubselect())
	case *pg.CaseExpr:
		if x.GetArg() != nil {
			w.equals()
		}
		w.children(x)
	case *pg.SortBy:
		w.operatorName(x.GetUseOp())
		w.node(x.GetNode())
	case *pg.A_Indirection:
		w.indirection(x)
	case *pg.SQLValueFunction:
		w.sqlValue(x)
	case *pg.RangeVar:
		w.rangeVar(x)
	case *pg.RangeTableSample:
		w.tableSample(x)
	case *pg.JoinExpr:
		w.join(x)
	case *pg.WithClause:
		w.with(x)
	case *pg.CommonTableExpr:
		w.children(x)
	case *pg.Constraint:
		w.constraint(x)
	case *pg.TableLikeClause:
		w.readRelation(x.GetRelation())
	case *pg.PartitionCmd:
		w.relation(alterVerb, x.GetName())
		w.message(x.GetBound())
	default:
		if !w.statement(m) {
			w.generic(m)
		}
	}
}

// generic walks a message that has no rule of its own. What the grammar cannot
// produce there is not looked into: it makes the statement unknown.
func (w *walker) generic(m proto.Message) {
	name := m.ProtoReflect().Descriptor().Name()
	if notExpression(name) {
		w.fail("a kind of node that weir does not know: " + string(name))
		return
	}
	if f, ok := keywordFunctions[name]; ok {
		w.keywordFunction(m, f)
	}
	w.children(m)
}

// children walks every field of a message except those named.
func (w *walker) children(m proto.Message, except ...protoreflect.Name) {
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() == nil {
			return true
		}
		for _, e := range except {
			if fd.Name() == e {
				return true
			}
		}
		if fd.IsList() {
			for i := range v.List().Len() {
				w.message(v.List().Get(i).Message().Interface())
			}
			return true
		}
		w.message(v.Message().Interface())
		return true
	})
}

// notExpression reports whether a message of this name may not be met by the
// generic walk: results of PostgreSQL's analysis and planning, which the grammar
// does not make, and statements without a rule.
func notExpression(name protoreflect.Name) bool {
	return analysed[name] || len(name) > 4 && name[len(name)-4:] == "Stmt"
}

// analysed are node types of trees behind the grammar (primnodes.h,
// parsenodes.h): a raw parse tree has none of them.
var analysed = map[protoreflect.Name]bool{
	"TableFunc": true, "Var": true, "Param": true, "Aggref": true, "WindowFunc": true,
	"WindowFuncRunCondition": true, "SubscriptingRef": true, "FuncExpr": true, "OpExpr": true,
	"DistinctExpr": true, "NullIfExpr": true, "ScalarArrayOpExpr": true, "SubPlan": true,
	"AlternativeSubPlan": true, "FieldSelect": true, "FieldStore": true, "RelabelType": true,
	"CoerceViaIO": true, "ArrayCoerceExpr": true, "ConvertRowtypeExpr": true, "CollateExpr": true,
	"CaseTestExpr": true, "ArrayExpr": true, "RowCompareExpr": true, "JsonConstructorExpr": true,
	"JsonExpr": true, "JsonTablePath": true, "JsonTablePathScan": true, "JsonTableSiblingJoin": true,
	"MergeAction": true, "CoerceToDomain": true, "CoerceToDomainValue": true, "NextValueExpr": true,
	"InferenceElem": true, "TargetEntry": true, "RangeTblRef": true, "FromExpr": true,
	"OnConflictExpr": true, "Query": true, "RangeTblEntry": true, "RTEPermissionInfo": true,
	"RangeTblFunction": true, "TableSampleClause": true, "WithCheckOption": true,
	"SortGroupClause": true, "WindowClause": true, "RowMarkClause": true, "InlineCodeBlock": true,
	"CallContext": true, "ScanToken": true, "ScanResult": true, "ParseResult": true,
}

// keywordFunctions are constructs that PostgreSQL 16 and 17 made out of words
// that before could be the names of anybody's functions; an older server calls
// those.
var keywordFunctions = map[protoreflect.Name]string{
	"JsonObjectConstructor":     "json_object",
	"JsonArrayConstructor":      "json_array",
	"JsonArrayQueryConstructor": "json_array",
	"JsonObjectAgg":             "json_objectagg",
	"JsonArrayAgg":              "json_arrayagg",
	"JsonParseExpr":             "json",
	"JsonScalarExpr":            "json_scalar",
	"JsonSerializeExpr":         "json_serialize",
	"JsonFuncExpr":              "",
	"JsonTable":                 "json_table",
	"MergeSupportFunc":          "merge_action",
}
