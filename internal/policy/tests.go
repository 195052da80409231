package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// Test is one case of a policy file.
type Test struct {
	File   string
	Line   int
	Policy string

	Principal *flow.Principal
	Backend   string
	Database  string
	Process   flow.Process
	Argv0     string
	Now       time.Time // zero: the time of the run
	SQL       string    // either SQL or Action
	Action    *flow.Action
	Expect    flow.Verdict
	Rule      string // "" for any; of a statement that masks refuse, the mask
	// Masks is what masks make of columns of the result, by name or position: a
	// method, or "none". Refused is a part of what they say when they refuse the
	// statement; "" for anything.
	Masks   map[string]string
	Refused string
}

// TestResult is what became of a Test.
type TestResult struct {
	File     string       `json:"file"`
	Line     int          `json:"line"`
	Policy   string       `json:"policy"`
	Case     string       `json:"case"` // who does what where
	Expect   flow.Verdict `json:"expect"`
	Got      flow.Verdict `json:"got"`
	WantRule string       `json:"want_rule,omitempty"`
	Rule     string       `json:"rule,omitempty"`
	OK       bool         `json:"ok"`
	Reason   string       `json:"reason"` // the decision's, or why there was none
}

func (c *compiler) test(f *fileSource, path string, y *testYAML, p *policyInfo) {
	t := Test{File: f.name, Line: f.doc.Line(path), Policy: p.name, Backend: y.Backend, Database: y.Database,
		SQL: y.SQL, Expect: flow.Verdict(y.Expect), Rule: y.Rule, Argv0: y.Process.Argv0, Masks: y.Masks, Refused: y.Refused,
		Process: flow.Process{Exe: y.Process.Exe, UID: y.Process.UID, Cgroup: y.Process.Cgroup}}
	if pod := y.Process.Pod; pod != nil {
		t.Process.Pod = &flow.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Container: pod.Container}
	}
	c.testWho(f, path, y, &t)
	if t.Backend == "" {
		if len(p.texts) == 0 || strings.ContainsAny(p.texts[0], `*\`) {
			f.doc.Add(path, "this test has no backend", "add backend: with the name of one, since the policy names none that is no glob")
		} else {
			t.Backend = p.texts[0]
		}
	}
	if y.Now != "" {
		var err error
		if t.Now, err = time.Parse(time.RFC3339, y.Now); err != nil {
			f.doc.Add(at(path, "now"), "now is no time", "write it as 2026-11-23T09:30:00Z")
		}
	}
	switch {
	case (y.SQL == "") == (y.Action == ""):
		f.doc.Add(path, "a test has either sql or action", `add sql: "SELECT ..." or action: "select shop.orders"`)
	case y.Action != "":
		a, err := ParseAction(y.Action)
		if err != nil {
			f.doc.Add(at(path, "action"), err.Error(), "")
		}
		t.Action = a
	}
	if y.Expect == "" {
		f.doc.Add(path, "this test expects nothing", "add expect: allow, deny or approve")
	}
	c.oneOf(f, at(path, "expect"), y.Expect, effects)
	c.testMasks(f, path, y)
	c.set.tests = append(c.set.tests, t)
}

func (c *compiler) testMasks(f *fileSource, path string, y *testYAML) {
	for _, column := range slices.Sorted(maps.Keys(y.Masks)) {
		c.oneOf(f, at(path, "masks", column), y.Masks[column], append([]string{maskNone}, methods...))
	}
	switch {
	case y.Masks == nil && y.Refused == "":
	case y.SQL == "":
		f.doc.Add(path, "masks and refused are about the result of sql", `add sql: "SELECT ..."`)
	case y.Masks != nil && (y.Refused != "" || y.Expect == string(flow.Deny)):
		f.doc.Add(path, "a statement that is refused has no result, so masks say nothing about it", "take masks out")
	case y.Refused != "" && y.Expect != string(flow.Deny):
		f.doc.Add(path, "a statement that masks refuse is denied", "write expect: deny")
	}
}

func (c *compiler) testWho(f *fileSource, path string, y *testYAML, t *Test) {
	c.oneOf(f, at(path, "kind"), y.Kind, kinds)
	if y.User == "" {
		if y.Groups != nil || y.Kind != "" || y.Claims != nil {
			f.doc.Add(path, "this test has groups, a kind or claims and no user", "add user:")
		}
		return // nobody is signed in
	}
	t.Principal = NewPrincipal(y.User, y.Groups, y.Kind)
	t.Principal.Claims = y.Claims
}

// NewPrincipal makes a principal for tests and explanations; kind "" is human.
func NewPrincipal(user string, groups []string, kind string) *flow.Principal {
	if kind == "" {
		kind = string(flow.Human)
	}
	return &flow.Principal{Subject: user, User: user, Groups: groups, Kind: flow.Kind(kind)}
}

// ParseAction reads "verb resource" or "verb".
func ParseAction(text string) (*flow.Action, error) {
	verb, resource, _ := strings.Cut(strings.TrimSpace(text), " ")
	v := flow.Verb(verb)
	if !knownVerbs[v] && v != flow.Unknown {
		return nil, fmt.Errorf("%q is no action of any protocol; write a verb and a resource, like \"select shop.orders\"", verb)
	}
	a := &flow.Action{Text: text, Bytes: int64(len(text)),
		Accesses: []flow.Access{{Verb: v, Resource: strings.TrimSpace(resource)}}}
	if v == flow.Call {
		a.Functions = []string{strings.TrimPrefix(a.Accesses[0].Resource, "function:")}
	}
	return a, nil
}

// Tests are the cases of the files.
func (s *Set) Tests() []Test { return slices.Clone(s.tests) }

// RunTests runs the files' own cases. protocols are those of the configured
// backends, as far as they are known; now stands in for tests without a time.
func RunTests(s *Set, analyse Analyser, protocols map[string]flow.Protocol, now time.Time) []TestResult {
	results := make([]TestResult, 0, len(s.tests))
	for i := range s.tests {
		results = append(results, s.runTest(&s.tests[i], analyse, protocols, now))
	}
	return results
}

func (s *Set) runTest(t *Test, analyse Analyser, protocols map[string]flow.Protocol, now time.Time) TestResult {
	r := TestResult{File: t.File, Line: t.Line, Policy: t.Policy, Case: t.String(), Expect: t.Expect, WantRule: t.Rule}
	in := Input{Principal: t.Principal, Argv0: t.Argv0, Now: t.Now,
		Flow: &flow.Flow{Backend: t.Backend, Protocol: protocols[t.Backend], Database: t.Database, Process: t.Process}}
	if in.Now.IsZero() {
		in.Now = now
	}
	in.Flow.Start = in.Now
	list, err := analysed(&in, t.SQL, t.Action, analyse)
	if err != nil { // no verdict, so that nothing passes for a denial by mistake
		r.Reason = "the SQL cannot be analysed: " + err.Error()
		return r
	}
	d, err := s.decideAll(in, list)
	if err != nil {
		r.Reason = "what masks do cannot be told: " + err.Error()
		return r
	}
	r.Got, r.Rule, r.Reason = d.Verdict, d.Rule, d.Reason
	r.OK = r.Got == r.Expect && (t.Rule == "" || t.Rule == r.Rule)
	if r.OK {
		if err := t.wantMasks(list, s.Masks(t.Principal, t.Backend)); err != nil {
			r.OK, r.Reason = false, err.Error()
		}
	}
	return r
}

// decideAll decides several statements, by rules and by masks; the strictest verdict
// counts.
func (s *Set) decideAll(in Input, list []Analysed) (Decision, error) {
	var worst Decision
	for i := range list {
		in.Action = &list[i].Action
		d := s.Decide(in)
		if d.Verdict != flow.Deny && list[i].Masked != nil {
			m, err := list[i].Masked(s.Masks(in.Principal, in.Flow.Backend))
			if err != nil {
				return Decision{}, err
			}
			if m.Refused != "" {
				d = Decision{Verdict: flow.Deny, Rule: m.RefusedBy, Reason: m.Refused}
			}
		}
		if i == 0 || severity(d.Verdict) > severity(worst.Verdict) {
			worst = d
		}
	}
	return worst, nil
}

// analysed is what a test or a question is about. SQL on a backend of unknown
// protocol is taken for PostgreSQL's.
func analysed(in *Input, sql string, action *flow.Action, analyse Analyser) ([]Analysed, error) {
	if action != nil {
		return []Analysed{{Action: *action}}, nil
	}
	if in.Flow.Protocol == "" {
		in.Flow.Protocol = flow.Postgres
	}
	if analyse == nil {
		return nil, fmt.Errorf("there is no SQL analyser here; ask with an action instead")
	}
	list, err := analyse(in.Flow.Backend, sql)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("the SQL holds no statement")
	}
	return list, err
}

func severity(v flow.Verdict) int {
	return slices.Index([]flow.Verdict{flow.Allow, flow.Approve, flow.Deny}, v)
}

func (t *Test) String() string {
	who := "nobody"
	if p := t.Principal; p != nil {
		who = p.User
		if len(p.Groups) > 0 {
			who += " [" + strings.Join(p.Groups, ", ") + "]"
		}
	}
	what := t.SQL
	if t.Action != nil {
		what = t.Action.Text
	}
	return who + " at " + t.Backend + ": " + what
}
