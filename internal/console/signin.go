package console

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// SignIn signs people in at one identity provider: authorization code flow with PKCE
// (OpenID Connect Core, 3.1; RFC 7636). Errors are for people.
type SignIn interface {
	// Begin returns the address to send the browser to.
	Begin(ctx context.Context, req SignInRequest) (address string, pending Pending, err error)
	// Answer takes what the browser came back with, checks that it is the answer to
	// pending, and returns the ID token.
	Answer(ctx context.Context, pending Pending, q url.Values) (idToken string, err error)
}

// SignInRequest is what one sign-in asks for (OpenID Connect Core, 3.1.2.1).
type SignInRequest struct {
	Nonce  string // "": a random one
	Prompt string
	MaxAge time.Duration
}

// Pending is a sign-in under way. It stays on the server and is used once.
type Pending struct {
	State    string
	Verifier string
	Nonce    string
	MaxAge   time.Duration
}

// Bounds of sign-ins under way.
const (
	pendingFor  = 15 * time.Minute // a provider may ask for a password, a second factor, consent
	maxPendings = 2048
)

// started is a sign-in that somebody has begun, and what it is for.
type started struct {
	browser string // hash of the cookie of the browser that began
	issuer  int
	pending Pending
	address string
	ends    time.Time
	next    string     // page to go to
	approve *approving // nil: only a sign-in
}

// approving is a decision that a sign-in is the signature of.
type approving struct {
	id, reason string
	session    string // key of the session that began it
}

// pendings are kept by the hash of their state.
type pendings struct {
	mu  sync.Mutex
	all map[string]*started
}

func newPendings() *pendings { return &pendings{all: map[string]*started{}} }

func (p *pendings) add(s *started, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) >= maxPendings {
		for key, old := range p.all {
			if !now.Before(old.ends) {
				delete(p.all, key)
			}
		}
	}
	if len(p.all) >= maxPendings {
		return false // those under way are let come to their end
	}
	p.all[hashed(s.pending.State)] = s
	return true
}

// get finds what a browser has begun; with take it is used up.
func (p *pendings) get(state, browser string, now time.Time, take bool) *started {
	if state == "" || browser == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := hashed(state)
	s := p.all[key]
	if s == nil || !sameText(s.browser, hashed(browser)) {
		return nil
	}
	if take || !now.Before(s.ends) {
		delete(p.all, key)
	}
	if !now.Before(s.ends) {
		return nil
	}
	return s
}

// ownPage are the pages that a sign-in may lead to: no address of others is one.
var ownPage = regexp.MustCompile(`^/approvals(/[A-Za-z0-9_-]{1,64})?$`)

func nextPage(s string) string {
	if !ownPage.MatchString(s) {
		return "/approvals"
	}
	return s
}

// signInFirst sends a browser without a session to the sign-in.
func (c *Console) signInFirst(w http.ResponseWriter, r *http.Request, next string) {
	http.Redirect(w, r, "/signin?"+url.Values{"next": {nextPage(next)}}.Encode(), http.StatusSeeOther)
}

// signInPage is what the choice of a provider shows.
type signInPage struct {
	Issuers []Issuer
	Next    string
	Form    string
	Left    bool // somebody has just signed out
	Wanted  bool // a page was asked for that needs a sign-in
}

// browser is the cookie that sign-ins begun in a browser are bound to.
func (c *Console) browser(w http.ResponseWriter, r *http.Request) string {
	secret := c.cookie(r, browserNaming)
	if secret == "" {
		secret = rand.Text() + rand.Text()
		c.setCookie(w, browserNaming, secret)
	}
	return secret
}

func (c *Console) chooseSignIn(w http.ResponseWriter, r *http.Request) {
	browser := c.browser(w, r)
	q := r.URL.Query()
	c.page(w, r, http.StatusOK, "signin", "Sign in", signInPage{Issuers: c.cfg.Issuers, Next: nextPage(q.Get("next")), Form: c.formToken(browser),
		Left: q.Has("left"), Wanted: q.Has("next")})
}

func (c *Console) startSignIn(w http.ResponseWriter, r *http.Request) {
	if !c.readForm(w, r) {
		return
	}
	browser := c.cookie(r, browserNaming)
	if browser == "" || !sameText(r.PostForm.Get("form"), c.formToken(browser)) {
		c.fail(w, r, http.StatusForbidden, "This form is too old", "It does not belong to this browser any more, or cookies are turned off. Open the sign-in page again.")
		return
	}
	n, err := strconv.Atoi(r.PostForm.Get("issuer"))
	if err != nil || n < 0 || n >= len(c.cfg.Issuers) {
		c.fail(w, r, http.StatusBadRequest, "There is no such identity provider", "Open the sign-in page again and choose one.")
		return
	}
	c.begin(w, r, &started{browser: hashed(browser), issuer: n, next: nextPage(r.PostForm.Get("next"))}, SignInRequest{})
}

// begin starts a sign-in and leads the browser to the provider, by a page of our own: a
// form that is answered with a redirect to another site is subject to form-action in some
// browsers, as is each site that the provider sends the browser on to.
func (c *Console) begin(w http.ResponseWriter, r *http.Request, s *started, req SignInRequest) {
	now := c.cfg.Now()
	if !c.starts.allow(r, now) {
		w.Header().Set("Retry-After", "10")
		c.fail(w, r, http.StatusTooManyRequests, "Too many sign-ins", "From this address too many were begun in a short time. Wait some seconds and try again.")
		return
	}
	patient(w, patience)
	address, pending, err := c.cfg.Issuers[s.issuer].SignIn.Begin(r.Context(), req)
	if err != nil {
		c.cfg.Log.Warn("a sign-in at the console could not begin", "issuer", c.cfg.Issuers[s.issuer].Name, "error", err)
		c.fail(w, r, http.StatusBadGateway, "The sign-in cannot begin", sentence(err.Error())+" Nothing was decided.")
		return
	}
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		c.cfg.Log.Error("the address of an identity provider is of no use", "issuer", c.cfg.Issuers[s.issuer].Name)
		c.fail(w, r, http.StatusBadGateway, "The sign-in cannot begin", "The identity provider's address is of no use. Nothing was decided. Tell whoever runs weir.")
		return
	}
	s.pending, s.address, s.ends = pending, address, now.Add(pendingFor)
	if !c.pendings.add(s, now) {
		c.fail(w, r, http.StatusServiceUnavailable, "Too many sign-ins", "Too many people are signing in just now. Nothing was decided. Try again in some minutes.")
		return
	}
	http.Redirect(w, r, "/signin/continue?"+url.Values{"state": {pending.State}}.Encode(), http.StatusSeeOther)
}

// continuePage leads to the provider.
type continuePage struct {
	Issuer, Address string
	Approve         bool
}

func (c *Console) continueSignIn(w http.ResponseWriter, r *http.Request) {
	s := c.pendings.get(r.URL.Query().Get("state"), c.cookie(r, browserNaming), c.cfg.Now(), false)
	if s == nil {
		c.strayAnswer(w, r)
		return
	}
	w.Header().Set("Refresh", "0; url="+s.address)
	c.page(w, r, http.StatusOK, "continue", "Sign in", continuePage{Issuer: c.cfg.Issuers[s.issuer].Name, Address: s.address, Approve: s.approve != nil})
}

// callback takes the provider's answer.
func (c *Console) callback(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s := c.pendings.get(q.Get("state"), c.cookie(r, browserNaming), c.cfg.Now(), true)
	if s == nil {
		c.strayAnswer(w, r)
		return
	}
	patient(w, patience)
	token, err := c.cfg.Issuers[s.issuer].SignIn.Answer(r.Context(), s.pending, q)
	if s.approve != nil {
		c.signed(w, r, s, token, err)
		return
	}
	if err == nil {
		err = c.signIn(w, r, s, token)
	}
	if err != nil {
		c.cfg.Log.Warn("a sign-in at the console failed", "issuer", c.cfg.Issuers[s.issuer].Name, "error", err)
		c.fail(w, r, http.StatusForbidden, "You are not signed in", sentence(err.Error()))
		return
	}
	http.Redirect(w, r, s.next, http.StatusSeeOther)
}

func (c *Console) strayAnswer(w http.ResponseWriter, r *http.Request) {
	c.fail(w, r, http.StatusBadRequest, "This sign-in is over",
		"It was used already, took too long, or was begun in another browser. Nothing was decided by it. Begin again.")
}

// signIn starts a session for whom a token stands for. One that the browser had ends.
func (c *Console) signIn(w http.ResponseWriter, r *http.Request, s *started, token string) error {
	who, err := c.cfg.Verify(r.Context(), token)
	switch {
	case err != nil:
		return err
	case who.Kind != flow.Human:
		return errors.New("cannot sign in: this identity is not a person's")
	}
	if old := c.session(r); old != nil {
		c.sessions.end(old.key)
	}
	c.setCookie(w, sessionNaming, c.sessions.add(who, s.issuer, c.cfg.Now(), c.formToken))
	c.cfg.Log.Info("somebody has signed in at the console", "user", who.User, "issuer", who.Issuer)
	return nil
}

func (c *Console) signOut(w http.ResponseWriter, r *http.Request) {
	x := c.session(r)
	if x != nil {
		if !c.readForm(w, r) || !c.ownForm(w, r, x) {
			return
		}
		c.sessions.end(x.key)
	}
	c.setCookie(w, sessionNaming, "")
	http.Redirect(w, r, "/signin?left", http.StatusSeeOther)
}

// readForm reads a page's form; it answers when it cannot.
func (c *Console) readForm(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	err := r.ParseForm()
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		c.fail(w, r, http.StatusRequestEntityTooLarge, "This is too long", "The reason may have about 2000 characters. Nothing was decided.")
	case err != nil || mediaType(r) != "application/x-www-form-urlencoded":
		c.fail(w, r, http.StatusUnsupportedMediaType, "This is no form", "Open the page again and use its buttons. Nothing was decided.")
	default:
		return true
	}
	return false
}

// ownForm reports whether a form was made for the session; it answers when not.
func (c *Console) ownForm(w http.ResponseWriter, r *http.Request, x *webSession) bool {
	if sameText(r.PostForm.Get("form"), x.form) {
		return true
	}
	c.fail(w, r, http.StatusForbidden, "This form is too old", "It was made for another sign-in than yours, so nothing was decided. Open the page again.")
	return false
}
