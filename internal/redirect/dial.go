package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoNamespace means that a network namespace is not served: it is gone, or none
// of its processes sits in an attached cgroup.
var ErrNoNamespace = errors.New("the network namespace is gone, or is not below an attached cgroup")

// stamp is the value of a stamped socket; the kernel looks at its presence only.
const stamp uint32 = 1

// keepAlive finds a dead peer after about two minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

// DialNetNS connects from the network namespace with that cookie (flow.Process.NetNS;
// 0 is the agent's own), so that source address and network policy are the client's.
// The socket carries the agent's stamp before it connects, so that it is not
// redirected. network is tcp, tcp4 or tcp6. A name is looked up in the agent's own
// namespace and its addresses are tried in turn; the kernel's error of the last one
// is wrapped.
func (r *Redirector) DialNetNS(ctx context.Context, cookie uint64, network, address string) (net.Conn, error) {
	targets, err := resolveTarget(ctx, network, address)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		var c net.Conn
		if c, err = r.dialOne(ctx, cookie, t); err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("connect to %s: %w", address, err)
}

func resolveTarget(ctx context.Context, network, address string) ([]netip.AddrPort, error) {
	lookup := map[string]string{"tcp": "ip", "tcp4": "ip4", "tcp6": "ip6"}[network]
	if lookup == "" {
		return nil, fmt.Errorf("dial %s: network %q is not tcp, tcp4 or tcp6", address, network)
	}
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return []netip.AddrPort{ap}, nil
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %q is not a port number", address, service)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, lookup, host)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, uint16(port)))
	}
	return out, nil
}

func (r *Redirector) dialOne(ctx context.Context, cookie uint64, to netip.AddrPort) (net.Conn, error) {
	var ns *os.File
	if cookie != 0 {
		var err error
		if ns, err = r.listeners.file(cookie); err != nil {
			return nil, err
		}
		if ns != nil {
			defer ns.Close()
		}
	}
	f, err := r.stampedSocket(ns, to.Addr())
	if err != nil {
		return nil, err
	}
	defer f.Close() // FileConn has a descriptor of its own
	if err := connect(ctx, f, to); err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	if err := errors.Join(tcp.SetNoDelay(true), tcp.SetKeepAliveConfig(keepAlive)); err != nil {
		tcp.Close()
		return nil, err
	}
	return tcp, nil
}

// stampedSocket makes a socket inside the namespace and stamps it. Only the making
// happens there: a socket stays in the namespace where it was made, so that the wait
// for the connection holds no thread.
func (r *Redirector) stampedSocket(ns *os.File, addr netip.Addr) (*os.File, error) {
	family := unix.AF_INET6
	if addr.Unmap().Is4() {
		family = unix.AF_INET
	}
	fd := -1
	err := inNamespace(ns, func() error {
		var err error
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "upstream")
	if err := r.objects.StampsV1.Put(int32(fd), stamp); err != nil {
		f.Close()
		return nil, fmt.Errorf("stamp the socket: %w", err)
	}
	return f, nil
}

// connect connects a non-blocking socket and waits until it is or ctx ends.
func connect(ctx context.Context, f *os.File, to netip.AddrPort) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var result error
	started := false
	err = raw.Write(func(fd uintptr) bool {
		if !started {
			started = true
			result = unix.Connect(int(fd), sockaddr(to))
			return !errors.Is(result, unix.EINPROGRESS)
		}
		var code int
		if code, result = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); result != nil {
			return true
		}
		if code != 0 {
			result = unix.Errno(code)
			return true
		}
		_, result = unix.Getpeername(int(fd))
		return !errors.Is(result, unix.ENOTCONN) // else a spurious wake-up
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case result != nil:
		return os.NewSyscallError("connect", result)
	}
	return nil
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if a := to.Addr().Unmap(); a.Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if ifi, err := net.InterfaceByName(to.Addr().Zone()); err == nil {
		sa.ZoneId = uint32(ifi.Index)
	}
	return sa
}
