package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/strictyaml"
)

// BuiltinDetectors are the detectors that every policy can name (contract,
// section 3). Package mask implements them.
var BuiltinDetectors = []string{"email", "iban", "ip", "payment_card", "phone", "secret", "us_ssn"}

var (
	allProtocols = []flow.Protocol{flow.Postgres, flow.MySQL, flow.Kubernetes, flow.SSH, flow.HTTP, flow.TCP}
	effects      = []string{string(flow.Allow), string(flow.Approve), string(flow.Deny)}
	kinds        = []string{string(flow.Agent), string(flow.CI), string(flow.Human), string(flow.Workload)}
	methods      = []string{MaskEmail, MaskHash, MaskLast4, MaskNull, MaskRedact, MaskToken}
	records      = []string{RecordContinue, RecordEnd, RecordRefuse}
)

// maxNameBytes bounds names of policies, rules, masks, groups and users.
const maxNameBytes = 256

// compiler collects everything that is wrong before it gives up.
type compiler struct {
	opts        Options
	set         *Set
	files       []*fileSource
	conditions  *conditions
	policyNames map[string]string // name to file:line
	warnings    []Warning
}

type fileSource struct {
	name string
	doc  *strictyaml.Document
	yaml fileYAML
}

func (c *compiler) decode(f File) {
	src := &fileSource{name: f.Name}
	src.doc = strictyaml.Decode(f.Data, &src.yaml)
	if src.doc.Err("") == nil && !src.doc.Has("policies") && !src.doc.Has("detectors") {
		// Most likely it is being written: it must not replace a policy.
		src.doc.Add("", "the file is empty", "add policies: (an empty list denies everything)")
	}
	c.files = append(c.files, src)
}

func (c *compiler) detectors(f *fileSource) {
	for _, name := range slices.Sorted(maps.Keys(f.yaml.Detectors)) {
		d, path := f.yaml.Detectors[name], at("detectors", name)
		switch {
		case slices.Contains(BuiltinDetectors, name):
			f.doc.Add(path, fmt.Sprintf("detector %q is built in", name), "give yours another name")
		case c.set.detectors[name] != "":
			f.doc.Add(path, fmt.Sprintf("detector %q is defined twice", name), "keep one of them")
		}
		re, err := regexp.Compile(d.Pattern)
		switch {
		case d.Pattern == "":
			f.doc.Add(path, fmt.Sprintf("detector %q has no pattern", name), "add pattern: with a regular expression (RE2)")
		case err != nil:
			f.doc.Add(at("detectors", name, "pattern"), err.Error(), "see https://github.com/google/re2/wiki/Syntax")
		case re.MatchString(""):
			f.doc.Add(at("detectors", name, "pattern"), "the pattern matches the empty text", "make it ask for at least one character")
		}
		c.set.detectors[name] = d.Pattern
	}
}

func (c *compiler) policies(f *fileSource) {
	for i := range f.yaml.Policies {
		y := &f.yaml.Policies[i]
		path := at("policies", i)
		p := &policyInfo{name: y.Name, file: f.name, line: f.doc.Line(path)}
		c.policyName(f, path, p)
		c.backends(f, path, y, p)
		protocols := c.protocolsOf(p)
		names := make(map[string]bool)
		for j := range y.Rules {
			c.rule(f, at("policies", i, "rules", j), &y.Rules[j], p, protocols, names)
		}
		clear(names)
		for j := range y.Masks {
			c.mask(f, at("policies", i, "masks", j), &y.Masks[j], p, names)
		}
		for j := range y.Tests {
			c.test(f, at("policies", i, "tests", j), &y.Tests[j], p)
		}
		c.set.policies = append(c.set.policies, p)
	}
}

func (c *compiler) policyName(f *fileSource, path string, p *policyInfo) {
	c.name(f, path, "policy", p.name)
	if first, ok := c.policyNames[p.name]; ok && p.name != "" {
		f.doc.Add(at(path, "name"), fmt.Sprintf("there is a policy %q already, at %s", p.name, first), "rename one of them")
	}
	c.policyNames[p.name] = f.name + ":" + strconv.Itoa(p.line)
}

// name checks a name that shows in messages and in the audit log.
func (c *compiler) name(f *fileSource, path, what, name string) {
	switch {
	case name == "":
		f.doc.Add(path, "this "+what+" has no name", "add name: with words that people will see when it decides")
	case len(name) > maxNameBytes || strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }):
		f.doc.Add(at(path, "name"), fmt.Sprintf("the name is longer than %d bytes or holds what cannot be printed", maxNameBytes), "")
	}
}

func (c *compiler) backends(f *fileSource, path string, y *policyYAML, p *policyInfo) {
	path = at(path, "backends")
	c.notEmpty(f, path, y.Backends, "for all backends")
	for i, text := range y.Backends {
		ops, err := compileGlob(text, plainEnds, false)
		if err != nil {
			f.doc.Add(path+at(i), fmt.Sprintf("%q is no name or glob: %v", text, err), "")
			continue
		}
		g := Glob{text: text, ops: ops}
		p.backends, p.texts = append(p.backends, g), append(p.texts, text)
		if c.opts.Protocols == nil {
			continue
		}
		found := false
		for name := range c.opts.Protocols {
			found = found || matchOps(ops, name, plainEnds)
		}
		if !found {
			c.warn(f, path+at(i), fmt.Sprintf("no backend of the configuration is called %q", text), "")
		}
	}
}

// protocolsOf lists the protocols of the policy's backends; all when they are
// not known.
func (c *compiler) protocolsOf(p *policyInfo) []flow.Protocol {
	var ps []flow.Protocol
	for name, protocol := range c.opts.Protocols {
		if p.appliesTo(name) && !slices.Contains(ps, protocol) {
			ps = append(ps, protocol)
		}
	}
	if ps == nil {
		return allProtocols
	}
	slices.Sort(ps)
	return ps
}

// notEmpty refuses a selector that is given and holds nothing: left out it means
// everything, so an empty one would be the opposite of what it looks like.
func (c *compiler) notEmpty(f *fileSource, path string, list []string, leftOut string) {
	if list != nil && len(list) == 0 {
		f.doc.Add(path, path[strings.LastIndexByte(path, '.')+1:]+" is empty", "name at least one, or leave it out "+leftOut)
	}
	for i, s := range list {
		if s == "" || len(s) > maxGlobBytes {
			f.doc.Add(path+at(i), fmt.Sprintf("this entry is empty or longer than %d bytes", maxGlobBytes), "")
		}
	}
}

func (c *compiler) warn(f *fileSource, path, what, fix string) {
	c.warnings = append(c.warnings, Warning{f.name, f.doc.Line(path), what, fix})
}

// oneOf checks a word against the choices; "" is checked by the caller.
func (c *compiler) oneOf(f *fileSource, path, word string, choices []string) {
	if word != "" && !slices.Contains(choices, word) {
		f.doc.Add(path, fmt.Sprintf("%q is not known here", word), strictyaml.Suggest(word, choices))
	}
}

func (c *compiler) rule(f *fileSource, path string, y *ruleYAML, p *policyInfo, protocols []flow.Protocol, names map[string]bool) {
	r := &rule{name: y.Name, policy: p, line: f.doc.Line(path), effect: flow.Verdict(y.Effect), record: y.Record}
	c.name(f, path, "rule", y.Name)
	if names[y.Name] && y.Name != "" {
		f.doc.Add(at(path, "name"), fmt.Sprintf("policy %q has a rule %q already", p.name, y.Name), "rename one of them")
	}
	names[y.Name] = true
	c.selectors(f, path, y, r)
	c.actions(f, path, y, r, protocols)
	for i, text := range y.Resources {
		pat, err := newPattern(text)
		if err != nil {
			if text != "" { // notEmpty has said so
				f.doc.Add(at(path, "resources", i), err.Error(), "")
			}
			continue
		}
		r.patterns = append(r.patterns, pat)
		r.speaks |= pat.forms
	}
	c.condition(f, path, y, r)
	if y.Effect == "" {
		f.doc.Add(path, fmt.Sprintf("rule %q has no effect", y.Name), "add effect: allow, deny or approve")
	}
	c.oneOf(f, at(path, "effect"), y.Effect, effects)
	c.oneOf(f, at(path, "record"), y.Record, records)
	c.approve(f, path, y, r)
	r.allowed = "rule " + strconv.Quote(r.name) + " allows it"
	c.set.rules = append(c.set.rules, r)
}

func (c *compiler) selectors(f *fileSource, path string, y *ruleYAML, r *rule) {
	c.notEmpty(f, at(path, "groups"), y.Groups, "for everybody")
	c.notEmpty(f, at(path, "users"), y.Users, "for everybody")
	c.notEmpty(f, at(path, "kinds"), y.Kinds, "for every kind")
	c.notEmpty(f, at(path, "actions"), y.Actions, "for every known action")
	c.notEmpty(f, at(path, "resources"), y.Resources, "for every resource")
	for i, g := range y.Groups {
		if strings.Contains(g, "*") {
			f.doc.Add(at(path, "groups", i), fmt.Sprintf("groups are compared exactly, %q is no glob", g),
				`name the groups, or use when: principal.groups.exists(g, g.startsWith("..."))`)
		}
	}
	for i, u := range y.Users {
		if strings.Contains(u, "*") {
			f.doc.Add(at(path, "users", i), fmt.Sprintf("users are compared as a whole, %q is no glob", u),
				`name the users, or use when: principal.user.endsWith("@example.com")`)
		}
		r.users = append(r.users, foldUser(u))
	}
	r.groups = y.Groups
	for i, k := range y.Kinds {
		c.oneOf(f, at(path, "kinds", i), k, kinds)
		r.kinds = append(r.kinds, flow.Kind(k))
	}
}

func (c *compiler) actions(f *fileSource, path string, y *ruleYAML, r *rule, protocols []flow.Protocol) {
	if y.Actions == nil {
		return
	}
	r.verbs = make(map[flow.Verb]bool, len(y.Actions))
	for i, a := range y.Actions {
		verb := flow.Verb(a)
		if a != "" && len(protocolsWith(verb, protocols)) == 0 {
			fix := strictyaml.Suggest(a, verbList(protocols))
			if a == "*" {
				fix = "leave actions out for every known action"
			}
			f.doc.Add(at(path, "actions", i), fmt.Sprintf("%q is no action of %s", a, protocolText(protocols)), fix)
		}
		r.verbs[verb] = true
	}
}

func protocolText(ps []flow.Protocol) string {
	if len(ps) == len(allProtocols) {
		return "any protocol"
	}
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}

func (c *compiler) condition(f *fileSource, path string, y *ruleYAML, r *rule) {
	path = at(path, "when")
	if y.When == "" {
		if f.doc.Has(path) {
			f.doc.Add(path, "when is empty", "write a condition or take the key out")
		}
		return
	}
	if c.conditions == nil {
		var err error
		if c.conditions, err = newConditions(); err != nil {
			f.doc.Add(path, "conditions cannot be compiled: "+err.Error(), "report this")
			return
		}
	}
	when, problems := c.conditions.compile(y.When)
	for _, p := range problems {
		what := "when: " + p.what
		if p.line > 0 {
			what = fmt.Sprintf("when, line %d of it: %s", p.line+1, p.what)
		}
		f.doc.Add(path, what, p.fix)
	}
	r.when = when
}

func (c *compiler) approve(f *fileSource, path string, y *ruleYAML, r *rule) {
	if y.Approve == nil {
		if r.effect == flow.Approve {
			f.doc.Add(path, fmt.Sprintf("rule %q asks for approval and does not say by whom", y.Name), "add approve: {groups: [...]}")
		}
		return
	}
	path = at(path, "approve")
	if r.effect != flow.Approve {
		f.doc.Add(path, fmt.Sprintf("approve stands in a rule with effect %q", y.Effect), "make it effect: approve, or take approve out")
	}
	want := y.Approve
	a := &Approve{Timeout: time.Duration(want.Timeout), Grant: want.Grant, AtExpiry: want.AtExpiry, Proof: want.Proof, Prompt: want.Prompt,
		MaxAge: time.Duration(want.MaxAge), RequireReason: want.RequireReason}
	c.quorums(f, path, want, a)
	if f.doc.Has(at(path, "timeout")) && a.Timeout <= 0 {
		f.doc.Add(at(path, "timeout"), "timeout must be longer than nothing", "")
	}
	c.grant(f, path, a)
	if a.Proof == "" {
		a.Proof = ProofIDP
	}
	c.oneOf(f, at(path, "proof"), a.Proof, []string{ProofIDP, ProofSession})
	c.freshness(f, path, a)
	if want.BreakGlass != nil {
		if a.BreakGlass = want.BreakGlass.Groups; a.BreakGlass == nil {
			f.doc.Add(at(path, "break_glass"), "break_glass names no groups, so nobody could", "add groups:, or take it out")
		}
		c.notEmpty(f, at(path, "break_glass.groups"), a.BreakGlass, "")
	}
	r.approve = a
}

// quorums reads who must approve: groups and count, or a list of these.
func (c *compiler) quorums(f *fileSource, path string, y *approveYAML, a *Approve) {
	if y.AllOf == nil {
		a.Needs = []Quorum{c.quorum(f, path, y.Groups, y.Count)}
		return
	}
	if y.Groups != nil || y.Count != nil {
		f.doc.Add(path, "approve has both groups or count, and all_of", "put groups and count into an entry of all_of")
	}
	if len(y.AllOf) == 0 {
		f.doc.Add(at(path, "all_of"), "all_of is empty, so nobody would have to approve", "add {groups: [...], count: 1}")
	}
	people := 0
	for i, q := range y.AllOf {
		a.Needs = append(a.Needs, c.quorum(f, at(path, "all_of", i), q.Groups, q.Count))
		people += a.Needs[i].Count
	}
	if people > maxApprovers {
		f.doc.Add(at(path, "all_of"), "all_of wants more than "+strconv.Itoa(maxApprovers)+" people", "")
	}
}

func (c *compiler) quorum(f *fileSource, path string, groups []string, count *int) Quorum {
	q := Quorum{Groups: groups, Count: 1}
	if groups == nil {
		f.doc.Add(path, "approve names no groups, so nobody could approve", "add groups: with the groups whose members may")
	}
	c.notEmpty(f, at(path, "groups"), groups, "")
	if count != nil {
		q.Count = *count
	}
	if q.Count < 1 || q.Count > maxApprovers {
		f.doc.Add(at(path, "count"), "count is a number of people from 1 to "+strconv.Itoa(maxApprovers), "")
	}
	return q
}

// grant reads how far the consent reaches, and what becomes of what runs at its end.
func (c *compiler) grant(f *fileSource, path string, a *Approve) {
	switch a.Grant {
	case "":
		a.Grant = GrantOnce
	case GrantOnce, GrantSession:
	default:
		d, ok := strictyaml.ParseDuration(a.Grant)
		if !ok || d <= 0 {
			f.doc.Add(at(path, "grant"), fmt.Sprintf("grant %q is not known", a.Grant), "write once, session or a length of time (30m)")
		}
		a.GrantFor = d
	}
	if a.AtExpiry == "" {
		a.AtExpiry = AtExpiryCancel
	}
	c.oneOf(f, at(path, "at_expiry"), a.AtExpiry, []string{AtExpiryCancel, AtExpiryFinish})
}

// freshness reads what the sign-in of an approver has to ask for (OpenID Connect Core,
// 3.1.2.1).
func (c *compiler) freshness(f *fileSource, path string, a *Approve) {
	if a.Prompt != "" {
		c.oneOf(f, at(path, "prompt"), a.Prompt, []string{"login", "consent", "select_account"})
	}
	if f.doc.Has(at(path, "max_age")) && a.MaxAge < time.Second {
		f.doc.Add(at(path, "max_age"), "max_age must be a second or longer", "")
	}
	if (a.Prompt != "" || a.MaxAge != 0) && a.Proof == ProofSession {
		f.doc.Add(path, "prompt and max_age are for proof: idp; with proof: session nobody signs in anew", "make it proof: idp, or take them out")
	}
}

// maxApprovers bounds count: no team has more approvers, and a typing slip
// should not make a rule that nobody can satisfy.
const maxApprovers = 100
