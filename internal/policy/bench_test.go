package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
)

// thousandRules is 1,000 rules: spread over 50 backends, or all at one backend
// and verb for 1,000 groups.
func thousandRules(oneBackend bool, when string) string {
	var b strings.Builder
	b.WriteString("policies:\n")
	verbs := []string{"select", "insert", "update", "delete", "call"}
	for i := range 1000 {
		backend, verb := fmt.Sprintf("db%d", i%50), verbs[i%len(verbs)]
		if oneBackend {
			backend, verb = "db7", "select"
		}
		fmt.Fprintf(&b, "  - name: p%d\n    backends: [%s]\n    rules:\n", i, backend)
		fmt.Fprintf(&b, "      - {name: r%d, groups: [g%d], actions: [connect, %s], resources: [\"s%d.*\"], effect: allow%s}\n", i, i, verb, i, when)
	}
	return b.String()
}

func BenchmarkDecide(b *testing.B) {
	for _, c := range []struct {
		name       string
		oneBackend bool
		when       string
	}{
		{"spread", false, ""},
		{"one backend", true, ""},
		{"with a condition", false, `, when: 'action.has_where && "g7" in principal.groups'`},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, err := Compile([]File{{Name: "p", Data: []byte(thousandRules(c.oneBackend, c.when))}}, Options{})
			if err != nil {
				b.Fatal(err)
			}
			in := Input{
				Principal: NewPrincipal("ann@example.com", []string{"staff", "developer", "g107", "g607", "vpn"}, ""),
				Flow:      &flow.Flow{Backend: "db7", Protocol: flow.Postgres},
				Action:    &flow.Action{Accesses: []flow.Access{{Verb: flow.Connect}, {Verb: flow.Update, Resource: "s107.orders"}}},
				Now:       noon,
			}
			if c.oneBackend {
				in.Action.Accesses[1].Verb = flow.Select
			}
			if c.when != "" {
				in.Principal.Groups[4] = "g7"
			}
			if d := s.Decide(in); c.when == "" && d.Verdict != flow.Allow {
				b.Fatal(d)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Decide(in)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	data := []byte(thousandRules(false, ""))
	for b.Loop() {
		if _, err := Compile([]File{{Name: "p", Data: data}}, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
