// Package tcp is the engine for protocols that Weir does not speak: who may
// connect where is decided and recorded, the bytes pass through unread. It is
// also the smallest engine there is, and shows what one must do.
//
// It never looks at a byte, so it records no action but the connection and says
// so: assurance passthrough.
package tcp

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// assurance of the flows of this engine (contract, section 4).
const assurance = "passthrough"

// Config is what a Handler is made of.
type Config struct {
	// Dial connects to the backend of an admitted flow.
	Dial func(ctx context.Context, g session.Grant) (net.Conn, error)
}

// Handler serves flows of backends with protocol tcp.
type Handler struct{ Config }

// New makes a handler.
func New(c Config) *Handler { return &Handler{c} }

// Serve implements session.Handler. A client that is refused sees the connection
// close: there is no protocol in which to say why.
func (h *Handler) Serve(ctx context.Context, client net.Conn, g *session.Gate) error {
	g.WaitOn(session.Waiter{Conn: client})
	grant, err := g.Admit(ctx, "", resource(g.Flow().Destination))
	if err != nil {
		return err
	}
	server, err := h.Dial(ctx, grant)
	if err != nil {
		return err
	}
	if err := g.Opened(ctx, auditlog.Upstream{Address: server.RemoteAddr().String()}, assurance); err != nil {
		server.Close()
		return err
	}
	s := newHalfCloser(server, client)
	err = session.Relay(ctx, g, passThrough{}, client, s)
	if err == nil && s.serverWasFirst() {
		return &session.End{Reason: flow.ReasonServerClosed}
	}
	return err
}

// resource is a destination as policies write it, host:port.
func resource(d netip.AddrPort) string {
	return netip.AddrPortFrom(d.Addr().Unmap(), d.Port()).String()
}

// passThrough is the session.Engine that hands everything on.
type passThrough struct{}

func (passThrough) Client(b []byte, out *session.Output) (int, error) {
	out.ToServer.Forward(b)
	return len(b), nil
}

func (passThrough) Server(b []byte, out *session.Output) error {
	out.ToClient.Forward(b)
	return nil
}

func (passThrough) Pending() *session.Question { return nil }

func (passThrough) Answer(*session.Answered, *session.Output) error {
	return errors.New("tcp: an answer to no question")
}

func (passThrough) Held(session.Notice, *session.Output) {}

// Idle is never true: what passes is unknown, so is what would be lost.
func (passThrough) Idle() bool { return false }

func (passThrough) Goodbye(*session.Refusal, *session.Output) {}
func (passThrough) End(*session.Output)                       {}
