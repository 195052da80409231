package console

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

func TestSignInAndOut(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	b := w.browser()
	if a := b.get("/approvals/req1"); a.StatusCode != 303 || a.Header.Get("Location") != "/signin?next=%2Fapprovals%2Freq1" {
		t.Fatalf("without a session: %d to %q", a.StatusCode, a.Header.Get("Location"))
	}
	state := b.led(b.post("/signin", url.Values{"form": {b.form("/signin")}, "issuer": {"0"}, "next": {"/approvals/req1"}}))
	a := b.get(callback(state, "bob"))
	if a.StatusCode != 303 || a.Header.Get("Location") != "/approvals/req1" {
		t.Fatalf("got %d to %q", a.StatusCode, a.Header.Get("Location"))
	}
	k := a.Cookies()[0]
	if k.Name != "weir_session" || !k.HttpOnly || k.SameSite != http.SameSiteLaxMode || k.Path != "/" || k.MaxAge != 0 || len(k.Value) < 50 {
		t.Errorf("cookie %+v", k)
	}
	who, ok := w.console.Principal("BOB@example.com")
	if !ok || who.User != "Bob@Example.com" || who.Session == "" || strings.Contains(who.Session, k.Value) || people["bob"].Session != "" {
		t.Errorf("signed in is %+v", who)
	}
	if _, ok := w.console.Principal(""); ok {
		t.Error("nobody is somebody")
	}
	if a := b.get(callback(state, "bob")); a.StatusCode != 400 {
		t.Errorf("an answer counts twice: %d", a.StatusCode)
	}
	form := b.form("/approvals")
	b.post("/signout", url.Values{"form": {"x"}}).wants(t, 403)
	if a := b.post("/signout", url.Values{"form": {form}}); a.StatusCode != 303 || a.Header.Get("Location") != "/signin?left" {
		t.Errorf("got %d to %q", a.StatusCode, a.Header.Get("Location"))
	}
	if _, ok := w.console.Principal("bob@example.com"); ok {
		t.Error("signed out and still there")
	}
	b.get("/signin?left").wants(t, 200, "signed out here")
}

func TestSecureCookies(t *testing.T) {
	w := newWorld(t, "https://weir.example.com")
	r := w.browser().request(http.MethodGet, "/signin", "")
	r.Host = "weir.example.com"
	a := w.browser().send(r)
	if k := a.Cookies()[0]; k.Name != "__Host-weir_browser" || !k.Secure || !k.HttpOnly || k.Path != "/" || k.Domain != "" {
		t.Errorf("cookie %+v", k)
	}
}

func TestAnswersOfOthers(t *testing.T) {
	w := newWorld(t, "")
	ann, bob := w.browser(), w.browser()
	state := bob.begin()
	ann.begin() // has the cookie of a browser of its own
	w.browser().get(callback(state, "ann")).wants(t, 400, "This sign-in is over", "begun in another browser")
	ann.get(callback(state, "ann")).wants(t, 400, "This sign-in is over")
	ann.get("/signin/continue?state="+state).wants(t, 400)
	bob.get(callback("other", "ann")).wants(t, 400)
	bob.get("/callback").wants(t, 400)
	if a := bob.get(callback(state, "bob")); a.StatusCode != 303 { // those attempts have not spoiled it
		t.Errorf("got %d", a.StatusCode)
	}
	state = bob.begin()
	w.pass(pendingFor)
	bob.get(callback(state, "bob")).wants(t, 400)
}

func TestRefusedSignIns(t *testing.T) {
	w := newWorld(t, "")
	b := w.browser()
	b.get("/callback?error=access_denied&state="+b.begin()).wants(t, 403, "You are not signed in", "access_denied")
	b.get(callback(b.begin(), "mallory")).wants(t, 403, "Token refused: it is nobody&#39;s.")
	b.get(callback(b.begin(), "bot")).wants(t, 403, "not a person")
	if a := b.get("/approvals"); a.StatusCode != 303 {
		t.Errorf("there is a session: %d", a.StatusCode)
	}
	w.signIn.err = errors.New("cannot sign in: identity provider unavailable")
	b.post("/signin", url.Values{"form": {b.form("/signin")}, "issuer": {"0"}}).wants(t, 502, "The sign-in cannot begin", "unavailable")
	w.signIn.err = nil
	for _, n := range []string{"", "-1", "1", "x"} {
		b.post("/signin", url.Values{"form": {b.form("/signin")}, "issuer": {n}}).wants(t, 400)
	}
	b.post("/signin", url.Values{"form": {"x"}, "issuer": {"0"}}).wants(t, 403)
	w.browser().post("/signin", url.Values{"form": {b.form("/signin")}, "issuer": {"0"}}).wants(t, 403)
}

func TestNoOpenRedirect(t *testing.T) {
	w := newWorld(t, "")
	for _, next := range []string{"https://evil.example.com/", "//evil.example.com", "/\\evil.example.com", "/approvals/../../x", "/approvals/x/approve", "/approvals/x\nSet-Cookie: a=b",
		"/signout", "javascript:alert(1)", "/approvals//evil.example.com"} {
		b := w.browser()
		if a := b.get("/signin?" + url.Values{"next": {next}}.Encode()); !strings.Contains(a.body, `name="next" value="/approvals"`) {
			t.Errorf("the page takes %q", next)
		}
		state := b.led(b.post("/signin", url.Values{"form": {b.form("/signin")}, "issuer": {"0"}, "next": {next}}))
		if a := b.get(callback(state, "bob")); a.Header.Get("Location") != "/approvals" {
			t.Errorf("%q leads to %q", next, a.Header.Get("Location"))
		}
		w.pass(time.Minute) // for the limit of sign-ins
	}
}

func TestSessionsEnd(t *testing.T) {
	w := newWorld(t, "")
	valid := func(b *browser, path string) bool { return b.get(path).StatusCode == 200 }
	idle := w.signedIn("bob")
	w.pass(idleLimit - time.Second)
	if !valid(idle, "/approvals") {
		t.Error("it ends too early")
	}
	w.pass(idleLimit - time.Second)
	if !valid(idle, "/approvals?auto=1") {
		t.Error("use does not keep it alive")
	}
	w.pass(2 * time.Second)
	if valid(idle, "/approvals") {
		t.Error("a page that renews itself keeps a session alive")
	}
	if _, ok := w.console.Principal("bob@example.com"); ok {
		t.Error("an ended session counts")
	}
	busy := w.signedIn("bob")
	for range 3 {
		w.pass(20*time.Minute - time.Second)
		valid(busy, "/approvals")
	}
	if !valid(busy, "/approvals") {
		t.Error("it ends before the token does")
	}
	w.pass(3 * time.Second)
	if valid(busy, "/approvals") {
		t.Error("it outlives the token, which is good for an hour")
	}
}

func TestNewSignInReplacesSession(t *testing.T) {
	w := newWorld(t, "")
	b := w.signedIn("bob")
	u, _ := url.Parse(w.server.URL)
	old := b.jar.Cookies(u)
	if a := b.get(callback(b.begin(), "ann")); a.StatusCode != 303 {
		t.Fatal(a.StatusCode)
	}
	if _, ok := w.console.Principal("bob@example.com"); ok {
		t.Error("the old session goes on")
	}
	other := w.browser()
	other.jar.SetCookies(u, old)
	if a := other.get("/approvals"); a.StatusCode != 303 {
		t.Errorf("the old cookie gives %d", a.StatusCode)
	}
}

// TestPrincipalIsOnePerson: two identities with one address are nobody.
func TestPrincipalIsOnePerson(t *testing.T) {
	w := newWorld(t, "")
	w.signedIn("bob")
	w.signedIn("bob")
	if who, ok := w.console.Principal("bob@example.com"); !ok || who.Subject != "2" {
		t.Errorf("%+v", who)
	}
	w.signedIn("eve")
	if who, ok := w.console.Principal("bob@example.com"); ok {
		t.Errorf("it is %+v", who)
	}
}

func TestBounds(t *testing.T) {
	s := newSessions()
	form := func(string) string { return "" }
	var first string
	for i := range maxPerPerson + 1 {
		secret := s.add(people["bob"], 0, start.Add(time.Duration(i)), form)
		if i == 0 {
			first = secret
		}
	}
	if len(s.all) != maxPerPerson || s.get(first, start, true) != nil {
		t.Errorf("%d sessions of one person", len(s.all))
	}
	for i := range maxSessions {
		s.add(&flow.Principal{Subject: string(rune('a' + i))}, 0, start.Add(time.Second), form)
	}
	if len(s.all) != maxSessions {
		t.Errorf("%d sessions", len(s.all))
	}
	p := newPendings()
	taken := 0
	for i := range maxPendings + 1 {
		if p.add(&started{pending: Pending{State: string(rune(1000 + i))}, ends: start.Add(time.Minute)}, start) {
			taken++
		}
	}
	if taken != maxPendings {
		t.Errorf("%d sign-ins under way", taken)
	}
	if !p.add(&started{pending: Pending{State: "x"}, ends: start.Add(time.Hour)}, start.Add(2*time.Minute)) || len(p.all) != 1 {
		t.Errorf("%d are left when all have ended", len(p.all))
	}
	l := newLimiter()
	from := func(addr string) bool { return l.allow(&http.Request{RemoteAddr: addr}, start) }
	n := 0
	for from("[2001:db8::1]:5") || from("[2001:db8::ffff:1]:7") {
		n++
	}
	if n != startsAtOnce || !from("[2001:db8:0:1::1]:5") || !from("192.0.2.1:5") {
		t.Errorf("%d sign-ins at once", n)
	}
	for i := range maxAddresses {
		l.allow(&http.Request{RemoteAddr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1).String()}, start)
	}
	if len(l.all) != maxAddresses || from("192.0.2.9:1") {
		t.Errorf("%d addresses are known", len(l.all))
	}
	if !l.allow(&http.Request{RemoteAddr: "192.0.2.9:1"}, start.Add(time.Hour)) || len(l.all) != 1 {
		t.Errorf("%d addresses are known after an hour", len(l.all))
	}
}

func TestTooManySignIns(t *testing.T) {
	w := newWorld(t, "")
	b := w.browser()
	form := b.form("/signin")
	for range startsAtOnce {
		if a := b.post("/signin", url.Values{"form": {form}, "issuer": {"0"}}); a.StatusCode != 303 {
			t.Fatal(a.StatusCode)
		}
	}
	a := b.post("/signin", url.Values{"form": {form}, "issuer": {"0"}})
	a.wants(t, http.StatusTooManyRequests, "Too many sign-ins")
	if a.Header.Get("Retry-After") == "" {
		t.Error("when to try again is not said")
	}
}
