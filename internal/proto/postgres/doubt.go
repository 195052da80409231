package postgres

import (
	"maps"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// doubt is what the catalogue's picture cannot show yet: objects that were made,
// changed or dropped by DDL of the open transaction, which no other connection
// sees. It holds until the transaction is over and the picture is renewed. It is
// immutable; nil is no doubt.
type doubt struct {
	all       bool                // anything may have changed
	names     map[string]struct{} // of relations, without their schemas
	functions []string            // as accesses name them
}

// after is the doubt behind one more statement.
func (d *doubt) after(st *sqlmeta.Statement) *doubt {
	if st.Problem != "" {
		return &doubt{all: true}
	}
	if !st.Effects.ChangesCatalogue {
		return d
	}
	next := &doubt{names: make(map[string]struct{})}
	if d != nil {
		next.all, next.functions = d.all, slices.Clone(d.functions)
		maps.Copy(next.names, d.names)
	}
	for _, a := range st.Accesses {
		switch a.Verb {
		case flow.Create, flow.Alter, flow.Drop:
			next.add(a.Resource)
		}
	}
	if len(next.names)+len(next.functions) > maxDoubt {
		return &doubt{all: true}
	}
	if !next.all && len(next.names) == 0 && len(next.functions) == 0 {
		return nil
	}
	return next
}

// maxDoubt bounds the names; beyond it everything is in doubt.
const maxDoubt = 1024

func (d *doubt) add(resource string) {
	switch prefix, _, _ := strings.Cut(resource, ":"); prefix {
	case "role", "database", "setting", "channel":
		return
	case "function":
		d.functions = append(d.functions, resource)
		d.all = d.all || lastPart(resource) == "*"
		return
	}
	switch name := lastPart(resource); {
	case strings.HasPrefix(resource, "pg_temp."): // the session's own; see settings.temp
	case strings.Trim(name, operatorCharacters) == "": // all of a schema, or an operator
		d.all = true
	default:
		d.names[name] = struct{}{}
	}
}

// operatorCharacters are those of operators' names (PostgreSQL manual, 4.1.3).
const operatorCharacters = "+-*/<>=~!@#%^&|`?"

// lastPart is the name in a resource, without quotes.
func lastPart(resource string) string {
	last, in := 0, false
	for i := range len(resource) {
		switch resource[i] {
		case '"':
			in = !in
		case '.':
			if !in {
				last = i + 1
			}
		}
	}
	name := resource[last:]
	if len(name) > 1 && name[0] == '"' {
		name = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
	}
	return name
}

// of reports whether a relation of this name may be another one than the picture's.
func (d *doubt) of(name string) bool {
	if d == nil {
		return false
	}
	_, ok := d.names[name]
	return ok || d.all
}

// mark is a statement as it has to be taken under the doubt: it may read anything
// when a relation that it reads is in doubt, or is a view, which may stand on one
// that is; and it may call every function that the transaction has made and that
// has a name of the statement's. The statement itself may be shared and is kept.
func (d *doubt) mark(st *sqlmeta.Statement, c *sqlmeta.Catalog) *sqlmeta.Statement {
	if d == nil {
		return st
	}
	out := st
	if d.reads(st.Reads, c) {
		out = st.InDoubt("a relation that the open transaction has changed")
	}
	for _, f := range d.functions {
		if mentions(st, lastPart(f)) {
			out = out.InDoubt("a function that the open transaction has made")
			out.Accesses = append(slices.Clip(out.Accesses), flow.Access{Verb: flow.Call, Resource: f})
			out.Effects.UnsureSearchPath = true
		}
	}
	return out
}

func (d *doubt) reads(list []sqlmeta.Read, c *sqlmeta.Catalog) bool {
	if d.all {
		return true
	}
	for i := range list {
		r := &list[i]
		if systemSchema(r.Schema) {
			continue
		}
		var rel *sqlmeta.Relation
		if c != nil {
			rel = c.Relations[r.OID]
		}
		if rel == nil || rel.Kind == 'v' || rel.Kind == 'm' || r.DependsOnViews || d.of(r.Name) {
			return true
		}
	}
	return false
}

// mentions reports whether a name stands in a statement, however it is written.
func mentions(st *sqlmeta.Statement, name string) bool {
	if _, ok := st.Names[name]; ok || name == "*" {
		return true
	}
	for _, f := range st.Functions {
		if lastPart(f) == name {
			return true
		}
	}
	return strings.Contains(strings.ToLower(st.Text), strings.ToLower(name))
}
