package approval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// maxReason bounds what people give as their reason, bytes.
const maxReason = 2000

// Words of approval.decide beyond those of a decision.
const (
	decidedBreakGlass = "break_glass"
	decidedReviewed   = "reviewed"
)

// decider is who decides, once it is known.
type decider struct {
	who   *flow.Principal
	proof string
	token *Proof // nil with a session
}

func (d *decider) person() Person { return personOf(d.who) }

// Approve implements Service.
func (m *Manager) Approve(ctx context.Context, id string, a Attempt) (*Request, error) {
	return m.decide(ctx, id, a, DecidedApproved)
}

// Deny implements Service.
func (m *Manager) Deny(ctx context.Context, id string, a Attempt) (*Request, error) {
	return m.decide(ctx, id, a, DecidedDenied)
}

func (m *Manager) decide(ctx context.Context, id string, a Attempt, what Decided) (*Request, error) {
	it, err := m.find(id)
	if err != nil {
		return nil, err
	}
	by, err := m.decider(ctx, it, a)
	if err != nil {
		return nil, m.refuse(ctx, it, by, a, err)
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	d := Decision{User: by.who.User, Issuer: by.who.Issuer, Subject: by.who.Subject, Groups: by.person().Groups,
		Decided: what, At: m.clock.now(), Reason: strings.TrimSpace(a.Reason), Proof: by.proof}
	if err := m.mayDecide(it, by, &d); err != nil {
		return nil, m.refuse(ctx, it, by, a, err)
	}
	rec := it.rec
	stored := storedDecision{Decision: d}
	if by.token != nil {
		stored.Token, stored.Keys = by.token.Token, by.token.Keys
	}
	rec.Decisions = append(slices.Clone(rec.Decisions), stored)
	switch {
	case what == DecidedDenied:
		rec.Status, rec.Ended, rec.EndedAt = Denied, "denied by "+d.User, d.At
	case len(lacking(it.doc.Rules, decisionsOf(&rec))) == 0:
		rec.Status = Approved
	}
	if err := m.intact(ctx, it); err != nil {
		m.finish(ctx, it, Withdrawn, err.Error(), "tampered")
		return nil, m.refuse(ctx, it, by, a, &NotAllowed{Why: "weir: " + err.Error() + ": the request has been ended; tell whoever runs weir on this node"})
	}
	ev := m.decision(it, by, string(what), d.Reason)
	ev.Approval.Status = string(rec.Status)
	ev.Approval.Token, ev.Approval.Keys, ev.Approval.Shown = stored.Token, stored.Keys, m.shown(it)
	ev.Approval.Approvers = names(rec.Decisions)
	if err := m.cfg.Record.Append(ctx, true, ev); err != nil {
		m.cfg.Log.Error("a decision could not be recorded, so it does not count", "id", it.id, "error", err)
		return nil, &Conflict{Why: "weir: the decision cannot be recorded just now, so it does not count; try again, or tell whoever runs weir on this node"}
	}
	if err := m.save(ctx, it, rec); err != nil {
		m.cfg.Log.Error("a decision could not be stored, so it does not count", "id", it.id, "error", err)
		return nil, m.refuse(ctx, it, by, a, &Conflict{Why: "weir: the decision could not be stored, so it does not count; try again, or tell whoever runs weir on this node"})
	}
	return m.view(it, Viewer{Who: by.who}), nil
}

// decider finds out who decides. With a token that is the token's person.
func (m *Manager) decider(ctx context.Context, it *item, a Attempt) (*decider, error) {
	if !plain(a.Reason) {
		return nil, &NotAllowed{Why: fmt.Sprintf("weir: the reason is longer than %d bytes or not plain text", maxReason)}
	}
	if a.Token != "" {
		p, err := m.cfg.Prove.Verify(ctx, a.Token, it.want())
		if err != nil {
			return nil, &NotAllowed{Why: "weir: the sign-in does not prove a decision on this request: " + err.Error()}
		}
		return &decider{who: p.Who, proof: ProofIDP, token: p}, nil
	}
	if a.Viewer.Who == nil {
		why := "weir: nobody is signed in here; sign in with `weir login`"
		if a.Viewer.Root {
			why = "weir: root is nobody in particular: sign in with `weir login`, or bring a token of the identity provider"
		}
		return nil, &NotAllowed{Why: why}
	}
	by := &decider{who: a.Viewer.Who, proof: ProofSession}
	if a.Via == ProofSlack {
		by.proof = ProofSlack
	}
	if a.Viewer.Who.Kind != flow.Human || a.Viewer.Who.Actor != nil {
		return by, &NotAllowed{Why: "weir: only a person decides, not a program that acts for one: sign in yourself"}
	}
	return by, nil
}

// plain reports whether a reason can be kept: bounded text, lines and tabs allowed.
func plain(s string) bool {
	return len(s) <= maxReason && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' })
}

// mayDecide says why a decision does not count; nil when it does.
func (m *Manager) mayDecide(it *item, by *decider, d *Decision) error {
	if it.rec.Status == Pending && !m.clock.now().Before(it.doc.Expires) {
		m.finish(m.ctx, it, Expired, "nobody decided in time", "expired")
	}
	who := by.person()
	switch {
	case it.doc.Scope.Requester.overlaps(&who):
		return &NotAllowed{Why: "weir: nobody decides on what they ask for themselves; another person has to"}
	case !it.eligible(d):
		return &NotAllowed{Why: fmt.Sprintf("weir: %s is in none of the groups that may decide on this request (%s)", by.who.User, strings.Join(it.groups(), ", "))}
	case it.rec.Status != Pending:
		return &Conflict{Why: "weir: request " + it.id + " is not waiting any more: it is " + string(it.rec.Status)}
	case d.Decided == DecidedDenied:
		return nil
	case !slices.ContainsFunc(it.doc.Rules, func(r Rule) bool { return r.counts(d) }):
		return &NotAllowed{Why: "weir: rule " + fmt.Sprintf("%q", it.doc.Rules[0].Rule) + " wants a sign-in at the identity provider for this very request: `weir approvals approve " + it.id + "`, or the page of the request"}
	case d.Reason == "" && slices.ContainsFunc(it.doc.Rules, func(r Rule) bool { return r.RequireReason }):
		return &NotAllowed{Why: "weir: approving this wants a reason (--reason TEXT)"}
	case slices.ContainsFunc(it.rec.Decisions, func(x storedDecision) bool { return same(x.person(), d.person()) }):
		return &Conflict{Why: "weir: you have decided on this request already; it needs other people: " + inWords(lacking(it.doc.Rules, decisionsOf(&it.rec)))}
	}
	return nil
}

// eligible reports whether somebody is in a group that may decide.
func (it *item) eligible(d *Decision) bool {
	return slices.ContainsFunc(it.doc.Rules, func(r Rule) bool {
		return slices.ContainsFunc(r.Needed, func(n Needed) bool { return n.takes(d) })
	})
}

// groups are those whose members may decide, each once.
func (it *item) groups() []string {
	var all []string
	for _, r := range it.doc.Rules {
		for _, n := range r.Needed {
			for _, g := range n.Groups {
				if !slices.Contains(all, g) {
					all = append(all, g)
				}
			}
		}
	}
	return all
}

// refuse puts an attempt that does not count on record, and returns its error.
func (m *Manager) refuse(ctx context.Context, it *item, by *decider, a Attempt, why error) error {
	ev := m.decision(it, by, string(DecidedRefused), strings.TrimSpace(cut(a.Reason)))
	ev.Reason = why.Error()
	if by == nil && a.Viewer.Who != nil {
		ev.Principal = session.PrincipalEvent(a.Viewer.Who)
	}
	if err := m.cfg.Record.Append(context.WithoutCancel(ctx), true, ev); err != nil {
		m.cfg.Log.Error("a refused decision could not be recorded", "id", it.id, "error", err)
	}
	return why
}

func cut(reason string) string {
	if !plain(reason) {
		return ""
	}
	return reason
}

// Withdraw implements Service.
func (m *Manager) Withdraw(ctx context.Context, id string, a Attempt) (*Request, error) {
	it, err := m.find(id)
	if err != nil {
		return nil, err
	}
	a.Token = "" // a session is enough to take something back
	by, err := m.withdrawer(it, a)
	if err != nil {
		return nil, m.refuse(ctx, it, by, a, err)
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	m.mu.Lock()
	running := it.running
	m.mu.Unlock()
	why := "withdrawn by " + by.who.User
	if reason := strings.TrimSpace(a.Reason); reason != "" {
		why += ": " + reason
	}
	switch {
	case !over(it.rec.Status):
		m.finish(ctx, it, Withdrawn, why, "withdrawn")
	case it.rec.Status == Used && running > 0:
		m.finish(ctx, it, Withdrawn, why, "withdrawn")
	default:
		return nil, &Conflict{Why: "weir: request " + it.id + " has ended already: it is " + string(it.rec.Status)}
	}
	return m.view(it, Viewer{Who: by.who}), nil
}

// withdrawer is the requester, or for what has been granted a member of the groups that
// decide.
func (m *Manager) withdrawer(it *item, a Attempt) (*decider, error) {
	if !plain(a.Reason) {
		return nil, &NotAllowed{Why: fmt.Sprintf("weir: the reason is longer than %d bytes or not plain text", maxReason)}
	}
	if a.Viewer.Who == nil {
		return nil, &NotAllowed{Why: "weir: nobody is signed in here; sign in with `weir login`"}
	}
	by := &decider{who: a.Viewer.Who, proof: ProofSession}
	who := by.person()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch d := (Decision{Groups: who.Groups}); {
	case it.doc.Scope.Requester.involves(&who):
	case it.rec.Status == Pending && it.eligible(&d):
		return by, &NotAllowed{Why: "weir: this is another person's request: deny it instead"}
	case !it.eligible(&d):
		return by, &NotAllowed{Why: "weir: only the requester, or after an approval a member of " + strings.Join(it.groups(), ", ") + ", can withdraw this"}
	}
	return by, nil
}

// BreakGlass implements Service.
func (m *Manager) BreakGlass(ctx context.Context, id string, a Attempt) (*Request, error) {
	it, err := m.find(id)
	if err != nil {
		return nil, err
	}
	a.Token, a.Via = "", ""
	by, err := m.decider(ctx, it, a)
	if err != nil {
		return nil, m.refuse(ctx, it, by, a, err)
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	reason := strings.TrimSpace(a.Reason)
	if err := m.mayBreak(it, by, reason); err != nil {
		return nil, m.refuse(ctx, it, by, a, err)
	}
	rec := it.rec
	rec.Status, rec.Review, rec.BrokeBy, rec.Why = Approved, reviewOpen, by.who.User, reason
	ev := m.decision(it, by, decidedBreakGlass, reason)
	ev.Approval.Status = string(rec.Status)
	if err := m.cfg.Record.Append(ctx, true, ev); err != nil {
		return nil, &Conflict{Why: "weir: this cannot be recorded just now, so it does not count; try again, or tell whoever runs weir on this node"}
	}
	if err := m.save(ctx, it, rec); err != nil {
		return nil, m.refuse(ctx, it, by, a, &Conflict{Why: "weir: this could not be stored, so it does not count; try again, or tell whoever runs weir on this node"})
	}
	return m.view(it, Viewer{Who: by.who}), nil
}

func (m *Manager) mayBreak(it *item, by *decider, reason string) error {
	who := by.person()
	switch {
	case it.rec.Status != Pending:
		return &Conflict{Why: "weir: request " + it.id + " is not waiting any more: it is " + string(it.rec.Status)}
	case !same(&it.doc.Scope.Requester, &who):
		return &NotAllowed{Why: "weir: only the requester can break the glass for their own request"}
	case reason == "":
		return &NotAllowed{Why: "weir: breaking the glass wants a reason (--reason TEXT); another person will review it"}
	case !it.mayBreakGlass(who.Groups):
		return &NotAllowed{Why: "weir: the rules do not let your groups go through at once; wait for an approval"}
	}
	return nil
}

// mayBreakGlass reports whether every rule lets one of the groups through at once.
func (it *item) mayBreakGlass(groups []string) bool {
	return !slices.ContainsFunc(it.doc.Rules, func(r Rule) bool {
		return !slices.ContainsFunc(r.BreakGlass, func(g string) bool { return slices.Contains(groups, g) })
	})
}

// Review implements Service.
func (m *Manager) Review(ctx context.Context, id string, a Attempt) (*Request, error) {
	it, err := m.find(id)
	if err != nil {
		return nil, err
	}
	a.Token = ""
	by, err := m.decider(ctx, it, a)
	if err != nil {
		return nil, m.refuse(ctx, it, by, a, err)
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	who := by.person()
	switch {
	case it.doc.Scope.Requester.overlaps(&who):
		err = &NotAllowed{Why: "weir: nobody reviews what they did themselves; another person has to"}
	case !it.eligible(&Decision{Groups: who.Groups}):
		err = &NotAllowed{Why: "weir: the review is for members of " + strings.Join(it.groups(), ", ")}
	case it.rec.Review != reviewOpen:
		err = &Conflict{Why: "weir: there is no open review of request " + it.id}
	}
	if err != nil {
		return nil, m.refuse(ctx, it, by, a, err)
	}
	rec := it.rec
	rec.Review = reviewDone
	ev := m.decision(it, by, decidedReviewed, strings.TrimSpace(a.Reason))
	ev.Approval.Status = string(rec.Status)
	if err := errors.Join(m.cfg.Record.Append(ctx, true, ev), m.save(ctx, it, rec)); err != nil {
		m.cfg.Log.Error("a review could not be kept", "id", it.id, "error", err)
		return nil, &Conflict{Why: "weir: the review could not be kept; try again, or tell whoever runs weir on this node"}
	}
	return m.view(it, Viewer{Who: by.who}), nil
}

// event starts an event about a request.
func (m *Manager) event(it *item, kind auditlog.Kind) *auditlog.Event {
	s := &it.doc.Scope
	return &auditlog.Event{Node: m.cfg.Node, Kind: kind, Flow: it.rec.Flow, Backend: s.Backend, Protocol: s.Protocol, Database: s.Database, Login: s.Login,
		Destination: s.Destination, Rule: it.doc.Rules[0].Rule,
		Approval: &auditlog.Approval{ID: it.id, Digest: it.digest, Requester: s.Requester.User}}
}

// decision starts the event of somebody's decision, or attempt at one.
func (m *Manager) decision(it *item, by *decider, what, reason string) *auditlog.Event {
	ev := m.event(it, auditlog.ApprovalDecide)
	ev.Approval.Decided, ev.Approval.Justification = what, reason
	if it.rec.Status == Pending {
		ev.Approval.WaitedUS = m.waited(it)
	}
	if by != nil && by.who != nil {
		ev.Principal, ev.Session = session.PrincipalEvent(by.who), by.who.Session
		ev.Approval.Proof = by.proof
	}
	return ev
}

func names(list []storedDecision) []string {
	var out []string
	for _, d := range list {
		if d.Decided == DecidedApproved {
			out = append(out, d.User)
		}
	}
	return out
}
