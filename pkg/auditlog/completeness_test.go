package auditlog

import (
	"testing"
	"time"
)

func TestCompletenessSum(t *testing.T) {
	day := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return day.Add(time.Duration(minutes) * time.Minute) }
	count := func(handed, opened, underWay uint64, difference int64) FlowCount {
		return FlowCount{Backend: "shop", Kernel: KernelFlows{HandedOver: handed, Redirected: handed}, Opened: opened, UnderWay: underWay, Difference: difference}
	}
	account := func(scope string, run uint32, from, to int, b FlowCount) *Completeness {
		return &Completeness{Scope: scope, Run: run, From: at(from), To: at(to), Counting: at(-100), Backends: []FlowCount{b}}
	}
	before := count(3, 2, 0, 0)
	before.Carried, before.AgentLost = 1, 2
	log := []*Completeness{
		account(ScopeRun, 1, 0, 10, count(10, 9, 1, 0)),
		account(ScopeRun, 1, 0, 20, count(25, 22, 2, 1)),
		account(ScopeRun, 1, 0, 30, count(30, 28, 1, 1)), // the last of a run that was killed
		account(ScopeBefore, 2, 30, 35, before),
		account(ScopeRun, 2, 35, 40, count(4, 4, 0, 0)),
		account(ScopeStop, 2, 35, 50, count(6, 6, 0, 0)),
		account(ScopeRun, 3, 55, 60, count(100, 0, 0, 100)),
	}
	sum := func(from, to int) *CompletenessSummary {
		s := NewCompletenessSum(at(from), at(to))
		for _, c := range log {
			s.Add(c)
		}
		return s.Summary()
	}
	for _, c := range []struct {
		from, to                        int
		handed, opened, underWay, carry uint64
		lost                            uint64
		difference                      int64
		accounts, runs, first, last     int
		complete                        bool
	}{
		{0, 55, 30 + 3 + 6, 28 + 2 + 6, 0, 0, 2, 1, 6, 2, 0, 50, false},
		{15, 25, 15, 13, 1, 0, 0, 1, 1, 1, 10, 20, false},
		{25, 31, 5, 6, 0, 1, 0, 0, 1, 1, 20, 30, true},
		{32, 45, 3 + 4, 2 + 4, 0, 1, 2, 0, 2, 1, 30, 40, true},
	} {
		s := sum(c.from, c.to)
		b := s.Backends[0]
		if b.Kernel.HandedOver != c.handed || b.Opened != c.opened || b.UnderWay != c.underWay || b.Carried != c.carry || b.AgentLost != c.lost || b.Difference != c.difference {
			t.Errorf("%d to %d: %+v", c.from, c.to, b)
		}
		if s.Accounts != c.accounts || s.Runs != c.runs || !s.CoveredFrom.Equal(at(c.first)) || !s.CoveredTo.Equal(at(c.last)) || s.Complete() != c.complete {
			t.Errorf("%d to %d: %+v", c.from, c.to, s)
		}
		if int64(b.Kernel.HandedOver+b.Carried) != int64(b.Unclaimed+b.Opened+b.Refused+b.UnderWay+b.AgentLost)+b.Difference {
			t.Errorf("%d to %d does not add up: %+v", c.from, c.to, b)
		}
	}
	if s := sum(51, 54); s.Complete() || s.Accounts != 0 || s.CoveredTo != nil || s.Backends == nil {
		t.Errorf("without an account: %+v", s)
	}
}
