package auditlog

import "time"

// Scopes of an account.
const (
	// ScopeRun: this run of the agent, from its start until now. The last account of a
	// run holds all of it.
	ScopeRun = "run"
	// ScopeStop: the same at the end of the run, when nothing is under way any more.
	ScopeStop = "stop"
	// ScopeBefore: from the last account before this run until its start. It is the
	// first account of a run, and closes what an agent that was killed left open.
	ScopeBefore = "before"
)

// Completeness is an account of connections: what the kernel counted, which knows
// nothing of this log, against the flows in this log. For every backend
//
//	Kernel.HandedOver + Carried = Unclaimed + Opened + Refused + UnderWay + AgentLost + Difference
//
// (Carried only in ScopeBefore). A Difference above zero is a gap: so many connections
// reached the agent and have neither flow.open nor flow.refused, and nothing explains it.
// One below zero says that the log has more flows than the kernel has counted.
//
// For a period take the last account of each Run with ScopeRun or ScopeStop, and those
// with ScopeBefore.
type Completeness struct {
	Scope string    `json:"scope"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	// Run counts the runs of agents on the kernel's maps.
	Run uint32 `json:"run"`
	// Counting is when the kernel began to count: its counters survive the agent, not a
	// reboot.
	Counting time.Time   `json:"counting"`
	Backends []FlowCount `json:"backends"` // by name
	// Problem says why there is no whole account; what it says of Backends is what could
	// be found out.
	Problem string `json:"problem,omitempty"`
}

// Complete reports whether nothing is unexplained.
func (c *Completeness) Complete() bool {
	for _, b := range c.Backends {
		if b.Difference != 0 {
			return false
		}
	}
	return c.Problem == ""
}

// FlowCount is the account of one backend. Connections, each.
type FlowCount struct {
	Backend string      `json:"backend"`
	Kernel  KernelFlows `json:"kernel"`
	// Opened and Refused have the one event flow.open or flow.refused. Early are those of
	// Refused whose client went away before it was let in.
	Opened    uint64 `json:"opened"`
	Refused   uint64 `json:"refused"`
	Early     uint64 `json:"early"`
	Unclaimed uint64 `json:"unclaimed"` // Kernel.Unclaimed
	// UnderWay wait to be accepted, or are being identified, admitted and signed in.
	UnderWay uint64 `json:"under_way"`
	// Carried were under way in the account before (ScopeBefore).
	Carried uint64 `json:"carried,omitempty"`
	// AgentLost were in the hands of an agent that was killed before it had recorded
	// them; none of their bytes had reached the backend (ScopeBefore).
	AgentLost  uint64 `json:"agent_lost,omitempty"`
	Difference int64  `json:"difference"`
	// Total is Kernel since Counting.
	Total KernelFlows `json:"total"`
}

// KernelFlows is what the kernel counted of the connects to one backend.
type KernelFlows struct {
	Redirected uint64 `json:"redirected"`  // connects rewritten to the agent
	HandedOver uint64 `json:"handed_over"` // of those: reached the agent's listener, with a note of who asks for what
	// Of those: they ended before the agent took the note. The client went away before it
	// was accepted, the listener was closed over it, or the connection was refused with
	// bypass.blocked because its backend is not configured any more.
	Unclaimed uint64 `json:"unclaimed"`
	// Of those that were redirected and not handed over: they ended before they were
	// connected (nobody listened, or the client left), or came without a note, for lack
	// of room or memory, and were closed. What is missing to Redirected got no further
	// than its own connect(2), or is under way.
	Abandoned     uint64 `json:"abandoned"`
	Unpublished   uint64 `json:"unpublished,omitempty"`
	AcceptStorage uint64 `json:"accept_storage,omitempty"`
	// Refused in connect(2) itself, by cause: ECONNREFUSED for lack of room, of memory,
	// and since no agent had said where to go; EPERM for datagrams.
	DeniedFull    uint64 `json:"denied_full,omitempty"`
	DeniedStorage uint64 `json:"denied_storage,omitempty"`
	DeniedUnready uint64 `json:"denied_unready,omitempty"`
	UDPDenied     uint64 `json:"udp_denied,omitempty"`
}

// Minus is what was counted since before; false when a counter went back: the kernel
// counts anew.
func (k KernelFlows) Minus(before KernelFlows) (KernelFlows, bool) {
	ok := true
	for _, p := range []struct{ now, before *uint64 }{
		{&k.Redirected, &before.Redirected}, {&k.HandedOver, &before.HandedOver}, {&k.Unclaimed, &before.Unclaimed}, {&k.Abandoned, &before.Abandoned},
		{&k.Unpublished, &before.Unpublished}, {&k.AcceptStorage, &before.AcceptStorage}, {&k.DeniedFull, &before.DeniedFull},
		{&k.DeniedStorage, &before.DeniedStorage}, {&k.DeniedUnready, &before.DeniedUnready}, {&k.UDPDenied, &before.UDPDenied},
	} {
		ok = ok && *p.now >= *p.before
		*p.now -= min(*p.now, *p.before)
	}
	return k, ok
}

func (k KernelFlows) plus(o KernelFlows) KernelFlows {
	return KernelFlows{
		Redirected: k.Redirected + o.Redirected, HandedOver: k.HandedOver + o.HandedOver, Unclaimed: k.Unclaimed + o.Unclaimed, Abandoned: k.Abandoned + o.Abandoned,
		Unpublished: k.Unpublished + o.Unpublished, AcceptStorage: k.AcceptStorage + o.AcceptStorage, DeniedFull: k.DeniedFull + o.DeniedFull,
		DeniedStorage: k.DeniedStorage + o.DeniedStorage, DeniedUnready: k.DeniedUnready + o.DeniedUnready, UDPDenied: k.UDPDenied + o.UDPDenied,
	}
}
