package console

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

func mustDuration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestApproverSeesAll(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.signedIn("bob")
	b.get("/approvals").wants(t, 200, "(1) Approvals", "1 waits for your decision", "For you to decide", `href="/approvals/req1"`, "DELETE", "shop.orders",
		"no WHERE: every row", "would change 1\u202f204\u202f331 rows", "in 9 min 12 s", "needs 1 of dba", "ann@example.com", "Bob@Example.com")
	b.get("/approvals/req1").wants(t, 200, "Waiting for approval", "ann@example.com", "developer, on-call", "(human)", "orders", "shop", "weir_app", "node-a",
		"search_path", "&#34;$user&#34;, public", "DELETE FROM shop.orders", "Seq Scan on orders", "1\u202f204\u202f331 rows", "no WHERE", "destructive needs a second person",
		"26 Nov 14:29:12 UTC", "in 9 min 12 s", "nobody has decided", "Still needed: 1 of dba", "Sign in and approve", "Deny", "01234567", "may run once", "credentials entered within 5 min")
}

func TestRequesterSees(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.signedIn("ann")
	b.get("/approvals").wants(t, 200, "Nothing waits for your decision", "Your own")
	a := b.get("/approvals/req1")
	a.wants(t, 200, "What you can do", "You asked for this, so other people have to decide.", "Withdraw this request", "Break the glass")
	for _, s := range []string{"Sign in and approve", "204", "still being found out"} {
		if strings.Contains(a.body, s) {
			t.Errorf("the requester sees %q", s)
		}
	}
}

func TestPreviewOnItsWay(t *testing.T) {
	r := deletion("req1", "session")
	r.Preview, r.Created = nil, start.Add(-time.Second)
	w := newWorld(t, "", r)
	b := w.signedIn("bob")
	b.get("/approvals/req1").wants(t, 200, "still being found out")
	w.pass(time.Minute)
	b.get("/approvals/req1").wants(t, 200, "could not be found out")
	r.Protocol = "ssh" // which has nothing to show
	if a := b.get("/approvals/req1"); strings.Contains(a.body, "found out") {
		t.Error("a preview is spoken of that there cannot be")
	}
}

// TestHostileText: text of others is neither markup nor invisible, wherever it stands.
func TestHostileText(t *testing.T) {
	const evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{.}}\u202e\u200b"
	r := deletion("req1", "idp")
	r.Requester, r.Node, r.Flow, r.Backend, r.Database, r.Login, r.Rule, r.Ended = evil, evil, evil, evil, evil, evil, evil, evil
	r.Principal.Groups, r.Principal.Kind, r.Principal.User = []string{evil}, evil, evil
	r.Principal.Actor = &approval.Person{Issuer: evil, Subject: evil, User: evil}
	r.State = []approval.Setting{{Name: evil, Value: evil}}
	r.Action.Verbs, r.Action.Resources, r.Action.Functions, r.Action.Text, r.Action.Params = []string{evil}, []string{evil}, []string{evil}, evil, []string{evil}
	r.Action.Digest = evil
	r.Rules[0].Policy, r.Rules[0].Rule, r.Rules[0].Needed = evil, evil, []approval.Needed{{Groups: []string{evil}, Count: 1}}
	r.Decisions = []approval.Decision{{User: evil, Reason: evil, Proof: evil, Decided: "approved", At: start}}
	r.Preview = []approval.Preview{{Plan: evil, Note: evil}}
	r.Broke = &approval.Broke{By: evil, Reason: evil}
	w := newWorld(t, "", r)
	b := w.signedIn("bob")
	w.service.err = &approval.NotAllowed{Why: evil}
	for _, a := range []answer{b.get("/approvals"), b.get("/approvals/req1"), b.decide("deny", "req1", "no")} {
		a.wants(t, 200, "&lt;script&gt;")
		for _, s := range []string{"<script", "<img src=x", "\u202e", "\u200b", "onerror=alert(2)>{"} {
			if strings.Contains(a.body, s) {
				t.Errorf("%s holds %q", a.Request.URL, s)
			}
		}
	}
	b.get("/approvals/req1").wants(t, 200, "U&#43;202E", "misleading characters")
}

func TestListRefreshes(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.signedIn("bob")
	if h := b.get("/approvals").Header.Get("Refresh"); h != "15; url=/approvals?auto=1" {
		t.Errorf("Refresh: %q", h)
	}
	for _, path := range []string{"/approvals?paused", "/approvals?all=1", "/approvals/req1"} {
		if h := b.get(path).Header.Get("Refresh"); h != "" {
			t.Errorf("%s renews itself: %s", path, h)
		}
	}
	ended := deletion("req0", "idp")
	ended.Status = approval.Denied
	w.service.requests["req0"] = ended
	b.get("/approvals?all=1").wants(t, 200, "Ended", "req0", "req1")
	if a := b.get("/approvals"); strings.Contains(a.body, "req0") {
		t.Error("an ended one is shown")
	}
}

func TestNotThere(t *testing.T) {
	w := newWorld(t, "")
	b := w.signedIn("bob")
	b.get("/approvals/other").wants(t, 404, "There is no such request")
	b.get("/nowhere").wants(t, 404, "There is no such page")
	b.get("/results/other").wants(t, 404, "This result is gone")
	if a := b.get("/"); a.StatusCode != 303 || a.Header.Get("Location") != "/approvals" {
		t.Errorf("/ gives %d to %q", a.StatusCode, a.Header.Get("Location"))
	}
	w.service = nil
	b.get("/approvals").wants(t, 503, "weir status")
}

func TestHeaders(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.signedIn("bob")
	for _, path := range []string{"/approvals", "/approvals/req1", "/signin", "/callback", "/nowhere", "/api/v1/approvals", "/api/nowhere", "/static/icon.svg"} {
		h := b.get(path).Header
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q", path, name, h.Get(name))
			}
		}
		for _, want := range []string{"default-src 'none'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
			if !strings.Contains(h.Get("Content-Security-Policy"), want) {
				t.Errorf("%s: the policy lacks %s", path, want)
			}
		}
		if !strings.HasPrefix(path, "/static/") && h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be stored: %q", path, h.Get("Cache-Control"))
		}
	}
	style := b.get(w.console.pages.stylePath)
	style.wants(t, 200, "prefers-color-scheme: dark")
	if style.Header.Get("Content-Type") != "text/css; charset=utf-8" {
		t.Error(style.Header.Get("Content-Type"))
	}
}

// TestOtherNames: a name of others that leads here gets nothing.
func TestOtherNames(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.signedIn("bob")
	r := b.request(http.MethodGet, "/approvals", "")
	r.Host = "rebind.example.net"
	a := b.send(r)
	a.wants(t, http.StatusMisdirectedRequest, w.server.URL)
	if strings.Contains(a.body, "shop.orders") {
		t.Error("another name is served")
	}
}

func TestClose(t *testing.T) {
	w := newWorld(t, "")
	w.console.Close()
	if a := w.browser().get("/signin"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after Close %d", a.StatusCode)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, u := range []string{"", "weir.example.com", "ftp://weir.example.com", "https://weir.example.com/x", "https://a:b@weir.example.com", "https://weir.example.com?q"} {
		if _, err := New(Config{URL: u, Verify: (&world{}).verify, Approvals: func() approval.Service { return nil }}); err == nil {
			t.Errorf("%q is taken", u)
		}
	}
	if _, err := New(Config{URL: "https://weir.example.com"}); err == nil {
		t.Error("without Verify it is taken")
	}
}
