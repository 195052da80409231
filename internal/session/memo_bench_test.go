package session

import (
	"fmt"
	"hash/maphash"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
)

// ruleSet is n rules at one backend, of which a tenth are about select; with when,
// those have a condition.
func ruleSet(b testing.TB, n int, when string) *policy.Set {
	b.Helper()
	var t strings.Builder
	t.WriteString("policies:\n  - name: p\n    backends: [db]\n    rules:\n")
	for i := range n {
		verb := "update"
		if i%10 == 0 {
			verb = "select"
		}
		fmt.Fprintf(&t, "      - {name: r%d, groups: [g%d], actions: [connect, %s], resources: [\"s%d.*\", \"t%d.orders\"], effect: allow%s}\n", i, i%50, verb, i%20, i, when)
	}
	s, err := policy.Compile([]policy.File{{Name: "p", Data: []byte(t.String())}}, policy.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkDecision compares deciding from the memo with deciding by the rules, turn
// and turn about in one run: ns/memo and ns/rules are of the same moments.
func BenchmarkDecision(b *testing.B) {
	for _, c := range []struct {
		rules int
		when  string
		kept  int // other decisions in the memo
	}{
		{1, "", 0}, {10, "", 0}, {10, "", memoEntries - 1}, {1000, "", memoEntries - 1},
		{10, `, when: 'action.has_where && "g7" in principal.groups'`, memoEntries - 1},
		{1000, `, when: 'action.columns_read.all(c, c in ["s0.orders.id", "s0.orders.total"])'`, memoEntries - 1},
	} {
		name := fmt.Sprintf("%d rules", c.rules)
		if c.when != "" {
			name += " with conditions"
		}
		b.Run(fmt.Sprintf("%s, %d kept", name, c.kept+1), func(b *testing.B) {
			set := ruleSet(b, c.rules, c.when)
			who := policy.NewPrincipal("ann@example.com", []string{"staff", "g0", "g7", "vpn"}, "")
			m := &memo{seed: maphash.MakeSeed()}
			in := policy.Input{Principal: who, Flow: &flow.Flow{Backend: "db", Protocol: flow.Postgres}, Now: time.Now(),
				Action: &flow.Action{Accesses: []flow.Access{{Verb: flow.Connect, Resource: "database:shop"}, {Verb: flow.Select, Resource: "s0.orders"}},
					Columns: flow.ColumnUse{Read: []string{"s0.orders.id", "s0.orders.total"}}}}
			for i := range c.kept {
				other := &flow.Action{Accesses: []flow.Access{{Verb: flow.Select, Resource: fmt.Sprintf("s0.t%d", i)}}}
				m.keep(set.Revision(), who, other, policy.Decision{Rests: policy.FactAccesses})
			}
			want := set.Decide(in)
			m.keep(set.Revision(), who, in.Action, want)
			if d, ok := m.find(set.Revision(), who, in.Action); !ok || d.Verdict != flow.Allow || d.Rule != want.Rule {
				b.Fatal(d, ok, want)
			}
			const batch = 200
			var memoTime, ruleTime time.Duration
			n := 0
			for b.Loop() {
				start := time.Now()
				for range batch {
					_, _ = m.find(set.Revision(), who, in.Action)
				}
				middle := time.Now()
				for range batch {
					set.Decide(in)
				}
				memoTime, ruleTime, n = memoTime+middle.Sub(start), ruleTime+time.Since(middle), n+batch
			}
			b.ReportMetric(float64(memoTime.Nanoseconds())/float64(n), "ns/memo")
			b.ReportMetric(float64(ruleTime.Nanoseconds())/float64(n), "ns/rules")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkMemo is for the allocations of a decision that is known.
func BenchmarkMemo(b *testing.B) {
	m := &memo{seed: maphash.MakeSeed()}
	who := policy.NewPrincipal("ann", nil, "")
	a := &flow.Action{Accesses: []flow.Access{{Verb: flow.Connect, Resource: "database:shop"}, {Verb: flow.Select, Resource: "s0.orders"}}}
	m.keep("sha256:1", who, a, policy.Decision{Rests: policy.FactAccesses})
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := m.find("sha256:1", who, a); !ok {
			b.Fatal("unknown")
		}
	}
}
