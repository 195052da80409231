package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/flow"
)

// serverStatement: roles and rights, databases, and everything that no schema
// holds. The latter is an access on every object (*.*): such a thing reaches as
// far as the database, or beyond it.
func (w *walker) serverStatement(m proto.Message) bool {
	return w.roleStatement(m) || w.databaseStatement(m) || w.globalStatement(m)
}

func (w *walker) roleStatement(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.GrantStmt:
		w.grant(x)
	case *pg.GrantRoleStmt:
		for _, n := range x.GetGrantedRoles() {
			w.add(flow.Grant, roleResource(n.GetAccessPriv().GetPrivName()))
		}
	case *pg.AlterDefaultPrivilegesStmt:
		w.defaultPrivileges(x)
	case *pg.CreateRoleStmt:
		w.add(flow.Create, roleResource(x.GetRole()))
		w.membership(x.GetOptions(), x.GetRole())
	case *pg.AlterRoleStmt:
		w.add(flow.Alter, roleResource(w.roleName(x.GetRole())))
		w.membership(x.GetOptions(), w.roleName(x.GetRole()))
	case *pg.AlterRoleSetStmt:
		name := "*"
		if x.GetRole() != nil {
			name = w.roleName(x.GetRole())
		}
		w.roleOrAll(flow.Alter, name)
		w.lasting(x.GetSetstmt())
	case *pg.DropRoleStmt:
		for _, n := range x.GetRoles() {
			w.add(flow.Drop, roleResource(w.roleName(n.GetRoleSpec())))
		}
	case *pg.DropOwnedStmt:
		for _, n := range x.GetRoles() {
			w.add(flow.Drop, roleResource(w.roleName(n.GetRoleSpec())))
		}
		w.add(flow.Drop, everyObject)
	case *pg.ReassignOwnedStmt:
		for _, n := range append(x.GetRoles(), &pg.Node{Node: &pg.Node_RoleSpec{RoleSpec: x.GetNewrole()}}) {
			w.add(flow.Alter, roleResource(w.roleName(n.GetRoleSpec())))
		}
		w.add(flow.Alter, everyObject)
	default:
		return false
	}
	return true
}

func (w *walker) databaseStatement(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.CreatedbStmt:
		w.database(flow.Create, x.GetDbname())
		w.nodes(x.GetOptions())
	case *pg.AlterDatabaseStmt:
		w.database(flow.Alter, x.GetDbname())
		w.nodes(x.GetOptions())
	case *pg.AlterDatabaseRefreshCollStmt:
		w.database(flow.Alter, x.GetDbname())
	case *pg.AlterDatabaseSetStmt:
		w.database(flow.Alter, x.GetDbname())
		w.lasting(x.GetSetstmt())
	case *pg.DropdbStmt:
		w.database(flow.Drop, x.GetDbname())
	case *pg.AlterSystemStmt:
		w.keepsStrings(x.GetSetstmt())
		name := x.GetSetstmt().GetName()
		if name == "" {
			name = "*"
		}
		w.add(flow.Alter, settingResource(name))
		w.add(flow.Alter, everyObject)
	case *pg.CheckPointStmt:
		w.add(flow.Maintain, everyObject)
	case *pg.LoadStmt:
		w.fail("LOAD runs a library in the server")
	default:
		return false
	}
	return true
}

// globalVerb is the verb of a statement on an object that no schema holds, "" for
// others.
func globalVerb(m proto.Message) flow.Verb {
	switch m.(type) {
	case *pg.CreateExtensionStmt, *pg.CreateFdwStmt, *pg.CreateForeignServerStmt, *pg.CreateUserMappingStmt,
		*pg.CreateEventTrigStmt, *pg.CreatePLangStmt, *pg.CreateAmStmt, *pg.CreateCastStmt, *pg.CreateTransformStmt,
		*pg.CreateTableSpaceStmt, *pg.CreatePublicationStmt, *pg.CreateSubscriptionStmt, *pg.ImportForeignSchemaStmt:
		return flow.Create
	case *pg.AlterExtensionStmt, *pg.AlterExtensionContentsStmt, *pg.AlterFdwStmt, *pg.AlterForeignServerStmt,
		*pg.AlterUserMappingStmt, *pg.AlterEventTrigStmt, *pg.AlterTableSpaceOptionsStmt,
		*pg.AlterTableMoveAllStmt, *pg.AlterPublicationStmt, *pg.AlterSubscriptionStmt:
		return flow.Alter
	case *pg.DropUserMappingStmt, *pg.DropTableSpaceStmt, *pg.DropSubscriptionStmt:
		return flow.Drop
	}
	return ""
}

func (w *walker) globalStatement(m proto.Message) bool {
	verb := globalVerb(m)
	if verb == "" {
		return false
	}
	w.add(verb, everyObject)
	switch x := m.(type) {
	case *pg.CreateEventTrigStmt:
		w.handler(x.GetFuncname())
	case *pg.CreateFdwStmt, *pg.AlterFdwStmt, *pg.CreatePLangStmt, *pg.CreateAmStmt:
		// Handlers are functions in C: superusers only, and named in plain strings.
	case *pg.ImportForeignSchemaStmt:
		w.add(flow.Create, everyIn(x.GetLocalSchema()))
	case *pg.AlterExtensionContentsStmt:
		w.object(flow.Alter, x.GetObjtype(), x.GetObject())
	default:
		// The tables of a publication are read by whoever subscribes.
		w.children(m)
	}
	return true
}

// roleName is the name behind a role; the current one as far as it is known.
func (w *walker) roleName(r *pg.RoleSpec) string {
	switch r.GetRoletype() {
	case pg.RoleSpecType_ROLESPEC_CSTRING:
		return r.GetRolename()
	case pg.RoleSpecType_ROLESPEC_PUBLIC:
		return publicName
	}
	if w.s.Role != "" {
		return w.s.Role
	}
	return "current_user"
}

func (w *walker) roleOrAll(v flow.Verb, name string) {
	if name == "*" {
		w.add(v, "role:*")
		return
	}
	w.add(v, roleResource(name))
}

// membership: CREATE ROLE a IN ROLE b, ALTER GROUP b ADD USER a.
func (w *walker) membership(options []*pg.Node, role string) {
	w.nodes(options)
	for _, n := range options {
		o := n.GetDefElem()
		switch o.GetDefname() {
		case "addroleto":
			for _, r := range o.GetArg().GetList().GetItems() {
				w.add(flow.Grant, roleResource(w.roleName(r.GetRoleSpec())))
			}
		case "rolemembers", "adminmembers":
			w.add(flow.Grant, roleResource(role))
		}
	}
}

// lasting is the SET of ALTER ROLE and ALTER DATABASE: it outlives the session,
// so no setting is harmless there.
func (w *walker) lasting(x *pg.VariableSetStmt) {
	w.keepsStrings(x)
	name := x.GetName()
	if name == "" {
		name = "*"
	}
	w.add(flow.Set, settingResource(name))
}

func (w *walker) grant(x *pg.GrantStmt) {
	if x.GetTargtype() == pg.GrantTargetType_ACL_TARGET_ALL_IN_SCHEMA {
		for _, n := range x.GetObjects() {
			for _, schema := range names(n) {
				if isFunction(x.GetObjtype()) {
					w.add(flow.Grant, "function:"+everyIn(schema))
				} else {
					w.add(flow.Grant, everyIn(schema))
				}
			}
		}
		return
	}
	for _, n := range x.GetObjects() {
		w.object(flow.Grant, x.GetObjtype(), n)
	}
}

// defaultPrivileges: rights on objects that do not exist yet, in some schemas or
// in all.
func (w *walker) defaultPrivileges(x *pg.AlterDefaultPrivilegesStmt) {
	any := false
	for _, n := range x.GetOptions() {
		o := n.GetDefElem()
		if o.GetDefname() != "schemas" {
			continue
		}
		for _, schema := range names(o.GetArg()) {
			any = true
			w.add(flow.Grant, everyIn(schema))
		}
	}
	if !any {
		w.add(flow.Grant, everyObject)
	}
}
