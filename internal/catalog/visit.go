package catalog

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// visit runs f alone with the entry's connection. f asks for the connection, which
// is opened when there is none; it runs a second time when a connection that was
// kept from an earlier visit turns out to be broken.
func (c *Cache) visit(ctx context.Context, e *entry, f func(context.Context, func() (*pgconn.PgConn, error)) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(c.ctx, cancel)
	defer stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-e.visit:
	}
	defer func() { e.visit <- struct{}{} }()
	if c.ctx.Err() != nil {
		return errClosed
	}
	kept := e.conn != nil
	connect := func() (*pgconn.PgConn, error) {
		if e.conn != nil {
			return e.conn, nil
		}
		conn, err := c.config.Connect(ctx, e.key)
		if err == nil {
			e.conn = conn
		}
		return conn, err
	}
	err := f(ctx, connect)
	if err != nil && kept && e.conn.IsClosed() && ctx.Err() == nil {
		e.conn = nil
		err = f(ctx, connect)
	}
	if e.conn != nil && e.conn.IsClosed() {
		e.conn = nil
	}
	return err
}

// hangUp closes the connection. The caller holds the entry's token.
func (e *entry) hangUp() {
	if e.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = e.conn.Close(ctx) // a goodbye to a connection that holds nothing
	e.conn = nil
}

func (c *Cache) sweeper() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
			c.sweep()
		}
	}
}

// sweep closes connections that nobody has used for a while and then forgets
// their pictures.
func (c *Cache) sweep() {
	now := c.config.Now()
	var quiet []*entry
	c.mu.Lock()
	for k, e := range c.entries {
		e.mu.Lock()
		age := now.Sub(e.used)
		e.mu.Unlock()
		if e.users > 0 || age < idle {
			continue
		}
		quiet = append(quiet, e)
		if age >= forget {
			delete(c.entries, k)
		}
	}
	c.mu.Unlock()
	for _, e := range quiet {
		select {
		case <-e.visit:
			e.hangUp()
			e.visit <- struct{}{}
		default: // in use again
		}
	}
}
