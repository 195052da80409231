package audit

import (
	"cmp"
	"slices"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// table knows which flows and actions the log says are not over. The same code
// feeds it while the log is written and while it is replayed. It is owned by
// whoever owns the writer's state.
type table struct {
	flows map[string]*openFlow
}

// openFlow holds events of the log; they are not changed any more.
type openFlow struct {
	open    *auditlog.Event   // flow.open; nil when the log has none
	intents []*auditlog.Event // of actions without an outcome, oldest first
}

func newTable() table { return table{flows: make(map[string]*openFlow)} }

// observe takes the next event of the log.
func (t *table) observe(ev *auditlog.Event) {
	if ev.Flow == "" {
		return
	}
	switch ev.Kind {
	case auditlog.FlowOpen:
		t.flow(ev.Flow).open = ev
	case auditlog.FlowClose, auditlog.FlowRefused:
		delete(t.flows, ev.Flow)
	case auditlog.ActionEvent:
		t.action(ev)
	}
}

func (t *table) action(ev *auditlog.Event) {
	if ev.Action == nil {
		return
	}
	if ev.Action.Phase == auditlog.PhaseIntent {
		// With a result it was denied; with approve it is held, not forwarded.
		if ev.Result == nil && ev.Verdict != string(flow.Approve) {
			f := t.flow(ev.Flow)
			f.intents = append(f.intents, ev)
		}
		return
	}
	f := t.flows[ev.Flow]
	if f == nil {
		return
	}
	// Outcomes come in the order of their intents nearly always.
	i := slices.IndexFunc(f.intents, func(x *auditlog.Event) bool { return x.Action.ID == ev.Action.ID })
	if i >= 0 {
		f.intents = slices.Delete(f.intents, i, i+1)
	}
	if len(f.intents) == 0 && f.open == nil {
		delete(t.flows, ev.Flow)
	}
}

func (t *table) flow(id string) *openFlow {
	f := t.flows[id]
	if f == nil {
		f = &openFlow{}
		t.flows[id] = f
	}
	return f
}

// open returns the events of what is not over, in the order of the log, without
// the statements.
func (t *table) open() []*auditlog.Event {
	var list []*auditlog.Event
	for _, f := range t.flows {
		if f.open != nil {
			list = append(list, f.open)
		}
		for _, ev := range f.intents {
			list = append(list, slim(ev))
		}
	}
	slices.SortFunc(list, func(a, b *auditlog.Event) int { return cmp.Compare(a.Seq, b.Seq) })
	return list
}

func slim(ev *auditlog.Event) *auditlog.Event {
	c := *ev
	c.Action = &auditlog.Action{ID: ev.Action.ID, Phase: ev.Action.Phase}
	return &c
}

// closings ends everything that is open: an outcome for every action, then the
// flow's close.
func (t *table) closings(reason flow.Reason) []*auditlog.Event {
	flows := make([]*openFlow, 0, len(t.flows))
	for _, f := range t.flows {
		flows = append(flows, f)
	}
	slices.SortFunc(flows, func(a, b *openFlow) int { return cmp.Compare(a.seq(), b.seq()) })
	var list []*auditlog.Event
	for _, f := range flows {
		for _, ev := range f.intents {
			list = append(list, lostOutcome(ev))
		}
		if f.open != nil {
			list = append(list, closing(f.open, reason))
		}
	}
	return list
}

func (f *openFlow) seq() uint64 {
	if f.open != nil {
		return f.open.Seq
	}
	return f.intents[0].Seq
}

func closing(open *auditlog.Event, reason flow.Reason) *auditlog.Event {
	ev := about(open, auditlog.FlowClose)
	ev.Process, ev.Assurance, ev.Reason = open.Process, open.Assurance, string(reason)
	return ev
}

func lostOutcome(intent *auditlog.Event) *auditlog.Event {
	ev := about(intent, auditlog.ActionEvent)
	ev.Action = &auditlog.Action{ID: intent.Action.ID, Phase: auditlog.PhaseOutcome}
	ev.Result = &auditlog.Result{Status: auditlog.StatusLost}
	return ev
}

// about starts an event about the flow of another one.
func about(o *auditlog.Event, kind auditlog.Kind) *auditlog.Event {
	return &auditlog.Event{Node: o.Node, Kind: kind, Flow: o.Flow, Session: o.Session, Principal: o.Principal,
		Backend: o.Backend, Protocol: o.Protocol, Destination: o.Destination, Database: o.Database, Login: o.Login}
}
