package sqlmeta

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// DDL makes a catalogue of the statements that make a database, such as pg_dump
// --schema-only writes, where no server can be asked. Identifiers are made up.
type DDL struct {
	session   Session
	oid       uint32
	relations []*Relation
	byName    map[string]*Relation // schema.name
	views     map[uint32]*pg.Node  // the query of each
	paths     map[uint32][]string  // under which a view was made
	functions []Function
	texts     []Definition
	bodies    map[uint32]*Body
	schemas   map[string]bool
	warnings  []string
}

// NewDDL begins with an empty database.
func NewDDL() *DDL {
	return &DDL{
		session: Session{SearchPath: []string{publicName}, Certain: true, StandardConformingStrings: true, Offline: true},
		oid:     firstUserOID, byName: make(map[string]*Relation), views: make(map[uint32]*pg.Node), paths: make(map[uint32][]string),
		bodies: make(map[uint32]*Body), schemas: map[string]bool{publicName: true, pgCatalog: true, infoSchema: true},
	}
}

// Add goes on with the statements of a text, whose parse tree tree is.
func (d *DDL) Add(tree *pg.ParseResult, text string) {
	for _, raw := range tree.GetStmts() {
		part, _ := slice(text, raw)
		d.statement(raw.GetStmt(), part)
	}
}

func (d *DDL) warn(format string, args ...any) {
	d.warnings = append(d.warnings, fmt.Sprintf(format, args...))
}

func (d *DDL) statement(n *pg.Node, text string) {
	switch x := n.GetNode().(type) {
	case *pg.Node_CreateSchemaStmt:
		d.createSchema(x.CreateSchemaStmt)
	case *pg.Node_CreateStmt:
		d.createTable(x.CreateStmt, 'r')
	case *pg.Node_CreateForeignTableStmt:
		d.createTable(x.CreateForeignTableStmt.GetBaseStmt(), 'f')
	case *pg.Node_ViewStmt:
		d.createView(x.ViewStmt.GetView(), 'v', x.ViewStmt.GetQuery(), texts(x.ViewStmt.GetAliases()))
	case *pg.Node_CreateTableAsStmt:
		into := x.CreateTableAsStmt.GetInto()
		kind := byte('r')
		if x.CreateTableAsStmt.GetObjtype() == pg.ObjectType_OBJECT_MATVIEW {
			kind = 'm'
		}
		d.createView(into.GetRel(), kind, x.CreateTableAsStmt.GetQuery(), texts(into.GetColNames()))
	case *pg.Node_CreateSeqStmt:
		d.enter(x.CreateSeqStmt.GetSequence(), 'S')
	case *pg.Node_CompositeTypeStmt:
		if r := d.enter(x.CompositeTypeStmt.GetTypevar(), 'c'); r != nil {
			d.columns(r, x.CompositeTypeStmt.GetColdeflist())
		}
	case *pg.Node_CreateFunctionStmt:
		d.createFunction(x.CreateFunctionStmt, text)
	case *pg.Node_AlterTableStmt:
		d.alterTable(x.AlterTableStmt)
	case *pg.Node_RenameStmt:
		d.rename(x.RenameStmt)
	case *pg.Node_AlterObjectSchemaStmt:
		if r := d.find(x.AlterObjectSchemaStmt.GetRelation()); r != nil {
			d.move(r, x.AlterObjectSchemaStmt.GetNewschema(), r.Name)
		}
	case *pg.Node_DropStmt:
		d.drop(x.DropStmt)
	case *pg.Node_VariableSetStmt, *pg.Node_SelectStmt: // SET search_path, set_config
		st := analyze(n, text, &d.session, nil)
		for _, c := range st.Effects.Settings {
			if c.Name == "search_path" && !c.Unsure && c.Values != nil {
				d.session.SearchPath = slices.DeleteFunc(slices.Clone(c.Values), func(s string) bool { return s == "" || s == "$user" })
			}
		}
	}
}

func (d *DDL) createSchema(x *pg.CreateSchemaStmt) {
	name := x.GetSchemaname()
	if name == "" {
		name = x.GetAuthrole().GetRolename()
	}
	d.schemas[name] = true
	path := d.session.SearchPath
	d.session.SearchPath = append([]string{name}, path...)
	for _, n := range x.GetSchemaElts() {
		d.statement(n, "")
	}
	d.session.SearchPath = path
}

// target is the schema where a new object goes.
func (d *DDL) target(schema string) string {
	if schema != "" {
		return schema
	}
	if len(d.session.SearchPath) > 0 {
		return d.session.SearchPath[0]
	}
	return publicName
}

// enter adds a relation; nil for one that does not outlive the session.
func (d *DDL) enter(r *pg.RangeVar, kind byte) *Relation {
	if r == nil || r.GetRelpersistence() == "t" {
		return nil
	}
	schema := d.target(r.GetSchemaname())
	d.schemas[schema] = true
	if old := d.byName[schema+"."+r.GetRelname()]; old != nil { // IF NOT EXISTS, OR REPLACE
		if kind != 'v' {
			return nil
		}
		old.Columns = nil
		return old
	}
	d.oid++
	out := &Relation{OID: d.oid, Schema: schema, Name: r.GetRelname(), Kind: kind}
	d.relations = append(d.relations, out)
	d.byName[schema+"."+out.Name] = out
	return out
}

func (d *DDL) find(r *pg.RangeVar) *Relation {
	if r == nil {
		return nil
	}
	return d.named(r.GetSchemaname(), r.GetRelname())
}

func (d *DDL) named(schema, name string) *Relation {
	if schema != "" {
		return d.byName[schema+"."+name]
	}
	for _, s := range d.session.SearchPath {
		if r := d.byName[s+"."+name]; r != nil {
			return r
		}
	}
	return nil
}

func (d *DDL) createTable(x *pg.CreateStmt, kind byte) {
	if x.GetPartspec() != nil {
		kind = 'p'
	}
	r := d.enter(x.GetRelation(), kind)
	if r == nil {
		return
	}
	for _, n := range x.GetInhRelations() {
		if parent := d.find(n.GetRangeVar()); parent != nil {
			d.inherit(r, parent)
		} else {
			d.warn("%s is a part of a table that is not there", qualified(r.Schema, r.Name))
		}
	}
	d.columns(r, x.GetTableElts())
}

func (d *DDL) inherit(r, parent *Relation) {
	parent.Children, r.Parents = append(parent.Children, r.OID), append(r.Parents, parent.OID)
	for _, c := range parent.Columns {
		if c != "" && !slices.Contains(r.Columns, c) {
			r.Columns = append(r.Columns, c)
		}
	}
}

// columns adds what stands in the parentheses of CREATE TABLE and CREATE TYPE.
func (d *DDL) columns(r *Relation, list []*pg.Node) {
	for _, n := range list {
		switch x := n.GetNode().(type) {
		case *pg.Node_ColumnDef:
			d.column(r, x.ColumnDef)
		case *pg.Node_TableLikeClause:
			if like := d.find(x.TableLikeClause.GetRelation()); like != nil {
				r.Columns = append(r.Columns, like.Columns...)
			} else {
				d.warn("%s is like a table that is not there", qualified(r.Schema, r.Name))
			}
		}
	}
	// Generated columns may read ones that come later.
	for _, n := range list {
		d.generated(r, n.GetColumnDef())
	}
}

func (d *DDL) column(r *Relation, x *pg.ColumnDef) {
	if name := x.GetColname(); name != "" && !slices.Contains(r.Columns, name) {
		r.Columns = append(r.Columns, name)
	}
}

func (d *DDL) generated(r *Relation, x *pg.ColumnDef) {
	for _, n := range x.GetConstraints() {
		c := n.GetConstraint()
		at := slices.Index(r.Columns, x.GetColname())
		if c.GetContype() != pg.ConstrType_CONSTR_GENERATED || at < 0 {
			continue
		}
		for len(r.Generated) <= at {
			r.Generated, r.GeneratedFrom = append(r.Generated, false), append(r.GeneratedFrom, nil)
		}
		r.Generated[at] = true
		p := columnNamesIn(c.GetRawExpr())
		for i, name := range r.Columns {
			if _, ok := p[name]; ok {
				r.GeneratedFrom[at] = append(r.GeneratedFrom[at], int16(i+1))
			}
		}
	}
}

// columnNamesIn are the last parts of the column references in an expression.
func columnNamesIn(n *pg.Node) map[string]struct{} {
	w := newWalker("", &Session{}, nil)
	w.node(n)
	return w.st.Names
}

// createView is a view, a materialised view, or a table that is made by a query. What
// columns it has is found out at the end.
func (d *DDL) createView(r *pg.RangeVar, kind byte, query *pg.Node, aliases []string) {
	v := d.enter(r, kind)
	if v == nil {
		return
	}
	v.Columns = aliases
	d.views[v.OID], d.paths[v.OID] = query, slices.Clone(d.session.SearchPath)
}

func (d *DDL) createFunction(x *pg.CreateFunctionStmt, text string) {
	parts := texts(x.GetFuncname())
	if len(parts) == 0 {
		return
	}
	schema := ""
	if len(parts) > 1 {
		schema = parts[len(parts)-2]
	}
	d.oid++
	f := Function{OID: d.oid, Schema: d.target(schema), Name: parts[len(parts)-1], Language: "sql", Volatility: 'v'}
	def := Definition{OID: d.oid, Kind: UnreadFunction}
	for _, n := range x.GetParameters() {
		def.Arguments = append(def.Arguments, n.GetFunctionParameter().GetName())
		if e := n.GetFunctionParameter().GetDefexpr(); e != nil && !isValue(e) {
			d.warn("what the default of a parameter of %s reads is not followed", qualified(f.Schema, f.Name))
		}
	}
	for _, n := range x.GetOptions() {
		o := n.GetDefElem()
		switch o.GetDefname() {
		case "language":
			f.Language = asciiLower(o.GetArg().GetString_().GetSval())
		case "volatility":
			f.Volatility = (o.GetArg().GetString_().GetSval() + "v")[0]
		case "security":
			f.SecurityDefiner = o.GetArg().GetBoolean().GetBoolval()
		case "as":
			def.Text = strings.Join(names(o.GetArg()), "")
		case "set":
			if v := o.GetArg().GetVariableSetStmt(); v.GetName() == "search_path" {
				def.SearchPath = []string{}
				for _, a := range v.GetArgs() {
					if s, ok := literal(a); ok && s != "" {
						def.SearchPath = append(def.SearchPath, s)
					}
				}
			}
		}
	}
	switch {
	case x.GetSqlBody() != nil:
		def.Kind = SQLFunction
		b := &Body{}
		for _, n := range flatten(x.GetSqlBody()) {
			b.Statements = append(b.Statements, &pg.RawStmt{Stmt: n})
		}
		d.bodies[d.oid] = b
	case f.Language == "sql":
		def.Kind = SQLFunction
	case f.Language == "plpgsql":
		def.Kind, def.Text = PLpgSQLFunction, text
	}
	d.functions, d.texts = append(d.functions, f), append(d.texts, def)
}

// flatten is the statements of BEGIN ATOMIC or RETURN.
func flatten(n *pg.Node) []*pg.Node {
	l := n.GetList()
	if l == nil {
		return []*pg.Node{n}
	}
	var out []*pg.Node
	for _, item := range l.GetItems() {
		out = append(out, flatten(item)...)
	}
	return out
}

func (d *DDL) alterTable(x *pg.AlterTableStmt) {
	r := d.find(x.GetRelation())
	if r == nil {
		return
	}
	for _, n := range x.GetCmds() {
		c := n.GetAlterTableCmd()
		switch c.GetSubtype() {
		case pg.AlterTableType_AT_AddColumn:
			d.column(r, c.GetDef().GetColumnDef())
			d.generated(r, c.GetDef().GetColumnDef())
		case pg.AlterTableType_AT_DropColumn:
			if i := slices.Index(r.Columns, c.GetName()); i >= 0 {
				r.Columns[i] = ""
			}
		case pg.AlterTableType_AT_AddInherit:
			if parent := d.find(c.GetDef().GetRangeVar()); parent != nil {
				d.inherit(r, parent)
			}
		case pg.AlterTableType_AT_AttachPartition:
			if part := d.find(c.GetDef().GetPartitionCmd().GetName()); part != nil {
				d.inherit(part, r)
			}
		}
	}
}

func (d *DDL) rename(x *pg.RenameStmt) {
	r := d.find(x.GetRelation())
	if r == nil {
		return
	}
	if len(d.views) > 0 {
		d.warn("%s is renamed, or a column of it, behind views that may read it under the old name", qualified(r.Schema, r.Name))
	}
	switch x.GetRenameType() {
	case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_ATTRIBUTE:
		if i := slices.Index(r.Columns, x.GetSubname()); i >= 0 {
			r.Columns[i] = x.GetNewname()
		}
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_FOREIGN_TABLE:
		d.move(r, r.Schema, x.GetNewname())
	}
}

func (d *DDL) move(r *Relation, schema, name string) {
	delete(d.byName, r.Schema+"."+r.Name)
	r.Schema, r.Name = schema, name
	d.byName[schema+"."+name] = r
	d.schemas[schema] = true
}

func (d *DDL) drop(x *pg.DropStmt) {
	for _, n := range x.GetObjects() {
		parts := names(n)
		switch x.GetRemoveType() {
		case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_FOREIGN_TABLE:
			if len(parts) == 0 {
				continue
			}
			schema := ""
			if len(parts) > 1 {
				schema = parts[len(parts)-2]
			}
			d.remove(d.named(schema, parts[len(parts)-1]))
		case pg.ObjectType_OBJECT_SCHEMA:
			for _, r := range slices.Clone(d.relations) {
				if len(parts) == 1 && r.Schema == parts[0] {
					d.remove(r)
				}
			}
		}
	}
}

func (d *DDL) remove(r *Relation) {
	if r == nil {
		return
	}
	d.relations = slices.DeleteFunc(d.relations, func(o *Relation) bool { return o == r })
	delete(d.byName, r.Schema+"."+r.Name)
}

// Catalog is what has been made, with warnings about what was not understood.
func (d *DDL) Catalog() (*Catalog, []string) {
	c := d.build()
	for _, r := range d.relations { // in the order in which they were made: one may read another
		q := d.views[r.OID]
		if q == nil {
			continue
		}
		s := d.session
		s.SearchPath = d.paths[r.OID]
		w := newWalker("", &s, c)
		out := w.newTracer().rowsOf(q, nil)
		if out.open {
			d.warn("not all columns of %s show in its text", qualified(r.Schema, r.Name))
		}
		aliases := r.Columns
		r.Columns = append(slices.Clone(aliases), out.names[min(len(aliases), len(out.names)):]...)
	}
	return d.build(), d.warnings
}

func (d *DDL) build() *Catalog {
	relations, functions := serverObjects()
	schemas := make([]string, 0, len(d.schemas))
	for s := range d.schemas {
		schemas = append(schemas, s)
	}
	slices.Sort(schemas)
	texts := slices.Clone(d.texts)
	for _, r := range d.relations {
		if d.views[r.OID] != nil && r.Kind != 'r' {
			texts = append(texts, Definition{OID: r.OID, Kind: ViewDefinition, SearchPath: d.paths[r.OID]})
		}
	}
	c := NewCatalog(1, schemas, append(relations, d.relations...), append(functions, d.functions...)).WithDefinitions(texts)
	for oid, q := range d.views {
		c.Supply(oid, &Body{Statements: []*pg.RawStmt{{Stmt: q}}})
	}
	for oid, b := range d.bodies {
		c.Supply(oid, b)
	}
	return c
}
