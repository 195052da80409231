// Package explain asks a database server what a statement that is held for approval
// would do: its plan, and how many rows an UPDATE or DELETE would touch.
//
// Nothing may run before its time, so it asks on a connection of Weir's own, in
// transactions that only read and that are rolled back, and only about statements that
// sqlmeta.Foresee found to use nothing but plain tables and steady functions of the
// server's own. The server confirms that first (confirm.go), under locks that keep it so:
// planning a statement runs functions, too. It shows no data: a plan without costs, and
// one number. A server's errors are put in words of ours, because theirs quote values.
package explain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/semaphore"

	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Bounds of one look ahead.
const (
	// MaxPlan is how much of a plan is kept, bytes.
	MaxPlan = 16 << 10
	// perBackend is how many look ahead at one backend at once; the rest wait.
	perBackend = 2
	// overall bounds it all, the wait for its turn and the connection as well.
	overall = 9 * time.Second
	// statementTimeout, lockTimeout and idleTimeout are what the server itself is told,
	// ms.
	statementTimeout = 3000
	lockTimeout      = 500
	idleTimeout      = 5000
)

// Request is what is to be looked at.
type Request struct {
	// Forecast is sqlmeta's of the statement, which stands in Text alone.
	Forecast *sqlmeta.Forecast
	Text     string
	// Types are the OIDs of the bind parameters' types as Parse declared them; 0 or
	// missing where the server is to find them out.
	Types []uint32
	// Values are the bind parameters as the client sent them, nil for NULL, in Formats:
	// none for text, one for all, or one each (PostgreSQL manual, 55.7, Bind). Kept is
	// unset when they were too long to be kept.
	Values  [][]byte
	Formats []int16
	Kept    bool
	// Settings are those of the client's session, to be taken over.
	Settings []Setting
}

// Setting is a run-time parameter of a session.
type Setting struct{ Name, Value string }

// Explained is what the server says. Notes say what is missing, and why.
type Explained struct {
	Plan  string
	Rows  *int64
	Notes []string
}

// Explainer looks ahead. It is safe for concurrent use and keeps no connection.
type Explainer struct {
	connect func(context.Context, session.Grant) (*pgconn.PgConn, error)
	timeout string // of a statement, ms

	mu    sync.Mutex
	turns map[string]*semaphore.Weighted // by backend
}

// New makes an Explainer. connect opens a connection of Weir's own to the database of a
// grant, as the grant's login and with client_encoding UTF8.
func New(connect func(context.Context, session.Grant) (*pgconn.PgConn, error)) *Explainer {
	return &Explainer{connect: connect, timeout: fmt.Sprint(statementTimeout), turns: map[string]*semaphore.Weighted{}}
}

// turn waits until one more may look at a backend, and returns what ends its turn.
func (e *Explainer) turn(ctx context.Context, backend string) (func(), error) {
	e.mu.Lock()
	s := e.turns[backend]
	if s == nil { // as many as the configuration has
		s = semaphore.NewWeighted(perBackend)
		e.turns[backend] = s
	}
	e.mu.Unlock()
	if err := s.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { s.Release(1) }, nil
}

// Explain looks at one statement. An error is for people and holds no data; what else
// could not be found out is in the notes.
func (e *Explainer) Explain(ctx context.Context, g session.Grant, r Request) (Explained, error) {
	ctx, cancel := context.WithTimeout(ctx, overall)
	defer cancel()
	backend := ""
	if g.Valid() { // else connect refuses it
		backend = g.Flow().Backend
	}
	done, err := e.turn(ctx, backend)
	if err != nil {
		return Explained{}, errors.New("too many others were being looked at at this backend")
	}
	defer done()
	conn, err := e.connect(ctx, g)
	if err != nil { // the dialer logs why
		return Explained{}, errors.New("weir could not connect to the database for it")
	}
	defer hangUp(conn)
	q := &asking{conn: conn, request: &r, timeout: e.timeout}
	if r.Forecast.Unplanned == "" {
		q.part(ctx, "no plan", q.plan)
	}
	if r.Forecast.Count != "" {
		q.part(ctx, "rows not counted", q.count)
	}
	if len(r.Forecast.Emptied) > 0 {
		q.part(ctx, "the tables' sizes are unknown", q.sizes)
	}
	return q.out, nil
}

// closeTimeout bounds the goodbye to the server.
const closeTimeout = time.Second

func hangUp(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // it is closed in any case
}
