package catalog

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// use runs f with a connection of the key's.
func (c *Cache) use(ctx context.Context, k Key, f func(ctx context.Context, conn *pgconn.PgConn) error) error {
	e, err := c.enter(k)
	if err != nil {
		return err
	}
	defer c.leave(e)
	e.mu.Lock()
	e.used = c.config.Now()
	e.mu.Unlock()
	return c.visit(ctx, e, func(ctx context.Context, connect func() (*pgconn.PgConn, error)) error {
		conn, err := connect()
		if err != nil {
			return err
		}
		return f(ctx, conn)
	})
}

// Defaults is how a session of the key's login starts in the database.
type Defaults struct {
	SearchPath string // as written: "$user" stands for the role
	Role       string
	// StandardConformingStrings is off when a backslash in '...' escapes.
	StandardConformingStrings bool
}

// defaultsSQL asks for reset values: what ALTER ROLE, ALTER DATABASE and the
// configuration give a new session.
const defaultsSQL = `SELECT s.reset_val, pg_catalog.current_setting('role'), session_user::pg_catalog.text,
	(SELECT t.reset_val FROM pg_catalog.pg_settings AS t WHERE t.name OPERATOR(pg_catalog.=) 'standard_conforming_strings')
	FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'search_path'`

// Defaults asks how a session of the key's login starts. The connection's own
// settings are never changed but within a transaction, so their reset values are
// the login's.
func (c *Cache) Defaults(ctx context.Context, k Key) (Defaults, error) {
	var d Defaults
	err := c.use(ctx, k, func(ctx context.Context, conn *pgconn.PgConn) error {
		rows, err := query(ctx, conn, defaultsSQL)
		if err != nil {
			return err
		}
		if len(rows) != 1 || len(rows[0]) != 4 {
			return errors.New("the server shows no search_path")
		}
		d = Defaults{SearchPath: rows[0][0], Role: rows[0][1], StandardConformingStrings: rows[0][3] == "on"}
		if d.Role == "none" || d.Role == "" {
			d.Role = rows[0][2]
		}
		return nil
	})
	if err != nil {
		return Defaults{}, wrap("ask for the session defaults of", k, err)
	}
	return d, nil
}
