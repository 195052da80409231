package replay

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func compile(t *testing.T, text string) *policy.Set {
	t.Helper()
	s, err := policy.Compile([]policy.File{{Name: "p.yaml", Data: []byte(text)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const before = `policies:
  - name: p
    rules: [{name: all, effect: allow}]
    masks:
      - {name: cards, columns: ["shop.payments.card_number"], with: last4, unless_groups: [dba]}
      - {name: mail, columns: ["shop.people.email"], with: hash}
`

const after = `policies:
  - name: p
    rules:
      - {name: in, actions: [connect], users: [ann, bob, dora], effect: allow}
      - {name: read, groups: [dev], actions: [select], resources: ["shop.*"], effect: allow}
      - {name: write, groups: [dev], actions: [insert], resources: ["shop.*"], effect: allow}
      - {name: hours, actions: [delete], when: 'action.has_where && now.getHours("UTC") < 12', effect: allow}
      - {name: psql, actions: [drop], when: 'process.exe == "/usr/bin/psql"', effect: allow}
      - {name: team, actions: [call], when: 'principal.claims.team == "x"', effect: allow}
      - {name: columns, actions: [merge], when: 'action.columns_read.all(c, c == "shop.a.x")', effect: allow}
      - {name: one, actions: [lock], when: 'action.params.size() == 1 && "s.f" in action.functions && action.size == 7 && action.text == "x"', effect: allow}
      - {name: keys, actions: [select], resources: ["shop.keys"], effect: approve, approve: {groups: [dba]}}
    masks:
      - {name: mail, columns: ["shop.people.email"], with: hash}
      - {name: phones, columns: ["shop.people.phone"], with: redact}
`

var morning = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func who(user string) *auditlog.Principal {
	group := "dev"
	if user == "dora" {
		group = "dba"
	}
	return &auditlog.Principal{Issuer: "i", Subject: user, User: user, Groups: []string{group}, Kind: "human"}
}

func opened(f, user, exe string) *auditlog.Event {
	return &auditlog.Event{Kind: auditlog.FlowOpen, Flow: f, Principal: who(user), Backend: "db", Protocol: "postgres", Database: "shop", Time: morning,
		Process: &auditlog.Process{Exe: exe}}
}

func intent(f, user, verdict string, a auditlog.Action) *auditlog.Event {
	a.Phase = auditlog.PhaseIntent
	return &auditlog.Event{Kind: auditlog.ActionEvent, Flow: f, Principal: who(user), Backend: "db", Protocol: "postgres", Database: "shop", Time: morning,
		Verdict: verdict, Rule: "then", Action: &a}
}

func on(verb string, resources ...string) auditlog.Action {
	return auditlog.Action{Verbs: []string{verb}, Resources: resources}
}

func where(verb string, unrestricted bool) auditlog.Action {
	a := on(verb, "shop.a")
	a.Accesses = []auditlog.Access{{Verb: verb, Resource: "shop.a", Unrestricted: unrestricted}}
	return a
}

// Each event alone: the verdict then, and what the new files make of it.
func TestDecidedAgain(t *testing.T) {
	late := func(ev *auditlog.Event) *auditlog.Event { ev.Time = morning.Add(8 * time.Hour); return ev }
	by := func(ev *auditlog.Event, by string) *auditlog.Event { ev.Action.RefusedBy = by; return ev }
	two := auditlog.Action{Verbs: []string{"select", "insert"}, Resources: []string{"shop.a", "shop.b"},
		Accesses: []auditlog.Access{{Verb: "select", Resource: "shop.a"}, {Verb: "insert", Resource: "shop.b"}}}
	unpaired := two
	unpaired.Accesses = nil
	merge := on("merge", "shop.a")
	merge.Columns = &auditlog.Columns{Read: []string{"shop.a.x"}}
	wide := merge
	wide.Cut = 3
	lock := auditlog.Action{Verbs: []string{"lock"}, Resources: []string{"shop.a"}, Functions: []string{"s.f"}, Params: []string{"1"}, Bytes: 7, Text: "x"}
	old := intent("F", "ann", "deny", on("select", "hr.x"))
	old.Reason = byOldMessage
	for _, c := range []struct {
		name    string
		ev      *auditlog.Event
		want    string // then -> now by rule; "" for no difference
		unknown string
	}{
		{"the same", intent("F", "ann", "allow", on("select", "shop.a")), "", ""},
		{"no more", intent("F", "dora", "allow", on("select", "shop.a")), `allow -> deny by ""`, ""},
		{"now allowed", intent("F", "ann", "deny", on("select", "shop.a")), `deny -> allow by "read"`, ""},
		{"now held", intent("F", "ann", "allow", on("select", "shop.keys")), `allow -> approve by "keys"`, ""},
		{"every access counts", intent("F", "ann", "allow", on("select", "shop.a", "hr.x")), `allow -> deny by ""`, ""},
		{"pairs", intent("F", "ann", "allow", two), "", ""},
		{"no pairs", intent("F", "ann", "allow", unpaired), "", "which verb is on which resource was not recorded"},
		{"what cannot be read", intent("F", "ann", "allow", on("unknown")), `allow -> deny by ""`, ""},
		{"in the morning", intent("F", "ann", "allow", where("delete", false)), "", ""},
		{"in the evening", late(intent("F", "ann", "allow", where("delete", false))), `allow -> deny by ""`, ""},
		{"without where", intent("F", "ann", "allow", where("delete", true)), `allow -> deny by ""`, ""},
		{"where unrecorded", intent("F", "ann", "allow", on("delete", "shop.a")), "", "action.has_where"},
		{"claims", intent("F", "ann", "allow", on("call", "function:s.f")), "", "principal.claims"},
		{"columns", intent("F", "ann", "allow", merge), "", ""},
		{"columns cut", intent("F", "ann", "allow", wide), "", "action.columns"},
		{"all that is recorded", intent("F", "ann", "deny", lock), `deny -> allow by "one"`, ""},
		{"process", intent("F", "ann", "deny", on("drop", "shop.a")), `deny -> allow by "psql"`, ""},
		{"another process", intent("G", "ann", "deny", on("drop", "shop.a")), "", ""},
		{"a process not seen", intent("H", "ann", "deny", on("drop", "shop.a")), "", "process"},
		{"another statement was refused", by(intent("F", "ann", "deny", on("select", "hr.x")), auditlog.ByMessage), `allow -> deny by ""`, ""},
		{"as older versions say it", old, `allow -> deny by ""`, ""},
		{"by a mask", by(intent("F", "ann", "deny", on("select", "shop.a")), auditlog.ByMask), "", ""},
		{"by a budget", by(intent("F", "ann", "deny", on("select", "shop.a")), auditlog.ByBudget), "", ""},
		{"ended", by(intent("F", "ann", "deny", on("select", "shop.a")), auditlog.BySignIn), "", ""},
		{"a way in", opened("I", "ann", "x"), "", ""},
		{"no way in", opened("I", "eve", "x"), `allow -> deny by ""`, ""},
	} {
		r := New(compile(t, after), nil)
		r.Take(opened("F", "ann", "/usr/bin/psql"), false)
		r.Take(opened("G", "ann", "/usr/bin/pg_dump"), false)
		got := ""
		if d := r.Take(c.ev, true); d != nil {
			got = fmt.Sprintf("%s -> %s by %q", d.Then, d.Now, d.NowRule)
		}
		rep := r.Report()
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if n := len(rep.Unknown); n > 1 || (n == 1) != (c.unknown != "") || c.unknown != "" && rep.Unknown[c.unknown] != 1 {
			t.Errorf("%s: cannot be replayed: %v, want %q", c.name, rep.Unknown, c.unknown)
		}
		if n := rep.Actions + rep.ByMasks + rep.Ended + len(rep.Unknown); n != 1 {
			t.Errorf("%s: counted %d times: %+v", c.name, n, rep)
		}
	}
}

func TestReport(t *testing.T) {
	r := New(compile(t, after), compile(t, before))
	for _, ev := range []*auditlog.Event{
		opened("F", "ann", "x"), intent("F", "ann", "allow", on("select", "hr.x")), intent("F", "ann", "allow", on("select", "hr.y")),
		intent("F", "ann", "deny", on("select", "shop.a")), intent("F", "dora", "allow", on("select", "shop.a")),
		intent("F", "ann", "allow", on("call", "function:s.f")),
		{Kind: auditlog.ActionEvent, Flow: "F", Action: &auditlog.Action{Phase: auditlog.PhaseOutcome}},
		{Kind: auditlog.FlowClose, Flow: "F"},
	} {
		r.Take(ev, true)
	}
	want := Report{Actions: 5, Differences: 4, Unknown: map[string]int{"principal.claims": 1}, MasksCompared: true,
		Changes: []Change{
			{"ann", "", flow.Allow, flow.Deny, 2}, {"ann", "read", flow.Deny, flow.Allow, 1}, {"dora", "", flow.Allow, flow.Deny, 1}},
		Masks: []MaskChange{
			{"ann", "db", []string{"phones"}, []string{"cards"}}, {"dora", "db", []string{"phones"}, nil}}}
	if diff := cmp.Diff(want, r.Report()); diff != "" {
		t.Error(diff)
	}
	if len(r.processes) != 0 {
		t.Error("the process of a flow that has ended is kept")
	}
}
