package postgres

import (
	"slices"
	"strings"
	"sync"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// MaskConfig is what masking needs besides the policy's masks.
type MaskConfig struct {
	Key *mask.Key
	// Custom are the policy's own detectors, name to pattern; nil for none.
	Custom func() map[string]string
}

// maskSet is what the masks of a principal mean in one picture of a database. It is
// immutable and shared between flows.
type maskSet struct {
	config  *MaskConfig
	catalog *sqlmeta.Catalog
	set     *mask.Set // of detectors; nil for none
	// byColumn is set when any mask names columns, whether the catalogue has them or
	// not.
	byColumn  bool
	columns   map[sqlmeta.ColumnID]columnMask
	relations map[uint32][]sqlmeta.ColumnID // relation -> its masked columns
	tainted   map[uint32]bool               // views that read masked columns
	resources map[string]struct{}           // relations and tainted views as accesses name them
	policies  []*policy.Mask                // those with columns
	whole     mask.Method                   // of a column that may carry any masked one
	doubt     *doubt                        // set in the copies that under makes
}

// columnMask is how one column is masked.
type columnMask struct {
	name   string // schema.table.column
	method mask.Method
	masks  []*policy.Mask
}

// any reports whether anything at all may have to be masked.
func (m *maskSet) any() bool { return m != nil && (m.byColumn || m.set != nil) }

// newMaskSet makes the set of a principal's masks in a database.
func newMaskSet(config *MaskConfig, masks []*policy.Mask, cat *sqlmeta.Catalog) (*maskSet, error) {
	m, err := newColumnMasks(masks, cat)
	if err != nil {
		return nil, err
	}
	m.config = config
	var rules []mask.Rule
	for _, p := range masks {
		method, err := mask.ParseMethod(p.With)
		if err != nil {
			return nil, err
		}
		for _, d := range p.Detect {
			rules = append(rules, mask.Rule{Detector: d, Method: method})
		}
	}
	if len(rules) > 0 {
		var custom map[string]string
		if config.Custom != nil {
			custom = config.Custom()
		}
		if m.set, err = mask.Compile(rules, custom, config.Key); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// newColumnMasks is the part of the set that names columns.
func newColumnMasks(masks []*policy.Mask, cat *sqlmeta.Catalog) (*maskSet, error) {
	m := &maskSet{catalog: cat, whole: mask.Redact, columns: make(map[sqlmeta.ColumnID]columnMask),
		relations: make(map[uint32][]sqlmeta.ColumnID), tainted: make(map[uint32]bool), resources: make(map[string]struct{})}
	methods := make([]mask.Method, len(masks))
	for i, p := range masks {
		method, err := mask.ParseMethod(p.With)
		if err != nil {
			return nil, err
		}
		methods[i] = method
		if len(p.Columns) > 0 {
			m.byColumn = true
			m.policies = append(m.policies, p)
			m.whole = mask.Strictest(m.whole, method)
		}
	}
	if m.byColumn && cat != nil {
		m.match(masks, methods)
		m.taint()
	}
	return m, nil
}

// match finds the masked columns. Partitions and inheritance children count as
// their parents and the other way round, column by column by name.
func (m *maskSet) match(masks []*policy.Mask, methods []mask.Method) {
	for _, r := range m.catalog.Relations {
		for i, column := range r.Columns {
			if column == "" {
				continue
			}
			for k, p := range masks {
				if p.MatchColumn(r.Schema, r.Name, column) {
					m.add(r, sqlmeta.ColumnID{Relation: r.OID, Attr: int16(i + 1)}, p, methods[k])
				}
			}
		}
	}
}

// add masks a column, its namesakes in the relation's family, and what the table
// itself computes from it.
func (m *maskSet) add(r *sqlmeta.Relation, id sqlmeta.ColumnID, p *policy.Mask, method mask.Method) {
	have := m.columns[id]
	if slices.Contains(have.masks, p) && mask.Strictest(have.method, method) == have.method {
		return
	}
	column := r.Columns[id.Attr-1]
	if have.masks == nil {
		m.relations[r.OID] = append(m.relations[r.OID], id)
		m.resources[resourceName(r.Schema, r.Name)] = struct{}{}
	}
	if !slices.Contains(have.masks, p) {
		have.masks = append(slices.Clip(have.masks), p)
	}
	m.columns[id] = columnMask{r.Schema + "." + r.Name + "." + column, mask.Strictest(have.method, method), have.masks}
	for _, oid := range slices.Concat(r.Children, r.Parents) {
		kin := m.catalog.Relations[oid]
		if kin == nil {
			continue
		}
		if i := slices.Index(kin.Columns, column); i >= 0 {
			m.add(kin, sqlmeta.ColumnID{Relation: oid, Attr: int16(i + 1)}, p, method)
		}
	}
	for i, from := range r.GeneratedFrom {
		if r.Columns[i] != "" && (slices.Contains(from, id.Attr) || slices.Contains(from, 0)) {
			m.add(r, sqlmeta.ColumnID{Relation: r.OID, Attr: int16(i + 1)}, p, mask.Strictest(mask.Redact, method))
		}
	}
}

// taint finds the views that read a masked column or a whole row with one.
func (m *maskSet) taint() {
	for _, r := range m.catalog.Relations {
		for _, c := range r.BaseColumns {
			_, column := m.columns[c]
			_, row := m.relations[c.Relation]
			if column || (row && c.Attr == 0) {
				m.tainted[r.OID] = true
				m.resources[resourceName(r.Schema, r.Name)] = struct{}{}
				break
			}
		}
	}
}

// lineage is how a value that can carry these columns is masked: by the strictest mask
// of all of them. What is computed from a masked column shows nothing of it: the last
// four digits of a reversed number are its first.
func (m *maskSet) lineage(l *sqlmeta.Lineage) maskInfo {
	var info maskInfo
	if !m.byColumn {
		return info
	}
	for _, c := range l.Columns {
		masked, ok := m.masked(c)
		if !ok {
			continue
		}
		method := masked.method
		if !l.Plain || c.Name == "" {
			info.computed = true
			method = mask.Strictest(mask.Redact, method)
		}
		if info.method == 0 || mask.Strictest(info.method, method) != info.method {
			info.name, info.method, info.source, info.masks = masked.name, method, sourceLineage, masked.masks
		}
	}
	if l.Unknown != "" && (len(m.columns) > 0 || m.catalog == nil) {
		info.method, info.source, info.computed = mask.Strictest(info.method, m.whole), sourceUnresolved, true
	}
	return info
}

// masked is the mask of a column, or of any column of a whole row.
func (m *maskSet) masked(c sqlmeta.Column) (columnMask, bool) {
	switch {
	case c.Relation == 0:
		return m.maskedByName(c)
	case c.Attr != 0:
		found, ok := m.columns[c.ColumnID]
		return found, ok
	}
	var out columnMask
	for _, id := range m.relations[c.Relation] {
		one := m.columns[id]
		out = columnMask{one.name, mask.Strictest(out.method, one.method), slices.Concat(out.masks, one.masks)}
	}
	return out, out.masks != nil
}

// maskedByName is for relations that the catalogue does not have, where none can be
// asked.
func (m *maskSet) maskedByName(c sqlmeta.Column) (columnMask, bool) {
	out := columnMask{name: c.String()}
	for _, p := range m.policies {
		if c.Name == "" || !p.MatchColumn(c.Schema, c.Table, c.Name) {
			continue
		}
		if method, err := mask.ParseMethod(p.With); err == nil {
			out.method, out.masks = mask.Strictest(out.method, method), append(out.masks, p)
		}
	}
	return out, out.masks != nil
}

// touches reports whether a statement has to do with a relation that has masked
// columns, so that the server's messages about it may quote them.
func (m *maskSet) touches(st *sqlmeta.Statement) bool {
	if !m.byColumn {
		return false
	}
	if st == nil || (st.Opaque && len(m.columns) > 0) {
		return true
	}
	for i := range st.Accesses {
		if _, ok := m.resources[st.Accesses[i].Resource]; ok || st.Accesses[i].Verb == flow.Unknown {
			return true
		}
	}
	for i := range st.Reads {
		rel := m.find(&st.Reads[i])
		if rel == nil {
			if !systemSchema(st.Reads[i].Schema) {
				return true
			}
		} else if m.tainted[rel.OID] || m.relations[rel.OID] != nil {
			return true
		}
	}
	return false
}

func (m *maskSet) find(r *sqlmeta.Read) *sqlmeta.Relation {
	if r.OID != 0 && m.catalog != nil {
		return m.catalog.Relations[r.OID]
	}
	return m.catalog.Relation(r.Schema, r.Name)
}

func systemSchema(s string) bool { return s == "pg_catalog" || s == "information_schema" }

// resourceName writes a relation as accesses do: a part in double quotes when it
// has anything but lower-case letters, digits, _ and $.
func resourceName(schema, name string) string { return quoted(schema) + "." + quoted(name) }

func quoted(s string) string {
	plain := s != ""
	for i := 0; plain && i < len(s); i++ {
		c := s[i]
		plain = c == '_' || c >= 'a' && c <= 'z' || c >= 0x80 || i > 0 && (c == '$' || c >= '0' && c <= '9')
	}
	if plain {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// maskCache shares compiled masks between the flows of a handler.
type maskCache struct {
	mu      sync.Mutex
	entries []maskEntry
}

// maskEntry is one compiled set and what it was made of, all of it immutable.
type maskEntry struct {
	revision string
	masks    []*policy.Mask
	catalog  *sqlmeta.Catalog
	set      *maskSet
}

// maxMaskSets bounds the cache: one set for each group of principals that the masks
// tell apart, in each database.
const maxMaskSets = 64

func (e *maskEntry) is(masks []*policy.Mask, revision string, cat *sqlmeta.Catalog) bool {
	return e.catalog == cat && e.revision == revision && slices.Equal(e.masks, masks)
}

// maskCompiler makes the mask sets of one flow.
type maskCompiler struct {
	config *MaskConfig
	cache  *maskCache
	known  *mask.Set // detectors of values that must not stand in a record

	last maskEntry
}

// compile gives the set for masks of a policy revision; nil when there are none.
func (c *maskCompiler) compile(masks []*policy.Mask, revision string, cat *sqlmeta.Catalog) (*maskSet, error) {
	if len(masks) == 0 {
		return nil, nil
	}
	if c.last.set != nil && c.last.is(masks, revision, cat) {
		return c.last.set, nil
	}
	var err error
	c.last, err = c.cache.get(masks, revision, cat, c.config)
	return c.last.set, err
}

func (c *maskCache) get(masks []*policy.Mask, revision string, cat *sqlmeta.Catalog, config *MaskConfig) (maskEntry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.entries {
		if e := c.entries[i]; e.is(masks, revision, cat) {
			return e, nil
		}
	}
	set, err := newMaskSet(config, masks, cat)
	if err != nil {
		return maskEntry{}, err
	}
	e := maskEntry{revision, slices.Clone(masks), cat, set}
	if len(c.entries) >= maxMaskSets {
		c.entries = slices.Delete(c.entries, 0, 1)
	}
	c.entries = append(c.entries, e)
	return e, nil
}

// hide replaces what a detector knows in a bind parameter that is recorded.
func (c *maskCompiler) hide(value []byte) string {
	if c.known == nil {
		return ""
	}
	out, r := c.known.AppendMasked(nil, value, nil)
	if r == mask.Unchanged {
		return ""
	}
	return string(out)
}
