package sqlmeta

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// standardStrings decides where a string ends. The server reports its change only
// before ReadyForQuery, while it reads the texts in between under the new value
// already: they would be other statements to it than to Weir.
const standardStrings = "standard_conforming_strings"

const stringsProblem = "a change of standard_conforming_strings, which weir needs to stay as it is to read statements as the server does"

// keepsStrings looks at a SET of any kind: of the session, the transaction, a
// function, a role, a database or the server. A reset goes back to what the session
// started with, which is what there is when it never changes.
func (w *walker) keepsStrings(x *pg.VariableSetStmt) {
	if x.GetKind() != pg.VariableSetKind_VAR_SET_VALUE {
		return
	}
	c := SettingChange{Name: strings.ToLower(x.GetName()), Values: []string{}}
	for _, n := range x.GetArgs() {
		v, ok := literal(n)
		c.Unsure = c.Unsure || !ok
		c.Values = append(c.Values, v)
	}
	w.stringsStay(c)
}

// stringsStay makes the statement unknown unless the value is the present one.
func (w *walker) stringsStay(c SettingChange) {
	if c.Name != standardStrings {
		return
	}
	if len(c.Values) == 1 && !c.Unsure {
		if on, ok := boolean(c.Values[0]); ok && on == w.s.StandardConformingStrings {
			return
		}
	}
	w.fail(stringsProblem)
}

// boolean reads a setting's value as parse_bool does: the words may be cut short as
// long as they are told apart.
func boolean(v string) (value, ok bool) {
	v = asciiLower(v)
	switch v {
	case "":
		return false, false
	case "on", "1":
		return true, true
	case "of", "off", "0":
		return false, true
	}
	switch {
	case strings.HasPrefix("true", v), strings.HasPrefix("yes", v):
		return true, true
	case strings.HasPrefix("false", v), strings.HasPrefix("no", v):
		return false, true
	}
	return false, false
}
