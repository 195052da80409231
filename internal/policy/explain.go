package policy

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
)

// Explanation says why an action is decided as it is.
type Explanation struct {
	Verdict  flow.Verdict        `json:"verdict"`
	Rule     string              `json:"rule,omitempty"`
	Policy   string              `json:"policy,omitempty"`
	Reason   string              `json:"reason"`
	Needs    []NeedExplanation   `json:"needs,omitempty"`
	Record   string              `json:"record,omitempty"`
	Revision string              `json:"revision"`
	Text     string              `json:"text,omitempty"` // of the action
	Accesses []AccessExplanation `json:"accesses"`
	Masks    []MaskExplanation   `json:"masks,omitempty"` // those of the backend
	// Masked is what the masks in force do to the statement. When they refuse it,
	// Verdict is deny although its rules let it pass.
	Masked *Masked `json:"masked,omitempty"`
}

// NeedExplanation is whose approval is needed: one of a rule's quorums.
type NeedExplanation struct {
	Rule          string   `json:"rule"`
	Groups        []string `json:"groups"`
	Count         int      `json:"count"`
	Grant         string   `json:"grant"`
	Proof         string   `json:"proof"`
	RequireReason bool     `json:"require_reason,omitempty"`
	BreakGlass    []string `json:"break_glass,omitempty"` // groups that may go through at once
}

// AccessExplanation is about one access of the action.
type AccessExplanation struct {
	Verb     flow.Verb         `json:"verb"`
	Resource string            `json:"resource,omitempty"`
	Verdict  flow.Verdict      `json:"verdict"`
	Reason   string            `json:"reason"`
	Rules    []RuleExplanation `json:"rules"` // every rule of the set
}

// RuleExplanation is about one rule and one access.
type RuleExplanation struct {
	Policy  string       `json:"policy"`
	Rule    string       `json:"rule"`
	File    string       `json:"file"`
	Line    int          `json:"line"`
	Effect  flow.Verdict `json:"effect"`
	Matched bool         `json:"matched"`
	Failed  bool         `json:"failed,omitempty"` // its condition could not be evaluated
	// Stage is what did not match: backends, actions, groups, users, kinds,
	// resources, when; "" when all did.
	Stage string `json:"stage,omitempty"`
	Why   string `json:"why"`
}

// MaskExplanation is about one mask of the backend.
type MaskExplanation struct {
	Policy  string `json:"policy"`
	Mask    string `json:"mask"`
	InForce bool   `json:"in_force"`
	Why     string `json:"why"`
}

// Explain decides like Decide and says how every rule was considered.
func (s *Set) Explain(in Input) Explanation {
	d := s.Decide(in)
	e := Explanation{Verdict: d.Verdict, Rule: d.Rule, Policy: d.Policy, Reason: d.Reason, Record: d.Record, Revision: s.revision}
	for _, n := range d.Needs {
		a := n.Approve
		for _, q := range a.Needs {
			e.Needs = append(e.Needs, NeedExplanation{n.Rule, q.Groups, q.Count, a.Grant, a.Proof, a.RequireReason, a.BreakGlass})
		}
	}
	if in.Action == nil || in.Flow == nil {
		return e
	}
	e.Text = in.Action.Text
	q := query{in: in}
	if in.Principal != nil {
		q.user = foldUser(in.Principal.User)
	}
	v := s.viewOf(in.Flow.Backend)
	for i := range in.Action.Accesses {
		a := &in.Action.Accesses[i]
		var o outcome
		var one Decision
		q.decide(v, a, &o)
		o.add(&one, a, in.Flow)
		x := AccessExplanation{Verb: a.Verb, Resource: a.Resource, Verdict: one.Verdict, Reason: one.Reason}
		for _, r := range s.rules {
			x.Rules = append(x.Rules, q.explain(r, a))
		}
		e.Accesses = append(e.Accesses, x)
	}
	e.Masks = s.explainMasks(in.Principal, in.Flow.Backend)
	return e
}

// ExplainText explains SQL, statement by statement, or an action.
func (s *Set) ExplainText(in Input, sql string, action *flow.Action, analyse Analyser) ([]Explanation, error) {
	f := *in.Flow
	in.Flow = &f
	statements, err := analysed(&in, sql, action, analyse)
	if err != nil {
		return nil, err
	}
	list := make([]Explanation, len(statements))
	for i := range statements {
		in.Action = &statements[i].Action
		list[i] = s.Explain(in)
		if statements[i].Masked == nil {
			continue
		}
		m, err := statements[i].Masked(s.Masks(in.Principal, in.Flow.Backend))
		if err != nil {
			return nil, err
		}
		e := &list[i]
		e.Masked = &m
		if m.Refused != "" && e.Verdict != flow.Deny {
			e.Verdict, e.Rule, e.Policy, e.Needs, e.Reason = flow.Deny, "", "", nil, m.Refused
		}
	}
	return list, nil
}

func (q *query) explain(r *rule, a *flow.Access) RuleExplanation {
	x := RuleExplanation{Policy: r.policy.name, Rule: r.name, File: r.policy.file, Line: r.line, Effect: r.effect}
	x.Stage, x.Why = q.miss(r, a)
	if x.Stage != "" {
		return x
	}
	if r.when == nil {
		x.Matched, x.Why = true, "all that it asks for holds"
		return x
	}
	switch ok, problem := q.condition(r, a); {
	case problem != "":
		x.Stage, x.Failed = "when", true
		x.Why = "its condition cannot be decided, so the action is denied: " + problem
	case !ok:
		x.Stage, x.Why = "when", "its condition does not hold: "+oneLine(r.when.text)
	default:
		x.Matched, x.Why = true, "all that it asks for holds, its condition too: "+oneLine(r.when.text)
	}
	return x
}

// miss is the first selector of the rule that does not match.
func (q *query) miss(r *rule, a *flow.Access) (stage, why string) {
	in, p := q.in, q.in.Principal
	switch {
	case !r.policy.appliesTo(in.Flow.Backend):
		return "backends", "its policy is for backends " + strings.Join(r.policy.texts, ", ")
	case !r.isAbout(a.Verb):
		if r.verbs == nil {
			return "actions", fmt.Sprintf("it names no actions, which leaves out %s", a.Verb)
		}
		return "actions", "it is about " + verbText(r.verbs)
	case p == nil && (r.groups != nil || r.users != nil || r.kinds != nil):
		return "groups", "nobody is signed in"
	case r.groups != nil && !shareOne(r.groups, p.Groups):
		return "groups", fmt.Sprintf("it is for groups %s; %s is in %s", strings.Join(r.groups, ", "), p.User, orNone(p.Groups))
	case r.users != nil && !slices.Contains(r.users, q.user):
		return "users", fmt.Sprintf("it is for users %s, not %s", strings.Join(r.users, ", "), p.User)
	case r.kinds != nil && !slices.Contains(r.kinds, p.Kind):
		return "kinds", fmt.Sprintf("it is for %s, and %s is %s", joinKinds(r.kinds), p.User, p.Kind)
	}
	if t := newTarget(in.Flow.Protocol, a); !r.matchesResource(&t) {
		var texts []string
		for _, pat := range r.patterns {
			if pat.forms&t.form != 0 {
				texts = append(texts, pat.text)
			}
		}
		return "resources", "it is about " + strings.Join(texts, ", ")
	}
	return "", ""
}

func verbText(verbs map[flow.Verb]bool) string {
	list := make([]string, 0, len(verbs))
	for v := range verbs {
		list = append(list, string(v))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func joinKinds(kinds []flow.Kind) string {
	list := make([]string, len(kinds))
	for i, k := range kinds {
		list[i] = string(k)
	}
	return strings.Join(list, ", ")
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "no group"
	}
	return strings.Join(list, ", ")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (s *Set) explainMasks(p *flow.Principal, backend string) []MaskExplanation {
	var list []MaskExplanation
	for _, m := range s.viewOf(backend).masks {
		x := MaskExplanation{Policy: m.Policy, Mask: m.Name, InForce: !m.spares(p)}
		switch {
		case !x.InForce:
			x.Why = "spared: a member of " + strings.Join(m.unlessGroups, ", ")
		case m.unlessGroups == nil:
			x.Why = "for everybody"
		default:
			x.Why = "for everybody but members of " + strings.Join(m.unlessGroups, ", ")
		}
		list = append(list, x)
	}
	return list
}

// WriteText writes the explanation for people. Rules of other backends and for
// other actions are counted, not listed, unless all is set.
func (e *Explanation) WriteText(w io.Writer, all bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", e.Verdict, e.Reason)
	for _, n := range e.Needs {
		fmt.Fprintf(&b, "  needs %d of %s (rule %q, grant %s, proof %s)\n", n.Count, strings.Join(n.Groups, ", "), n.Rule, n.Grant, n.Proof)
	}
	for _, a := range e.Accesses {
		fmt.Fprintf(&b, "\n%s: %s\n", describe(&flow.Access{Verb: a.Verb, Resource: a.Resource}), a.Verdict)
		a.writeRules(&b, all)
	}
	if e.Masked != nil {
		e.Masked.write(&b, e.Reason)
	}
	if len(e.Masks) > 0 {
		b.WriteString("\nmasks:\n")
	}
	for _, m := range e.Masks {
		fmt.Fprintf(&b, "  %s %s / %s: %s\n", mark(m.InForce), m.Policy, m.Mask, m.Why)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (a *AccessExplanation) writeRules(b *strings.Builder, all bool) {
	skipped := 0
	for _, r := range a.Rules {
		if !all && (r.Stage == "backends" || r.Stage == "actions") {
			skipped++
			continue
		}
		sign := mark(r.Matched)
		if r.Failed {
			sign = "!"
		}
		fmt.Fprintf(b, "  %s %s / %s (%s, %s:%d): %s\n", sign, r.Policy, r.Rule, r.Effect, r.File, r.Line, r.Why)
	}
	switch {
	case len(a.Rules) == 0:
		b.WriteString("  there are no rules\n")
	case skipped == 1:
		b.WriteString("  - 1 rule is for other backends or actions\n")
	case skipped > 1:
		fmt.Fprintf(b, "  - %d rules are for other backends or actions\n", skipped)
	}
}

func mark(yes bool) string {
	if yes {
		return "+"
	}
	return "-"
}
