package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// loginTimeout bounds one sign-in: a person and a second factor.
const loginTimeout = 10 * time.Minute

// LoginConfig says how to sign a person in, on the person's side (weir login).
type LoginConfig struct {
	Issuer   string
	ClientID string
	Scopes   []string // empty: openid profile email, and groups if the provider has it
	CAFile   string
	// Device uses the device flow (RFC 8628): for machines without a browser.
	Device bool
	// RedirectPort is the loopback port of the answer, for providers that do not
	// allow any (RFC 8252, 7.3). 0: a free one.
	RedirectPort int
	// Nonce is put into the token; empty: a random one. The device flow has no
	// place for one: most providers leave it out, and the sign-in then fails.
	Nonce string
	// Open shows a URL in a browser. nil: xdg-open where there is a desktop.
	Open func(url string) error
	Out  io.Writer // what the person must read; nil: nowhere
}

// Login signs a person in and returns the ID token, verified as far as the
// client can. It sends the token nowhere. Errors say what to do.
func Login(ctx context.Context, cfg LoginConfig) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if err := checkURL(cfg.Issuer); err != nil {
		return "", fmt.Errorf("cannot sign in: issuer %w", err)
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	if cfg.Open == nil {
		cfg.Open = openBrowser
	}
	client, err := newHTTPClient(cfg.CAFile)
	if err != nil {
		return "", fmt.Errorf("cannot sign in: %w", err)
	}
	ctx = oidc.ClientContext(ctx, client)
	provider, err := oidc.NewProvider(ctx, cfg.Issuer)
	if err != nil {
		return "", fmt.Errorf("cannot sign in: the identity provider %s does not answer as one: %w", cfg.Issuer, brief(err))
	}
	s := &signIn{LoginConfig: cfg, provider: provider, oauth: oauth2.Config{
		ClientID: cfg.ClientID, Endpoint: provider.Endpoint(), Scopes: scopes(provider, cfg.Scopes),
	}}
	run := s.code
	if cfg.Device {
		run = s.device
	}
	raw, err := run(ctx)
	if err != nil {
		return "", s.explain(ctx, err)
	}
	return raw, nil
}

// signIn is one sign-in under way.
type signIn struct {
	LoginConfig
	provider *oidc.Provider
	oauth    oauth2.Config
}

func scopes(p *oidc.Provider, wanted []string) []string {
	if len(wanted) > 0 {
		return wanted
	}
	list := []string{oidc.ScopeOpenID, "profile", "email"}
	var meta struct {
		Scopes []string `json:"scopes_supported"`
	}
	// Asking for a scope that a provider does not know is an error at some.
	if p.Claims(&meta) == nil && slices.Contains(meta.Scopes, "groups") {
		list = append(list, "groups")
	}
	return list
}

// device runs the device authorization grant: the code is typed in on another
// machine while this one asks for the outcome.
func (s *signIn) device(ctx context.Context) (string, error) {
	if s.oauth.Endpoint.DeviceAuthURL == "" {
		return "", errors.New("the identity provider has no device flow: sign in without --device")
	}
	var options []oauth2.AuthCodeOption
	if s.Nonce != "" {
		options = append(options, oidc.Nonce(s.Nonce))
	}
	answer, err := s.oauth.DeviceAuth(ctx, options...)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(s.Out, "To sign in, open %s and enter the code\n\n    %s\n\n", oneLine(answer.VerificationURI), oneLine(answer.UserCode))
	if answer.VerificationURIComplete != "" {
		fmt.Fprintf(s.Out, "or open %s\n", oneLine(answer.VerificationURIComplete))
	}
	fmt.Fprintln(s.Out, "Waiting for the sign-in (Ctrl-C gives up) ...")
	token, err := s.oauth.DeviceAccessToken(ctx, answer)
	if err != nil {
		return "", err
	}
	return s.idToken(ctx, token)
}

// idToken takes the ID token out of an answer and checks it as the client must
// (OpenID Connect Core, 3.1.3.7). The agent checks it again, on its own.
func (s *signIn) idToken(ctx context.Context, token *oauth2.Token) (string, error) {
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return "", errors.New("the identity provider sent no ID token: the client needs the scope openid")
	}
	verifier := s.provider.Verifier(&oidc.Config{ClientID: s.ClientID, SupportedSigningAlgs: algorithmNames()})
	id, err := verifier.Verify(ctx, raw)
	if err != nil {
		return "", fmt.Errorf("the identity provider sent an ID token that does not verify: %w", brief(err))
	}
	if s.Nonce != "" && subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(s.Nonce)) != 1 {
		return "", errors.New("the ID token is not the answer to this sign-in (nonce): try again; with --device some providers cannot do it")
	}
	return raw, nil
}

// explain turns what went wrong into one sentence, without what the provider's
// answer may hold besides its error code.
func (s *signIn) explain(ctx context.Context, err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("cannot sign in: nobody signed in within %s: try again", loginTimeout)
	case ctx.Err() != nil:
		return fmt.Errorf("sign-in given up: %w", context.Cause(ctx))
	case errors.As(err, &refused) && refused.ErrorCode == "expired_token":
		return errors.New("cannot sign in: the code was not entered in time: try again")
	case errors.As(err, &refused) && refused.ErrorCode != "":
		return fmt.Errorf("cannot sign in: the identity provider refused: %s %s", quote(refused.ErrorCode), quote(refused.ErrorDescription))
	case errors.As(err, &refused):
		return fmt.Errorf("cannot sign in: the identity provider answered %s", refused.Response.Status)
	}
	return fmt.Errorf("cannot sign in: %w", err)
}

// errNoBrowser: there is nothing to show a page with.
var errNoBrowser = errors.New("no browser")

// openBrowser starts the desktop's browser, if there is a desktop, and does not
// wait for it: it may be the browser itself.
func openBrowser(url string) error {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return errNoBrowser
	}
	cmd := exec.Command("xdg-open", url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the sign-in
	if err := cmd.Start(); err != nil {
		return errNoBrowser
	}
	return cmd.Process.Release()
}

// randomText returns 256 bits that nobody can guess.
func randomText() string { return rand.Text() + rand.Text() }
