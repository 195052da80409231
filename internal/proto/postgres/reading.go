package postgres

import (
	"strings"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// How the server reads a text depends on two settings: standard_conforming_strings
// says where a string ends, client_encoding what bytes beyond ASCII are. Since
// PostgreSQL 14 a change is reported only before ReadyForQuery, while texts that
// come earlier (in the same batch) are read under the new value already. So behind
// a statement that may have changed one of them, and up to the ReadyForQuery, only
// texts are readable that mean the same under every value.

// reading is how the server reads, or has read, a text.
type reading struct {
	strings  bool // standard_conforming_strings
	encoding string
}

func (r reading) apply(s *sqlmeta.Session) {
	s.StandardConformingStrings, s.Encoding = r.strings, r.encoding
}

// anyReading leaves readable only what every server reads alike: without
// standard_conforming_strings a backslash in a string is unreadable, and in an
// encoding that is not known every character beyond ASCII.
var anyReading = reading{encoding: "changing"}

// reading is how the next text will be read.
func (e *Engine) reading() reading {
	if e.settings.unread {
		return anyReading
	}
	return reading{e.strings, e.encoding}
}

// changesReading reports whether a statement may change how texts are read.
func changesReading(ef *sqlmeta.Effects) bool {
	if ef.UnsureSearchPath { // a function, or anything
		return true
	}
	for _, c := range ef.Settings {
		switch strings.ToLower(c.Name) {
		case "standard_conforming_strings", "client_encoding", "names", "*":
			return true
		}
	}
	return false
}

// followReading takes the change that a statement may have made. A rollback takes
// it back, and the end of the transaction that of a SET LOCAL.
func (s *settings) followReading(ef *sqlmeta.Effects) {
	switch ef.Tx {
	case sqlmeta.TxCommit, sqlmeta.TxRollback, sqlmeta.TxRollbackTo:
		s.unread = s.unread || s.reread
	}
	if changesReading(ef) {
		s.begin()
		s.unread, s.reread = true, true
	}
	if s.unread {
		s.generation++
	}
}

// reportsDue says that the server will still report what has changed: a
// ReadyForQuery is on its way.
func (e *Engine) reportsDue() bool {
	if !e.settings.unread {
		return false
	}
	for _, x := range e.queue.entries[e.queue.first:] {
		if x.kind == expectSync || x.kind == expectQuery || x.kind == expectCall {
			return true
		}
	}
	return false
}

// ownName begins the application_name of Weir's own connections and of every
// session that it makes for a client.
const ownName = "weir:"

// nameProblem says why an application_name is refused, "" when it is not. Every
// session starts as "weir:<flow> <name>". A client may name it anew; then the
// backend's process id in flow.open ties the server's log to the flow. It must not
// pass for another flow or for Weir itself.
func nameProblem(c sqlmeta.SettingChange) string {
	switch {
	case c.Unsure && len(c.Values) == 0:
		return "weir: application_name has to be a text that stands in the statement, so that it can be seen that it does not begin with \"" + ownName + "\""
	case len(c.Values) > 0 && strings.HasPrefix(strings.ToLower(strings.TrimSpace(c.Values[0])), ownName):
		return "weir: application_name must not begin with \"" + ownName + "\", which marks weir's own sessions; choose another name"
	}
	return ""
}
