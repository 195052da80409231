package session

import (
	"fmt"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// spend takes what the actions spend out of the principal's budgets, all of it or
// nothing; a Check only looks. It is asked last, when nothing else refuses, and
// before the intents are recorded: when recording fails the tests stay spent, for the
// other way round what is recorded might not have been paid for.
func (g *Gate) spend(mode Mode, actions []*flow.Action, decided []decided) *Refusal {
	var list []flow.Spend
	parts := 0
	for _, a := range actions {
		if len(a.Spends) == 0 {
			continue
		}
		if parts++; parts == 1 {
			list = a.Spends[:len(a.Spends):len(a.Spends)]
		} else {
			list = append(list, a.Spends...)
		}
	}
	if len(list) == 0 {
		return nil
	}
	left, short, why := []int(nil), 0, ""
	if b := g.server.Budgets; b == nil {
		why = "this tests columns that a mask hides, and budgets for that are not kept on this node; ask whoever runs weir there"
	} else {
		ask := b.Take
		if mode == Check {
			ask = b.Look
		}
		var err error
		left, short, err = ask(g.Principal(), list)
		switch {
		case err != nil:
			why = "this tests columns that a mask hides, and that cannot be counted: " + err.Error()
		case short >= 0:
			why = shortOf(list, short, left[short])
		}
	}
	at := 0
	for i, a := range actions {
		n := len(a.Spends)
		if at <= short && short < at+n {
			decided[i] = refusedBy(auditlog.ByBudget, why)
		}
		if left != nil && n > 0 {
			decided[i].left = left[at : at+n]
		}
		at += n
	}
	if why == "" {
		return nil
	}
	return &Refusal{Reason: flow.ReasonDenied, Message: "weir: " + why}
}

// shortOf says that a budget does not have enough left for the spends from it.
func shortOf(list []flow.Spend, short, left int) string {
	s := &list[short]
	wants := 0
	for i := range list {
		if list[i].Policy == s.Policy && list[i].Mask == s.Mask {
			wants += list[i].Tests
		}
	}
	state := "that is used up"
	if left > 0 {
		state = fmt.Sprintf("%d of these are left, and this takes %d", left, wants)
	}
	return fmt.Sprintf("mask %q lets you test %s %d times in %s, and %s; ask somebody who may see it, or whoever keeps weir's policy",
		s.Mask, s.Column, s.Limit, policy.DurationText(s.Per), state)
}
