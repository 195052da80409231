// Package console is Weir's web page for people, and the same over HTTP and JSON for
// programs. What it shows and decides is approvals so far.
//
// Pages are made on the server and work without scripts. Whoever looks has signed in at
// an identity provider; who decides is the business of package approval, which verifies
// every proof itself. Programs bring a bearer token with each call, and a cookie is never
// theirs. Nothing of it is stored: sessions end with the agent.
package console

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
)

// Limits of requests.
const (
	// MaxHeader is what a server of the Handler should allow, bytes: a bearer token may
	// have 64 KiB.
	MaxHeader = 96 << 10
	maxForm   = 16 << 10 // bytes of a page's form
	maxReason = 2000     // bytes; package approval takes no longer one
	// patience bounds a request that waits for an identity provider.
	patience = time.Minute
)

// Issuer is an identity provider of people.
type Issuer struct {
	Name   string // for people; told apart by it
	SignIn SignIn
}

// Config is what a Console needs.
type Config struct {
	// URL is the site's address for browsers, without a path. https, or http on loopback
	// where cookies travel in the clear. Sign-ins come back to URL/callback.
	URL     string
	Issuers []Issuer // none: nobody can sign in; programs can still ask
	// Verify tells whom a token stands for. An error is for people; it is an Unavailable
	// when the provider has to be asked and does not answer.
	Verify func(ctx context.Context, token string) (*flow.Principal, error)
	// Approvals is nil while there is none.
	Approvals func() approval.Service
	Log       *slog.Logger     // nil: silent
	Now       func() time.Time // nil: time.Now
}

// Unavailable is the error of a provider that does not answer.
type Unavailable struct{ Err error }

func (e Unavailable) Error() string { return e.Err.Error() }
func (e Unavailable) Unwrap() error { return e.Err }

// Console serves the pages. Its methods are safe for concurrent use.
type Console struct {
	cfg      Config
	host     string // of URL, with the port
	secure   bool   // URL is https
	pages    *pages
	key      [32]byte // of form tokens
	handler  http.Handler
	sessions *sessions
	pendings *pendings
	starts   *limiter
	watches  *watches

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex
	closed bool
	busy   sync.WaitGroup // requests
}

// New makes a console. It asks no identity provider.
func New(cfg Config) (*Console, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("console: %q is no address of a site: write https://HOST or http://HOST:PORT, without a path", cfg.URL)
	}
	if cfg.Verify == nil || cfg.Approvals == nil {
		return nil, errors.New("console: Verify and Approvals are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	pages, err := parsePages()
	if err != nil {
		return nil, err
	}
	c := &Console{cfg: cfg, host: u.Host, secure: u.Scheme == "https", pages: pages, sessions: newSessions(), pendings: newPendings(), starts: newLimiter(),
		watches: newWatches()}
	if _, err := rand.Read(c.key[:]); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if c.handler, err = c.routes(); err != nil {
		return nil, err
	}
	return c, nil
}

// Handler serves everything below "/".
func (c *Console) Handler() http.Handler { return c.handler }

// Close ends the requests that run, watches among them, and waits for them. What is
// asked from then on is answered 503.
func (c *Console) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.busy.Wait()
}

// Principal is who is signed in here with an e-mail address, without regard to case.
// When that may be more than one person, it is nobody.
func (c *Console) Principal(email string) (*flow.Principal, bool) {
	return c.sessions.find(email, c.cfg.Now())
}

func (c *Console) routes() (http.Handler, error) {
	protect := http.NewCrossOriginProtection()
	if err := protect.AddTrustedOrigin(c.cfg.URL); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	protect.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.fail(w, r, http.StatusForbidden, "This came from another site",
			"A form of another web site was sent here, so nothing was done. Open the page here and decide there.")
	}))
	site := http.NewServeMux()
	site.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/approvals", http.StatusSeeOther) })
	site.HandleFunc("GET /approvals", c.list)
	site.HandleFunc("GET /approvals/{id}", c.show)
	for verb := range verbs {
		site.HandleFunc("POST /approvals/{id}/"+verb, c.decide(verb))
	}
	site.HandleFunc("GET /results/{result}", c.showResult)
	site.HandleFunc("GET /signin", c.chooseSignIn)
	site.HandleFunc("POST /signin", c.startSignIn)
	site.HandleFunc("GET /signin/continue", c.continueSignIn)
	site.HandleFunc("GET /callback", c.callback)
	site.HandleFunc("POST /signout", c.signOut)
	site.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.fail(w, r, http.StatusNotFound, "There is no such page", "The address may be mistyped or old.")
	})
	all := http.NewServeMux()
	c.pages.serveFiles(all)
	c.routeAPI(all)
	all.Handle("/", c.rightHost(protect.Handler(site)))
	return c.outermost(all), nil
}

// outermost sets what every answer carries, and ties requests to Close.
func (c *Console) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY") // for browsers before frame-ancestors
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			http.Error(w, "weir is stopping", http.StatusServiceUnavailable)
			return
		}
		c.busy.Add(1)
		c.mu.Unlock()
		defer c.busy.Done()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(c.ctx, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// rightHost answers under the site's own name only: cookies and the way back from the
// identity provider belong to it, and names of others that point here (DNS rebinding)
// get nothing.
func (c *Console) rightHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != c.host {
			c.fail(w, r, http.StatusMisdirectedRequest, "This console has another address",
				"Open it at "+c.cfg.URL+". Whoever runs weir can change that with console.url; a reverse proxy has to pass the Host header on.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// patient gives a request time to wait for an identity provider, instead of the server's
// own limits, which are for pages that need none.
func patient(w http.ResponseWriter, d time.Duration) {
	rc := http.NewResponseController(w)
	until := time.Now().Add(d)
	_ = rc.SetReadDeadline(until) // its passing ends the request's context
	_ = rc.SetWriteDeadline(until)
}
