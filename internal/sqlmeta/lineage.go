package sqlmeta

import (
	"cmp"
	"slices"
	"strings"
)

// Column is a column of a table or view. A value that comes through a view carries the
// view's column as well as those of the tables behind it.
type Column struct {
	ColumnID // Relation 0: the catalogue does not know it; Attr 0: the whole row
	Schema   string
	Table    string
	Name     string // "" for the whole row
}

// String is schema.table.column as a policy's masks name it, "*" for a whole row.
func (c Column) String() string {
	name := "*"
	if c.Name != "" {
		name = c.Name
	}
	return c.Schema + "." + c.Table + "." + name
}

func compareColumns(a, b Column) int {
	return cmp.Or(cmp.Compare(a.Relation, b.Relation), cmp.Compare(a.Attr, b.Attr),
		cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
}

// Lineage is what a value can carry.
type Lineage struct {
	Columns []Column // sorted, each once
	// Plain is set when the value is always that of one of Columns, or a constant:
	// renamed, united, behind a view or a cast to text, but not computed.
	Plain bool
	// Unknown says why the value can carry more than Columns, "" when it cannot.
	Unknown string
}

// Empty reports whether the value can carry nothing of any table.
func (l *Lineage) Empty() bool { return len(l.Columns) == 0 && l.Unknown == "" }

// join adds what another value can carry.
func (l *Lineage) join(other Lineage) {
	l.Plain = l.Plain && other.Plain
	if l.Unknown == "" {
		l.Unknown = other.Unknown
	}
	switch {
	case len(other.Columns) == 0:
	case len(l.Columns) == 0:
		l.Columns = slices.Clip(other.Columns)
	default:
		for _, c := range other.Columns {
			i, found := slices.BinarySearchFunc(l.Columns, c, compareColumns)
			if !found {
				l.Columns = slices.Insert(slices.Clip(l.Columns), i, c)
			}
		}
	}
}

// Describe puts a lineage into words for people.
func (l *Lineage) Describe() string {
	parts := make([]string, 0, len(l.Columns)+1)
	for _, c := range l.Columns {
		parts = append(parts, c.String())
	}
	if l.Unknown != "" {
		parts = append(parts, "what weir cannot follow ("+l.Unknown+")")
	}
	switch {
	case len(parts) == 0:
		return "no column"
	case l.Plain && len(parts) == 1:
		return parts[0]
	case l.Plain:
		return "one of " + strings.Join(parts, ", ")
	}
	return "computed from " + strings.Join(parts, ", ")
}

// Output is one column of the rows that a statement returns.
type Output struct {
	Name string // as the server names it; "" when the text does not show it
	Lineage
}

// TestKind is how much a test of a column can tell.
type TestKind uint8

// The kinds of tests, from the least telling.
const (
	// Equal compares the column, as it is, with one value: a literal or a bind
	// parameter.
	Equal TestKind = iota
	// Compare is any other test of one row's column with values that stand in the
	// statement, and anything that puts rows in an order or in groups: it tells about
	// one bit for each row.
	Compare
	// Free holds the column against other data, or lets it decide how many rows
	// there are: how much that tells has no bound.
	Free
)

// String is the kind in the words of the record.
func (k TestKind) String() string { return [...]string{"equal", "compare", "free"}[k] }

// Test is a place of a statement where values of a column decide what happens,
// rather than only being shown: a condition, an order, a group.
type Test struct {
	Column Column
	// Unknown says why other columns may be tested than the text shows; Column is then
	// empty.
	Unknown string
	Kind    TestKind
	Count   int    // how many such tests there are: one for each value of an Equal
	Where   string // "WHERE", "ORDER BY", "a calculation that can fail", ...
}

// Stored is what a statement stores in a column of a relation that outlives the
// session.
type Stored struct {
	Target Column // Name "" when the text does not show the column
	Lineage
}

// InDoubt is a copy of the statement that may carry anything besides, for the reason
// given.
func (st *Statement) InDoubt(why string) *Statement {
	out := *st
	out.Opaque = true
	out.Output = slices.Clone(st.Output)
	for i := range out.Output {
		out.Output[i].Unknown, out.Output[i].Plain = why, false
	}
	out.All.Unknown = why
	out.Stored = slices.Clone(st.Stored)
	for i := range out.Stored {
		out.Stored[i].Unknown = why
	}
	if len(st.Tests) > 0 {
		out.Tests = append(slices.Clip(st.Tests), Test{Unknown: why, Kind: Free, Count: 1, Where: st.Tests[0].Where})
	}
	return &out
}
