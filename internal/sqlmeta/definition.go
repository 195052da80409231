package sqlmeta

import (
	"sync"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// DefinitionKind says how the text of a definition is read.
type DefinitionKind uint8

// The kinds of definitions.
const (
	ViewDefinition  DefinitionKind = iota // pg_get_viewdef
	SQLFunction                           // statements, or the body of BEGIN ATOMIC and RETURN
	PLpgSQLFunction                       // pg_get_functiondef: all of CREATE FUNCTION
	UnreadFunction                        // in another language, or too much text
)

// Definition is what the catalogue holds of a view or function in SQL: its text,
// and what is needed to understand it.
type Definition struct {
	OID  uint32
	Kind DefinitionKind
	Text string
	// SearchPath is the one that the function sets for itself; nil: that of whoever
	// calls it. A view's text names everything with its schema.
	SearchPath []string
	// Defaults are the expressions that stand in for arguments that a call leaves out,
	// with commas between them.
	Defaults string
	// Arguments are the names of a function's parameters, those of its result
	// included; "" where one has none.
	Arguments []string
}

// Body is a definition that has been read. It is shared and must not be changed.
type Body struct {
	Statements []*pg.RawStmt
	Variables  map[string]struct{} // names that are no columns, in lower case
	Problem    string              // why the body is not all of it; "" when it is
}

// bodies keeps what has been read of a catalogue's definitions. It is the one part of
// a Catalog that changes: it only grows, and what is in it never changes.
type bodies struct {
	definitions map[uint32]Definition
	mu          sync.RWMutex
	read        map[uint32]*Body
	reserved    int // bytes of text that have been read
}

// maxBodies bounds the text of definitions that are kept read, bytes: their trees take
// about 20 times as much.
const maxBodies = 1 << 20

// Reserve reports whether there is room for reading n more bytes of text.
func (c *Catalog) Reserve(n int) bool {
	c.bodies.mu.Lock()
	defer c.bodies.mu.Unlock()
	if c.bodies.reserved+n > maxBodies {
		return false
	}
	c.bodies.reserved += n
	return true
}

// WithDefinitions adds the definitions of views and functions, by OID, and returns c.
// It is called before c is shared.
func (c *Catalog) WithDefinitions(list []Definition) *Catalog {
	b := &bodies{definitions: make(map[uint32]Definition, len(list)), read: make(map[uint32]*Body)}
	for _, d := range list {
		b.definitions[d.OID] = d
	}
	c.bodies = b
	return c
}

// definition finds the definition of a view or function.
func (c *Catalog) definition(oid uint32) (Definition, bool) {
	if c == nil || c.bodies == nil {
		return Definition{}, false
	}
	d, ok := c.bodies.definitions[oid]
	return d, ok
}

// body is what has been read of a definition, nil when nobody has read it yet.
func (c *Catalog) body(oid uint32) *Body {
	if c == nil || c.bodies == nil {
		return nil
	}
	c.bodies.mu.RLock()
	defer c.bodies.mu.RUnlock()
	return c.bodies.read[oid]
}

// Supply enters a definition that has been read. The first one stays.
func (c *Catalog) Supply(oid uint32, b *Body) {
	c.bodies.mu.Lock()
	defer c.bodies.mu.Unlock()
	if c.bodies.read[oid] == nil {
		c.bodies.read[oid] = b
	}
}

// Wants lists the definitions that the analysis of statements could not go on
// without. Whoever has them read and supplied, and analyses again, gets an answer that
// rests on them.
func Wants(list []*Statement) []Definition {
	var out []Definition
	seen := make(map[uint32]bool)
	for _, st := range list {
		for _, d := range st.wants {
			if !seen[d.OID] {
				seen[d.OID] = true
				out = append(out, d)
			}
		}
	}
	return out
}
