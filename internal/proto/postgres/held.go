package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgproto3/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Held implements session.Engine: a NOTICE, as soon as the client's stream stands
// between two messages.
func (e *Engine) Held(n session.Notice, out *session.Output) {
	e.notice = appendHeld(nil, n)
	e.sayHeld(out)
}

func (e *Engine) sayHeld(out *session.Output) {
	if len(e.notice) > 0 && e.atBoundary() && !e.over {
		out.ToClient.Append(e.notice)
		e.notice = nil
	}
}

// appendHeld appends the NOTICE of a client that waits.
func appendHeld(dst []byte, n session.Notice) []byte {
	m := pgproto3.NoticeResponse{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000",
		Message: fmt.Sprintf("weir: waiting for another person's approval (rule %q): request %s, needs %s, until %s",
			n.Rule, n.ID, n.Waiting, n.Until.UTC().Format("15:04:05 MST")),
		Hint: "Approvers: weir approvals approve " + n.ID + ". Cancel (Ctrl-C) to withdraw the request."}
	if n.BreakGlass {
		m.Hint += " In an emergency: weir approvals break-glass " + n.ID + " --reason TEXT."
	}
	out, err := m.Encode(dst)
	if err != nil { // longer than a message may be: not with texts of ours
		return dst
	}
	return out
}

// maxShownSetting bounds a value in what an approval is for, bytes; a longer one is
// stood for by its beginning and its digest.
const maxShownSetting = 256

// state is what of the session changes what a text means, for approvals: role and
// search path, what the server reports of how it reads values, what the client asked for
// at its start, and whatever it has set since.
func (e *Engine) state() []flow.Setting {
	if e.stated != nil && e.statedAt == e.settings.generation {
		return e.stated
	}
	e.statedAt = e.settings.generation
	e.stated = e.newState()
	return e.stated
}

func (e *Engine) newState() []flow.Setting {
	path, role := e.settings.path(), e.settings.role()
	all := []flow.Setting{{Name: "role", Value: sure(role.name, role.sure)},
		{Name: "search_path", Value: sure(strings.Join(path.list, ", "), path.sure && !e.settings.lost)}}
	for _, name := range slices.Sorted(maps.Keys(e.reported)) {
		all = append(all, flow.Setting{Name: name, Value: shortened(e.reported[name])})
	}
	for _, name := range slices.Sorted(maps.Keys(e.set)) {
		all = append(all, flow.Setting{Name: name, Value: shortened(e.set[name])})
	}
	return all
}

func sure(value string, sure bool) string {
	if !sure {
		value += " (weir cannot tell for sure)"
	}
	return shortened(value)
}

func shortened(v string) string {
	if len(v) <= maxShownSetting {
		return v
	}
	return strings.ToValidUTF8(v[:maxShownSetting], "") + "... " + digest(v, nil)
}

// readsValues are the reported settings that decide what a literal stands for, or who
// runs a statement.
var readsValues = map[string]bool{"DateStyle": true, "IntervalStyle": true, "TimeZone": true, "standard_conforming_strings": true,
	"client_encoding": true, "session_authorization": true, "is_superuser": true, "default_transaction_read_only": true}

// report takes a reported setting.
func (e *Engine) report(name, value string) {
	if readsValues[name] {
		e.reported[name], e.stated = value, nil
	}
}

// maxSet bounds how many settings are kept apart; what comes beyond is one.
const maxSet = 64

// follow takes settings that a statement has changed. What a rollback takes back stays:
// that only asks once more.
func (e *Engine) follow(ef *sqlmeta.Effects) {
	if len(ef.Settings) > 0 {
		e.stated = nil
	}
	for _, c := range ef.Settings {
		name := strings.ToLower(c.Name)
		switch name {
		case "role", "search_path", "application_name", "client_encoding", "names", "datestyle", "intervalstyle", "timezone", "standard_conforming_strings":
			continue // told apart above, or no matter
		}
		value := strings.Join(c.Values, ", ")
		switch {
		case c.Unsure:
			value = "(changed in a way that weir cannot read)"
		case len(c.Values) == 0:
			value = "(reset)"
		}
		if _, known := e.set[name]; !known && len(e.set) >= maxSet {
			name, value = "(others)", e.set["(others)"]+"; "+name+"="+value
			value = digest(value, nil)
		}
		if e.set == nil {
			e.set = map[string]string{}
		}
		e.set[name] = value
	}
}

// tellHeld says to a client that is not admitted yet what it waits for. A server's first
// word that is no error has to be an authentication request (PostgreSQL manual, 55.2.1),
// so the login is called done; what comes in the end is an error or the rest of it.
func (s *startup) tellHeld(n session.Notice) []byte {
	var dst []byte
	if !s.greeted {
		s.greeted = true
		dst = append(dst, s.negotiate...)
		dst = appendFrame(dst, 'R', 0, 0, 0, 0)
	}
	return appendHeld(dst, n)
}

// startupState is what the client asked for at its start besides who and where.
func startupState(params map[string]string) map[string]string {
	set := map[string]string{}
	for name, value := range params {
		switch name {
		case "user", "database", "application_name", "client_encoding", "search_path", "datestyle", "timezone", "intervalstyle":
			continue
		}
		if len(set) < maxSet {
			set[name] = value
		} else {
			set["(others)"] = strconv.Itoa(len(params))
		}
	}
	return set
}

// describe says what the actions of a question mean by the catalogue, for approvals.
func describe(actions []*flow.Action, extra any) {
	r, _ := extra.(*resolved)
	if r == nil {
		return
	}
	for i, a := range actions {
		a.Meaning = r.catalog.Meaning(r.statement(i))
	}
}
