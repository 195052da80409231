package console

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
)

// start is when tests begin.
var start = time.Date(2026, 11, 26, 14, 20, 0, 0, time.UTC)

// Tokens of the fake provider are "name" or "name/nonce".
var people = map[string]*flow.Principal{
	"ann": {Issuer: "https://idp.example.com", Subject: "1", User: "ann@example.com", Groups: []string{"developer"}, Kind: flow.Human},
	"bob": {Issuer: "https://idp.example.com", Subject: "2", User: "Bob@Example.com", Groups: []string{"dba"}, Kind: flow.Human},
	"eve": {Issuer: "https://other.example.com", Subject: "9", User: "bob@example.com", Groups: []string{"dba"}, Kind: flow.Human},
	"bot": {Issuer: "https://ci.example.com", Subject: "3", User: "bot", Kind: flow.CI},
}

// fakeService keeps one kind of request for everybody, and what it was asked.
type fakeService struct {
	mu       sync.Mutex
	requests map[string]*approval.Request
	tries    []try
	err      error         // of the next decision
	news     chan struct{} // a watcher yields for each
	watching chan struct{} // one for each watcher that waits
}

type try struct {
	verb, id string
	a        approval.Attempt
}

func (f *fakeService) List(_ context.Context, v approval.Viewer, all bool) ([]approval.Request, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v.Root {
		return nil, errors.New("nobody at the console is root")
	}
	var out []approval.Request
	for _, id := range slices.Sorted(maps.Keys(f.requests)) {
		if r := f.requests[id]; all || r.Status == approval.Pending || r.Review == reviewOpen {
			out = append(out, *f.view(r, v.Who))
		}
	}
	return out, nil
}

// view gives the rights that a real service would.
func (f *fakeService) view(r *approval.Request, who *flow.Principal) *approval.Request {
	x := *r
	own := asks(&r.Principal, who)
	switch {
	case own:
		x.Preview = nil
		if r.Status == approval.Pending {
			x.May = []string{"withdraw", "break-glass"}
		}
	case slices.Contains(who.Groups, "dba") && r.Status == approval.Pending:
		x.May = []string{"approve", "deny"}
	case r.Review == reviewOpen:
		x.May = []string{"review"}
	}
	return &x
}

func (f *fakeService) Show(_ context.Context, v approval.Viewer, id string) (*approval.Request, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.requests[id]
	if r == nil {
		return nil, &approval.NotFound{ID: id}
	}
	return f.view(r, v.Who), nil
}

func (f *fakeService) decide(ctx context.Context, verb, id string, a approval.Attempt, status approval.Status) (*approval.Request, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries = append(f.tries, try{verb, id, a})
	if ctx.Done() != nil {
		return nil, errors.New("a decision may end half-way")
	}
	r := f.requests[id]
	switch {
	case f.err != nil:
		return nil, f.err
	case r == nil:
		return nil, &approval.NotFound{ID: id}
	}
	x := *r
	if x.Status = status; status == "" {
		x.Status, x.Review = r.Status, "done"
	}
	return &x, nil
}

func (f *fakeService) Approve(ctx context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide(ctx, "approve", id, a, approval.Approved)
}

func (f *fakeService) Deny(ctx context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide(ctx, "deny", id, a, approval.Denied)
}

func (f *fakeService) Withdraw(ctx context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide(ctx, "withdraw", id, a, approval.Withdrawn)
}

func (f *fakeService) BreakGlass(ctx context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide(ctx, "break-glass", id, a, approval.Approved)
}

func (f *fakeService) Review(ctx context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return f.decide(ctx, "review", id, a, "")
}

func (f *fakeService) Watch(context.Context, approval.Viewer) approval.Watcher {
	return &fakeWatcher{f}
}

type fakeWatcher struct{ f *fakeService }

func (w *fakeWatcher) Next(ctx context.Context) (*approval.Request, error) {
	select {
	case w.f.watching <- struct{}{}:
	default:
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-w.f.news:
		return w.f.requests["req1"], nil
	}
}

func (w *fakeWatcher) Close() {}

// last is the only attempt so far; it is forgotten.
func (f *fakeService) last(t *testing.T) try {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tries) != 1 {
		t.Fatalf("%d attempts", len(f.tries))
	}
	x := f.tries[0]
	f.tries = nil
	return x
}

func (f *fakeService) none(t *testing.T, what string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tries) != 0 {
		t.Errorf("%s: %+v was tried", what, f.tries)
		f.tries = nil
	}
}

// fakeSignIn is a provider where the code is who signs in.
type fakeSignIn struct {
	mu   sync.Mutex
	n    int
	asks []SignInRequest
	err  error
}

func (f *fakeSignIn) Begin(_ context.Context, req SignInRequest) (string, Pending, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return "", Pending{}, f.err
	}
	f.n++
	f.asks = append(f.asks, req)
	p := Pending{State: strings.Repeat("s", f.n), Verifier: "v", Nonce: req.Nonce}
	return "https://idp.example.com/auth?" + url.Values{"state": {p.State}}.Encode(), p, nil
}

func (f *fakeSignIn) Answer(_ context.Context, p Pending, q url.Values) (string, error) {
	switch {
	case q.Get("state") != p.State || p.Verifier != "v":
		return "", errors.New("cannot sign in: another state")
	case q.Get("error") != "":
		return "", errors.New("cannot sign in: the identity provider refused: " + q.Get("error"))
	}
	return q.Get("code") + "/" + p.Nonce, nil
}

// world is a console on a loopback port, with a fake service and a fake provider.
type world struct {
	t       *testing.T
	console *Console
	server  *httptest.Server
	service *fakeService
	signIn  *fakeSignIn
	handler http.Handler
	mu      sync.Mutex
	now     time.Time
}

func (w *world) pass(d time.Duration) { w.mu.Lock(); w.now = w.now.Add(d); w.mu.Unlock() }

func (w *world) clock() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }

func (w *world) verify(_ context.Context, token string) (*flow.Principal, error) {
	name, _, _ := strings.Cut(token, "/")
	if name == "away" {
		return nil, Unavailable{errors.New("the provider does not answer")}
	}
	p := people[name]
	if p == nil {
		return nil, errors.New("token refused: it is nobody's")
	}
	who := *p
	who.Expires = w.clock().Add(time.Hour)
	return &who, nil
}

// newWorld starts one; its address is also that of the site, unless site is given.
func newWorld(t *testing.T, site string, requests ...*approval.Request) *world {
	t.Helper()
	w := &world{t: t, now: start, signIn: &fakeSignIn{}, service: &fakeService{requests: map[string]*approval.Request{}, news: make(chan struct{}), watching: make(chan struct{}, 1)}}
	for _, r := range requests {
		w.service.requests[r.ID] = r
	}
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.handler.ServeHTTP(rw, r) }))
	t.Cleanup(w.server.Close)
	if site == "" {
		site = w.server.URL
	}
	c, err := New(Config{URL: site, Issuers: []Issuer{{"idp.example.com", w.signIn}}, Verify: w.verify, Now: w.clock,
		Approvals: func() approval.Service {
			if w.service == nil {
				return nil
			}
			return w.service
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	w.console, w.handler = c, c.Handler()
	return w
}

// browser keeps cookies and does not follow redirects to other sites.
type browser struct {
	w      *world
	client *http.Client
	jar    http.CookieJar
}

func (w *world) browser() *browser {
	jar, _ := cookiejar.New(nil) // its error is always nil
	return &browser{w, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, jar}
}

// answer is an answer that was read.
type answer struct {
	*http.Response
	body string
}

func (b *browser) send(r *http.Request) answer {
	b.w.t.Helper()
	resp, err := b.client.Do(r)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return answer{resp, string(body)}
}

func (b *browser) get(path string) answer {
	b.w.t.Helper()
	return b.send(b.request(http.MethodGet, path, ""))
}

func (b *browser) request(method, path, body string) *http.Request {
	b.w.t.Helper()
	r, err := http.NewRequestWithContext(b.w.t.Context(), method, b.w.server.URL+path, strings.NewReader(body))
	if err != nil {
		b.w.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

func (b *browser) post(path string, form url.Values) answer {
	b.w.t.Helper()
	return b.send(b.request(http.MethodPost, path, form.Encode()))
}

var formField = regexp.MustCompile(`name="form" value="([^"]+)"`)

// form is the token of the last form of a page; the first is to sign out.
func (b *browser) form(path string) string {
	b.w.t.Helper()
	all := formField.FindAllStringSubmatch(b.get(path).body, -1)
	if len(all) == 0 {
		b.w.t.Fatalf("%s has no form", path)
	}
	return all[len(all)-1][1]
}

// begin starts a sign-in and returns its state.
func (b *browser) begin() string {
	b.w.t.Helper()
	return b.led(b.post("/signin", url.Values{"form": {b.form("/signin")}, "issuer": {"0"}, "next": {"/approvals"}}))
}

// led follows a beginning to the provider and returns the state.
func (b *browser) led(a answer) string {
	b.w.t.Helper()
	if a.StatusCode != http.StatusSeeOther || !strings.HasPrefix(a.Header.Get("Location"), "/signin/continue?state=") {
		b.w.t.Fatalf("got %d to %q: %s", a.StatusCode, a.Header.Get("Location"), a.body)
	}
	a = b.get(a.Header.Get("Location"))
	_, to, _ := strings.Cut(a.Header.Get("Refresh"), "url=")
	u, err := url.Parse(to)
	if err != nil || u.Host != "idp.example.com" || a.StatusCode != http.StatusOK || !strings.Contains(a.body, `href="https://idp.example.com/auth?state=`) {
		b.w.t.Fatalf("led to %q: %s", to, a.body)
	}
	return u.Query().Get("state")
}

func callback(state, code string) string {
	return "/callback?" + url.Values{"state": {state}, "code": {code}}.Encode()
}

// signedIn signs somebody in.
func (w *world) signedIn(who string) *browser {
	w.t.Helper()
	b := w.browser()
	a := b.get(callback(b.begin(), who))
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/approvals" {
		w.t.Fatalf("signing %s in gave %d to %q: %s", who, a.StatusCode, a.Header.Get("Location"), a.body)
	}
	return b
}

// decide presses a button and returns the page of the result.
func (b *browser) decide(verb, id, reason string) answer {
	b.w.t.Helper()
	return b.result(b.post("/approvals/"+id+"/"+verb, url.Values{"form": {b.form("/approvals/" + id)}, "reason": {reason}}))
}

func (b *browser) result(a answer) answer {
	b.w.t.Helper()
	if a.StatusCode != http.StatusSeeOther || !strings.HasPrefix(a.Header.Get("Location"), "/results/") {
		b.w.t.Fatalf("got %d to %q: %s", a.StatusCode, a.Header.Get("Location"), a.body)
	}
	return b.get(a.Header.Get("Location"))
}

// wants fails unless a page says all of it.
func (a answer) wants(t *testing.T, code int, texts ...string) {
	t.Helper()
	if a.StatusCode != code {
		t.Errorf("status %d, not %d", a.StatusCode, code)
	}
	for _, s := range texts {
		if !strings.Contains(a.body, s) {
			t.Errorf("lacks %q:\n%s", s, a.body)
		}
	}
}

func deletion(id, proof string) *approval.Request {
	rows := int64(1204331)
	rule := approval.Rule{Policy: "orders", Rule: "destructive needs a second person", Needed: []approval.Needed{{Groups: []string{"dba"}, Count: 1}}, Proof: proof, Grant: "once", Prompt: "login", MaxAge: 300}
	return &approval.Request{ID: id, Status: approval.Pending, Digest: "sha256:" + strings.Repeat("0123456789abcdef", 4), Nonce: "nonce-of-" + id,
		Requester: "ann@example.com",
		Principal: approval.Person{Issuer: "https://idp.example.com", Subject: "1", User: "ann@example.com", Kind: "human", Groups: []string{"developer", "on-call"}},
		Node:      "node-a", Flow: "01JDN5C9Q2H0S5T2Y7V8W9X0Z1", Backend: "orders", Protocol: "postgres", Database: "shop", Login: "weir_app",
		State:  []approval.Setting{{Name: "role", Value: "app"}, {Name: "search_path", Value: `"$user", public`}},
		Action: approval.Action{Verbs: []string{"delete"}, Resources: []string{"shop.orders"}, Text: "DELETE FROM shop.orders", Digest: "sha256:ab", Bytes: 23, Unrestricted: true},
		Rule:   rule.Rule, Rules: []approval.Rule{rule}, Needed: rule.Needed, Grant: "once", Created: start.Add(-time.Minute), Expires: start.Add(9*time.Minute + 12*time.Second),
		Decisions: []approval.Decision{},
		Preview:   []approval.Preview{{Plan: "Delete on orders  (cost=0.00..30106.31 rows=0 width=0)\n  ->  Seq Scan on orders  (cost=0.00..30106.31 rows=1204331 width=6)", Rows: &rows}},
		Prompt:    "login", MaxAge: 300}
}
