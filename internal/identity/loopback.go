package identity

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

const (
	callbackPath = "/callback"
	// lastPage is how long the browser may take to fetch the final page.
	lastPage = 2 * time.Second
)

// code runs the authorization code grant with PKCE (RFC 7636, S256), state and
// nonce, and takes the answer on a loopback port (RFC 8252, 7.3).
func (s *signIn) code(ctx context.Context) (string, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.RedirectPort)))
	if err != nil {
		return "", fmt.Errorf("no loopback port for the browser's answer: %w; use --device", err)
	}
	s.oauth.RedirectURL = "http://" + listener.Addr().String() + callbackPath
	if s.Nonce == "" {
		s.Nonce = randomText()
	}
	cb := &callback{signIn: s, ctx: ctx, state: randomText(), verifier: oauth2.GenerateVerifier(), result: make(chan result, 1)}
	server := &http.Server{Handler: cb, ReadHeaderTimeout: lastPage}
	server.SetKeepAlivesEnabled(false)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastPage)
		defer cancel()
		if server.Shutdown(last) != nil { // the browser does not read its page
			server.Close()
		}
		<-served
	}()

	address := s.address(cb.state, cb.verifier, s.asked())
	fmt.Fprintf(s.Out, "To sign in, open this address in a browser on this machine:\n\n    %s\n\n", address)
	if err := s.Open(address); errors.Is(err, errNoBrowser) {
		fmt.Fprintln(s.Out, "There is no browser here? Give up with Ctrl-C and use `weir login --device`.")
	}
	fmt.Fprintln(s.Out, "Waiting for the sign-in (Ctrl-C gives up) ...")
	select {
	case r := <-cb.result:
		return r.token, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case err := <-served:
		served <- err
		return "", fmt.Errorf("waiting for the browser's answer: %w", err)
	}
}

type result struct {
	token string // the raw ID token
	err   error
}

// callback is the page that the provider sends the browser back to. Anybody on
// this machine can call it: without the state a call changes nothing.
type callback struct {
	*signIn
	ctx             context.Context // of the sign-in: the browser may hang up early
	state, verifier string
	used            atomic.Bool
	result          chan result
}

func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Path != callbackPath {
		writePage(w, http.StatusNotFound, "Nothing here", "Go back to the page of your identity provider.")
		return
	}
	q := r.URL.Query()
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(c.state)) != 1 {
		writePage(w, http.StatusBadRequest, "Not signed in", "This answer does not belong to the sign-in under way. Start again with weir login.")
		return
	}
	if c.used.Swap(true) {
		writePage(w, http.StatusGone, "Nothing here", "This sign-in is over.")
		return
	}
	token, err := c.exchange(q)
	if err != nil {
		writePage(w, http.StatusForbidden, "Not signed in", "The sign-in failed. The terminal says why.")
	} else {
		writePage(w, http.StatusOK, "Signed in", "You are signed in to Weir. You can close this page.")
	}
	c.result <- result{token, err}
}

// exchange trades the code in the provider's answer for the ID token.
func (c *callback) exchange(q url.Values) (string, error) {
	code, err := c.answerCode(q)
	if err != nil {
		return "", err
	}
	return c.redeem(c.ctx, code, c.verifier, c.asked())
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Weir: {{.Title}}</title>
<meta name="viewport" content="width=device-width">
<style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}</style>
</head><body><h1>{{.Title}}</h1><p>{{.Text}}</p></body></html>
`))

func writePage(w http.ResponseWriter, status int, title, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // this page's address holds the code
	w.WriteHeader(status)
	// The browser may have gone; the sign-in does not depend on what it shows.
	_ = page.Execute(w, struct{ Title, Text string }{title, text})
}
