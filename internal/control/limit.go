package control

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// maxPerUser bounds the connections that one user holds open at a time: each
// costs the agent two descriptors. Commands use one each.
const maxPerUser = 64

// limited closes connections of users who hold too many already. Root is not
// limited: it could do worse.
type limited struct {
	*net.UnixListener

	mu   sync.Mutex
	held map[uint32]int
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && l.enter(uid) {
			return &limitedConn{UnixConn: c, leave: sync.OnceFunc(func() { l.leave(uid) })}, nil
		}
		c.Close()
	}
}

// limitedConn gives its place back when it is closed.
type limitedConn struct {
	*net.UnixConn
	leave func()
}

func (c *limitedConn) Close() error {
	c.leave()
	return c.UnixConn.Close()
}

func (l *limited) enter(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uid != 0 && l.held[uid] >= maxPerUser {
		return false
	}
	l.held[uid]++
	return true
}

func (l *limited) leave(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[uid]--; l.held[uid] <= 0 {
		delete(l.held, uid)
	}
}

// peerUID is the user at the other end (SO_PEERCRED, unix(7)).
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}
