package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sort"
	"time"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/identity"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// shutdownTimeout bounds the end of running requests on the control socket.
const shutdownTimeout = 2 * time.Second

// flowsPoll is how often `weir flows --follow` looks for changes.
const flowsPoll = 200 * time.Millisecond

func (a *agent) startControl(context.Context) error {
	listener, err := control.Listen(a.cfg.RunDir)
	if err != nil {
		return err
	}
	s := control.NewServer(identity.PeerCaller, func(c *identity.Caller) { _ = c.Close() })
	s.Handle("GET /v1/status", a.handleStatus)
	s.Handle("GET /v1/issuers", a.handleIssuers)
	s.Handle("GET /v1/trust", a.handleTrust)
	s.Handle("GET /v1/flows", a.handleFlows)
	s.Handle("GET /v1/whoami", a.handleWhoami)
	s.Handle("POST /v1/login", a.handleLogin)
	s.Handle("POST /v1/logout", a.handleLogout)
	s.Handle("POST /v1/exec", a.handleExec)
	s.Handle("POST /v1/account", a.handleAccount)
	a.handleApprovals(s)
	a.handleEvidence(s)
	a.control = s
	pid := a.cfg.RunDir + "/pid"
	if err := os.WriteFile(pid, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		listener.Close()
		return err
	}
	a.run("control socket", func(context.Context) error { return s.Serve(listener) })
	a.onStop("control requests", func() error {
		_ = os.Remove(pid)
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		return s.Shutdown(ctx)
	})
	return nil
}

func (a *agent) handleStatus(context.Context, *identity.Caller, []byte, *http.Request) (any, error) {
	s := control.Status{Ready: a.ready.Load(), Node: a.cfg.Node, Version: version, PID: os.Getpid(), Started: a.started,
		Mode: string(a.cfg.Intercept.Mode), Policy: a.policy.Current().Revision(), Flows: len(a.sessions.Live().List(false))}
	if !s.Ready {
		s.Problems = append(s.Problems, "it is starting or stopping")
	}
	a.mu.Lock()
	for _, p := range a.problem {
		s.Problems = append(s.Problems, p)
	}
	a.mu.Unlock()
	log := a.audit.Status()
	s.Audit = control.Audit{Dir: log.Dir, Durability: string(log.Durability), Seq: log.Seq, Sealed: a.sealer.Status().Size, Problem: log.Problem}
	if log.Problem != "" {
		s.Ready = false
		s.Problems = append(s.Problems, "the audit log cannot be written: "+log.Problem)
	}
	if err := a.redirectStatus(&s); err != nil {
		s.Ready = false
		s.Problems = append(s.Problems, err.Error())
	}
	a.accountStatus(&s)
	for _, i := range a.cfg.Identity.Issuers {
		s.Issuers = append(s.Issuers, control.Issuer{Issuer: i.Issuer, ClientID: i.ClientID, Kind: string(i.Kind)})
	}
	sort.Strings(s.Problems)
	return s, nil
}

// redirectStatus adds what the kernel half says of itself. A hook that is gone
// makes the node not ready: connections would go past it.
func (a *agent) redirectStatus(s *control.Status) error {
	st, err := a.redirect.Status()
	if err != nil {
		return fmt.Errorf("the kernel half cannot be inspected: %w", err)
	}
	destinations := map[int][]string{}
	for _, d := range st.Destinations {
		destinations[d.Backend] = append(destinations[d.Backend], config.Address{Prefix: d.Prefix, Port: d.Port}.String())
	}
	for i, b := range a.cfg.Backends {
		row := control.Backend{Name: b.Name, Protocol: string(b.Protocol), Destinations: destinations[i]}
		if len(row.Destinations) == 0 {
			row.Problem = "no address known: its names do not resolve"
		}
		s.Backends = append(s.Backends, row)
	}
	for _, c := range st.Cgroups {
		s.Cgroups = append(s.Cgroups, c.Path)
		for _, l := range c.Links {
			s.Links = append(s.Links, control.Link{Program: l.Program, Cgroup: c.Path, LinkID: l.ID, ProgID: l.ProgramID})
			if l.Error != "" {
				err = errors.Join(err, fmt.Errorf("hook %s on %s: %s", l.Program, c.Path, l.Error))
			}
		}
	}
	for _, n := range st.Namespaces {
		row := control.Network{Inode: n.Inode, Cookie: n.Cookie}
		for _, l := range n.Listeners {
			row.Listeners = append(row.Listeners, l.String())
		}
		if len(n.Problems) > 0 {
			row.Problem = n.Problems[0]
		}
		s.Networks = append(s.Networks, row)
	}
	raw, _ := json.Marshal(st.Counters) // a struct of integers
	_ = json.Unmarshal(raw, &s.Counters)
	return err
}

func (a *agent) handleIssuers(context.Context, *identity.Caller, []byte, *http.Request) (any, error) {
	issuers := []control.Issuer{}
	for _, i := range a.cfg.Identity.Issuers {
		issuers = append(issuers, control.Issuer{Issuer: i.Issuer, ClientID: i.ClientID, Kind: string(i.Kind), CAFile: i.CAFile})
	}
	return issuers, nil
}

func (a *agent) handleTrust(context.Context, *identity.Caller, []byte, *http.Request) (any, error) {
	key, err := os.ReadFile(auditlog.PublicKeyFile(a.cfg.StateDir))
	if err != nil {
		return nil, err
	}
	return control.Trust{CA: string(a.authority.Bundle()), LogKey: string(key)}, nil
}

// handleFlows lists the caller's own flows, everybody's for root.
func (a *agent) handleFlows(_ context.Context, caller *identity.Caller, _ []byte, r *http.Request) (any, error) {
	mine := func(session.FlowInfo) bool { return true }
	if caller.Process.UID != 0 {
		b, err := a.identity.Whoami(caller)
		if err != nil && !errors.Is(err, identity.ErrExpired) {
			return nil, refuse(err)
		}
		mine = func(f session.FlowInfo) bool {
			return f.Issuer == b.Principal.Issuer && f.Subject == b.Principal.Subject
		}
	}
	list := func(recent bool) []session.FlowInfo {
		rows := []session.FlowInfo{}
		for _, f := range a.sessions.Live().List(recent) {
			if mine(f) {
				rows = append(rows, f)
			}
		}
		return rows
	}
	if r.URL.Query().Get("follow") == "" {
		return control.Flows{Flows: list(r.URL.Query().Get("live") == "")}, nil
	}
	return followFlowChanges(list), nil
}

// followFlowChanges yields each flow when it begins and when its state changes.
func followFlowChanges(list func(recent bool) []session.FlowInfo) control.Stream {
	states := map[flow.ID]string{}
	for _, f := range list(true) {
		if f.End != nil {
			states[f.ID] = f.State // what ended before is not news
		}
	}
	var queue []session.FlowInfo
	return func(ctx context.Context) (any, error) {
		tick := time.NewTicker(flowsPoll)
		defer tick.Stop()
		for {
			if len(queue) > 0 {
				next := queue[0]
				queue = queue[1:]
				return next, nil
			}
			present := map[flow.ID]bool{}
			for _, f := range list(true) {
				present[f.ID] = true
				if states[f.ID] != f.State {
					states[f.ID] = f.State
					queue = append(queue, f)
				}
			}
			for id := range states {
				if !present[id] {
					delete(states, id)
				}
			}
			if len(queue) > 0 {
				continue
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-tick.C:
			}
		}
	}
}

func (a *agent) handleWhoami(_ context.Context, caller *identity.Caller, _ []byte, _ *http.Request) (any, error) {
	b, err := a.identity.Whoami(caller)
	if err != nil {
		return nil, refuse(err)
	}
	return identityAnswer(&b), nil
}

func (a *agent) handleLogin(ctx context.Context, caller *identity.Caller, body []byte, _ *http.Request) (any, error) {
	in, err := bindRequest(body)
	if err != nil {
		return nil, err
	}
	if in.Token == "" {
		return nil, control.Refuse(http.StatusBadRequest, "weir: no token was sent")
	}
	b, err := a.identity.Bind(ctx, caller, in.Token)
	if err != nil {
		return nil, refuse(err)
	}
	answer := identityAnswer(&b)
	if b.AuditSession == flow.Unset && caller.Process.Cgroup == "/" {
		answer.Warning = fmt.Sprintf("there is no audit session and no cgroup of this login's own here, so every process of uid %d in the root cgroup is now %s; "+
			"`weir exec` binds one command only", b.UID, b.Principal.User)
	}
	return answer, nil
}

func (a *agent) handleLogout(ctx context.Context, caller *identity.Caller, _ []byte, _ *http.Request) (any, error) {
	b, err := a.identity.Unbind(ctx, caller)
	if err != nil {
		return nil, refuse(err)
	}
	return identityAnswer(&b), nil
}

func (a *agent) handleExec(ctx context.Context, caller *identity.Caller, body []byte, _ *http.Request) (any, error) {
	in, err := bindRequest(body)
	if err != nil {
		return nil, err
	}
	b, err := a.identity.BindExec(ctx, caller, in.Token)
	if err != nil {
		return nil, refuse(err)
	}
	return identityAnswer(&b), nil
}

func bindRequest(body []byte) (*control.Bind, error) {
	in := &control.Bind{}
	if err := json.Unmarshal(body, in); err != nil {
		return nil, control.Refuse(http.StatusBadRequest, "weir: the request is no JSON object with a token")
	}
	return in, nil
}

// refuse passes an identity error on to the user; its text says what to do.
func refuse(err error) error {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, identity.ErrNoIdentity), errors.Is(err, identity.ErrExpired), errors.Is(err, identity.ErrToken):
		status = http.StatusUnauthorized
	case errors.Is(err, identity.ErrCaller):
		status = http.StatusForbidden
	case errors.Is(err, identity.ErrInsideExec):
		status = http.StatusConflict
	case errors.Is(err, identity.ErrLimit):
		status = http.StatusTooManyRequests
	case errors.Is(err, identity.ErrProvider):
		status = http.StatusBadGateway
	}
	return control.Refuse(status, "weir: %v", err)
}

func identityAnswer(b *identity.Binding) *control.Identity {
	p := b.Principal
	i := &control.Identity{User: p.User, Subject: p.Subject, Issuer: p.Issuer, Groups: p.Groups, Kind: string(p.Kind), Expires: p.Expires, Session: b.ID}
	if p.Actor != nil {
		i.Actor = p.Actor.Subject
		if p.Actor.User != "" {
			i.Actor = p.Actor.User
		}
	}
	switch {
	case b.Kind == identity.ExecBinding:
		i.Scope = "this command, cgroup " + b.Cgroup
	case b.AuditSession != flow.Unset:
		i.Scope = fmt.Sprintf("audit session %d", b.AuditSession)
	default:
		i.Scope = fmt.Sprintf("uid %d in cgroup %s", b.UID, b.Cgroup)
	}
	return i
}
