// Package approval brings held actions before other people: it makes the request,
// tells people, takes and verifies their decisions, and ends requests and grants in
// time. It meets session.Approvals.
//
// A request's Document says everything that its meaning rests on; the digest of the
// document's bytes is the request's, and as a nonce it is in the token with which an
// approver signs in. What lies in the store is sealed with the node's own key, so that
// a request or a decision that somebody else wrote there does not count.
package approval

import (
	"context"
	"encoding/json"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
)

// Status is how far a request has come (contract, section 4).
type Status string

// The statuses of a request. Approved stands for a grant that goes on, or one that is
// about to be used; used, denied, expired and withdrawn are ends.
const (
	Pending   Status = "pending"
	Approved  Status = "approved"
	Used      Status = "used"
	Denied    Status = "denied"
	Expired   Status = "expired"
	Withdrawn Status = "withdrawn"
)

// Decided is what somebody decided.
type Decided string

// Decisions. Refused is an attempt that did not count; it is in the record only.
const (
	DecidedApproved Decided = "approved"
	DecidedDenied   Decided = "denied"
	DecidedRefused  Decided = "refused"
)

// Kinds of proofs that a decision rests on.
const (
	ProofIDP     = "idp"     // a token of the identity provider for this very request
	ProofSession = "session" // a sign-in at this node or its console
	ProofSlack   = "slack"   // a button in Slack, of somebody who is signed in here
)

// Request is a request as people see it (contract, section 4). Text that others wrote
// may hold any character: show it escaped.
type Request struct {
	ID        string     `json:"id"`
	Status    Status     `json:"status"`
	Digest    string     `json:"digest"` // "sha256:" and hex, of Document
	Nonce     string     `json:"nonce"`  // base64url of the same 32 bytes
	Requester string     `json:"requester"`
	Principal Person     `json:"principal"` // the requester in full
	Node      string     `json:"node"`
	Flow      string     `json:"flow"`
	Backend   string     `json:"backend"`
	Protocol  string     `json:"protocol"`
	Database  string     `json:"database,omitempty"`
	Login     string     `json:"login,omitempty"`
	State     []Setting  `json:"state,omitempty"`
	Action    Action     `json:"action"`            // the first one; all of them
	Actions   []Action   `json:"actions,omitempty"` // when there are several
	Rule      string     `json:"rule"`
	Rules     []Rule     `json:"rules"`
	Created   time.Time  `json:"created"`
	Expires   time.Time  `json:"expires"` // of the request; of the grant once it stands
	Grant     string     `json:"grant"`   // once | session | a duration
	Needed    []Needed   `json:"needed"`
	Decisions []Decision `json:"decisions"`
	Preview   []Preview  `json:"preview,omitempty"` // one an action; left out for the requester
	// Prompt and MaxAge are what the sign-in of an approver must ask the provider for
	// (OpenID Connect Core, 3.1.2.1). MaxAge is in seconds, 0 for none.
	Prompt string `json:"prompt,omitempty"`
	MaxAge int64  `json:"max_age,omitempty"`
	// Ended says why a request has ended, for people.
	Ended string `json:"ended,omitempty"`
	// Review is "open" after a break-glass until another person has looked, then
	// "done"; BreakGlass names the groups that may go through at once.
	Review     string   `json:"review,omitempty"`
	BreakGlass []string `json:"break_glass,omitempty"`
	// Broke is set when the requester went through at once.
	Broke *Broke `json:"broke,omitempty"`
	// May says what the viewer may do: approve deny withdraw break-glass review.
	May []string `json:"may,omitempty"`
	// Document is what the digest is of, to the byte.
	Document string `json:"document"`
}

// Person is an identity in a request.
type Person struct {
	Issuer  string   `json:"issuer"`
	Subject string   `json:"subject"`
	User    string   `json:"user"`
	Kind    string   `json:"kind,omitempty"`
	Groups  []string `json:"groups,omitempty"`
	Actor   *Person  `json:"actor,omitempty"` // who acts for them
}

// Setting is a piece of session state that changes what an action means.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Action is an action as approvers see it.
type Action struct {
	Verbs     []string `json:"verbs"`
	Resources []string `json:"resources,omitempty"`
	Functions []string `json:"functions,omitempty"`
	Text      string   `json:"text"`
	Params    []string `json:"params,omitempty"`
	Digest    string   `json:"digest"` // of the exact bytes, with those of bind parameters
	Bytes     int64    `json:"bytes"`
	// Meaning is a digest over what the catalogue says about all that the action
	// touches.
	Meaning string `json:"meaning,omitempty"`
	// Unrestricted is set when an update or a delete has no WHERE.
	Unrestricted bool `json:"unrestricted,omitempty"`
}

// Preview is what approvers see of an action besides its text.
type Preview = session.Preview

// Rule is one rule's demand.
type Rule struct {
	Policy        string   `json:"policy"`
	Rule          string   `json:"rule"`
	Needed        []Needed `json:"needed"`
	Proof         string   `json:"proof"`
	Grant         string   `json:"grant"`
	RequireReason bool     `json:"require_reason,omitempty"`
	Prompt        string   `json:"prompt,omitempty"`
	MaxAge        int64    `json:"max_age,omitempty"` // seconds
	BreakGlass    []string `json:"break_glass,omitempty"`
}

// Needed is Count different people of any of Groups.
type Needed struct {
	Groups []string `json:"groups"`
	Count  int      `json:"count"`
}

// Decision is one person's decision.
type Decision struct {
	User    string    `json:"user"`
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject"`
	Groups  []string  `json:"groups,omitempty"`
	Decided Decided   `json:"decided"`
	At      time.Time `json:"at"`
	Reason  string    `json:"reason,omitempty"`
	Proof   string    `json:"proof"` // idp | session | slack
}

// Broke says who broke the glass, and why.
type Broke struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// Viewer is who looks or decides. Nobody at all is not one.
type Viewer struct {
	Who  *flow.Principal // nil: not signed in
	Root bool            // at the node's socket: sees everything, decides nothing
}

// Attempt is somebody's wish to decide. With Token it is a token of the identity
// provider for the request's nonce, and Viewer does not count; without, it is the
// viewer's session.
type Attempt struct {
	Viewer Viewer
	Token  string
	Reason string
	Via    string // session | slack; "" for session
}

// Want is what a token has to prove.
type Want struct {
	Nonce  string
	After  time.Time     // not issued before
	MaxAge time.Duration // of the sign-in itself (auth_time); 0: any
}

// Proof is a verified token of an approver.
type Proof struct {
	Who   *flow.Principal
	Token string
	Keys  json.RawMessage // the issuer's key set that verified it, a JWK Set
}

// Prover verifies tokens of approvers.
type Prover interface {
	// Verify checks a token now, against the provider's keys of the moment.
	Verify(ctx context.Context, token string, want Want) (*Proof, error)
	// Recheck checks a token against an archived key set as of a moment, without a
	// network.
	Recheck(token string, keys json.RawMessage, want Want, at time.Time) (*flow.Principal, error)
}

// Service is what brings requests before people: the command line, the console and
// the messengers. Errors are for the user; *NotFound, *NotAllowed and *Conflict say of
// which kind.
type Service interface {
	// List returns the requests that the viewer may see, oldest first; with all also
	// those that have ended.
	List(ctx context.Context, v Viewer, all bool) ([]Request, error)
	// Show returns one; that somebody has seen it is on record.
	Show(ctx context.Context, v Viewer, id string) (*Request, error)
	Approve(ctx context.Context, id string, a Attempt) (*Request, error)
	Deny(ctx context.Context, id string, a Attempt) (*Request, error)
	// Withdraw ends a request of the viewer's own, or a grant.
	Withdraw(ctx context.Context, id string, a Attempt) (*Request, error)
	// BreakGlass lets the viewer's own request through at once.
	BreakGlass(ctx context.Context, id string, a Attempt) (*Request, error)
	// Review closes the review of a break-glass.
	Review(ctx context.Context, id string, a Attempt) (*Request, error)
	// Watch yields each request that the viewer may see, first those that are open,
	// then each as it changes, until ctx ends.
	Watch(ctx context.Context, v Viewer) Watcher
}

// Watcher yields requests.
type Watcher interface {
	// Next waits for the next one. The error is the context's.
	Next(ctx context.Context) (*Request, error)
	Close()
}

// Notifier tells people about requests in some other place. Notify must not block for
// long; what it could not deliver it retries and logs itself.
type Notifier interface {
	Notify(r Request)
}

// NotFound: there is no such request, or none that the viewer may see.
type NotFound struct{ ID string }

func (e *NotFound) Error() string {
	return "there is no request " + e.ID + " that you may see; `weir approvals list` shows those that there are"
}

// NotAllowed: the attempt does not count. The request is as it was.
type NotAllowed struct{ Why string }

func (e *NotAllowed) Error() string { return e.Why }

// Conflict: the request has already ended or cannot take this.
type Conflict struct{ Why string }

func (e *Conflict) Error() string { return e.Why }
