package sqlmeta

import "crypto/sha256"

// Cast is a cast to a type by a function of a user's or an extension's (pg_cast). Those
// of the server run harmless functions and are not listed.
type Cast struct {
	TargetSchema, Target     string
	FunctionSchema, Function string
}

// WithCasts adds the casts and returns c. It is called before c is shared.
func (c *Catalog) WithCasts(list []Cast) *Catalog {
	c.casts = make(map[string][]Cast, len(list))
	b := append([]byte(nil), c.digest[:]...)
	for _, x := range list {
		c.casts[x.Target] = append(c.casts[x.Target], x)
		for _, s := range []string{x.TargetSchema, x.Target, x.FunctionSchema, x.Function} {
			b = appendString(b, s)
		}
	}
	if len(list) > 0 {
		c.digest = sha256.Sum256(b)
	}
	return c
}

// castsTo are the casts to a type of that name, in any schema when none is given.
func (c *Catalog) castsTo(schema, name string) []Cast {
	if c == nil {
		return nil
	}
	var out []Cast
	for _, x := range c.casts[name] {
		if schema == "" || x.TargetSchema == schema {
			out = append(out, x)
		}
	}
	return out
}

// ReadsNothing reports whether a compiled function of a well-known extension reads no
// data of tables, although it is not immutable: it gives random values, looks at a
// setting or at its dictionary.
func ReadsNothing(extension, function string) bool {
	list, ok := steadyExtensions[extension]
	return ok && (list == nil || list[function])
}

// steadyExtensions are extensions of PostgreSQL's own distribution (manual, appendix
// F); nil stands for all of their compiled functions. Left out on purpose: those that
// read tables or files or run SQL (dblink, postgres_fdw, tablefunc, xml2, lo,
// pageinspect, pgstattuple, pg_stat_statements, pg_buffercache, adminpack, file_fdw, ...).
var steadyExtensions = map[string]map[string]bool{
	"btree_gin": nil, "btree_gist": nil, "citext": nil, "cube": nil, "earthdistance": nil, "fuzzystrmatch": nil, "hstore": nil,
	"intarray": nil, "isn": nil, "ltree": nil, "pg_trgm": nil, "pgcrypto": nil, "seg": nil, "unaccent": nil, "uuid-ossp": nil,
}
