package console

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
)

// reviewOpen is Request.Review while another person has to look.
const reviewOpen = "open"

// previewWait is how long a preview may be on its way: it is found out within ten seconds
// or not at all.
const previewWait = 15 * time.Second

// How loud a fact is.
const (
	loud  = "danger"
	heard = "warn"
	quiet = "calm"
)

// fact is one thing that an approver should know first.
type fact struct{ Tone, Text string }

// request is a request as pages show it.
type request struct {
	*approval.Request
	Title   string // of the page: short
	Status  string
	Tone    string // of the status
	Until   string // in words; "" for no end
	Wait    string // how long that is
	Actions []action
	Own     bool     // the viewer asked for it
	Lacks   string   // who is still needed, in words; "" for nobody
	Needs   []string // by rule
	Asks    []string // who asked, and through whom
	Why     string   // why the viewer cannot decide; "" when they can, or when it is over
	Signed  bool     // approving takes a sign-in at the provider
	Reason  bool     // approving takes a reason
	Finding bool     // what it would do is still being found out
	Unknown bool     // what it would do could not be found out
	Grants  string   // what an approval is for
}

// action is one of its actions.
type action struct {
	approval.Action
	Number     int // from 1; 0 when there is only one
	Verb       string
	Objects    []string
	Facts      []fact
	Code       []piece
	Hidden     int // characters that do not show
	Odd        int // letters of other alphabets
	Folded     bool
	Parameters []parameter
	Preview    *approval.Preview
	Rows       string // how many it would change, in words
	Plan       []piece
}

type parameter struct {
	Number int
	Code   []piece
}

func actionsOf(r *approval.Request) []approval.Action {
	if len(r.Actions) > 0 {
		return r.Actions
	}
	return []approval.Action{r.Action}
}

func newRequest(r *approval.Request, v *flow.Principal, now time.Time) *request {
	x := &request{Request: r, Own: asks(&r.Principal, v), Asks: askers(&r.Principal, r.Requester), Grants: grantWords(r)}
	x.Status, x.Tone = status(r)
	if r.Status == approval.Pending || r.Status == approval.Approved && r.Grant != "once" && r.Grant != "session" {
		x.Until, x.Wait = clock(r.Expires), left(r.Expires, now)
	}
	for _, rule := range r.Rules {
		x.Signed = x.Signed || rule.Proof != approval.ProofSession
		x.Reason = x.Reason || rule.RequireReason
		x.Needs = append(x.Needs, ruleWords(&rule))
	}
	if r.Status == approval.Pending {
		x.Lacks = groupWords(r.Lacking())
		x.Why = cannot(r, x.Own, v)
	}
	list := actionsOf(r)
	for i := range list {
		a := newAction(&list[i])
		if len(list) > 1 {
			a.Number = i + 1
		}
		if i < len(r.Preview) {
			a.preview(&r.Preview[i])
		}
		x.Actions = append(x.Actions, a)
	}
	x.Title = title(x.Actions)
	sql := r.Protocol == string(flow.Postgres) || r.Protocol == string(flow.MySQL)
	if sql && len(r.Preview) == 0 && !x.Own && r.Status == approval.Pending {
		x.Finding = now.Sub(r.Created) < previewWait
		x.Unknown = !x.Finding
	}
	return x
}

// Can reports whether the viewer may do something.
func (x *request) Can(verb string) bool { return slices.Contains(x.May, verb) }

// Digits is the digest with room to compare it by eye.
func (x *request) Digits() []string {
	name, hex, ok := strings.Cut(x.Digest, ":")
	if !ok || len(hex) > 128 {
		return []string{x.Digest}
	}
	out := []string{name + ":"}
	for part := range slices.Chunk([]byte(hex), 8) {
		out = append(out, string(part))
	}
	return out
}

// Open reports whether it waits for somebody or is good for something.
func (x *request) Open() bool {
	return x.Request.Status == approval.Pending || x.Request.Status == approval.Approved || x.Review == reviewOpen
}

func newAction(a *approval.Action) action {
	x := action{Action: *a, Verb: strings.ToUpper(strings.Join(a.Verbs, ", ")), Objects: a.Resources, Code: code(a.Text)}
	if len(x.Objects) == 0 {
		x.Objects = a.Functions
	}
	if a.Unrestricted {
		x.Facts = append(x.Facts, fact{loud, "no WHERE: every row"})
	}
	for _, p := range x.Code {
		switch p.Kind {
		case hiddenPiece:
			x.Hidden++
		case oddPiece:
			x.Odd += utf8.RuneCountInString(p.Text)
		case foldedPiece:
			x.Folded = true
		}
	}
	if x.Hidden > 0 || x.Odd > 0 {
		x.Facts = append(x.Facts, fact{heard, "misleading characters"})
	}
	for i, p := range a.Params {
		x.Parameters = append(x.Parameters, parameter{i + 1, code(p)})
	}
	return x
}

func (a *action) preview(p *approval.Preview) {
	a.Preview, a.Plan = p, code(p.Plan)
	if p.Rows == nil {
		return
	}
	tone := heard
	switch {
	case *p.Rows == 0:
		tone = quiet
	case a.Unrestricted:
		tone = loud
	}
	a.Rows = grouped(*p.Rows) + " rows"
	if *p.Rows == 1 {
		a.Rows = "1 row"
	}
	at := 0
	if a.Unrestricted {
		at = 1
	}
	a.Facts = slices.Insert(a.Facts, at, fact{tone, "would change " + a.Rows})
}

// grouped writes 1204331 as 1 204 331, with narrow spaces (ISO 80000-1, 7.3.1).
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

func title(list []action) string {
	a := &list[0]
	t := a.Verb
	if len(a.Objects) > 0 {
		t += " " + short(a.Objects[0], 80)
	}
	if n := len(list); n > 1 {
		t += fmt.Sprintf(" and %d more", n-1)
	}
	return printable(t)
}

// printable is for places where there is text only.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if hides(r) || unicode.IsMark(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

func status(r *approval.Request) (words, tone string) {
	switch {
	case r.Review == reviewOpen:
		return "Went through without approval: to be reviewed", loud
	case r.Broke != nil:
		return "Went through without approval, reviewed", quiet
	}
	switch r.Status {
	case approval.Pending:
		return "Waiting for approval", heard
	case approval.Approved:
		return "Approved", "good"
	case approval.Used:
		return "Approved and used", "good"
	case approval.Denied:
		return "Denied", loud
	case approval.Expired:
		return "Expired", quiet
	case approval.Withdrawn:
		return "Withdrawn", quiet
	}
	return string(r.Status), quiet
}

// asks reports whether somebody is the requester, or acts for them.
func asks(p *approval.Person, v *flow.Principal) bool {
	for ; p != nil; p = p.Actor {
		if p.Issuer == v.Issuer && p.Subject == v.Subject || p.User != "" && strings.EqualFold(strings.TrimSpace(p.User), strings.TrimSpace(v.User)) {
			return true
		}
	}
	return false
}

func personName(p *approval.Person) string {
	if p.User != "" {
		return p.User
	}
	return p.Subject
}

func askers(p *approval.Person, name string) []string {
	if name == "" {
		name = personName(p)
	}
	all := []string{name}
	for a := p.Actor; a != nil; a = a.Actor {
		all = append(all, personName(a))
	}
	return all
}

// cannot says why somebody cannot decide on a request that waits.
func cannot(r *approval.Request, own bool, v *flow.Principal) string {
	switch {
	case slices.Contains(r.May, "approve"):
		return ""
	case own:
		return "You asked for this, so other people have to decide."
	case slices.ContainsFunc(r.Decisions, func(d approval.Decision) bool {
		return d.Issuer == v.Issuer && d.Subject == v.Subject && d.Decided == approval.DecidedApproved
	}):
		return "You have approved this. It still needs other people."
	}
	return "You are in none of the groups that decide on this."
}

// groupWords says who is needed: "1 of dba and 2 of ops or lead".
func groupWords(list []approval.Needed) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = fmt.Sprintf("%d of %s", n.Count, strings.Join(n.Groups, " or "))
	}
	return strings.Join(words, " and ")
}

func ruleWords(r *approval.Rule) string {
	s := groupWords(r.Needed)
	if r.Proof == approval.ProofSession {
		s += ", being signed in is enough"
	} else {
		s += ", each by a sign-in for this very request"
		if r.MaxAge > 0 {
			s += ", with credentials entered within " + spoken(time.Duration(r.MaxAge)*time.Second)
		}
	}
	if r.RequireReason {
		s += ", with a reason"
	}
	return s
}

// grantWords says what an approval is for.
func grantWords(r *approval.Request) string {
	switch r.Grant {
	case "once":
		return "once"
	case "session":
		return "as often as wanted on this one connection"
	}
	length := r.Grant
	if d, err := time.ParseDuration(r.Grant); err == nil {
		length = spoken(d)
	}
	return "as often as wanted for " + length
}

// proofWords says what a decision rests on.
func proofWords(proof string) string {
	switch proof {
	case approval.ProofIDP:
		return "signed in at the identity provider for this request"
	case approval.ProofSession:
		return "was signed in at weir"
	case approval.ProofSlack:
		return "by a button in Slack"
	}
	return proof
}

// clock is a moment for people, in a zone that all of them share.
func clock(t time.Time) string { return t.UTC().Format("2 Jan 15:04:05") + " UTC" }

func left(t, now time.Time) string {
	d := t.Sub(now)
	if d < time.Second {
		return "now"
	}
	return "in " + spoken(d)
}

// spoken is a length of time in its two largest units.
func spoken(d time.Duration) string {
	units := []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}}
	var words []string
	for _, u := range units {
		if n := d / u.of; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, u.name))
			d -= n * u.of
		} else if len(words) > 0 {
			break
		}
		if len(words) == 2 {
			break
		}
	}
	if len(words) == 0 {
		return "0 s"
	}
	return strings.Join(words, " ")
}

// sentence makes an error of other packages a sentence of a page.
func sentence(s string) string {
	s = strings.TrimSpace(strings.TrimPrefix(s, "weir: "))
	if s == "" {
		return ""
	}
	r, n := utf8.DecodeRuneInString(s)
	s = string(unicode.ToUpper(r)) + s[n:]
	if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "?") {
		s += "."
	}
	return s
}
