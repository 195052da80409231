package main

import (
	"context"
	"net/http"
	"time"

	"github.com/weirproxy/weir/internal/accept"
	"github.com/weirproxy/weir/internal/completeness"
	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/identity"
	"github.com/weirproxy/weir/internal/redirect"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// makeLedger makes the account of connections. It comes before the redirect, so that its
// last word is spoken when the redirect has ended and nothing is under way any more.
func (a *agent) makeLedger(context.Context) error {
	a.ledger = completeness.New(completeness.Config{Record: a.audit, Started: a.started, Now: time.Now})
	a.onStop("account of connections", func() error {
		if a.redirect == nil || a.accept == nil {
			return nil // nothing was ever accepted
		}
		_, err := a.ledger.Record(context.Background(), auditlog.ScopeStop)
		return err
	})
	return nil
}

// startLedger records what was left open before this run. Nothing is accepted yet.
func (a *agent) startLedger(ctx context.Context) error {
	kernel := func() (map[string]auditlog.KernelFlows, error) {
		counts, err := a.redirect.FlowCounts()
		return kernelFlows(counts), err
	}
	start := completeness.Start{Base: kernelFlows(a.redirect.FlowBase()), Counting: a.redirect.FlowsSince(), Run: a.redirect.Generation(), Backends: a.backendNames()}
	a.ledger.Begin(kernel, start)
	log := completeness.Log{StateDir: a.cfg.StateDir, Key: a.audit.PublicKey(), Through: a.audit.Status().Seq}
	before, err := a.ledger.Before(ctx, log)
	if err != nil {
		return err
	}
	if why := completeness.Why(before); why != "" {
		a.log.Warn("the account of connections before this run is not complete", "why", why)
	}
	if err := a.record(ctx, completeness.Event(before)); err != nil {
		return err
	}
	a.run("account of connections", func(ctx context.Context) error {
		differs := func(why string) { a.log.Error("connections are missing in the audit log", "why", why) }
		a.ledger.Run(ctx, differs, func(err error) {
			a.log.Error("the account of connections could not be kept", "error", err)
		})
		return nil
	})
	return nil
}

func (a *agent) backendNames() []string {
	var names []string
	for _, b := range a.cfg.Backends {
		names = append(names, b.Name)
	}
	return names
}

func kernelFlows(counts map[string]redirect.FlowCounts) map[string]auditlog.KernelFlows {
	out := make(map[string]auditlog.KernelFlows, len(counts))
	for name, c := range counts {
		out[name] = auditlog.KernelFlows(c)
	}
	return out
}

// claimed counts a connection to the backend of that number.
func (a *agent) claimed(backend int) {
	name := "" // accept refuses a number that is nobody's
	if backend >= 0 && backend < len(a.cfg.Backends) {
		name = a.cfg.Backends[backend].Name
	}
	a.ledger.Claimed(name)
}

// serveFlow serves a flow and closes its account.
func (a *agent) serveFlow(ctx context.Context, c *accept.Conn) {
	f := c.Flow()
	defer a.ledger.Ended(f.Backend, string(f.ID))
	a.sessions.Serve(ctx, c)
}

// recordRefused records a connection that never became a flow that is served, and closes
// its account.
func (a *agent) recordRefused(f *flow.Flow, ev *auditlog.Event) {
	ev.Node = a.cfg.Node
	if err := a.ledger.Append(context.Background(), true, ev); err != nil {
		a.log.Error("a refused flow could not be recorded", "error", err)
	}
	if f != nil {
		a.ledger.Ended(f.Backend, string(f.ID))
	}
}

// accountStatus adds to the backends what their connections have come to.
func (a *agent) accountStatus(s *control.Status) {
	c, err := a.ledger.Account(auditlog.ScopeRun)
	if err != nil {
		s.Problems = append(s.Problems, "the account of connections cannot be kept: "+err.Error())
		return
	}
	for i := range c.Backends {
		b := &c.Backends[i]
		if gap := completeness.Gap(b); gap != "" {
			s.Problems = append(s.Problems, gap)
		}
		for j := range s.Backends {
			if s.Backends[j].Name == b.Backend {
				s.Backends[j].Connections = &control.Connections{HandedOver: b.Kernel.HandedOver, Opened: b.Opened, Refused: b.Refused,
					Unclaimed: b.Unclaimed, UnderWay: b.UnderWay, Difference: b.Difference}
			}
		}
	}
}

// handleAccount records the account of now, on root's request.
func (a *agent) handleAccount(ctx context.Context, caller *identity.Caller, _ []byte, _ *http.Request) (any, error) {
	if caller.Process.UID != 0 {
		return nil, control.Refuse(http.StatusForbidden, "weir: the account of all connections is for root; ask whoever runs weir on this node")
	}
	return a.ledger.Record(ctx, auditlog.ScopeRun)
}
