package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
)

// Bounds of sessions.
const (
	idleLimit      = 30 * time.Minute
	absoluteLimit  = 12 * time.Hour
	maxSessions    = 4096
	maxPerPerson   = 16 // the oldest goes
	maxResults     = 16 // of a session; the oldest goes
	sessionNaming  = "weir_session"
	browserNaming  = "weir_browser"
	hostOnlyPrefix = "__Host-" // RFC 6265bis, 4.1.3.2: no other site can set such a cookie
)

// webSession is somebody's sign-in in one browser.
type webSession struct {
	key     string // of the map
	form    string // the token of its forms
	who     *flow.Principal
	issuer  int // of Config.Issuers
	created time.Time
	used    time.Time
	ends    time.Time // not later than the token's expiry
	results []*result // oldest first
}

func (s *webSession) valid(now time.Time) bool {
	return now.Before(s.ends) && now.Sub(s.used) < idleLimit
}

func (s *webSession) viewer() approval.Viewer { return approval.Viewer{Who: s.who} }

// sessions are kept by the hash of their cookie: a look-up tells no time about a secret.
type sessions struct {
	mu  sync.Mutex
	all map[string]*webSession
}

func newSessions() *sessions { return &sessions{all: map[string]*webSession{}} }

func hashed(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return string(sum[:])
}

// add starts a session for somebody; secret is its cookie.
func (s *sessions) add(who *flow.Principal, issuer int, now time.Time, form func(secret string) string) (secret string) {
	secret = rand.Text() + rand.Text()
	ends := now.Add(absoluteLimit)
	if !who.Expires.IsZero() && who.Expires.Before(ends) {
		ends = who.Expires
	}
	p := *who
	p.Session = "console-" + rand.Text() // for the record: tells nothing about the cookie
	n := &webSession{key: hashed(secret), form: form(secret), who: &p, issuer: issuer, created: now, used: now, ends: ends}
	s.mu.Lock()
	defer s.mu.Unlock()
	own, count := (*webSession)(nil), 0
	idlest := (*webSession)(nil)
	for key, x := range s.all {
		if !x.valid(now) {
			delete(s.all, key)
			continue
		}
		if x.who.Issuer == p.Issuer && x.who.Subject == p.Subject {
			count++
			if own == nil || x.created.Before(own.created) {
				own = x
			}
		}
		if idlest == nil || x.used.Before(idlest.used) {
			idlest = x
		}
	}
	switch {
	case count >= maxPerPerson:
		delete(s.all, own.key)
	case len(s.all) >= maxSessions:
		delete(s.all, idlest.key)
	}
	s.all[n.key] = n
	return secret
}

// get finds a valid session; touch says that somebody is there, not only a page that
// renews itself.
func (s *sessions) get(secret string, now time.Time, touch bool) *webSession {
	if secret == "" {
		return nil
	}
	return s.byKey(hashed(secret), now, touch)
}

func (s *sessions) byKey(key string, now time.Time, touch bool) *webSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.all[key]
	if x == nil {
		return nil
	}
	if !x.valid(now) {
		delete(s.all, key)
		return nil
	}
	if touch {
		x.used = now
	}
	return x
}

func (s *sessions) end(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, key)
}

func (s *sessions) find(email string, now time.Time) (*flow.Principal, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *webSession
	for _, x := range s.all {
		switch {
		case email == "" || !strings.EqualFold(x.who.User, email) || !x.valid(now):
		case found != nil && (found.who.Issuer != x.who.Issuer || found.who.Subject != x.who.Subject):
			return nil, false
		case found == nil || x.created.After(found.created):
			found = x
		}
	}
	if found == nil {
		return nil, false
	}
	return found.who, true
}

// keep holds a result for the page that shows it.
func (s *sessions) keep(x *webSession, r *result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(x.results) >= maxResults {
		x.results = x.results[1:]
	}
	x.results = append(x.results, r)
}

func (s *sessions) result(x *webSession, key string) *result {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range x.results {
		if r.key == key {
			return r
		}
	}
	return nil
}

func (c *Console) cookieName(name string) string {
	if c.secure {
		return hostOnlyPrefix + name
	}
	return name
}

// setCookie sets a cookie for the browser's session; an empty value takes it away. Lax:
// the way back from the identity provider begins there.
func (c *Console) setCookie(w http.ResponseWriter, name, value string) {
	k := &http.Cookie{Name: c.cookieName(name), Value: value, Path: "/", Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if value == "" {
		k.MaxAge = -1
	}
	http.SetCookie(w, k)
}

func (c *Console) cookie(r *http.Request, name string) string {
	k, err := r.Cookie(c.cookieName(name))
	if err != nil || len(k.Value) > 100 {
		return ""
	}
	return k.Value
}

// session is the request's; nil for none.
func (c *Console) session(r *http.Request) *webSession {
	return c.sessions.get(c.cookie(r, sessionNaming), c.cfg.Now(), r.URL.Query().Get("auto") == "")
}

// formToken is what a form has to bring that belongs to a cookie.
func (c *Console) formToken(secret string) string {
	m := hmac.New(sha256.New, c.key[:])
	m.Write([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
