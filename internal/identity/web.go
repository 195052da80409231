package identity

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"golang.org/x/oauth2"
)

const (
	// webTimeout bounds what one page waits for the provider, in all.
	webTimeout = 20 * time.Second
	// askAgain is the pause after a provider did not answer that never has: short,
	// as nobody can sign in meanwhile.
	askAgain = 5 * time.Second
)

// WebConfig says how a web page of the agent signs people in.
type WebConfig struct {
	Issuer       string
	ClientID     string
	ClientSecret string // "": a public client
	CAFile       string // PEM bundle that signs the provider's certificate; empty: the system's
	// RedirectURL is the page that the provider sends the browser back to; https, or
	// http on loopback.
	RedirectURL string
	Now         func() time.Time // nil: time.Now
}

// Web signs people in for a web page: authorization code flow with PKCE (OpenID
// Connect Core, 3.1; RFC 7636). It keeps nothing of a sign-in: who serves the page
// keeps the Pending, on the server's side. Its methods are safe for concurrent use;
// nothing of it runs between calls.
type Web struct {
	cfg  WebConfig
	keys *keySet

	lock    chan struct{} // held while the fields below are used, and while asking
	party   *relyingParty // nil until the provider has answered once
	fetched time.Time
	failed  time.Time
	err     error // of the last time that it was asked; nil when it answered
}

// WebRequest is what one sign-in asks for.
type WebRequest struct {
	Nonce string // comes back in the ID token; "": a random one
	// Prompt and MaxAge are as in LoginConfig.
	Prompt string
	MaxAge time.Duration
}

// Pending is a sign-in under way. The caller keeps it on the server's side, for the
// one browser that began, for a bounded time, and uses it once.
type Pending struct {
	State    string // the answer carries the same
	Verifier string // of PKCE: a secret
	Nonce    string
	MaxAge   time.Duration
}

// NewWeb checks the configuration. It asks no provider: an absent one must not keep
// the agent from starting.
func NewWeb(cfg WebConfig) (*Web, error) {
	if err := checkURL(cfg.Issuer); err != nil {
		return nil, fmt.Errorf("identity: issuer %w", err)
	}
	if err := checkURL(cfg.RedirectURL); err != nil {
		return nil, fmt.Errorf("identity: the page for the answer of issuer %s: %w", quote(cfg.Issuer), err)
	}
	if cfg.ClientID == "" {
		return nil, fmt.Errorf("identity: issuer %s: client_id is needed for people to sign in at a page", quote(cfg.Issuer))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	client, err := newHTTPClient(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("identity: issuer %s: %w", quote(cfg.Issuer), err)
	}
	keys := newKeySet(cfg.Issuer, client, "", cfg.Now, slog.New(slog.DiscardHandler)) // what it cannot do, the errors say
	return &Web{cfg: cfg, keys: keys, lock: make(chan struct{}, 1)}, nil
}

// Begin returns the address to send the browser to. The error is ErrProvider, or
// that of ctx.
func (w *Web) Begin(ctx context.Context, req WebRequest) (address string, pending Pending, err error) {
	ctx, cancel := context.WithTimeout(ctx, webTimeout)
	defer cancel()
	party, err := w.provider(ctx)
	if err != nil {
		return "", Pending{}, w.explain(ctx, err)
	}
	pending = Pending{State: randomText(), Verifier: oauth2.GenerateVerifier(), Nonce: req.Nonce, MaxAge: req.MaxAge}
	if pending.Nonce == "" {
		pending.Nonce = randomText()
	}
	return party.address(pending.State, pending.Verifier, asked{nonce: pending.Nonce, prompt: req.Prompt, maxAge: req.MaxAge}), pending, nil
}

// Answer takes the parameters with which the browser came back, checks that they are
// the answer to pending, and finishes the sign-in.
func (w *Web) Answer(ctx context.Context, pending Pending, q url.Values) (idToken string, err error) {
	if pending.State == "" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(pending.State)) != 1 {
		return "", errors.New("cannot sign in: this answer does not belong to a sign-in that was begun here: begin again")
	}
	ctx, cancel := context.WithTimeout(ctx, webTimeout)
	defer cancel()
	party, err := w.provider(ctx)
	if err != nil {
		return "", w.explain(ctx, err)
	}
	code, err := party.answerCode(q)
	if err != nil {
		return "", explain(err)
	}
	return w.Finish(ctx, pending, code)
}

// Finish trades the code for the ID token and checks it as the client must (OpenID
// Connect Core, 3.1.3.7). The caller has checked the state; Answer does both. Whom
// the token stands for, Verify and VerifyProof say. Errors are for people.
func (w *Web) Finish(ctx context.Context, pending Pending, code string) (idToken string, err error) {
	if pending.Verifier == "" || pending.Nonce == "" {
		return "", errors.New("cannot sign in: no sign-in was begun here, or it is over: begin again")
	}
	ctx, cancel := context.WithTimeout(ctx, webTimeout)
	defer cancel()
	party, err := w.provider(ctx)
	if err != nil {
		return "", w.explain(ctx, err)
	}
	idToken, err = party.redeem(ctx, code, pending.Verifier, asked{nonce: pending.Nonce, maxAge: pending.MaxAge})
	if err != nil {
		return "", w.explain(ctx, err)
	}
	return idToken, nil
}

// provider returns the provider by its metadata, at most refreshAfter old while it
// answers: endpoints may move, which is rare.
func (w *Web) provider(ctx context.Context) (*relyingParty, error) {
	select {
	case w.lock <- struct{}{}:
		defer func() { <-w.lock }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	now := w.cfg.Now()
	fresh := w.party != nil && now.Sub(w.fetched) <= refreshAfter
	pause := askAgain
	if w.party != nil {
		pause = retryAfter
	}
	if !fresh && (w.err == nil || now.Sub(w.failed) > pause) {
		w.ask(ctx)
	}
	if w.party == nil {
		return nil, w.err
	}
	return w.party, nil
}

// ask takes its own time: a browser that hangs up must not spoil it for the next.
func (w *Web) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpTimeout)
	defer cancel()
	party, err := newRelyingParty(ctx, w.keys, clientConfig{id: w.cfg.ClientID, secret: w.cfg.ClientSecret, redirect: w.cfg.RedirectURL})
	if err != nil {
		w.failed, w.err = w.cfg.Now(), fmt.Errorf("%w: %w", ErrProvider, err)
		return
	}
	w.party, w.fetched, w.err = party, w.cfg.Now(), nil
}

func (w *Web) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("cannot sign in: %w: %s did not answer in time: try again", ErrProvider, w.cfg.Issuer)
	case ctx.Err() != nil:
		return fmt.Errorf("sign-in given up: %w", context.Cause(ctx))
	}
	var away *url.Error // of the token endpoint
	if errors.As(err, &away) {
		return fmt.Errorf("cannot sign in: %w: %w", ErrProvider, brief(err))
	}
	return explain(err)
}
