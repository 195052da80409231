package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/identity"
)

// hostile is text that tries to control a terminal and to read as something else.
const hostile = "\x1b[2J\x1b]0;owned\x07 \u202egnp\u2066\u200b \u009b31m\rDELETE"

func hostileRequest(r *approval.Request) {
	r.Requester, r.Principal.User, r.Principal.Subject = "ann"+hostile, "ann"+hostile, hostile
	r.Principal.Actor = &approval.Person{User: "bot" + hostile, Subject: hostile, Issuer: hostile}
	r.Backend, r.Database, r.Login, r.Node, r.Flow = hostile, hostile, hostile, hostile, hostile
	r.State = []approval.Setting{{Name: hostile, Value: hostile}}
	r.Action.Verbs, r.Action.Resources, r.Action.Functions = []string{hostile}, []string{hostile}, []string{hostile}
	r.Action.Text, r.Action.Params = "SELECT 1\n"+hostile+"\nDROP TABLE t", []string{hostile + "\n" + hostile}
	r.Rules[0].Rule, r.Rules[0].Policy, r.Rules[0].Prompt, r.Rules[0].Needed[0].Groups = hostile, hostile, hostile, []string{hostile}
	r.Needed[0].Groups, r.BreakGlass, r.Grant = []string{hostile}, []string{hostile}, hostile
	r.Preview = []approval.Preview{{Plan: "Seq Scan\n" + hostile, Note: hostile}}
	r.Decisions = []approval.Decision{{User: hostile, Decided: approval.DecidedApproved, Reason: hostile, Proof: hostile}}
	r.Ended, r.Broke = hostile, &approval.Broke{By: hostile, Reason: hostile}
}

// harmless fails when text could control a terminal or hide something.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	for i, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%s: %U reaches the terminal: %q", what, r, text[max(0, i-30):min(len(text), i+30)])
			return
		}
	}
}

func TestHostileTextStaysText(t *testing.T) {
	for _, status := range []approval.Status{approval.Pending, approval.Approved, approval.Used, approval.Denied, approval.Expired, approval.Withdrawn} {
		r := testRequest(1, hostileRequest, func(r *approval.Request) { r.Status = status })
		for _, width := range []int{0, 80, 200} {
			var out bytes.Buffer
			if err := printApproval(&out, &r, testTime(), width); err != nil {
				t.Fatal(err)
			}
			harmless(t, "show", out.String())
			if width == 0 && !strings.Contains(out.String(), "<U+001B>[2J<U+001B>]0;owned<U+0007> <U+202E>gnp<U+2066><U+200B> <U+009B>31m<U+000D>DELETE") {
				t.Errorf("what is hidden is not shown:\n%s", out.String())
			}
			out.Reset()
			if err := printApprovals(&out, []approval.Request{r}, testTime(), width); err != nil {
				t.Fatal(err)
			}
			harmless(t, "list", out.String())
			if lines := strings.Count(out.String(), "\n"); lines != 2 {
				t.Errorf("one request makes %d lines of a list:\n%s", lines, out.String())
			}
			harmless(t, "brief", strings.Join(brief(&r, testTime(), width), "\n"))
		}
		harmless(t, "decision", decisionText("approve", &r))
	}
}

func TestListIsShortenedToTheTerminal(t *testing.T) {
	long := testRequest(1, func(r *approval.Request) {
		r.Action.Resources = []string{strings.Repeat("shop.a_very_long_table_name ", 20)}
	})
	other := testRequest(2, func(r *approval.Request) { r.Status = approval.Denied })
	var out bytes.Buffer
	if err := printApprovals(&out, []approval.Request{long, other}, testTime(), 100); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || len([]rune(lines[1])) > 100 || !strings.Contains(lines[1], "…") {
		t.Errorf("not cut to 100 cells:\n%s", out.String())
	}
	if strings.Fields(lines[1])[0] != "00000001" || !strings.Contains(lines[1], "1 of dba") || !strings.HasSuffix(lines[1], "10m00s") {
		t.Errorf("line %q", lines[1])
	}
	if !strings.Contains(lines[2], "denied") || strings.Contains(lines[2], "1 of dba") {
		t.Errorf("line %q of a request that has ended", lines[2])
	}
	out.Reset()
	if err := printApprovals(&out, []approval.Request{long}, testTime(), 0); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), long.ID) || strings.Contains(out.String(), "…") {
		t.Errorf("cut without a terminal:\n%s", out.String())
	}
}

func TestShowSaysEverything(t *testing.T) {
	rows := int64(120)
	r := testRequest(1, func(r *approval.Request) {
		r.Action.Text, r.Action.Params = "DELETE\n\tFROM shop.orders", []string{"7", "x"}
		r.Preview = []approval.Preview{{Plan: "Delete on orders\n  Seq Scan", Rows: &rows, Note: "counted at 03:04"}}
		r.Decisions = []approval.Decision{{User: "carl@example.com", Decided: approval.DecidedApproved, Reason: "looks right", Proof: "idp", At: testTime()}}
		r.Needed[0].Count, r.Rules[0].Needed[0].Count = 2, 2
		r.Rules[0].Prompt, r.Rules[0].MaxAge, r.Rules[0].RequireReason = "login", 60, true
		r.BreakGlass = []string{"oncall"}
		r.Principal.Actor = &approval.Person{User: "agent-7", Subject: "a7", Issuer: "https://ci.example.com"}
	})
	var out bytes.Buffer
	if err := printApproval(&out, &r, testTime(), 0); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{r.ID, "pending", "expires in 10m00s", "delete on shop.orders", "NO WHERE", "    DELETE\n        FROM shop.orders\n", "$1 = 7", "$2 = x",
		"touch 120 rows", "Seq Scan", "counted at", "ann@example.com (human)", "groups developer", "subject ann at https://idp.example.com", "through agent-7",
		"orders (postgres), database shop, login app, from node node-a", "search_path = shop, public", `2 of dba, by rule "two people" of policy "orders"`,
		"prompt login", "1m0s", "a reason is required", "carl@example.com approved", "looks right", "(proof: idp)", "exactly this runs, once", "oncall", r.Digest, r.Nonce,
		"weir approvals approve " + r.ID + ` --reason "..."`, "--token-file FILE", "weir approvals deny " + r.ID, "weir approvals break-glass " + r.ID} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("show does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "WARNING") {
		t.Errorf("a warning about nothing:\n%s", out.String())
	}
	r.Status, r.Review, r.Broke = approval.Used, reviewOpen, &approval.Broke{By: "ann@example.com", Reason: "the site is down"}
	out.Reset()
	if err := printApproval(&out, &r, testTime(), 0); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"used, review", "let through at once by ann@example.com: the site is down", "weir approvals review " + r.ID} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("show does not say %q:\n%s", want, out.String())
		}
	}
}

// TestNobodySignsForWhatIsNotShown: whatever of a request differs from its document
// stops an approval before the sign-in.
func TestNobodySignsForWhatIsNotShown(t *testing.T) {
	for name, change := range map[string]func(*approval.Request){
		"text":      func(r *approval.Request) { r.Action.Text += " " },
		"params":    func(r *approval.Request) { r.Action.Params = []string{"1"} },
		"actions":   func(r *approval.Request) { r.Actions = []approval.Action{r.Action, r.Action} },
		"requester": func(r *approval.Request) { r.Requester = "carl@example.com" },
		"principal": func(r *approval.Request) { r.Principal.Subject = "carl" },
		"backend":   func(r *approval.Request) { r.Backend = "test" },
		"database":  func(r *approval.Request) { r.Database = "test" },
		"login":     func(r *approval.Request) { r.Login = "nobody" },
		"state":     func(r *approval.Request) { r.State[0].Value = "test" },
		"node":      func(r *approval.Request) { r.Node = "node-b" },
		"id":        func(r *approval.Request) { r.ID = "01JDTESTTESTTEST0000000009" },
		"rules":     func(r *approval.Request) { r.Rules[0].Proof = approval.ProofSession },
		"nonce":     func(r *approval.Request) { r.Nonce = "A" + r.Nonce[1:] },
		"digest":    func(r *approval.Request) { r.Digest = "sha256:00" },
		"document":  func(r *approval.Request) { r.Document += " " },
	} {
		r := testRequest(1)
		if err := checkDocument(&r); err != nil {
			t.Fatal(err)
		}
		change(&r)
		a := &approver{login: func(context.Context, identity.LoginConfig) (string, error) {
			t.Errorf("%s: a sign-in was begun", name)
			return "", errors.New("no")
		}}
		if _, err := a.approve(t.Context(), &r, "", io.Discard); !errors.Is(err, errDocument) {
			t.Errorf("%s: %v", name, err)
		}
		var out bytes.Buffer
		if err := printApproval(&out, &r, testTime(), 0); err != nil || !strings.Contains(out.String(), "WARNING") {
			t.Errorf("%s: show does not warn (%v)", name, err)
		}
	}
}

func TestSignInIsForTheRequest(t *testing.T) {
	agent := startFakeAgent(t, testRequest(1, inTime, func(r *approval.Request) { r.Prompt, r.MaxAge = "login", 60 }))
	var got identity.LoginConfig
	a := &approver{agent: agent.client(), login: func(_ context.Context, c identity.LoginConfig) (string, error) { got = c; return "a.b.c", nil }}
	r, err := a.request(t.Context(), testRequest(1).ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.approve(t.Context(), r, "fine", io.Discard); err != nil {
		t.Fatal(err)
	}
	if got.Nonce != r.Nonce || got.Prompt != "login" || got.MaxAge != time.Minute || got.Issuer != "https://idp.example.com" || got.ClientID != "weir" || got.Device {
		t.Errorf("signed in with %+v", got)
	}
	if tries := agent.attempts(); len(tries) != 1 || tries[0].Token != "a.b.c" || tries[0].Reason != "fine" || tries[0].verb != "approve" || tries[0].id != r.ID {
		t.Errorf("attempts %+v", tries)
	}
}

func TestSessionIsEnoughWhereTheRuleSaysSo(t *testing.T) {
	agent := startFakeAgent(t, testRequest(1, inTime, bySession))
	signedIn := 0
	a := &approver{agent: agent.client(), login: func(context.Context, identity.LoginConfig) (string, error) { signedIn++; return "a.b.c", nil }}
	r, err := a.request(t.Context(), testRequest(1).ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.approve(t.Context(), r, "", io.Discard); err != nil {
		t.Fatal(err)
	}
	if tries := agent.attempts(); signedIn != 0 || len(tries) != 1 || tries[0].Token != "" || tries[0].Viewer.Who.User != "bob@example.com" {
		t.Errorf("%d sign-ins, attempts %+v", signedIn, tries)
	}
	agent.as(approval.Viewer{Root: true}, identity.ErrNoIdentity) // root has no session to decide with
	if _, err := a.approve(t.Context(), r, "", io.Discard); err != nil {
		t.Fatal(err)
	}
	if tries := agent.attempts(); signedIn != 1 || len(tries) != 2 || tries[1].Token != "a.b.c" {
		t.Errorf("%d sign-ins, attempts %+v", signedIn, tries)
	}
}

func TestIssuersAreThoseOfPeople(t *testing.T) {
	agent := startFakeAgent(t)
	for named, want := range map[string]string{"": "https://idp.example.com", "https://idp.example.com/": "https://idp.example.com", "https://ci.example.com": ""} {
		a := &approver{agent: agent.client(), issuer: named}
		got, err := a.pickIssuer(t.Context(), nil)
		if (err != nil) != (want == "") || err == nil && got.Issuer != want {
			t.Errorf("%q: %v, %v", named, got, err)
		}
	}
}

func TestApprovalCommands(t *testing.T) {
	r := testRequest(1, inTime, bySession)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("file.to.ken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := &approval.NotAllowed{Why: "weir: nobody decides on what they ask for themselves\x1b[2J"}
	over := &approval.Conflict{Why: "weir: it is used"}
	for _, c := range []struct {
		args, stdin string
		refuse      error
		code        int
		says        string // on stderr, or stdout when the code is 0
		verb        string // of the attempt, "" for none
		token       string
		reason      string
	}{
		{args: "list", says: "ann@example.com"},
		{args: "list extra", code: 2, says: "no arguments"},
		{args: "show " + r.ID, says: r.Nonce},
		{args: "show " + strings.ToLower(r.ID) + " -o json", says: `"nonce"`},
		{args: "show " + r.ID[len(r.ID)-8:], says: r.Nonce},
		{args: "show " + r.ID[len(r.ID)-3:], code: 2, says: "6 characters"},
		{args: "show 99999999", code: 1, says: "no request"},
		{args: "show 01JDTESTTESTTEST9999999999", code: 1, says: "no request"},
		{args: "show", code: 2, says: "ID"},
		{args: "show " + r.ID + " --frobnicate", code: 2, says: "frobnicate"},
		{args: "show " + r.ID + " extra", code: 2, says: "one ID"},
		{args: "frobnicate", code: 2, says: "no command"},
		{args: "approve " + r.ID + " --reason fine", says: "approved", verb: "approve", reason: "fine"},
		{args: "approve --reason fine " + r.ID, says: "approved", verb: "approve", reason: "fine"},
		{args: "approve " + r.ID, code: 3, refuse: refused, says: "weir: nobody decides on what they ask for themselves", verb: "approve"},
		{args: "approve " + r.ID, code: 1, refuse: over, says: "it is used", verb: "approve"},
		{args: "approve " + r.ID + " --token-file " + token, says: "approved", verb: "approve", token: "file.to.ken"},
		{args: "approve --token-file - " + r.ID + " -o json", stdin: "std.in.token", says: `"status": "approved"`, verb: "approve", token: "std.in.token"},
		{args: "approve " + r.ID + " --token-file " + token, code: 3, refuse: refused, says: "themselves", verb: "approve", token: "file.to.ken"},
		{args: "approve " + r.ID + " --token-file " + empty, code: 1, says: "empty"},
		{args: "approve " + r.ID + " --token-file /nonexistent", code: 1, says: "/nonexistent"},
		{args: "approve " + r.ID + " --token-file " + token + " --device", code: 2, says: "excludes"},
		{args: "deny " + r.ID + " --reason no", says: "denied", verb: "deny", reason: "no"},
		{args: "withdraw " + r.ID, says: "withdrew", verb: "withdraw"},
		{args: "break-glass " + r.ID, code: 2, says: "--reason"},
		{args: "break-glass " + r.ID + " --reason fire", says: "review", verb: "break-glass", reason: "fire"},
		{args: "review " + r.ID + " --reason ok", says: "review", verb: "review", reason: "ok"},
	} {
		agent := startFakeAgent(t, r, testRequest(2, inTime))
		agent.refuse(c.refuse)
		out, stderr, code := agent.weir(t, c.stdin, append([]string{"approvals"}, strings.Fields(c.args)...)...)
		said := out
		if code != 0 {
			said = stderr
		}
		if code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("weir approvals %s: exit %d, want %d; stdout %q, stderr %q", c.args, code, c.code, out, stderr)
		}
		harmless(t, c.args, out+stderr)
		tries := agent.attempts()
		switch {
		case c.verb == "" && len(tries) == 0:
		case len(tries) != 1 || tries[0].verb != c.verb || tries[0].id != r.ID || tries[0].Token != c.token || tries[0].Reason != c.reason:
			t.Errorf("weir approvals %s: attempts %+v", c.args, tries)
		}
		agent.stop()
	}
}

func TestApproveNeedsWhatTheRuleAsks(t *testing.T) {
	reason := testRequest(1, inTime, bySession, func(r *approval.Request) { r.Rules[0].RequireReason = true })
	used := testRequest(2, inTime, func(r *approval.Request) { r.Status = approval.Used })
	agent := startFakeAgent(t, reason, used)
	if _, stderr, code := agent.weir(t, "", "approvals", "approve", reason.ID); code != exitUsage || !strings.Contains(stderr, "--reason") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if _, stderr, code := agent.weir(t, "", "approvals", "approve", used.ID); code != exitFailed || !strings.Contains(stderr, "not waiting") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if tries := agent.attempts(); len(tries) != 0 {
		t.Errorf("attempts %+v", tries)
	}
}

// TestWhoMayRead: nobody in particular sees nothing, root sees, and an attempt of nobody
// still gets as far as the record.
func TestWhoMayRead(t *testing.T) {
	r := testRequest(1, inTime)
	agent := startFakeAgent(t, r)
	agent.as(approval.Viewer{}, &identity.ExpiredError{User: "bob@example.com", At: testTime()})
	for _, args := range [][]string{{"list"}, {"show", r.ID}, {"watch", "--plain"}, {"watch", "-o", "json"}} {
		out, stderr, code := agent.weir(t, "", append([]string{"approvals"}, args...)...)
		if code != exitDenied || !strings.Contains(stderr, "weir login") || strings.Contains(out, r.ID) {
			t.Errorf("%v: exit %d: %s%s", args, code, out, stderr)
		}
	}
	agent.refuse(&approval.NotAllowed{Why: "weir: nobody is signed in here"})
	if _, _, code := agent.weir(t, "", "approvals", "deny", r.ID); code != exitDenied || len(agent.attempts()) != 1 {
		t.Errorf("exit %d, attempts %+v", code, agent.attempts())
	}
	agent.as(approval.Viewer{Root: true}, identity.ErrNoIdentity)
	if out, stderr, code := agent.weir(t, "", "approvals", "list", "-o", "json"); code != exitDone || !json.Valid([]byte(out)) || !strings.Contains(out, r.ID) {
		t.Errorf("root: exit %d: %s%s", code, out, stderr)
	}
}

func TestNoServiceNoApprovals(t *testing.T) {
	a := &approvalRoutes[int]{}
	if _, err := a.list(t.Context(), 0, nil, nil); err == nil {
		t.Error("a list of nothing")
	}
	var refusal *control.Error
	if _, err := a.decide(approval.Service.Approve)(t.Context(), 0, []byte("{}"), nil); !errors.As(err, &refusal) || refusal.Status != 503 {
		t.Errorf("%v", err)
	}
}

func TestSameViewer(t *testing.T) {
	other := bob()
	other.Session = "2"
	var none *flow.Principal
	for _, c := range []struct {
		a, b approval.Viewer
		same bool
	}{
		{approval.Viewer{Who: bob()}, approval.Viewer{Who: bob()}, true},
		{approval.Viewer{Who: bob()}, approval.Viewer{Who: other}, false},
		{approval.Viewer{Who: bob()}, approval.Viewer{Who: none}, false},
		{approval.Viewer{Root: true}, approval.Viewer{Root: true, Who: bob()}, false},
		{approval.Viewer{Root: true}, approval.Viewer{Root: true}, true},
	} {
		if sameViewer(&c.a, &c.b) != c.same || sameViewer(&c.b, &c.a) != c.same {
			t.Errorf("%+v, %+v: want %v", c.a, c.b, c.same)
		}
	}
}
