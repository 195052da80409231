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

func actionEvent(a *flow.Action) *auditlog.Action {
	e := &auditlog.Action{ID: a.ID, Phase: auditlog.PhaseIntent, Text: a.Text, Params: a.Params, Digest: a.Digest, Bytes: a.Bytes}
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
	return e
}
