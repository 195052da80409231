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
}

// Decision is the verdict on a whole action: deny beats approve beats allow over
// all of its accesses.
type Decision struct {
	Verdict flow.Verdict
	Rule    string      // bare name of the rule that decided; "" when none matched
	Access  flow.Access // the access that decided
	Reason  string      // one sentence for people: what was decided on what by which rule
	Approve *Approve    // set when Verdict is approve
	Record  string      // "" or the rule's record: refuse | end | continue
}

// Approve is what a rule with effect approve asks for.
type Approve struct {
	Groups        []string
	Count         int           // distinct people
	Timeout       time.Duration // 0: the configuration's default
	Grant         string        // once | session | a duration
	Proof         string        // idp | session
	RequireReason bool
}

// Mask is one mask of a policy as it applies to a principal at a backend.
type Mask struct {
	Name       string
	Columns    []Glob   // schema.table.column; empty: none by name
	Detect     []string // detector names; applied to every text-like value
	Fields     []string // JSONPath, for http and kubernetes
	With       string   // redact | last4 | null | hash | token | email
	Predicates string   // deny | allow | budget
	Budget     int      // with budget
}
