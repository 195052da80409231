package postgres

import "time"

// Bounds on what either side may send. Sizes are bytes of a message's body or of
// its declared length, as stated.
const (
	// maxStartup is MAX_STARTUP_PACKET_LENGTH of the server (libpq/pqcomm.h).
	maxStartup = 10000
	// startupTimeout is the server's default authentication_timeout.
	startupTimeout = 60 * time.Second
	// maxStartupRounds is how many of SSLRequest, GSSENCRequest and StartupMessage a
	// client may send: one of each.
	maxStartupRounds = 3

	// maxSmall and maxLarge are PQ_SMALL_MESSAGE_LIMIT and PQ_LARGE_MESSAGE_LIMIT
	// of the server (libpq/libpq.h), on the declared length.
	maxSmall = 10000
	maxLarge = 0x3fffffff - 1

	// maxStatement is how long a Query or Parse may be to be analysed; it is the
	// limit of sqlparse. Longer ones are unknown, and streamed when that is allowed.
	maxStatement = 1 << 20
	// maxHead is how much of a longer one is held, for the record.
	maxHead = 64 << 10
	// maxCall bounds a FunctionCall, which is always held whole.
	maxCall = 1 << 20
	// maxName is NAMEDATALEN-1: the server compares the names of statements and
	// portals by so many bytes only.
	maxName = 63

	// maxControl bounds the server's RowDescription and ParameterDescription:
	// 1,664 columns (MaxTupleAttributeNumber) with names of 63 bytes need 140 KiB,
	// 65,535 parameters 256 KiB.
	maxControl = 512 << 10
	// maxNotice is how much of an error, a notice or a notification is passed on.
	maxNotice = 64 << 10
	// maxTag bounds CommandComplete and other short answers.
	maxTag = 1 << 10
	// maxStatus bounds a ParameterStatus: its values are settings.
	maxStatus = 64 << 10
	// maxRow bounds a row that has to be looked into for masking; rows that need
	// no masking are not bounded.
	maxRow = 4 << 20

	// maxInFlight bounds the answers that the server owes one client; a client that
	// pipelines more waits.
	maxInFlight = 8192
	// maxNamed and maxNamedBytes bound the prepared statements and portals of a flow.
	maxNamed      = 4096
	maxNamedBytes = 16 << 20

	// maxParam and maxParams bound recorded bind parameters: each, and all of a Bind.
	maxParam  = 1 << 10
	maxParams = 16 << 10

	// keepHeld is how much buffer an idle flow holds on to.
	keepHeld = 16 << 10
)
