// Package catalog keeps pictures of databases' system catalogues for name
// resolution and masking: sqlmeta.Catalog values, loaded on connections of Weir's
// own and refreshed while they are in use.
//
// It owns those connections and asks nothing on anybody else's. It reads the
// system catalogues only, never a row of data, and names everything with its
// schema, so that no search path can put something else in its way
// (CVE-2025-12819).
package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// How old a picture may be, and how long things are kept.
const (
	// fresh: younger pictures are used without asking the server. DDL that goes
	// through Weir is seen at once (Invalidate); other DDL within this time.
	fresh = 2 * time.Second
	// behind: up to this age a picture is still used while a new one is fetched
	// beside it.
	behind = 10 * time.Second
	// stale bounds how long the last picture serves while the server cannot be
	// asked.
	stale = 5 * time.Minute
	// retry is how long a failure to ask is taken for an answer: a server that has
	// no connection left must not be asked again for every statement.
	retry = 2 * time.Second
	// idle is how long a connection is kept after its last use.
	idle = time.Minute
	// forget is how long a picture is kept after its last use.
	forget = 15 * time.Minute
	// sweepEvery is how often connections and pictures are looked at for that.
	sweepEvery = 15 * time.Second
	// timeout of one visit to the server.
	timeout = 30 * time.Second
)

// Key names one database as its clients reach it. Namespace is the network
// namespace's cookie: the same address may be another server there.
type Key struct {
	Backend, Address string
	Namespace        uint64
	Database, Login  string
}

// Conn is a connection of Weir's own.
type Conn = pgconn.PgConn

// Config is what a Cache is made of.
type Config struct {
	// Connect opens a connection of Weir's own to the database of a key.
	Connect func(ctx context.Context, k Key) (*Conn, error)
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Cache holds one picture for each key. It is safe for concurrent use.
type Cache struct {
	config Config
	ctx    context.Context
	stop   context.CancelFunc
	work   sync.WaitGroup // the sweeper and refreshes under way

	mu      sync.Mutex
	closed  bool
	version uint64 // of the last picture
	entries map[Key]*entry
}

// entry is one database.
type entry struct {
	key   Key
	users int // guarded by Cache.mu: an entry in use is not forgotten

	// visit holds one token: who has it may use conn and probe.
	visit chan struct{}
	conn  *pgconn.PgConn
	probe string // answer of the version probe that catalog belongs to

	mu         sync.Mutex
	catalog    *sqlmeta.Catalog
	checked    time.Time // when the server was asked for what catalog shows
	invalid    uint64    // counts Invalidate
	seen       uint64    // value of invalid that catalog covers
	refreshing bool
	failed     time.Time // when asking last failed
	failure    error
	used       time.Time
}

// New makes an empty cache. It runs a sweeper until Close.
func New(c Config) *Cache {
	if c.Now == nil {
		c.Now = time.Now
	}
	ctx, stop := context.WithCancel(context.Background())
	cache := &Cache{config: c, ctx: ctx, stop: stop, entries: make(map[Key]*entry)}
	cache.work.Go(cache.sweeper)
	return cache
}

// Close ends every refresh and connection and waits for them. A closed cache
// answers with errors.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.work.Wait()
	c.mu.Lock()
	entries := c.entries
	c.entries = nil
	c.mu.Unlock()
	for _, e := range entries {
		<-e.visit // never given back
		e.hangUp()
	}
}

var errClosed = errors.New("weir is stopping")

// enter finds or makes the entry of a key; leave must follow.
func (c *Cache) enter(k Key) (*entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	e := c.entries[k]
	if e == nil {
		e = &entry{key: k, visit: make(chan struct{}, 1)}
		e.visit <- struct{}{}
		c.entries[k] = e
	}
	e.users++
	return e, nil
}

func (c *Cache) leave(e *entry) {
	c.mu.Lock()
	e.users--
	c.mu.Unlock()
}

// Get returns the picture of a database. It asks the server only when the last
// picture is no longer fresh. While the server cannot be asked the last picture
// serves for a bounded time, unless it is known to be outdated; then, or when
// there is none, that is an error.
func (c *Cache) Get(ctx context.Context, k Key) (*sqlmeta.Catalog, error) {
	e, err := c.enter(k)
	if err != nil {
		return nil, wrap("read the catalogue of", k, err)
	}
	defer c.leave(e)
	now := c.config.Now()
	e.mu.Lock()
	e.used = now
	cat, age, current := e.catalog, now.Sub(e.checked), e.catalog != nil && e.seen == e.invalid
	failure := e.failure
	if now.Sub(e.failed) >= retry {
		failure = nil
	}
	background := current && age >= fresh && age < behind && failure == nil && !e.refreshing
	e.refreshing = e.refreshing || background
	e.mu.Unlock()
	switch {
	case current && age < behind:
		if background {
			c.refreshBeside(e)
		}
		return cat, nil
	case failure == nil:
		if failure = c.refresh(ctx, e); failure == nil {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.catalog, nil
		}
		c.config.Log.Warn("the catalogue of a database cannot be read", "backend", k.Backend, "database", k.Database, "last", current && age < stale, "error", failure)
	}
	if current && age < stale && ctx.Err() == nil {
		return cat, nil
	}
	return nil, wrap("read the catalogue of", k, failure)
}

func wrap(doing string, k Key, err error) error {
	return fmt.Errorf("%s database %q at backend %q: %w", doing, k.Database, k.Backend, err)
}

// refreshBeside refreshes an entry without making anybody wait. A failure is kept
// in the entry and found by the next Get.
func (c *Cache) refreshBeside(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	e.users++
	c.work.Go(func() {
		defer c.leave(e)
		if err := c.refresh(c.ctx, e); err != nil && c.ctx.Err() == nil {
			c.config.Log.Warn("the catalogue of a database cannot be refreshed", "backend", e.key.Backend, "database", e.key.Database, "error", err)
		}
		e.mu.Lock()
		e.refreshing = false
		e.mu.Unlock()
	})
}

// Invalidate says that the catalogue has changed: the next Get asks the server.
func (c *Cache) Invalidate(k Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, e := range c.entries { // other logins see the same database
		other.Login = k.Login
		if other == k {
			e.mu.Lock()
			e.invalid++
			e.mu.Unlock()
		}
	}
}

// refresh brings an entry up to date. Who waited for another's attempt shares its
// outcome.
func (c *Cache) refresh(ctx context.Context, e *entry) error {
	asked := c.config.Now()
	e.mu.Lock()
	invalid := e.invalid
	e.mu.Unlock()
	tried := false // a second run is for a connection that was broken
	return c.visit(ctx, e, func(ctx context.Context, conn func() (*pgconn.PgConn, error)) error {
		e.mu.Lock()
		done := e.catalog != nil && e.seen >= invalid && e.checked.After(asked)
		failed, failure := e.failed.After(asked), e.failure
		invalid = e.invalid // whatever changed before now is in what is read now
		e.mu.Unlock()
		switch {
		case done:
			return nil
		case failed && !tried:
			return failure
		}
		tried = true
		start := c.config.Now()
		cat, err := c.read(ctx, e, conn)
		e.mu.Lock()
		defer e.mu.Unlock()
		if err != nil {
			if !errors.Is(context.Cause(ctx), context.Canceled) { // else the caller gave up, not the server
				e.failed, e.failure = c.config.Now(), err
			}
			return err
		}
		e.catalog, e.checked, e.seen = cat, start, invalid
		e.failed, e.failure = time.Time{}, nil
		return nil
	})
}

// read gives the entry's picture as the server has it now, the same one when
// nothing has changed.
func (c *Cache) read(ctx context.Context, e *entry, connect func() (*pgconn.PgConn, error)) (*sqlmeta.Catalog, error) {
	conn, err := connect()
	if err != nil {
		return nil, err
	}
	version, err := probe(ctx, conn)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	cat := e.catalog
	e.mu.Unlock()
	if cat != nil && version == e.probe {
		return cat, nil
	}
	c.mu.Lock()
	c.version++
	n := c.version
	c.mu.Unlock()
	cat, partial, err := load(ctx, conn, n)
	if err != nil {
		return nil, err
	}
	if e.probe = version; partial {
		e.probe = "" // the next time it is read again
	}
	return cat, nil
}
