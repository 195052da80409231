package approval

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
)

// documentVersion is that of the document's form.
const documentVersion = 1

// maxDocument bounds a document, bytes: nobody reads more than that.
const maxDocument = 256 << 10

// document says everything that the meaning of a request rests on. Its JSON, to the
// byte, is what a request's digest is of. The fields keep their order.
type document struct {
	Version int       `json:"weir_approval"`
	ID      string    `json:"id"`
	Node    string    `json:"node"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Rules   []Rule    `json:"rules"`
	// FinishAtExpiry lets what runs come to its end when the grant does.
	FinishAtExpiry bool  `json:"finish_at_expiry,omitempty"`
	Scope          scope `json:"scope"`
}

// scope is the action and all that it means: a grant that goes on is for the same
// scope only.
type scope struct {
	Requester   Person    `json:"requester"`
	Backend     string    `json:"backend"`
	Protocol    string    `json:"protocol"`
	Destination string    `json:"destination"`
	Database    string    `json:"database,omitempty"`
	Login       string    `json:"login,omitempty"`
	State       []Setting `json:"state,omitempty"`
	Actions     []Action  `json:"actions"`
}

// errTooLong: an action that no person can be shown.
var errTooLong = errors.New("the statement is longer than what people can be shown, so nobody can approve it: make it shorter, or have a rule that allows it")

// documentOf makes the document of an ask.
func documentOf(a *session.Ask, id, node string, created, expires time.Time) (*document, error) {
	d := &document{Version: documentVersion, ID: id, Node: node, Created: created, Expires: expires, Rules: rulesOf(a.Needs), FinishAtExpiry: finishes(a.Needs)}
	var err error
	d.Scope, err = scopeOf(a)
	return d, err
}

func scopeOf(a *session.Ask) (scope, error) {
	f := &a.Flow
	s := scope{Requester: personOf(a.Who), Backend: f.Backend, Protocol: string(f.Protocol), Destination: f.Destination.String(), Database: f.Database, Login: f.Login}
	for _, x := range a.Actions {
		if len(x.Text) > flow.MaxRecordedText-1 {
			return s, errTooLong // it may have been cut
		}
		s.State = mergeState(s.State, x.State)
		s.Actions = append(s.Actions, actionOf(x))
	}
	return s, nil
}

func mergeState(all []Setting, more []flow.Setting) []Setting {
	for _, m := range more {
		x := Setting{m.Name, m.Value}
		if !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}

func actionOf(a *flow.Action) Action {
	x := Action{Functions: a.Functions, Text: a.Text, Params: a.Params, Digest: a.Digest, Bytes: a.Bytes, Meaning: a.Meaning, Verbs: []string{}}
	for _, acc := range a.Accesses {
		v := string(acc.Verb)
		if acc.Unrestricted {
			x.Unrestricted = true
		}
		if !slices.Contains(x.Verbs, v) {
			x.Verbs = append(x.Verbs, v)
		}
		if acc.Resource != "" && !slices.Contains(x.Resources, acc.Resource) {
			x.Resources = append(x.Resources, acc.Resource)
		}
	}
	return x
}

func rulesOf(needs []policy.Need) []Rule {
	rules := make([]Rule, len(needs))
	for i, n := range needs {
		a := n.Approve
		rules[i] = Rule{Policy: n.Policy, Rule: n.Rule, Proof: a.Proof, Grant: a.Grant, RequireReason: a.RequireReason,
			Prompt: a.Prompt, MaxAge: int64(a.MaxAge / time.Second), BreakGlass: a.BreakGlass}
		for _, q := range a.Needs {
			rules[i].Needed = append(rules[i].Needed, Needed{Groups: q.Groups, Count: q.Count})
		}
	}
	return rules
}

func finishes(needs []policy.Need) bool {
	return !slices.ContainsFunc(needs, func(n policy.Need) bool { return n.Approve.AtExpiry != policy.AtExpiryFinish })
}

// grantOf is the narrowest grant of the rules: once, then session, then the shortest
// duration.
func grantOf(needs []policy.Need) (kind string, length time.Duration) {
	for _, n := range needs {
		switch a := n.Approve; {
		case a.Grant == policy.GrantOnce:
			return policy.GrantOnce, 0
		case a.Grant == policy.GrantSession:
			kind, length = policy.GrantSession, 0
		case kind != policy.GrantSession && (kind == "" || a.GrantFor < length):
			kind, length = a.Grant, a.GrantFor
		}
	}
	return kind, length
}

// timeoutOf is the shortest timeout of the rules.
func timeoutOf(needs []policy.Need, standard time.Duration) time.Duration {
	t := time.Duration(0)
	for _, n := range needs {
		one := n.Approve.Timeout
		if one == 0 {
			one = standard
		}
		if t == 0 || one < t {
			t = one
		}
	}
	return t
}

// encode gives the bytes that the digest is of.
func (d *document) encode() ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode a request: %w", err)
	}
	if len(b) > maxDocument {
		return nil, errTooLong
	}
	return b, nil
}

// key is the digest of a scope, to look grants up by. The requester's groups are the
// policy's business, which is asked every time.
func (s scope) key() ([sha256.Size]byte, error) {
	s.Requester.Groups = nil
	b, err := json.Marshal(s)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("encode an action: %w", err)
	}
	return sha256.Sum256(b), nil
}

// digestOf is a document's digest as people and records write it, and as a nonce.
func digestOf(doc []byte) (digest, nonce string) {
	sum := sha256.Sum256(doc)
	return "sha256:" + hex.EncodeToString(sum[:]), base64.RawURLEncoding.EncodeToString(sum[:])
}
