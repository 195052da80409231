package session

import (
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// event starts an event about the gate's flow.
func (g *Gate) event(kind auditlog.Kind) *auditlog.Event {
	f := g.flow
	ev := &auditlog.Event{
		Node: g.server.Node, Kind: kind, Flow: string(f.ID),
		Backend: f.Backend, Protocol: string(f.Protocol), Database: f.Database, Login: f.Login,
		Destination: f.Destination.String(),
	}
	if who := g.Principal(); who != nil {
		ev.Session = who.Session
		ev.Principal = PrincipalEvent(who)
	}
	return ev
}

// PrincipalEvent is a principal as events carry it, without its claims.
func PrincipalEvent(p *flow.Principal) *auditlog.Principal {
	e := &auditlog.Principal{Issuer: p.Issuer, Subject: p.Subject, User: p.User, Groups: p.Groups,
		Kind: string(p.Kind), TokenID: p.TokenID, Actor: actorEvent(p.Actor)}
	if e.Groups == nil {
		e.Groups = []string{}
	}
	if !p.Expires.IsZero() {
		t := p.Expires.UTC()
		e.Expires = &t
	}
	return e
}

func actorEvent(a *flow.Actor) *auditlog.Actor {
	if a == nil {
		return nil
	}
	return &auditlog.Actor{Issuer: a.Issuer, Subject: a.Subject, User: a.User, Actor: actorEvent(a.Actor)}
}

// ProcessEvent is a process as events carry it.
func ProcessEvent(p *flow.Process) *auditlog.Process {
	e := &auditlog.Process{PID: p.PID, Exe: p.Exe, Comm: p.Comm, UID: p.UID, Cgroup: p.Cgroup}
	if p.LoginUID != flow.Unset {
		e.LoginUID = &p.LoginUID
	}
	if p.AuditSession != flow.Unset {
		e.AuditSession = &p.AuditSession
	}
	if p.Pod != nil {
		e.Pod = &auditlog.Pod{Namespace: p.Pod.Namespace, Name: p.Pod.Name, UID: p.Pod.UID, Container: p.Pod.Container}
	}
	return e
}

// Bounds of what a record repeats of an action besides its text: names of functions
// and columns, and its accesses. A table has at most 1,600 columns (PostgreSQL's
// MaxHeapAttributeNumber), and a name of three parts 191 bytes; most have far less.
// With all of them at their bound an event stays well below auditlog.MaxPayload.
const (
	maxRecordedNames    = 2000
	maxRecordedBytes    = 48 << 10
	maxRecordedAccesses = 500
)

// actionEvent is an intent; left is what is left of the budgets of its spends.
func actionEvent(a *flow.Action, left []int) *auditlog.Action {
	e := &auditlog.Action{ID: a.ID, Phase: auditlog.PhaseIntent, Text: a.Text, Params: a.Params, Digest: a.Digest, Bytes: a.Bytes,
		Languages: a.Languages, SecurityDefiner: a.SecurityDefiner, Accesses: accessEvents(a.Accesses)}
	seenVerb := make(map[flow.Verb]bool, 4)
	seenRes := make(map[string]bool, 4)
	for _, x := range a.Accesses {
		if !seenVerb[x.Verb] {
			seenVerb[x.Verb] = true
			e.Verbs = append(e.Verbs, string(x.Verb))
		}
		if x.Resource != "" && !seenRes[x.Resource] {
			seenRes[x.Resource] = true
			e.Resources = append(e.Resources, x.Resource)
		}
	}
	room := names{left: maxRecordedNames, bytes: maxRecordedBytes}
	e.Functions = room.take(a.Functions)
	if c := &a.Columns; len(c.Read)+len(c.Written)+len(c.Tested) > 0 {
		// What is read is the longest list and comes last, so that it is cut first.
		e.Columns = &auditlog.Columns{Tested: room.take(c.Tested), Written: room.take(c.Written)}
		e.Columns.Read = room.take(c.Read)
	}
	e.Cut = room.cut
	e.Tests = testEvents(a.Spends, left)
	return e
}

// names is the room that a record has for names.
type names struct {
	left, bytes int
	cut         int64 // names left out
}

// take is as much of a list as there is room for; the list itself as a rule.
func (n *names) take(list []string) []string {
	for i, s := range list {
		if n.left == 0 || len(s) > n.bytes {
			n.left = 0
			n.cut += int64(len(list) - i)
			return list[:i]
		}
		n.left--
		n.bytes -= len(s)
	}
	return list
}

// accessEvents pairs verbs with resources; nil where the lists of both say it all,
// and where there are too many (auditlog.Action).
func accessEvents(list []flow.Access) []auditlog.Access {
	bytes, needed := 0, false
	for i := range list {
		x := &list[i]
		needed = needed || x.Verb != list[0].Verb || x.Verb == flow.Update || x.Verb == flow.Delete || x.Unrestricted ||
			(x.Resource == "") != (list[0].Resource == "")
		bytes += len(x.Resource)
	}
	if !needed || len(list) > maxRecordedAccesses || bytes > maxRecordedBytes {
		return nil
	}
	out := make([]auditlog.Access, len(list))
	for i, x := range list {
		out[i] = auditlog.Access{Verb: string(x.Verb), Resource: x.Resource, Unrestricted: x.Unrestricted}
	}
	return out
}

func testEvents(spends []flow.Spend, left []int) []auditlog.Test {
	if len(spends) == 0 {
		return nil
	}
	list := make([]auditlog.Test, len(spends))
	for i, s := range spends {
		list[i] = auditlog.Test{Policy: s.Policy, Mask: s.Mask, Column: s.Column, Tests: int64(s.Tests)}
		if i < len(left) {
			n := int64(left[i])
			list[i].Left = &n
		}
	}
	return list
}
