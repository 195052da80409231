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

// How old a picture may be.
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
	// idle is how long a connection is kept after its last use.
	idle = time.Minute
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
	config  Config
	work    sync.WaitGroup // refreshes under way
	ctx     context.Context
	stop    context.CancelFunc
	version uint64 // of the next picture; guarded by mu

	mu      sync.Mutex
	entries map[Key]*entry
}

// entry is one database. Its visit lock serialises what goes over the connection.
type entry struct {
	key   Key
	visit sync.Mutex
	conn  *pgconn.PgConn // guarded by visit
	timer *time.Timer    // closes conn when idle; guarded by visit
	probe string         // answer of the version probe that catalog belongs to; guarded by visit

	mu         sync.Mutex
	catalog    *sqlmeta.Catalog
	checked    time.Time
	invalid    uint64 // counts Invalidate
	seen       uint64 // value of invalid that catalog covers
	refreshing bool
}

// New makes an empty cache.
func New(c Config) *Cache {
	if c.Now == nil {
		c.Now = time.Now
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Cache{config: c, ctx: ctx, stop: stop, entries: make(map[Key]*entry)}
}

// Close ends every refresh and connection.
func (c *Cache) Close() {
	c.stop()
	c.work.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		e.visit.Lock()
		e.hangUp()
		e.visit.Unlock()
	}
}

func (c *Cache) entry(k Key) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[k]
	if e == nil {
		e = &entry{key: k}
		c.entries[k] = e
	}
	return e
}

// Get returns the picture of a database. It asks the server only when the last
// picture is no longer fresh. While the server cannot be asked the last picture
// serves for a bounded time; then, or when there is none, that is an error.
func (c *Cache) Get(ctx context.Context, k Key) (*sqlmeta.Catalog, error) {
	e := c.entry(k)
	now := c.config.Now()
	e.mu.Lock()
	cat, age, current := e.catalog, now.Sub(e.checked), e.seen == e.invalid
	if cat != nil && current && age < fresh {
		e.mu.Unlock()
		return cat, nil
	}
	if cat != nil && current && age < behind {
		if !e.refreshing && c.ctx.Err() == nil {
			e.refreshing = true
			c.work.Go(func() {
				_ = c.refresh(c.ctx, e) // the next Get sees the age and says so
				e.mu.Lock()
				e.refreshing = false
				e.mu.Unlock()
			})
		}
		e.mu.Unlock()
		return cat, nil
	}
	e.mu.Unlock()
	err := c.refresh(ctx, e)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil:
		return e.catalog, nil
	case e.catalog != nil && e.seen == e.invalid && now.Sub(e.checked) < stale && ctx.Err() == nil:
		c.config.Log.Warn("the catalogue of a database cannot be refreshed; the last picture serves for now", "backend", k.Backend, "database", k.Database, "error", err)
		return e.catalog, nil
	}
	return nil, fmt.Errorf("read the catalogue of database %q at backend %q: %w", k.Database, k.Backend, err)
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

// refresh brings an entry up to date. Whoever waited for another's refresh that
// covers its own reason goes without asking.
func (c *Cache) refresh(ctx context.Context, e *entry) error {
	asked := c.config.Now()
	e.mu.Lock()
	invalid := e.invalid
	e.mu.Unlock()
	return c.visit(ctx, e, func(ctx context.Context, conn *pgconn.PgConn) error {
		e.mu.Lock()
		done := e.catalog != nil && e.seen >= invalid && e.checked.After(asked)
		invalid = e.invalid // whatever changed before now is in what is read now
		e.mu.Unlock()
		if done {
			return nil
		}
		start := c.config.Now()
		version, err := probe(ctx, conn)
		if err != nil {
			return err
		}
		e.mu.Lock()
		cat := e.catalog
		e.mu.Unlock()
		if cat == nil || version != e.probe {
			c.mu.Lock()
			c.version++
			n := c.version
			c.mu.Unlock()
			if cat, err = load(ctx, conn, n); err != nil {
				return err
			}
			e.probe = version
		}
		e.mu.Lock()
		e.catalog, e.checked, e.seen = cat, start, invalid
		e.mu.Unlock()
		return nil
	})
}

// visit runs f on the entry's connection, alone. A connection that broke since
// its last use is replaced once.
func (c *Cache) visit(ctx context.Context, e *entry, f func(ctx context.Context, conn *pgconn.PgConn) error) error {
	e.visit.Lock()
	defer e.visit.Unlock()
	if c.ctx.Err() != nil {
		return errors.New("weir is stopping")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	reused := e.conn != nil
	for {
		if e.conn == nil {
			conn, err := c.config.Connect(ctx, e.key)
			if err != nil {
				return err
			}
			e.conn = conn
		}
		err := f(ctx, e.conn)
		if err != nil && e.conn.IsClosed() && reused && ctx.Err() == nil {
			e.conn, reused = nil, false
			continue
		}
		if e.conn.IsClosed() {
			e.hangUp()
		} else {
			e.keep()
		}
		return err
	}
}

// keep closes the connection when nobody uses it for a while.
func (e *entry) keep() {
	if e.timer != nil {
		e.timer.Reset(idle)
		return
	}
	e.timer = time.AfterFunc(idle, func() {
		e.visit.Lock()
		defer e.visit.Unlock()
		e.hangUp()
	})
}

func (e *entry) hangUp() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	if e.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = e.conn.Close(ctx) // a goodbye to a connection that holds nothing
		e.conn = nil
	}
}

// Defaults is how a session of the key's login starts in the database.
type Defaults struct {
	SearchPath string // as written: "$user" stands for the role
	Role       string
}

// Defaults asks how a session of the key's login starts. The connection's own
// search path is never changed, so its reset value is the login's.
func (c *Cache) Defaults(ctx context.Context, k Key) (Defaults, error) {
	var d Defaults
	err := c.visit(ctx, c.entry(k), func(ctx context.Context, conn *pgconn.PgConn) error {
		rows, err := query(ctx, conn, `SELECT s.reset_val, pg_catalog.current_setting('role'), session_user::pg_catalog.text
			FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'search_path'`)
		if err != nil {
			return err
		}
		if len(rows) != 1 {
			return errors.New("the server shows no search_path")
		}
		d.SearchPath, d.Role = rows[0][0], rows[0][1]
		if d.Role == "none" || d.Role == "" {
			d.Role = rows[0][2]
		}
		return nil
	})
	if err != nil {
		return Defaults{}, fmt.Errorf("ask for the session defaults of database %q at backend %q: %w", k.Database, k.Backend, err)
	}
	return d, nil
}

// Field is a result column as RowDescription gives it.
type Field struct {
	Name     string
	Relation uint32
	Attr     int16
	Type     uint32
}

// Describe finds the result columns of a query without running it: it is parsed
// under the given search path in a transaction that is rolled back.
func (c *Cache) Describe(ctx context.Context, k Key, searchPath []string, sql string) ([]Field, error) {
	var fields []Field
	err := c.visit(ctx, c.entry(k), func(ctx context.Context, conn *pgconn.PgConn) (err error) {
		if _, err := query(ctx, conn, "BEGIN READ ONLY; SET LOCAL search_path TO "+quotePath(searchPath)); err != nil {
			return err
		}
		defer func() {
			_, e := query(ctx, conn, "ROLLBACK")
			err = errors.Join(err, e)
		}()
		d, err := conn.Prepare(ctx, "", sql, nil)
		if err != nil {
			return err
		}
		for _, f := range d.Fields {
			fields = append(fields, Field{Name: f.Name, Relation: f.TableOID, Attr: int16(f.TableAttributeNumber), Type: f.DataTypeOID})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("describe a query in database %q at backend %q: %w", k.Database, k.Backend, err)
	}
	return fields, nil
}
