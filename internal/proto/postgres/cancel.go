package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// cancels finds the live session behind a key that weir handed out. The server's own
// keys never leave this package.
type cancels struct {
	mu   sync.Mutex
	live map[cancelKey]*cancellable
}

// cancellable is a live session.
type cancellable struct {
	gate    *session.Gate
	grant   session.Grant
	who     *flow.Principal
	pid     uint32
	secret  []byte
	address string
}

// add enters a session under a fresh key.
func (c *cancels) add(s *cancellable) cancelKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live == nil {
		c.live = make(map[cancelKey]*cancellable)
	}
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		// Process ids are positive.
		k := cancelKey{binary.BigEndian.Uint32(b[:4])&0x7fffffff | 1, binary.BigEndian.Uint32(b[4:])}
		if _, taken := c.live[k]; !taken {
			c.live[k] = s
			return k
		}
	}
}

func (c *cancels) remove(k cancelKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.live, k)
}

func (c *cancels) find(k cancelKey) *cancellable {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live[k]
}

// cancel serves a connection that asks for a cancellation. It is a flow of its own:
// one that works is opened and closed with reason cancel_request; one with a key
// that is unknown or another person's is refused with the same reason. The client
// is told nothing, as by a server.
func (h *Handler) cancel(ctx context.Context, g *session.Gate, k cancelKey) error {
	s := h.cancels.find(k)
	if s == nil || !samePerson(s.who, g.Principal()) || s.grant.Flow().Backend != g.Flow().Backend {
		return &session.End{Reason: flow.ReasonCancelRequest, Err: errors.New("no session of this person has that key")}
	}
	database := s.grant.Flow().Database
	if _, err := g.AdmitBeside(ctx, s.grant, database, "database:"+database); err != nil {
		return err
	}
	if err := g.Opened(ctx, auditlog.Upstream{Address: s.address, PID: s.pid}, assurance); err != nil {
		return err
	}
	if s.gate.CancelHeld() {
		return &session.End{Reason: flow.ReasonCancelRequest}
	}
	if err := h.config.CancelUpstream(ctx, s.grant, s.pid, s.secret); err != nil {
		return &session.End{Reason: flow.ReasonCancelRequest, Err: fmt.Errorf("cancelling at the backend: %w", err)}
	}
	return &session.End{Reason: flow.ReasonCancelRequest}
}

// samePerson compares issuer and subject. Nobody is the same as nobody: without an
// identity a flow only lives where weir observes.
func samePerson(a, b *flow.Principal) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Issuer == b.Issuer && a.Subject == b.Subject
}
