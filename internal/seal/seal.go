// Package seal puts the events of the spool into the sealed log: a transparency
// log in files (C2SP tlog-tiles) whose tree heads are signed with the node's key.
// It owns STATE_DIR/log/tiles and STATE_DIR/log/checkpoints; pkg/auditlog reads
// and verifies them.
//
// It works behind the spool: it never holds up an append, and an error of its own
// never reaches one. It seals only what is on disk in the spool, in order, each
// event once: where to go on after any end is what the published tree holds.
package seal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// Defaults and bounds.
const (
	// DefaultEvery is how often the spool is looked at.
	DefaultEvery = 500 * time.Millisecond
	// maxBatch is how many events are sealed in one step: whole bundles, so that
	// catching up leaves no partial ones behind.
	maxBatch = 16 * auditlog.TileWidth
	// maxBatchBytes bounds a batch in memory.
	maxBatchBytes = 8 << 20
	// retryAfter is how long sealing pauses after an error.
	retryAfter = 2 * time.Second
	// keepHeadEvery is how often a published head is kept, besides the first and
	// the last one of a run.
	keepHeadEvery = time.Hour
	// cleanEvery is how often segments and expired events are looked for.
	cleanEvery = time.Minute
)

// Config is what a Sealer is made of. StateDir and Spool are required.
type Config struct {
	StateDir string
	Spool    *audit.Spool
	Every    time.Duration // default: DefaultEvery
	// Retention is how long events stay; 0: for ever.
	Retention time.Duration
	// Clean is how often what is sealed or expired is removed; default: a minute.
	Clean time.Duration
	// Retry is how long sealing pauses after an error; default: two seconds.
	Retry time.Duration
	// Keep tells where other readers of the spool stand: segments stay until all
	// have passed them, or until they are older than Retention. They are called on
	// the sealer's goroutine.
	Keep []func() auditlog.Position
	// Problem is told what is wrong, and "" when nothing is any more.
	Problem func(text string)
	Now     func() time.Time
	FS      audit.FS // default: the real one
	Log     *slog.Logger
}

// Sealer seals until Close. Its methods are safe for concurrent use.
type Sealer struct {
	Config
	dir    string
	key    auditlog.PublicKey // under the sealed log's name
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	status  Status
	problem string

	// Owned by the goroutine of run, then by Close.
	tree      *tree             // nil: to be opened
	pos       auditlog.Position // what is before it is sealed, or cannot be read
	last      uint64            // number of the last event in the tree
	told      uint64            // number of the last event up to which the log says what is missing
	keptAt    time.Time         // when a head was kept
	cleanedAt time.Time

	closeOnce sync.Once
	closeErr  error
}

// Status is how far the log is sealed.
type Status struct {
	Origin string
	Size   uint64 // leaves that the published head covers
}

// Open starts sealing. What is wrong with the sealed log does not fail it: it is
// a problem, and sealing is tried again.
func Open(c Config) (*Sealer, error) {
	if c.StateDir == "" || c.Spool == nil {
		return nil, errors.New("the sealer needs a state directory and a spool")
	}
	if c.Every <= 0 {
		c.Every = DefaultEvery
	}
	if c.Clean <= 0 {
		c.Clean = cleanEvery
	}
	if c.Retry <= 0 {
		c.Retry = retryAfter
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.FS == nil {
		c.FS = audit.RealFS()
	}
	if c.Problem == nil {
		c.Problem = func(string) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sealer{Config: c, dir: auditlog.TilesDir(c.StateDir), key: c.Spool.PublicKey().ForTiles(),
		cancel: cancel, done: make(chan struct{}), cleanedAt: c.Now()}
	s.status.Origin = s.key.Name
	go s.run(ctx)
	return s, nil
}

// Status returns how far the log is sealed.
func (s *Sealer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Close seals what is in the spool by now, and ends. The spool must still be open.
func (s *Sealer) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Sealer) close() error {
	s.cancel()
	<-s.done
	err := s.drain()
	if err == nil && s.tree != nil {
		err = s.keepHead()
	}
	if err != nil {
		return fmt.Errorf("the end of the log is not sealed; the next start goes on there: %w", err)
	}
	return nil
}

// drain seals until nothing is left.
func (s *Sealer) drain() error {
	for {
		more, err := s.seal()
		if err != nil || !more {
			return err
		}
	}
}

func (s *Sealer) run(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(s.Every)
	defer tick.Stop()
	for {
		next := tick.C
		err := s.work(ctx)
		if ctx.Err() != nil {
			return
		}
		if s.report(err); err != nil {
			next = time.After(s.Retry)
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// work seals what there is, and cleans up when it is time.
func (s *Sealer) work(ctx context.Context) error {
	for {
		more, err := s.seal()
		if err != nil {
			return err
		}
		if !more || ctx.Err() != nil {
			break
		}
	}
	if s.tree != nil && s.Now().Sub(s.keptAt) >= keepHeadEvery {
		if err := s.keepHead(); err != nil {
			return err
		}
	}
	if now := s.Now(); now.Sub(s.cleanedAt) >= s.Clean {
		s.cleanedAt = now
		return s.clean(ctx, now)
	}
	return nil
}

func (s *Sealer) report(err error) {
	text := ""
	if err != nil {
		text = "events are recorded but not sealed: " + err.Error()
	}
	s.mu.Lock()
	same := text == s.problem
	s.problem = text
	s.mu.Unlock()
	if same {
		return
	}
	s.Problem(text)
	if err != nil {
		s.Log.Error("the audit log is not sealed; the spool keeps what is recorded", "error", err)
	} else {
		s.Log.Info("the audit log is sealed again")
	}
}

// seal seals the next batch; more says that there may be another. An error of
// the spool is not ours: it shows in the spool's own status.
func (s *Sealer) seal() (more bool, err error) {
	limit, err := s.Spool.Sync()
	if errors.Is(err, audit.ErrUnwritable) || errors.Is(err, audit.ErrClosed) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if s.tree == nil {
		if err := s.open(); err != nil {
			return false, err
		}
	}
	if !s.pos.Before(limit) {
		return false, nil
	}
	b, err := s.read(limit)
	if err != nil {
		return false, err
	}
	if b.missing != nil && s.told < b.last {
		// Said before it is passed over: a crash in between says it twice.
		if err := s.Spool.Append(context.Background(), true, b.missing); err != nil {
			return false, fmt.Errorf("record that events are missing: %w", err)
		}
		s.told = b.last
	}
	if len(b.leaves) > 0 {
		if err := s.append(b); err != nil {
			s.tree = nil // its memory is ahead of the disk
			return false, err
		}
	}
	s.pos, s.last = b.end, b.last
	return b.full || b.missing != nil, nil
}

// open opens the tree, when it is what was left, and finds its end in the spool.
func (s *Sealer) open() error {
	if err := s.checkHeads(); err != nil {
		return err
	}
	t, err := openTree(s.FS, s.dir, s.key, s.Spool.SignTreeHead)
	if err != nil {
		return err
	}
	if err := s.locate(t); err != nil {
		return err
	}
	s.tree = t
	s.setSize()
	return nil
}

func (s *Sealer) setSize() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Size = s.tree.sum.Size()
}

// append seals a batch.
func (s *Sealer) append(b *batch) error {
	for _, payload := range b.long {
		if err := s.tree.write([]file{{auditlog.LongFile(payload), payload}}); err != nil {
			return err
		}
	}
	if err := s.tree.append(b.leaves); err != nil {
		return err
	}
	s.setSize()
	return nil
}
