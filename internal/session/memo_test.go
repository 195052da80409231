package session

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
)

const memoPolicy = `policies:
  - name: p
    rules:
      - {name: read, groups: [dev], actions: [connect, select], resources: ["s.*"], effect: allow}
      - {name: columns, actions: [select], resources: ["t.*"], when: 'action.columns_read.all(c, c == "t.a.x") && action.columns_written.size() == 0 && action.columns_tested.size() < 2', effect: allow}
      - {name: functions, actions: [call], when: '!action.security_definer && action.languages.size() == 0 && !("s.f" in action.functions)', effect: allow}
      - {name: text, actions: [insert], when: 'action.text.contains("x")', effect: allow}
      - {name: where, actions: [delete], when: 'action.has_where', effect: allow}
      - {name: params, actions: [update], when: 'action.params.size() == 1', effect: allow}
      - {name: size, actions: [lock], when: 'action.size < 10', effect: allow}
      - {name: hours, actions: [drop], when: 'now.getSeconds() % 2 == 0', effect: allow}
      - {name: people, actions: [set], when: 'principal.claims.level == 3', effect: allow}
`

// TestMemoIsThePolicy: over random actions, sign-ins and revisions a memo never says
// anything but what the rules say at that moment.
func TestMemoIsThePolicy(t *testing.T) {
	var sets []*policy.Set
	for _, text := range []string{memoPolicy, strings.ReplaceAll(memoPolicy, "effect: allow", "effect: deny"), strings.Replace(memoPolicy, "[dev]", "[ops]", 1)} {
		s, err := policy.Compile([]policy.File{{Name: "p", Data: []byte(text)}}, policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, s)
	}
	people := []*flow.Principal{nil, policy.NewPrincipal("ann", []string{"dev"}, ""), policy.NewPrincipal("bob", []string{"ops"}, "")}
	people[1].Claims = map[string]any{"level": 3}
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	some := func(list ...string) (out []string) {
		for _, s := range list {
			if r.IntN(2) == 0 {
				out = append(out, s)
			}
		}
		return out
	}
	m := &memo{seed: maphash.MakeSeed()}
	set, who, known := sets[0], people[1], 0
	verdicts := map[flow.Verdict]int{}
	for i := range 60000 {
		if i%500 == 0 {
			set, who = sets[r.IntN(len(sets))], people[r.IntN(len(people))]
		}
		a := &flow.Action{Text: pick("a", "x", "ax"), Bytes: int64(r.IntN(20)), Params: some("1", "2"), Functions: some("s.f", "s.g"),
			Languages: some("plpgsql"), SecurityDefiner: r.IntN(3) == 0,
			Columns: flow.ColumnUse{Read: some("t.a.x", "t.a.y"), Written: some("t.a.x"), Tested: some("t.a.x", "t.a.y")}}
		for range 1 + r.IntN(3) {
			a.Accesses = append(a.Accesses, flow.Access{Verb: flow.Verb(pick("connect", "select", "call", "insert", "delete", "update", "lock", "drop", "set")),
				Resource: pick("", "s.a", "t.a"), Unrestricted: r.IntN(2) == 0})
		}
		in := policy.Input{Principal: who, Action: a, Now: time.Unix(int64(i), 0), Flow: &flow.Flow{Backend: "b", Protocol: flow.Postgres}}
		want := set.Decide(in)
		verdicts[want.Verdict]++
		got, ok := m.find(set.Revision(), who, a)
		if !ok {
			m.keep(set.Revision(), who, a, want)
			continue
		}
		known++
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v: from the memo %+v, by the rules %+v", a, got, want)
		}
	}
	if known < 1000 || verdicts[flow.Allow] < 1000 || verdicts[flow.Deny] < 1000 {
		t.Errorf("%d of 60000 known, %v", known, verdicts)
	}
	if len(m.entries) > memoEntries || len(m.hashes) != len(m.entries) {
		t.Errorf("%d entries, %d hashes", len(m.entries), len(m.hashes))
	}
}

// What is used stays, what is not makes room; long actions are not kept.
func TestMemoIsBounded(t *testing.T) {
	m := &memo{seed: maphash.MakeSeed()}
	on := func(name string) *flow.Action {
		return &flow.Action{Accesses: []flow.Access{{Verb: flow.Select, Resource: name}}}
	}
	d := policy.Decision{Verdict: flow.Allow, Rests: policy.FactAccesses}
	m.keep("r", nil, on("often"), d)
	for i := range 10 * memoEntries {
		m.keep("r", nil, on(fmt.Sprint("t", i)), d)
		if _, ok := m.find("r", nil, on("often")); !ok {
			t.Fatalf("what is used all the time went at %d", i)
		}
	}
	if _, ok := m.find("r", nil, on("t3")); ok || len(m.entries) != memoEntries {
		t.Errorf("%d entries", len(m.entries))
	}
	wide := &flow.Action{Accesses: make([]flow.Access, memoAccesses+1)}
	long, text := on(strings.Repeat("x", memoBytes+1)), on("text")
	text.Text = strings.Repeat("x", memoBytes+1)
	byText := d
	byText.Rests |= policy.FactText
	m.keep("r", nil, text, byText)
	for _, a := range []*flow.Action{wide, long, text} {
		if a != text {
			m.keep("r", nil, a, d)
		}
		if _, ok := m.find("r", nil, a); ok {
			t.Error("an action without a bound is kept")
		}
	}
	m.keep("r", nil, on("unsaid"), policy.Decision{Verdict: flow.Allow}) // of a policy that does not say what it rests on
	if _, ok := m.find("r", nil, on("unsaid")); ok {
		t.Error("a decision that says nothing about what it rests on is kept")
	}
	often := on("often")
	if n := testing.AllocsPerRun(100, func() { m.find("r", nil, often) }); n != 0 {
		t.Errorf("%v allocations for a known decision", n)
	}
}
