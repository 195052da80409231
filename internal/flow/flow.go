// Package flow holds the nouns that every other package speaks: Flow, Process,
// Principal, Action, Access, Reason. It has no behaviour beyond formatting and
// imports the standard library only, so that anything may depend on it.
package flow

import (
	"net/netip"
	"time"
)

// ID names one flow on one node. It is a ULID: 26 characters, sortable by time.
type ID string

// Protocol is the wire protocol of a backend, as the configuration spells it.
type Protocol string

// The protocols that a backend may declare.
const (
	Postgres   Protocol = "postgres"
	MySQL      Protocol = "mysql"
	Kubernetes Protocol = "kubernetes"
	SSH        Protocol = "ssh"
	HTTP       Protocol = "http"
	TCP        Protocol = "tcp"
)

// Flow is one connection that the kernel handed over. Its fields are set before
// the flow is served; Database and Login become known when the client has said
// what it wants and are set once, by the gate, on admission.
type Flow struct {
	ID          ID
	Node        string
	Protocol    Protocol
	Backend     string
	Destination netip.AddrPort // where the client wanted to go, never the proxy
	Process     Process
	Database    string // for databases: the one that the session is in
	Login       string // the account that Weir uses at the backend
	Start       time.Time
}

// Unset is the value of a login uid or audit session that was never set
// (audit(7): "unset" is all ones).
const Unset uint32 = 1<<32 - 1

// Process is the caller of connect(2) as the kernel saw it in the caller's own
// context. PID alone is no identity: PID and StartTime together are.
type Process struct {
	PID          int    // in the initial pid namespace
	StartTime    uint64 // nanoseconds since boot, CLOCK_BOOTTIME
	Exe          string // path, resolved lazily; empty when it could not be
	Argv0        string // first argument, resolved lazily; chosen by the process
	ExeInode     uint64
	ExeDev       uint64
	Comm         string // chosen by the process: for display only
	UID          uint32
	LoginUID     uint32 // Unset when nobody logged in
	AuditSession uint32 // Unset when nobody logged in
	CgroupID     uint64 // inode of the cgroup v2 directory
	Cgroup       string // path below the cgroup v2 mount, e.g. "/user.slice/..."
	NetNS        uint64 // network namespace cookie, SO_NETNS_COOKIE
	Pod          *Pod   // nil outside Kubernetes
}

// Pod is the Kubernetes pod that a process runs in.
type Pod struct {
	Namespace, Name, UID, Container string
}

// Kind says what a principal stands for.
type Kind string

// The kinds of principals, set by the issuer's configuration.
const (
	Human    Kind = "human"
	CI       Kind = "ci"
	Workload Kind = "workload"
	Agent    Kind = "agent"
)

// Principal is a verified identity. Only the identity package makes one from a
// token whose signature, issuer, audience and expiry it has checked.
type Principal struct {
	Issuer  string
	Subject string
	User    string // the configured user claim: an e-mail address as a rule
	Groups  []string
	Kind    Kind
	TokenID string         // jti, or "sha256:..." of the token; never the token
	Actor   *Actor         // RFC 8693 "act": who acts for the subject; nil for nobody
	Claims  map[string]any // the token's claims, for policy conditions; never recorded
	Expires time.Time
	Session string // id of the binding (login or exec) that it came from
}

// Actor is the party that acts on behalf of a principal (RFC 8693, 4.1).
type Actor struct {
	Issuer  string
	Subject string
	User    string
	Actor   *Actor // the chain goes on when an actor acts for an actor
}

// Verb is what an access does, in the words of the policy (contract section 3).
type Verb string

// Verbs of the SQL protocols and of plain connections.
const (
	Connect  Verb = "connect"
	Select   Verb = "select"
	Insert   Verb = "insert"
	Update   Verb = "update"
	Delete   Verb = "delete"
	Truncate Verb = "truncate"
	Merge    Verb = "merge"
	Create   Verb = "create"
	Alter    Verb = "alter"
	Drop     Verb = "drop"
	Grant    Verb = "grant"
	CopyIn   Verb = "copy_in"
	CopyOut  Verb = "copy_out"
	Call     Verb = "call"
	Set      Verb = "set"
	Lock     Verb = "lock"
	Listen   Verb = "listen"
	Explain  Verb = "explain"
	Maintain Verb = "maintain"
	Unknown  Verb = "unknown"
)

// Access is one verb on one resource: the unit that policy decides. Resource is
// written as in contract section 3: "database:shop", "shop.orders",
// "function:shop.total", "role:dba", "setting:work_mem". It is empty only where
// a verb has no resource of its own (unknown).
type Access struct {
	Verb     Verb
	Resource string
	// Unrestricted is set on update and delete without a WHERE clause.
	Unrestricted bool
}

// Action is what a client asks for in one step: a statement, a request. It is
// decided as a whole (every access must be allowed) and recorded as one intent
// and one outcome. Text is the client's own; it is recorded, never logged.
type Action struct {
	ID        string
	Accesses  []Access
	Text      string   // at most MaxRecordedText bytes of it
	Params    []string // bind parameters as text; "\x..." for binary ones
	Functions []string // every function called, "schema.name"
	// Languages of the functions called, without those of the server's own; and
	// whether one of them runs with its owner's rights.
	Languages       []string
	SecurityDefiner bool
	Columns         ColumnUse
	Digest          string // "sha256:" and hex, over the exact bytes that would be forwarded
	Bytes           int64  // length of the client's message, bytes
	// Problem says why an action is unreadable ("" otherwise). Its accesses are
	// then {Unknown, ""}.
	Problem string
	// Forbidden says why an obligation of the policy (a mask) does not let the action
	// pass whatever its rules say, in words for the user and the record; "" when there
	// is none. An engine finds out, the gate denies.
	Forbidden string
	// State is what of the session changes what the text means (role, search_path, ...),
	// and Meaning a digest over what the catalogue says about all that the action touches:
	// with the text and what is bound to it they say what an approval is for.
	State   []Setting
	Meaning string
	// Spends is what the action takes out of budgets that an obligation of the policy
	// gives its principal. An engine finds out, the gate takes it when the action may
	// run, and denies when there is not enough left.
	Spends []Spend
	// Hidden are values of Params that stand there as something else, since a detector
	// knows them. They go into sealed recordings and nowhere else.
	Hidden []Hidden
}

// Hidden is a bind parameter's true value.
type Hidden struct {
	Param int // its place among the parameters, from 0
	Value string
}

// Setting is one setting of a session.
type Setting struct {
	Name, Value string
}

// ColumnUse names the columns that an action touches, "schema.table.column" each.
type ColumnUse struct {
	Read    []string
	Written []string
	Tested  []string // where their values decide what happens: WHERE, ORDER BY, ...
}

// Spend is what an action takes out of one budget: tests of a masked column.
type Spend struct {
	Policy, Mask string
	Column       string // schema.table.column, for people and the record
	Tests        int
	Limit        int           // that the budget holds
	Per          time.Duration // the time in which that many may be spent
}

// MaxRecordedText bounds the statement text in a record; Digest and Bytes cover
// the whole.
const MaxRecordedText = 64 << 10

// Verdict is the answer of the policy.
type Verdict string

// The verdicts of contract section 4.
const (
	Allow   Verdict = "allow"
	Deny    Verdict = "deny"
	Approve Verdict = "approve"
)

// Reason says why a flow ended or was refused. It is the audit field, the metric
// label and the base of what the user is told.
type Reason string

// Reasons of flow.close and flow.refused.
const (
	ReasonClientClosed  Reason = "client_closed"
	ReasonServerClosed  Reason = "server_closed"
	ReasonDenied        Reason = "denied"
	ReasonExpired       Reason = "expired"
	ReasonRevoked       Reason = "revoked"
	ReasonDrained       Reason = "drained"
	ReasonAgentLost     Reason = "agent_lost"
	ReasonProtocol      Reason = "protocol_error"
	ReasonRecorder      Reason = "recorder_failed"
	ReasonNoIdentity    Reason = "no_identity"
	ReasonUnreachable   Reason = "upstream_unreachable"
	ReasonUpstreamLogin Reason = "upstream_login_failed"
	ReasonTimeout       Reason = "timeout"
	ReasonCancelRequest Reason = "cancel_request"
	ReasonInternal      Reason = "internal_error"
	ReasonUnsupported   Reason = "unsupported_protocol" // no engine for the backend's protocol
)
