package approval

import "slices"

// counts reports whether somebody's approval counts for a rule at all.
func (r *Rule) counts(d *Decision) bool {
	return (r.Proof == ProofSession || d.Proof == ProofIDP) &&
		slices.ContainsFunc(r.Needed, func(n Needed) bool { return n.takes(d) })
}

func (n *Needed) takes(d *Decision) bool {
	return slices.ContainsFunc(n.Groups, func(g string) bool { return slices.Contains(d.Groups, g) })
}

// missing is how many people each quorum of the rule still lacks, with everybody
// placed so that as few as possible are missing: one person fills one place.
func (r *Rule) missing(approvals []*Decision) []int {
	var places []int // the quorum of each place
	for i, n := range r.Needed {
		for range n.Count {
			places = append(places, i)
		}
	}
	holder := make([]int, len(places)) // approval in a place, -1 for none
	for i := range holder {
		holder[i] = -1
	}
	var place func(d int, tried []bool) bool
	place = func(d int, tried []bool) bool { // augmenting paths of a bipartite matching
		for p, quorum := range places {
			if tried[p] || !r.Needed[quorum].takes(approvals[d]) {
				continue
			}
			tried[p] = true
			if holder[p] < 0 || place(holder[p], tried) {
				holder[p] = d
				return true
			}
		}
		return false
	}
	for d := range approvals {
		if r.counts(approvals[d]) {
			place(d, make([]bool, len(places)))
		}
	}
	left := make([]int, len(r.Needed))
	for p, quorum := range places {
		if holder[p] < 0 {
			left[quorum]++
		}
	}
	return left
}

// approvalsOf are the approvals among decisions, each person once.
func approvalsOf(list []Decision) []*Decision {
	var out []*Decision
	for i := range list {
		d := &list[i]
		if d.Decided != DecidedApproved || slices.ContainsFunc(out, func(x *Decision) bool { return same(x.person(), d.person()) }) {
			continue
		}
		out = append(out, d)
	}
	return out
}

func (d *Decision) person() *Person {
	return &Person{Issuer: d.Issuer, Subject: d.Subject, User: d.User}
}

// lacking is what is still needed over all rules; empty when nothing is.
func lacking(rules []Rule, decisions []Decision) []Needed {
	approvals := approvalsOf(decisions)
	var out []Needed
	for i := range rules {
		r := &rules[i]
		for q, n := range r.missing(approvals) {
			if n > 0 {
				out = append(out, Needed{Groups: r.Needed[q].Groups, Count: n})
			}
		}
	}
	return out
}

// Lacking is whom a request still needs; empty when nobody.
func (r *Request) Lacking() []Needed { return lacking(r.Rules, r.Decisions) }
