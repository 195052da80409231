package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// Waiter is a client that can wait for other people before it is admitted.
type Waiter struct {
	Conn net.Conn // watched for the client's leaving
	// Tell says to the client what it waits for; nil when the protocol has no words.
	Tell func(Notice) error
}

// WaitOn says who waits when Admit has to ask other people. Without it such a flow is
// refused.
func (g *Gate) WaitOn(w Waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiter = w
}

// OnCut sets what is done when the flow is cut while the backend works for it.
func (g *Gate) OnCut(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.onCut = f
}

// waiting is a client that waits.
type waiting struct {
	hold      Hold
	cancelled bool // by the client itself
}

// CancelHeld withdraws the request that the flow waits for, on behalf of its client,
// and reports whether there was one.
func (g *Gate) CancelHeld() bool {
	g.mu.Lock()
	w := g.held
	if w != nil {
		w.cancelled = true
	}
	g.mu.Unlock()
	if w == nil {
		return false
	}
	w.hold.Withdraw("the client cancelled it")
	return true
}

// approved finds out whether other people have consented to what needs that: by a grant
// that stands, by the request that was waited for, or not yet.
func (g *Gate) approved(ctx context.Context, q *asking, decided []decided, revision string) (*Refusal, Consent, Hold) {
	if q.question.Mode != Run {
		return nil, Consent{}, nil
	}
	needs, first := needsOf(decided)
	if len(needs) == 0 {
		return nil, Consent{}, nil
	}
	if q.question.Describe != nil {
		q.question.Describe(q.actions, q.extra)
	}
	ask := &Ask{Flow: *g.flow, Who: g.Principal(), Actions: q.actions, Needs: needs, Revision: revision}
	if preview, extra := q.question.Preview, q.extra; preview != nil {
		ask.Preview = func(ctx context.Context) []Preview { return preview(ctx, extra) }
	}
	if q.hold != nil {
		consent, err := q.hold.Claim(ctx, ask)
		if err != nil {
			r := refusalFor(err)
			decided[first] = refusedBy(auditlog.ByApproval, r.Message)
			return r, Consent{}, nil
		}
		return nil, consent, nil
	}
	if consent, ok := g.server.Approvals.Standing(ask); ok {
		return nil, consent, nil
	}
	// What would be refused anyway does not bother anybody.
	if r := g.spend(Check, q.actions, decided); r != nil {
		return r, Consent{}, nil
	}
	hold, err := g.server.Approvals.Ask(ctx, ask)
	if err != nil {
		r := g.unasked(err)
		decided[first] = refusedBy(auditlog.ByApproval, r.Message)
		return r, Consent{}, nil
	}
	return heldRefusal(hold.Notice()), Consent{}, hold
}

// heldRefusal is what somebody is told who cannot wait.
func heldRefusal(n Notice) *Refusal {
	return &Refusal{Reason: flow.ReasonDenied, Rule: n.Rule, Message: fmt.Sprintf("weir: rule %q wants another person's approval for this, and there is no waiting for it here", n.Rule)}
}

// unasked is the refusal of an action about which nobody could be asked.
func (g *Gate) unasked(err error) *Refusal {
	var ready *Refusal
	if errors.As(err, &ready) {
		return ready
	}
	g.server.Log.Error("nobody can be asked for approval: such actions are refused until it works", "flow", g.flow.ID, "error", err)
	return &Refusal{Reason: flow.ReasonDenied, Message: "weir: this needs another person's approval, and nobody can be asked just now; tell whoever runs weir on this node"}
}

// needsOf are all demands of the decided actions, each once, and the first action that
// has one.
func needsOf(decided []decided) (needs []policy.Need, first int) {
	first = -1
	for i := range decided {
		if decided[i].Verdict != flow.Approve {
			continue
		}
		if first < 0 {
			first = i
		}
		for _, n := range decided[i].Needs {
			if !slices.ContainsFunc(needs, func(x policy.Need) bool { return x.Rule == n.Rule && x.Policy == n.Policy }) {
				needs = append(needs, n)
			}
		}
	}
	return needs, first
}

// admitHeld admits a connection that other people have to approve.
func (g *Gate) admitHeld(ctx context.Context, action *flow.Action, needs []policy.Need, revision string) *Refusal {
	ask := &Ask{Flow: *g.flow, Who: g.Principal(), Actions: []*flow.Action{action}, Needs: needs, Revision: revision}
	if consent, ok := g.server.Approvals.Standing(ask); ok {
		g.depend(consent, 1)
		g.admitted = needs
		return nil
	}
	g.mu.Lock()
	waiter := g.waiter
	g.mu.Unlock()
	if waiter.Conn == nil {
		return heldRefusal(Notice{Rule: needs[0].Rule})
	}
	hold, err := g.server.Approvals.Ask(ctx, ask)
	if err != nil {
		return g.unasked(err)
	}
	err = g.await(ctx, hold, waiter.Conn, nil, func(n Notice) error {
		if waiter.Tell == nil {
			return nil
		}
		return waiter.Tell(n)
	}, new(bool))
	if err != nil {
		return refusalFor(context.Canceled)
	}
	// Everything is looked at anew: the policy, and who asks.
	if r := g.expired(); r != nil {
		hold.Withdraw("the sign-in has ended")
		return r
	}
	pol := g.server.Policy()
	d := pol.Decide(g.input(g.Principal(), action))
	if d.Verdict != flow.Approve {
		hold.Withdraw("it was not needed any more, or refused")
		return g.refusalOf(d)
	}
	ask.Who, ask.Needs, ask.Revision = g.Principal(), d.Needs, pol.Revision()
	consent, err := hold.Claim(ctx, ask)
	if err != nil {
		return refusalFor(err)
	}
	g.depend(consent, 1)
	g.admitted = d.Needs
	return nil
}

// connected is a decision on an action of a connection that other people have approved:
// what connect carries in it (transaction control, SHOW, ...) they have approved too.
func (g *Gate) connected(pol Policy, a *flow.Action, d policy.Decision) policy.Decision {
	if g.admitted == nil || d.Verdict != flow.Approve {
		return d
	}
	met := func(n policy.Need) bool {
		return slices.ContainsFunc(g.admitted, func(x policy.Need) bool { return x.Rule == n.Rule && x.Policy == n.Policy })
	}
	rest := *a
	rest.Accesses = slices.DeleteFunc(slices.Clone(a.Accesses), func(x flow.Access) bool { return x.Verb == flow.Connect })
	if len(rest.Accesses) > 0 && len(rest.Accesses) < len(a.Accesses) {
		return pol.Decide(g.input(g.Principal(), &rest))
	}
	if len(rest.Accesses) == 0 && !slices.ContainsFunc(d.Needs, func(n policy.Need) bool { return !met(n) }) {
		d.Verdict, d.Needs, d.Approve = flow.Allow, nil, nil
	}
	return d
}

// await lets a client wait until a request has ended. An error says that nobody waits
// any more, and the request is withdrawn: os.ErrDeadlineExceeded when the flow ends, any
// other one is the client's doing. cancelled is set when the client took its wish back.
func (g *Gate) await(ctx context.Context, h Hold, client net.Conn, gone <-chan struct{}, tell func(Notice) error, cancelled *bool) error {
	w := &waiting{hold: h}
	g.mu.Lock()
	g.held = w
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.held, *cancelled = nil, w.cancelled
		g.mu.Unlock()
	}()
	left, stop := watchHangup(client)
	defer func() {
		stop()
		select { // a deadline that was set meanwhile holds
		case <-ctx.Done():
			_ = client.SetReadDeadline(time.Unix(1, 0))
		case <-gone:
			_ = client.SetReadDeadline(time.Unix(1, 0))
		default:
		}
	}()
	said := ""
	for {
		changed := h.Changed() // before looking, so that nothing is missed
		if h.Ended() {
			return nil
		}
		if n := h.Notice(); n.Waiting != said {
			said = n.Waiting
			if err := tell(n); err != nil {
				h.Withdraw("the client has gone")
				return err
			}
		}
		select {
		case <-changed:
		case <-left:
			h.Withdraw("the client has gone")
			return errHungUp
		case <-gone:
			h.Withdraw("the backend closed the connection")
			return os.ErrDeadlineExceeded
		case <-ctx.Done():
			h.Withdraw(context.Cause(ctx).Error())
			return os.ErrDeadlineExceeded
		}
	}
}

// errHungUp: the client closed while it waited.
var errHungUp = errors.New("the client has gone")

// cancelledRefusal is the answer to a client that cancelled while it waited.
func cancelledRefusal(n Notice) *Refusal {
	return &Refusal{Reason: flow.ReasonDenied, Rule: n.Rule, Cancelled: true, Message: "weir: cancelled on your request: approval request " + n.ID + " is withdrawn"}
}

// dependence is what hangs on a consent: actions that run, or the flow itself.
type dependence struct {
	consent Consent
	left    int
	stop    func() bool
}

// depend cuts the flow when the consent ends before the n things that hang on it.
func (g *Gate) depend(c Consent, n int) *dependence {
	if c.ID == "" {
		return nil
	}
	d := &dependence{consent: c, left: n}
	g.mu.Lock()
	if g.depends == nil {
		g.depends = map[*dependence]struct{}{}
	}
	g.depends[d] = struct{}{}
	g.mu.Unlock()
	d.stop = context.AfterFunc(c.Live, func() {
		cause := context.Cause(c.Live)
		if !c.Finish || errors.Is(cause, ErrGrantWithdrawn) {
			g.entry.cancel(cause)
		}
	})
	return d
}

// ended takes the end of one thing that hung on a consent.
func (g *Gate) ended(d *dependence) {
	if d == nil {
		return
	}
	g.mu.Lock()
	d.left--
	over := d.left == 0
	if over {
		delete(g.depends, d)
	}
	g.mu.Unlock()
	if over {
		d.stop()
		d.consent.release()
	}
}

// letGo ends what hung on consents with the flow, and grants for the flow alone.
func (g *Gate) letGo() {
	g.mu.Lock()
	all := g.depends
	g.depends = nil
	g.mu.Unlock()
	for d := range all {
		d.stop()
		d.consent.release()
	}
	if g.server.Approvals != nil {
		g.server.Approvals.EndFlow(g.flow.ID)
	}
}

func (c *Consent) release() {
	if c.Release != nil {
		c.Release()
	}
}

// event is a consent as the intent of an action carries it.
func (c *Consent) event() *auditlog.Approval {
	decided := "approved"
	if c.BreakGlass {
		decided = "break_glass"
	}
	return &auditlog.Approval{ID: c.ID, Digest: c.Digest, Requester: c.Requester, Approvers: c.Approvers, Decided: decided, Justification: c.Reason, Proof: c.Proof}
}
