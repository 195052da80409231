package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// columnProbe looks for anything in an expression that makes it differ from row
// to row: a column, or the position of a cursor.
type columnProbe struct{ found bool }

func (p *columnProbe) visit(m protoreflect.Message) {
	switch m.Interface().(type) {
	case *pg.ColumnRef, *pg.CurrentOfExpr:
		p.found = true
	}
	if p.found {
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() == nil {
			return true
		}
		if !fd.IsList() {
			p.visit(v.Message())
			return !p.found
		}
		for i := range v.List().Len() {
			p.visit(v.List().Get(i).Message())
		}
		return !p.found
	})
}
