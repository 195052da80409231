package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// assurance of a flow whose every statement is read (contract, section 4).
const assurance = "inspected"

// Handler serves PostgreSQL clients. It implements session.Handler.
type Handler struct {
	config  Config
	cancels cancels
	cache   maskCache
	known   *mask.Set
}

// New makes a handler.
func New(c Config) (*Handler, error) {
	h := &Handler{config: c}
	// Bind parameters are recorded; values that a detector knows are not.
	rules := make([]mask.Rule, len(mask.BuiltIns))
	for i, name := range mask.BuiltIns {
		rules[i] = mask.Rule{Detector: name, Method: mask.Redact}
		if c.Masks.Key != nil {
			rules[i].Method = mask.Hash
		}
	}
	var err error
	h.known, err = mask.Compile(rules, nil, c.Masks.Key)
	return h, err
}

// Serve implements session.Handler.
func (h *Handler) Serve(ctx context.Context, c net.Conn, g *session.Gate) error {
	gr := &greeting{handler: h, gate: g, conn: c}
	if err := c.SetDeadline(h.config.Now().Add(startupTimeout)); err != nil {
		return &session.End{Reason: flow.ReasonInternal, Err: err}
	}
	if ctx.Err() != nil { // a cut before the deadline was set would be lost
		return &session.End{Reason: flow.ReasonRevoked, Err: context.Cause(ctx)}
	}
	defer func() {
		if t, ok := gr.conn.(*tls.Conn); ok {
			_ = t.CloseWrite() // close_notify: the end is no truncation
		}
	}()
	req, err := gr.read(ctx)
	if err != nil {
		return h.refuseStartup(gr.conn, err)
	}
	if req.cancel != nil {
		return h.cancel(ctx, g, *req.cancel)
	}
	return h.serve(ctx, gr.client(), g, req.startup)
}

// refuseStartup ends a connection that did not come as far as a startup.
func (h *Handler) refuseStartup(c net.Conn, err error) error {
	var words *startupError
	switch {
	case errors.As(err, &words):
		_, _ = c.Write(appendError(nil, "FATAL", words.code, words.message, 0))
		if words.code == codeDenied {
			return &session.End{Reason: flow.ReasonDenied, Err: err}
		}
		return &session.End{Reason: flow.ReasonProtocol, Err: err}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &session.End{Reason: flow.ReasonTimeout, Err: errSilent}
	case err == io.EOF:
		return nil // the client left without a word
	}
	return &session.End{Reason: flow.ReasonProtocol, Err: err}
}

// serve takes a client from its startup to its end.
func (h *Handler) serve(ctx context.Context, c net.Conn, g *session.Gate, s *startup) error {
	g.WaitOn(session.Waiter{Conn: c, Tell: func(n session.Notice) error {
		_, err := c.Write(s.tellHeld(n))
		return err
	}})
	grant, err := g.Admit(ctx, s.database, "database:"+s.database)
	if err != nil {
		return h.refuse(c, err)
	}
	if s.greeted { // the time for the rest of the login begins anew
		if err := c.SetDeadline(h.config.Now().Add(startupTimeout)); err != nil {
			return &session.End{Reason: flow.ReasonInternal, Err: err}
		}
		if ctx.Err() != nil {
			return &session.End{Reason: flow.ReasonRevoked, Err: context.Cause(ctx)}
		}
	}
	up, defaults, err := h.signIn(ctx, grant, s)
	if err != nil {
		return h.refuse(c, err)
	}
	defer up.Conn.Close()
	if err := g.Opened(ctx, auditlog.Upstream{Address: up.Address, PID: up.PID}, assurance); err != nil {
		return h.refuse(c, err)
	}
	key := h.cancels.add(&cancellable{gate: g, grant: grant, who: grant.Principal(), pid: up.PID, secret: up.Secret, address: up.Address})
	defer h.cancels.remove(key)
	if err := h.welcome(c, s, up, key); err != nil {
		return nil // the client left
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return &session.End{Reason: flow.ReasonInternal, Err: err}
	}
	e := NewEngine(EngineConfig{Config: &h.config, Grant: grant, Database: grant.Flow().Database, Defaults: defaults, Parameters: up.Parameters, Status: up.TxStatus, Ahead: g.Masks,
		cache: &h.cache, known: h.known, Set: startupState(s.params)})
	// What runs at the backend for a flow that is cut is cancelled there: it would go on.
	g.OnCut(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cancelTimeout)
		defer cancel()
		if err := h.config.CancelUpstream(ctx, grant, up.PID, up.Secret); err != nil {
			h.config.Log.Warn("what a cut flow runs at the backend could not be cancelled", "flow", grant.Flow().ID, "error", err)
		}
	})
	return session.Relay(ctx, g, e, c, up.Conn)
}

// cancelTimeout bounds the cancelling of what a cut flow runs.
const cancelTimeout = 5 * time.Second

// maxApplicationName is NAMEDATALEN-1: the server cuts application_name to it.
const maxApplicationName = 63

// signIn opens the session at the backend and finds out how it starts.
func (h *Handler) signIn(ctx context.Context, grant session.Grant, s *startup) (*Upstream, Defaults, error) {
	params := maps.Clone(s.params)
	name := "weir:" + string(grant.Flow().ID)
	if s.name != "" {
		name += " " + s.name
	}
	params["application_name"] = cutText(name, maxApplicationName)
	defaults, err := h.config.Defaults(ctx, grant)
	if err != nil {
		return nil, defaults, err
	}
	if path, ok := params["search_path"]; ok {
		defaults.SearchPath = path
	}
	up, err := h.config.SignIn(ctx, grant, params)
	if err != nil {
		return nil, defaults, err
	}
	if _, ok := up.Parameters["application_name"]; ok {
		up.Parameters = maps.Clone(up.Parameters)
		up.Parameters["application_name"] = s.name
	}
	if enc, ok := up.Parameters["client_encoding"]; ok && !safeEncoding(enc) {
		up.Conn.Close()
		return nil, defaults, &session.End{Reason: flow.ReasonUpstreamLogin, Err: errors.New("the backend gives its sessions a client_encoding that weir cannot read safely; set client_encoding to UTF8 in the client")}
	}
	return up, defaults, nil
}

// refuse tells the client why it does not get in, and passes the error on.
func (h *Handler) refuse(c net.Conn, err error) error {
	reason, message := flow.ReasonInternal, "weir: the connection could not be made"
	var refusal *session.Refusal
	var end *session.End
	switch {
	case errors.As(err, &refusal):
		reason, message = refusal.Reason, refusal.Message
	case errors.As(err, &end):
		reason = end.Reason
		if end.Err != nil && (reason == flow.ReasonUnreachable || reason == flow.ReasonUpstreamLogin) {
			message = "weir: " + end.Err.Error()
		}
	}
	_, _ = c.Write(appendError(nil, "FATAL", codeOf(reason), message, 0))
	return err
}

// welcome says to the client what a server says after a login.
func (h *Handler) welcome(c net.Conn, s *startup, up *Upstream, key cancelKey) error {
	var dst []byte
	if !s.greeted {
		dst = append(dst, s.negotiate...)
		dst = appendFrame(dst, 'R', 0, 0, 0, 0)
	}
	for _, name := range slices.Sorted(maps.Keys(up.Parameters)) {
		out, err := (&pgproto3.ParameterStatus{Name: name, Value: up.Parameters[name]}).Encode(dst)
		if err != nil {
			return err
		}
		dst = out
	}
	body := binary.BigEndian.AppendUint32(nil, key.pid)
	dst = appendFrame(dst, 'K', binary.BigEndian.AppendUint32(body, key.secret)...)
	_, err := c.Write(appendReady(dst, up.TxStatus))
	return err
}
