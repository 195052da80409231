package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// purse is one budget of limit tests, whoever asks.
type purse struct {
	left int
	err  error
	who  []*flow.Principal
}

func (p *purse) Take(who *flow.Principal, spends []flow.Spend) ([]int, int, error) {
	left, short, err := p.Look(who, spends)
	if short < 0 {
		p.left = left[0]
	}
	return left, short, err
}

func (p *purse) Look(who *flow.Principal, spends []flow.Spend) ([]int, int, error) {
	p.who = append(p.who, who)
	if p.err != nil {
		return nil, 0, p.err
	}
	rest, short := p.left, -1
	for i, s := range spends {
		if rest -= s.Tests; rest < 0 && short < 0 {
			short = i
		}
	}
	if short >= 0 {
		rest = p.left
	}
	return slices.Repeat([]int{rest}, len(spends)), short, nil
}

// asking is a handler that asks the gate once for each list of actions.
type asking struct {
	mode  session.Mode
	lists [][]*flow.Action
	got   []*session.Decision
}

func (h *asking) Serve(ctx context.Context, _ net.Conn, g *session.Gate) error {
	if _, err := g.Admit(ctx, "db", "database:db"); err != nil {
		return err
	}
	for _, l := range h.lists {
		h.got = append(h.got, g.Decide(ctx, h.mode, l))
	}
	return nil
}

// serve runs a flow whose handler asks for each list.
func (w *world) serve(t *testing.T, mode session.Mode, lists ...[]*flow.Action) []*session.Decision {
	t.Helper()
	h := &asking{mode: mode, lists: lists}
	w.server.Handlers[flow.Postgres] = h
	c, wait := w.client(t)
	_, _ = io.ReadAll(c)
	wait()
	return h.got
}

// intents are the recorded ones by their text.
func (w *world) intents() map[string]*auditlog.Event {
	m := map[string]*auditlog.Event{}
	for _, e := range w.events {
		if e.Kind == auditlog.ActionEvent && e.Action.Phase == auditlog.PhaseIntent {
			m[e.Action.Text] = e
		}
	}
	return m
}

func testing20(text string, tests int) *flow.Action {
	return &flow.Action{Text: text, Accesses: []flow.Access{{Verb: flow.Select, Resource: "shop.payments"}},
		Spends: []flow.Spend{{Policy: "shop", Mask: "cards", Column: "shop.payments.card_number", Tests: tests, Limit: 20, Per: 24 * time.Hour}}}
}

func plain(text string) *flow.Action { return &flow.Action{Text: text} }

func TestBudgetIsTakenOnceAllIsAllowed(t *testing.T) {
	w := newWorld(t)
	b := &purse{left: 20}
	w.server.Budgets = b
	got := w.serve(t, session.Run, []*flow.Action{plain("a"), testing20("b", 5), testing20("c", 12)},
		[]*flow.Action{testing20("d", 4), plain("e")}, []*flow.Action{testing20("f", 3)}, []*flow.Action{testing20("g", 1)})
	for i, want := range []bool{true, false, true, false} {
		if got[i].Allowed() != want {
			t.Errorf("list %d: allowed %t (%v)", i, got[i].Allowed(), got[i].Refusal)
		}
	}
	if b.left != 0 || b.who[0] == nil || b.who[0].Subject != "ann" {
		t.Errorf("left %d, asked for %v", b.left, b.who[0])
	}
	const head = `weir: mask "cards" lets you test shop.payments.card_number 20 times in 24h, and `
	if m := got[1].Refusal.Message; !strings.HasPrefix(m, head+"3 of these are left, and this takes 4; ask ") || got[1].Refusal.Fatal {
		t.Error(m)
	}
	if m := got[3].Refusal.Message; !strings.HasPrefix(m, head+"that is used up; ask ") {
		t.Error(m)
	}
	in := w.intents()
	for text, want := range map[string]struct {
		verdict, by string
		left        int64 // -1: no tests
	}{"a": {"allow", "", -1}, "b": {"allow", "", 3}, "c": {"allow", "", 3}, "d": {"deny", auditlog.ByBudget, 3}, "e": {"deny", auditlog.ByMessage, -1}, "f": {"allow", "", 0}, "g": {"deny", auditlog.ByBudget, 0}} {
		e := in[text]
		if e.Verdict != want.verdict || e.Action.RefusedBy != want.by || (len(e.Action.Tests) == 0) != (want.left < 0) {
			t.Errorf("%s: %s by %q, %+v", text, e.Verdict, e.Action.RefusedBy, e.Action.Tests)
		} else if want.left >= 0 && *e.Action.Tests[0].Left != want.left {
			t.Errorf("%s: %d left on record, want %d", text, *e.Action.Tests[0].Left, want.left)
		}
	}
	if got := "weir: " + in["g"].Reason; !strings.HasPrefix(got, head) {
		t.Error(got)
	}
}

// A Check looks and takes nothing.
func TestBudgetIsOnlyLookedAtByCheck(t *testing.T) {
	w := newWorld(t)
	b := &purse{left: 5}
	w.server.Budgets = b
	got := w.serve(t, session.Check, []*flow.Action{testing20("a", 5)}, []*flow.Action{testing20("b", 6)})
	if !got[0].Allowed() || got[1].Allowed() || b.left != 5 {
		t.Errorf("%t %t, %d left", got[0].Allowed(), got[1].Allowed(), b.left)
	}
	if e := w.intents()["b"]; e == nil || e.Action.RefusedBy != auditlog.ByBudget {
		t.Error("the refused check is not on record")
	}
}

// Nothing is asked when something else refuses, or in observe mode; without budgets
// and when they cannot be counted, tests are refused.
func TestBudgetOrder(t *testing.T) {
	w := newWorld(t)
	b := &purse{left: 20}
	w.server.Budgets = b
	forbidden := testing20("a", 5)
	forbidden.Forbidden = "this would store values"
	w.serve(t, session.Run, []*flow.Action{forbidden}, []*flow.Action{testing20("b", 5), {Text: "c", Forbidden: "no"}})
	if len(b.who) != 0 {
		t.Error("budgets are asked for what is refused anyway")
	}
	if e := w.intents()["a"]; e.Action.RefusedBy != auditlog.ByMask || len(e.Action.Tests) != 1 || e.Action.Tests[0].Left != nil {
		t.Errorf("%+v", e.Action)
	}

	b.err = errors.New("too many; tell somebody")
	if got := w.serve(t, session.Run, []*flow.Action{testing20("d", 1)}); got[0].Allowed() || !strings.Contains(got[0].Refusal.Message, "cannot be counted: too many") {
		t.Error(got[0].Refusal)
	}
	w.server.Budgets = nil
	if got := w.serve(t, session.Run, []*flow.Action{testing20("e", 1)}, []*flow.Action{plain("f")}); got[0].Allowed() || !strings.Contains(got[0].Refusal.Message, "not kept on this node") || !got[1].Allowed() {
		t.Error(got[0].Refusal, got[1].Refusal)
	}
	w.server.Observe = true
	if got := w.serve(t, session.Run, []*flow.Action{testing20("g", 1)}); !got[0].Allowed() {
		t.Error(got[0].Refusal)
	}
}

// What was spent stays spent when the intent cannot be recorded.
func TestBudgetStaysSpentWithoutARecord(t *testing.T) {
	w := newWorld(t)
	b := &purse{left: 20}
	w.server.Budgets, w.fail = b, errors.New("disk full")
	if got := w.serve(t, session.Run, []*flow.Action{testing20("a", 5)}); got[0].Allowed() || b.left != 15 {
		t.Errorf("allowed %t, %d left", got[0].Allowed(), b.left)
	}
}

// What an intent says about an action: pairs only where they are needed, names up to
// a bound.
func TestIntentRecordsWhatWasTouched(t *testing.T) {
	w := newWorld(t)
	access := func(v flow.Verb, r string, bare bool) flow.Access {
		return flow.Access{Verb: v, Resource: r, Unrestricted: bare}
	}
	many := make([]string, 3000)
	for i := range many {
		many[i] = "shop.wide.c"
	}
	var reach []flow.Access
	for range 600 {
		reach = append(reach, access(flow.Select, "a.b", false))
	}
	reach = append(reach, access(flow.Insert, "a.b", false))
	w.serve(t, session.Run, []*flow.Action{
		{Text: "one verb", Accesses: []flow.Access{access(flow.Select, "a.b", false), access(flow.Select, "a.c", false)}},
		{Text: "update", Accesses: []flow.Access{access(flow.Update, "a.b", true)}},
		{Text: "two", Accesses: []flow.Access{access(flow.Select, "a.b", false), access(flow.Insert, "a.c", false)},
			Functions: []string{"a.f"}, Languages: []string{"plpgsql"}, SecurityDefiner: true,
			Columns: flow.ColumnUse{Read: []string{"a.b.x"}, Written: []string{"a.c.y"}, Tested: []string{"a.b.z"}}},
		{Text: "wide", Columns: flow.ColumnUse{Read: many, Tested: []string{"shop.wide.c"}}},
		{Text: "far", Accesses: reach},
	})
	for text, want := range map[string]string{
		"one verb": `{"verbs":["select"],"resources":["a.b","a.c"]}`,
		"update":   `{"verbs":["update"],"resources":["a.b"],"accesses":[{"verb":"update","resource":"a.b","unrestricted":true}]}`,
		"two": `{"verbs":["select","insert"],"resources":["a.b","a.c"],"accesses":[{"verb":"select","resource":"a.b"},{"verb":"insert","resource":"a.c"}],` +
			`"functions":["a.f"],"languages":["plpgsql"],"security_definer":true,"columns":{"read":["a.b.x"],"written":["a.c.y"],"tested":["a.b.z"]}}`,
		"far": `{"verbs":["select","insert"],"resources":["a.b"]}`,
	} {
		a := *w.intents()[text].Action
		a.ID, a.Phase, a.Text = "", "", ""
		b, _ := json.Marshal(a)
		if got := strings.Replace(string(b), `"id":"","phase":"",`, "", 1); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
	a := w.intents()["wide"].Action
	if len(a.Columns.Read) != 1999 || len(a.Columns.Tested) != 1 || a.Cut != 1001 {
		t.Errorf("%d read, %d tested, %d cut", len(a.Columns.Read), len(a.Columns.Tested), a.Cut)
	}
}

// countingPolicy counts what a policy is asked.
type countingPolicy struct {
	*world
	asked int
}

func (p *countingPolicy) Decide(in policy.Input) policy.Decision {
	p.asked++
	return p.world.Decide(in)
}

// The same action of a flow is decided once.
func TestKnownDecisionsAreNotAskedAgain(t *testing.T) {
	w := newWorld(t)
	w.verdict.Rests = policy.FactAccesses
	p := &countingPolicy{world: w}
	w.server.Policy = func() session.Policy { return p }
	read := func(table string) []*flow.Action {
		return []*flow.Action{{Text: table, Accesses: []flow.Access{{Verb: flow.Select, Resource: table}}}}
	}
	w.serve(t, session.Run, read("a.b"), read("a.b"), read("a.c"), read("a.b"))
	if p.asked != 3 { // connect, a.b, a.c
		t.Errorf("asked %d times, want 3", p.asked)
	}
	if n := len(w.intents()); n != 2 {
		t.Errorf("%d texts on record", n)
	}
}
