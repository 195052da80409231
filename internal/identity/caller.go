package identity

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/flow"
)

// Caller is the process at the other end of a unix socket, as the kernel proves
// it. It holds a pidfd, so that a recycled process id is never taken for it.
type Caller struct {
	Process flow.Process // Exe and Comm are for display only
	GID     uint32

	mount string
	pidfd *os.File // closed with the Caller, at the latest by the garbage collector
}

// PeerCaller asks the kernel who connected: SO_PEERCRED and SO_PEERPIDFD
// (unix(7), Linux 6.5; before that pidfd_open and checks). The caller closes it.
func PeerCaller(conn *net.UnixConn) (*Caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCaller, err)
	}
	var caller *Caller
	var inner error
	err = raw.Control(func(fd uintptr) { caller, inner = peerOf(int(fd), unix.GetsockoptInt) })
	if err = errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCaller, err)
	}
	return caller, nil
}

// peerOf is PeerCaller on a file descriptor; getsockopt is a parameter so that
// the way of kernels before 6.5 is tested on newer ones.
func peerOf(fd int, getsockopt func(fd, level, opt int) (int, error)) (*Caller, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	if cred.Pid <= 0 {
		return nil, errors.New("it runs in a pid namespace that this one cannot see: run the agent in the host's")
	}
	pidfd, err := getsockopt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		pidfd, err = openPeer(fd, int(cred.Pid))
	}
	if err != nil {
		return nil, fmt.Errorf("no pidfd for process %d: %w", cred.Pid, err)
	}
	unix.CloseOnExec(pidfd)
	c := &Caller{GID: cred.Gid, pidfd: os.NewFile(uintptr(pidfd), "pidfd")}
	if err := c.read(int(cred.Pid)); err != nil {
		c.Close()
		return nil, err
	}
	if c.Process.UID != cred.Uid {
		c.Close()
		return nil, fmt.Errorf("process %d connected as uid %d and is uid %d: call without changing users", cred.Pid, cred.Uid, c.Process.UID)
	}
	return c, nil
}

// openPeer opens a pidfd by number. The number may be somebody else's by now if
// the peer has ended: then its end of the socket is closed, unless it left that
// to a child. What remains is a recycled process id of the same user (checked by
// peerOf), who could as well trace that process.
func openPeer(fd, pid int) (int, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	if got, err := pollNow(fd, unix.POLLRDHUP); err != nil || got&(unix.POLLHUP|unix.POLLRDHUP) != 0 {
		unix.Close(pidfd)
		return -1, errors.New("it hung up")
	}
	return pidfd, nil
}

// read fills Process while the pidfd proves that it is one live process.
func (c *Caller) read(pid int) error {
	mount, err := cgroupMount()
	if err != nil {
		return err
	}
	p, err := readProc(pid, mount)
	if err != nil {
		return fmt.Errorf("process %d cannot be read: %w", pid, err)
	}
	if err := c.Alive(); err != nil {
		return err
	}
	c.Process, c.mount = p, mount
	return nil
}

// Alive tells whether the caller still exists; if so, its process id is its own.
func (c *Caller) Alive() error {
	raw, err := c.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCaller, err)
	}
	var ended bool
	var inner error
	err = raw.Control(func(fd uintptr) {
		// A pidfd becomes readable when its process ends (pidfd_open(2)).
		var got int16
		got, inner = pollNow(int(fd), unix.POLLIN)
		ended = got != 0
	})
	if err = errors.Join(err, inner); err != nil {
		return fmt.Errorf("%w: %w", ErrCaller, err)
	}
	if ended {
		return fmt.Errorf("%w: the calling process has ended", ErrCaller)
	}
	return nil
}

// pollNow returns what of events holds for a descriptor at this moment.
func pollNow(fd int, events int16) (int16, error) {
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: events}}
		_, err := unix.Poll(poll, 0)
		if errors.Is(err, unix.EINTR) { // the runtime's own signals
			continue
		}
		return poll[0].Revents, err
	}
}

// refresh reads the caller again: it may have been moved since it connected.
func (c *Caller) refresh() (flow.Process, error) {
	p, err := readProc(c.Process.PID, c.mount)
	if err != nil {
		return p, fmt.Errorf("%w: process %d cannot be read: %w", ErrCaller, c.Process.PID, err)
	}
	return p, c.Alive()
}

// Close releases the pidfd.
func (c *Caller) Close() error { return c.pidfd.Close() }
