package approval

import (
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
)

// personOf is a principal with whoever acts for it.
func personOf(p *flow.Principal) Person {
	if p == nil {
		return Person{}
	}
	groups := slices.Clone(p.Groups)
	slices.Sort(groups) // their order in a token means nothing
	return Person{Issuer: p.Issuer, Subject: p.Subject, User: p.User, Kind: string(p.Kind), Groups: groups, Actor: actorOf(p.Actor, p.Issuer)}
}

func actorOf(a *flow.Actor, issuer string) *Person {
	if a == nil {
		return nil
	}
	if a.Issuer != "" {
		issuer = a.Issuer
	}
	return &Person{Issuer: issuer, Subject: a.Subject, User: a.User, Actor: actorOf(a.Actor, issuer)}
}

// same reports whether two identities are of one person, as far as anybody can tell:
// the same issuer and subject, or the same user name without regard to case. A subject
// is a name within its issuer only (OpenID Connect Core, 2).
func same(a, b *Person) bool {
	return a.Issuer == b.Issuer && a.Subject == b.Subject || a.User != "" && strings.EqualFold(strings.TrimSpace(a.User), strings.TrimSpace(b.User))
}

// involves reports whether a person is p or any of those who act for p.
func (p *Person) involves(who *Person) bool {
	for x := p; x != nil; x = x.Actor {
		if same(x, who) {
			return true
		}
	}
	return false
}

// overlaps reports whether any party of one is a party of the other.
func (p *Person) overlaps(other *Person) bool {
	for x := other; x != nil; x = x.Actor {
		if p.involves(x) {
			return true
		}
	}
	return false
}
