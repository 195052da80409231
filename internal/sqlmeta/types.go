package sqlmeta

import "github.com/weirproxy/weir/internal/flow"

// Session is the state of a database session that changes what SQL text means.
// It is a snapshot: Analyze never changes it.
type Session struct {
	Database string
	Role     string // current role as far as it is known
	// SearchPath is the effective path without the implicit pg_catalog and
	// pg_temp, "$user" already replaced. Certain is false when the engine lost
	// track of it; an unqualified name is then every relation that it could be.
	SearchPath []string
	Certain    bool
	// StandardConformingStrings is off when a backslash in '...' escapes.
	StandardConformingStrings bool
	// Prepared finds the statement behind a name made by SQL PREPARE or by a
	// Parse message; nil or a nil result: unknown name, so the EXECUTE is unknown.
	Prepared func(name string) *Statement
	// Cursor finds the query of an open cursor by name, for FETCH and MOVE.
	Cursor func(name string) *Statement
}

// Statement is what one SQL statement does.
type Statement struct {
	Text      string // the exact bytes of this statement in the query string
	Tag       string // "SELECT", "BEGIN", "CREATE TABLE", ...: the node's kind, for people
	Accesses  []flow.Access
	Functions []string // every function called, "schema.name"
	Problem   string   // why it is unreadable; Accesses are then {unknown}

	Effects Effects
	Reads   []Read // relations whose data can reach the output, at any depth
	// Names holds the last part of every column reference in the statement.
	// Star is set when * or a whole-row reference stands anywhere.
	Names map[string]struct{}
	Star  bool
	// Opaque is set when data can come from where the text does not say: a
	// function that is no harmless built-in, EXECUTE of an unknown name, ...
	Opaque bool
	Copy   *Copy // set for COPY
}

// Read is one relation that a statement reads from.
type Read struct {
	OID            uint32 // 0 when the catalogue does not know it
	Schema, Name   string
	DependsOnViews bool // a view or materialised view stands between
}

// Copy is what COPY moves. Exactly one of Columns (a relation) and Query is set
// for COPY TO.
type Copy struct {
	In        bool
	Program   bool // COPY ... PROGRAM or a server-side file
	File      bool
	OID       uint32
	Schema    string
	Relation  string
	Columns   []string // in the order of the data
	Query     string   // text of the inner query of COPY (query) TO
	Format    string   // text | csv | binary
	Delimiter byte
	Quote     byte
	Escape    byte
	Null      string
	Header    bool
}

// TxEffect is what a statement does to the transaction.
type TxEffect int

// Transaction effects.
const (
	TxNone TxEffect = iota
	TxBegin
	TxCommit
	TxRollback
	TxSavepoint
	TxRelease
	TxRollbackTo
)

// Effects is what a statement does to the session, when it succeeds.
type Effects struct {
	Tx        TxEffect
	Savepoint string
	// Settings it changes: SET, RESET, set_config with literal arguments.
	Settings []SettingChange
	// UnsureSearchPath is set when it may change the search path in a way that
	// the text does not show (a function with SET, DISCARD ALL, ...).
	UnsureSearchPath bool
	Prepare          string     // name that it prepares, with Inner
	Inner            *Statement // of PREPARE, DECLARE CURSOR, EXPLAIN
	Deallocate       string     // name, or "*" for all
	DeclareCursor    string
	CloseCursor      string // name, or "*" for all
	ChangesCatalogue bool   // DDL: cached catalogues are stale after it
}

// SettingChange is one SET, SET LOCAL or RESET. Values is nil for a reset to
// default. Name "*" stands for RESET ALL.
type SettingChange struct {
	Name   string
	Values []string
	Local  bool
}
