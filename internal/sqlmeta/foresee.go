package sqlmeta

import (
	"maps"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/internal/flow"
)

// Before a statement is brought before other people Weir may ask the server how it would
// run it, and how many rows it would touch. To plan a statement runs functions in it
// that do not change anything, and to count runs those of its conditions. So what can
// be asked about is what uses nothing but the server's own steady functions, on plain
// tables. This file says of which statements that is true as far as the catalogue shows;
// package explain has the server confirm it.

// Forecast is what can be asked of the server about one statement before it runs.
type Forecast struct {
	Statement *Statement
	// Named is what the statement names, and Counted what Count does.
	Named, Counted Mentions
	// Unplanned says why the planner must not be asked; "" when it may be.
	Unplanned string
	// Count is a SELECT for how many rows an UPDATE or DELETE touches, with the
	// statement's own bind parameters; "" when there is none, and Uncounted then says
	// why, "" when there is nothing to count.
	Count, Uncounted string
	// Emptied are the tables that a TRUNCATE or a DROP TABLE names.
	Emptied []NamedRelation
}

// NamedRelation is a relation's name as it would be written in SQL, with its schema or
// without as in the statement, and what it stands for by the catalogue.
type NamedRelation struct {
	Name string
	OID  uint32
}

// Mentions is what the text of a statement names and what the server has to find as
// Weir's catalogue has it. Lists are sorted, each name once. Functions and operators are
// without their schemas.
type Mentions struct {
	Relations []NamedRelation
	Functions []string // with those that are written in keywords
	Columns   []string // which may be calls of functions, as in t.f
	Operators []string // without those that constructs such as IN use
	Types     []string // as written, each part in double quotes
	Params    []int    // numbers of $n

	problem string // why the relations cannot be told for sure
	samples bool   // TABLESAMPLE
}

// mentions looks at a whole statement, which was analysed as st.
func mentions(n *pg.Node, st *Statement, s *Session, c *Catalog) Mentions {
	v := sighting{ctes: map[string]bool{}, functions: map[string]bool{}, operators: map[string]bool{}, types: map[string]bool{}, params: map[int]bool{}}
	v.visit(n.ProtoReflect())
	for _, f := range st.Functions {
		v.functions[f[strings.LastIndexByte(f, '.')+1:]] = true
	}
	m := Mentions{Functions: slices.Sorted(maps.Keys(v.functions)), Columns: slices.Sorted(maps.Keys(st.Names)), Operators: slices.Sorted(maps.Keys(v.operators)),
		Types: slices.Sorted(maps.Keys(v.types)), Params: slices.Sorted(maps.Keys(v.params)), samples: v.samples}
	m.Relations, m.problem = v.resolved(s, c)
	return m
}

// sighting collects names in a parse tree.
type sighting struct {
	relations                         []*pg.RangeVar
	ctes, functions, operators, types map[string]bool
	params                            map[int]bool
	samples                           bool
}

func (v *sighting) visit(m protoreflect.Message) {
	switch x := m.Interface().(type) {
	case *pg.LockingClause:
		return // it names what FROM calls something
	case *pg.RangeVar:
		v.relations = append(v.relations, x)
	case *pg.CommonTableExpr:
		v.ctes[x.GetCtename()] = true
	case *pg.FuncCall:
		addLast(v.functions, x.GetFuncname())
	case *pg.A_Expr:
		addLast(v.operators, x.GetName())
	case *pg.SubLink:
		addLast(v.operators, x.GetOperName())
	case *pg.SortBy:
		addLast(v.operators, x.GetUseOp())
	case *pg.TypeName:
		if parts := texts(x.GetNames()); len(parts) > 0 {
			for i, part := range parts {
				parts[i] = `"` + strings.ReplaceAll(part, `"`, `""`) + `"`
			}
			v.types[strings.Join(parts, ".")] = true
		}
	case *pg.ParamRef:
		v.params[int(x.GetNumber())] = true
	case *pg.RangeTableSample:
		v.samples = true
	}
	m.Range(func(fd protoreflect.FieldDescriptor, f protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case !fd.IsList():
			v.visit(f.Message())
		default:
			for i := range f.List().Len() {
				v.visit(f.List().Get(i).Message())
			}
		}
		return true
	})
}

func addLast(to map[string]bool, name []*pg.Node) {
	if last, _ := lastText(name); last != "" {
		to[last] = true
	}
}

// resolved finds what the names of relations stand for. All have to be plain tables
// that the catalogue knows.
func (v *sighting) resolved(s *Session, c *Catalog) (out []NamedRelation, problem string) {
	for _, r := range v.relations {
		schema, name := r.GetSchemaname(), r.GetRelname()
		if schema == "" && v.ctes[name] {
			if list, found := s.relations(c, name); found || len(list) != 1 {
				return nil, "the name " + quoteName(name) + " stands for a WITH query and for a table"
			}
			continue
		}
		n, why := s.plainTable(c, schema, name)
		if why != "" {
			return nil, why
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, ""
}

// plainTable is the one table that a name means; why says that it is none.
func (s *Session) plainTable(c *Catalog, schema, name string) (_ NamedRelation, why string) {
	list, written := []named{{schema: schema, name: name, rel: c.Relation(schema, name)}}, qualified(schema, name)
	if schema == "" {
		list, _ = s.relations(c, name)
		written = quoteName(name)
	}
	for _, n := range list {
		if n.schema == pgTemp {
			return NamedRelation{}, written + " may be a temporary table of the session, which no other session sees"
		}
	}
	if len(list) != 1 || list[0].rel == nil {
		return NamedRelation{}, "weir does not know for sure which table " + written + " is"
	}
	r := list[0].rel
	switch r.Kind {
	case 'v':
		return NamedRelation{}, written + " is a view"
	case 'f':
		return NamedRelation{}, written + " is a foreign table"
	case 'r', 'p', 'm':
	default:
		return NamedRelation{}, written + " is not a plain table"
	}
	if r.Rewritten {
		return NamedRelation{}, "rules make other statements of those on " + written
	}
	return NamedRelation{Name: written, OID: r.OID}, ""
}

// Foresee says what can be asked of the server about a statement that was analysed
// under s and c as st. tree must be of its text alone.
func Foresee(tree *pg.ParseResult, st *Statement, s *Session, c *Catalog) *Forecast {
	f := &Forecast{Statement: st}
	if len(tree.GetStmts()) != 1 {
		f.Unplanned = "it is not one statement"
		f.Uncounted = f.Unplanned
		return f
	}
	n := tree.GetStmts()[0].GetStmt()
	switch x := n.GetNode().(type) {
	case *pg.Node_SelectStmt, *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
	case *pg.Node_TruncateStmt:
		f.Unplanned = "there is no plan for " + st.Tag
		for _, r := range x.TruncateStmt.GetRelations() {
			f.emptied(s, c, r.GetRangeVar().GetSchemaname(), r.GetRangeVar().GetRelname())
		}
		return f
	case *pg.Node_DropStmt:
		f.Unplanned = "there is no plan for " + st.Tag
		if t := x.DropStmt.GetRemoveType(); t == pg.ObjectType_OBJECT_TABLE || t == pg.ObjectType_OBJECT_MATVIEW {
			for _, o := range x.DropStmt.GetObjects() {
				if parts := names(o); len(parts) > 1 {
					f.emptied(s, c, parts[len(parts)-2], parts[len(parts)-1])
				} else if len(parts) == 1 {
					f.emptied(s, c, "", parts[0])
				}
			}
		}
		return f
	default:
		f.Unplanned = "there is no plan for " + st.Tag
		return f
	}
	f.Named = mentions(n, st, s, c)
	f.Unplanned = f.Named.unsteady(st, s, c, flow.Connect, flow.Select, flow.Insert, flow.Update, flow.Delete, flow.Merge, flow.Lock)
	return f
}

func (f *Forecast) emptied(s *Session, c *Catalog, schema, name string) {
	if n, why := s.plainTable(c, schema, name); why == "" {
		f.Emptied = append(f.Emptied, n)
	}
}

// Counts enters the text of a count, which tree is of and st the analysis, if it is
// nothing but a read of what the statement itself names; Uncounted otherwise says why.
func (f *Forecast) Counts(text string, tree *pg.ParseResult, st *Statement, s *Session, c *Catalog) {
	f.Uncounted = f.uncounted(tree, st, s, c)
	if f.Uncounted == "" {
		f.Count = text
		f.Counted = mentions(tree.GetStmts()[0].GetStmt(), st, s, c)
	}
}

func (f *Forecast) uncounted(tree *pg.ParseResult, st *Statement, s *Session, c *Catalog) string {
	if len(tree.GetStmts()) != 1 || tree.GetStmts()[0].GetStmt().GetSelectStmt() == nil || st.Tag != "SELECT" {
		return "weir could not make a count of it"
	}
	m := mentions(tree.GetStmts()[0].GetStmt(), st, s, c)
	if why := m.unsteady(st, s, c, flow.Connect, flow.Select); why != "" {
		return why
	}
	if m.samples {
		return "TABLESAMPLE takes other rows each time"
	}
	for _, r := range m.Relations {
		if !slices.Contains(f.Named.Relations, r) {
			return "weir could not make a count of it"
		}
	}
	for _, p := range m.Params {
		if !slices.Contains(f.Named.Params, p) {
			return "weir could not make a count of it"
		}
	}
	return ""
}

// unsteady says why a statement uses something besides plain tables and functions of the
// server's own that give the same result each time, "" when it does not. verbs are all
// that it may do.
func (m *Mentions) unsteady(st *Statement, s *Session, c *Catalog, verbs ...flow.Verb) string {
	switch {
	case st.Problem != "":
		return "weir cannot read it"
	case !s.Certain:
		return "weir cannot tell the session's search path for sure"
	case !c.hasFunctions():
		return "weir does not know the database's functions"
	case m.problem != "":
		return m.problem
	}
	for _, name := range st.Functions {
		if why := c.unsteadyFunction(name); why != "" {
			return why
		}
	}
	for _, a := range st.Accesses {
		if a.Verb == flow.Call {
			return "it calls " + a.Resource + ", which to look ahead might run"
		}
		if !slices.Contains(verbs, a.Verb) || a.Resource == everyObject {
			return "it is not a plain read"
		}
	}
	if st.Opaque || st.Unresolved {
		return "weir does not know for sure what its names stand for"
	}
	if len(st.Languages) > 0 || st.SecurityDefiner || st.sideEffects || len(st.Effects.Settings) > 0 {
		return "it does more than to read"
	}
	return ""
}

// unsteadyFunction says why a function, "schema.name", may not run before its time.
func (c *Catalog) unsteadyFunction(name string) string {
	overloads := c.Functions[name]
	if len(overloads) == 0 {
		return "weir does not know function " + name + " for sure"
	}
	for _, f := range overloads {
		switch {
		case !f.BuiltIn || f.Schema != pgCatalog:
			return "it calls function " + name + ", which to look ahead might run"
		case f.Volatility != 'i' && f.Volatility != 's', sessionFunctions[f.Name]:
			return "it calls function " + name + ", which gives another result each time or in each session"
		}
	}
	return ""
}

// sessionFunctions are steady within a session, and another one has other results; or
// they leave a trace.
var sessionFunctions = set(`
	current_setting currval lastval inet_client_addr inet_client_port inet_server_addr inet_server_port
	pg_backend_pid pg_my_temp_schema pg_is_other_temp_schema pg_listening_channels pg_trigger_depth pg_client_encoding
	current_query pg_blocking_pids pg_safe_snapshot_blocking_pids row_security_active
	pg_current_xact_id pg_current_xact_id_if_assigned txid_current txid_current_if_assigned pg_current_snapshot txid_current_snapshot
`)
