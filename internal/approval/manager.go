package approval

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/kv"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

const (
	// keepEnded is how many requests that have ended are still listed.
	keepEnded = 500
	// clockEvery is how often the time is written down, so that a clock that is set
	// back over a restart is noticed.
	clockEvery = time.Minute
	// maxPending bounds the requests that wait at once, of everybody and of one person.
	maxPending       = 10000
	maxPendingPerson = 1000
	// storeTimeout bounds one operation of the store.
	storeTimeout = 10 * time.Second
	// minKey is how long the node's key is at least, bytes.
	minKey = 32
)

// Recorder keeps events: *audit.Spool is one. Append returns when they are on disk.
type Recorder interface {
	Append(ctx context.Context, disk bool, events ...*auditlog.Event) error
}

// Config is what a Manager is made of. All fields are required but Notify.
type Config struct {
	Node    string
	Store   Store
	Key     []byte        // the node's own secret, 32 bytes or more
	Timeout time.Duration // of a request whose rules give none
	Prove   Prover
	Record  Recorder
	Notify  []Notifier
	Now     func() time.Time
	Log     *slog.Logger
}

// Manager owns the requests of one node. It meets session.Approvals and Service.
type Manager struct {
	cfg   Config
	clock *clock
	seal  sealer

	mu      sync.Mutex // guards what follows; never held across I/O
	items   map[string]*item
	grants  map[[sha256.Size]byte][]*item // what stands, by scope
	ended   []string                      // ids, oldest first
	pending int
	// previews counts those that are being found out.
	previews int
	watches  map[*watcher]struct{}
	closed   bool

	work   sync.WaitGroup // previews
	tick   *time.Timer
	ctx    context.Context // of the work; ends with Close
	cancel context.CancelFunc
}

// item is one request. Its mutex is taken before the manager's, and held across the
// store and the record, so that one thing at a time happens to a request.
type item struct {
	mu sync.Mutex

	id       string
	doc      document
	digest   string
	nonce    string
	key      [sha256.Size]byte
	revision uint64 // of the store

	// What follows is guarded by the manager's mutex for reading, and changed with both
	// held.
	rec     record
	changed chan struct{}
	timer   *time.Timer
	live    context.Context // of the consent
	end     context.CancelCauseFunc
	ask     func(context.Context) []Preview // finds the preview out; nil once it is under way
	found   chan struct{}                   // closed when that is over
	running int                             // actions that the consent has let through and that run
	seen    map[string]bool                 // who has seen it
}

// New reads back what was open before a restart: durations go on, everything else
// ends, since the flows that waited are gone.
func New(ctx context.Context, c Config) (*Manager, error) {
	if len(c.Key) < minKey {
		return nil, fmt.Errorf("approvals: the node's key is shorter than %d bytes", minKey)
	}
	m := &Manager{cfg: c, seal: sealer{c.Key}, items: map[string]*item{}, grants: map[[sha256.Size]byte][]*item{}, watches: map[*watcher]struct{}{}}
	entries, err := c.Store.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("approvals: read what was open before the restart: %w", err)
	}
	m.clock = newClock(c.Now, m.lastTime(entries))
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for _, e := range entries {
		if !strings.HasPrefix(e.Key, requestKeys) {
			continue
		}
		if err := m.restore(ctx, e); err != nil {
			m.cancel()
			return nil, err
		}
	}
	m.writeClock()
	return m, nil
}

// lastTime is when the node last wrote its time down.
func (m *Manager) lastTime(entries []kv.Entry) time.Time {
	var t time.Time
	for _, e := range entries {
		if e.Key == clockKey && m.seal.open(clockKey, e.Value, &t) != nil {
			m.cfg.Log.Error("the stored time of approvals was not written by this node; it is not used")
		}
	}
	return t
}

// writeClock writes the time down, now and from time to time.
func (m *Manager) writeClock() {
	ctx, cancel := context.WithTimeout(m.ctx, storeTimeout)
	defer cancel()
	value, err := m.seal.seal(clockKey, m.clock.now())
	if err == nil {
		_, err = m.cfg.Store.Put(ctx, clockKey, value)
	}
	if err != nil && m.ctx.Err() == nil {
		m.cfg.Log.Warn("the time could not be written to the store of approvals", "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.tick = time.AfterFunc(clockEvery, m.background(m.writeClock))
	}
}

// background makes f part of the work that Close waits for.
func (m *Manager) background(f func()) func() {
	return func() {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return
		}
		m.work.Add(1)
		m.mu.Unlock()
		defer m.work.Done()
		f()
	}
}

// restore takes one stored request back.
func (m *Manager) restore(ctx context.Context, e kv.Entry) error {
	id := strings.TrimPrefix(e.Key, requestKeys)
	it := &item{id: id, revision: e.Revision, changed: make(chan struct{}), seen: map[string]bool{}}
	err := m.seal.open(e.Key, e.Value, &it.rec)
	if err == nil {
		err = json.Unmarshal(it.rec.Document, &it.doc)
	}
	if err != nil || it.doc.ID != id || len(it.rec.Key) != len(it.key) {
		m.cfg.Log.Error("a stored approval request does not count: it was not written by this node's weir", "id", id)
		return m.cfg.Record.Append(ctx, true, &auditlog.Event{Node: m.cfg.Node, Kind: auditlog.ApprovalExpire, Reason: "tampered",
			Approval: &auditlog.Approval{ID: id, Decided: string(DecidedRefused), Status: string(Withdrawn), Justification: errSeal.Error()}})
	}
	copy(it.key[:], it.rec.Key)
	it.digest, it.nonce = digestOf(it.rec.Document)
	m.items[id] = it
	now := m.clock.now()
	switch standing := it.rec.Status == Approved && !it.rec.Until.IsZero(); {
	case it.rec.Status == Approved && standing && now.Before(it.rec.Until):
		it.live, it.end = context.WithCancelCause(context.Background())
		m.grants[it.key] = append(m.grants[it.key], it)
		m.arm(it, it.rec.Until)
	case standing:
		m.finish(ctx, it, Expired, "it had run out when weir started again", "expired")
	case it.rec.Status == Pending || it.rec.Status == Approved:
		if it.rec.Status == Pending {
			m.pending++
		}
		m.finish(ctx, it, Withdrawn, "weir was started anew, and the connection that waited is gone", "agent_lost")
	default:
		m.keepEnded(it)
	}
	return nil
}

// Close ends what waits, as withdrawn, and waits for everything. Grants with a duration
// go on after the next start.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	if m.tick != nil {
		m.tick.Stop()
	}
	var open []*item
	for _, it := range m.items {
		if it.timer != nil {
			it.timer.Stop()
		}
		if it.rec.Status == Pending {
			open = append(open, it)
		}
	}
	for w := range m.watches {
		w.wake()
	}
	m.mu.Unlock()
	m.cancel()
	m.work.Wait()
	for _, it := range open {
		it.mu.Lock()
		if it.rec.Status == Pending {
			m.finish(context.Background(), it, Withdrawn, "weir is stopping", "drained")
		}
		it.mu.Unlock()
	}
	return nil
}

// find returns a request by its id.
func (m *Manager) find(id string) (*item, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if it := m.items[strings.ToUpper(strings.TrimSpace(id))]; it != nil {
		return it, nil
	}
	return nil, &NotFound{ID: id}
}

// save writes a changed record, which takes effect when it is in the store. The item's
// mutex is held. A revision that is not the last one written here means that somebody
// else has written.
func (m *Manager) save(ctx context.Context, it *item, rec record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	value, err := m.seal.seal(requestKeys+it.id, rec)
	if err != nil {
		return err
	}
	revision, err := m.cfg.Store.Update(ctx, requestKeys+it.id, value, it.revision)
	if err != nil {
		return err
	}
	it.revision = revision
	m.mu.Lock()
	was := it.rec.Status
	it.rec = rec
	m.moved(it, was)
	close(it.changed)
	it.changed = make(chan struct{})
	for w := range m.watches {
		w.add(it.id)
	}
	m.mu.Unlock()
	if was != rec.Status || rec.Review != "" || len(rec.Decisions) > 0 {
		m.notify(it)
	}
	return nil
}

// moved keeps the counts and lists in step with a status. The mutex is held.
func (m *Manager) moved(it *item, was Status) {
	if was == Pending && it.rec.Status != Pending {
		m.pending--
	}
	if over(it.rec.Status) && !over(was) {
		list := slices.DeleteFunc(m.grants[it.key], func(x *item) bool { return x == it })
		if len(list) == 0 {
			delete(m.grants, it.key)
		} else {
			m.grants[it.key] = list
		}
		m.keepEnded(it)
	}
}

// keepEnded keeps the last ones that have ended, and every open review. The mutex is
// held, or nobody else is there yet.
func (m *Manager) keepEnded(it *item) {
	m.ended = append(m.ended, it.id)
	for len(m.ended) > keepEnded {
		old := m.items[m.ended[0]]
		if old != nil && old.rec.Review == reviewOpen && len(m.ended) < 2*keepEnded {
			m.ended = append(m.ended[1:], m.ended[0])
			if m.ended[0] == it.id {
				return
			}
			continue
		}
		delete(m.items, m.ended[0])
		m.ended = m.ended[1:]
	}
}

func over(s Status) bool { return s != Pending && s != Approved }

// intact reports whether the store still holds what this node wrote last. The item's
// mutex is held.
func (m *Manager) intact(ctx context.Context, it *item) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	e, err := m.cfg.Store.Get(ctx, requestKeys+it.id)
	if errors.Is(err, kv.ErrNotFound) {
		return errSeal
	}
	if err != nil {
		return fmt.Errorf("read the request from the store: %w", err)
	}
	var rec record
	if err := m.seal.open(e.Key, e.Value, &rec); err != nil || e.Revision != it.revision {
		return errSeal
	}
	return nil
}

// finish ends a request; reason is the record's word for why. It has ended even if that
// could not be written down: a restart then ends it again. The item's mutex is held, or
// nobody else knows the item.
func (m *Manager) finish(ctx context.Context, it *item, s Status, why, reason string) {
	rec := it.rec
	rec.Status, rec.Ended, rec.EndedAt = s, why, m.clock.now()
	ev := m.event(it, auditlog.ApprovalExpire)
	ev.Reason = reason
	ev.Approval.Status, ev.Approval.Ended = string(s), why
	if it.rec.Status == Pending {
		ev.Approval.WaitedUS = m.waited(it)
	}
	if err := m.cfg.Record.Append(context.WithoutCancel(ctx), true, ev); err != nil {
		m.cfg.Log.Error("the end of an approval request could not be recorded", "id", it.id, "error", err)
	}
	if err := m.save(ctx, it, rec); err != nil {
		m.cfg.Log.Error("the end of an approval request could not be stored", "id", it.id, "error", err)
		m.mu.Lock()
		was := it.rec.Status
		it.rec = rec
		m.moved(it, was)
		close(it.changed)
		it.changed = make(chan struct{})
		m.mu.Unlock()
	}
	if it.timer != nil {
		it.timer.Stop()
	}
	if it.end != nil {
		it.end(causeOf(s))
	}
}

// causeOf is why what hangs on a grant is cut.
func causeOf(s Status) error {
	if s == Expired {
		return session.ErrGrantExpired
	}
	return session.ErrGrantWithdrawn
}

// waited is how long a request has been open, microseconds.
func (m *Manager) waited(it *item) int64 {
	return max(1, m.clock.now().Sub(it.doc.Created).Microseconds())
}

// arm ends the request or grant at a moment.
func (m *Manager) arm(it *item, at time.Time) {
	left := at.Sub(m.clock.now())
	m.mu.Lock()
	defer m.mu.Unlock()
	if it.timer != nil {
		it.timer.Stop()
	}
	if !m.closed {
		it.timer = time.AfterFunc(left, m.background(func() { m.expire(it) }))
	}
}

func (m *Manager) expire(it *item) {
	it.mu.Lock()
	defer it.mu.Unlock()
	now := m.clock.now()
	switch {
	case it.rec.Status == Pending && !now.Before(it.doc.Expires):
		m.finish(m.ctx, it, Expired, "nobody decided in time", "expired")
	case it.rec.Status == Approved && !it.rec.Until.IsZero() && !now.Before(it.rec.Until):
		m.finish(m.ctx, it, Expired, "the time that it was granted for is over", "expired")
	case it.rec.Status == Pending:
		m.arm(it, it.doc.Expires)
	case it.rec.Status == Approved && !it.rec.Until.IsZero():
		m.arm(it, it.rec.Until)
	}
}

// grantUntil is the end of a grant that begins now; zero when it has none of its own.
func (m *Manager) grantUntil(rec *record) time.Time {
	if rec.GrantFor <= 0 || rec.Grant == policy.GrantOnce || rec.Grant == policy.GrantSession {
		return time.Time{}
	}
	return m.clock.now().Add(rec.GrantFor)
}
