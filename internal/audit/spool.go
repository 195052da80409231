// Package audit writes the evidence: the spool, an append-only log of segments
// in the format of pkg/auditlog. It owns STATE_DIR/log/spool and the log's key
// in STATE_DIR/keys; nobody else writes there.
//
// An append returns when the event is as durable as was asked, or with an error,
// and then the caller must refuse what the event is about. The spool never drops,
// alters or reorders an event that it took, and never goes on over an error: from
// the first one on it refuses everything, until a probe has brought up a fresh
// segment whose first event says what could not be kept.
//
// # Durability
//
// With Process an event survives the death of the agent: write(2) has returned.
// With Disk it survives a loss of power: fdatasync(2) has returned. What is
// evidence on its own (denials, refused flows, approvals, identities, the agent's
// own start and stop, gaps, new policies and configurations) always waits for the
// disk. At the latest after Config.CheckpointEvery everything is on disk.
//
// # Seams
//
// A sealer reads behind the spool with Subscribe from a kept Position; segments
// are immutable once a later one exists.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Durability is what Append waits for.
type Durability string

// The durabilities, as the configuration spells them.
const (
	Process Durability = "process"
	Disk    Durability = "disk"
)

// Defaults of Config.
const (
	DefaultSegmentBytes    = 64 << 20
	DefaultCheckpointEvery = time.Second
)

// Config is what a Spool is made of. StateDir and Node are required.
type Config struct {
	StateDir        string
	Node            string
	Durability      Durability    // default: Process
	SegmentBytes    int64         // a segment of this length is full; default: DefaultSegmentBytes
	CheckpointEvery time.Duration // also how often a broken spool is probed; default: DefaultCheckpointEvery
	Now             func() time.Time
	FS              FS
	Log             *slog.Logger
}

// Errors of Append.
var (
	// ErrUnwritable says that the log cannot be written just now: refuse what was
	// to be recorded. The spool itself tries again.
	ErrUnwritable = errors.New("the audit log cannot be written")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("the audit log is closed")
)

// Spool is the open log. Its methods are safe for concurrent use.
type Spool struct {
	Config
	dir    string
	signer *signer
	lock   *os.File // flock: one writer for one directory

	queue requestQueue
	disk  diskState
	lost  lostEvents
	// refusing mirrors failure and closed for Append's first look.
	refusing atomic.Bool

	// mu guards the writer's state; whoever holds it may write to file.
	mu       sync.Mutex
	file     File
	pos      auditlog.Position // end of what was written
	mark     uint64            // bytes written since Open, over all segments
	carried  int64             // offset behind what begin wrote to the segment
	unsigned bool              // events were written since the last checkpoint
	table    table
	failure  *failure
	closed   bool
	buf      []byte
	subs     []*Subscription

	poke chan struct{} // wakes the keeper early; capacity 1
	stop chan struct{} // closed by Close
	done chan struct{} // closed when the keeper has ended

	closeOnce sync.Once
	closeErr  error

	checkpointMu sync.Mutex // one checkpoint at a time; taken before mu
}

// failure is why the spool refuses. Guarded by Spool.mu.
type failure struct {
	err    error
	cause  string // auditlog.Gap*
	at     time.Time
	after  uint64 // seq of the last event known to be kept
	unsure uint64 // events behind it that are in the log but may not reach the disk
}

// Open opens the log of a node, or begins one. What an earlier agent left is
// replayed: an incomplete last record is removed, flows and actions that are open
// are closed (agent_lost, lost), and a gap event says that the agent was lost.
// All of that and the new segment appear in one step.
func Open(c Config) (_ *Spool, err error) {
	if c, err = withDefaults(c); err != nil {
		return nil, err
	}
	s := &Spool{
		Config: c, dir: auditlog.SpoolDir(c.StateDir), table: newTable(),
		poke: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	s.disk.cond.L = &s.disk.mu
	s.queue.pool.New = func() any { return &request{turn: make(chan bool, 1)} }
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the audit log's directory: %w", err)
	}
	if s.lock, err = lockDir(s.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	if err := s.replay(); err != nil {
		return nil, fmt.Errorf("open the audit log in %s: %w", s.dir, err)
	}
	go s.keep()
	return s, nil
}

func withDefaults(c Config) (Config, error) {
	if c.StateDir == "" || c.Node == "" || len(c.Node) > auditlog.MaxNode {
		return c, errors.New("the audit log needs a state directory and a node's name")
	}
	switch c.Durability {
	case "":
		c.Durability = Process
	case Process, Disk:
	default:
		return c, fmt.Errorf("audit.durability must be process or disk, not %q", c.Durability)
	}
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = DefaultSegmentBytes
	}
	if c.CheckpointEvery <= 0 {
		c.CheckpointEvery = DefaultCheckpointEvery
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.FS == nil {
		c.FS = osFS{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Append records events, all of them or none, in this order and without another
// event between them. It sets their V, Seq, Time and, when empty, Node; they must
// not be changed afterwards. It returns when they are durable: with disk, or if
// one of them always is, on disk. On an error none may be relied on (though a
// crash or a failed sync may leave them in the log) and their subject must be
// refused. A context that has ended refuses them; one that ends later does not
// stop them.
func (s *Spool) Append(ctx context.Context, disk bool, events ...*auditlog.Event) error {
	if len(events) == 0 {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	if s.refusing.Load() {
		if err := s.refuse(events); err != nil {
			return err
		}
	}
	r, err := s.encode(events)
	if err != nil {
		return err
	}
	s.queue.run(r, s.write)
	err, at := r.err, r.at
	s.queue.release(r)
	if err != nil {
		return err
	}
	if disk || s.Durability == Disk || alwaysDisk(events) {
		return s.sync(at)
	}
	return nil
}

// refuse answers an append to a spool that does not write; nil when it writes
// again.
func (s *Spool) refuse(events []*auditlog.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal(events)
}

// refusal returns why the spool does not write, nil when it does. What is refused
// is counted. Called with mu held.
func (s *Spool) refusal(events ...[]*auditlog.Event) error {
	if s.closed {
		return ErrClosed
	}
	if s.failure == nil {
		return nil
	}
	for _, list := range events {
		s.lost.add(list, s.Now())
	}
	return fmt.Errorf("%w: %w", ErrUnwritable, s.failure.err)
}

// alwaysDisk reports whether one of the events is evidence that always waits for
// the disk.
func alwaysDisk(events []*auditlog.Event) bool {
	for _, ev := range events {
		switch ev.Kind {
		case auditlog.FlowRefused, auditlog.ApprovalRequest, auditlog.ApprovalDecide, auditlog.ApprovalExpire, auditlog.ApprovalView,
			auditlog.IdentityBind, auditlog.IdentityUnbind, auditlog.AgentStart, auditlog.AgentStop,
			auditlog.Gap, auditlog.PolicyLoad, auditlog.ConfigLoad, auditlog.RetentionEvent:
			return true
		}
		if ev.Verdict == "deny" || (ev.Result != nil && ev.Result.Status == auditlog.StatusDenied) {
			return true
		}
	}
	return false
}

// Status is the state of the spool.
type Status struct {
	Dir        string
	Durability Durability
	Seq        uint64 // of the last event
	Problem    string // why it refuses; "" when it does not
}

// Status returns the state of the spool.
func (s *Spool) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Dir: s.dir, Durability: s.Durability, Seq: s.pos.Seq}
	if err := s.refusal(); err != nil {
		st.Problem = err.Error()
	}
	return st
}

// PublicKey is the key that verifies the log's checkpoints.
func (s *Spool) PublicKey() auditlog.PublicKey { return s.signer.public }

// Close signs the end of the log and closes it; a later Append returns ErrClosed.
// It returns an error when the end could not be signed or what was refused could
// not be accounted for.
func (s *Spool) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Spool) close() error {
	close(s.stop)
	<-s.done
	s.attend() // the last chance to recover and to account for what was refused
	err := s.checkpoint(true)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		err = fmt.Errorf("%w: %w", ErrUnwritable, s.failure.err)
	}
	s.closed = true
	s.refusing.Store(true)
	for _, sub := range s.subs {
		sub.end()
	}
	s.subs = nil
	s.disk.own() // nobody syncs a file that is closed
	defer s.disk.disown()
	return errors.Join(err, s.file.Close(), s.lock.Close())
}

// keep is the keeper: it signs checkpoints, probes a broken spool and accounts
// for what was refused.
func (s *Spool) keep() {
	defer close(s.done)
	tick := time.NewTicker(s.CheckpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		case <-s.poke:
		}
		s.attend()
		if err := s.checkpoint(false); err != nil {
			s.Log.Error("the audit log's checkpoint could not be written", "error", err)
		}
	}
}

func (s *Spool) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}
