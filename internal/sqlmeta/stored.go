package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// What a statement stores outlives it under another name, where no mask follows it.
// Statement.Stored says what the stored values can come from, in parts that are
// looked at one by one as a query's output is: Reads, Names, Star and Opaque. WHERE
// and RETURNING are no part of it, nor are the values that stand in the statement.

// aside runs walk and takes what it added to the statement's reads out again.
func (w *walker) aside(walk func()) *Statement {
	st := w.st
	reads, index, names, star, opaque := st.Reads, w.reads, st.Names, st.Star, st.Opaque
	st.Reads, w.reads, st.Names, st.Star, st.Opaque = nil, nil, nil, false, false
	walk()
	part := &Statement{Reads: st.Reads, Names: st.Names, Star: st.Star, Opaque: st.Opaque}
	st.Reads, w.reads, st.Names, st.Star, st.Opaque = reads, index, names, star, opaque
	return part
}

// storing runs walk over what is stored in the targets.
func (w *walker) storing(targets []named, walk func()) {
	part := w.aside(walk)
	for _, r := range part.Reads {
		w.addRead(r)
	}
	for n := range part.Names {
		w.name(n)
	}
	w.st.Star = w.st.Star || part.Star
	w.st.Opaque = w.st.Opaque || part.Opaque
	if lasting(targets) {
		w.st.Stored = append(w.st.Stored, part)
	}
}

// lasting reports whether one of the targets outlives the session. Rows of temporary
// relations are masked as a whole: the catalogue does not know them.
func lasting(targets []named) bool {
	for _, n := range targets {
		if n.schema != pgTemp {
			return true
		}
	}
	return len(targets) == 0
}

// storingOwn notes that columns of the targets' own rows, which the alias stands
// for, are stored in them again: UPDATE t SET a = b.
func (w *walker) storingOwn(targets []named, alias string, values ...*pg.Node) {
	p := ownColumns{alias: alias, names: make(map[string]struct{})}
	for _, n := range values {
		if n != nil {
			p.visit(n.ProtoReflect())
		}
	}
	if len(p.names) == 0 && !p.star || !lasting(targets) {
		return
	}
	part := w.aside(func() { w.behind(targets) })
	part.Names, part.Star = p.names, p.star
	w.st.Stored = append(w.st.Stored, part)
}

// behind adds relations and what stands behind them to the reads.
func (w *walker) behind(list []named) {
	for _, n := range list {
		if n.rel == nil {
			w.addRead(Read{Schema: n.schema, Name: n.name})
		} else {
			w.readTree(n.rel, false, make(map[uint32]bool))
		}
	}
}

// ownColumns collects the column references that can mean columns of one alias.
type ownColumns struct {
	alias string
	names map[string]struct{}
	star  bool
}

func (p *ownColumns) visit(m protoreflect.Message) {
	if c, ok := m.Interface().(*pg.ColumnRef); ok {
		p.column(c.GetFields())
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case !fd.IsList():
			p.visit(v.Message())
		default:
			for i := range v.List().Len() {
				p.visit(v.List().Get(i).Message())
			}
		}
		return true
	})
}

func (p *ownColumns) column(fields []*pg.Node) {
	own := len(fields) == 1
	for i, f := range fields {
		if s, ok := text(f); i < len(fields)-1 && ok && s == p.alias {
			own, fields = true, fields[i+1:]
			break
		}
	}
	for _, f := range fields {
		switch s, ok := text(f); {
		case !own:
		case !ok || s == p.alias: // a whole row
			p.star = true
		default:
			p.names[s] = struct{}{}
		}
	}
}

// finishStored runs last. A whole query is stored by SELECT INTO and CREATE TABLE
// AS; a WITH name brings rows from elsewhere in the statement.
func (w *walker) finishStored(star, opaque bool) {
	st := w.st
	if w.storesAll || len(st.Stored) > 0 && w.withNames {
		st.Stored = append(st.Stored, &Statement{Reads: st.Reads, Names: st.Names, Star: st.Star, Opaque: st.Opaque})
	}
	for _, part := range st.Stored {
		part.Star = part.Star || star
		part.Opaque = part.Opaque || opaque
		for n := range part.Names {
			for _, s := range w.sources[n] {
				part.Star = part.Star || s.isRelation // a column reference that is a whole row
			}
		}
	}
}
