package sqlmeta

import (
	"crypto/sha256"
	"encoding/binary"
)

// Catalog is an immutable picture of one database's system catalogue, enough to
// resolve names and to know where result columns come from. It is loaded by the
// catalog package on connections of Weir's own; a nil *Catalog is an empty one.
type Catalog struct {
	Version   uint64 // grows with every reload; part of cache keys
	Relations map[uint32]*Relation
	byName    map[string]map[string]*Relation // schema -> name
	Functions map[string][]Function           // "schema.name"
	functions map[uint32]string               // oid -> "schema.name"
	Schemas   map[string]bool

	relationNames map[string][]*Relation      // name -> in every schema
	functionNames map[string][]schemaOverload // name -> schemas that have one
	system        bool                        // pg_catalog's relations are among them
	types         map[uint32]Type
	operators     map[string][]Operator // of users and extensions, by name
	digest        [sha256.Size]byte     // of all of it: two servers' catalogues differ
	casts         map[string][]Cast     // of users and extensions, by the target's name
	bodies        *bodies               // nil: none are known
	memo          *memo
	// Extension and built-in objects live in pg_catalog like any other.
}

// Relation is a table, view, materialised view, foreign table, sequence or
// partitioned table (pg_class.relkind).
type Relation struct {
	OID          uint32
	Schema, Name string
	Kind         byte     // relkind: r v m f S p t c i
	Columns      []string // by attnum-1; "" for dropped columns
	// Generated marks stored generated columns (attgenerated), by attnum-1; nil for
	// none. COPY without a column list leaves them out.
	Generated []bool
	// GeneratedFrom names the columns that the expression of a stored generated column
	// reads, by attnum-1; nil for none.
	GeneratedFrom [][]int16
	// BaseColumns: for views, every {relation OID, attnum} that its rule reads,
	// through views below it. attnum 0 stands for the whole row.
	// NoColumn stands for a relation that is read without any of its columns.
	BaseColumns []ColumnID
	// Opaque is set for views whose rule, or that of a view below, calls a function
	// that may read anything: BaseColumns are then not all.
	Opaque bool
	// Rewritten is set when rules make other statements of INSERT, UPDATE or DELETE.
	Rewritten bool
	Children  []uint32 // inheritance children and partitions
	Parents   []uint32
}

// ColumnID names a column as RowDescription does: relation OID and attribute
// number.
type ColumnID struct {
	Relation uint32
	Attr     int16
}

// NoColumn is the Attr of a relation that a view reads without any column, as
// count(*) does: below every attribute number there is (sysattr.h).
const NoColumn int16 = -7

// Function is one overload of a function or procedure (pg_proc).
type Function struct {
	OID             uint32
	Schema, Name    string
	Language        string
	Volatility      byte // i s v
	SecurityDefiner bool
	BuiltIn         bool // OID below 16384 (FirstNormalObjectId)
	// Extension is the extension that it belongs to, "" for none.
	Extension string
	// Contained is set when it reads nothing by itself: what it returns carries its
	// arguments only.
	Contained bool
}

// NewCatalog indexes what a loader read. The maps of the result must not be
// changed afterwards.
func NewCatalog(version uint64, schemas []string, relations []*Relation, functions []Function) *Catalog {
	c := &Catalog{
		Version:   version,
		Relations: make(map[uint32]*Relation, len(relations)),
		byName:    make(map[string]map[string]*Relation),
		Functions: make(map[string][]Function, len(functions)),
		functions: make(map[uint32]string, len(functions)),
		Schemas:   make(map[string]bool, len(schemas)),

		relationNames: make(map[string][]*Relation, len(relations)),
		functionNames: make(map[string][]schemaOverload, len(functions)),
		memo:          newMemo(),
	}
	for _, s := range schemas {
		c.Schemas[s] = true
	}
	for _, r := range relations {
		c.Relations[r.OID] = r
		if c.byName[r.Schema] == nil {
			c.byName[r.Schema] = make(map[string]*Relation)
		}
		c.byName[r.Schema][r.Name] = r
		c.relationNames[r.Name] = append(c.relationNames[r.Name], r)
	}
	c.digest = digestOf(version, schemas, relations, functions)
	c.system = c.byName[pgCatalog]["pg_class"] != nil
	for _, f := range functions {
		name := f.Schema + "." + f.Name
		c.Functions[name] = append(c.Functions[name], f)
		c.functions[f.OID] = name
		c.addFunctionName(f)
	}
	return c
}

// schemaOverload says that a schema has a function of some name, and whether
// every overload there came with the server.
type schemaOverload struct {
	schema  string
	builtIn bool
}

func (c *Catalog) addFunctionName(f Function) {
	list := c.functionNames[f.Name]
	for i := range list {
		if list[i].schema == f.Schema {
			list[i].builtIn = list[i].builtIn && f.BuiltIn
			return
		}
	}
	c.functionNames[f.Name] = append(list, schemaOverload{f.Schema, f.BuiltIn})
}

// hasSystem reports whether the catalogue knows the server's own relations.
func (c *Catalog) hasSystem() bool { return c != nil && c.system }

// relationsNamed are the relations of a name in every schema.
func (c *Catalog) relationsNamed(name string) []*Relation {
	if c == nil {
		return nil
	}
	return c.relationNames[name]
}

// functionsNamed are the schemas that have a function of a name.
func (c *Catalog) functionsNamed(name string) []schemaOverload {
	if c == nil {
		return nil
	}
	return c.functionNames[name]
}

// hasFunctions reports whether the catalogue knows the server's own functions.
func (c *Catalog) hasFunctions() bool {
	return c != nil && len(c.functionNames["set_config"]) > 0
}

// Relation finds a relation by its qualified name, nil when there is none.
func (c *Catalog) Relation(schema, name string) *Relation {
	if c == nil {
		return nil
	}
	return c.byName[schema][name]
}

// FunctionName is the qualified name of a function's OID, "" when unknown.
func (c *Catalog) FunctionName(oid uint32) string {
	if c == nil {
		return ""
	}
	return c.functions[oid]
}

// digestOf makes catalogues of different servers, and of one server at different
// times, different in cache keys.
func digestOf(version uint64, schemas []string, relations []*Relation, functions []Function) [sha256.Size]byte {
	h := sha256.New()
	b := binary.AppendUvarint(nil, version)
	flush := func() {
		if len(b) > 32<<10 {
			h.Write(b)
			b = b[:0]
		}
	}
	number := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	number(len(schemas))
	for _, s := range schemas {
		b = appendString(b, s)
	}
	number(len(relations))
	for _, r := range relations {
		b = binary.AppendUvarint(b, uint64(r.OID))
		b = append(appendString(appendString(b, r.Schema), r.Name), r.Kind)
		number(len(r.Columns))
		for _, column := range r.Columns {
			b = appendString(b, column)
		}
		number(len(r.Generated))
		for _, g := range r.Generated {
			if g {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
		}
		number(len(r.BaseColumns))
		for _, base := range r.BaseColumns {
			b = binary.AppendUvarint(b, uint64(base.Relation))
			b = binary.AppendVarint(b, int64(base.Attr))
		}
		if r.Opaque {
			b = append(b, 'o')
		}
		if r.Rewritten {
			b = append(b, 'w')
		}
		number(len(r.Children))
		for _, child := range r.Children {
			b = binary.AppendUvarint(b, uint64(child))
		}
		flush()
	}
	for _, f := range functions {
		b = binary.AppendUvarint(b, uint64(f.OID))
		b = appendString(appendString(appendString(b, f.Schema), f.Name), f.Language)
		b = append(b, f.Volatility)
		if f.SecurityDefiner {
			b = append(b, 'd')
		}
		if f.BuiltIn {
			b = append(b, 'b')
		}
		flush()
	}
	h.Write(b)
	return [sha256.Size]byte(h.Sum(nil))
}

// Type is a type of users or extensions (pg_type); those of the server are known
// by their OID.
type Type struct {
	Kind     byte   // typtype: b c d e m p r
	Element  uint32 // of an array type; 0 otherwise
	TextWire bool   // sent as text in both formats
}

// WithTypes adds what is known of types and returns c. It is called before c is
// shared.
func (c *Catalog) WithTypes(types map[uint32]Type) *Catalog {
	c.types = types
	return c
}

// Type finds a type of users or extensions.
func (c *Catalog) Type(oid uint32) (Type, bool) {
	if c == nil {
		return Type{}, false
	}
	t, ok := c.types[oid]
	return t, ok
}
