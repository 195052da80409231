package credential

import (
	"slices"

	"github.com/weirproxy/weir/internal/flow"
)

// Entry is one credentials entry of a backend. Username and the header names are
// plain; everything else is a reference.
type Entry struct {
	Groups      []string // any of them; none: everybody
	Username    string
	Password    string
	PrivateKey  string
	BearerToken string
	Headers     map[string]string
}

// Pick returns the first entry that is meant for p: one of its groups is p's, or
// it names no groups. A nil principal (nobody signed in) is in no group.
func Pick(entries []Entry, p *flow.Principal) (*Entry, bool) {
	for i := range entries {
		e := &entries[i]
		if len(e.Groups) == 0 {
			return e, true
		}
		if p != nil && slices.ContainsFunc(e.Groups, func(g string) bool { return slices.Contains(p.Groups, g) }) {
			return e, true
		}
	}
	return nil, false
}
