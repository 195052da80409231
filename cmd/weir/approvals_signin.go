package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/identity"
)

// approver decides on requests for the person at the command line.
type approver struct {
	agent  *control.Client
	login  func(context.Context, identity.LoginConfig) (string, error)
	issuer string // to sign in at; "": the one there is
	device bool
}

// request gets one request as the caller may see it.
func (a *approver) request(ctx context.Context, id string) (*approval.Request, error) {
	var r approval.Request
	if err := a.agent.Call(ctx, http.MethodGet, "/v1/approvals/"+url.PathEscape(id), nil, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// decide sends a decision; token is empty for one by the caller's own sign-in.
func (a *approver) decide(ctx context.Context, verb, id, token, reason string) (*approval.Request, error) {
	var r approval.Request
	if err := a.agent.Call(ctx, http.MethodPost, "/v1/approvals/"+url.PathEscape(id)+"/"+verb, control.Decide{Token: token, Reason: reason}, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// approve approves what r shows: with the caller's sign-in where the rules take that,
// else with a new one for this very request. What the person must read goes to out.
func (a *approver) approve(ctx context.Context, r *approval.Request, reason string, out io.Writer) (*approval.Request, error) {
	if err := checkDocument(r); err != nil {
		return nil, err
	}
	token := ""
	who := a.whoami(ctx)
	if wantsSignIn(r) || who == nil || a.issuer != "" || a.device {
		issuer, err := a.pickIssuer(ctx, who)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithDeadline(ctx, r.Expires) // after that a sign-in is for nothing
		defer cancel()
		token, err = a.login(ctx, identity.LoginConfig{Issuer: issuer.Issuer, ClientID: issuer.ClientID, CAFile: issuer.CAFile, Device: a.device,
			Nonce: r.Nonce, Prompt: r.Prompt, MaxAge: time.Duration(r.MaxAge) * time.Second, Out: out})
		if err != nil {
			return nil, err
		}
	}
	return a.decide(ctx, "approve", r.ID, token, reason)
}

// wantsSignIn reports whether a rule takes nothing less than a sign-in for the request.
func wantsSignIn(r *approval.Request) bool {
	return len(r.Rules) == 0 || slices.ContainsFunc(r.Rules, func(rule approval.Rule) bool { return rule.Proof != approval.ProofSession })
}

func wantsReason(r *approval.Request) bool {
	return slices.ContainsFunc(r.Rules, func(rule approval.Rule) bool { return rule.RequireReason })
}

// whoami is the person who is signed in here, nil when nobody is.
func (a *approver) whoami(ctx context.Context) *control.Identity {
	var who control.Identity
	if err := a.agent.Call(ctx, http.MethodGet, "/v1/whoami", nil, &who); err != nil || who.Kind != string(flow.Human) {
		return nil
	}
	return &who
}

// pickIssuer chooses among the identity providers of people: the one that was named,
// the only one, else the one at which the caller is signed in.
func (a *approver) pickIssuer(ctx context.Context, who *control.Identity) (*control.Issuer, error) {
	var all []control.Issuer
	if err := a.agent.Call(ctx, http.MethodGet, "/v1/issuers", nil, &all); err != nil {
		return nil, err
	}
	want := strings.TrimRight(a.issuer, "/")
	var people []control.Issuer
	var names []string
	for _, i := range all {
		if i.Kind == string(flow.Human) {
			people, names = append(people, i), append(names, i.Issuer)
		}
	}
	switch {
	case len(people) == 0:
		return nil, errors.New("no identity provider of people is configured on this node, so nobody can approve from here; ask whoever keeps its weir.yaml")
	case want == "" && len(people) == 1:
		return &people[0], nil
	case want == "" && who != nil:
		want = strings.TrimRight(who.Issuer, "/")
	}
	for i := range people {
		if strings.TrimRight(people[i].Issuer, "/") == want {
			return &people[i], nil
		}
	}
	if a.issuer == "" {
		return nil, usagef("several identity providers are configured; choose one with --issuer: %s", strings.Join(names, ", "))
	}
	return nil, usagef("%s is no identity provider of people on this node; it has: %s", a.issuer, strings.Join(names, ", "))
}

// errDocument: the agent shows one thing and wants a signature for another.
var errDocument = errors.New("weir: what this request shows is not what its digest is of, so approving it could mean anything: " +
	"do not approve it, and tell whoever runs weir on this node")

// checkDocument checks that a request's digest and nonce are those of its document, and
// that the document says what is shown: an approver signs the nonce, and nothing else.
func checkDocument(r *approval.Request) error {
	sum := sha256.Sum256([]byte(r.Document))
	if r.Digest != "sha256:"+hex.EncodeToString(sum[:]) || r.Nonce != base64.RawURLEncoding.EncodeToString(sum[:]) {
		return errDocument
	}
	// Names are those of the document (internal/approval).
	type scope struct {
		Requester approval.Person    `json:"requester"`
		Backend   string             `json:"backend"`
		Protocol  string             `json:"protocol"`
		Database  string             `json:"database"`
		Login     string             `json:"login"`
		State     []approval.Setting `json:"state"`
		Actions   []approval.Action  `json:"actions"`
	}
	type document struct {
		ID    string          `json:"id"`
		Node  string          `json:"node"`
		Rules []approval.Rule `json:"rules"`
		Scope scope           `json:"scope"`
	}
	var signed document
	if json.Unmarshal([]byte(r.Document), &signed) != nil {
		return errDocument
	}
	shown := document{ID: r.ID, Node: r.Node, Rules: r.Rules, Scope: scope{Requester: r.Principal, Backend: r.Backend, Protocol: r.Protocol,
		Database: r.Database, Login: r.Login, State: r.State, Actions: actionsOf(r)}}
	a, err := json.Marshal(signed)
	b, err2 := json.Marshal(shown)
	if err != nil || err2 != nil || !bytes.Equal(a, b) || r.Requester != r.Principal.User {
		return errDocument
	}
	return nil
}

// decisionText says what has come of a decision, for the person who made it.
func decisionText(verb string, r *approval.Request) string {
	id := oneLine(r.ID)
	switch verb {
	case "approve":
		if r.Status == approval.Pending {
			return fmt.Sprintf("your approval of %s counts; it still waits for other people: it needs %s", id, needsNow(r))
		}
		return "approved " + id + ": it goes on"
	case "deny":
		return "denied " + id
	case "withdraw":
		return "withdrew " + id
	case "break-glass":
		return "broke the glass for " + id + ": it goes on, and another person will review it"
	}
	return "closed the review of " + id
}
