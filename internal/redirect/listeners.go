package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// scanEvery is half of the promise that a new namespace is served within 2 s.
	scanEvery = time.Second
	// ipv6Every is how often a namespace without IPv6 is asked again.
	ipv6Every = 10 * time.Second
	// acceptBackoff bounds the pause after a failed accept(2), as when the
	// process is out of descriptors (EMFILE).
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// namespace is a network namespace that is served. It belongs to the listeners'
// scan; others look at it under the mutex only.
type namespace struct {
	id         nsID
	file       *os.File // nil for the agent's own
	cookie     uint64
	loopbackUp bool
	listeners  map[netip.Addr]net.Listener
	problems   map[netip.Addr]error
	askIPv6    time.Time // not before
}

func (n *namespace) close() {
	for _, l := range n.listeners {
		l.Close()
	}
	if n.file != nil {
		n.file.Close()
	}
}

// listeners serves the proxy port in the agent's own namespace and in every one
// whose processes sit in the watched cgroups.
type listeners struct {
	port    uint16
	log     *slog.Logger
	handle  func(*namespaceInfo, *net.TCPConn) // must not block for long
	loops   sync.WaitGroup
	scanMu  sync.Mutex // one scan at a time
	mu      sync.Mutex // guards what follows
	spaces  map[nsID]*namespace
	stopped bool
}

// namespaceInfo is what a connection's handler may know of its namespace.
type namespaceInfo struct {
	Cookie uint64
	Inode  uint64
}

// newListeners opens the agent's own listeners: the one on 127.0.0.1 must be had,
// the one on ::1 where the namespace has IPv6.
func newListeners(port uint16, log *slog.Logger, handle func(*namespaceInfo, *net.TCPConn)) (*listeners, error) {
	l := &listeners{port: port, log: log, handle: handle, spaces: make(map[nsID]*namespace)}
	id, err := statNamespace("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	own := &namespace{id: id, listeners: make(map[netip.Addr]net.Listener)}
	if err := l.complete(own, time.Now()); err != nil {
		return nil, err
	}
	l.spaces[id] = own
	for addr, problem := range own.problems {
		if addr.Is6() && noIPv6(problem) {
			continue
		}
		l.close()
		return nil, fmt.Errorf("the proxy port must be free in the agent's own namespace: %w", problem)
	}
	return l, nil
}

// complete visits a namespace that lacks listeners, or whose loopback was down, and
// opens what it can.
func (l *listeners) complete(n *namespace, now time.Time) error {
	want := l.missing(n, now)
	if len(want) == 0 && n.loopbackUp {
		return nil
	}
	facts, opened, failed, err := visit(n.file, l.port, want)
	if err != nil {
		return err
	}
	if failed[loopbacks[1]] != nil && facts.loopbackUp {
		n.askIPv6 = now.Add(ipv6Every)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n.cookie, n.loopbackUp, n.problems = facts.cookie, facts.loopbackUp, failed
	for addr, ln := range opened {
		if l.stopped {
			ln.Close()
			continue
		}
		n.listeners[addr] = ln
		info := &namespaceInfo{n.cookie, n.id.inode}
		l.loops.Go(func() { l.accept(info, ln) })
	}
	return nil
}

func (l *listeners) missing(n *namespace, now time.Time) []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return nil
	}
	var want []netip.Addr
	for _, addr := range loopbacks {
		if n.listeners[addr] == nil && (addr.Is4() || !now.Before(n.askIPv6)) {
			want = append(want, addr)
		}
	}
	return want
}

// accept runs until the listener is closed. It survives everything else: without
// it a namespace would stay shut.
func (l *listeners) accept(info *namespaceInfo, ln net.Listener) {
	backoff := acceptBackoffMin
	for {
		c, err := ln.Accept()
		if err == nil {
			backoff = acceptBackoffMin
			l.handle(info, c.(*net.TCPConn))
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if backoff == acceptBackoffMin {
			l.log.Warn("a connection could not be accepted; trying again", "netns", info.Cookie, "error", err)
		}
		time.Sleep(backoff)
		backoff = min(2*backoff, acceptBackoffMax)
	}
}

// scan brings the set of served namespaces in line with the processes in the
// cgroups. A namespace that lost its last process is let go at once: an open
// listener would keep it alive.
func (l *listeners) scan(roots []cgroup) {
	l.scanMu.Lock()
	defer l.scanMu.Unlock()
	found := findNamespaces(roots)
	now := time.Now()
	for id, n := range l.snapshot() {
		if _, alive := found[id]; !alive && n.file != nil {
			l.forget(n)
			continue
		}
		if err := l.complete(n, now); err != nil {
			l.log.Warn("a network namespace could not be visited", "netns", n.cookie, "error", err)
		}
	}
	for id, pid := range found {
		l.mu.Lock()
		known := l.spaces[id] != nil
		l.mu.Unlock()
		if !known {
			l.add(id, pid, now)
		}
	}
}

func (l *listeners) snapshot() map[nsID]*namespace {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.spaces)
}

func (l *listeners) forget(n *namespace) {
	l.mu.Lock()
	delete(l.spaces, n.id)
	l.mu.Unlock()
	n.close()
	l.log.Debug("network namespace released", "netns", n.cookie, "inode", n.id.inode)
}

func (l *listeners) add(id nsID, pid int, now time.Time) {
	f, err := os.Open(namespacePath(pid))
	if err != nil {
		return // the process ended; others in the namespace show in the next scan
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || (nsID{uint64(st.Dev), st.Ino}) != id {
		f.Close() // the process moved on meanwhile
		return
	}
	n := &namespace{id: id, file: f, listeners: make(map[netip.Addr]net.Listener)}
	if err := l.complete(n, now); err != nil {
		f.Close()
		l.log.Warn("a network namespace could not be visited", "inode", id.inode, "pid", pid, "error", err)
		return
	}
	l.mu.Lock()
	stopped := l.stopped
	if !stopped {
		l.spaces[id] = n
	}
	l.mu.Unlock()
	if stopped {
		n.close()
		return
	}
	for addr, problem := range n.problems {
		if addr.Is4() || !noIPv6(problem) {
			l.log.Warn("a network namespace is not fully served: connections of its processes are refused", "netns", n.cookie, "pid", pid, "loopback_up", n.loopbackUp, "error", problem)
		}
	}
}

// file returns a descriptor of its own for the namespace with that cookie; nil for
// the agent's own.
func (l *listeners) file(cookie uint64) (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.spaces {
		if n.cookie != cookie {
			continue
		}
		if n.file == nil {
			return nil, nil
		}
		fd, err := unix.FcntlInt(n.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("dup", err)
		}
		return os.NewFile(uintptr(fd), n.file.Name()), nil
	}
	return nil, fmt.Errorf("network namespace %d: %w", cookie, ErrNoNamespace)
}

// stopAccepting closes every listener and lets no new one be opened. The
// namespaces can still be dialled from.
func (l *listeners) stopAccepting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for _, n := range l.spaces {
		for addr, ln := range n.listeners {
			ln.Close()
			delete(n.listeners, addr)
		}
	}
}

// close ends every accept loop and waits for them.
func (l *listeners) close() {
	l.mu.Lock()
	l.stopped = true
	spaces := l.spaces
	l.spaces = make(map[nsID]*namespace)
	l.mu.Unlock()
	for _, n := range spaces {
		n.close()
	}
	l.loops.Wait()
}

// run scans until ctx ends.
func (l *listeners) run(ctx context.Context, tick func()) {
	t := time.NewTicker(scanEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			tick()
		}
	}
}

func namespacePath(pid int) string { return filepath.Join("/proc", strconv.Itoa(pid), "ns/net") }

// findNamespaces maps every network namespace in use below the cgroups to one
// process in it. A process can enter another namespace at any time, so all of them
// are asked every time.
func findNamespaces(roots []cgroup) map[nsID]int {
	found := make(map[nsID]int)
	for _, root := range roots {
		for _, pid := range processesBelow(root.path) {
			if id, err := statNamespace(namespacePath(pid)); err == nil {
				if _, known := found[id]; !known {
					found[id] = pid
				}
			}
		}
	}
	return found
}

// processesBelow lists the processes of a cgroup and all below it. What vanishes
// on the way is left out.
func processesBelow(dir string) []int {
	pids, _ := cgroup{path: dir}.processes()
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			pids = slices.Concat(pids, processesBelow(filepath.Join(dir, e.Name())))
		}
	}
	return pids
}
