package sqlmeta

import (
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/weirproxy/weir/internal/flow"
)

func messages(t *testing.T) map[protoreflect.Name]protoreflect.MessageDescriptor {
	out := make(map[protoreflect.Name]protoreflect.MessageDescriptor)
	list := (&pg.Node{}).ProtoReflect().Descriptor().ParentFile().Messages()
	for i := range list.Len() {
		out[list.Get(i).Name()] = list.Get(i)
	}
	if len(out) < 250 {
		t.Fatalf("only %d messages", len(out))
	}
	return out
}

func newMessage(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return mt.New().Interface()
}

// nodeOf wraps a message in a Node; nil when the oneof has no such member.
func nodeOf(m proto.Message) *pg.Node {
	n := &pg.Node{}
	fields := n.ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range fields.Len() {
		if fields.Get(i).Message().FullName() == m.ProtoReflect().Descriptor().FullName() {
			n.ProtoReflect().Set(fields.Get(i), protoreflect.ValueOfMessage(m.ProtoReflect()))
			return n
		}
	}
	return nil
}

// TestEveryNodeAsStatement: whatever kind of node stands as a statement, even an
// empty one, gets an access of its own or is unknown, unless it is listed.
func TestEveryNodeAsStatement(t *testing.T) {
	for name, d := range messages(t) {
		n := nodeOf(newMessage(t, d))
		if n == nil {
			continue
		}
		s := testSession()
		st := analyze(n, "x", &s, nil)
		if len(st.Accesses) == 0 {
			t.Errorf("%s: no access", name)
		}
		harmless := len(st.Accesses) == 1 && st.Accesses[0].Verb == flow.Connect
		if harmless && !mayBeHarmless(unwrap(n)) {
			t.Errorf("%s as a statement passes as harmless", name)
		}
		isStatement := strings.HasSuffix(string(name), "Stmt")
		if isStatement && st.Tag == "" {
			t.Errorf("%s has no tag", name)
		}
	}
}

// TestEveryFieldIsWalked plants a call of an unsafe function and a relation
// into every field of every kind of node that can hold one, and expects the walk
// to come across it or to give up.
func TestEveryFieldIsWalked(t *testing.T) {
	all := messages(t)
	for name, d := range all {
		switch name {
		case "ParseResult", "ScanResult", "ScanToken", "SummaryResult", "Node":
			continue
		}
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			if fd.Message() == nil || fd.IsMap() {
				continue
			}
			if unwalked[string(name)+"."+string(fd.Name())] || fd.Name() == "xpr" {
				continue // xpr is the C struct's first member, nothing of the grammar's
			}
			m := newMessage(t, d)
			if !plant(t, m, fd) {
				continue
			}
			s := testSession()
			w := &walker{s: &s, st: &Statement{}, verb: flow.Select, top: m}
			w.message(m)
			w.finish()
			if !found(w.st) {
				t.Errorf("%s.%s is not walked: %v", name, fd.Name(), w.st.Accesses)
			}
		}
	}
}

// unwalked are fields that hold names only, or belong to the server's own use of
// the tree, with the rule that makes something of them.
var unwalked = set(`
	A_Expr.name SubLink.oper_name SortBy.use_op ColumnRef.fields FuncCall.funcname
	RangeTableSample.method TypeName.names LockingClause.locked_rels
	Alias.colnames RangeVar.alias SelectStmt.locking_clause JoinExpr.using_clause
	JoinExpr.join_using_alias JoinExpr.alias RangeSubselect.alias RangeFunction.alias
	IntoClause.col_names IntoClause.view_query SelectStmt.into_clause
	ColumnDef.identity_sequence AlterRoleSetStmt.setstmt ConstraintsSetStmt.constraints
	DropRoleStmt.roles GrantRoleStmt.granted_roles
`)

// plant puts a sentinel into a field; false when the field can hold none.
func plant(t *testing.T, m proto.Message, fd protoreflect.FieldDescriptor) bool {
	t.Helper()
	r := m.ProtoReflect()
	value, ok := sentinel(t, fd.Message(), 0)
	if !ok {
		return false
	}
	if fd.IsList() {
		r.Mutable(fd).List().Append(protoreflect.ValueOfMessage(value.ProtoReflect()))
	} else {
		r.Set(fd, protoreflect.ValueOfMessage(value.ProtoReflect()))
	}
	return true
}

// sentinel is a message of a kind with a call of pg_read_file, or a relation,
// somewhere below.
func sentinel(t *testing.T, d protoreflect.MessageDescriptor, depth int) (proto.Message, bool) {
	call := &pg.FuncCall{Funcname: []*pg.Node{stringNode("pg_read_file")}}
	switch d.Name() {
	case "Node":
		return &pg.Node{Node: &pg.Node_FuncCall{FuncCall: call}}, true
	case "FuncCall":
		return call, true
	case "RangeVar":
		return &pg.RangeVar{Schemaname: "sentinel", Relname: "planted"}, true
	}
	if depth > 3 || analysed[d.Name()] {
		return nil, false
	}
	m := newMessage(t, d)
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if fd.Message() == nil || fd.IsMap() || unwalked[string(d.Name())+"."+string(fd.Name())] {
			continue
		}
		if v, ok := sentinel(t, fd.Message(), depth+1); ok {
			if fd.IsList() {
				m.ProtoReflect().Mutable(fd).List().Append(protoreflect.ValueOfMessage(v.ProtoReflect()))
			} else {
				m.ProtoReflect().Set(fd, protoreflect.ValueOfMessage(v.ProtoReflect()))
			}
			return m, true
		}
	}
	return nil, false
}

func found(st *Statement) bool {
	for _, a := range st.Accesses {
		if a.Verb == flow.Unknown || a.Resource == "function:pg_catalog.pg_read_file" ||
			a.Resource == everyObject || strings.HasPrefix(a.Resource, "sentinel.") {
			return true
		}
	}
	return false
}

// TestAnalysedExist: the list of what the grammar does not make names real kinds.
func TestAnalysedExist(t *testing.T) {
	all := messages(t)
	for name := range analysed {
		if all[name] == nil {
			t.Errorf("%s is no kind of node", name)
		}
	}
	for name := range unwalked {
		message, field, _ := strings.Cut(name, ".")
		d := all[protoreflect.Name(message)]
		if d == nil || d.Fields().ByName(protoreflect.Name(field)) == nil {
			t.Errorf("%s is no field", name)
		}
	}
	for name := range keywordFunctions {
		if all[name] == nil {
			t.Errorf("%s is no kind of node", name)
		}
	}
	for name := range tags {
		if all[protoreflect.Name(name)] == nil {
			t.Errorf("%s is no kind of node", name)
		}
	}
}

func testSession() Session {
	return Session{Database: "shop", Role: "weir_app", SearchPath: []string{"public"}, Certain: true, StandardConformingStrings: true}
}
