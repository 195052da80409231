package sqlmeta

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/flow"
)

// tableStatement: definition and upkeep of tables, views, sequences, indexes and
// what hangs on them. What hangs on a table (trigger, rule, policy, index) is an
// object of its own name in the table's schema, and an alter of the table.
func (w *walker) tableStatement(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.CreateStmt:
		w.createTable(x)
	case *pg.CreateForeignTableStmt:
		w.createTable(x.GetBaseStmt())
		w.nodes(x.GetOptions())
	case *pg.CreateTableAsStmt:
		w.createTableAs(x)
	case *pg.ViewStmt:
		w.create(x.GetView())
		w.node(x.GetQuery())
		w.nodes(x.GetOptions())
	case *pg.CreateSeqStmt:
		w.create(x.GetSequence())
		w.sequenceOptions(x.GetOptions())
	case *pg.AlterSeqStmt:
		w.relation(flow.Alter, x.GetSequence())
		w.sequenceOptions(x.GetOptions())
	case *pg.AlterTableStmt:
		w.alterTable(x)
	case *pg.IndexStmt:
		w.onTable(flow.Create, x.GetRelation(), x.GetIdxname())
		w.altering(func() { w.children(x, "relation") })
	case *pg.CreateTrigStmt:
		w.onTable(flow.Create, x.GetRelation(), x.GetTrigname())
		w.altering(func() { w.children(x, "relation", "funcname", "transition_rels") })
		w.handler(x.GetFuncname())
	case *pg.RuleStmt:
		w.rule(x)
	case *pg.CreatePolicyStmt:
		w.onTable(flow.Create, x.GetTable(), x.GetPolicyName())
		w.altering(func() { w.children(x, "table") })
	case *pg.AlterPolicyStmt:
		w.relation(flow.Alter, x.GetTable())
		w.altering(func() { w.children(x, "table") })
	case *pg.CreateStatsStmt:
		w.newObject(x.GetDefnames())
		w.altering(func() { w.children(x) })
	case *pg.RefreshMatViewStmt:
		w.relation(flow.Maintain, x.GetRelation())
	case *pg.VacuumStmt:
		w.vacuum(x)
	case *pg.ClusterStmt:
		w.maintain(x.GetRelation())
		w.nodes(x.GetParams())
	case *pg.ReindexStmt:
		w.reindex(x)
	default:
		return false
	}
	return true
}

// altering walks with relations that are met there being changed, not read:
// foreign keys, inheritance, OWNED BY, PARTITION. Queries inside still read.
func (w *walker) altering(walk func()) {
	verb := w.verb
	w.verb = flow.Alter
	walk()
	w.verb = verb
}

// create is a new relation at a name.
func (w *walker) create(r *pg.RangeVar) {
	if r == nil {
		return
	}
	schema := r.GetSchemaname()
	switch {
	case r.GetRelpersistence() == "t":
		schema = pgTemp
	case schema == "" && !w.s.Certain:
		for _, s := range w.targets() {
			w.add(flow.Create, qualified(s, r.GetRelname()))
		}
		return
	case schema == "":
		schema = w.s.target(w.c)
	}
	w.add(flow.Create, qualified(schema, r.GetRelname()))
	if schema == pgTemp {
		w.st.Effects.CreatesTemp = append(w.st.Effects.CreatesTemp, r.GetRelname())
	}
}

// targets are the schemas where an unqualified new object may go.
func (w *walker) targets() []string {
	if w.s.Certain || w.s.inNewSchema || w.c == nil || len(w.c.Schemas) == 0 {
		return []string{w.s.target(w.c)}
	}
	var out []string
	for s := range w.c.Schemas {
		if s != infoSchema && !systemSchema(s) {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// systemSchema reports whether a schema is one of the server's: no object goes
// there by being unqualified.
func systemSchema(s string) bool { return len(s) > 3 && s[:3] == "pg_" && s != pgTemp }

func (w *walker) createTable(x *pg.CreateStmt) {
	temps := len(w.st.Effects.CreatesTemp)
	w.create(x.GetRelation())
	if len(w.st.Effects.CreatesTemp) > temps && len(x.GetInhRelations()) > 0 {
		w.fail(temporaryPart)
	}
	w.altering(func() { w.children(x, "relation") })
}

// temporaryPart: the rows of a temporary relation, which are masked because the
// catalogue does not know it, would come back as rows of a lasting one.
const temporaryPart = "a temporary relation as a part of another one"

func (w *walker) createTableAs(x *pg.CreateTableAsStmt) {
	w.into(x.GetInto())
	if e := x.GetQuery().GetExecuteStmt(); e != nil {
		w.execute(e)
		return
	}
	w.node(x.GetQuery())
}

// constraint: a foreign key changes what deletes on the referenced table do, and
// tells which keys it has.
func (w *walker) constraint(x *pg.Constraint) {
	w.relation(flow.Alter, x.GetPktable())
	w.children(x, "pktable")
}

// sequenceOptions: OWNED BY table.column alters the table.
func (w *walker) sequenceOptions(list []*pg.Node) {
	for _, n := range list {
		o := n.GetDefElem()
		parts := texts(o.GetArg().GetList().GetItems())
		if o.GetDefname() == "owned_by" && len(parts) > 1 {
			w.alterNamed(parts[:len(parts)-1])
			continue
		}
		w.node(n)
	}
}

func (w *walker) alterNamed(parts []string) {
	for _, n := range w.resolveParts(parts) {
		w.add(flow.Alter, n.resource())
	}
}

// resolveParts is resolve for a name in a list of strings.
func (w *walker) resolveParts(parts []string) []named {
	if len(parts) == 1 {
		return w.resolveName("", parts[0])
	}
	return w.resolveName(parts[len(parts)-2], parts[len(parts)-1])
}

func (w *walker) alterTable(x *pg.AlterTableStmt) {
	if x.GetObjtype() == pg.ObjectType_OBJECT_TYPE { // of a composite type
		w.object(flow.Alter, pg.ObjectType_OBJECT_TYPE, nameList(x.GetRelation()))
	} else {
		w.relation(flow.Alter, x.GetRelation())
	}
	for _, n := range x.GetCmds() {
		c := n.GetAlterTableCmd()
		switch c.GetSubtype() {
		case pg.AlterTableType_AT_AddInherit, pg.AlterTableType_AT_AttachPartition:
			part := w.resolve(x.GetRelation())
			if p := c.GetDef().GetPartitionCmd().GetName(); p != nil {
				part = w.resolve(p)
			}
			for _, n := range part {
				if n.schema == pgTemp {
					w.fail(temporaryPart)
				}
			}
		case pg.AlterTableType_AT_ChangeOwner:
			w.relation(flow.Grant, x.GetRelation())
		case pg.AlterTableType_AT_SetTableSpace:
			w.add(flow.Alter, everyObject)
		}
		w.cascade(flow.Drop, c.GetBehavior())
		w.altering(func() { w.children(c) })
	}
}

// onTable is a named object of a table.
func (w *walker) onTable(v flow.Verb, r *pg.RangeVar, name string) {
	for _, n := range w.relation(flow.Alter, r) {
		if name == "" { // the server picks the name of an index
			name = n.name
		}
		w.add(v, qualified(n.schema, name))
	}
}

// handler is a function that the server will call on its own from now on.
func (w *walker) handler(parts []*pg.Node) { w.handlerNamed(texts(parts)) }

func (w *walker) handlerNamed(parts []string) {
	n := len(parts)
	if n == 0 {
		return
	}
	schema := ""
	if n > 1 {
		schema = parts[n-2]
	}
	callees, found := w.s.callees(w.c, schema, parts[n-1])
	w.st.Unresolved = w.st.Unresolved || !found
	for _, c := range callees {
		w.function(c.qualified())
		w.add(flow.Call, functionResource(c.schema, c.name))
	}
}

// rule: its actions run whenever the event comes, so each is decided now.
func (w *walker) rule(x *pg.RuleStmt) {
	w.onTable(flow.Create, x.GetRelation(), x.GetRulename())
	w.node(x.GetWhereClause())
	w.nodes(x.GetActions())
}

// maintain is upkeep of one relation, or of everything without one.
func (w *walker) maintain(r *pg.RangeVar) {
	if r == nil {
		w.add(flow.Maintain, everyObject)
		return
	}
	w.relation(flow.Maintain, r)
}

func (w *walker) vacuum(x *pg.VacuumStmt) {
	w.nodes(x.GetOptions())
	if len(x.GetRels()) == 0 {
		w.maintain(nil)
	}
	for _, n := range x.GetRels() {
		w.maintain(n.GetVacuumRelation().GetRelation())
	}
}

func (w *walker) reindex(x *pg.ReindexStmt) {
	w.nodes(x.GetParams())
	switch x.GetKind() {
	case pg.ReindexObjectType_REINDEX_OBJECT_INDEX, pg.ReindexObjectType_REINDEX_OBJECT_TABLE:
		w.relation(flow.Maintain, x.GetRelation())
	case pg.ReindexObjectType_REINDEX_OBJECT_SCHEMA:
		w.add(flow.Maintain, everyIn(x.GetName()))
	default:
		w.maintain(nil)
	}
}
