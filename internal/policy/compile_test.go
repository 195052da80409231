package policy

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
)

func mustCompile(t testing.TB, text string, opts ...Options) *Set {
	t.Helper()
	var o Options
	if opts != nil {
		o = opts[0]
	}
	s, err := Compile([]File{{Name: "p.yaml", Data: []byte(text)}}, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every error is reported at once, with its line and what to do.
func TestCompileErrors(t *testing.T) {
	text := `policies:
  - name: a
    backends: []
    rules:
      - {name: r1, effect: alow, groups: []}
      - {name: r1, actions: [slect, "*"], effect: allow}
      - name: r2
        users: ["*@example.com"]
        groups: ["dev*"]
        kinds: [robot]
        resources: ['"open']
        when: principal.usr == "x"
        effect: approve
      - {effect: allow, approve: {groups: [x], count: 0, grant: sometimes, proof: none, timeout: 0s}}
      - {name: r3, effect: approve, approve: {}, record: maybe}
      - {name: r4, when: "1 + 1", effect: allow}
      - {name: r5, when: 'principal.groups.all(a, principal.groups.all(b, principal.groups.all(c, a + b != c)))', effect: allow}
      - name: r6
        effect: deny
        when: |
          action.verb == "x" &&
          action.text.matches("(")
      - {name: r7, when: "", effects: allow}
      - {name: r8, groups:, effect: allow}
    masks:
      - {name: m1}
      - {name: m1, columns: [a.b, '"x'], detect: [cards], fields: [x, "$.a[?(@)]"], with: redacted, unless_groups: [], predicates: {budget: 0}}
      - {name: m2, columns: [a.b.c], with: hash, predicates: sometimes}
      - {name: m3, columns: [a.b.c], with: hash, predicates: {budget: 1000001, per: 0s}}
      - {name: m4, columns: [a.b.c], with: hash, predicates: {budget: 1, equality: 1}}
      - {name: m5, columns: [a.b.c], with: hash, predicates: {per: 1h}}
      - {name: m6, columns: [a.b.c], with: hash, predicates: {}}
      - {name: m7, columns: [a.b.c], with: hash, predicates: {equality: 0, per: 400d}}
    tests:
      - {user: u, sql: "x", action: "select a.b", expect: yes}
      - {groups: [g], action: "slect a.b", backend: b, now: today}
  - name: a
detectors:
  email: {pattern: x}
  bad: {pattern: "("}
  empty: {pattern: "x*"}
  none: {}
`
	_, err := Compile([]File{{Name: "p.yaml", Data: []byte(text)}}, Options{})
	if err == nil {
		t.Fatal("it compiles")
	}
	golden(t, "testdata/errors.txt", err.Error()+"\n")
	if n := strings.Count(err.Error(), "\n"); n < 40 {
		t.Errorf("only %d problems", n)
	}
}

func TestCompileSeveralFiles(t *testing.T) {
	a := File{"a", []byte("policies:\n  - name: one\n    masks: [{name: m, detect: [tax], with: redact}]\n")}
	b := File{"b", []byte("detectors: {tax: {pattern: 'X[0-9]+'}}\npolicies: [{name: two}]\n")}
	s1, err1 := Compile([]File{a, b}, Options{})
	s2, err2 := Compile([]File{b, a}, Options{})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if s1.Revision() != s2.Revision() || !strings.HasPrefix(s1.Revision(), "sha256:") {
		t.Error("the revision depends on the order of files")
	}
	crlf := File{"c", []byte(strings.ReplaceAll("\xef\xbb\xbf"+string(a.Data), "\n", "\r\n"))}
	if Revision([]File{crlf, b}) != s1.Revision() {
		t.Error("the revision depends on line ends")
	}
	if Revision([]File{a}) == s1.Revision() || Revision([]File{a, b, b}) == s1.Revision() {
		t.Error("the revision is not one of all files")
	}
	if s1.Detectors()["tax"] != "X[0-9]+" {
		t.Error("the detector is missing")
	}
	if _, err := Compile([]File{a, a, b}, Options{}); err == nil || !strings.Contains(err.Error(), "at a:2") {
		t.Errorf("a policy given twice: %v", err)
	}
	if _, err := Compile(nil, Options{}); err == nil {
		t.Error("no files are taken")
	}
}

// With the configuration's protocols, actions of others are errors.
func TestCompileWithProtocols(t *testing.T) {
	text := "policies:\n  - name: p\n    backends: [orders]\n    rules: [{name: r, actions: [get], effect: allow}]\n"
	opts := Options{Protocols: map[string]flow.Protocol{"orders": flow.Postgres, "web": flow.HTTP}}
	if _, err := Compile([]File{{"p", []byte(text)}}, opts); err == nil || !strings.Contains(err.Error(), `"get" is no action of postgres; did you mean "set"?`) {
		t.Errorf("%v", err)
	}
	s := mustCompile(t, strings.ReplaceAll(text, "orders", "ordres"), opts)
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0].What, `no backend of the configuration is called "ordres"`) {
		t.Errorf("%v", w)
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct{ rules, want string }{
		{`{name: r, actions: [connect, select], resources: ["shop.*"], effect: allow}`, ""},
		{`{name: r, actions: [connect, select], resources: ["database:shop"], effect: allow}`, "say nothing about select on schema.relation, so it is allowed"},
		{`{name: r, actions: [drop], resources: ["shop.*"], effect: deny}`, "say nothing about drop on database:, function:, role:, so it is denied"},
		{`{name: r, actions: [select, call, listen], resources: ["shop.*"], effect: allow}`, "say nothing about call on function:; listen on channel:, so"},
		{`{name: r, actions: [unknown], resources: ["shop.*"], effect: allow}`, "do not restrict unknown"},
		{`{name: r, actions: [connect], resources: ["shop.*"], effect: allow}`, ""}, // host:port looks the same
		{`{name: r, actions: [connect], resources: ["/x"], effect: allow}`, "say nothing about connect, its only action"},
		{`{name: r, actions: [select], resources: ["orders"], effect: allow}`, "can match no name of two parts"},
		{`{name: r, actions: [select], resources: ["Shop.*"], effect: allow}`, "has capital letters"},
		{`{name: r, actions: [select], resources: ['"Shop".*'], effect: allow}`, ""},
		{`{name: r, actions: [get], resources: ["default/pods"], effect: allow}`, ""},
		{`{name: r, actions: [get, delete], resources: ["/api/**"], effect: allow}`, ""},
		{`{name: a, actions: [select], effect: allow}, {name: b, actions: [select], groups: [x], resources: ["s.*"], effect: allow}`, `rule "b": it adds nothing: rule "a"`},
		{`{name: a, groups: [x, y], effect: deny}, {name: b, groups: [x], actions: [select], effect: allow}`, `rule "b": it never decides: whenever it matches, rule "a" (p.yaml:4) denies`},
		{`{name: a, resources: ["s.**"], actions: [select], effect: approve, approve: {groups: [x]}}, {name: b, resources: ["s.t*"], actions: [select], effect: allow}`, `rule "b": it never decides: whenever it matches, rule "a" (p.yaml:4) asks for approval`},
		{`{name: a, actions: [select], effect: allow, when: "action.has_where"}, {name: b, actions: [select], groups: [x], effect: allow}`, ""},
		{`{name: a, actions: [select], resources: ["s.*"], effect: deny}, {name: b, actions: [select], effect: allow}`, ""},
		{`{name: a, actions: [select], users: [u], effect: deny}, {name: b, actions: [select], groups: [u], effect: allow}`, ""},
		{`{name: a, groups: [x], effect: allow}, {name: b, actions: [unknown], groups: [x], effect: allow}`, ""},
	} {
		s := mustCompile(t, "policies:\n  - name: p\n    rules:\n      - "+strings.ReplaceAll(c.rules, "}, {name: b", "}\n      - {name: b")+"\n")
		var texts []string
		for _, w := range s.Warnings() {
			texts = append(texts, w.String())
		}
		got := strings.Join(texts, "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s\n got: %s\nwant: %s", c.rules, got, c.want)
		}
	}
}

// randomRule and randomInput draw from few words, so that much matches.
func pick(r *rand.Rand, words ...string) string { return words[r.IntN(len(words))] }

func randomRule(r *rand.Rand, name, effect string) string {
	var b strings.Builder
	b.WriteString("      - {name: " + name + ", effect: " + effect)
	if effect == "approve" {
		b.WriteString(", approve: {groups: [" + pick(r, "a", "b") + "]}")
	}
	some := func(key string, words ...string) {
		if r.IntN(2) == 0 {
			b.WriteString(", " + key + ": [" + pick(r, words...) + "]")
		}
	}
	some("groups", "g1", "g2", "g1, g2", "g3")
	some("users", "Ann@x.org", "bob")
	some("kinds", "human", "agent, ci")
	some("actions", "select", "select, insert", "drop", "unknown", "connect, call", "insert, unknown")
	some("resources", `"s.*"`, `"s.t"`, `"**"`, `"t.*", "database:d"`, `"function:s.*"`)
	if r.IntN(3) == 0 {
		b.WriteString(", when: '" + pick(r, "action.has_where", `principal.user == "bob"`, `principal.claims.x == 1`, `"g1" in principal.groups`, `process.exe == "x"`) + "'")
	}
	if r.IntN(4) == 0 {
		b.WriteString(", record: " + pick(r, "refuse", "end", "continue"))
	}
	return b.String() + "}\n"
}

func randomInput(r *rand.Rand) Input {
	in := Input{Now: noon, Flow: &flow.Flow{Backend: pick(r, "db1", "db2"), Protocol: flow.Postgres}, Action: &flow.Action{}}
	if r.IntN(8) > 0 {
		in.Principal = NewPrincipal(pick(r, "ann@X.org", "bob", "cy"), strings.Split(pick(r, "g1", "g1,g2", "g3,g2,g1", "g4"), ","), pick(r, "human", "agent"))
		if r.IntN(2) == 0 {
			in.Principal.Claims = map[string]any{"x": 1}
		}
	}
	for range 1 + r.IntN(3) {
		in.Action.Accesses = append(in.Action.Accesses, flow.Access{
			Verb:         flow.Verb(pick(r, "select", "insert", "drop", "call", "connect", "unknown", "strange")),
			Resource:     pick(r, "s.t", "s.u", "t.t", "function:s.f", "database:d", ""),
			Unrestricted: r.IntN(2) == 0,
		})
	}
	return in
}

func randomPolicies(r *rand.Rand, rules int) []string {
	var lines []string
	for i := range rules {
		lines = append(lines, randomRule(r, "r"+string(rune('a'+i/26))+string(rune('a'+i%26)), pick(r, "allow", "allow", "allow", "deny", "approve")))
	}
	return lines
}

func wrap(lines []string) string {
	return "policies:\n  - name: p\n    backends: [\"db*\"]\n    rules:\n" + strings.Join(lines, "")
}

// The properties of the semantics on random policies, with few rules (walked)
// and many (entered by group).
func TestDecideProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	seen := map[flow.Verdict]int{}
	for round := range 300 {
		lines := randomPolicies(r, 1+r.IntN(4)+40*(round%2))
		s := mustCompile(t, wrap(lines))
		shuffled := append([]string(nil), lines...)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		other := mustCompile(t, wrap(shuffled))
		denied := mustCompile(t, wrap(append(lines, randomRule(r, "zz", "deny"))))
		more := mustCompile(t, wrap(append(lines, randomRule(r, "zz", "allow"))))
		for range 100 {
			in := randomInput(r)
			d := s.Decide(in)
			seen[d.Verdict]++
			if o := other.Decide(in); o.Verdict != d.Verdict || o.Rule != d.Rule || o.Reason != d.Reason || o.Record != d.Record || len(o.Needs) != len(d.Needs) {
				t.Fatalf("the order of rules changes the answer:\n%+v\n%+v\n%s", d, o, wrap(lines))
			}
			if n := denied.Decide(in); severity(n.Verdict) < severity(d.Verdict) {
				t.Fatalf("one more deny allows more: %s became %s\n%s", d.Verdict, n.Verdict, wrap(lines))
			}
			if m := more.Decide(in); d.Verdict == flow.Deny && d.Rule != "" && m.Verdict != flow.Deny {
				t.Fatalf("an allow beats a deny\n%s", wrap(lines))
			}
			checkExplanation(t, s, in, d)
		}
	}
	for _, v := range []flow.Verdict{flow.Allow, flow.Deny, flow.Approve} {
		if seen[v] < 1000 {
			t.Errorf("only %d decisions are %s", seen[v], v)
		}
	}
}

// The verdict that follows from what Explain says about each rule is the one of
// Decide, which takes another way through the rules.
func checkExplanation(t *testing.T, s *Set, in Input, d Decision) {
	t.Helper()
	e := s.Explain(in)
	if e.Verdict != d.Verdict || e.Rule != d.Rule {
		t.Fatalf("Explain says %s by %q, Decide %s by %q", e.Verdict, e.Rule, d.Verdict, d.Rule)
	}
	worst := flow.Allow
	for _, a := range e.Accesses {
		verdict := flow.Deny
		effects := map[flow.Verdict]bool{}
		failed := false
		for _, r := range a.Rules {
			effects[r.Effect] = effects[r.Effect] || r.Matched
			failed = failed || r.Failed
			if r.Why == "" {
				t.Fatal("a rule without a reason")
			}
		}
		switch {
		case effects[flow.Deny], failed:
		case effects[flow.Approve]:
			verdict = flow.Approve
		case effects[flow.Allow]:
			verdict = flow.Allow
		}
		if verdict != a.Verdict {
			t.Fatalf("%s %s: the rules say %s, the verdict is %s", a.Verb, a.Resource, verdict, a.Verdict)
		}
		if severity(verdict) > severity(worst) {
			worst = verdict
		}
	}
	if worst != d.Verdict {
		t.Fatalf("the accesses say %s, the decision is %s", worst, d.Verdict)
	}
}

func TestDecideEdges(t *testing.T) {
	s := mustCompile(t, "policies:\n  - name: p\n    rules:\n      - {name: all, effect: allow}\n      - {name: text, actions: [insert], when: 'action.text.contains(\"x\")', effect: deny}\n")
	f := &flow.Flow{Backend: "b", Protocol: flow.Postgres}
	decide := func(a *flow.Action) Decision { return s.Decide(Input{Flow: f, Action: a}) }
	one := func(verb flow.Verb, resource string) *flow.Action {
		return &flow.Action{Accesses: []flow.Access{{Verb: verb, Resource: resource}}}
	}
	long := one(flow.Insert, "s.t")
	long.Text = strings.Repeat("y", flow.MaxRecordedText-3)
	for name, c := range map[string]struct {
		action *flow.Action
		want   flow.Verdict
		reason string
	}{
		"known":         {one(flow.Select, "s.t"), flow.Allow, `rule "all" allows it`},
		"unknown":       {one(flow.Unknown, ""), flow.Deny, "no rule allows what weir cannot read (unknown)"},
		"no such verb":  {one("frobnicate", "x"), flow.Deny, "no rule allows frobnicate on x"},
		"nothing":       {&flow.Action{}, flow.Deny, "nothing that a policy could decide"},
		"no action":     {nil, flow.Deny, "nothing that a policy could decide"},
		"long resource": {one(flow.Select, strings.Repeat("x", maxResource+1)), flow.Deny, "longer than"},
		"cut text":      {long, flow.Deny, "action.text is longer than the part that is kept"},
		"odd resource":  {one("frobnicate", "a\x1b[31m"), flow.Deny, `"a\x1b[31m"`},
		"much resource": {one("frobnicate", strings.Repeat("ä", 200)), flow.Deny, strings.Repeat("ä", 100) + "..."},
	} {
		d := decide(c.action)
		if d.Verdict != c.want || !strings.Contains(d.Reason, c.reason) {
			t.Errorf("%s: %s: %s", name, d.Verdict, d.Reason)
		}
	}
	if d := s.Decide(Input{Action: one(flow.Select, "s.t")}); d.Verdict != flow.Deny {
		t.Error("no flow is allowed")
	}
	if d := new(Set).Decide(Input{Flow: f, Action: one(flow.Select, "s.t")}); d.Verdict != flow.Deny {
		t.Error("the empty set allows")
	}
}

// A data verb's resource is a relation whatever its schema is called, so that no
// name takes it out of the patterns' reach.
func TestNoEscapeByName(t *testing.T) {
	s := mustCompile(t, "policies:\n  - name: p\n    rules:\n      - {name: r, actions: [connect, select], resources: [\"shop.*\"], effect: allow}\n")
	for _, resource := range []string{"function:x.t", "database:x", "role:x.t", "setting:x.t", "/x", "a/b", "h:1", "", "shop", `"shop.x"."y`} {
		for _, p := range []flow.Protocol{flow.Postgres, flow.MySQL, ""} {
			d := s.Decide(Input{Flow: &flow.Flow{Backend: "b", Protocol: p},
				Action: &flow.Action{Accesses: []flow.Access{{Verb: flow.Select, Resource: resource}}}})
			if d.Verdict != flow.Deny && !(p == "" && resource == "") {
				t.Errorf("%q on %q: %s", p, resource, d.Verdict)
			}
		}
	}
}

func TestFoldUser(t *testing.T) {
	for in, want := range map[string]string{
		"Ann@Example.COM": "ann@example.com", "ann@example.com": "ann@example.com", "SVC": "SVC",
		"\u212Aim@x.org": "\u212Aim@x.org", "ÄNN@x.org": "Änn@x.org",
	} {
		if got := foldUser(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestMasks(t *testing.T) {
	s := compileDir(t, "testdata/golden/principals")
	if m := s.Masks(nil, "x"); len(m) != 2 || m[1].Predicates != PredicatesBudget || m[1].Budget != 20 || m[0].Predicates != PredicatesDeny {
		t.Errorf("%+v", m)
	}
	if m := s.Masks(NewPrincipal("u", []string{"a"}, ""), "x"); len(m) != 1 || m[0].Name != "tax numbers" || !m[0].MatchColumn("s", "t", "tax_no") || m[0].MatchColumn("s", "t", "tax") {
		t.Errorf("%+v", m)
	}
	s = compileDir(t, "testdata/golden/shop")
	if m := s.Masks(NewPrincipal("u", []string{"payments-auditor"}, ""), "orders"); m != nil {
		t.Errorf("%+v", m)
	}
	if m := s.Masks(nil, "wiki"); len(m) != 0 {
		t.Errorf("%+v", m)
	}
}

func TestJSONPath(t *testing.T) {
	for _, ok := range []string{"$.customer.cards[*]", "$..iban", "$.*", "$..*", "$[0].x", "$['a b']", `$..["x"]`, "$..[*]", "$.ä"} {
		if err := checkJSONPath(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "$", "x", "$.", "$..", "$.a b", "$[", "$[]", "$[-1]", "$[1:2]", "$[?(@.x)]", "$['a", "$['a'", "$.a..", "$x", `$['a\'b']`} {
		if checkJSONPath(bad) == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// A condition's problem never repeats a value.
func TestConditionProblemsHoldNoData(t *testing.T) {
	const secret = "hunter2"
	for _, when := range []string{
		`principal.claims[action.text] == 1`, `int(action.text) > 1`, `duration(action.text) > duration("1s")`,
		`action.params[7] == "x"`, `{"a": 1}[action.text] == 1`, `timestamp(action.text) > now`,
		`principal.claims.x.y == 1`,
	} {
		s := mustCompile(t, "policies:\n  - name: p\n    rules:\n      - {name: r, effect: allow, when: '"+when+"'}\n")
		d := s.Decide(Input{Principal: &flow.Principal{Claims: map[string]any{"x": secret}}, Flow: &flow.Flow{Backend: "b"},
			Action: &flow.Action{Text: secret, Accesses: []flow.Access{{Verb: flow.Select, Resource: "a.b"}}}})
		if d.Verdict != flow.Deny || d.Rule != "r" || strings.Contains(d.Reason, secret) {
			t.Errorf("%s: %s: %s", when, d.Verdict, d.Reason)
		}
	}
}

// Every field of the contract can be read, and nothing else.
func TestConditionFields(t *testing.T) {
	in := Input{
		Principal: &flow.Principal{User: "u", Subject: "s", Issuer: "i", Groups: []string{"g"}, Kind: flow.CI, Claims: map[string]any{"c": "v", "n": map[string]any{"l": []any{"a"}}},
			Actor: &flow.Actor{User: "au", Subject: "as", Issuer: "ai", Actor: &flow.Actor{User: "aau"}}},
		Flow: &flow.Flow{Backend: "b", Protocol: flow.Postgres, Database: "d", Login: "l", Node: "n", Start: noon,
			Process: flow.Process{Exe: "/x", UID: 7, Cgroup: "/c", Pod: &flow.Pod{Namespace: "pn", Name: "pm", UID: "pu", Container: "pc"}}},
		Action: &flow.Action{Text: "t", Params: []string{"p"}, Functions: []string{"s.f"}, Bytes: 9,
			Accesses: []flow.Access{{Verb: flow.Delete, Resource: "a.b", Unrestricted: true}, {Verb: flow.Delete, Resource: "a.b", Unrestricted: true}}},
		Now: noon, Argv0: "a0",
	}
	all := `principal.user == "u" && principal.subject == "s" && principal.issuer == "i" && principal.groups == ["g"] && principal.kind == "ci"
		&& principal.claims.c == "v" && "a" in principal.claims.n.l && principal.actor.user == "au" && principal.actor.subject == "as"
		&& principal.actor.issuer == "ai" && principal.actor.actor.user == "aau" && principal.actor.actor.actor.user == ""
		&& process.exe == "/x" && process.uid == 7 && process.cgroup == "/c" && process.argv0 == "a0" && has(process.pod)
		&& process.pod.namespace == "pn" && process.pod.name == "pm" && process.pod.uid == "pu" && process.pod.container == "pc"
		&& flow.backend == "b" && flow.protocol == "postgres" && flow.destination != "" && flow.database == "d" && flow.login == "l"
		&& flow.node == "n" && flow.start == now && action.verb == "delete" && action.resource == "a.b" && action.resources == ["a.b", "a.b"]
		&& action.text == "t" && !action.has_where && action.params == ["p"] && action.functions == ["s.f"] && action.size == 9
		&& now == timestamp("2026-11-23T12:00:00Z") && principal == principal && action.text.lowerAscii() == "t"`
	c, err := newConditions()
	if err != nil {
		t.Fatal(err)
	}
	cond, problems := c.compile(all)
	if problems != nil {
		t.Fatal(problems)
	}
	ev := newEvaluation(in)
	ev.access = &in.Action.Accesses[0]
	if ok, problem := cond.holds(ev); !ok {
		t.Fatalf("it does not hold: %s", problem)
	}
	for _, bad := range []string{"principal.email == 'x'", "proces.exe == 'x'", "action.where", "flow.start == 'x'", "process.uid == '0'", "weir.Nothing{}.x", "principal.claims.admin", "now"} {
		if _, problems := c.compile(bad); problems == nil {
			t.Errorf("%s compiles", bad)
		}
	}
}

// The limit at run time stops what the estimate, which believes the hints,
// lets through.
func TestConditionCostLimit(t *testing.T) {
	s := mustCompile(t, "policies:\n  - name: p\n    rules:\n      - {name: r, effect: allow, when: 'action.functions.exists(f, f.contains(\"pg_\"))'}\n")
	in := Input{Flow: &flow.Flow{Backend: "b"}, Action: &flow.Action{Accesses: []flow.Access{{Verb: flow.Call, Resource: "function:a.b"}}}}
	for range 50_000 {
		in.Action.Functions = append(in.Action.Functions, strings.Repeat("x", 100))
	}
	if d := s.Decide(in); d.Verdict != flow.Deny || !strings.Contains(d.Reason, "costs more than its limit") {
		t.Errorf("%s: %s", d.Verdict, d.Reason)
	}
}

func TestRunTestsReports(t *testing.T) {
	s := mustCompile(t, `policies:
  - name: p
    backends: [b]
    rules: [{name: r, actions: [select], effect: allow}]
    tests:
      - {user: u, action: "select a.b", expect: deny}
      - {user: u, action: "select a.b", expect: allow, rule: other}
      - {user: u, sql: "select a.b", expect: allow, rule: r}
`)
	results := RunTests(s, analyse, nil, noon)
	if len(results) != 3 || results[0].OK || results[1].OK || !results[2].OK || results[0].Got != flow.Allow || results[1].Rule != "r" {
		t.Errorf("%+v", results)
	}
	if r := RunTests(s, nil, nil, noon)[2]; r.OK || r.Got != "" || r.Reason == "" {
		t.Errorf("%+v", r)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(thousandRules(false, "")[:2000]))
	f.Add([]byte("policies:\n  - name: p\n    rules:\n      - {name: r, actions: [select], resources: [\"s.*\"], when: 'action.has_where', effect: allow}\n    masks: [{name: m, columns: [a.b.c], with: hash, predicates: {budget: 1}}]\n    tests: [{user: u, action: select a.b, expect: allow, backend: b}]\ndetectors: {x: {pattern: y}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Compile([]File{{"f", data}}, Options{})
		if err != nil {
			return
		}
		for _, r := range RunTests(s, analyse, nil, noon) {
			_ = r.OK
		}
		in := Input{Flow: &flow.Flow{Backend: "b"}, Action: &flow.Action{Accesses: []flow.Access{{Verb: flow.Unknown}}}}
		if d := s.Decide(in); d.Verdict == flow.Allow && !strings.Contains(string(data), "unknown") {
			t.Fatal("unknown is allowed by a policy that does not name it")
		}
	})
}

// Conditions are shared by all flows, those that fail too.
func TestDecideConcurrently(t *testing.T) {
	s := mustCompile(t, `policies:
  - name: p
    rules:
      - {name: a, actions: [select], when: 'principal.claims.x > 1', effect: allow}
      - {name: b, actions: [select], when: 'principal.groups.exists(g, g == "dev") && action.text.matches("^S")', effect: allow}
      - {name: c, actions: [insert], when: 'principal.claims.x == "a" || principal.claims.y.z', effect: allow}
`)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 300 {
				in := Input{Now: noon, Flow: &flow.Flow{Backend: string(rune('a' + (i+n)%20)), Protocol: flow.Postgres},
					Principal: NewPrincipal("u", []string{"dev"}, ""), Action: &flow.Action{Text: "SELECT", Accesses: []flow.Access{{Verb: flow.Select, Resource: "a.b"}}}}
				in.Principal.Claims = map[string]any{"x": 2}
				want := flow.Allow
				switch n % 3 {
				case 0:
					in.Principal.Claims["x"], want = "no number", flow.Deny
				case 1:
					in.Action.Accesses[0].Verb, want = flow.Insert, flow.Deny
				}
				if d := s.Decide(in); d.Verdict != want {
					t.Errorf("%s: %s", d.Verdict, d.Reason)
				}
				s.Masks(in.Principal, in.Flow.Backend)
			}
		})
	}
	wg.Wait()
}

// sqlmeta writes what reaches over many objects as a pattern: an allow must cover
// all of it, a deny or approve only touch it.
func TestFarReach(t *testing.T) {
	s := mustCompile(t, `policies:
  - name: p
    rules:
      - {name: shop, actions: [drop, grant], resources: ["shop.*", "function:shop.t*", "role:app_*", "channel:jobs"], effect: allow}
      - {name: secret, actions: [drop], resources: ["*.secret"], effect: deny}
      - {name: ledger, actions: [grant], resources: ["shop.ledger", "function:x.x", "role:x"], effect: approve, approve: {groups: [x]}}
      - {name: everything, actions: [alter], resources: ["**"], effect: allow}
      - {name: star, actions: [maintain], resources: ['shop."*"'], effect: allow}
      - {name: jobs, actions: [listen], resources: ["channel:job*"], effect: allow}
`)
	for _, c := range []struct {
		verb     flow.Verb
		resource string
		want     flow.Verdict
		rule     string
	}{
		{"drop", "shop.orders", flow.Allow, "shop"},
		{"drop", "shop.secret", flow.Deny, "secret"},
		{"drop", "shop.*", flow.Deny, "secret"},
		{"drop", "*.*", flow.Deny, "secret"},
		{"grant", "shop.orders", flow.Allow, "shop"},
		{"grant", "shop.*", flow.Approve, "ledger"},
		{"grant", "hr.*", flow.Deny, ""},
		{"grant", "function:shop.*", flow.Deny, ""},
		{"grant", "function:shop.total", flow.Allow, "shop"},
		{"grant", "role:*", flow.Approve, "ledger"},
		{"grant", "role:app_x", flow.Allow, "shop"},
		{"alter", "*.*", flow.Allow, "everything"},
		{"alter", "role:*", flow.Allow, "everything"},
		{"maintain", `shop."*"`, flow.Allow, "star"},
		{"maintain", "shop.*", flow.Deny, ""},
		{"listen", "channel:jobs_eu", flow.Allow, "jobs"},
		{"listen", "channel:mail", flow.Deny, ""},
		{"grant", `shop."open*`, flow.Approve, "ledger"}, // unreadable: whatever denies or holds
	} {
		d := s.Decide(Input{Flow: &flow.Flow{Backend: "b", Protocol: flow.Postgres},
			Action: &flow.Action{Accesses: []flow.Access{{Verb: c.verb, Resource: c.resource}}}})
		if d.Verdict != c.want || d.Rule != c.rule {
			t.Errorf("%s %s: %s by %q, want %s by %q", c.verb, c.resource, d.Verdict, d.Rule, c.want, c.rule)
		}
	}
}
