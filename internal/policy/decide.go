package policy

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/flow"
)

// maxResource bounds a resource's length, bytes; a longer one is denied. Paths
// are at most 4096 (PATH_MAX), SSH commands and URLs are cut by their engines.
const maxResource = 64 << 10

// Decide decides an action as a whole. It is safe for concurrent use.
func (s *Set) Decide(in Input) Decision {
	if in.Action == nil || in.Flow == nil || len(in.Action.Accesses) == 0 {
		return Decision{Verdict: flow.Deny, Reason: "there is nothing that a policy could decide"}
	}
	q := query{in: in, rests: FactAccesses}
	if in.Principal != nil {
		q.user = foldUser(in.Principal.User)
	}
	v := s.viewOf(in.Flow.Backend)
	var d, unsure Decision
	for i := range in.Action.Accesses {
		a := &in.Action.Accesses[i]
		var o outcome
		q.decide(v, a, &o)
		o.add(&d, a, in.Flow)
		if d.Missing != 0 {
			// Another access may be denied for certain.
			unsure, d = d, Decision{}
			continue
		}
		if d.Verdict == flow.Deny {
			break
		}
	}
	if unsure.Missing != 0 && d.Verdict != flow.Deny {
		d = unsure
	}
	d.Rests = q.rests
	return d
}

// query is one call of Decide. The conditions' values are made when the first
// condition is asked.
type query struct {
	in   Input
	user string // folded
	ev   *evaluation

	rests Facts
}

// outcome is what the rules say about one access. deny, allow and failed hold
// the first rule in the set's own order.
type outcome struct {
	deny, allow *rule
	approve     []*rule
	failed      *rule  // its condition could not be evaluated
	problem     string // why
	record      string // the strictest of the rules that let it pass
	tooLong     bool
	missing     Facts // that conditions read
}

func (q *query) decide(v *view, a *flow.Access, o *outcome) {
	if len(a.Resource) > maxResource {
		o.tooLong = true
		return
	}
	b := v.bucket(a.Verb)
	if b == nil {
		return
	}
	t := newTarget(q.in.Flow.Protocol, a)
	p := q.in.Principal
	if len(b.rules) < indexFrom || p != nil && len(p.Groups) > len(b.rules) {
		q.walk(b.rules, "", a, &t, o)
		return
	}
	q.walk(b.anybody, "", a, &t, o)
	if p == nil {
		return
	}
	q.walk(b.byUser[q.user], "", a, &t, o)
	for _, g := range p.Groups {
		q.walk(b.byGroup[g], g, a, &t, o)
	}
}

// walk asks rules. via is the group that led to them, "" for none; a rule that
// several groups lead to is asked once.
func (q *query) walk(rules []*rule, via string, a *flow.Access, t *target, o *outcome) {
	for _, r := range rules {
		if o.settles(r) || !r.matchesPrincipal(q, via) || !r.matchesResource(t) {
			continue
		}
		if r.when != nil {
			q.rests |= r.when.reads
			if m := r.when.reads & q.in.Missing; m != 0 {
				o.missing |= m
				continue
			}
			ok, problem := q.condition(r, a)
			if problem != "" {
				if o.failed == nil || r.ordinal < o.failed.ordinal {
					o.failed, o.problem = r, problem
				}
				continue
			}
			if !ok {
				continue
			}
		}
		o.take(r)
	}
}

// settles reports whether asking r could change nothing any more. A condition is
// always asked: that it fails is an answer of its own.
func (o *outcome) settles(r *rule) bool {
	if r.when != nil || r.record != "" {
		return false
	}
	switch r.effect {
	case flow.Deny:
		return o.deny != nil && o.deny.ordinal <= r.ordinal
	case flow.Allow:
		return o.deny != nil || len(o.approve) > 0 || o.allow != nil && o.allow.ordinal <= r.ordinal
	}
	return false
}

func (o *outcome) take(r *rule) {
	switch r.effect {
	case flow.Deny:
		o.deny = firstOf(o.deny, r)
		return
	case flow.Approve:
		if !slices.Contains(o.approve, r) {
			o.approve = append(o.approve, r)
		}
	case flow.Allow:
		o.allow = firstOf(o.allow, r)
	}
	o.record = Stricter(o.record, r.record)
}

func firstOf(a, b *rule) *rule {
	if a == nil || b.ordinal < a.ordinal {
		return b
	}
	return a
}

// Stricter is the stricter one of two recordings (Record*, or "" for none).
func Stricter(a, b string) string {
	for _, r := range [...]string{RecordRefuse, RecordEnd, RecordContinue} {
		if a == r || b == r {
			return r
		}
	}
	return ""
}

// condition evaluates the rule's `when` on one access.
func (q *query) condition(r *rule, a *flow.Access) (ok bool, problem string) {
	if q.ev == nil {
		q.ev = newEvaluation(q.in)
	}
	q.ev.access = a
	return r.when.holds(q.ev)
}

// matchesPrincipal reports whether groups, users and kinds, as far as the rule
// gives them, hold for the principal. With via only the first of the rule's
// groups that the principal has counts.
func (r *rule) matchesPrincipal(q *query, via string) bool {
	p := q.in.Principal
	if p == nil {
		return r.groups == nil && r.users == nil && r.kinds == nil
	}
	if r.groups != nil {
		i := slices.IndexFunc(r.groups, func(g string) bool { return slices.Contains(p.Groups, g) })
		if i < 0 || via != "" && r.groups[i] != via {
			return false
		}
	}
	return (r.users == nil || slices.Contains(r.users, q.user)) && (r.kinds == nil || slices.Contains(r.kinds, p.Kind))
}

// matchesResource reports whether the rule's patterns let it speak about the
// resource: one of them matches, or none has its form.
func (r *rule) matchesResource(t *target) bool {
	if t.form == formNone || r.speaks&t.form == 0 {
		return true
	}
	for _, p := range r.patterns {
		if p.forms&t.form != 0 && p.matchTarget(t, r.effect) {
			return true
		}
	}
	return false
}

// add puts the outcome of one access into the decision on the action.
func (o *outcome) add(d *Decision, a *flow.Access, f *flow.Flow) {
	deny := func(r *rule, reason string) {
		*d = Decision{Verdict: flow.Deny, Access: *a, Reason: reason}
		if r != nil {
			d.Rule, d.Policy = r.name, r.policy.name
		}
	}
	switch {
	case o.tooLong:
		deny(nil, "the name of what this is about is longer than "+strconv.Itoa(maxResource)+" bytes")
	case o.deny != nil:
		deny(o.deny, "rule "+strconv.Quote(o.deny.name)+" denies "+describe(a))
	case o.failed != nil:
		deny(o.failed, "the condition of rule "+strconv.Quote(o.failed.name)+" cannot be decided for "+describe(a)+": "+o.problem)
	case o.missing != 0:
		deny(nil, "what a condition about "+describe(a)+" reads is not known: "+o.missing.String())
		d.Missing = o.missing
	case len(o.approve) > 0:
		o.addNeeds(d, a)
	case o.allow != nil:
		// What connect carries (BEGIN, SHOW, ...) is the least telling access.
		if d.Verdict == "" || d.Verdict == flow.Allow && d.Access.Verb == flow.Connect && a.Verb != flow.Connect {
			r := o.allow
			d.Verdict, d.Rule, d.Policy, d.Access, d.Reason = flow.Allow, r.name, r.policy.name, *a, r.allowed
		}
	default:
		deny(nil, "no rule allows "+describe(a)+" at backend "+strconv.Quote(f.Backend))
	}
	if d.Verdict != flow.Deny {
		d.Record = Stricter(d.Record, o.record)
	}
}

func (o *outcome) addNeeds(d *Decision, a *flow.Access) {
	slices.SortFunc(o.approve, func(a, b *rule) int { return a.ordinal - b.ordinal })
	for _, r := range o.approve {
		known := slices.ContainsFunc(d.Needs, func(n Need) bool { return n.Rule == r.name && n.Policy == r.policy.name })
		if !known {
			d.Needs = append(d.Needs, Need{Rule: r.name, Policy: r.policy.name, Access: *a, Approve: r.approve})
		}
	}
	if d.Verdict == flow.Approve {
		return
	}
	r := o.approve[0]
	d.Verdict, d.Rule, d.Policy, d.Access, d.Approve = flow.Approve, r.name, r.policy.name, *a, r.approve
	d.Reason = "rule " + strconv.Quote(r.name) + " wants another person's approval for " + describe(a)
}

// maxDescribed bounds what a message repeats of a resource, bytes.
const maxDescribed = 200

// describe puts an access into words.
func describe(a *flow.Access) string {
	if a.Verb == flow.Unknown {
		return "what weir cannot read (unknown)"
	}
	if a.Resource == "" {
		return string(a.Verb)
	}
	res := a.Resource
	if len(res) > maxDescribed {
		cut := maxDescribed
		for cut > 0 && !utf8.RuneStart(res[cut]) {
			cut--
		}
		res = res[:cut] + "..."
	}
	if strings.IndexFunc(res, func(r rune) bool { return !strconv.IsPrint(r) }) >= 0 || !utf8.ValidString(res) {
		res = strconv.Quote(res)
	}
	return string(a.Verb) + " on " + res
}
