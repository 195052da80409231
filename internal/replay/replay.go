// Package replay decides recorded actions again, under another policy. It is pure:
// events of the audit log go in, in their order, differences and sums come out; it
// reads no log and keeps no clock. It guesses nothing: where a condition reads what
// no record holds (claims, say), the action is counted as one that cannot be replayed.
package replay

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

const (
	// maxFlows bounds the open flows whose process is remembered. What comes after them
	// is replayed without: its process is then not known.
	maxFlows = 1 << 17
	// maxPeople bounds the people and backends whose masks are compared.
	maxPeople = 1 << 14
)

// unrecorded is what no record holds of any action.
const unrecorded = policy.FactClaims | policy.FactArgv0 | policy.FactStart

// Difference is an action that would have been decided in another way.
type Difference struct {
	Time    time.Time    `json:"time"`
	Seq     uint64       `json:"seq"`
	Flow    string       `json:"flow"`
	User    string       `json:"user,omitempty"`
	Backend string       `json:"backend"`
	Action  string       `json:"action"` // the text, or verbs and resources
	ID      string       `json:"id,omitempty"`
	Then    flow.Verdict `json:"then"`
	Rule    string       `json:"rule,omitempty"` // that decided then
	Now     flow.Verdict `json:"now"`
	NowRule string       `json:"now_rule,omitempty"`
	Reason  string       `json:"reason"` // of the verdict now
}

// Change is how many actions of a user one rule would have decided differently.
type Change struct {
	User  string       `json:"user,omitempty"`
	Rule  string       `json:"rule,omitempty"` // that decides now; "" when none does
	Then  flow.Verdict `json:"then"`
	Now   flow.Verdict `json:"now"`
	Count int          `json:"count"`
}

// MaskChange is which masks would come or go for a user at a backend.
type MaskChange struct {
	User    string   `json:"user,omitempty"`
	Backend string   `json:"backend"`
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
}

// Report is the sums of a replay.
type Report struct {
	Actions     int `json:"actions"` // that were decided again
	Differences int `json:"differences"`
	// ByMasks counts actions that masks and budgets refused then, whatever the rules
	// said; Ended those that came when their sign-in had ended. Neither is compared.
	ByMasks int `json:"refused_by_masks"`
	Ended   int `json:"sign_in_ended"`
	// Unknown counts actions that cannot be replayed, by what no record holds of them.
	Unknown map[string]int `json:"cannot_be_replayed"`
	Changes []Change       `json:"changes"`
	Masks   []MaskChange   `json:"masks"`
	// MasksCompared is false when there was no policy to compare masks with.
	MasksCompared bool `json:"masks_compared"`
}

// Replay decides the actions of a log again. It is not safe for concurrent use.
type Replay struct {
	set, current *policy.Set
	processes    map[string]*auditlog.Process // of open flows
	changes      map[Change]int               // Count is 0 in the keys
	people       map[person]policy.Input
	report       Report
}

// person is somebody at a backend, as masks see them.
type person struct{ user, groups, backend string }

// New makes a replay of what set would have decided. Masks are compared with those of
// current, if it is not nil.
func New(set, current *policy.Set) *Replay {
	return &Replay{set: set, current: current, processes: make(map[string]*auditlog.Process), changes: make(map[Change]int),
		people: make(map[person]policy.Input), report: Report{Unknown: make(map[string]int), MasksCompared: current != nil}}
}

// Take looks at the next event. With replayed unset it only learns from it. It returns
// the difference, nil when there is none.
func (r *Replay) Take(ev *auditlog.Event, replayed bool) *Difference {
	switch ev.Kind {
	case auditlog.FlowOpen:
		if len(r.processes) < maxFlows && ev.Process != nil {
			r.processes[ev.Flow] = ev.Process
		}
		if accesses := opening(ev); replayed && accesses != nil {
			return r.decide(ev, &flow.Action{Accesses: accesses}, flow.Allow, unrecorded)
		}
	case auditlog.FlowClose:
		delete(r.processes, ev.Flow)
	case auditlog.ActionEvent:
		if a := ev.Action; replayed && a != nil && a.Phase == auditlog.PhaseIntent {
			return r.intent(ev, a)
		}
	}
	return nil
}

// opening is what opening a flow asked for: its record does not say so in words.
func opening(ev *auditlog.Event) []flow.Access {
	switch flow.Protocol(ev.Protocol) {
	case flow.Postgres, flow.MySQL:
		return []flow.Access{{Verb: flow.Connect, Resource: "database:" + ev.Database}}
	case flow.TCP:
		return []flow.Access{{Verb: flow.Connect, Resource: ev.Destination}}
	}
	return nil
}

// byOldMessage is the reason that stood for auditlog.ByMessage before there was one.
const byOldMessage = "another statement of the same message was refused"

func (r *Replay) intent(ev *auditlog.Event, a *auditlog.Action) *Difference {
	then := flow.Verdict(ev.Verdict)
	switch {
	case a.RefusedBy == auditlog.ByMask || a.RefusedBy == auditlog.ByBudget:
		r.report.ByMasks++
		return nil
	case a.RefusedBy == auditlog.BySignIn:
		r.report.Ended++
		return nil
	case a.RefusedBy == auditlog.ByMessage || a.RefusedBy == auditlog.ByRecorder || ev.Reason == byOldMessage:
		then = flow.Allow // its own rules had allowed it
	}
	accesses, missing, why := accessesOf(a)
	if why != "" {
		r.report.Unknown[why]++
		return nil
	}
	if a.Cut > 0 {
		missing |= policy.FactFunctions | policy.FactColumns
	}
	action := &flow.Action{ID: a.ID, Accesses: accesses, Text: a.Text, Params: a.Params, Functions: a.Functions, Languages: a.Languages,
		SecurityDefiner: a.SecurityDefiner, Digest: a.Digest, Bytes: a.Bytes}
	if c := a.Columns; c != nil {
		action.Columns = flow.ColumnUse{Read: c.Read, Written: c.Written, Tested: c.Tested}
	}
	return r.decide(ev, action, then, unrecorded|missing)
}

// accessesOf pairs verbs with resources again. why is set when the record does not
// say which verb was on what (auditlog.Action.Accesses).
func accessesOf(a *auditlog.Action) (list []flow.Access, missing policy.Facts, why string) {
	switch {
	case len(a.Accesses) > 0:
		for _, x := range a.Accesses {
			list = append(list, flow.Access{Verb: flow.Verb(x.Verb), Resource: x.Resource, Unrestricted: x.Unrestricted})
		}
		return list, 0, ""
	case len(a.Verbs) != 1:
		return nil, 0, "which verb is on which resource was not recorded"
	}
	verb := flow.Verb(a.Verbs[0])
	if verb == flow.Update || verb == flow.Delete { // recorded without its accesses: by an older weir, or too many
		missing = policy.FactWhere
	}
	for _, res := range a.Resources {
		list = append(list, flow.Access{Verb: verb, Resource: res})
	}
	if list == nil {
		list = []flow.Access{{Verb: verb}}
	}
	return list, missing, ""
}

// decide compares what was decided with what the set says.
func (r *Replay) decide(ev *auditlog.Event, a *flow.Action, then flow.Verdict, missing policy.Facts) *Difference {
	in := policy.Input{Principal: principalOf(ev), Flow: flowOf(ev), Action: a, Now: ev.Time, Missing: missing}
	if ev.Kind == auditlog.FlowOpen {
		in.Flow.Login = "" // it was not chosen yet
	}
	if p := r.processes[ev.Flow]; p != nil {
		in.Flow.Process = processOf(p)
	} else {
		in.Missing |= policy.FactProcess
	}
	r.meet(in)
	d := r.set.Decide(in)
	if d.Missing != 0 {
		r.report.Unknown[d.Missing.String()]++
		return nil
	}
	r.report.Actions++
	if d.Verdict == then {
		return nil
	}
	r.report.Differences++
	diff := &Difference{Time: ev.Time, Seq: ev.Seq, Flow: ev.Flow, Backend: ev.Backend, Action: describe(a), ID: a.ID,
		Then: then, Rule: ev.Rule, Now: d.Verdict, NowRule: d.Rule, Reason: d.Reason}
	if in.Principal != nil {
		diff.User = in.Principal.User
	}
	r.changes[Change{User: diff.User, Rule: d.Rule, Then: then, Now: d.Verdict}]++
	return diff
}

// meet remembers whose masks are to be compared.
func (r *Replay) meet(in policy.Input) {
	if r.current == nil {
		return
	}
	k := person{backend: in.Flow.Backend}
	if p := in.Principal; p != nil {
		k.user, k.groups = p.User, strings.Join(p.Groups, "\x00")
	}
	if _, known := r.people[k]; !known && len(r.people) < maxPeople {
		r.people[k] = in
	}
}

// Report returns the sums.
func (r *Replay) Report() Report {
	out := r.report
	out.Changes, out.Masks = []Change{}, []MaskChange{}
	for c, n := range r.changes {
		c.Count = n
		out.Changes = append(out.Changes, c)
	}
	slices.SortFunc(out.Changes, func(a, b Change) int {
		return cmp.Or(b.Count-a.Count, cmp.Compare(a.User, b.User), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Then, b.Then), cmp.Compare(a.Now, b.Now))
	})
	for k, in := range r.people {
		before, after := names(r.current.Masks(in.Principal, k.backend)), names(r.set.Masks(in.Principal, k.backend))
		m := MaskChange{User: k.user, Backend: k.backend, Added: without(after, before), Removed: without(before, after)}
		same := func(o MaskChange) bool { // the same person in other groups
			return o.User == m.User && o.Backend == m.Backend && slices.Equal(o.Added, m.Added) && slices.Equal(o.Removed, m.Removed)
		}
		if len(m.Added)+len(m.Removed) > 0 && !slices.ContainsFunc(out.Masks, same) {
			out.Masks = append(out.Masks, m)
		}
	}
	slices.SortFunc(out.Masks, func(a, b MaskChange) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Backend, b.Backend), slices.Compare(a.Added, b.Added), slices.Compare(a.Removed, b.Removed))
	})
	return out
}

func names(masks []*policy.Mask) []string {
	list := make([]string, len(masks))
	for i, m := range masks {
		list[i] = m.Name
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// without is what of a is not in b.
func without(a, b []string) (out []string) {
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

func principalOf(ev *auditlog.Event) *flow.Principal {
	p := ev.Principal
	if p == nil {
		return nil
	}
	return &flow.Principal{Issuer: p.Issuer, Subject: p.Subject, User: p.User, Groups: p.Groups, Kind: flow.Kind(p.Kind),
		TokenID: p.TokenID, Actor: actorOf(p.Actor), Session: ev.Session}
}

func actorOf(a *auditlog.Actor) *flow.Actor {
	if a == nil {
		return nil
	}
	return &flow.Actor{Issuer: a.Issuer, Subject: a.Subject, User: a.User, Actor: actorOf(a.Actor)}
}

func flowOf(ev *auditlog.Event) *flow.Flow {
	destination, _ := netip.ParseAddrPort(ev.Destination)
	return &flow.Flow{ID: flow.ID(ev.Flow), Node: ev.Node, Protocol: flow.Protocol(ev.Protocol), Backend: ev.Backend,
		Destination: destination, Database: ev.Database, Login: ev.Login}
}

func processOf(p *auditlog.Process) flow.Process {
	out := flow.Process{PID: p.PID, Exe: p.Exe, Comm: p.Comm, UID: p.UID, Cgroup: p.Cgroup}
	if p.Pod != nil {
		out.Pod = &flow.Pod{Namespace: p.Pod.Namespace, Name: p.Pod.Name, UID: p.Pod.UID, Container: p.Pod.Container}
	}
	return out
}

// describe is what an action was, in one line.
func describe(a *flow.Action) string {
	if a.Text != "" {
		return strings.Join(strings.Fields(a.Text), " ")
	}
	parts := make([]string, len(a.Accesses))
	for i, x := range a.Accesses {
		parts[i] = strings.TrimSpace(string(x.Verb) + " " + x.Resource)
	}
	return strings.Join(parts, ", ")
}
