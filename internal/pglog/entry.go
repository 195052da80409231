package pglog

import (
	"net"
	"strings"
	"time"
)

// Entry is one statement in the server's log.
type Entry struct {
	Time        time.Time
	PID         uint32
	Started     time.Time // of the session; zero when the log does not say
	User        string
	Database    string
	Application string
	Client      string // host, or "[local]"
	Port        string // of the client
	Prepared    string // name of the prepared statement and portal, of an execution by the extended protocol
	Text        string
	Call        bool // a call of a function by its OID (fast path); Text is what the log says of it
}

// line is one line of any of the formats.
type line struct {
	Entry
	severity string
	message  string
}

// statement finds the statement that a line is about; false when it is about none that
// was executed. These are the messages of exec_simple_query, exec_execute_message and
// HandleFunctionRequest (PostgreSQL, src/backend/tcop) under log_statement, and under
// log_min_duration_statement, which logs what was not logged before.
func (l *line) statement() bool {
	if l.severity != "LOG" {
		return false
	}
	m := l.message
	if rest, ok := strings.CutPrefix(m, "duration: "); ok {
		if _, m, ok = strings.Cut(rest, " ms  "); !ok {
			return false // the text was logged before
		}
	}
	if text, ok := strings.CutPrefix(m, "statement: "); ok {
		l.Text = text
		return true
	}
	if rest, ok := strings.CutPrefix(m, "execute "); ok {
		rest = strings.TrimPrefix(rest, "fetch from ")
		name, text, ok := strings.Cut(rest, ": ")
		l.Prepared, l.Text = name, text
		return ok
	}
	for _, p := range []string{"fastpath function call: ", "received replication command: "} {
		if text, ok := strings.CutPrefix(m, p); ok {
			l.Text, l.Call = text, p[0] == 'f'
			return true
		}
	}
	return false
}

// setClient takes connection_from of csvlog and %r: "host:port", "[local]" or a host.
func (l *line) setClient(from string) {
	host, port, err := net.SplitHostPort(from)
	if err != nil || strings.Count(host, ":") > 0 && !strings.HasPrefix(from, "[") {
		// An IPv6 address stands there without brackets.
		if i := strings.LastIndexByte(from, ':'); i > 0 {
			host, port = from[:i], from[i+1:]
		} else {
			host, port = from, ""
		}
	}
	l.Client, l.Port = host, port
}

// clock reads the times of the log.
type clock struct{ zone *time.Location }

// read takes "2026-11-26 11:30:36.123 UTC". The abbreviation of a zone says no offset
// that can be relied on, so that all but UTC want the zone's name.
func (c clock) read(s string) (time.Time, bool) {
	day, rest, ok := strings.Cut(s, " ")
	if !ok {
		return time.Time{}, false
	}
	hour, zone, _ := strings.Cut(rest, " ")
	where := c.zone
	if where == nil {
		switch zone {
		case "UTC", "GMT", "":
			where = time.UTC
		default:
			offset, err := time.Parse("-07", zone)
			if err != nil {
				return time.Time{}, false
			}
			where = offset.Location()
		}
	}
	t, err := time.ParseInLocation("2006-01-02 15:04:05", day+" "+hour, where)
	return t, err == nil
}
