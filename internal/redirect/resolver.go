package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// DefaultResolveInterval is shorter than the time to live of most records that change.
	DefaultResolveInterval = 30 * time.Second
	// resolveRetry is how soon a name is looked up again that never had an answer: its
	// addresses are open until then.
	resolveRetry = 2 * time.Second
	// DefaultKeepAddresses is how long an address stays protected after its name
	// pointed to it last: clients hold addresses much longer than resolvers do.
	DefaultKeepAddresses = 6 * time.Hour
	// lookupTimeout bounds one look-up; a resolver that hangs must not stop the others.
	lookupTimeout = 5 * time.Second
	// maxAddresses bounds what one name may add: an answer is not trusted to be short.
	maxAddresses = 1000
)

// Name is a host name whose addresses are protected.
type Name struct {
	Host    string
	Port    uint16
	Backend int
}

// ResolverConfig says what to look up.
type ResolverConfig struct {
	Static   []Destination // go into every result as they are
	Names    []Name
	Interval time.Duration // 0: DefaultResolveInterval
	Keep     time.Duration // 0: DefaultKeepAddresses
	Lookup   func(ctx context.Context, host string) ([]netip.Addr, error)
	Now      func() time.Time
	Log      *slog.Logger
}

// Resolver turns configured names into destinations, again and again. An address that
// a name no longer has stays for Keep, and a look-up that fails changes nothing. It is
// not safe for concurrent use: Resolve first, then Run.
type Resolver struct {
	config ResolverConfig
	seen   map[Name]map[netip.Addr]time.Time // when an answer held it last
}

// NewResolver makes a resolver. It looks nothing up yet.
func NewResolver(c ResolverConfig) (*Resolver, error) {
	if c.Log == nil {
		return nil, errors.New("resolver: Log is needed")
	}
	for _, n := range c.Names {
		if n.Host == "" || n.Port == 0 || n.Backend < 0 {
			return nil, fmt.Errorf("resolver: name %q port %d backend %d is not usable", n.Host, n.Port, n.Backend)
		}
	}
	if c.Interval <= 0 {
		c.Interval = DefaultResolveInterval
	}
	if c.Keep <= 0 {
		c.Keep = DefaultKeepAddresses
	}
	if c.Lookup == nil {
		c.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Resolver{config: c, seen: make(map[Name]map[netip.Addr]time.Time)}, nil
}

// Resolve looks every name up once and returns all that is to be protected now. The
// result is usable when there is an error too: it tells which names have no fresh answer.
func (r *Resolver) Resolve(ctx context.Context) ([]Destination, error) {
	var errs []error
	for _, n := range r.config.Names {
		if err := r.resolve(ctx, n); err != nil {
			errs = append(errs, fmt.Errorf("look up %s: %w", n.Host, err))
		}
	}
	return r.destinations(), errors.Join(errs...)
}

func (r *Resolver) resolve(ctx context.Context, n Name) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := r.config.Lookup(ctx, n.Host)
	if err != nil {
		return err
	}
	now := r.config.Now()
	known := r.seen[n]
	if known == nil {
		known = make(map[netip.Addr]time.Time)
		r.seen[n] = known
	}
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if _, ok := known[a]; !ok && len(known) >= maxAddresses {
			return fmt.Errorf("more than %d addresses; the further ones are not protected", maxAddresses)
		}
		known[a] = now
	}
	maps.DeleteFunc(known, func(_ netip.Addr, last time.Time) bool { return now.Sub(last) > r.config.Keep })
	return nil
}

// destinations joins static and resolved ones. Where two backends claim one address,
// what is written as an address wins, then the name that comes first.
func (r *Resolver) destinations() []Destination {
	type place struct {
		prefix netip.Prefix
		port   uint16
	}
	out := slices.Clone(r.config.Static)
	owner := make(map[place]int)
	for _, d := range out {
		owner[place{d.Prefix.Masked(), d.Port}] = d.Backend
	}
	for _, n := range r.config.Names {
		for _, a := range slices.SortedFunc(maps.Keys(r.seen[n]), netip.Addr.Compare) {
			p := place{netip.PrefixFrom(a, a.BitLen()), n.Port}
			other, taken := owner[p]
			if taken {
				if other != n.Backend {
					r.config.Log.Warn("two backends share an address; the first in the configuration keeps it", "host", n.Host, "address", a, "port", n.Port)
				}
				continue
			}
			owner[p] = n.Backend
			out = append(out, Destination{Prefix: p.prefix, Port: p.port, Backend: n.Backend})
		}
	}
	return out
}

// Run resolves every Interval, sooner while a name has no answer yet, and gives the result to apply, until ctx ends. apply
// is expected to add before it removes, as SetDestinations does.
func (r *Resolver) Run(ctx context.Context, apply func([]Destination) error) {
	if len(r.config.Names) == 0 {
		return
	}
	for {
		t := time.NewTimer(r.pause())
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		want, err := r.Resolve(ctx)
		if err != nil && ctx.Err() == nil {
			r.config.Log.Warn("names were not looked up; their last addresses stay protected", "error", err)
		}
		if err := apply(want); err != nil {
			r.config.Log.Error("the protected destinations could not be changed", "error", err)
		}
	}
}

func (r *Resolver) pause() time.Duration {
	for _, n := range r.config.Names {
		if len(r.seen[n]) == 0 {
			return min(resolveRetry, r.config.Interval)
		}
	}
	return r.config.Interval
}
