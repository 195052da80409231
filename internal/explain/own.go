package explain

import "regexp"

// beginSQL and rollbackSQL enclose every look ahead.
const (
	beginSQL    = "BEGIN TRANSACTION READ ONLY"
	rollbackSQL = "ROLLBACK"
)

// OwnStatements knows what this package runs at a server, to the byte, besides the
// count of Count: whoever reads the server's log knows by it what is Weir's own.
type OwnStatements struct{ settings, plan *regexp.Regexp }

// Own is made once: it compiles.
func Own() OwnStatements {
	return OwnStatements{
		settings: regexp.MustCompile(`^SELECT pg_catalog\.set_config\(\$\d+, \$\d+, true\)(, pg_catalog\.set_config\(\$\d+, \$\d+, true\))*$`),
		plan:     regexp.MustCompile(`^EXPLAIN \(FORMAT TEXT, COSTS OFF\) EXECUTE ` + original + `(\(NULL(, NULL)*\))?$`),
	}
}

// Holds reports whether text is a statement of this package's that reads no table.
func (o OwnStatements) Holds(text string) bool {
	switch text {
	case beginSQL, rollbackSQL, confirmSQL, sizesSQL:
		return true
	}
	return o.settings.MatchString(text) || o.plan.MatchString(text)
}

// Count is the name of the prepared statement that counts rows for approvers: its text
// is made of the statement that waits for their approval.
const Count = counting
