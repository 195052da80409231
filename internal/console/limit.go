package console

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Sign-ins that one address may begin. Behind a reverse proxy all people have one.
const (
	startsPerSecond = 1
	startsAtOnce    = 30
	maxAddresses    = 4096
)

// limiter bounds how often an address begins something that costs memory here and a
// request at the provider.
type limiter struct {
	mu  sync.Mutex
	all map[netip.Prefix]*rate.Limiter
}

func newLimiter() *limiter { return &limiter{all: map[netip.Prefix]*rate.Limiter{}} }

// allow counts a start. Whoever has an IPv6 address has 2^64 of them.
func (l *limiter) allow(r *http.Request, now time.Time) bool {
	var from netip.Prefix // the zero one for an address that does not read
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		a, bits := ap.Addr().Unmap().WithZone(""), 64
		if a.Is4() {
			bits = 32
		}
		from, _ = a.Prefix(bits)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.all[from]
	if x == nil {
		if len(l.all) >= maxAddresses {
			for k, old := range l.all {
				if old.TokensAt(now) >= startsAtOnce {
					delete(l.all, k)
				}
			}
		}
		if len(l.all) >= maxAddresses {
			return false
		}
		x = rate.NewLimiter(startsPerSecond, startsAtOnce)
		l.all[from] = x
	}
	return x.AllowN(now, 1)
}
