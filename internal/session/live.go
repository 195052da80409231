package session

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// recentFlows is how many ended flows `weir flows` still shows.
const recentFlows = 200

// expiryGrace is how long a flow may sit idle after its sign-in expired before
// it is cut; any action in between is refused with words.
const expiryGrace = 30 * time.Second

// Live is the table of live flows and of the last ended ones.
type Live struct {
	now   func() time.Time
	epoch atomic.Uint64 // counts revocations, see Server.identify

	mu     sync.Mutex
	flows  map[flow.ID]*entry
	recent []FlowInfo
	idle   chan struct{} // closed and replaced when the table becomes empty
}

// FlowInfo is one row of `weir flows`.
type FlowInfo struct {
	ID          flow.ID       `json:"id"`
	Start       time.Time     `json:"start"`
	End         *time.Time    `json:"end,omitempty"`
	User        string        `json:"user,omitempty"`
	Subject     string        `json:"subject,omitempty"`
	Issuer      string        `json:"issuer,omitempty"`
	Actor       string        `json:"actor,omitempty"`
	Backend     string        `json:"backend"`
	Protocol    flow.Protocol `json:"protocol"`
	Destination string        `json:"destination"`
	Database    string        `json:"database,omitempty"`
	Login       string        `json:"login,omitempty"`
	PID         int           `json:"pid"`
	UID         uint32        `json:"uid"`
	Exe         string        `json:"exe,omitempty"`
	Actions     int64         `json:"actions"`
	BytesUp     int64         `json:"bytes_up"`
	BytesDown   int64         `json:"bytes_down"`
	State       string        `json:"state"` // connecting | open | the reason of its end
}

type entry struct {
	live   *Live
	cancel context.CancelCauseFunc

	actions, up, down atomic.Int64

	mu     sync.Mutex // guards what follows
	info   FlowInfo
	who    *flow.Principal
	idle   func() bool // set by a relay; nil before one runs
	renew  func() bool // asks for a newer sign-in; see onExpiry
	expiry *time.Timer
}

func newLive(now func() time.Time) *Live {
	return &Live{now: now, flows: make(map[flow.ID]*entry)}
}

func (l *Live) enter(ctx context.Context, f *flow.Flow) (*entry, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	e := &entry{live: l, cancel: cancel, info: FlowInfo{
		ID: f.ID, Start: f.Start, Backend: f.Backend, Protocol: f.Protocol, Destination: f.Destination.String(),
		PID: f.Process.PID, UID: f.Process.UID, Exe: f.Process.Exe, State: "connecting",
	}}
	l.mu.Lock()
	l.flows[f.ID] = e
	l.mu.Unlock()
	return e, ctx
}

func (e *entry) leave() {
	e.cancel(nil)
	e.mu.Lock()
	if e.expiry != nil {
		e.expiry.Stop()
	}
	end := e.live.now()
	e.info.End = &end
	e.mu.Unlock()
	row := e.row()
	l := e.live
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flows, row.ID)
	l.recent = append(l.recent, row)
	if len(l.recent) > recentFlows {
		l.recent = slices.Delete(l.recent, 0, len(l.recent)-recentFlows)
	}
	if len(l.flows) == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

func (e *entry) setPrincipal(p *flow.Principal) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.who = p
	if p == nil {
		return
	}
	e.info.User, e.info.Subject, e.info.Issuer = p.User, p.Subject, p.Issuer
	if p.Actor != nil {
		e.info.Actor = p.Actor.Subject
	}
	if p.Expires.IsZero() {
		return
	}
	left := p.Expires.Sub(e.live.now()) + expiryGrace
	if e.expiry != nil {
		e.expiry.Reset(left)
		return
	}
	e.expiry = time.AfterFunc(left, e.expire)
}

// onExpiry sets what is asked before an expired flow is cut.
func (e *entry) onExpiry(renew func() bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renew = renew
}

func (e *entry) expire() {
	e.mu.Lock()
	renew := e.renew
	e.mu.Unlock()
	if renew == nil || !renew() {
		e.cancel(ErrExpired)
	}
}

func (e *entry) admitted(f *flow.Flow) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info.Database, e.info.Login, e.info.State = f.Database, f.Login, "open"
}

func (e *entry) ended(r flow.Reason) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info.State = string(r)
}

func (e *entry) setIdle(idle func() bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.idle = idle
}

func (e *entry) row() FlowInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.info
	r.Actions, r.BytesUp, r.BytesDown = e.actions.Load(), e.up.Load(), e.down.Load()
	return r
}

// List returns the live flows, oldest first; with recent also the last ended
// ones before them.
func (l *Live) List(recent bool) []FlowInfo {
	l.mu.Lock()
	entries := make([]*entry, 0, len(l.flows))
	for _, e := range l.flows {
		entries = append(entries, e)
	}
	var rows []FlowInfo
	if recent {
		rows = append(rows, l.recent...)
	}
	l.mu.Unlock()
	from := len(rows)
	for _, e := range entries {
		rows = append(rows, e.row())
	}
	slices.SortFunc(rows[from:], func(a, b FlowInfo) int { return a.Start.Compare(b.Start) })
	return rows
}

// Revoke cuts every live flow whose principal matches and returns how many. A
// flow that is being identified meanwhile asks again.
func (l *Live) Revoke(match func(*flow.Principal) bool, cause error) int {
	l.epoch.Add(1)
	n := 0
	for _, e := range l.snapshot() {
		e.mu.Lock()
		hit := e.who != nil && match(e.who)
		e.mu.Unlock()
		if hit {
			e.cancel(cause)
			n++
		}
	}
	return n
}

func (l *Live) snapshot() []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*entry, 0, len(l.flows))
	for _, e := range l.flows {
		all = append(all, e)
	}
	return all
}

// drainPoll is how often Drain looks for flows that have become idle.
const drainPoll = 50 * time.Millisecond

// Drain ends flows as they become idle (no statement running, no transaction
// open) and returns when none is left; when ctx ends it cuts the rest and waits
// for them.
func (l *Live) Drain(ctx context.Context) {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		force := ctx.Err() != nil
		for _, e := range l.snapshot() {
			e.mu.Lock()
			idle := e.idle
			e.mu.Unlock()
			if force || (idle != nil && idle()) {
				e.cancel(ErrDrained)
			}
		}
		empty := l.whenEmpty()
		if force {
			<-empty
			return
		}
		select {
		case <-empty:
			return
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (l *Live) whenEmpty() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.flows) == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if l.idle == nil {
		l.idle = make(chan struct{})
	}
	return l.idle
}
