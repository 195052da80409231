package sqlmeta

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
	// Extension and built-in objects live in pg_catalog like any other.
}

// Relation is a table, view, materialised view, foreign table, sequence or
// partitioned table (pg_class.relkind).
type Relation struct {
	OID          uint32
	Schema, Name string
	Kind         byte     // relkind: r v m f S p t c i
	Columns      []string // by attnum-1; "" for dropped columns
	// BaseColumns: for views, every {relation OID, attnum} that its rule reads,
	// through views below it. attnum 0 stands for the whole row.
	BaseColumns []ColumnID
	Children    []uint32 // inheritance children and partitions
	Parents     []uint32
}

// ColumnID names a column as RowDescription does: relation OID and attribute
// number.
type ColumnID struct {
	Relation uint32
	Attr     int16
}

// Function is one overload of a function or procedure (pg_proc).
type Function struct {
	OID             uint32
	Schema, Name    string
	Language        string
	Volatility      byte // i s v
	SecurityDefiner bool
	BuiltIn         bool // OID below 16384 (FirstNormalObjectId)
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
	}
	for _, f := range functions {
		name := f.Schema + "." + f.Name
		c.Functions[name] = append(c.Functions[name], f)
		c.functions[f.OID] = name
	}
	return c
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
