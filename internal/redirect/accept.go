package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/bpf"
)

const (
	// acceptQueue is how many connections may wait for Accept; more wait in the kernel.
	acceptQueue = 256
	// bypassQueue is how many reports may wait for OnBypass; more are counted in Missed.
	bypassQueue = 1024
)

// Conn is a connection that the kernel handed over, with its record.
type Conn struct {
	*net.TCPConn
	Record Record
}

// Bypass is a connection to the proxy port that was closed because it must not be
// served, most often one that somebody made directly.
type Bypass struct {
	Time   time.Time
	Local  netip.AddrPort // where the proxy listens
	Peer   netip.AddrPort // whoever connected
	NetNS  uint64         // cookie of the network namespace of both
	Inode  uint64         // of that namespace, as in /proc/PID/ns/net
	Record *Record        // nil when the kernel has none; else why it does not count is in Err
	Err    error
	Missed uint64 // reports lost before this one, since they came faster than they were taken
}

// ErrClosed is returned by Accept after Close.
var ErrClosed = errors.New("the redirector is closed")

// Accept returns the next connection of any namespace. The caller owns it, and has to
// account for it: its note is taken out of the kernel here, and what ends before that
// the kernel counts itself (FlowCounts.Unclaimed).
func (r *Redirector) Accept(ctx context.Context) (*Conn, error) {
	for {
		select {
		case c := <-r.conns:
			if r.claim(c.TCPConn) {
				return c, nil
			}
			reset(c.TCPConn)
		case <-r.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// unclaimedPriority is WEIR_UNCLAIMED_PRIORITY of bpf/lib/types.h.
const unclaimedPriority = 0x57454952

// claim takes the note of a connection; false when the kernel has taken it back and
// counted it, since the client is gone already.
func (r *Redirector) claim(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var taken, looked error
	mark := 0
	err = raw.Control(func(fd uintptr) {
		if taken = r.objects.RecordsV1.Delete(int32(fd)); taken != nil {
			return
		}
		// TCP_INFO waits for the socket's lock: what the kernel has begun is done then.
		if _, looked = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); looked == nil {
			mark, looked = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY)
		}
	})
	if err == nil && taken != nil && !errors.Is(taken, ebpf.ErrKeyNotExist) || looked != nil {
		r.config.Log.Error("the note of a connection could not be taken, so it is refused", "error", errors.Join(taken, looked))
	}
	return err == nil && taken == nil && looked == nil && mark != unclaimedPriority
}

// handle runs on a listener's accept loop: it reads the record and passes the
// connection on, nothing more.
func (r *Redirector) handle(info *namespaceInfo, c *net.TCPConn) {
	record, err := r.record(c)
	if err != nil {
		r.block(info, c, record, err)
		return
	}
	select {
	case r.conns <- &Conn{TCPConn: c, Record: *record}:
	case <-r.done:
		reset(c)
	}
}

// record reads the record by the accepted socket's descriptor. It is there before
// accept(2) returns, or never.
func (r *Redirector) record(c *net.TCPConn) (*Record, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var got bpf.RedirectWeirRecord
	var lookup error
	err = raw.Control(func(fd uintptr) { lookup = r.objects.RecordsV1.Lookup(int32(fd), &got) })
	switch {
	case err != nil:
		return nil, err
	case errors.Is(lookup, ebpf.ErrKeyNotExist):
		return nil, errNoRecord
	case lookup != nil:
		return nil, fmt.Errorf("read the record of an accepted connection: %w", lookup)
	}
	record, err := decode(&got)
	if err != nil {
		return nil, err
	}
	if got.Generation == r.generation {
		record.Backend = int(got.Backend)
		return &record, nil
	}
	// An earlier run of the agent numbered it: only the address still has a meaning.
	r.mu.Lock()
	backend, ok := r.destinations.backend(record.Destination)
	r.mu.Unlock()
	if !ok {
		return &record, fmt.Errorf("%s belongs to no backend any more", record.Destination)
	}
	record.Backend = backend
	return &record, nil
}

func (r *Redirector) block(info *namespaceInfo, c *net.TCPConn, record *Record, err error) {
	b := Bypass{
		Time: time.Now(), NetNS: info.Cookie, Inode: info.Inode, Record: record, Err: err,
		Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Peer: c.RemoteAddr().(*net.TCPAddr).AddrPort(),
	}
	reset(c)
	b.Missed = r.missed.Swap(0)
	select {
	case r.bypasses <- b:
	default:
		r.missed.Add(b.Missed + 1)
	}
}

// reset closes with RST: nobody is to think that the end was a regular one.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// report hands blocked connections to the callback, outside of the accept loops.
func (r *Redirector) report() {
	for {
		select {
		case b := <-r.bypasses:
			r.config.OnBypass(b)
		case <-r.done:
			for { // what was blocked before the end is still told
				select {
				case b := <-r.bypasses:
					r.config.OnBypass(b)
				default:
					return
				}
			}
		}
	}
}
