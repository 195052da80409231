package policy

import (
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// Input is what one decision is about. Principal may be nil (nobody signed in);
// then only rules without groups, users and kinds can match.
type Input struct {
	Principal *flow.Principal
	Flow      *flow.Flow
	Action    *flow.Action
	Now       time.Time
	// Argv0 is the first argument of the process. "" means that it is not known:
	// a condition that reads process.argv0 then fails, and the action is denied.
	Argv0 string
	// Missing is what is not known of the rest. A condition that reads it cannot be
	// evaluated, and a decision that hangs on it says so. Nothing is missing while a
	// flow is served.
	Missing Facts
}

// Decision is the verdict on a whole action: deny beats approve beats allow over
// all of its accesses.
type Decision struct {
	Verdict flow.Verdict
	Rule    string      // bare name of the rule that decided; "" when none matched
	Policy  string      // name of the policy that holds the rule
	Access  flow.Access // the access that decided
	Reason  string      // one sentence for people: what was decided on what by which rule
	Approve *Approve    // set when Verdict is approve: what Rule asks for
	// Needs holds every approve rule that matched, once each, Rule's own first.
	// All of them must be satisfied: rules have no order, so none replaces another.
	Needs  []Need
	Record string // "" or the strictest record of the rules that matched: refuse | end | continue
	// Rests is what it rests on: what the conditions that were asked read. The same
	// principal with the same of all that gets the same decision of this Set.
	Rests Facts
	// Missing is set when the verdict is not known: conditions that it hangs on read
	// what Input.Missing says is not there. Verdict is then deny.
	Missing Facts
}

// Need is one rule's demand for approval.
type Need struct {
	Rule, Policy string
	Access       flow.Access // the first access that it was about
	Approve      *Approve
}

// Grants and proofs of an approval (contract, section 3).
const (
	GrantOnce    = "once"    // for one execution of the approved action
	GrantSession = "session" // for the same digest while the flow lasts
	ProofIDP     = "idp"     // a token of the identity provider minted for this request
	ProofSession = "session" // a signed-in session is enough
)

// What becomes of an action that still runs when its grant ends.
const (
	AtExpiryCancel = "cancel" // its flow is cut
	AtExpiryFinish = "finish" // it comes to its end
)

// Approve is what a rule with effect approve asks for.
type Approve struct {
	// Needs are the quorums, all of which must be met, by different people each.
	Needs         []Quorum
	Timeout       time.Duration // 0: the configuration's default
	Grant         string        // once | session | a duration
	GrantFor      time.Duration // with a duration: how long; 0 otherwise
	AtExpiry      string        // cancel | finish
	Proof         string        // idp | session
	Prompt        string        // what the approver's sign-in asks the provider for; "": nothing
	MaxAge        time.Duration // of that sign-in; 0: any
	RequireReason bool          // of those who approve
	// BreakGlass are the groups whose members may go through at once, with a reason
	// and a review; empty: nobody.
	BreakGlass []string
}

// Quorum is Count different people, each of any of Groups.
type Quorum struct {
	Groups []string
	Count  int // at least 1
}

// What happens to a session whose recorder fails (contract, section 3).
const (
	RecordRefuse   = "refuse"   // no recorder, no session
	RecordEnd      = "end"      // the session ends
	RecordContinue = "continue" // it goes on, with a gap record
)

// Methods of masks.
const (
	MaskRedact = "redact"
	MaskLast4  = "last4"
	MaskNull   = "null"
	MaskHash   = "hash"
	MaskToken  = "token"
	MaskEmail  = "email"
)

// Mask is one mask of a policy as it applies to a principal at a backend. Masks
// are shared and must not be changed.
type Mask struct {
	Name       string
	Policy     string
	Columns    []Glob   // schema.table.column; empty: none by name
	Detect     []string // detector names; applied to every text-like value
	Fields     []string // JSONPath, for http and kubernetes
	With       string   // redact | last4 | null | hash | token | email
	Predicates string   // deny | allow | budget; "" in the file: deny
	// Budget is how many tests a principal has in any time as long as Per: with
	// budget of every bounded kind, with deny of equality with a value. Both are set
	// with deny and budget, and zero with allow.
	Budget int
	Per    time.Duration

	unlessGroups []string
}

// MatchColumn reports whether the mask names the column. The parts are plain
// names, without SQL quotes.
func (m *Mask) MatchColumn(schema, table, column string) bool {
	for i := range m.Columns {
		if m.Columns[i].MatchParts(schema, table, column) {
			return true
		}
	}
	return false
}
