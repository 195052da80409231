package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

func TestApproveByProvider(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.signedIn("bob")
	w.signIn.asks = nil
	state := b.led(b.post("/approvals/req1/approve", url.Values{"form": {b.form("/approvals/req1")}, "reason": {"checked\r\nwith ann "}}))
	w.service.none(t, "before the sign-in")
	if want := (SignInRequest{Nonce: "nonce-of-req1", Prompt: "login", MaxAge: 5 * time.Minute}); len(w.signIn.asks) != 1 || w.signIn.asks[0] != want {
		t.Errorf("asked the provider for %+v", w.signIn.asks)
	}
	b.result(b.get(callback(state, "bob"))).wants(t, 200, "Approved", "It may run now, once.", "DELETE shop.orders", "Bob@Example.com", "signed in at the identity provider for this request")
	got := w.service.last(t)
	if got.verb != "approve" || got.id != "req1" || got.a.Token != "bob/nonce-of-req1" || got.a.Reason != "checked\nwith ann" || got.a.Viewer.Root || got.a.Viewer.Who == nil ||
		got.a.Viewer.Who.User != "Bob@Example.com" || got.a.Via != "" {
		t.Errorf("tried %+v", got)
	}
	if a := b.get(callback(state, "bob")); a.StatusCode != 400 {
		t.Errorf("the same answer again gives %d", a.StatusCode)
	}
	w.service.none(t, "a replay")
}

func TestApproveAsSomebodyElse(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.signedIn("bob")
	state := b.led(b.post("/approvals/req1/approve", url.Values{"form": {b.form("/approvals/req1")}}))
	w.service.err = &approval.NotAllowed{Why: "weir: nobody decides on what they ask for themselves; another person has to"}
	b.result(b.get(callback(state, "ann"))).wants(t, 200, "Not approved", "Nobody decides on what they ask for themselves; another person has to.",
		"ann@example.com", "Here you are signed in as", "Bob@Example.com", "changed nothing")
	if got := w.service.last(t); got.a.Token != "ann/nonce-of-req1" {
		t.Errorf("tried %+v", got)
	}
}

func TestApproveGivenUp(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.signedIn("bob")
	approve := func() answer {
		return b.post("/approvals/req1/approve", url.Values{"form": {b.form("/approvals/req1")}})
	}
	state := b.led(approve())
	b.result(b.get("/callback?error=login_required&state="+state)).wants(t, 200, "Not approved", "login_required", "Nothing was decided")
	w.signIn.err = errors.New("cannot sign in: identity provider unavailable")
	approve().wants(t, 502, "unavailable", "Nothing was decided")
	w.signIn.err = nil
	state = b.led(approve())
	w.browser().get(callback(state, "bob")).wants(t, 400)
	w.service.none(t, "what was given up")
	w.service.requests["req1"].Rules[0].RequireReason = true
	b.result(approve()).wants(t, 200, "Not approved yet", "The rule wants a reason")
	w.service.none(t, "without a reason")
}

// TestSessionEndsBetween: the sign-in at the provider still counts, and its result is shown.
func TestSessionEndsBetween(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.signedIn("bob")
	state := b.led(b.post("/approvals/req1/approve", url.Values{"form": {b.form("/approvals/req1")}}))
	b.post("/signout", url.Values{"form": {b.form("/approvals")}})
	b.get(callback(state, "bob")).wants(t, 200, "Approved", "DELETE shop.orders", "Bob@Example.com")
	if got := w.service.last(t); got.a.Token != "bob/nonce-of-req1" || got.a.Viewer.Who != nil {
		t.Errorf("tried %+v", got)
	}
	if a := b.get("/approvals"); a.StatusCode != 303 {
		t.Error("an approval has signed somebody in")
	}
}

func TestDecideBySession(t *testing.T) {
	r := deletion("req1", "session")
	w := newWorld(t, "", r)
	bob, ann := w.signedIn("bob"), w.signedIn("ann")
	for _, c := range []struct {
		b            *browser
		verb, reason string
		wants        []string
	}{
		{bob, "approve", "fine", []string{"Approved", "was signed in at weir"}},
		{bob, "deny", "no", []string{"Denied", "It does not run."}},
		{ann, "withdraw", "", []string{"Withdrawn", "ann@example.com"}},
		{ann, "break-glass", "it burns", []string{"You may go through", "review"}},
	} {
		c.b.decide(c.verb, "req1", c.reason).wants(t, 200, c.wants...)
		who := "Bob@Example.com"
		if c.b == ann {
			who = "ann@example.com"
		}
		if got := w.service.last(t); got.verb != c.verb || got.a.Token != "" || got.a.Reason != c.reason || got.a.Viewer.Who.User != who {
			t.Errorf("%s: tried %+v", c.verb, got)
		}
	}
	r.Status, r.Review, r.Broke = approval.Used, "open", &approval.Broke{By: "ann@example.com", Reason: "it burns"}
	bob.get("/approvals").wants(t, 200, "For you to review", "to be reviewed")
	bob.decide("review", "req1", "").wants(t, 200, "Reviewed")
	if got := w.service.last(t); got.verb != "review" {
		t.Errorf("tried %+v", got)
	}
}

// TestRefusalsByTheService: also what no button offers reaches the service, whose refusal
// is on record.
func TestRefusalsByTheService(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	ann := w.signedIn("ann")
	for _, c := range []struct {
		err  error
		want []string
	}{
		{&approval.NotAllowed{Why: "weir: nobody decides for themselves"}, []string{"Not approved", "Nobody decides for themselves.", "on record"}},
		{&approval.Conflict{Why: "weir: it has ended"}, []string{"Not approved", "It has ended.", "Look at the request"}},
		{&approval.NotFound{ID: "x"}, []string{"There is no such request"}},
		{errors.New("disk secret"), []string{"whoever runs weir", "try again"}},
	} {
		w.service.err = c.err
		a := ann.decide("approve", "req1", "")
		a.wants(t, 200, c.want...)
		if strings.Contains(a.body, "disk secret") {
			t.Error("an error from inside is shown")
		}
		if got := w.service.last(t); got.a.Token != "" || got.a.Viewer.Who.User != "ann@example.com" {
			t.Errorf("tried %+v", got)
		}
	}
	w.service.err = nil
	r := w.service.requests["req1"]
	r.Needed[0].Count, r.Rules[0].Proof = 2, "session"
	if title, text := doneWords("approve", r); title != "Your approval counts" || !strings.Contains(text, "2 of dba") {
		t.Errorf("%s: %s", title, text)
	}
}

// TestForgedForms: neither another site nor an old form decides.
func TestForgedForms(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "session"))
	b, other := w.signedIn("bob"), w.signedIn("ann")
	path, form := "/approvals/req1/approve", b.form("/approvals/req1")
	good := url.Values{"form": {form}}.Encode()
	send := func(body string, header ...string) answer {
		r := b.request(http.MethodPost, path, body)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return b.send(r)
	}
	for name, a := range map[string]answer{
		"no token":              send("reason=x"),
		"a wrong token":         send("form=x"),
		"the token of another":  send(url.Values{"form": {other.form("/approvals")}}.Encode()),
		"another origin":        send(good, "Origin", "https://evil.example.com"),
		"the origin null":       send(good, "Origin", "null"),
		"cross-site":            send(good, "Sec-Fetch-Site", "cross-site"),
		"same-site":             send(good, "Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:1"),
		"the token in the URL":  func() answer { return b.send(b.request(http.MethodPost, path+"?"+good, "reason=x")) }(),
		"another host's origin": send(good, "Origin", "http://127.0.0.1:1"),
	} {
		if a.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d", name, a.StatusCode)
		}
		w.service.none(t, name)
	}
	send(good, "Content-Type", "text/plain").wants(t, http.StatusUnsupportedMediaType)
	send(good+"&reason="+strings.Repeat("a", maxForm)).wants(t, http.StatusRequestEntityTooLarge)
	send(good+"&reason="+strings.Repeat("a", maxReason+1)).wants(t, http.StatusRequestEntityTooLarge)
	b.send(b.request(http.MethodGet, path+"?"+good, "")).wants(t, http.StatusNotFound)
	w.service.none(t, "what is no form")
	if a := w.browser().post(path, url.Values{"form": {form}}); a.StatusCode != 303 || a.Header.Get("Location") != "/signin?next=%2Fapprovals%2Freq1" {
		t.Errorf("without a session: %d to %q", a.StatusCode, a.Header.Get("Location"))
	}
	w.service.none(t, "without a session")
	b.result(send(good, "Sec-Fetch-Site", "same-origin", "Origin", "null")).wants(t, 200, "Approved") // as Chromium sends it, with no-referrer
}

func TestResultsAreOnesOwn(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "session"))
	b := w.signedIn("bob")
	a := b.post("/approvals/req1/approve", url.Values{"form": {b.form("/approvals/req1")}})
	w.signedIn("ann").get(a.Header.Get("Location")).wants(t, 404)
	for range maxResults {
		b.decide("approve", "req1", "")
	}
	b.get(a.Header.Get("Location")).wants(t, 404)
}
