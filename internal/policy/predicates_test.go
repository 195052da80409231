package policy

import (
	"testing"
	"time"
)

func TestPredicates(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		text   string
		want   string
		budget int
		per    time.Duration
	}{
		{"", PredicatesDeny, DefaultEquality, day},
		{", predicates: deny", PredicatesDeny, DefaultEquality, day},
		{", predicates: {equality: 5}", PredicatesDeny, 5, day},
		{", predicates: {equality: 5, per: 1h}", PredicatesDeny, 5, time.Hour},
		{", predicates: {budget: 20}", PredicatesBudget, 20, day},
		{", predicates: {budget: 20, per: 7d}", PredicatesBudget, 20, 7 * day},
		{", predicates: allow", PredicatesAllow, 0, 0},
	} {
		s := mustCompile(t, "policies: [{name: p, masks: [{name: m, columns: [a.b.c], with: hash"+c.text+"}]}]\n")
		m := s.Masks(nil, "b")[0]
		if m.Predicates != c.want || m.Budget != c.budget || m.Per != c.per {
			t.Errorf("%q: %s %d %s", c.text, m.Predicates, m.Budget, m.Per)
		}
	}
}
