package approval

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// previewTimeout bounds the time in which a preview is found out.
const previewTimeout = 10 * time.Second

// Reviews of a break-glass.
const (
	reviewOpen = "open"
	reviewDone = "done"
)

// Standing implements session.Approvals.
func (m *Manager) Standing(a *session.Ask) (session.Consent, bool) {
	s, err := scopeOf(a)
	if err != nil {
		return session.Consent{}, false
	}
	key, err := s.key()
	if err != nil {
		return session.Consent{}, false
	}
	rules := rulesOf(a.Needs)
	now := m.clock.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range m.grants[key] {
		r := &it.rec
		if r.Status != Approved || r.Grant == policy.GrantOnce || it.live == nil || it.live.Err() != nil || !sameRules(rules, it.doc.Rules) {
			continue
		}
		if r.Grant == policy.GrantSession && r.Flow != string(a.Flow.ID) || !r.Until.IsZero() && !now.Before(r.Until) {
			continue
		}
		return m.consent(it), true
	}
	return session.Consent{}, false
}

// sameRules reports whether what was approved is what the policy asks for today.
func sameRules(a, b []Rule) bool {
	return slices.EqualFunc(a, b, func(x, y Rule) bool {
		return x.Policy == y.Policy && x.Rule == y.Rule && x.Proof == y.Proof && x.Grant == y.Grant && x.RequireReason == y.RequireReason &&
			slices.EqualFunc(x.Needed, y.Needed, func(p, q Needed) bool { return p.Count == q.Count && slices.Equal(p.Groups, q.Groups) })
	})
}

// consent lets one more action through. The mutex is held.
func (m *Manager) consent(it *item) session.Consent {
	it.running++
	c := session.Consent{ID: it.id, Digest: it.digest, Requester: it.doc.Scope.Requester.User, Reason: it.rec.Why,
		BreakGlass: it.rec.BrokeBy != "", Live: it.live, Finish: it.doc.FinishAtExpiry}
	proofs := map[string]bool{}
	for _, d := range it.rec.Decisions {
		if d.Decided != DecidedApproved {
			continue
		}
		c.Approvers = append(c.Approvers, d.User)
		proofs[d.Proof] = true
		if c.Reason == "" {
			c.Reason = d.Reason
		}
	}
	c.Proof = weakest(proofs)
	var once bool
	c.Release = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !once {
			once = true
			it.running--
		}
	}
	return c
}

// weakest is the weakest proof that a consent rests on.
func weakest(proofs map[string]bool) string {
	for _, p := range []string{ProofSlack, ProofSession, ProofIDP} {
		if proofs[p] {
			return p
		}
	}
	return ""
}

// Ask implements session.Approvals.
func (m *Manager) Ask(ctx context.Context, a *session.Ask) (session.Hold, error) {
	if a.Who == nil {
		return nil, &session.Refusal{Reason: flow.ReasonNoIdentity, Message: "weir: nobody is signed in, so nobody could be asked on their behalf; sign in with `weir login`"}
	}
	now := m.clock.now()
	doc, err := documentOf(a, ulid.Make().String(), m.cfg.Node, now, now.Add(timeoutOf(a.Needs, m.cfg.Timeout)))
	if err != nil {
		return nil, tooLong(err)
	}
	body, err := doc.encode()
	if err != nil {
		return nil, tooLong(err)
	}
	key, err := doc.Scope.key()
	if err != nil {
		return nil, err
	}
	it := &item{id: doc.ID, doc: *doc, key: key, ask: a.Preview, changed: make(chan struct{}), seen: map[string]bool{}}
	it.digest, it.nonce = digestOf(body)
	it.rec = record{Document: body, Flow: string(a.Flow.ID), Key: key[:], Status: Pending}
	it.rec.Grant, it.rec.GrantFor = grantOf(a.Needs)
	it.live, it.end = context.WithCancelCause(context.Background())
	if err := m.reserve(&doc.Scope.Requester); err != nil {
		return nil, err
	}
	if err := m.open(ctx, it, a); err != nil {
		m.mu.Lock()
		m.pending--
		m.mu.Unlock()
		return nil, err
	}
	m.arm(it, doc.Expires)
	m.notify(it)
	m.findPreview(it, true)
	return &hold{m: m, it: it}, nil
}

func tooLong(err error) error {
	if !errors.Is(err, errTooLong) {
		return err
	}
	return &session.Refusal{Reason: flow.ReasonDenied, Message: "weir: " + err.Error()}
}

// reserve makes room for one more request.
func (m *Manager) reserve(who *Person) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	mine := 0
	if m.pending >= maxPendingPerson { // else it cannot be too many
		for _, it := range m.items {
			if it.rec.Status == Pending && same(&it.doc.Scope.Requester, who) {
				mine++
			}
		}
	}
	if m.closed || m.pending >= maxPending || mine >= maxPendingPerson {
		return &session.Refusal{Reason: flow.ReasonDenied, Message: "weir: too many requests wait for approval already; withdraw some (`weir approvals list`), or try again later"}
	}
	m.pending++
	return nil
}

// open writes a new request down, in the log first.
func (m *Manager) open(ctx context.Context, it *item, a *session.Ask) error {
	ev := m.event(it, auditlog.ApprovalRequest)
	ev.Principal = session.PrincipalEvent(a.Who)
	ev.Session = a.Who.Session
	ev.Policy, ev.Verdict = a.Revision, string(flow.Approve)
	ev.Approval.Document = string(it.rec.Document)
	ev.Approval.Expires = &it.doc.Expires
	ev.Approval.Status = string(Pending)
	if len(a.Actions) > 0 {
		first := it.doc.Scope.Actions[0]
		ev.Action = &auditlog.Action{ID: a.Actions[0].ID, Phase: auditlog.PhaseIntent, Verbs: first.Verbs, Resources: first.Resources, Digest: first.Digest, Bytes: first.Bytes}
	}
	if err := m.cfg.Record.Append(ctx, true, ev); err != nil {
		return fmt.Errorf("record the request: %w", err)
	}
	value, err := m.seal.seal(requestKeys+it.id, it.rec)
	if err != nil {
		return err
	}
	storing, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.revision, err = m.cfg.Store.Create(storing, requestKeys+it.id, value); err != nil {
		return fmt.Errorf("store the request: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.items[it.id] = it
	m.grants[it.key] = append(m.grants[it.key], it)
	for w := range m.watches {
		w.add(it.id)
	}
	return nil
}

// eagerPreviews is how many previews are found out at once ahead of anybody looking. A
// burst of requests must not become a burst of work for the database: what is beyond is
// found out when somebody looks at the request.
const eagerPreviews = 4

// findPreview has the preview found out in the background, once. What is returned is
// closed when that is over; nil when there is nothing to wait for.
func (m *Manager) findPreview(it *item, ahead bool) <-chan struct{} {
	m.mu.Lock()
	if m.closed || ahead && m.previews >= eagerPreviews {
		m.mu.Unlock()
		return nil
	}
	ask, found := it.ask, it.found
	if ask == nil || it.rec.Status != Pending {
		m.mu.Unlock()
		return found
	}
	it.ask, it.found = nil, make(chan struct{})
	found = it.found
	m.previews++
	m.work.Add(1)
	m.mu.Unlock()
	go func() {
		defer m.work.Done()
		defer close(found)
		ctx, cancel := context.WithTimeout(m.ctx, previewTimeout)
		defer cancel()
		list := ask(ctx)
		m.mu.Lock()
		m.previews--
		m.mu.Unlock()
		it.mu.Lock()
		defer it.mu.Unlock()
		if it.rec.Status != Pending || len(list) == 0 {
			return
		}
		rec := it.rec
		rec.Preview = list
		if err := m.save(m.ctx, it, rec); err != nil && m.ctx.Err() == nil {
			m.cfg.Log.Warn("what an action would do could not be stored with its approval request", "id", it.id, "error", err)
		}
	}()
	return found
}

// hold is a request on behalf of the flow that waits for it.
type hold struct {
	m  *Manager
	it *item
}

// Notice implements session.Hold.
func (h *hold) Notice() session.Notice {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	it := h.it
	n := session.Notice{ID: it.id, Rule: it.doc.Rules[0].Rule, Waiting: inWords(lacking(it.doc.Rules, decisionsOf(&it.rec))), Until: it.doc.Expires}
	for _, r := range it.doc.Rules {
		if len(r.BreakGlass) > 0 && slices.ContainsFunc(it.doc.Scope.Requester.Groups, func(g string) bool { return slices.Contains(r.BreakGlass, g) }) {
			n.BreakGlass = true
		}
	}
	return n
}

// inWords says who is still needed: "1 of group dba and 2 of groups ops or lead".
func inWords(list []Needed) string {
	words := make([]string, len(list))
	for i, n := range list {
		of := "group "
		if len(n.Groups) > 1 {
			of = "groups "
		}
		words[i] = fmt.Sprintf("%d of %s%s", n.Count, of, strings.Join(n.Groups, " or "))
	}
	return strings.Join(words, " and ")
}

// Changed implements session.Hold.
func (h *hold) Changed() <-chan struct{} {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return h.it.changed
}

// Ended implements session.Hold.
func (h *hold) Ended() bool {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return h.it.rec.Status != Pending
}

// Claim implements session.Hold.
func (h *hold) Claim(ctx context.Context, a *session.Ask) (session.Consent, error) {
	m, it := h.m, h.it
	it.mu.Lock()
	defer it.mu.Unlock()
	if r := it.refusal(); r != nil {
		return session.Consent{}, r
	}
	if err := m.check(ctx, it, a); err != nil {
		m.finish(ctx, it, Withdrawn, err.Error(), "refused")
		return session.Consent{}, refused(it, fmt.Sprintf("weir: request %s was approved, but %s", it.id, err.Error()))
	}
	rec := it.rec
	if rec.Grant == policy.GrantOnce {
		rec.Status = Used
	} else {
		rec.Until = m.grantUntil(&rec)
	}
	if err := m.save(ctx, it, rec); err != nil {
		m.cfg.Log.Error("a granted approval could not be taken", "id", it.id, "error", err)
		m.finish(ctx, it, Withdrawn, "the store did not take it", "refused")
		return session.Consent{}, refused(it, fmt.Sprintf("weir: request %s was approved, but that could not be kept; try again, or tell whoever runs weir on this node", it.id))
	}
	if !rec.Until.IsZero() {
		m.arm(it, rec.Until)
	} else if it.timer != nil {
		it.timer.Stop()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.consent(it), nil
}

func refused(it *item, message string) *session.Refusal {
	return &session.Refusal{Reason: flow.ReasonDenied, Rule: it.doc.Rules[0].Rule, Message: message}
}

// refusal puts an end other than consent into words; nil when it is approved.
func (it *item) refusal() *session.Refusal {
	of := fmt.Sprintf("weir: rule %q wants another person's approval for this: request %s ", it.doc.Rules[0].Rule, it.id)
	switch it.rec.Status {
	case Approved:
		return nil
	case Denied:
		last := it.rec.Decisions[len(it.rec.Decisions)-1]
		message := of + "was denied by " + last.User
		if last.Reason != "" {
			message += ": " + last.Reason
		}
		return refused(it, message)
	case Expired:
		return refused(it, of+"expired at "+it.doc.Expires.Format(time.RFC3339)+": nobody decided in time; run it again to ask again")
	case Pending:
		return refused(it, of+"is not decided yet")
	}
	return refused(it, of+"was withdrawn: "+it.rec.Ended+"; run it again to ask again")
}

// check looks once more at everything that a consent rests on, at the moment of
// going on: that the action, the session and the catalogue are what was approved, that
// the store holds what this node wrote, and that every approver's proof is good.
func (m *Manager) check(ctx context.Context, it *item, a *session.Ask) error {
	doc, err := documentOf(a, it.id, m.cfg.Node, it.doc.Created, it.doc.Expires)
	if err != nil {
		return err
	}
	body, err := doc.encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(body, it.rec.Document) {
		return errors.New("what it would do has changed while it waited (" + difference(doc, &it.doc) + "); run it again to ask again")
	}
	if err := m.intact(ctx, it); err != nil {
		return err
	}
	if it.rec.BrokeBy != "" {
		return nil
	}
	good := make([]Decision, 0, len(it.rec.Decisions))
	for _, d := range it.rec.Decisions {
		if d.Decided != DecidedApproved {
			continue
		}
		if d.Proof == ProofIDP {
			who, err := m.cfg.Prove.Recheck(d.Token, d.Keys, it.want(), d.At)
			if err != nil {
				return fmt.Errorf("the proof of %s does not hold: %w", d.User, err)
			}
			p := personOf(who)
			if p.Issuer != d.Issuer || p.Subject != d.Subject || !slices.Equal(p.Groups, d.Groups) {
				return fmt.Errorf("the proof of %s is another person's", d.User)
			}
		}
		if it.doc.Scope.Requester.involves(d.person()) {
			return errors.New("an approver is the requester")
		}
		good = append(good, d.Decision)
	}
	if len(lacking(it.doc.Rules, good)) > 0 {
		return errors.New("it lacks approvals")
	}
	return nil
}

// want is what a token has to prove for the request.
func (it *item) want() Want {
	w := Want{Nonce: it.nonce, After: it.doc.Created}
	for _, r := range it.doc.Rules {
		if age := time.Duration(r.MaxAge) * time.Second; age > 0 && (w.MaxAge == 0 || age < w.MaxAge) {
			w.MaxAge = age
		}
	}
	return w
}

// difference says which part of two documents is not the same.
func difference(a, b *document) string {
	x, y := a.Scope, b.Scope
	switch {
	case !sameRules(a.Rules, b.Rules):
		return "the policy"
	case !slices.Equal(x.State, y.State) || x.Database != y.Database || x.Login != y.Login:
		return "the session"
	case x.Requester.Issuer != y.Requester.Issuer || x.Requester.Subject != y.Requester.Subject || !slices.Equal(x.Requester.Groups, y.Requester.Groups):
		return "who asks"
	}
	return "the database's catalogue"
}

// Withdraw implements session.Hold.
func (h *hold) Withdraw(why string) {
	h.it.mu.Lock()
	defer h.it.mu.Unlock()
	if !over(h.it.rec.Status) && h.it.running == 0 {
		h.m.finish(context.Background(), h.it, Withdrawn, why, "withdrawn")
	}
}

// EndFlow ends the grants for one flow that has ended.
func (m *Manager) EndFlow(id flow.ID) {
	m.mu.Lock()
	var gone []*item
	for _, list := range m.grants {
		for _, it := range list {
			if it.rec.Flow == string(id) && it.rec.Status == Approved && it.rec.Grant == policy.GrantSession {
				gone = append(gone, it)
			}
		}
	}
	m.mu.Unlock()
	for _, it := range gone {
		it.mu.Lock()
		if it.rec.Status == Approved {
			m.finish(context.Background(), it, Expired, "the connection that it was granted for has ended", "flow_closed")
		}
		it.mu.Unlock()
	}
}

func decisionsOf(r *record) []Decision {
	out := make([]Decision, len(r.Decisions))
	for i := range r.Decisions {
		out[i] = r.Decisions[i].Decision
	}
	return out
}
