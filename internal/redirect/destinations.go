package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/bpf"
)

// maxDestinations is half of WEIR_MAX_DESTINATIONS (bpf/lib/maps.h): each takes an
// entry for TCP and one for UDP.
const maxDestinations = 65536 / 2

// leftoverGrace is how long the destinations of an earlier run stay protected. Nobody
// knows their backends any more, so connections to them are refused; but a name that
// is not looked up again yet must not be open meanwhile.
const leftoverGrace = time.Minute

// Destination is a set of protected addresses on one port. TCP to it is redirected,
// UDP refused. The longest matching prefix wins.
type Destination struct {
	Prefix  netip.Prefix `json:"prefix"`
	Port    uint16       `json:"port"`
	Backend int          `json:"backend"` // the caller's index, stable for the agent's life; in Status -1: left by an earlier run
}

// key is the form that the kernel compares: masked, and IPv4 below ::ffff:0:0/96.
func (d Destination) key() (netip.Prefix, error) {
	p := d.Prefix
	if !p.IsValid() || d.Port == 0 || d.Backend < 0 {
		return p, fmt.Errorf("destination %s port %d backend %d: a prefix, a port and a backend are needed", d.Prefix, d.Port, d.Backend)
	}
	if p.Addr().Is4() {
		p = netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), p.Bits()+96)
	}
	return p.Masked(), nil
}

type destinationKey struct {
	prefix netip.Prefix // in 128-bit form
	port   uint16
}

// entry is what the kernel's table holds under a key, and since when it is unwanted.
type entry struct {
	backend int
	mine    bool      // written by this run; other runs' indices mean nothing to us
	until   time.Time // zero: wanted. Otherwise it is dropped then
}

// destinations mirrors the kernel's table.
type destinations struct {
	table      *ebpf.Map
	generation uint32
	entries    map[destinationKey]entry
}

// loadDestinations reads what an earlier agent left.
func loadDestinations(table *ebpf.Map, generation uint32, now time.Time) (*destinations, error) {
	d := &destinations{table: table, generation: generation, entries: make(map[destinationKey]entry)}
	var key bpf.RedirectWeirDestinationKey
	var value bpf.RedirectWeirDestination
	it := table.Iterate()
	for it.Next(&key, &value) {
		bits := int(key.Prefixlen) - 32
		if bits < 0 || bits > 128 {
			return nil, fmt.Errorf("the destination table holds a prefix of %d bits", key.Prefixlen)
		}
		k := destinationKey{netip.PrefixFrom(netip.AddrFrom16(key.Addr), bits), networkOrder(key.Port)}
		d.entries[k] = entry{backend: -1, until: now.Add(leftoverGrace)}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read the destination table: %w", err)
	}
	return d, nil
}

// set adds and changes what is wanted before it lets anything go. What is no longer
// wanted stays for grace.
func (d *destinations) set(want []Destination, grace time.Duration, now time.Time) error {
	wanted := make(map[destinationKey]int, len(want))
	for _, w := range want {
		p, err := w.key()
		if err != nil {
			return err
		}
		k := destinationKey{p, w.Port}
		if other, twice := wanted[k]; twice && other != w.Backend {
			return fmt.Errorf("destination %s port %d belongs to two backends", w.Prefix, w.Port)
		}
		wanted[k] = w.Backend
	}
	if len(wanted) > maxDestinations {
		return fmt.Errorf("%d destinations; at most %d can be protected", len(wanted), maxDestinations)
	}
	for k, backend := range wanted {
		if e, ok := d.entries[k]; !ok || !e.mine || e.backend != backend {
			if err := d.put(k, backend); err != nil {
				return err
			}
		}
		d.entries[k] = entry{backend: backend, mine: true}
	}
	for k, e := range d.entries {
		if _, ok := wanted[k]; !ok && e.until.IsZero() {
			e.until = now.Add(grace)
			d.entries[k] = e
		}
	}
	return d.expire(now)
}

// expire drops what was unwanted for long enough.
func (d *destinations) expire(now time.Time) error {
	var errs []error
	for k, e := range d.entries {
		if e.until.IsZero() || now.Before(e.until) {
			continue
		}
		if err := d.drop(k); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(d.entries, k)
	}
	return errors.Join(errs...)
}

func (k destinationKey) forProtocol(protocol uint8) *bpf.RedirectWeirDestinationKey {
	return &bpf.RedirectWeirDestinationKey{
		Prefixlen: 32 + uint32(k.prefix.Bits()), // protocol, padding and port come first
		Protocol:  protocol,
		Port:      networkOrder(k.port),
		Addr:      k.prefix.Addr().As16(),
	}
}

func (d *destinations) put(k destinationKey, backend int) error {
	value := &bpf.RedirectWeirDestination{Backend: uint32(backend), Generation: d.generation}
	for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		if err := d.table.Put(k.forProtocol(protocol), value); err != nil {
			return fmt.Errorf("protect %s port %d: %w", k.prefix, k.port, err)
		}
	}
	return nil
}

func (d *destinations) drop(k destinationKey) error {
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		err := d.table.Delete(k.forProtocol(protocol))
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("release %s port %d: %w", k.prefix, k.port, err)
		}
	}
	return nil
}

// backend finds the backend of an address in the present table, as the kernel
// would: the longest prefix. It is for records that another run of the agent
// numbered, and for sockets that never were redirected.
func (d *destinations) backend(to netip.AddrPort) (int, bool) {
	addr := netip.AddrFrom16(to.Addr().As16())
	best, bits := 0, -1
	for k, e := range d.entries {
		if e.mine && k.port == to.Port() && k.prefix.Bits() > bits && k.prefix.Contains(addr) {
			best, bits = e.backend, k.prefix.Bits()
		}
	}
	return best, bits >= 0
}

// list returns the table in the caller's terms.
func (d *destinations) list() []Destination {
	out := make([]Destination, 0, len(d.entries))
	for k, e := range d.entries {
		out = append(out, Destination{Prefix: unmapPrefix(k.prefix), Port: k.port, Backend: e.backend})
	}
	return out
}

func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
