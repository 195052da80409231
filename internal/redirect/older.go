package redirect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Socket is a TCP connection that goes to a protected destination directly, past the
// agent: it was made before the hooks were there, or from a cgroup without them.
type Socket struct {
	NetNS       uint64         `json:"netns"` // cookie
	Local       netip.AddrPort `json:"local"`
	Destination netip.AddrPort `json:"destination"`
	Backend     int            `json:"backend"`
	State       uint8          `json:"state"` // TCP_ESTABLISHED is 1, include/net/tcp_states.h
	UID         uint32         `json:"uid"`
	Inode       uint32         `json:"inode"`  // of the socket, as in /proc/PID/fd
	Cookie      uint64         `json:"cookie"` // SO_COOKIE
}

// ErrNoSockDiag means that the kernel cannot list TCP sockets: CONFIG_INET_TCP_DIAG is
// missing, or its module tcp_diag is not loaded and cannot be.
var ErrNoSockDiag = errors.New("the kernel cannot list TCP sockets; load its module tcp_diag")

// States of sockets that carry nothing any more, include/net/tcp_states.h.
const (
	tcpTimeWait = 6
	tcpClose    = 7
	tcpListen   = 10
)

// Older lists the connections to protected destinations that go past the agent, in
// every namespace that is served, by sock_diag(7). The agent's own are left out.
func (r *Redirector) Older(ctx context.Context) ([]Socket, error) {
	own, err := ownSockets()
	if err != nil {
		return nil, err
	}
	var found []Socket
	var errs []error
	for _, n := range r.listeners.snapshot() {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		sockets, err := tcpSockets(r.listeners, n)
		if err != nil {
			errs = append(errs, fmt.Errorf("list the sockets of network namespace %d: %w", n.cookie, err))
			continue
		}
		r.mu.Lock()
		for _, s := range sockets {
			if s, ok := r.older(n.cookie, s); ok {
				found = append(found, s)
			}
		}
		r.mu.Unlock()
	}
	// Asked again: what the agent opened between the two is its own as well.
	later, err := ownSockets()
	if err != nil {
		return nil, err
	}
	out := found[:0]
	for _, s := range found {
		if !own[s.Inode] && !later[s.Inode] {
			out = append(out, s)
		}
	}
	return out, errors.Join(errs...)
}

func (r *Redirector) older(cookie uint64, s *netlink.Socket) (Socket, bool) {
	switch s.State {
	case tcpTimeWait, tcpClose, tcpListen:
		return Socket{}, false
	}
	remote, ok := netip.AddrFromSlice(s.ID.Destination)
	local, ok2 := netip.AddrFromSlice(s.ID.Source)
	if !ok || !ok2 || s.INode == 0 { // without an inode no process holds it any more
		return Socket{}, false
	}
	to := netip.AddrPortFrom(remote.Unmap(), s.ID.DestinationPort)
	backend, ok := r.destinations.backend(to)
	if !ok {
		return Socket{}, false
	}
	return Socket{
		NetNS: cookie, Local: netip.AddrPortFrom(local.Unmap(), s.ID.SourcePort), Destination: to, Backend: backend,
		State: s.State, UID: s.UID, Inode: s.INode, Cookie: uint64(s.ID.Cookie[1])<<32 | uint64(s.ID.Cookie[0]),
	}, true
}

// tcpSockets dumps both families of a namespace.
func tcpSockets(l *listeners, n *namespace) ([]*netlink.Socket, error) {
	ns, err := l.file(n.cookie)
	if err != nil {
		if errors.Is(err, ErrNoNamespace) {
			return nil, nil // it ended meanwhile, and its sockets with it
		}
		return nil, err
	}
	if ns != nil {
		defer ns.Close()
	}
	var out []*netlink.Socket
	err = inNamespace(ns, func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			infos, err := netlink.SocketDiagTCPInfo(family)
			if errors.Is(err, unix.ENOENT) {
				return ErrNoSockDiag
			}
			if err != nil {
				return err
			}
			for _, i := range infos {
				out = append(out, i.InetDiagMsg)
			}
		}
		return nil
	})
	return out, err
}

// ownSockets are the inodes of the sockets that this process holds.
func ownSockets() (map[uint32]bool, error) {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	out := make(map[uint32]bool)
	for _, n := range names {
		target, err := os.Readlink("/proc/self/fd/" + n.Name())
		var inode uint32
		if err == nil && strings.HasPrefix(target, "socket:") {
			if _, err := fmt.Sscanf(target, "socket:[%d]", &inode); err == nil {
				out[inode] = true
			}
		}
	}
	return out, nil
}
