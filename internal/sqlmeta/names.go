package sqlmeta

import (
	"strings"

	"github.com/weirproxy/weir/internal/flow"
)

// Schemas that every session has.
const (
	pgCatalog   = "pg_catalog"
	infoSchema  = "information_schema"
	pgTemp      = "pg_temp"
	publicName  = "public"
	everyObject = "*.*" // an access whose reach the text does not show
)

// quoteName writes one part of a name as SQL would need it: in double quotes
// when it has anything but lower-case letters, digits, _ and $.
func quoteName(s string) string {
	plain := s != "" && !isDigit(s[0]) && s[0] != '$'
	for i := 0; plain && i < len(s); i++ {
		c := s[i]
		plain = isIdentPart(c) && !(c >= 'A' && c <= 'Z')
	}
	if plain {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

func qualified(schema, name string) string { return quoteName(schema) + "." + quoteName(name) }

// everyIn is the resource of everything in a schema.
func everyIn(schema string) string { return quoteName(schema) + ".*" }

func functionResource(schema, name string) string { return "function:" + qualified(schema, name) }
func roleResource(name string) string             { return "role:" + quoteName(name) }
func databaseResource(name string) string         { return "database:" + quoteName(name) }
func channelResource(name string) string          { return "channel:" + quoteName(name) }

// settingResource keeps the dots of a custom setting: they are part of its name.
func settingResource(name string) string { return "setting:" + strings.ToLower(name) }

// named is a relation that a name can mean.
type named struct {
	schema, name string
	rel          *Relation // nil when the catalogue does not know it
}

func (n named) resource() string { return qualified(n.schema, n.name) }

// path is the search path for relations in effect: pg_temp and pg_catalog first
// unless the session placed them itself.
func (s *Session) path() []string {
	path := make([]string, 0, len(s.SearchPath)+1)
	explicit := false
	for _, p := range s.SearchPath {
		explicit = explicit || p == pgCatalog
	}
	if !explicit {
		path = append(path, pgCatalog)
	}
	return append(path, s.SearchPath...)
}

// target is the schema where an unqualified new object goes: the first of the
// path that exists.
func (s *Session) target(c *Catalog) string {
	if s.inNewSchema {
		return s.SearchPath[0]
	}
	for _, p := range s.SearchPath {
		if p == pgTemp || p == pgCatalog || c == nil || len(c.Schemas) == 0 || c.Schemas[p] {
			return p
		}
	}
	return publicName
}

// relations is what an unqualified relation name means: one relation, or all
// that it could be when the path is uncertain or a temporary one may have gone.
// found is false when the catalogue knows none of them.
func (s *Session) relations(c *Catalog, name string) (out []named, found bool) {
	_, temp := s.Temp[name]
	if temp {
		out = append(out, named{schema: pgTemp, name: name})
	}
	if s.Certain {
		for _, schema := range s.path() {
			if r := c.Relation(schema, name); r != nil {
				return append(out, named{schema, name, r}), true
			}
			if schema == pgCatalog && !c.hasSystem() && systemRelation(name) {
				return append(out, named{schema: pgCatalog, name: name}), true
			}
		}
	} else {
		for _, r := range c.relationsNamed(name) {
			out = append(out, named{r.Schema, r.Name, r})
		}
		if len(out) == 0 && !c.hasSystem() && systemRelation(name) {
			out = append(out, named{schema: pgCatalog, name: name})
		}
	}
	if len(out) > 0 {
		return out, true
	}
	return []named{{schema: s.target(c), name: name}}, false
}

// accessSet collects accesses in order, each once.
type accessSet struct {
	list []flow.Access
	seen map[flow.Access]struct{}
}

// fewAccesses is how many are searched one by one before a map pays off.
const fewAccesses = 16

func (s *accessSet) add(a flow.Access) {
	if s.seen == nil {
		for _, have := range s.list {
			if have == a {
				return
			}
		}
		if len(s.list) == fewAccesses {
			s.seen = make(map[flow.Access]struct{}, 4*fewAccesses)
			for _, have := range s.list {
				s.seen[have] = struct{}{}
			}
		}
	}
	if s.seen != nil {
		if _, ok := s.seen[a]; ok {
			return
		}
		s.seen[a] = struct{}{}
	}
	s.list = append(s.list, a)
}
