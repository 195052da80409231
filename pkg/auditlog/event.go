package auditlog

import (
	"encoding/json"
	"time"
)

// Version is the schema version of Event, its field "v".
const Version = 1

// Kind is the type of an event.
type Kind string

// The kinds of events.
const (
	AgentStart      Kind = "agent.start"
	AgentStop       Kind = "agent.stop"
	PolicyLoad      Kind = "policy.load"
	ConfigLoad      Kind = "config.load"
	IdentityBind    Kind = "identity.bind"
	IdentityUnbind  Kind = "identity.unbind"
	FlowOpen        Kind = "flow.open"
	FlowClose       Kind = "flow.close"
	FlowRefused     Kind = "flow.refused"
	ActionEvent     Kind = "action"
	ApprovalRequest Kind = "approval.request"
	ApprovalDecide  Kind = "approval.decide"
	ApprovalExpire  Kind = "approval.expire" // also withdrawn, or ended otherwise
	ApprovalView    Kind = "approval.view"   // somebody has seen a request
	Recording       Kind = "recording"
	Gap             Kind = "gap"
	BypassBlocked   Kind = "bypass.blocked"
	EvidenceExport  Kind = "evidence.export"
	// CompletenessEvent compares the kernel's counters of connections with this log.
	CompletenessEvent Kind = "completeness"
	RetentionEvent    Kind = "retention" // events are removed because of their age
)

// Event is one line of the audit log. Seq and Time are set by the log itself.
// Fields that do not apply are left out of the JSON.
type Event struct {
	V       int       `json:"v"`
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"` // UTC, nanoseconds
	Node    string    `json:"node"`
	Kind    Kind      `json:"kind"`
	Flow    string    `json:"flow,omitempty"`
	Session string    `json:"session,omitempty"` // id of the login or exec binding

	Principal *Principal `json:"principal,omitempty"`
	Process   *Process   `json:"process,omitempty"`

	Backend     string `json:"backend,omitempty"`
	Protocol    string `json:"protocol,omitempty"`
	Destination string `json:"destination,omitempty"` // address:port that the client asked for
	Database    string `json:"database,omitempty"`
	Login       string `json:"login,omitempty"` // account used at the backend

	Action  *Action `json:"action,omitempty"`
	Verdict string  `json:"verdict,omitempty"` // allow | deny | approve
	Rule    string  `json:"rule,omitempty"`
	Policy  string  `json:"policy,omitempty"` // digest of the policy in force
	Reason  string  `json:"reason,omitempty"`

	Approval *Approval `json:"approval,omitempty"`
	Masks    []Mask    `json:"masks,omitempty"`
	Result   *Result   `json:"result,omitempty"`
	Upstream *Upstream `json:"upstream,omitempty"`

	Gap       *GapInfo   `json:"gap,omitempty"`
	Retention *Retention `json:"retention,omitempty"`

	PolicyFiles  []PolicyFile  `json:"policy_files,omitempty"` // of policy.load
	Evidence     *Evidence     `json:"evidence,omitempty"`
	Completeness *Completeness `json:"completeness,omitempty"`

	Recording *RecordingInfo `json:"recording,omitempty"`

	Assurance string `json:"assurance,omitempty"` // inspected | terminated | passthrough
	Log       *Log   `json:"log,omitempty"`       // once sealed
}

// Principal is the verified identity that an event is about.
type Principal struct {
	Issuer  string     `json:"issuer"`
	Subject string     `json:"subject"`
	User    string     `json:"user"`
	Groups  []string   `json:"groups"`
	Kind    string     `json:"kind"`
	TokenID string     `json:"token_id,omitempty"`
	Actor   *Actor     `json:"actor,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
}

// Actor is who acts for the principal (RFC 8693).
type Actor struct {
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject"`
	User    string `json:"user,omitempty"`
	Actor   *Actor `json:"actor,omitempty"`
}

// Process is the caller of connect(2). LoginUID and AuditSession are left out
// when unset.
type Process struct {
	PID          int     `json:"pid"`
	Exe          string  `json:"exe,omitempty"`
	Comm         string  `json:"comm,omitempty"`
	UID          uint32  `json:"uid"`
	LoginUID     *uint32 `json:"loginuid,omitempty"`
	AuditSession *uint32 `json:"audit_session,omitempty"`
	Cgroup       string  `json:"cgroup,omitempty"`
	Pod          *Pod    `json:"pod,omitempty"`
}

// Pod is a Kubernetes pod.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Container string `json:"container,omitempty"`
}

// Phases of an action.
const (
	PhaseIntent  = "intent"
	PhaseOutcome = "outcome"
)

// Action is a statement or request. The outcome repeats the id, not the text.
type Action struct {
	ID        string   `json:"id"`
	Phase     string   `json:"phase"`
	Verbs     []string `json:"verbs,omitempty"`
	Resources []string `json:"resources,omitempty"`
	// Accesses pairs verbs with resources. It is left out when there is one verb that
	// cannot be unrestricted: that is then on every resource. (And when there are too
	// many to record; so two verbs without it do not say which is on what.)
	Accesses []Access `json:"accesses,omitempty"`
	// Functions are those called, Languages theirs without those of the server's own;
	// SecurityDefiner says that one of them runs with its owner's rights.
	Functions       []string `json:"functions,omitempty"`
	Languages       []string `json:"languages,omitempty"`
	SecurityDefiner bool     `json:"security_definer,omitempty"`
	Columns         *Columns `json:"columns,omitempty"`
	// Cut is how many names of functions and columns were left out for length.
	Cut int64 `json:"cut,omitempty"`
	// Tests are what the action took, or would have taken, out of budgets of masks.
	Tests  []Test   `json:"tests,omitempty"`
	Text   string   `json:"text,omitempty"`
	Params []string `json:"params,omitempty"`
	Digest string   `json:"digest,omitempty"`
	Bytes  int64    `json:"bytes,omitempty"`
	// RefusedBy says what denied the action, when its rules did not.
	RefusedBy string `json:"refused_by,omitempty"`
}

// What denies an action besides the rules of the policy.
const (
	ByMask     = "mask"     // it would show, store or find out what a mask hides
	ByBudget   = "budget"   // the tests of masked columns are used up
	ByMessage  = "message"  // another statement of the same message was refused
	BySignIn   = "sign_in"  // the sign-in has ended, or weir is stopping
	ByRecorder = "recorder" // it has to be recorded and cannot be
	// ByApproval: other people have not approved it.
	ByApproval = "approval"
)

// Access is a verb on a resource.
type Access struct {
	Verb         string `json:"verb"`
	Resource     string `json:"resource,omitempty"`
	Unrestricted bool   `json:"unrestricted,omitempty"` // update or delete without WHERE
}

// Columns names the columns that an action touches, "schema.table.column".
type Columns struct {
	Read    []string `json:"read,omitempty"`
	Written []string `json:"written,omitempty"`
	Tested  []string `json:"tested,omitempty"` // they decide what happens: WHERE, ORDER BY, ...
}

// Test is what an action takes out of the budget of a mask.
type Test struct {
	Policy string `json:"policy"`
	Mask   string `json:"mask"`
	Column string `json:"column"`
	Tests  int64  `json:"tests"`
	// Left is what was left of the budget afterwards; nil when nobody asked it, since
	// something else had denied the action.
	Left *int64 `json:"left,omitempty"`
}

// Approval is other people's consent to an action.
type Approval struct {
	ID        string   `json:"id"`
	Digest    string   `json:"digest,omitempty"` // of Document
	Requester string   `json:"requester,omitempty"`
	Approvers []string `json:"approvers,omitempty"`
	// Decided is approved, denied or refused (an attempt that did not count), and
	// break_glass or reviewed.
	Decided       string `json:"decided,omitempty"`
	Justification string `json:"justification,omitempty"`
	Proof         string `json:"proof,omitempty"`  // idp | session | slack
	Status        string `json:"status,omitempty"` // of the request after the event
	Ended         string `json:"ended,omitempty"`  // why, for people
	// Document is what is asked for, in approval.request: Digest is the SHA-256 of its
	// bytes, and in base64url, unpadded, the nonce of the token of an approver.
	Document string     `json:"document,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
	// Token is an approver's ID token, minted for that nonce alone and long expired when
	// read, and Keys the JWK Set of its issuer that verified it.
	Token string          `json:"token,omitempty"`
	Keys  json.RawMessage `json:"keys,omitempty"`
	// Shown is what approvers saw besides the document.
	Shown    json.RawMessage `json:"shown,omitempty"`
	WaitedUS int64           `json:"waited_us,omitempty"` // since the request, microseconds
}

// Mask counts what was masked in one column of an action's results.
type Mask struct {
	Column   string `json:"column"`
	Method   string `json:"method"`
	Source   string `json:"source"` // origin | lineage | detector | unresolved
	Detector string `json:"detector,omitempty"`
	Count    int64  `json:"count"`
}

// Statuses of a result.
const (
	StatusOK        = "ok"
	StatusError     = "error"
	StatusDenied    = "denied"
	StatusCancelled = "cancelled"
	StatusLost      = "lost"
)

// Result is how an action ended.
type Result struct {
	Status     string `json:"status"`
	Code       string `json:"code,omitempty"` // SQLSTATE, HTTP status, exit status
	Rows       int64  `json:"rows"`
	Bytes      int64  `json:"bytes"`
	DurationUS int64  `json:"duration_us"`
}

// Upstream is the far end of a flow.
type Upstream struct {
	Address string `json:"address"`
	PID     uint32 `json:"pid,omitempty"` // the server's process id for the session
}

// Causes of a gap.
const (
	GapCrash  = "crash"  // the agent ended without closing the log
	GapTorn   = "torn"   // the same, in the middle of a write, which was removed
	GapWrite  = "write"  // the log could not be written
	GapSync   = "sync"   // written records could not be brought to the disk
	GapDamage = "damage" // the log was found cut or altered
	// GapRecording: a flow went on without its recording, as the policy lets it.
	GapRecording = "recording"
)

// GapInfo says what a log could not keep, or may have lost.
type GapInfo struct {
	Cause string    `json:"cause"`
	From  time.Time `json:"from"` // the last moment at which nothing was missing, as far as known
	To    time.Time `json:"to"`
	// After is the seq of the last event known to be kept before the gap.
	After uint64 `json:"after"`
	// Unsure counts events after that one which may be missing after a loss of
	// power, although the chain goes on behind them.
	Unsure uint64 `json:"unsure,omitempty"`
	// Lost counts events that could not be recorded, Kinds by their kind. What
	// asked for them was refused.
	Lost  uint64          `json:"lost,omitempty"`
	Kinds map[Kind]uint64 `json:"kinds,omitempty"`
	Bytes int64           `json:"bytes,omitempty"` // of an incomplete record, removed
}

// Retention says which events are removed from the sealed log because they are
// older than audit.retention. Their hashes stay.
type Retention struct {
	From   uint64    `json:"from"` // index of the first one
	To     uint64    `json:"to"`   // behind the last one
	Count  uint64    `json:"count"`
	Before time.Time `json:"before"` // they are older than that
}

// PolicyFile is a file of the policy that a policy.load puts in force. Policies hold
// no secrets.
type PolicyFile struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// MaxPolicyText bounds the JSON of all files in one event, bytes. Beyond that the
// digest alone names the policy.
const MaxPolicyText = 512 << 10

// Evidence is an evidence pack that was exported.
type Evidence struct {
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	Manifest  string    `json:"manifest"` // "sha256:" and hex, of its manifest.json
	Events    uint64    `json:"events"`
	Framework string    `json:"framework,omitempty"`
	Sample    int       `json:"sample,omitempty"`
	Seed      string    `json:"seed,omitempty"`
}

// States of a recording.
const (
	RecordingOpened  = "opened"
	RecordingChunk   = "chunk"   // a part of it is on disk
	RecordingClosed  = "closed"  // nothing more will be written
	RecordingRemoved = "removed" // because of its age
)

// RecordingInfo says what happened to a recording. Its file is a sequence of chunks,
// each of which stands in the log with its place and its hash.
type RecordingInfo struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Format string `json:"format,omitempty"` // RecordingEvents | RecordingCast
	// File is below recordings/ of the state directory.
	File string `json:"file,omitempty"`
	// Sealed says that it is encrypted to the recipients of audit.seal_to.
	Sealed bool `json:"sealed,omitempty"`
	// Chunk counts from 1; of RecordingClosed it is how many there are.
	Chunk  int64 `json:"chunk,omitempty"`
	Offset int64 `json:"offset,omitempty"` // of the chunk in the file, bytes
	Bytes  int64 `json:"bytes,omitempty"`  // of the chunk, or of the whole file when closed
	// SHA256 is "sha256:" and hex, over the bytes in the file: of the chunk, or of the
	// whole file when closed.
	SHA256 string     `json:"sha256,omitempty"`
	Events int64      `json:"events,omitempty"` // in the chunk, or in all of them
	From   *time.Time `json:"from,omitempty"`   // of the first event
	To     *time.Time `json:"to,omitempty"`     // of the last one
}

// Formats of a recording.
const (
	// RecordingEvents: JSON lines, each an object; docs/RECORDINGS.md has the kinds.
	RecordingEvents = "events"
	// RecordingCast: a terminal, as asciicast v2.
	RecordingCast = "asciicast"
)

// Log is where a sealed event stands in the transparency log.
type Log struct {
	Origin string `json:"origin"`
	Index  uint64 `json:"index"`
}
