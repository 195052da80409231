package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/flow"
)

// objectStatement: definition of what has a name in a schema, and the statements
// that work on any kind of object.
func (w *walker) objectStatement(m proto.Message) bool {
	return w.anyObjectStatement(m) || w.functionStatement(m) || w.typeStatement(m) || w.searchStatement(m)
}

// anyObjectStatement: what works on objects of any kind.
func (w *walker) anyObjectStatement(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.DropStmt:
		w.drop(x)
	case *pg.RenameStmt:
		w.rename(x)
	case *pg.AlterObjectSchemaStmt:
		w.moveToSchema(x)
	case *pg.AlterOwnerStmt:
		w.anObject(flow.Alter, x.GetObjectType(), x.GetRelation(), x.GetObject())
		w.anObject(flow.Grant, x.GetObjectType(), x.GetRelation(), x.GetObject())
	case *pg.AlterObjectDependsStmt:
		w.anObject(flow.Alter, x.GetObjectType(), x.GetRelation(), x.GetObject())
	case *pg.CommentStmt:
		w.object(flow.Alter, x.GetObjtype(), x.GetObject())
	case *pg.SecLabelStmt:
		w.object(flow.Alter, x.GetObjtype(), x.GetObject())
	case *pg.CreateSchemaStmt:
		w.createSchema(x)
	default:
		return false
	}
	return true
}

// functionStatement: functions, aggregates, and what DEFINE makes besides:
// operators, base types, collations, text search objects.
func (w *walker) functionStatement(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.CreateFunctionStmt:
		w.newFunction(x.GetFuncname())
		w.children(x, "funcname")
	case *pg.AlterFunctionStmt:
		w.object(flow.Alter, x.GetObjtype(), wrapArgs(x.GetFunc()))
		w.nodes(x.GetActions())
	case *pg.DefineStmt:
		if x.GetKind() == pg.ObjectType_OBJECT_AGGREGATE {
			w.newFunction(x.GetDefnames())
		} else {
			w.newObject(x.GetDefnames())
		}
		w.nodes(x.GetArgs())
		w.definition(x.GetDefinition())
	case *pg.AlterOperatorStmt:
		w.inSchema(flow.Alter, texts(x.GetOpername().GetObjname()))
		w.definition(x.GetOptions())
	default:
		return false
	}
	return true
}

func (w *walker) typeStatement(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.CompositeTypeStmt:
		w.newObject(nameList(x.GetTypevar()).GetList().GetItems())
		w.nodes(x.GetColdeflist())
	case *pg.CreateEnumStmt:
		w.newObject(x.GetTypeName())
	case *pg.CreateRangeStmt:
		w.newObject(x.GetTypeName())
		w.definition(x.GetParams())
	case *pg.CreateDomainStmt:
		w.newObject(x.GetDomainname())
		w.altering(func() { w.children(x, "domainname") })
	case *pg.AlterEnumStmt:
		w.inSchema(flow.Alter, texts(x.GetTypeName()))
	case *pg.AlterTypeStmt:
		w.inSchema(flow.Alter, texts(x.GetTypeName()))
		w.definition(x.GetOptions())
	case *pg.AlterDomainStmt:
		w.inSchema(flow.Alter, texts(x.GetTypeName()))
		w.cascade(flow.Drop, x.GetBehavior())
		w.altering(func() { w.node(x.GetDef()) })
	default:
		return false
	}
	return true
}

// searchStatement: how text is converted, compared and searched, and how indexes
// do it.
func (w *walker) searchStatement(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.CreateConversionStmt:
		w.newObject(x.GetConversionName())
		w.handler(x.GetFuncName())
	case *pg.CreateOpClassStmt:
		w.newObject(x.GetOpclassname())
		w.children(x, "opclassname", "opfamilyname")
		w.opClassItems(x.GetItems())
	case *pg.CreateOpFamilyStmt:
		w.newObject(x.GetOpfamilyname())
	case *pg.AlterOpFamilyStmt:
		w.inSchema(flow.Alter, texts(x.GetOpfamilyname()))
		w.nodes(x.GetItems())
		w.opClassItems(x.GetItems())
	case *pg.AlterCollationStmt:
		w.inSchema(flow.Alter, texts(x.GetCollname()))
	case *pg.AlterStatsStmt:
		w.inSchema(flow.Alter, texts(x.GetDefnames()))
	case *pg.AlterTSDictionaryStmt:
		w.inSchema(flow.Alter, texts(x.GetDictname()))
		w.nodes(x.GetOptions())
	case *pg.AlterTSConfigurationStmt:
		w.inSchema(flow.Alter, texts(x.GetCfgname()))
	default:
		return false
	}
	return true
}

// names are the parts of an object's name, whatever the grammar wraps it in.
func names(n *pg.Node) []string {
	switch x := n.GetNode().(type) {
	case *pg.Node_String_:
		return []string{x.String_.GetSval()}
	case *pg.Node_List:
		var out []string
		for _, item := range x.List.GetItems() {
			out = append(out, names(item)...)
		}
		return out
	case *pg.Node_TypeName:
		return texts(x.TypeName.GetNames())
	case *pg.Node_ObjectWithArgs:
		return texts(x.ObjectWithArgs.GetObjname())
	case *pg.Node_RangeVar:
		return names(nameList(x.RangeVar))
	case *pg.Node_RoleSpec:
		return []string{x.RoleSpec.GetRolename()}
	case *pg.Node_AccessPriv:
		return []string{x.AccessPriv.GetPrivName()}
	}
	return nil
}

// nameList is a relation's name as a list of strings.
func nameList(r *pg.RangeVar) *pg.Node {
	var parts []*pg.Node
	if r.GetSchemaname() != "" {
		parts = append(parts, stringNode(r.GetSchemaname()))
	}
	parts = append(parts, stringNode(r.GetRelname()))
	return &pg.Node{Node: &pg.Node_List{List: &pg.List{Items: parts}}}
}

func stringNode(s string) *pg.Node {
	return &pg.Node{Node: &pg.Node_String_{String_: &pg.String{Sval: s}}}
}

func wrapArgs(o *pg.ObjectWithArgs) *pg.Node {
	return &pg.Node{Node: &pg.Node_ObjectWithArgs{ObjectWithArgs: o}}
}

// anObject takes the name from where the statement has it.
func (w *walker) anObject(v flow.Verb, t pg.ObjectType, r *pg.RangeVar, n *pg.Node) {
	if r == nil {
		w.object(v, t, n)
		return
	}
	parts := append(names(nameList(r)), names(n)...)
	w.objectNamed(v, t, parts)
}

// object adds a verb on an object of any kind.
func (w *walker) object(v flow.Verb, t pg.ObjectType, n *pg.Node) {
	w.objectNamed(v, t, names(n))
}

func (w *walker) objectNamed(v flow.Verb, t pg.ObjectType, parts []string) {
	if len(parts) == 0 {
		w.add(v, everyObject)
		return
	}
	last := parts[len(parts)-1]
	switch t {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW,
		pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_FOREIGN_TABLE, pg.ObjectType_OBJECT_INDEX:
		for _, n := range w.resolveParts(parts) {
			w.add(v, n.resource())
		}
	case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_TABCONSTRAINT:
		w.partOfTable(v, parts, false)
	case pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY:
		w.partOfTable(v, parts, true)
	case pg.ObjectType_OBJECT_FUNCTION, pg.ObjectType_OBJECT_PROCEDURE,
		pg.ObjectType_OBJECT_ROUTINE, pg.ObjectType_OBJECT_AGGREGATE:
		w.functionObject(v, parts)
	case pg.ObjectType_OBJECT_TYPE, pg.ObjectType_OBJECT_DOMAIN, pg.ObjectType_OBJECT_COLLATION,
		pg.ObjectType_OBJECT_CONVERSION, pg.ObjectType_OBJECT_STATISTIC_EXT, pg.ObjectType_OBJECT_OPERATOR,
		pg.ObjectType_OBJECT_TSCONFIGURATION, pg.ObjectType_OBJECT_TSDICTIONARY,
		pg.ObjectType_OBJECT_TSPARSER, pg.ObjectType_OBJECT_TSTEMPLATE:
		w.inSchema(v, parts)
	case pg.ObjectType_OBJECT_OPCLASS, pg.ObjectType_OBJECT_OPFAMILY: // access method first
		w.inSchema(v, parts[1:])
	case pg.ObjectType_OBJECT_DOMCONSTRAINT, pg.ObjectType_OBJECT_ATTRIBUTE: // of a type
		w.inSchema(v, parts[:len(parts)-1])
	case pg.ObjectType_OBJECT_SCHEMA:
		w.add(v, everyIn(last))
	case pg.ObjectType_OBJECT_ROLE:
		w.add(v, roleResource(last))
	case pg.ObjectType_OBJECT_DATABASE:
		w.database(v, last)
	case pg.ObjectType_OBJECT_PARAMETER_ACL:
		w.add(v, settingResource(last))
	default: // extensions, languages, servers, publications, ...: no schema holds them
		w.add(v, everyObject)
	}
}

// database: patterns on relations do not speak of databases, but what happens to
// a database happens to every relation in it.
func (w *walker) database(v flow.Verb, name string) {
	w.add(v, databaseResource(name))
	w.add(v, everyObject)
}

// partOfTable: the last part names something of the table that the others name.
func (w *walker) partOfTable(v flow.Verb, parts []string, ownName bool) {
	table, last := parts[:len(parts)-1], parts[len(parts)-1]
	if len(table) == 0 {
		w.add(v, everyObject)
		return
	}
	for _, n := range w.resolveParts(table) {
		w.add(flow.Alter, n.resource())
		if ownName {
			w.add(v, qualified(n.schema, last))
		} else {
			w.add(v, n.resource())
		}
	}
}

// functionObject: without a schema, every function of the name that is no
// built-in.
func (w *walker) functionObject(v flow.Verb, parts []string) {
	schema, name := "", parts[len(parts)-1]
	if len(parts) > 1 {
		schema = parts[len(parts)-2]
	}
	callees, found := w.s.callees(w.c, schema, name)
	w.st.Unresolved = w.st.Unresolved || !found
	added := false
	for _, c := range callees {
		if !c.builtIn {
			added = true
			w.add(v, functionResource(c.schema, c.name))
		}
	}
	for _, c := range callees {
		if !added {
			w.add(v, functionResource(c.schema, c.name))
		}
	}
}

// inSchema is an object that the catalogue does not hold. Without a schema it
// may be in any of the path.
func (w *walker) inSchema(v flow.Verb, parts []string) {
	if len(parts) == 0 {
		w.add(v, everyObject)
		return
	}
	last := parts[len(parts)-1]
	if len(parts) > 1 {
		w.add(v, qualified(parts[len(parts)-2], last))
		return
	}
	any := false
	for _, s := range w.s.SearchPath {
		if w.s.Certain && (w.c == nil || len(w.c.Schemas) == 0 || w.c.Schemas[s]) {
			any = true
			w.add(v, qualified(s, last))
		}
	}
	for _, s := range w.targets() {
		if !any {
			w.add(v, qualified(s, last))
		}
	}
}

// newObject is an object created in the schema where new ones go.
func (w *walker) newObject(list []*pg.Node) {
	parts := texts(list)
	if len(parts) == 0 {
		w.add(flow.Create, everyObject) // the server picks the name
		return
	}
	if len(parts) > 1 {
		w.add(flow.Create, qualified(parts[len(parts)-2], parts[len(parts)-1]))
		return
	}
	for _, s := range w.targets() {
		w.add(flow.Create, qualified(s, parts[0]))
	}
}

func (w *walker) newFunction(list []*pg.Node) {
	parts := texts(list)
	switch len(parts) {
	case 0:
		w.add(flow.Create, everyObject)
	case 1:
		for _, s := range w.targets() {
			w.add(flow.Create, functionResource(s, parts[0]))
		}
	default:
		w.add(flow.Create, functionResource(parts[len(parts)-2], parts[len(parts)-1]))
	}
}

func (w *walker) drop(x *pg.DropStmt) {
	for _, n := range x.GetObjects() {
		w.object(flow.Drop, x.GetRemoveType(), n)
		w.dropTemp(names(n))
	}
	w.cascade(flow.Drop, x.GetBehavior())
}

// dropTemp notes that a temporary relation may have gone.
func (w *walker) dropTemp(parts []string) {
	n := len(parts)
	if n == 0 || n > 1 && parts[n-2] != pgTemp {
		return
	}
	if _, ok := w.s.Temp[parts[n-1]]; ok {
		w.st.looksUp = true
		w.st.Effects.DropsTemp = append(w.st.Effects.DropsTemp, parts[n-1])
	}
}

// rename is an alter of the old name and a create of the new one.
func (w *walker) rename(x *pg.RenameStmt) {
	if x.GetRenameType() == pg.ObjectType_OBJECT_DOMCONSTRAINT {
		w.inSchema(flow.Alter, names(x.GetObject()))
	} else {
		w.anObject(flow.Alter, x.GetRenameType(), x.GetRelation(), renamed(x))
	}
	w.cascade(flow.Alter, x.GetBehavior())
	switch x.GetRenameType() {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW,
		pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_FOREIGN_TABLE, pg.ObjectType_OBJECT_INDEX:
		for _, n := range w.resolve(x.GetRelation()) {
			w.add(flow.Create, qualified(n.schema, x.GetNewname()))
		}
	case pg.ObjectType_OBJECT_SCHEMA:
		w.add(flow.Alter, everyIn(x.GetSubname()))
		w.add(flow.Create, everyIn(x.GetNewname()))
	case pg.ObjectType_OBJECT_ROLE, pg.ObjectType_OBJECT_DATABASE:
		w.objectNamed(flow.Alter, x.GetRenameType(), []string{x.GetSubname()})
		w.objectNamed(flow.Create, x.GetRenameType(), []string{x.GetNewname()})
	case pg.ObjectType_OBJECT_FUNCTION, pg.ObjectType_OBJECT_PROCEDURE,
		pg.ObjectType_OBJECT_ROUTINE, pg.ObjectType_OBJECT_AGGREGATE:
		w.functionObject(flow.Create, replaceLast(names(x.GetObject()), x.GetNewname()))
	case pg.ObjectType_OBJECT_TYPE, pg.ObjectType_OBJECT_DOMAIN:
		w.inSchema(flow.Create, replaceLast(names(x.GetObject()), x.GetNewname()))
	}
}

// renamed is the part of the old name that does not stand in the relation.
func renamed(x *pg.RenameStmt) *pg.Node {
	if x.GetRelation() == nil {
		if x.GetObject() == nil && x.GetSubname() != "" {
			return stringNode(x.GetSubname())
		}
		return x.GetObject()
	}
	switch x.GetRenameType() {
	case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_ATTRIBUTE, pg.ObjectType_OBJECT_TABCONSTRAINT,
		pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY:
		return stringNode(x.GetSubname())
	}
	return nil
}

func replaceLast(parts []string, name string) []string {
	if len(parts) == 0 {
		return nil
	}
	return append(parts[:len(parts)-1:len(parts)-1], name)
}

// moveToSchema is an alter, and a create of the same name elsewhere.
func (w *walker) moveToSchema(x *pg.AlterObjectSchemaStmt) {
	w.anObject(flow.Alter, x.GetObjectType(), x.GetRelation(), x.GetObject())
	parts := names(x.GetObject())
	if x.GetRelation() != nil {
		parts = names(nameList(x.GetRelation()))
	}
	switch {
	case len(parts) == 0 || x.GetObjectType() == pg.ObjectType_OBJECT_EXTENSION:
		w.add(flow.Create, everyIn(x.GetNewschema()))
	case isFunction(x.GetObjectType()):
		w.add(flow.Create, functionResource(x.GetNewschema(), parts[len(parts)-1]))
	default:
		w.add(flow.Create, qualified(x.GetNewschema(), parts[len(parts)-1]))
	}
}

func isFunction(t pg.ObjectType) bool {
	switch t {
	case pg.ObjectType_OBJECT_FUNCTION, pg.ObjectType_OBJECT_PROCEDURE,
		pg.ObjectType_OBJECT_ROUTINE, pg.ObjectType_OBJECT_AGGREGATE:
		return true
	}
	return false
}

// createSchema runs its elements with the new schema first in the path.
func (w *walker) createSchema(x *pg.CreateSchemaStmt) {
	name := x.GetSchemaname()
	if name == "" {
		name = w.roleName(x.GetAuthrole())
	}
	w.add(flow.Create, everyIn(name))
	if len(x.GetSchemaElts()) == 0 {
		return
	}
	outer := w.s
	inside := *outer
	inside.SearchPath = append([]string{name}, outer.SearchPath...)
	inside.inNewSchema = true
	w.s = &inside
	w.nodes(x.GetSchemaElts())
	w.s = outer
}
