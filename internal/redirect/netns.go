package redirect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// listenBacklog asks for the most that the kernel grants (net.core.somaxconn caps it).
const listenBacklog = 4096

// nsID tells network namespaces apart while they live: device and inode of nsfs.
type nsID struct{ dev, inode uint64 }

// statNamespace follows /proc/PID/ns/net.
func statNamespace(path string) (nsID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nsID{}, err
	}
	return nsID{uint64(st.Dev), st.Ino}, nil
}

// inNamespace runs f on a thread inside the namespace; nil is the agent's own.
// Sockets that f makes stay there. f must not block and must not start goroutines
// that are meant to run there.
func inNamespace(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter the network namespace (CAP_SYS_ADMIN is needed): %w", err)
			return
		}
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			// The thread is in a foreign namespace: it is not unlocked, so that
			// the runtime ends it with this goroutine and nobody else runs on it.
			done <- errors.Join(err, fmt.Errorf("leave the network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// namespaceFacts is what one visit to a namespace finds out.
type namespaceFacts struct {
	cookie     uint64
	loopbackUp bool
}

// visit reads a namespace's cookie and whether its loopback interface is up, and
// opens the listeners that are wanted and not there yet. Each error says which
// address could not be listened on.
func visit(ns *os.File, port uint16, want []netip.Addr) (facts namespaceFacts, opened map[netip.Addr]net.Listener, failed map[netip.Addr]error, err error) {
	files := make(map[netip.Addr]*os.File)
	failed = make(map[netip.Addr]error)
	err = inNamespace(ns, func() error {
		var err error
		if facts.cookie, err = netnsCookie(); err != nil {
			return err
		}
		facts.loopbackUp = loopbackUp()
		for _, addr := range want {
			f, err := listen(addr, port)
			if err != nil {
				failed[addr] = err
				continue
			}
			files[addr] = f
		}
		return nil
	})
	opened = make(map[netip.Addr]net.Listener)
	for addr, f := range files {
		l, fileErr := net.FileListener(f) // has a descriptor of its own
		f.Close()
		if fileErr != nil {
			failed[addr] = fileErr
			continue
		}
		opened[addr] = l
	}
	if err != nil {
		for _, l := range opened {
			l.Close()
		}
		return facts, nil, failed, err
	}
	return facts, opened, failed, nil
}

// netnsCookie is the kernel's never reused number of the thread's namespace.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read the network namespace's cookie: %w", err)
	}
	return cookie, nil
}

// loopbackUp is true when the namespace's loopback interface is up. Without it a
// redirected connect hangs in SYN_SENT.
func loopbackUp() bool {
	lo, err := netlink.LinkByName("lo")
	return err == nil && lo.Attrs().Flags&net.FlagUp != 0
}

// listen opens a plain TCP listener in the thread's namespace: no MPTCP, which the
// standard library would choose.
func listen(addr netip.Addr, port uint16) (_ *os.File, err error) {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	// Connections of an agent that died may still be in TIME_WAIT on this port.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}
	if addr.Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
		sa = &unix.SockaddrInet6{Port: int(port), Addr: addr.As16()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", netip.AddrPortFrom(addr, port), err)
	}
	if err := unix.Listen(fd, listenBacklog); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", netip.AddrPortFrom(addr, port), err)
	}
	return f, nil
}

// noIPv6 is true for errors that mean that a namespace has no IPv6.
func noIPv6(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)
}
