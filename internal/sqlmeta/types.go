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
	// Encoding is client_encoding; "" means UTF8. Text that is not ASCII is
	// unreadable in any other but UTF8 and SQL_ASCII.
	Encoding string
	// Temp holds the names of the relations that this session made in pg_temp (see
	// Effects). A name in it means the temporary relation as well as what it would
	// mean without, so a name that has gone since does no harm.
	Temp map[string]struct{}
	// Prepared finds the statement behind a name made by SQL PREPARE or by a
	// Parse message; nil or a nil result: unknown name, so the EXECUTE is unknown.
	Prepared func(name string) *Statement
	// Cursor finds the query of an open cursor by name, for FETCH and MOVE.
	Cursor func(name string) *Statement

	// Offline is set where no database can be asked: relations that the catalogue does
	// not have are then taken for tables with the columns that the text gives them.
	Offline bool

	inNewSchema bool // the first of SearchPath is being created by CREATE SCHEMA
}

// Statement is what one SQL statement does.
type Statement struct {
	Text      string // the exact bytes of this statement in the query string
	Tag       string // "SELECT", "BEGIN", "CREATE TABLE", ...: the node's kind, for people
	Accesses  []flow.Access
	Functions []string // every function called, "schema.name"
	Problem   string   // why it is unreadable; Accesses are then {unknown}
	Cursor    int      // of a syntax error: position in characters from 1, else 0
	// Unresolved is set when a relation or function that it names is not in the
	// catalogue: the catalogue may be older than the object.
	Unresolved bool

	Effects Effects
	Reads   []Read // relations whose data can reach the output, at any depth
	// Names holds the last part of every column reference in the statement.
	Names map[string]struct{}
	// Opaque is set when data can come from where the text does not say: a
	// function that cannot be looked into, EXECUTE of an unknown name, ...
	Opaque bool
	Copy   *Copy // set for COPY
	// Rows is set when it returns rows. Output is what each of their columns can carry, in
	// order; nil when the text does not show how many there are. All is what any of them
	// can.
	Rows   bool
	Output []Output
	All    Lineage
	// Stored is what it stores in lasting relations. Values that stand in the statement
	// carry nothing and are left out.
	Stored []Stored
	Tests  []Test
	Uses   flow.ColumnUse
	// Languages of the functions that it calls, sorted, without those of the server;
	// SecurityDefiner is set when one of them runs with its owner's rights.
	Languages       []string
	SecurityDefiner bool

	wants   []Definition
	reads   Lineage // every column that it reads, shown or not
	calls   Lineage // what the functions that it calls read by themselves
	env     envKey  // what of the session it was analysed under
	looksUp bool    // it depends on Session.Prepared, Cursor or Temp
	carried []carrier
	// sideEffects is set when it calls a function that may do or read anything.
	sideEffects bool
}

// Read is one relation that a statement reads from. Behind a view stand its base
// relations, behind a parent its partitions and inheritance children.
type Read struct {
	OID            uint32 // 0 when the catalogue does not know it
	Schema, Name   string
	DependsOnViews bool // a view or materialised view stands between: Names are the view's
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
	Encoding  string // of the data; "" is client_encoding
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
	// CreatesTemp and DropsTemp name relations of pg_temp; DropsTemp may be "*".
	// Session.Temp is kept from them.
	CreatesTemp []string
	DropsTemp   []string
}

// SettingChange is one SET, SET LOCAL, RESET or set_config. Values is nil for a
// reset to default, and empty for an empty list. Name is in lower case; "*" stands for RESET ALL. For
// search_path Values are the schemas one by one, "$user" as it was written.
type SettingChange struct {
	Name   string
	Values []string
	Local  bool
	// Unsure is set when the text does not show the value, or whether it is set.
	Unsure bool
}
