package sqlmeta

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// tag names a statement for people: near to the server's command tag.
func tag(m proto.Message) string {
	switch x := m.(type) {
	case *pg.SelectStmt:
		return "SELECT"
	case *pg.TransactionStmt:
		return words(strings.TrimPrefix(x.GetKind().String(), "TRANS_STMT_"))
	case *pg.DropStmt:
		return "DROP " + words(strings.TrimPrefix(x.GetRemoveType().String(), "OBJECT_"))
	case *pg.VariableSetStmt:
		if k := x.GetKind(); k == pg.VariableSetKind_VAR_RESET || k == pg.VariableSetKind_VAR_RESET_ALL {
			return "RESET"
		}
		return "SET"
	case *pg.VacuumStmt:
		if !x.GetIsVacuumcmd() {
			return "ANALYZE"
		}
	case *pg.FetchStmt:
		if x.GetIsmove() {
			return "MOVE"
		}
	case *pg.GrantStmt:
		if !x.GetIsGrant() {
			return "REVOKE"
		}
	case *pg.GrantRoleStmt:
		if !x.GetIsGrant() {
			return "REVOKE ROLE"
		}
	case *pg.CreateFunctionStmt:
		if x.GetIsProcedure() {
			return "CREATE PROCEDURE"
		}
	case *pg.CreateTableAsStmt:
		if x.GetObjtype() == pg.ObjectType_OBJECT_MATVIEW {
			return "CREATE MATERIALIZED VIEW"
		}
	case *pg.AlterTableStmt:
		return "ALTER " + words(strings.TrimPrefix(x.GetObjtype().String(), "OBJECT_"))
	case *pg.RenameStmt:
		return "ALTER " + words(strings.TrimPrefix(x.GetRenameType().String(), "OBJECT_"))
	}
	name := string(m.ProtoReflect().Descriptor().Name())
	if t, ok := tags[name]; ok {
		return t
	}
	return camel(strings.TrimSuffix(name, "Stmt"))
}

// tags are those that the node's name does not spell.
var tags = map[string]string{
	"AlterObjectSchemaStmt": "ALTER SET SCHEMA", "AlterOwnerStmt": "ALTER OWNER",
	"AlterPolicyStmt": "ALTER POLICY", "CheckPointStmt": "CHECKPOINT", "ClosePortalStmt": "CLOSE",
	"CompositeTypeStmt": "CREATE TYPE", "ConstraintsSetStmt": "SET CONSTRAINTS",
	"CreateAmStmt": "CREATE ACCESS METHOD", "CreateEnumStmt": "CREATE TYPE",
	"CreateEventTrigStmt": "CREATE EVENT TRIGGER", "CreateFdwStmt": "CREATE FOREIGN DATA WRAPPER",
	"CreateForeignServerStmt": "CREATE SERVER", "CreateOpClassStmt": "CREATE OPERATOR CLASS",
	"CreateOpFamilyStmt": "CREATE OPERATOR FAMILY", "CreatePLangStmt": "CREATE LANGUAGE",
	"CreateRangeStmt": "CREATE TYPE", "CreateSeqStmt": "CREATE SEQUENCE",
	"CreateStatsStmt": "CREATE STATISTICS", "CreateStmt": "CREATE TABLE",
	"CreateTableSpaceStmt": "CREATE TABLESPACE", "CreateTrigStmt": "CREATE TRIGGER",
	"CreatedbStmt": "CREATE DATABASE", "DefineStmt": "CREATE", "DropTableSpaceStmt": "DROP TABLESPACE",
	"DropdbStmt": "DROP DATABASE", "IndexStmt": "CREATE INDEX", "RefreshMatViewStmt": "REFRESH MATERIALIZED VIEW",
	"RuleStmt": "CREATE RULE", "SecLabelStmt": "SECURITY LABEL", "TruncateStmt": "TRUNCATE TABLE",
	"VariableShowStmt": "SHOW", "ViewStmt": "CREATE VIEW", "AlterSeqStmt": "ALTER SEQUENCE",
	"AlterRoleSetStmt": "ALTER ROLE", "AlterDatabaseSetStmt": "ALTER DATABASE", "CopyStmt": "COPY",
}

func words(s string) string { return strings.ReplaceAll(s, "_", " ") }

// camel spells CreateExtension as CREATE EXTENSION.
func camel(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}
