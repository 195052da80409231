package mask

import "strings"

// Withheld begins the text that stands in place of a server's message.
const Withheld = "weir: the server's message is withheld because it may quote a masked value"

// RedactMessage appends what is shown in place of the text of an error or a notice
// that may quote a masked column: a text of Weir's own that names the SQLSTATE and,
// when it is not empty, the object that the server named in a field of its own.
// Nothing of the server's wording stays, not even without what stands in quotation
// marks: messages put values without any (operator does not exist: VALUE), in any
// language and from any extension, and a value can be spelt in letters. The only
// exceptions are whole messages that hold no value at all.
//
// It is for the message field only. DETAIL, HINT, CONTEXT and internal queries are
// to be left out.
func RedactMessage(dst, msg []byte, sqlstate, object string) []byte {
	if fixedMessages[string(msg)] {
		return append(dst, msg...)
	}
	dst = append(dst, Withheld...)
	var known []string
	if isSQLState(sqlstate) {
		known = append(known, sqlstate)
	}
	if name := conditionName(sqlstate); name != "" {
		known = append(known, name)
	}
	about := strings.Join(known, " ")
	if object != "" {
		about = strings.TrimPrefix(about+", "+object, ", ")
	}
	if about == "" {
		return dst
	}
	return append(append(append(dst, " ("...), about...), ')')
}

// fixedMessages are messages of the server that are the same whatever the data and
// say more than their SQLSTATE.
var fixedMessages = map[string]bool{
	"bigint out of range":                                                             true,
	"canceling statement due to conflict with recovery":                               true,
	"canceling statement due to lock timeout":                                         true,
	"canceling statement due to statement timeout":                                    true,
	"canceling statement due to user request":                                         true,
	"could not serialize access due to concurrent delete":                             true,
	"could not serialize access due to concurrent update":                             true,
	"could not serialize access due to read/write dependencies among transactions":    true,
	"current transaction is aborted, commands ignored until end of transaction block": true,
	"deadlock detected":    true,
	"division by zero":     true,
	"integer out of range": true,
	"more than one row returned by a subquery used as an expression": true,
	"numeric field overflow": true,
	"out of memory":          true,
	"out of shared memory":   true,
	"smallint out of range":  true,
	"terminating connection because of crash of another server process": true,
	"terminating connection due to administrator command":               true,
	"terminating connection due to idle-in-transaction timeout":         true,
	"terminating connection due to transaction timeout":                 true,
	"the database system is shutting down":                              true,
	"there is already a transaction in progress":                        true,
	"there is no transaction in progress":                               true,
	"canceling statement due to transaction timeout":                    true,
	"SET LOCAL can only be used in transaction blocks":                  true,
}
