package postgres

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Config is what a Handler is made of. Every function is required unless its
// comment says otherwise, and is safe for concurrent use.
type Config struct {
	// Analyze says what the statements of a query string do, in their order. An
	// error with a SyntaxError in its chain is one that the server would find too;
	// any other means that the text is unreadable.
	Analyze func(ctx context.Context, sql string, s sqlmeta.Session, c *sqlmeta.Catalog) ([]*sqlmeta.Statement, error)
	// Catalog is the picture of the flow's database; cached, so cheap.
	Catalog func(ctx context.Context, g session.Grant) (*sqlmeta.Catalog, error)
	// Invalidate says that the flow changed its database's catalogue. It returns at
	// once.
	Invalidate func(g session.Grant)
	// Defaults is how a session of the flow's login in its database starts.
	Defaults func(ctx context.Context, g session.Grant) (Defaults, error)
	// SignIn opens a session at the backend with the configured credential. Its
	// errors are *session.End; their texts hold no secret.
	SignIn func(ctx context.Context, g session.Grant, params map[string]string) (*Upstream, error)
	// CancelUpstream asks the backend of the grant to cancel what the session with
	// this process id and secret runs.
	CancelUpstream func(ctx context.Context, g session.Grant, pid uint32, secret []byte) error
	// Foresee says what can be asked of the server about one statement before it runs.
	// Foresee and Explain are what approvers are shown besides a statement's text; either
	// may be nil: they see the text alone.
	Foresee func(ctx context.Context, sql string, s sqlmeta.Session, c *sqlmeta.Catalog) (*sqlmeta.Forecast, error)
	// Explain asks the server of the flow, on a connection of Weir's own and within a
	// bound of time. The text of its error is in Weir's own words and holds no data.
	Explain func(ctx context.Context, g session.Grant, r ExplainRequest) (Explained, error)
	// TLS is the configuration for a client that asked for serverName ("" for none).
	TLS func(g *session.Gate, serverName string) (*tls.Config, error)

	Masks MaskConfig
	Log   *slog.Logger
	Now   func() time.Time
}

// ExplainRequest is a statement and the session that it is to run in; see package
// explain for what each field is for.
type ExplainRequest struct {
	Forecast *sqlmeta.Forecast
	Text     string
	Types    []uint32
	Values   [][]byte
	Formats  []int16
	Kept     bool
	Settings []flow.Setting
}

// Explained is what the server said. Notes say what is missing, and why.
type Explained struct {
	Plan  string
	Rows  *int64
	Notes []string
}

// Upstream is a session at the backend that is ready for a query. Conn has no
// bytes outstanding.
type Upstream struct {
	Conn       net.Conn
	PID        uint32
	Secret     []byte
	Parameters map[string]string // what ParameterStatus reported
	TxStatus   byte
	Address    string
}

// Defaults is what a session of a login in a database starts with.
type Defaults struct {
	SearchPath string // as written: "$user" stands for the role
	Role       string
}

// Column is a result column of a query as RowDescription gives it.
type Column struct {
	Name     string
	Relation uint32 // pg_class OID; 0 when the server does not know
	Attr     int16  // 0 for a whole row or when the server does not know
	Type     uint32
	Format   int16
}

// SyntaxError is a parse error: its message in the server's words and the 1-based
// position in characters, 0 when unknown.
type SyntaxError interface {
	error
	SyntaxError() (message string, position int)
}
