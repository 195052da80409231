// Package upstream is the only one that dials for a flow. It goes from the
// client's network namespace to where the client wanted to go (or to the
// backend's `dial`), proves that the server is the right one, and signs in with
// the backend's credentials.
//
// Everything it does wants a session.Grant, so nothing dials what the gate has
// not admitted. It keeps no password: each is asked for, used and wiped. It must
// never hand a client's credentials on, and never read the PG* variables, the
// password file or the service file of the account that the agent runs as.
//
// Its errors are *session.End around an *Error whose text may be shown to the
// user after "weir: ".
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
)

// Backend is what upstream must know of one backend of the configuration.
type Backend struct {
	// Dial is host:port to go to; empty: where the client wanted to go.
	Dial string
	// Names are the host names under `addresses`. A verified certificate may
	// carry any of them when TLS.ServerName is empty.
	Names []string
	TLS   TLS
}

// Credentials give the account that a principal uses at a backend.
type Credentials interface {
	// Password returns the account and its password, nil for none. The bytes are
	// the caller's, who clears them.
	Password(ctx context.Context, backend string, p *flow.Principal) (username string, password []byte, err error)
	// Rejected is told that the backend did not take the password.
	Rejected(backend string, p *flow.Principal)
}

// Config is what a Dialer is made of. LookupHost and Log have defaults.
type Config struct {
	Backends map[string]Backend
	// DialNetNS connects from the network namespace with the given cookie.
	DialNetNS   func(ctx context.Context, cookie uint64, network, address string) (net.Conn, error)
	Credentials Credentials
	// LookupHost resolves the host of a backend's Dial in the agent's own
	// namespace. Default: net.DefaultResolver.
	LookupHost func(ctx context.Context, host string) ([]string, error)
	Log        *slog.Logger
}

// Dialer dials for flows. It is safe for concurrent use and keeps no connection.
type Dialer struct {
	Config
	backends map[string]*backend
	// pg is the base of every pgconn configuration, see newTemplate.
	pg *pgconn.Config
}

type backend struct {
	name  string
	dial  string
	names []string
	tls   tlsPolicy
}

// New checks every backend and reads the CA files.
func New(c Config) (*Dialer, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.LookupHost == nil {
		c.LookupHost = net.DefaultResolver.LookupHost
	}
	pg, err := newTemplate()
	if err != nil {
		return nil, err
	}
	d := &Dialer{Config: c, backends: make(map[string]*backend, len(c.Backends)), pg: pg}
	for name, b := range c.Backends {
		if b.Dial != "" {
			if _, _, err := net.SplitHostPort(b.Dial); err != nil {
				return nil, fmt.Errorf("backend %q: dial %q is not host:port: %w", name, b.Dial, err)
			}
		}
		policy, err := newTLSPolicy(b)
		if err != nil {
			return nil, fmt.Errorf("backend %q: %w", name, err)
		}
		d.backends[name] = &backend{name: name, dial: b.Dial, names: b.Names, tls: policy}
	}
	return d, nil
}

// Bounds of connecting.
const (
	// connectTimeout is for one address: a SYN and two retransmissions (RFC 6298).
	connectTimeout = 8 * time.Second
	// signInTimeout is for everything up to the server's first ReadyForQuery;
	// PostgreSQL itself gives a client 60 s (authentication_timeout).
	signInTimeout = 30 * time.Second
	// maxAddresses bounds how many addresses of a name are tried.
	maxAddresses = 8
)

// ErrNoGrant means that somebody tried to dial without the gate's admission.
var ErrNoGrant = errors.New("no valid grant: only the gate of a flow admits it")

// Dial connects to the backend of an admitted flow. Nothing is sent: what the
// client's own protocol starts with, TLS too, is the client's.
func (d *Dialer) Dial(ctx context.Context, g session.Grant) (net.Conn, error) {
	b, f, err := d.admitted(g)
	if err != nil {
		return nil, err
	}
	return d.connect(ctx, b, &f)
}

// admitted looks up what a grant is for.
func (d *Dialer) admitted(g session.Grant) (*backend, flow.Flow, error) {
	if !g.Valid() {
		return nil, flow.Flow{}, &session.End{Reason: flow.ReasonInternal, Err: ErrNoGrant}
	}
	f := g.Flow()
	b := d.backends[f.Backend]
	if b == nil {
		return nil, f, &session.End{Reason: flow.ReasonInternal,
			Err: fmt.Errorf("backend %q is not in the configuration any more", f.Backend)}
	}
	return b, f, nil
}

// connect tries the backend's addresses one after the other.
func (d *Dialer) connect(ctx context.Context, b *backend, f *flow.Flow) (net.Conn, error) {
	addresses, err := d.addresses(ctx, b, f)
	if err != nil {
		return nil, err
	}
	var last error
	for _, a := range addresses {
		c, err := d.connectTo(ctx, f, a)
		if err == nil {
			return c, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, d.fail(f, unreachable(b, last))
}

func (d *Dialer) connectTo(ctx context.Context, f *flow.Flow, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return d.DialNetNS(ctx, f.Process.NetNS, "tcp", address)
}

// addresses are those to try, as ip:port.
func (d *Dialer) addresses(ctx context.Context, b *backend, f *flow.Flow) ([]string, error) {
	if b.dial == "" {
		return []string{unmapped(f.Destination).String()}, nil
	}
	host, port, err := net.SplitHostPort(b.dial)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{b.dial}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	ips, err := d.LookupHost(ctx, host)
	if err != nil || len(ips) == 0 {
		return nil, d.fail(f, &Error{Kind: Unreachable, cause: err,
			text: fmt.Sprintf("backend %q: the name %s of its server cannot be resolved; tell whoever keeps weir's configuration", b.name, host)})
	}
	ips = ips[:min(len(ips), maxAddresses)]
	all := make([]string, len(ips))
	for i, ip := range ips {
		all[i] = net.JoinHostPort(ip, port)
	}
	return all, nil
}

// unmapped turns a v4-mapped destination into plain IPv4: the namespace may have
// no IPv6 at all.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// serverNames are the names of which a verified certificate must carry one.
func (b *backend) serverNames(c net.Conn) []string {
	if b.tls.serverName != "" {
		return []string{b.tls.serverName}
	}
	if b.dial != "" {
		host, _, _ := net.SplitHostPort(b.dial)
		return []string{host}
	}
	names := append([]string(nil), b.names...)
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		names = append(names, a.AddrPort().Addr().Unmap().String())
	}
	return names
}

func portOf(address string) uint16 {
	_, p, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseUint(p, 10, 16)
	return uint16(n)
}
