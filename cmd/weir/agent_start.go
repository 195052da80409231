package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/accept"
	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/internal/budget"
	"github.com/weirproxy/weir/internal/ca"
	"github.com/weirproxy/weir/internal/catalog"
	"github.com/weirproxy/weir/internal/completeness"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/console"
	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/credential"
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/identity"
	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/policy/policystore"
	"github.com/weirproxy/weir/internal/proto/tcp"
	"github.com/weirproxy/weir/internal/record"
	"github.com/weirproxy/weir/internal/redirect"
	"github.com/weirproxy/weir/internal/seal"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlparse"
	"github.com/weirproxy/weir/internal/telemetry"
	"github.com/weirproxy/weir/internal/upstream"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// agent owns everything that runs on a node.
type agent struct {
	cfg     *config.Config
	log     *slog.Logger
	started time.Time

	audit     *audit.Spool
	sealer    *seal.Sealer
	telemetry *telemetry.Telemetry
	policy    *policystore.Store
	budgets   *budget.Book
	secrets   *credential.Store
	logins    *credential.Book
	authority *ca.CA
	parser    *sqlparse.Pool
	redirect  *redirect.Redirector
	identity  *identity.Manager
	catalogs  *catalog.Cache
	approvals approval.Service
	held      *approval.Manager // the same as approvals, for the gate
	recorder  *record.Recorder
	sessions  *session.Server
	accept    *accept.Acceptor
	ledger    *completeness.Ledger
	control   *control.Server[*identity.Caller]
	console   *console.Console // nil: it does not listen

	ready  atomic.Bool
	failed chan error // what ends the agent

	mu      sync.Mutex
	problem map[string]string // what is wrong although the agent runs, by part
	stops   []stop
}

// stop takes one part down.
type stop struct {
	name string
	run  func() error
}

func (a *agent) onStop(name string, run func() error) { a.stops = append(a.stops, stop{name, run}) }

func (a *agent) stopAll() error {
	a.ready.Store(false)
	var errs []error
	for _, s := range slices.Backward(a.stops) {
		if err := s.run(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
	}
	a.stops = nil
	return errors.Join(errs...)
}

// setProblem notes what `weir status` shows of a part; "" clears it.
func (a *agent) setProblem(part, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if text == "" {
		delete(a.problem, part)
		return
	}
	a.problem[part] = text
}

// run starts a part that works until it is told to stop; the agent ends when it
// fails by itself.
func (a *agent) run(name string, work func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := work(ctx); err != nil && ctx.Err() == nil {
			select {
			case a.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	}()
	a.onStop(name, func() error { cancel(); <-done; return nil })
}

// start brings the parts up: what records first, what captures before what
// serves, the control socket last. Each step registers how it is stopped.
func (a *agent) start(ctx context.Context) error {
	a.failed, a.problem = make(chan error, 1), map[string]string{}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"state directory", a.makeDirs},
		{"audit log", a.startAudit},
		{"telemetry", a.startTelemetry},
		{"policy", a.startPolicy},
		{"budgets", a.startBudgets},
		{"credentials", a.startCredentials},
		{"anchors", a.startAnchors},
		{"certificate authority", a.startCA},
		{"SQL parser", a.startParser},
		{"account of connections", a.makeLedger},
		{"redirect", a.startRedirect},
		{"identity", a.startIdentity},
		{"console pages", a.makeConsole},
		{"approvals", a.startApprovals},
		{"recordings", a.startRecorder},
		{"sessions", a.startSessions},
		{"account of connections before", a.startLedger},
		{"accept", a.startAccept},
		{"control socket", a.startControl},
		{"console", a.startConsole},
	}
	for _, s := range steps {
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	a.ready.Store(true)
	return nil
}

func (a *agent) keys() string { return filepath.Join(a.cfg.StateDir, "keys") }

func (a *agent) makeDirs(context.Context) error {
	for _, d := range []string{a.cfg.StateDir, a.keys(), filepath.Join(a.cfg.StateDir, "kv")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) startAudit(ctx context.Context) error {
	spool, err := audit.Open(audit.Config{StateDir: a.cfg.StateDir, Node: a.cfg.Node, Durability: audit.Durability(a.cfg.Audit.Durability), Log: a.log})
	if err != nil {
		return err
	}
	a.audit = spool
	a.onStop("audit log", spool.Close)
	if err := a.startSealer(); err != nil {
		return err
	}
	if err := a.record(ctx, &auditlog.Event{Kind: auditlog.AgentStart, Reason: "weir " + version}); err != nil {
		return err
	}
	a.onStop("audit log's last word", func() error {
		return a.record(context.Background(), &auditlog.Event{Kind: auditlog.AgentStop})
	})
	return nil
}

// record writes an event that no flow owns; it waits for the disk.
func (a *agent) record(ctx context.Context, ev *auditlog.Event) error {
	ev.Node = a.cfg.Node
	return a.audit.Append(ctx, true, ev)
}

func (a *agent) startTelemetry(ctx context.Context) error {
	t, err := telemetry.Open(ctx, telemetry.Config{Endpoint: a.cfg.Audit.OTLP.Endpoint, Headers: a.cfg.Audit.OTLP.Headers, Node: a.cfg.Node, Version: version, Log: a.log})
	if err != nil {
		return err
	}
	a.telemetry = t
	a.onStop("telemetry", t.Close)
	feed := a.audit.Subscribe(nil, 4096)
	a.run("telemetry feed", func(ctx context.Context) error {
		defer feed.Close()
		for {
			item, err := feed.Next(ctx)
			if err != nil {
				return err
			}
			t.Consume(item.Event, item.Raw)
		}
	})
	return nil
}

func (a *agent) startPolicy(context.Context) error {
	protocols := map[string]flow.Protocol{}
	for _, b := range a.cfg.Backends {
		protocols[b.Name] = b.Protocol
	}
	a.policy = policystore.New(policystore.Config{Paths: a.cfg.PolicyFiles, Protocols: protocols, OnLoad: a.onPolicy})
	if _, err := a.policy.Load(); err != nil {
		return err
	}
	a.run("policy watch", a.policy.Watch)
	return nil
}

func (a *agent) onPolicy(_, after *policy.Set, err error) {
	ev := &auditlog.Event{Kind: auditlog.PolicyLoad, Policy: after.Revision()}
	if err != nil {
		ev.Reason = "not loaded, the policy before stays in force: " + err.Error()
		a.setProblem("policy", "the policy files do not load ("+err.Error()+"); the policy before stays in force")
		a.log.Error("the policy does not load; the one before stays in force", "error", err)
	} else {
		ev.PolicyFiles = a.policyFiles(after.Revision())
		a.setProblem("policy", "")
		a.log.Info("policy loaded", "policy", after.Revision())
		for _, w := range after.Warnings() {
			a.log.Warn("the policy may allow more than it seems to; see `weir policy check`", "warning", fmt.Sprint(w))
		}
	}
	if err := a.record(context.Background(), ev); err != nil {
		a.log.Error("a policy change could not be recorded", "error", err)
	}
}

func (a *agent) startBudgets(context.Context) error {
	book, err := budget.Open(budget.Config{File: filepath.Join(a.cfg.StateDir, "kv", "budgets"), Now: time.Now, Log: a.log})
	if err != nil {
		return err
	}
	a.budgets = book
	a.onStop("budgets", book.Close)
	return nil
}

func (a *agent) startCredentials(context.Context) error {
	bao := a.cfg.Secrets.Bao
	store, err := credential.Open(credential.Config{AgeIdentities: a.cfg.Secrets.AgeIdentities, Log: a.log,
		Bao: credential.Bao{Address: bao.Address, TokenFile: bao.TokenFile, CAFile: bao.CAFile, Namespace: bao.Namespace}})
	if err != nil {
		return err
	}
	a.secrets = store
	a.onStop("credentials", func() error { store.Close(); return nil })
	entries := map[string][]credential.Entry{}
	for _, b := range a.cfg.Backends {
		for _, c := range b.Credentials {
			entries[b.Name] = append(entries[b.Name], credential.Entry{Groups: c.Groups, Username: c.Username, Password: c.Password,
				PrivateKey: c.PrivateKey, BearerToken: c.BearerToken, Headers: c.Headers})
		}
	}
	a.logins = credential.NewBook(store, entries)
	return nil
}

func (a *agent) startCA(context.Context) (err error) {
	a.authority, err = ca.Open(ca.Config{Dir: a.keys(), Node: a.cfg.Node})
	return err
}

func (a *agent) startParser(context.Context) (err error) {
	if a.parser, err = sqlparse.New(sqlparse.Config{Log: a.log}); err == nil {
		a.onStop("SQL parser", func() error { a.parser.Close(); return nil })
	}
	return err
}

func (a *agent) startRedirect(ctx context.Context) error {
	// Names are looked up first: what they point to is protected from the first
	// moment on.
	resolver, destinations, err := a.resolve(ctx)
	if err != nil {
		return err
	}
	r, err := redirect.Open(redirect.Config{
		Cgroups: a.cfg.Intercept.Cgroups, BPFFS: a.cfg.Intercept.BPFFS, ProxyPort: a.cfg.Intercept.ProxyPort,
		Destinations: destinations, Backends: a.backendNames(), OnBypass: a.onBypass, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.redirect = r
	a.onStop("redirect", r.Close)
	if resolver != nil {
		// The resolver keeps old addresses itself, so nothing else needs a grace.
		apply := func(d []redirect.Destination) error { return r.SetDestinations(d, 0) }
		a.run("resolver", func(ctx context.Context) error { resolver.Run(ctx, apply); return nil })
	}
	older, err := r.Older(ctx)
	if err != nil {
		a.log.Warn("connections older than the agent could not be listed", "error", err)
	}
	for _, s := range older {
		text := fmt.Sprintf("a connection older than the agent goes past it: %s to %s, uid %d", s.Local, s.Destination, s.UID)
		a.log.Warn(text)
		if err := a.record(ctx, &auditlog.Event{Kind: auditlog.Gap, Backend: a.cfg.Backends[s.Backend].Name, Destination: s.Destination.String(), Reason: text}); err != nil {
			return err
		}
	}
	if len(older) > 0 {
		a.setProblem("older connections", fmt.Sprintf("%d connections to protected backends are older than the agent and go past it", len(older)))
	}
	return nil
}

func (a *agent) onBypass(b redirect.Bypass) {
	ev := &auditlog.Event{Kind: auditlog.BypassBlocked, Destination: b.Local.String(), Verdict: string(flow.Deny),
		Reason: fmt.Sprintf("a connection from %s to the proxy port itself", b.Peer)}
	if b.Missed > 0 {
		ev.Reason += fmt.Sprintf("; %d more before it came too fast to report", b.Missed)
	}
	if b.Record != nil {
		ev.Process = &auditlog.Process{PID: b.Record.Process.PID, Comm: b.Record.Process.Comm, UID: b.Record.Process.UID}
		ev.Destination = b.Record.Destination.String()
		ev.Reason = fmt.Sprintf("a connection from %s whose record does not count: %v", b.Peer, b.Err)
	}
	if err := a.record(context.Background(), ev); err != nil {
		a.log.Error("a blocked bypass could not be recorded", "error", err)
	}
}

func (a *agent) startIdentity(ctx context.Context) error {
	var issuers []identity.Issuer
	for _, i := range a.cfg.Identity.Issuers {
		issuers = append(issuers, identity.Issuer{Issuer: i.Issuer, ClientID: i.ClientID, Audiences: i.Audiences,
			UserClaim: i.UserClaim, GroupsClaim: i.GroupsClaim, Kind: i.Kind, CAFile: i.CAFile})
	}
	m, err := identity.New(ctx, identity.Config{Issuers: issuers, StateDir: a.cfg.StateDir, Attach: a.redirect.AttachCgroup,
		Detach: a.redirect.DetachCgroup, OnChange: a.onIdentity, Log: a.log})
	if err != nil {
		return err
	}
	a.identity = m
	a.onStop("identity", m.Close)
	return nil
}

// onIdentity records a change of a binding and cuts what hangs on an ended one.
func (a *agent) onIdentity(ctx context.Context, e identity.Event) error {
	ev := &auditlog.Event{Kind: auditlog.IdentityBind, Session: e.Binding.ID, Principal: session.PrincipalEvent(e.Binding.Principal), Reason: e.Reason}
	if e.Type == identity.Unbound || e.Type == identity.Expired {
		ev.Kind = auditlog.IdentityUnbind
		if e.Type == identity.Expired {
			ev.Reason = string(flow.ReasonExpired)
		}
	}
	if e.Process != nil {
		ev.Process = session.ProcessEvent(e.Process)
	}
	err := a.record(ctx, ev)
	// Expiry is the gate's: the next action is refused with words, then the flow ends.
	if e.Type == identity.Unbound && a.sessions != nil {
		a.sessions.Live().Revoke(func(p *flow.Principal) bool { return p.Session == e.Binding.ID }, session.ErrRevoked)
	}
	return err
}

// identifier gives the gate's words to the identity package's answers.
type identifier struct{ *identity.Manager }

func (i identifier) Identify(ctx context.Context, p *flow.Process) (*flow.Principal, error) {
	who, err := i.Manager.Identify(ctx, p)
	if errors.Is(err, identity.ErrExpired) {
		return nil, &session.Refusal{Reason: flow.ReasonExpired, Fatal: true, Message: "weir: " + err.Error()}
	}
	return who, err
}

func (a *agent) startSessions(ctx context.Context) error {
	dialer, err := upstream.New(upstream.Config{Backends: a.upstreamBackends(), DialNetNS: a.redirect.DialNetNS, Credentials: a.logins, Log: a.log})
	if err != nil {
		return err
	}
	pg, err := a.postgresHandler(dialer)
	if err != nil {
		return err
	}
	a.sessions = session.New(session.Config{
		Node: a.cfg.Node, Observe: a.cfg.Intercept.Mode == config.Observe,
		Identify: identifier{a.identity}, Policy: func() session.Policy { return a.policy.Current() }, Record: a.ledger, Budgets: a.budgets, Approvals: a.held, Recordings: a.recorder,
		Login: a.logins.Login,
		Handlers: map[flow.Protocol]session.Handler{
			flow.Postgres: pg,
			flow.TCP:      tcp.New(tcp.Config{Dial: dialer.Dial}),
		},
		Now: time.Now, Log: a.log,
	})
	for _, b := range a.cfg.Backends {
		if a.sessions.Handlers[b.Protocol] == nil {
			text := fmt.Sprintf("backend %q: this version has no engine for protocol %s, so every connection to it is refused and recorded", b.Name, b.Protocol)
			a.setProblem("backend "+b.Name, text)
			a.log.Warn(text)
		}
	}
	return nil
}

// maskKeySize is what mask.NewKey takes, bytes.
const maskKeySize = 64

// maskKey is the node's key for hashes and tokens.
func (a *agent) maskKey() (*mask.Key, error) {
	b, err := a.secretKey("mask.key", maskKeySize)
	if err != nil {
		return nil, err
	}
	return mask.NewKey(b)
}

func (a *agent) startAccept(context.Context) error {
	var backends []accept.Backend
	for _, b := range a.cfg.Backends {
		backends = append(backends, accept.Backend{Name: b.Name, Protocol: b.Protocol})
	}
	acceptor, err := accept.New(accept.Config{Node: a.cfg.Node, Backends: backends, Next: a.next, CgroupPath: a.redirect.CgroupPath,
		MaxFlows: maxFlows(), OnRefused: a.onRefused, Log: a.log})
	if err != nil {
		return err
	}
	a.accept = acceptor
	// Flows live on this context: cancelling it is the last resort of stopping.
	flows, cancel := context.WithCancelCause(context.Background())
	a.onStop("flows", func() error {
		cancel(session.ErrDrained)
		ctx, done := context.WithTimeout(context.Background(), drainTimeout)
		defer done()
		return acceptor.Drain(ctx)
	})
	a.run("accept", func(ctx context.Context) error {
		return acceptor.Serve(ctx, func(c *accept.Conn) { a.serveFlow(flows, c) })
	})
	return nil
}

// Descriptors: two sockets a flow; the rest is for namespaces, maps, the log and
// the control socket.
const (
	descriptorsPerFlow = 2
	otherDescriptors   = 2048
)

// maxFlows is how many flows the limit of open files (RLIMIT_NOFILE; Go raises it
// to the hard limit) has room for.
func maxFlows() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return accept.DefaultMaxFlows
	}
	room := (int64(min(limit.Cur, 1<<30)) - otherDescriptors) / descriptorsPerFlow
	return int(min(max(room, 1), accept.DefaultMaxFlows))
}

func (a *agent) next(ctx context.Context) (*net.TCPConn, accept.Origin, error) {
	c, err := a.redirect.Accept(ctx)
	if err != nil {
		return nil, accept.Origin{}, err
	}
	a.claimed(c.Record.Backend)
	return c.TCPConn, accept.Origin{Destination: c.Record.Destination, Backend: c.Record.Backend, Process: c.Record.Process}, nil
}

func (a *agent) onRefused(f *flow.Flow, err error) {
	ev := &auditlog.Event{Kind: auditlog.FlowRefused, Verdict: string(flow.Deny), Reason: err.Error()}
	if f != nil {
		ev.Flow, ev.Backend, ev.Protocol, ev.Destination = string(f.ID), f.Backend, string(f.Protocol), f.Destination.String()
		ev.Process = session.ProcessEvent(&f.Process)
	}
	a.recordRefused(f, ev)
}

func (a *agent) tlsFor(g *session.Gate, names []string) *tls.Config {
	return a.authority.TLSConfig(ca.Server{Destination: g.Flow().Destination.Addr(), Names: names, ALPN: []string{"postgresql"}})
}
