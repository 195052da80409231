package policy

import (
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
)

// TestFactsOfConditions: what a condition reads is found wherever it stands, and a
// field without a place in factOf counts as everything.
func TestFactsOfConditions(t *testing.T) {
	c, err := newConditions()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Facts{
		`action.verb == "x" || action.resource == "y" || "z" in action.resources`: 0,
		`principal.user == flow.database && principal.groups.exists(g, g == "x")`: 0,
		`has(principal.actor) && principal.actor.user != ""`:                      0,
		`action.has_where`: FactWhere,
		`action.params.exists(p, p == principal.user && action.size > 3)`:                  FactParams | FactSize,
		`[1, 2].exists(x, now.getHours("UTC") == x) ? has(process.pod) : action.has_where`: FactNow | FactProcess | FactWhere,
		`{"a": action.text}["a"] == "x"`:                                                   FactText,
		`action.columns_read.all(c, c == "x") && !action.security_definer`:                 FactColumns | FactFunctions,
		`process.argv0 == "x" && flow.start < now`:                                         FactArgv0 | FactStart | FactNow,
		`principal.claims.x == 1 && "a" in action.languages`:                               FactClaims | FactFunctions,
		`[process].exists(p, p.exe == "x")`:                                                allFacts,
		`action == action`:                                                                 allFacts,
		`["a"].exists(action, action == "a") && process.pod.name == "x"`:                   allFacts,
	} {
		got, problems := c.compile(text)
		if problems != nil {
			t.Fatalf("%s: %v", text, problems)
		}
		if got.reads != want {
			t.Errorf("%s reads %s, want %s", text, got.reads, want)
		}
	}
	types := map[string]string{"principal": "weir.Principal", "process": "weir.Process", "flow": "weir.Flow", "action": "weir.Action"}
	n := 0
	for variable, kind := range types {
		for field := range objectFields[kind] {
			n++
			if _, ok := factOf[variable+"."+field]; !ok {
				t.Errorf("%s.%s is not in factOf: decisions that read it cannot be kept", variable, field)
			}
		}
	}
	if n != len(factOf) || len(types) != len(variables) {
		t.Errorf("%d fields, %d in factOf", n, len(factOf))
	}
	if allFacts.String() != strings.Join(factNames, ", ") || len(factNames) != 12 || 1<<len(factNames) != int(allFacts)+1 {
		t.Errorf("the names do not fit the facts: %s", allFacts)
	}
}

// TestDecisionSaysWhatItRestsOn: the conditions that were asked, and no others.
func TestDecisionSaysWhatItRestsOn(t *testing.T) {
	s := mustCompile(t, `policies:
  - name: p
    rules:
      - {name: read, actions: [select], effect: allow}
      - {name: hours, actions: [insert], when: 'now.getHours("UTC") > 8', effect: allow}
      - {name: dba, groups: [dba], actions: [insert], when: 'action.params.size() > 3', effect: deny}
      - {name: claims, actions: [update], when: 'principal.claims.team == "x"', effect: allow}
      - {name: never, actions: [update], resources: ["s.keys"], effect: deny}
      - {name: text, actions: [delete], when: 'action.text == "x"', effect: deny}
`)
	ann, dora := NewPrincipal("ann", nil, ""), NewPrincipal("dora", []string{"dba"}, "")
	access := func(v flow.Verb, r string) flow.Access { return flow.Access{Verb: v, Resource: r} }
	for _, c := range []struct {
		who           *flow.Principal
		list          []flow.Access
		missing       Facts
		verdict       flow.Verdict
		rests, unsure Facts
	}{
		{ann, []flow.Access{access("select", "s.t")}, 0, flow.Allow, FactAccesses, 0},
		{ann, []flow.Access{access("insert", "s.t")}, 0, flow.Allow, FactAccesses | FactNow, 0},
		{dora, []flow.Access{access("insert", "s.t")}, 0, flow.Allow, FactAccesses | FactNow | FactParams, 0},
		{ann, []flow.Access{access("insert", "s.t")}, FactParams, flow.Allow, FactAccesses | FactNow, 0},
		{dora, []flow.Access{access("insert", "s.t")}, FactParams, flow.Deny, FactAccesses | FactNow | FactParams, FactParams},
		{ann, []flow.Access{access("update", "s.t")}, FactClaims, flow.Deny, FactAccesses | FactClaims, FactClaims},
		// A denial that holds whatever is missing is certain, in any order.
		{ann, []flow.Access{access("update", "s.keys")}, FactClaims, flow.Deny, FactAccesses | FactClaims, 0},
		{ann, []flow.Access{access("update", "s.t"), access("update", "s.keys")}, FactClaims, flow.Deny, FactAccesses | FactClaims, 0},
		{ann, []flow.Access{access("update", "s.t"), access("drop", "s.t")}, FactClaims, flow.Deny, FactAccesses | FactClaims, 0},
		{ann, []flow.Access{access("update", "s.t"), access("select", "s.t")}, FactClaims, flow.Deny, FactAccesses | FactClaims, FactClaims},
		// A condition that fails for another reason denies for certain.
		{ann, []flow.Access{access("update", "s.t")}, FactParams, flow.Deny, FactAccesses | FactClaims, 0},
	} {
		d := s.Decide(Input{Principal: c.who, Flow: &flow.Flow{Backend: "b", Protocol: flow.Postgres}, Now: noon, Missing: c.missing,
			Action: &flow.Action{Accesses: c.list}})
		if d.Verdict != c.verdict || d.Rests != c.rests || d.Missing != c.unsure {
			t.Errorf("%v without %s: %s (%s), rests on %s, unsure of %s", c.list, c.missing, d.Verdict, d.Reason, d.Rests, d.Missing)
		}
	}
}
