// Package sqlmeta says what a SQL statement does: which verbs on which relations,
// functions, roles and settings, what it does to the session, and what it reads.
//
// It is pure: text, parse tree, session state and catalogue in; []*Statement out.
// It opens nothing, logs nothing and keeps nothing. It must never call something
// harmless that it does not understand: what is not on a list of harmless things
// is an access of its own, and what cannot be read is unknown. Lists live in
// functions.go, relations.go and settings.go.
package sqlmeta
