package session

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchHangup closes the returned channel when the client closes its connection, or its
// sending half, while nobody reads from it: what it has sent before stays unread. stop
// ends the watch and waits for it; the connection's read deadline is then unset.
func watchHangup(c net.Conn) (gone <-chan struct{}, stop func()) {
	raw := rawConn(c)
	if raw == nil {
		return nil, func() {}
	}
	_ = c.SetReadDeadline(time.Time{})
	hung, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		// The poller wakes this for every arrival; a hang-up is one too (epoll(7),
		// EPOLLRDHUP). A deadline ends it.
		var up bool
		err := raw.Read(func(fd uintptr) bool { up = hungUp(int(fd)); return up })
		if err == nil && up {
			close(hung)
		}
	}()
	return hung, func() {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = c.SetReadDeadline(time.Time{})
	}
}

// rawConn is the socket under a connection, nil when there is none.
func rawConn(c net.Conn) syscall.RawConn {
	for {
		if s, ok := c.(syscall.Conn); ok {
			raw, err := s.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		}
		switch x := c.(type) {
		case interface{ NetConn() net.Conn }: // *tls.Conn, and whatever wraps one
			c = x.NetConn()
		default:
			return nil
		}
	}
}

func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		_, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return err == nil && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	}
}
