package catalog

import "fmt"

// Statements are all that this package ever runs at a server, to the byte: whoever
// reads the server's log knows by them what is Weir's own.
func Statements() map[string]bool {
	out := map[string]bool{beginSQL: true, rollbackSQL: true, savepointSQL: true, giveUpSQL: true}
	for _, sql := range []string{probeSQL, defaultsSQL, schemasSQL, relationsSQL, viewsSQL, opaqueSQL, inheritsSQL, functionsSQL, operatorsSQL, typesSQL,
		generatedSQL, rulesSQL, castsSQL, containedSQL, viewTexts()} {
		out[sql] = true
	}
	for _, major := range []int{0, 11, 12, 14} { // the versions at which they change
		out[columns(major)], out[functionTexts(major)] = true, true
	}
	return out
}

// Statements that are no question.
const (
	beginSQL     = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout TO '10s'; SET LOCAL search_path TO ''"
	rollbackSQL  = "ROLLBACK"
	savepointSQL = "SAVEPOINT texts; SET LOCAL lock_timeout TO '" + textLockTimeout + "'"
	giveUpSQL    = "ROLLBACK TO SAVEPOINT texts"
)

// columns is columnsSQL for a version of the server; 0: not known.
func columns(major int) string {
	generated := "a.attgenerated"
	if major > 0 && major < 12 {
		generated = "''"
	}
	return fmt.Sprintf(columnsSQL, generated)
}

func viewTexts() string {
	return fmt.Sprintf(viewTextsSQL, fmt.Sprintf(unlocked, "2618",
		"(SELECT r.oid FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class OPERATOR(pg_catalog.=) c.oid AND r.ev_type OPERATOR(pg_catalog.=) '1')"))
}

// functionTexts is functionTextsSQL for a version of the server.
func functionTexts(major int) string {
	body := "p.prosrc"
	if major >= 14 {
		body = "CASE WHEN p.prosqlbody IS NULL THEN p.prosrc WHEN " + fmt.Sprintf(unlocked, "1255", "p.oid") + " THEN pg_catalog.pg_get_function_sqlbody(p.oid) END"
	}
	return fmt.Sprintf(functionTextsSQL, body)
}
