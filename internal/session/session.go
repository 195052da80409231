// Package session is the spine: Serve, the gate, the Grant, the table of live
// flows and the driver that moves bytes through an engine.
//
// It declares the small interfaces that it uses; adapters meet them. Every
// engine reaches policy, audit and dialling through the Gate of its flow and in
// no other way. It knows no protocol and never looks at a payload.
package session

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// Conn is an accepted connection and the flow that the kernel says it is.
type Conn interface {
	net.Conn
	Flow() *flow.Flow
}

// Identifier says which verified principal a process is. Its errors are shown to
// the user: they say what to do and hold no secret. A *Refusal among them is taken
// as it is; anything else is no_identity.
type Identifier interface {
	Identify(ctx context.Context, p *flow.Process) (*flow.Principal, error)
	// Current is the principal that a binding (Principal.Session) stands for now:
	// the renewed one when the same person has signed in again.
	Current(session string) (*flow.Principal, error)
}

// Recorder keeps events. Append returns when they are as durable as the
// configuration asks, with disk at least on disk; all of them or none.
type Recorder interface {
	Append(ctx context.Context, disk bool, events ...*auditlog.Event) error
}

// Policy is one compiled revision of the policy.
type Policy interface {
	Revision() string
	Decide(policy.Input) policy.Decision
	Masks(p *flow.Principal, backend string) []*policy.Mask
	// Recording is the strictest recording (policy.Record*) that any rule could ask for
	// what the principal does at a backend; "" for none.
	Recording(p *flow.Principal, backend string) string
}

// Budgets keeps count of what actions take out of budgets that masks give a principal
// (flow.Spend), over all flows and restarts of the agent.
type Budgets interface {
	// Take takes all spends or none. left is what is left of the budget of each
	// afterwards; short is the first for which there is not enough, -1 when all were
	// taken. An error says why the budget of short cannot be counted.
	Take(who *flow.Principal, spends []flow.Spend) (left []int, short int, err error)
	// Look is Take without taking.
	Look(who *flow.Principal, spends []flow.Spend) (left []int, short int, err error)
}

// Handler speaks one protocol. Serve greets the client, asks the gate to admit
// the flow, dials with the Grant that it gets, and relays. It returns nil when
// the client ended the flow, an *End otherwise; it does not close c.
type Handler interface {
	Serve(ctx context.Context, c net.Conn, g *Gate) error
}

// Config is what a Server is made of. All fields are required except Observe,
// Budgets, Approvals and Recordings.
type Config struct {
	Node     string
	Observe  bool // record what would be refused, refuse nothing
	Identify Identifier
	Policy   func() Policy // the revision in force, asked for every decision
	Record   Recorder
	Budgets  Budgets // nil: what spends from a budget is refused
	// Approvals brings actions before other people; nil: what needs that is refused.
	Approvals Approvals
	// Recordings records sessions; nil: what has to be recorded is refused.
	Recordings Recordings
	// Login names the account that a principal uses at a backend; false when no
	// credential is meant for them.
	Login    func(backend string, p *flow.Principal) (string, bool)
	Handlers map[flow.Protocol]Handler
	Now      func() time.Time
	Log      *slog.Logger
}

// Server serves flows. It starts no goroutine of its own but the relays' and
// waits for those.
type Server struct {
	Config
	live *Live
	seed maphash.Seed // of the flows' memos
}

// New makes a server with an empty table of live flows.
func New(c Config) *Server { return &Server{Config: c, live: newLive(c.Now), seed: maphash.MakeSeed()} }

// Live is the table of live flows.
func (s *Server) Live() *Live { return s.live }

// Serve takes one flow from identification to its last record and closes c. The
// flow is entered in the table of live flows before the first verdict, so that a
// revocation in between finds it.
func (s *Server) Serve(ctx context.Context, c Conn) {
	f := c.Flow()
	entry, ctx := s.live.enter(ctx, f)
	defer entry.leave()
	defer c.Close()

	g := &Gate{server: s, flow: f, entry: entry, memo: memo{seed: s.seed}}
	entry.onExpiry(g.renew)
	who, whoErr := s.identify(ctx, entry, &f.Process)
	g.who.Store(who)
	g.whoErr = whoErr

	var err error
	if h := s.Handlers[f.Protocol]; h != nil {
		if r, ok := h.(RecordingHandler); ok {
			g.recording.can = r.Recorded()
		}
		stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
		err = s.handle(ctx, h, c, g)
		stop()
	} else {
		err = &End{Reason: flow.ReasonUnsupported, Err: fmt.Errorf("this version of weir has no engine for protocol %q", f.Protocol)}
	}
	reason := reasonOf(ctx, err)
	if recErr := g.finish(reason, err); recErr != nil {
		s.Log.Error("the end of a flow could not be recorded", "flow", f.ID, "error", recErr)
	}
	s.Log.Info("flow", "flow", f.ID, "backend", f.Backend, "reason", reason, "pid", f.Process.PID, "error", errText(err))
}

// handle is the handler's Serve, whose panic ends this flow only.
func (s *Server) handle(ctx context.Context, h Handler, c net.Conn, g *Gate) (err error) {
	defer s.recovered(g.flow.ID, &err)
	return h.Serve(ctx, c, g)
}

// recovered is deferred where code of one flow must not end the agent.
func (s *Server) recovered(id flow.ID, err *error) {
	if p := recover(); p != nil {
		s.panicked(id, p, err)
	}
}

// panicked turns a panic into the flow's end. Its value is not logged: it may
// hold a payload; the stack tells where it was.
func (s *Server) panicked(id flow.ID, p any, err *error) {
	s.Log.Error("a fault in weir ended a flow; please report it", "flow", id, "kind", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	*err = &End{Reason: flow.ReasonInternal, Err: errors.New("a fault in weir ended the flow")}
}

// identify asks again when a revocation came between the answer and its entry in
// the table, where Revoke could not have seen it.
func (s *Server) identify(ctx context.Context, e *entry, p *flow.Process) (*flow.Principal, error) {
	for {
		epoch := s.live.epoch.Load()
		who, err := s.Identify.Identify(ctx, p)
		e.setPrincipal(who)
		if s.live.epoch.Load() == epoch {
			return who, err
		}
	}
}

// End is the error of a flow that something other than the client ended.
type End struct {
	Reason flow.Reason
	Err    error // for the operator's log; may be nil
}

func (e *End) Error() string {
	if e.Err == nil {
		return string(e.Reason)
	}
	return string(e.Reason) + ": " + e.Err.Error()
}

func (e *End) Unwrap() error { return e.Err }

// Causes for which a live flow is cut. They are context causes.
var (
	ErrExpired = errors.New("the sign-in that this connection hangs on has expired")
	ErrRevoked = errors.New("the sign-in that this connection hangs on was withdrawn")
	ErrDrained = errors.New("weir is stopping on this node")
)

func reasonOf(ctx context.Context, err error) flow.Reason {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, ErrExpired), errors.Is(cause, ErrGrantExpired):
		return flow.ReasonExpired
	case errors.Is(cause, ErrRevoked), errors.Is(cause, ErrGrantWithdrawn):
		return flow.ReasonRevoked
	case errors.Is(cause, ErrDrained):
		return flow.ReasonDrained
	case errors.Is(cause, ErrRecorder):
		return flow.ReasonRecorder
	}
	var end *End
	var refusal *Refusal
	switch {
	case err == nil:
		return flow.ReasonClientClosed
	case errors.As(err, &end):
		return end.Reason
	case errors.As(err, &refusal):
		return refusal.Reason
	}
	return flow.ReasonInternal
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
