package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
)

// review finds what compiles and is likely not meant.
func (s *Set) review(opts Options) []Warning {
	var ws []Warning
	add := func(r *rule, what, fix string) {
		ws = append(ws, Warning{r.policy.file, r.line, fmt.Sprintf("rule %q: %s", r.name, what), fix})
	}
	first := make(map[string]*rule)
	for _, r := range s.rules {
		if other := first[r.name]; other != nil {
			add(r, fmt.Sprintf("policy %q has a rule of the same name; the audit log and messages name rules without their policy", other.policy.name), "rename one of them")
		}
		first[r.name] = r
		protocols := r.likelyProtocols(opts.Protocols)
		r.reviewOpenForms(protocols, add)
		r.reviewNames(protocols, add)
		s.reviewShadows(r, add)
	}
	for _, p := range s.policies {
		for _, m := range p.masks {
			for _, g := range m.Columns {
				if hasCapitals(g.text) {
					ws = append(ws, Warning{p.file, p.line, fmt.Sprintf("mask %q: %q has capital letters outside quotes, and PostgreSQL folds such names to lower case", m.Name, g.text),
						"write it in lower case, or in double quotes when the name has capitals"})
				}
			}
		}
	}
	slices.SortStableFunc(ws, func(a, b Warning) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return ws
}

type addWarning func(r *rule, what, fix string)

// likelyProtocols are the protocols of the rule's backends. When they are not
// known: those that know all of its actions and whose resources its patterns can
// be about.
func (r *rule) likelyProtocols(configured map[string]flow.Protocol) []flow.Protocol {
	var ps []flow.Protocol
	for name, p := range configured {
		if r.policy.appliesTo(name) && !slices.Contains(ps, p) {
			ps = append(ps, p)
		}
	}
	if ps != nil {
		slices.Sort(ps)
		return ps
	}
	var fitting []flow.Protocol
	for _, p := range allProtocols {
		knows, speaks := true, false
		for verb := range r.verbsUnder(p) {
			knows = knows && verbsOf[p][verb]
			speaks = speaks || formsOf(p, verb)&r.speaks != 0
		}
		if knows {
			ps = append(ps, p)
			if speaks {
				fitting = append(fitting, p)
			}
		}
	}
	if fitting != nil {
		return fitting
	}
	return ps
}

// verbsUnder is what the rule is about under a protocol, without unknown.
func (r *rule) verbsUnder(p flow.Protocol) map[flow.Verb]bool {
	if r.verbs == nil {
		return verbsOf[p]
	}
	verbs := make(map[flow.Verb]bool)
	for v := range r.verbs {
		if v != flow.Unknown {
			verbs[v] = true
		}
	}
	return verbs
}

// reviewOpenForms warns when a rule has patterns and some of its actions have
// resources that none of them speaks about: the rule matches all of those.
func (r *rule) reviewOpenForms(protocols []flow.Protocol, add addWarning) {
	if len(r.patterns) == 0 || r.speaks == ^formNone {
		return
	}
	if r.verbs[flow.Unknown] {
		add(r, "its resources do not restrict unknown, which has none", "put unknown into a rule of its own")
	}
	open := make(map[flow.Verb]form)
	for _, p := range protocols {
		for verb := range r.verbsUnder(p) {
			if verb == flow.Connect || verb == flow.Explain || !verbsOf[p][verb] {
				continue
			}
			if f := formsOf(p, verb); f == formNone || f&^r.speaks != 0 {
				open[verb] |= f &^ r.speaks
			}
		}
	}
	if len(open) == 0 {
		if r.uselessForConnect(protocols) {
			add(r, "its resources say nothing about connect, its only action", "write them in the form of connect's resource (database:NAME, host:port), or take them out")
		}
		return
	}
	byForm := make(map[form][]string)
	for verb, f := range open {
		byForm[f] = append(byForm[f], string(verb))
	}
	var texts []string
	for f, verbs := range byForm {
		slices.Sort(verbs)
		text := strings.Join(verbs, ", ")
		if f != formNone {
			text += " on " + f.String()
		}
		texts = append(texts, text)
	}
	slices.Sort(texts)
	add(r, fmt.Sprintf("its resources say nothing about %s, so it is %s whatever the resource", strings.Join(texts, "; "), done(r.effect)),
		"add patterns of that form, or move these actions into a rule of their own")
}

func (r *rule) uselessForConnect(protocols []flow.Protocol) bool {
	if len(r.verbs) != 1 || !r.verbs[flow.Connect] {
		return false
	}
	for _, p := range protocols {
		f := formDatabase
		if p != flow.Postgres && p != flow.MySQL {
			f = formOf(p, flow.Connect, "x")
		}
		if f&r.speaks != 0 {
			return false
		}
	}
	return true
}

func done(effect flow.Verdict) string {
	switch effect {
	case flow.Deny:
		return "denied"
	case flow.Approve:
		return "held for approval"
	}
	return "allowed"
}

// reviewNames warns about patterns that look like SQL names and can match none.
func (r *rule) reviewNames(protocols []flow.Protocol, add addWarning) {
	for _, p := range protocols {
		if p != flow.Postgres && p != flow.MySQL {
			return
		}
	}
	for _, pat := range r.patterns {
		if pat.any || pat.forms&(formRelation|formFunction) == 0 {
			continue
		}
		if !canHaveParts(pat.sql, 2) {
			add(r, fmt.Sprintf("%q can match no name of two parts", pat.text), "write schema.name, with * or ** for what may vary")
		}
		if hasCapitals(pat.text) {
			add(r, fmt.Sprintf("%q has capital letters outside quotes, and PostgreSQL folds such names to lower case", pat.text),
				"write it in lower case, or in double quotes when the name has capitals")
		}
	}
}

func hasCapitals(pattern string) bool {
	quoted := false
	for i := range len(pattern) {
		switch c := pattern[i]; {
		case c == '"':
			quoted = !quoted
		case !quoted && 'A' <= c && c <= 'Z':
			return true
		}
	}
	return false
}

// reviewShadows warns when another rule answers whenever r could.
func (s *Set) reviewShadows(r *rule, add addWarning) {
	for _, by := range s.rules {
		if by == r || !by.covers(r) {
			continue
		}
		where := fmt.Sprintf("rule %q (%s:%d)", by.name, by.policy.file, by.line)
		switch {
		case by.effect == flow.Deny && r.effect != flow.Deny:
			add(r, "it never decides: whenever it matches, "+where+" denies", "take it out, or make the other one narrower")
			return
		case by.effect == flow.Approve && r.effect == flow.Allow:
			add(r, "it never decides: whenever it matches, "+where+" asks for approval", "take it out, or make the other one narrower")
			return
		case by.effect == r.effect && r.effect != flow.Approve && r.record == "" && (!r.covers(by) || by.ordinal < r.ordinal):
			add(r, "it adds nothing: "+where+" says the same about all of it", "take it out")
			return
		}
	}
}

// covers reports whether by matches whenever r does, as far as that can be seen
// without evaluating conditions.
func (by *rule) covers(r *rule) bool {
	return by.when == nil && coversBackends(by.policy, r.policy) && by.coversVerbs(r) &&
		subset(r.groups, by.groups) && subset(r.users, by.users) && subset(r.kinds, by.kinds) && by.coversResources(r)
}

// subset reports whether what a selects lies within what b selects; nil selects
// everything.
func subset[T comparable](a, b []T) bool {
	if b == nil {
		return true
	}
	if a == nil {
		return false
	}
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}

func coversBackends(by, p *policyInfo) bool {
	if by == p || by.backends == nil {
		return true
	}
	if p.backends == nil {
		return false
	}
	for _, g := range p.backends {
		if !slices.ContainsFunc(by.backends, func(b Glob) bool { return coversOps(b.ops, g.ops) }) {
			return false
		}
	}
	return true
}

func (by *rule) coversVerbs(r *rule) bool {
	if r.verbs == nil {
		return by.verbs == nil
	}
	for v := range r.verbs {
		if !by.isAbout(v) {
			return false
		}
	}
	return true
}

func (by *rule) coversResources(r *rule) bool {
	if len(by.patterns) == 0 {
		return true
	}
	for f := formDatabase; f <= formHostPort; f <<= 1 {
		if by.speaks&f == 0 {
			continue
		}
		if r.speaks&f == 0 {
			return slices.ContainsFunc(by.patterns, func(p *pattern) bool { return p.any })
		}
		for _, p := range r.patterns {
			if p.forms&f != 0 && !slices.ContainsFunc(by.patterns, func(b *pattern) bool { return b.covers(p, f) }) {
				return false
			}
		}
	}
	return true
}

func (b *pattern) covers(p *pattern, f form) bool {
	switch {
	case b.forms&f == 0:
		return false
	case b.any:
		return true
	case p.any:
		return false
	}
	switch f {
	case formDatabase, formRole, formLogin, formChannel:
		return coversOps(b.name, p.name)
	case formFunction, formSetting, formRelation:
		return coversOps(b.sql, p.sql)
	case formPath, formKube:
		return coversOps(b.path, p.path)
	case formCommand:
		return coversOps(b.cmd, p.cmd)
	case formHostPort:
		return coversOps(b.host, p.host) && (b.port == nil || p.port != nil && coversOps(b.port, p.port))
	}
	return false
}
