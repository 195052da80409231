package session

import (
	"context"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
)

// Ask is what a gate wants other people to decide: the actions of one message, as a
// whole.
type Ask struct {
	Flow     flow.Flow
	Who      *flow.Principal
	Actions  []*flow.Action
	Needs    []policy.Need
	Revision string // of the policy that wants it
	// Preview finds out for the approvers what the actions would do, on connections of
	// Weir's own and within a bound of time; nil when the protocol has nothing to show.
	Preview func(ctx context.Context) []Preview
}

// Preview is what an approver sees of one action besides its text. It holds no data.
type Preview struct {
	Plan string `json:"plan,omitempty"` // how the server would run it
	// Rows is how many rows it would change, as far as could be counted; nil when not.
	Rows *int64 `json:"rows,omitempty"`
	// Note says what could not be found out, and why.
	Note string `json:"note,omitempty"`
}

// Approvals brings actions before other people. Its methods are safe for concurrent
// use.
type Approvals interface {
	// Standing looks for a grant that covers the very same actions already.
	Standing(a *Ask) (Consent, bool)
	// Ask opens a request; it is on record when Ask returns. The error is for the operator.
	// It is a *Refusal when the user is to be told why there is no request.
	Ask(ctx context.Context, a *Ask) (Hold, error)
	// EndFlow ends grants that are for the one flow, which has ended.
	EndFlow(id flow.ID)
}

// Hold is a request that is being decided. Its owner ends it by Claim or Withdraw.
type Hold interface {
	// Notice is what the client is told of it now.
	Notice() Notice
	// Changed is closed when something has happened: another approval, or the end.
	Changed() <-chan struct{}
	// Ended reports whether it is decided, whichever way.
	Ended() bool
	// Claim takes the consent for the actions of a, which must be the same in
	// everything that their meaning rests on; the request is then used up, unless its
	// grant is a standing one. The error is a *Refusal.
	Claim(ctx context.Context, a *Ask) (Consent, error)
	// Withdraw ends it because nobody waits for it any more; why is for the record.
	Withdraw(why string)
}

// Notice is what a held client learns.
type Notice struct {
	ID      string
	Rule    string
	Waiting string // for whom, in words: "1 of group dba"
	Until   time.Time
	// BreakGlass is set when the requester may go through at once, with a reason.
	BreakGlass bool
}

// Consent is other people's permission for actions. The zero value is none.
type Consent struct {
	ID, Digest string
	Requester  string
	Approvers  []string
	Proof      string
	Reason     string // the approvers' words
	BreakGlass bool
	// Live ends when the grant does: it expires or is withdrawn; its cause says which.
	Live context.Context
	// Finish lets an action that runs then come to its end.
	Finish bool
	// Release says that what it has let through has ended. It may be called more than
	// once.
	Release func()
}

// Causes for which a flow is cut that depends on a grant.
var (
	ErrGrantExpired   = errGrant("the approval that this hung on has expired")
	ErrGrantWithdrawn = errGrant("the approval that this hung on was withdrawn")
)

type errGrant string

func (e errGrant) Error() string { return string(e) }
