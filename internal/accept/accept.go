// Package accept turns connections that the kernel handed over into flows: it adds
// what /proc and the cgroup tree know about the process, names the backend, gives
// the flow its id, bounds how many run at once, and drains them.
//
// It does not know how connections are redirected (internal/redirect does), reads no
// byte of any connection and decides nothing. What it cannot find out it leaves
// empty; it never guesses.
package accept

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/weirproxy/weir/internal/flow"
)

// DefaultMaxFlows bounds the flows that run at once. Each holds two sockets, and
// systemd's default limit is 524288 descriptors (systemd.exec(5), LimitNOFILE).
const DefaultMaxFlows = 16384

// Origin is what the kernel says about a connection.
type Origin struct {
	Destination netip.AddrPort // where the client wanted to go
	Backend     int            // index into Config.Backends
	Process     flow.Process   // without Exe, Cgroup and Pod
}

// Backend is what a flow needs to know of a configured backend.
type Backend struct {
	Name     string
	Protocol flow.Protocol
}

// Config is what an Acceptor is made of.
type Config struct {
	Node     string
	Backends []Backend // in the order of the destinations' indices
	// Next returns the next connection; an error ends Serve. It must return when ctx ends.
	Next func(ctx context.Context) (*net.TCPConn, Origin, error)
	// CgroupPath finds a cgroup by its id, below the cgroup v2 mount.
	CgroupPath func(id uint64) (string, error)
	// MaxFlows bounds the flows at once; half of them may come from one cgroup. 0
	// is DefaultMaxFlows.
	MaxFlows int
	// OnRefused is told of a connection that was closed before it became a flow that
	// is served. It is called on the accept loop and must not block for long. May be nil.
	OnRefused func(f *flow.Flow, err error)
	Now       func() time.Time // nil: time.Now
	Log       *slog.Logger
}

// Reasons for OnRefused.
var (
	ErrTooMany   = errors.New("too many connections at once")
	ErrNoBackend = errors.New("the destination belongs to no configured backend")
)

// Conn is an accepted connection and the flow that it is.
type Conn struct {
	*net.TCPConn
	flow *flow.Flow
}

// Flow describes the connection. Its Process is complete as far as it can be known.
func (c *Conn) Flow() *flow.Flow { return c.flow }

// Acceptor makes flows of connections and keeps count of those that run.
type Acceptor struct {
	config  Config
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows
	total    int
	byCgroup map[uint64]int
}

// New makes an acceptor. It opens nothing.
func New(c Config) (*Acceptor, error) {
	if c.Next == nil || c.CgroupPath == nil || c.Log == nil || c.MaxFlows < 0 {
		return nil, errors.New("accept: Next, CgroupPath and Log are needed")
	}
	if c.MaxFlows == 0 {
		c.MaxFlows = DefaultMaxFlows
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.OnRefused == nil {
		c.OnRefused = func(*flow.Flow, error) {}
	}
	return &Acceptor{config: c, byCgroup: make(map[uint64]int)}, nil
}

// Serve takes connections until ctx ends or Next fails, and runs handle for each on
// a goroutine of its own. handle owns the connection. Serve returns at once then;
// flows go on until Drain has waited for them. The error is nil when ctx ended.
func (a *Acceptor) Serve(ctx context.Context, handle func(*Conn)) error {
	for {
		tcp, origin, err := a.config.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("take the next connection: %w", err)
		}
		f, err := a.flow(&origin)
		if err == nil {
			err = a.enter(f.Process.CgroupID)
		}
		if err != nil {
			a.refuse(tcp, f, err)
			continue
		}
		a.running.Go(func() {
			defer a.leave(f.Process.CgroupID)
			// Looked up here: /proc and the cgroup tree are slow, the loop must not be.
			a.describe(&f.Process)
			handle(&Conn{tcp, f})
		})
	}
}

func (a *Acceptor) flow(o *Origin) (*flow.Flow, error) {
	now := a.config.Now()
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	f := &flow.Flow{
		ID: flow.ID(id.String()), Node: a.config.Node, Destination: o.Destination, Process: o.Process, Start: now,
	}
	if err != nil {
		return f, fmt.Errorf("make a flow id: %w", err)
	}
	if o.Backend < 0 || o.Backend >= len(a.config.Backends) {
		return f, fmt.Errorf("%s: %w", o.Destination, ErrNoBackend)
	}
	b := a.config.Backends[o.Backend]
	f.Backend, f.Protocol = b.Name, b.Protocol
	return f, nil
}

func (a *Acceptor) refuse(c *net.TCPConn, f *flow.Flow, err error) {
	_ = c.SetLinger(0) // a reset: nobody is to think that the end was a regular one
	_ = c.Close()
	a.config.Log.Warn("connection refused", "destination", f.Destination, "pid", f.Process.PID, "error", err)
	a.config.OnRefused(f, err)
}

// enter counts a flow in. One cgroup may hold half of the places, so that one pod
// cannot shut out the node.
func (a *Acceptor) enter(cgroup uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.total >= a.config.MaxFlows {
		return fmt.Errorf("%w: %d on this node", ErrTooMany, a.total)
	}
	if n := a.byCgroup[cgroup]; n >= max(1, a.config.MaxFlows/2) {
		return fmt.Errorf("%w: %d from one cgroup", ErrTooMany, n)
	}
	a.total++
	a.byCgroup[cgroup]++
	return nil
}

func (a *Acceptor) leave(cgroup uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	if a.byCgroup[cgroup]--; a.byCgroup[cgroup] == 0 {
		delete(a.byCgroup, cgroup)
	}
}

// Running is the number of flows that run now.
func (a *Acceptor) Running() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}

// Drain waits until every flow has ended, or ctx has; then its error says how many
// are left. Call it after Serve has returned; it may be called again.
func (a *Acceptor) Drain(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the last flow
		a.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d flows still run: %w", a.Running(), context.Cause(ctx))
	}
}
