package sqlmeta

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
)

// Meaning is a digest over what the catalogue says about all that a statement touches:
// what its names stand for, the columns and partitions of its relations, the definitions
// of its views and of the functions that it calls. While it stays the same the text
// does the same. Triggers, defaults and the contents of tables are not part of it.
func (c *Catalog) Meaning(st *Statement) string {
	h := sha256.New()
	for _, a := range st.Accesses {
		fmt.Fprintf(h, "access %q %q %v\n", a.Verb, a.Resource, a.Unrestricted)
	}
	fmt.Fprintf(h, "functions %q languages %q definer %v problem %q\ncolumns %q %q %q\n", st.Functions, st.Languages, st.SecurityDefiner, st.Problem,
		st.Uses.Read, st.Uses.Written, st.Uses.Tested)
	if c != nil {
		d := describing{c: c, h: h, seen: map[uint32]bool{}}
		for _, a := range st.Accesses {
			d.resource(a.Resource)
		}
		for _, f := range st.Functions {
			d.functions(f)
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

type describing struct {
	c    *Catalog
	h    hash.Hash
	seen map[uint32]bool
}

func (d *describing) resource(name string) {
	if f, ok := strings.CutPrefix(name, "function:"); ok {
		d.functions(f)
		return
	}
	schema, rel, ok := strings.Cut(name, ".")
	if !ok {
		return
	}
	d.relation(d.c.byName[schema][rel])
}

// relation writes down a relation and those below it.
func (d *describing) relation(r *Relation) {
	if r == nil || d.seen[r.OID] {
		return
	}
	d.seen[r.OID] = true
	fmt.Fprintf(d.h, "relation %d %q %q %c %q %v %v %v %v\n", r.OID, r.Schema, r.Name, r.Kind, r.Columns, r.Generated, r.Opaque, r.Rewritten, r.BaseColumns)
	d.definition(r.OID)
	for _, b := range r.BaseColumns {
		d.relation(d.c.Relations[b.Relation])
	}
	children := slices.Clone(r.Children)
	slices.Sort(children)
	for _, oid := range children {
		d.relation(d.c.Relations[oid])
	}
}

func (d *describing) functions(name string) {
	overloads := slices.Clone(d.c.Functions[name])
	slices.SortFunc(overloads, func(a, b Function) int { return int(int64(a.OID) - int64(b.OID)) })
	for _, f := range overloads {
		if f.BuiltIn || d.seen[f.OID] {
			continue
		}
		d.seen[f.OID] = true
		fmt.Fprintf(d.h, "function %d %q %q %c %v\n", f.OID, name, f.Language, f.Volatility, f.SecurityDefiner)
		d.definition(f.OID)
	}
}

func (d *describing) definition(oid uint32) {
	if d.c.bodies == nil {
		return
	}
	if x, ok := d.c.bodies.definitions[oid]; ok {
		fmt.Fprintf(d.h, "definition %q %q %q\n", x.Text, x.SearchPath, x.Defaults)
	}
}
