// Package completeness keeps the account of connections: the kernel's counters, which
// know nothing of the audit log, against the flows that the log has. Every connection
// that the kernel handed over is to have exactly one flow.open or flow.refused, or a
// cause why it has none.
//
// # Reading without a moment to stop
//
// Connections come and go while the numbers are read. Each passes the states
//
//	handed over -> unclaimed                       (both counted by the kernel)
//	handed over -> claimed -> opened or refused    (the latter two counted here)
//
// and a counter is raised after the one before it. So what comes later is read earlier:
// first the ledger's own numbers (at one moment, under its lock), then the kernel's
// unclaimed, then its handed over. Then
//
//	waiting = handed over - unclaimed - claimed
//
// is never below zero, and never less than what is missing: it is that, plus what waits
// to be accepted, plus what came between the reads. The latter two pass, what is missing
// stays. So the smallest of several readings counts, and what was never below one for
// Config.Patience is a difference.
//
// The package decides nothing and never stands in the way of a flow.
package completeness

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// tries bounds the readings of one account, which end with the first in which nothing
// waits.
const tries = 20

// DefaultPatience is how long a connection may wait to be accepted before it counts as
// missing. What waits that long at every reading waits in a queue that is never empty:
// the clients' own timeouts are shorter.
const DefaultPatience = 5 * time.Minute

// Kernel is what the kernel has counted, by backend, since its maps were made. It must
// read Unclaimed before HandedOver.
type Kernel func() (map[string]auditlog.KernelFlows, error)

// Recorder is the audit log.
type Recorder interface {
	Append(ctx context.Context, disk bool, events ...*auditlog.Event) error
}

// Config is what a Ledger is made of. All fields are required except Patience.
type Config struct {
	Record   Recorder
	Started  time.Time // of the agent
	Now      func() time.Time
	Patience time.Duration // 0: DefaultPatience
}

// Ledger counts flows. It is a Recorder: what is to be counted is appended through it.
// Its methods are safe for concurrent use.
type Ledger struct {
	config Config
	kernel Kernel
	start  Start

	mu       sync.Mutex // guards what follows
	backends map[string]*counts
	audited  map[string]bool // flows that are served and have their event

	// cut is held by whoever records an account, and shared by who records a flow: the
	// flows before the account in the log are those that it has counted, so that an agent
	// that starts after a crash can go on from it.
	cut sync.RWMutex

	said atomic.Pointer[string]

	reading sync.Mutex // one account at a time; guards waits
	waits   map[string]*wait
}

// Start is where the kernel's counters stood when this run of the agent began.
type Start struct {
	Base     map[string]auditlog.KernelFlows // before anything could be accepted
	Counting time.Time                       // when the kernel began to count
	Run      uint32
	Backends []string // that are configured
}

type counts struct {
	claimed, opened, refused, early uint64
	unrecorded                      uint64 // ended without their event
	doubled                         uint64 // events beyond the one
}

func (c *counts) underWay() uint64 {
	return c.claimed + c.doubled - c.opened - c.refused - c.unrecorded
}

// wait is since when there has been something waiting at every reading, and how little
// at least.
type wait struct {
	since time.Time
	least uint64
}

// New makes a ledger that counts nothing yet.
func New(c Config) *Ledger {
	c.Patience = cmp.Or(c.Patience, DefaultPatience)
	return &Ledger{config: c, backends: make(map[string]*counts), audited: make(map[string]bool), waits: make(map[string]*wait)}
}

// Begin tells the ledger what to compare with. It is called before the first Claimed.
func (l *Ledger) Begin(kernel Kernel, start Start) {
	l.kernel, l.start = kernel, start
	for _, name := range start.Backends {
		l.backend(name)
	}
}

// backend is called with mu held, or before anything runs.
func (l *Ledger) backend(name string) *counts {
	c := l.backends[name]
	if c == nil {
		c = new(counts)
		l.backends[name] = c
	}
	return c
}

// Claimed counts a connection whose note was taken out of the kernel.
func (l *Ledger) Claimed(backend string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.backend(backend).claimed++
}

// Append records events and then counts the flows among them.
func (l *Ledger) Append(ctx context.Context, disk bool, events ...*auditlog.Event) error {
	counted := func(ev *auditlog.Event) bool {
		return ev.Flow != "" && (ev.Kind == auditlog.FlowOpen || ev.Kind == auditlog.FlowRefused)
	}
	if !slices.ContainsFunc(events, counted) {
		return l.config.Record.Append(ctx, disk, events...)
	}
	l.cut.RLock()
	defer l.cut.RUnlock()
	if err := l.config.Record.Append(ctx, disk, events...); err != nil {
		return err
	}
	for _, ev := range events {
		if counted(ev) {
			l.count(ev)
		}
	}
	return nil
}

// Record records the account of now. While it does no flow is opened or refused.
func (l *Ledger) Record(ctx context.Context, scope string) (*auditlog.Completeness, error) {
	l.cut.Lock()
	defer l.cut.Unlock()
	c, err := l.Account(scope)
	if err != nil {
		return nil, err
	}
	if err := l.config.Record.Append(ctx, true, Event(c)); err != nil {
		return nil, err
	}
	l.said.Store(new(Why(c)))
	return c, nil
}

// Said is what the last account of this run that was recorded did not explain.
func (l *Ledger) Said() string {
	if s := l.said.Load(); s != nil {
		return *s
	}
	return ""
}

// clientClosed is flow.ReasonClientClosed.
const clientClosed = "client_closed"

func (l *Ledger) count(ev *auditlog.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.backend(ev.Backend)
	if l.audited[ev.Flow] {
		c.doubled++
	}
	l.audited[ev.Flow] = true
	if ev.Kind == auditlog.FlowOpen {
		c.opened++
		return
	}
	c.refused++
	if ev.Reason == clientClosed {
		c.early++
	}
}

// Ended tells that nothing more will be recorded of a flow that was claimed.
func (l *Ledger) Ended(backend, flow string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.audited[flow] {
		l.backend(backend).unrecorded++
	}
	delete(l.audited, flow)
}

// Account compares. With ScopeStop nothing may be under way any more, and what is counts
// as a difference.
func (l *Ledger) Account(scope string) (*auditlog.Completeness, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	best := make(map[string]auditlog.FlowCount)
	waiting := make(map[string]uint64)
	for range tries {
		all, err := l.read()
		if err != nil {
			return nil, err
		}
		settled := true
		for name, now := range all {
			if old, known := waiting[name]; !known || now.waiting < old {
				best[name], waiting[name] = now.FlowCount, now.waiting
			}
			settled = settled && waiting[name] == 0
		}
		if settled || scope == auditlog.ScopeStop {
			break
		}
	}
	now := l.config.Now().UTC()
	out := &auditlog.Completeness{Scope: scope, From: l.config.Started.UTC(), To: now, Run: l.start.Run, Counting: l.start.Counting.UTC(), Backends: []auditlog.FlowCount{}}
	for _, name := range slices.Sorted(maps.Keys(best)) {
		row, missing := best[name], l.missing(name, waiting[name], now)
		if scope == auditlog.ScopeStop {
			missing = waiting[name] + row.UnderWay
			row.UnderWay = 0
		} else {
			row.UnderWay += waiting[name] - missing
		}
		row.Difference += int64(missing)
		out.Backends = append(out.Backends, row)
	}
	return out, nil
}

// row is one reading of one backend. UnderWay holds what the agent serves, Difference
// what ended without its event.
type row struct {
	auditlog.FlowCount
	waiting uint64
}

func (l *Ledger) read() (map[string]row, error) {
	l.mu.Lock()
	mine := make(map[string]counts, len(l.backends))
	for name, c := range l.backends {
		mine[name] = *c
	}
	l.mu.Unlock()
	kernel, err := l.kernel() // after our own numbers, see the package's comment
	if err != nil {
		return nil, err
	}
	for name, k := range kernel { // of backends that are not configured any more
		if _, known := mine[name]; !known && k != l.start.Base[name] {
			mine[name] = counts{}
		}
	}
	out := make(map[string]row, len(mine))
	for name, c := range mine {
		total := kernel[name]
		since, _ := total.Minus(l.start.Base[name])
		r := row{FlowCount: auditlog.FlowCount{Backend: name, Kernel: since, Total: total, Opened: c.opened, Refused: c.refused, Early: c.early,
			Unclaimed: since.Unclaimed, UnderWay: c.underWay(), Difference: int64(c.unrecorded) - int64(c.doubled)}}
		if came, went := since.HandedOver, since.Unclaimed+c.claimed; came >= went {
			r.waiting = came - went
		} else {
			r.Difference -= int64(went - came)
		}
		out[name] = r
	}
	return out, nil
}

// missing is how much of what waits has waited for too long.
func (l *Ledger) missing(name string, waiting uint64, now time.Time) uint64 {
	w := l.waits[name]
	switch {
	case waiting == 0:
		delete(l.waits, name)
		return 0
	case w == nil:
		l.waits[name] = &wait{since: now, least: waiting}
		return 0
	}
	w.least = min(w.least, waiting)
	if now.Sub(w.since) < l.config.Patience {
		return 0
	}
	return w.least
}

// Event is the event that records an account.
func Event(c *auditlog.Completeness) *auditlog.Event {
	return &auditlog.Event{Kind: auditlog.CompletenessEvent, Completeness: c, Reason: Why(c)}
}
