package policy

import (
	"strings"
	"testing"
	"time"
)

func approveOf(t *testing.T, text string) (*Approve, error) {
	t.Helper()
	s, err := Compile([]File{{Name: "p.yaml", Data: []byte("policies:\n  - name: p\n    rules:\n      - {name: r, actions: [drop], effect: approve, approve: " + text + "}\n")}}, Options{})
	if err != nil {
		return nil, err
	}
	return s.rules[0].approve, nil
}

func TestApproveQuorums(t *testing.T) {
	a, err := approveOf(t, "{all_of: [{groups: [dba, lead], count: 2}, {groups: [security]}], grant: 30m, at_expiry: finish, prompt: login, max_age: 5m, break_glass: {groups: [oncall]}}")
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Needs) != 2 || a.Needs[0].Count != 2 || a.Needs[1].Count != 1 || a.Needs[1].Groups[0] != "security" {
		t.Errorf("needs %+v", a.Needs)
	}
	if a.GrantFor != 30*time.Minute || a.AtExpiry != AtExpiryFinish || a.Prompt != "login" || a.MaxAge != 5*time.Minute || a.BreakGlass[0] != "oncall" {
		t.Errorf("%+v", a)
	}
	if a, err = approveOf(t, "{groups: [dba]}"); err != nil || a.AtExpiry != AtExpiryCancel || a.Proof != ProofIDP || a.Grant != GrantOnce || a.Needs[0].Count != 1 {
		t.Errorf("defaults %+v, %v", a, err)
	}
}

func TestApproveMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"{groups: [x], all_of: [{groups: [y]}]}": "approve has both",
		"{all_of: []}":                           "all_of is empty",
		"{all_of: [{count: 1}]}":                 "names no groups",
		"{all_of: [{groups: [a], count: 60}, {groups: [b], count: 60}]}": "more than 100 people",
		"{groups: [x], at_expiry: maybe}":                                "maybe",
		"{groups: [x], prompt: shout}":                                   "shout",
		"{groups: [x], max_age: 0s}":                                     "max_age must be",
		"{groups: [x], proof: session, prompt: login}":                   "are for proof: idp",
		"{groups: [x], break_glass: {}}":                                 "break_glass names no groups",
		"{groups: [x], break_glass: {groups: [\"\"]}}":                   "empty",
	} {
		if _, err := approveOf(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
