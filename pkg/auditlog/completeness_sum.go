package auditlog

import (
	"maps"
	"slices"
	"time"
)

// CompletenessSummary is the account of connections over a period. Accounts are taken
// every ten minutes, and when an agent starts and stops: it is that between those next to
// the period's ends, Covered*.
type CompletenessSummary struct {
	From        time.Time   `json:"from"`
	To          time.Time   `json:"to"`
	CoveredFrom *time.Time  `json:"covered_from,omitempty"` // nil: there is no account in the period
	CoveredTo   *time.Time  `json:"covered_to,omitempty"`
	Accounts    int         `json:"accounts"`
	Runs        int         `json:"runs"`     // of the agent, with an account in the period
	Backends    []FlowCount `json:"backends"` // by name; Total is that of the last account
	Problems    []string    `json:"problems,omitempty"`
}

// Complete reports whether there are accounts and nothing in them is unexplained.
func (s *CompletenessSummary) Complete() bool {
	return s.Accounts > 0 && len(s.Problems) == 0 && !slices.ContainsFunc(s.Backends, func(b FlowCount) bool { return b.Difference != 0 })
}

// maxProblems bounds the Problems of a summary.
const maxProblems = 100

// CompletenessSum makes a summary of the accounts of one node.
type CompletenessSum struct {
	out      CompletenessSummary
	runs     map[runID]*runAccounts
	order    []runID
	backends map[string]*FlowCount
}

// runID is a run of an agent: the kernel may begin anew with its count of them.
type runID struct {
	counting int64
	run      uint32
}

// runAccounts are the last account of a run before the period, and the last in it.
type runAccounts struct{ base, last *Completeness }

// NewCompletenessSum begins a summary of the period from, included, to to.
func NewCompletenessSum(from, to time.Time) *CompletenessSum {
	return &CompletenessSum{out: CompletenessSummary{From: from.UTC(), To: to.UTC()}, runs: make(map[runID]*runAccounts), backends: make(map[string]*FlowCount)}
}

// Add takes the accounts in the order of the log, from before the period on: those
// before it say where the counters stood. It keeps c.
func (s *CompletenessSum) Add(c *Completeness) {
	if !c.To.Before(s.out.To) {
		return
	}
	within := !c.To.Before(s.out.From)
	if within {
		s.out.Accounts++
		if c.Problem != "" && len(s.out.Problems) < maxProblems && !slices.Contains(s.out.Problems, c.Problem) {
			s.out.Problems = append(s.out.Problems, c.Problem)
		}
	}
	if c.Scope == ScopeBefore {
		if within {
			for i := range c.Backends {
				s.add(&c.Backends[i])
			}
			s.cover(c.From, c.To)
		}
		return
	}
	id := runID{c.Counting.UnixNano(), c.Run}
	r := s.runs[id]
	if r == nil {
		r = new(runAccounts)
		s.runs[id] = r
	}
	if !within {
		r.base = c
		return
	}
	if r.last == nil {
		s.order = append(s.order, id)
	}
	r.last = c
}

func (s *CompletenessSum) cover(from, to time.Time) {
	if from, to = from.UTC(), to.UTC(); s.out.CoveredFrom == nil || from.Before(*s.out.CoveredFrom) {
		s.out.CoveredFrom = &from
	}
	if s.out.CoveredTo == nil || to.After(*s.out.CoveredTo) {
		s.out.CoveredTo = &to
	}
}

// add adds what happened in an interval.
func (s *CompletenessSum) add(b *FlowCount) {
	sum := s.backends[b.Backend]
	if sum == nil {
		sum = &FlowCount{Backend: b.Backend}
		s.backends[b.Backend] = sum
	}
	sum.Kernel = sum.Kernel.plus(b.Kernel)
	sum.Opened += b.Opened
	sum.Refused += b.Refused
	sum.Early += b.Early
	sum.Unclaimed += b.Unclaimed
	sum.AgentLost += b.AgentLost
	sum.Difference += b.Difference
	sum.Carried += b.Carried
	sum.UnderWay += b.UnderWay
	sum.Total = b.Total
}

// Summary is the summary of what was added.
func (s *CompletenessSum) Summary() *CompletenessSummary {
	for _, id := range s.order {
		r := s.runs[id]
		s.out.Runs++
		then := make(map[string]FlowCount)
		from := r.last.From
		if r.base != nil {
			from = r.base.To
			for _, b := range r.base.Backends {
				then[b.Backend] = b
			}
		}
		for _, b := range r.last.Backends {
			was := then[b.Backend]
			b.Kernel, _ = b.Kernel.Minus(was.Kernel)
			b.Opened -= min(b.Opened, was.Opened)
			b.Refused -= min(b.Refused, was.Refused)
			b.Early -= min(b.Early, was.Early)
			b.Unclaimed -= min(b.Unclaimed, was.Unclaimed)
			b.Difference -= was.Difference
			b.Carried = was.UnderWay
			s.add(&b)
		}
		s.cover(from, r.last.To)
	}
	s.order, s.runs = nil, make(map[runID]*runAccounts)
	for _, b := range s.backends {
		// What is under way at the end of one account is what the next one begins with.
		both := min(b.Carried, b.UnderWay)
		b.Carried, b.UnderWay = b.Carried-both, b.UnderWay-both
	}
	s.out.Backends = []FlowCount{}
	for _, name := range slices.Sorted(maps.Keys(s.backends)) {
		s.out.Backends = append(s.out.Backends, *s.backends[name])
	}
	return &s.out
}
