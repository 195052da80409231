package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// Grant is the permission to dial for one flow. Only Gate.Admit makes one; the
// zero value is refused by everybody who takes it.
type Grant struct {
	flow *flow.Flow
	who  *flow.Principal
}

// Valid reports whether the grant was made by a gate.
func (g Grant) Valid() bool { return g.flow != nil }

// Flow is the flow that was admitted, with its database and login.
func (g Grant) Flow() flow.Flow { return *g.flow }

// Principal is who was admitted; nil only in observe mode.
func (g Grant) Principal() *flow.Principal { return g.who }

// Refusal is why something was not allowed. Message is for the user: it starts
// with "weir:", names the rule or the cause and says what to do, and holds no
// data, credential or other person's statement.
type Refusal struct {
	Reason  flow.Reason
	Rule    string
	Message string
	Fatal   bool // the flow must end after it
	// Cancelled is set when the client itself took back what it had asked for.
	Cancelled bool
}

func (r *Refusal) Error() string { return r.Message }

// Mode says what a decision is for.
type Mode int

const (
	// Run decides actions that are executed when allowed: their intents are
	// durable before the decision is returned.
	Run Mode = iota
	// Check decides actions ahead of their execution (PostgreSQL's Parse): a
	// denial is recorded, an allowed one is not, because Run will ask again.
	Check
)

// Ticket is an allowed action whose outcome is owed.
type Ticket struct {
	id      string
	start   time.Time
	consent *dependence // that it rests on; nil when on nobody's
}

// Decision is the gate's answer on a list of actions. Only a Gate makes one that
// is allowed.
type Decision struct {
	allowed bool
	// Refusal is set when the decision is not allowed.
	Refusal *Refusal
	// Tickets holds one per action of a Run, in their order.
	Tickets []Ticket
	// Masks are those that apply to the principal under Revision.
	Masks    []*policy.Mask
	Revision string
	// held is set while other people have not decided; Refusal then says that it waits.
	held Hold
}

// Allowed reports whether the actions may be forwarded.
func (d *Decision) Allowed() bool { return d != nil && d.allowed }

// Outcome is how an allowed action ended.
type Outcome struct {
	Ticket Ticket
	Status string // auditlog.Status*
	Code   string
	Rows   int64
	Bytes  int64 // of results sent to the client
	Masks  []auditlog.Mask
}

// Gate is the one gate of a flow: who, whether, and on record. Its methods are
// safe for concurrent use.
type Gate struct {
	server *Server
	flow   *flow.Flow
	who    atomic.Pointer[flow.Principal] // nil: nobody; replaced when renewed
	whoErr error
	entry  *entry
	memo   memo

	mu        sync.Mutex
	opened    bool
	refused   *Refusal
	assurance string
	waiter    Waiter
	admitted  []policy.Need // that other people have met for the connection itself
	held      *waiting      // while the client waits for other people
	depends   map[*dependence]struct{}
	recording recording
	onCut     func()
}

// Flow is the flow that the gate stands in front of.
func (g *Gate) Flow() *flow.Flow { return g.flow }

// Principal is the identity of the flow, nil when nobody is signed in.
func (g *Gate) Principal() *flow.Principal { return g.who.Load() }

// Admit decides whether this principal may use the backend at all: the action
// connect on resource. On success the flow's database and login are set. It may wait
// for other people, see WaitOn. The error is always a *Refusal.
func (g *Gate) Admit(ctx context.Context, database, resource string) (Grant, error) {
	return g.admission(ctx, database, resource, true)
}

// AdmitBeside admits a connection that only serves a flow that was admitted before, a
// cancel request: what other people have to approve they have approved for that.
func (g *Gate) AdmitBeside(ctx context.Context, earlier Grant, database, resource string) (Grant, error) {
	return g.admission(ctx, database, resource, !earlier.Valid())
}

func (g *Gate) admission(ctx context.Context, database, resource string, approvals bool) (Grant, error) {
	g.flow.Database = database
	login, known := g.server.Login(g.flow.Backend, g.Principal())
	if known {
		g.flow.Login = login
	}
	refusal := g.admit(ctx, resource, approvals)
	if refusal != nil && g.server.Observe {
		g.server.Log.Warn("observe: would have refused", "flow", g.flow.ID, "reason", refusal.Message)
		refusal = nil
	}
	if refusal == nil && context.Cause(ctx) != nil {
		refusal = refusalFor(context.Cause(ctx))
	}
	if !known && refusal == nil {
		refusal = &Refusal{Reason: flow.ReasonDenied, Fatal: true, Message: fmt.Sprintf(
			"weir: backend %q has no credentials entry for your groups; ask whoever keeps weir's configuration to add one", g.flow.Backend)}
	}
	if refusal != nil {
		g.mu.Lock()
		g.refused = refusal
		g.mu.Unlock()
		return Grant{}, refusal
	}
	g.entry.admitted(g.flow)
	return Grant{flow: g.flow, who: g.Principal()}, nil
}

func (g *Gate) admit(ctx context.Context, resource string, approvals bool) *Refusal {
	if g.whoErr != nil {
		return refusalFor(g.whoErr)
	}
	if r := g.expired(); r != nil {
		return r
	}
	action := &flow.Action{ID: ulid.Make().String(), Accesses: []flow.Access{{Verb: flow.Connect, Resource: resource}}}
	pol := g.server.Policy()
	d := pol.Decide(g.input(g.Principal(), action))
	var r *Refusal
	switch {
	case d.Verdict == flow.Approve && !approvals:
	case d.Verdict == flow.Approve && g.server.Approvals != nil && !g.server.Observe:
		r = g.admitHeld(ctx, action, d.Needs, pol.Revision())
	default:
		r = g.refusalOf(d)
	}
	if r == nil && d.Verdict != flow.Deny {
		g.recording.at = d.Record
		r = g.ready(pol.Recording(g.Principal(), g.flow.Backend))
	}
	if r != nil {
		r.Fatal = true
	}
	return r
}

// Opened records flow.open: the backend has accepted the login. Nothing may be
// said to the client before it returns nil.
func (g *Gate) Opened(ctx context.Context, up auditlog.Upstream, assurance string) error {
	g.mu.Lock()
	g.opened, g.assurance = true, assurance
	g.mu.Unlock()
	ev := g.event(auditlog.FlowOpen)
	ev.Process = ProcessEvent(&g.flow.Process)
	ev.Upstream, ev.Assurance = &up, assurance
	if err := g.server.Record.Append(ctx, false, ev); err != nil {
		return g.unrecordable(err)
	}
	if r := g.record(ctx, g.recording.at); r != nil {
		return r
	}
	return nil
}

// Decide decides actions as a whole: all of them may be forwarded or none. It may
// block on the recorder. What other people have to approve is refused, unless a grant
// of theirs stands: only Relay can let a client wait.
func (g *Gate) Decide(ctx context.Context, mode Mode, actions []*flow.Action) *Decision {
	d := g.decideFor(ctx, &asking{question: &Question{Mode: mode}, actions: actions})
	if d.held != nil {
		d.held.Withdraw("nobody can wait here")
		d.held = nil
	}
	return d
}

// asking is one question to the gate, and the request that it has led to.
type asking struct {
	question *Question
	actions  []*flow.Action
	extra    any  // of the engine's
	hold     Hold // nil until other people are asked
}

// decideFor is Decide for somebody who can wait: a Decision with held set is to be
// asked for again when that has ended.
func (g *Gate) decideFor(ctx context.Context, q *asking) *Decision {
	pol := g.server.Policy()
	actions := q.actions
	d := &Decision{Revision: pol.Revision()}
	if cause := context.Cause(ctx); cause != nil {
		d.Refusal = refusalFor(cause)
	} else {
		d.Refusal = g.expired()
	}
	decided := make([]decided, len(actions))
	for i, a := range actions {
		if a.ID == "" {
			a.ID = ulid.Make().String()
		}
		if d.Refusal != nil {
			decided[i] = refusedBy(auditlog.BySignIn, d.Refusal.Message)
			continue
		}
		decided[i].Decision = g.connected(pol, a, g.decide(pol, d.Revision, a))
	}
	if d.Refusal == nil {
		d.Refusal = g.firstRefusal(actions, decided)
	}
	var consent Consent
	if d.Refusal == nil && !g.server.Observe {
		if d.Refusal, consent, d.held = g.approved(ctx, q, decided, d.Revision); d.held != nil {
			return d
		}
	}
	if q.hold != nil && consent.ID == "" {
		q.hold.Withdraw("it was not needed any more, or refused")
	}
	if d.Refusal == nil && q.question.Mode == Run {
		if d.Refusal = g.recorded(ctx, actions, decided); d.Refusal != nil {
			decided[0] = refusedBy(auditlog.ByRecorder, d.Refusal.Message)
		}
	}
	if d.Refusal == nil && !g.server.Observe {
		d.Refusal = g.spend(q.question.Mode, actions, decided)
	}
	if d.Refusal != nil && g.server.Observe && !d.Refusal.Fatal {
		d.allowed = true
	} else {
		d.allowed = d.Refusal == nil
	}
	if q.question.Mode == Check && d.allowed {
		d.Masks = g.masks(pol)
		return d
	}
	if err := g.recordIntents(ctx, d, decided, actions, &consent); err != nil {
		consent.release()
		return &Decision{Revision: d.Revision, Refusal: g.unrecordable(err)}
	}
	if !d.allowed {
		consent.release()
		_ = g.keepActions(EntryRefused, actions, d.Refusal.Message) // it is in the log, and ends here anyway
		return d
	}
	if err := g.keepActions(EntryAction, actions, ""); err != nil {
		return g.lastRefusal(d, actions, &consent, refusalFor(ErrRecorder))
	}
	d.Masks = g.masks(pol)
	if d.Refusal != nil { // observe
		d.Refusal = nil
	}
	now := g.server.Now()
	depends := g.depend(consent, len(actions))
	d.Tickets = make([]Ticket, len(actions))
	for i, a := range actions {
		d.Tickets[i] = Ticket{id: a.ID, start: now, consent: depends}
	}
	g.entry.actions.Add(int64(len(actions)))
	return d
}

// Masks are those that apply to the principal now, and the revision that they are
// of, for engines that have to know before they ask. What counts are the masks of
// the Decision.
func (g *Gate) Masks() ([]*policy.Mask, string) {
	pol := g.server.Policy()
	return g.masks(pol), pol.Revision()
}

func (g *Gate) masks(pol Policy) []*policy.Mask {
	if g.server.Observe {
		return nil
	}
	return pol.Masks(g.Principal(), g.flow.Backend)
}

// decided is what was decided on one action.
type decided struct {
	policy.Decision
	by   string // auditlog.By*; "" when the policy's rules decided
	left []int  // of the budgets that the action's spends are of; nil when nobody asked
}

// refusedBy is the denial of an action that no rule denies.
func refusedBy(by, reason string) decided {
	return decided{by: by, Decision: policy.Decision{Verdict: flow.Deny, Reason: reason}}
}

// recordIntents writes one event per action; the whole list is durable or none.
func (g *Gate) recordIntents(ctx context.Context, d *Decision, decided []decided, actions []*flow.Action, consent *Consent) error {
	events := make([]*auditlog.Event, len(actions))
	for i, a := range actions {
		one := &decided[i]
		ev := g.event(auditlog.ActionEvent)
		ev.Action = actionEvent(a, one.left)
		ev.Action.RefusedBy = one.by
		ev.Verdict, ev.Rule, ev.Policy = string(one.Verdict), one.Rule, d.Revision
		switch {
		case one.Verdict == flow.Approve && consent.ID != "" && d.allowed:
			ev.Approval = consent.event()
		case one.Verdict != flow.Allow:
			ev.Reason = one.Reason
			if a.Problem != "" {
				ev.Reason = a.Problem
			}
		case !d.allowed:
			ev.Verdict = string(flow.Deny)
			ev.Reason = "another statement of the same message was refused"
			ev.Action.RefusedBy = auditlog.ByMessage
		}
		if !d.allowed {
			ev.Result = &auditlog.Result{Status: auditlog.StatusDenied}
		}
		events[i] = ev
	}
	return g.server.Record.Append(ctx, !d.allowed, events...)
}

// recorded sees to it that what is about to run is recorded, if the policy wants it.
func (g *Gate) recorded(ctx context.Context, actions []*flow.Action, decided []decided) *Refusal {
	strict := ""
	for i := range decided {
		strict = policy.Stricter(strict, decided[i].Record)
	}
	return g.record(ctx, strict)
}

// lastRefusal takes an allowed decision back whose intents are on record already.
func (g *Gate) lastRefusal(d *Decision, actions []*flow.Action, consent *Consent, r *Refusal) *Decision {
	consent.release()
	outcomes := make([]Outcome, len(actions))
	for i, a := range actions {
		outcomes[i] = Outcome{Ticket: Ticket{id: a.ID, start: g.server.Now()}, Status: auditlog.StatusDenied}
	}
	if err := g.Complete(outcomes); err != nil {
		g.server.Log.Error("the end of actions that were not forwarded could not be recorded", "flow", g.flow.ID, "error", err)
	}
	return &Decision{Revision: d.Revision, Refusal: r}
}

// firstRefusal is that of the first action that may not run. What is forbidden is
// denied even if a rule allows it.
func (g *Gate) firstRefusal(actions []*flow.Action, decided []decided) (first *Refusal) {
	for i := range decided {
		r := g.refusalOf(decided[i].Decision)
		if decided[i].Verdict == flow.Approve && g.server.Approvals != nil && !g.server.Observe {
			r = nil // other people are asked when it is to run
		}
		if why := actions[i].Forbidden; why != "" && decided[i].Verdict != flow.Deny {
			decided[i] = refusedBy(auditlog.ByMask, why)
			r = &Refusal{Reason: flow.ReasonDenied, Message: "weir: " + why}
		}
		if first == nil {
			first = r
		}
	}
	return first
}

func (g *Gate) refusalOf(d policy.Decision) *Refusal {
	switch d.Verdict {
	case flow.Allow:
		return nil
	case flow.Approve:
		return &Refusal{Reason: flow.ReasonDenied, Rule: d.Rule, Message: fmt.Sprintf(
			"weir: rule %q wants another person's approval for this, and approvals are not configured on this node; ask whoever keeps weir's policy", d.Rule)}
	}
	msg := "weir: " + d.Reason
	if d.Rule == "" {
		msg += "; ask whoever keeps weir's policy for a rule that allows it"
	}
	return &Refusal{Reason: flow.ReasonDenied, Rule: d.Rule, Message: msg}
}

// Complete records the outcomes of allowed actions.
func (g *Gate) Complete(outcomes []Outcome) error {
	if len(outcomes) == 0 {
		return nil
	}
	now := g.server.Now()
	events := make([]*auditlog.Event, len(outcomes))
	for i, o := range outcomes {
		g.ended(o.Ticket.consent)
		ev := g.event(auditlog.ActionEvent)
		ev.Action = &auditlog.Action{ID: o.Ticket.id, Phase: auditlog.PhaseOutcome}
		ev.Result = &auditlog.Result{Status: o.Status, Code: o.Code, Rows: o.Rows, Bytes: o.Bytes,
			DurationUS: now.Sub(o.Ticket.start).Microseconds()}
		ev.Masks = o.Masks
		events[i] = ev
	}
	// An outcome must reach the log although the flow's context has ended.
	if err := g.server.Record.Append(context.Background(), false, events...); err != nil {
		return g.unrecordable(err)
	}
	return g.keepOutcomes(outcomes)
}

// decide is what the policy says about an action of the flow, which is asked only for
// what it has not said before.
func (g *Gate) decide(pol Policy, revision string, a *flow.Action) policy.Decision {
	who := g.Principal()
	if d, ok := g.memo.find(revision, who, a); ok {
		return d
	}
	d := pol.Decide(g.input(who, a))
	g.memo.keep(revision, who, a, d)
	return d
}

func (g *Gate) input(who *flow.Principal, a *flow.Action) policy.Input {
	return policy.Input{Principal: who, Flow: g.flow, Action: a, Now: g.server.Now(), Argv0: g.flow.Process.Argv0}
}

func (g *Gate) expired() *Refusal {
	if !g.isExpired(g.Principal()) || g.renew() {
		return nil
	}
	return refusalFor(ErrExpired)
}

func (g *Gate) isExpired(p *flow.Principal) bool {
	return p != nil && !p.Expires.IsZero() && !g.server.Now().Before(p.Expires)
}

// renew takes over a newer sign-in of the same binding; false when there is none.
func (g *Gate) renew() bool {
	old := g.Principal()
	if old == nil {
		return false
	}
	p, err := g.server.Identify.Current(old.Session)
	if err != nil || p == nil || g.isExpired(p) || p.Issuer != old.Issuer || p.Subject != old.Subject {
		return false
	}
	g.who.Store(p)
	g.entry.setPrincipal(p)
	return true
}

// refusalFor puts an identity error or a cause of cutting into words.
func refusalFor(err error) *Refusal {
	var ready *Refusal
	if errors.As(err, &ready) {
		return ready
	}
	r := &Refusal{Fatal: true, Message: "weir: " + err.Error()}
	switch {
	case errors.Is(err, ErrExpired):
		r.Reason = flow.ReasonExpired
		r.Message += "; sign in again with `weir login`, or start the command again under `weir exec` with a fresh token"
	case errors.Is(err, ErrRevoked):
		r.Reason = flow.ReasonRevoked
		r.Message += "; sign in again with `weir login`"
	case errors.Is(err, ErrGrantExpired):
		r.Reason = flow.ReasonExpired
		r.Message += "; run it again to ask again"
	case errors.Is(err, ErrGrantWithdrawn):
		r.Reason = flow.ReasonRevoked
	case errors.Is(err, ErrDrained):
		r.Reason = flow.ReasonDrained
		r.Message += "; connect again in a moment"
	case errors.Is(err, ErrRecorder):
		r.Reason = flow.ReasonRecorder
		r.Message += "; connect again, and tell whoever runs weir on this node (`weir status` there says why)"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		r.Reason = flow.ReasonInternal
	default:
		r.Reason = flow.ReasonNoIdentity
	}
	return r
}

func (g *Gate) unrecordable(err error) *Refusal {
	g.server.Log.Error("the audit log cannot be written: actions are refused until it can", "flow", g.flow.ID, "error", err)
	return &Refusal{Reason: flow.ReasonRecorder, Fatal: true,
		Message: "weir: this cannot be recorded just now, so it is refused; tell whoever runs weir on this node (`weir status` there says why)"}
}

// finish writes the one closing event of the flow.
func (g *Gate) finish(reason flow.Reason, err error) error {
	g.mu.Lock()
	opened, refused, assurance := g.opened, g.refused, g.assurance
	g.closeRecording(reason)
	g.mu.Unlock()
	kind := auditlog.FlowClose
	if !opened {
		kind = auditlog.FlowRefused
	}
	g.letGo()
	ev := g.event(kind)
	ev.Reason, ev.Assurance = string(reason), assurance
	ev.Process = ProcessEvent(&g.flow.Process)
	if !opened {
		ev.Verdict = string(flow.Deny)
		if refused != nil {
			ev.Rule, ev.Reason = refused.Rule, string(refused.Reason)
		}
		ev.Policy = g.server.Policy().Revision()
	}
	g.entry.ended(flow.Reason(ev.Reason))
	return g.server.Record.Append(context.Background(), !opened, ev)
}
