package auditlog

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Filter selects events. Fields that are empty select everything.
type Filter struct {
	From, To time.Time // From is included, To is not
	User     string    // the principal's or an actor's user or subject, without regard to case
	Backend  string
	Verdict  string
	Kinds    []Kind
	Flow     string
	Text     string // part of the statement, a resource, the rule or the reason, without regard to case
}

// Select decodes an event's JSON and reports whether the filter selects it.
func (f *Filter) Select(payload []byte) (*Event, bool, error) {
	// What is no part of the JSON cannot be a field of the event: ids and names
	// without escapes are looked for before anything is decoded.
	for _, s := range []string{f.Flow, f.Backend, f.Verdict} {
		if s != "" && plain(s) && !bytes.Contains(payload, []byte(`"`+s+`"`)) {
			return nil, false, nil
		}
	}
	ev := new(Event)
	if err := json.Unmarshal(payload, ev); err != nil {
		return nil, false, err
	}
	return ev, f.Match(ev), nil
}

// plain reports whether s stands in JSON as it is.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r)
	})
}

// Match reports whether the filter selects the event.
func (f *Filter) Match(ev *Event) bool {
	switch {
	case !f.From.IsZero() && ev.Time.Before(f.From),
		!f.To.IsZero() && !ev.Time.Before(f.To),
		f.Backend != "" && ev.Backend != f.Backend,
		f.Verdict != "" && ev.Verdict != f.Verdict,
		f.Flow != "" && ev.Flow != f.Flow,
		len(f.Kinds) > 0 && !slices.Contains(f.Kinds, ev.Kind),
		f.User != "" && !f.byUser(ev),
		f.Text != "" && !f.byText(ev):
		return false
	}
	return true
}

func (f *Filter) byUser(ev *Event) bool {
	p := ev.Principal
	if p == nil {
		return false
	}
	if strings.EqualFold(p.User, f.User) || strings.EqualFold(p.Subject, f.User) {
		return true
	}
	for a := p.Actor; a != nil; a = a.Actor {
		if strings.EqualFold(a.User, f.User) || strings.EqualFold(a.Subject, f.User) {
			return true
		}
	}
	return false
}

func (f *Filter) byText(ev *Event) bool {
	want := strings.ToLower(f.Text)
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), want) }
	if has(ev.Rule) || has(ev.Reason) {
		return true
	}
	return ev.Action != nil && (has(ev.Action.Text) || slices.ContainsFunc(ev.Action.Resources, has))
}
