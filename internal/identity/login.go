package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"
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
	// Prompt and MaxAge ask the provider not to be content with a sign-in of
	// earlier (OpenID Connect Core, 3.1.2.1, prompt and max_age): "login" asks for
	// the person's credentials again, MaxAge bounds the age of the last time that
	// they were given; 0 for any. The device flow asks the same, of providers that
	// listen there.
	Prompt string
	MaxAge time.Duration // in seconds; fractions are cut off
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
	keys := newKeySet(cfg.Issuer, client, "", time.Now, slog.New(slog.DiscardHandler))
	party, err := newRelyingParty(ctx, keys, clientConfig{id: cfg.ClientID, scopes: cfg.Scopes})
	if err != nil {
		return "", fmt.Errorf("cannot sign in: %w", err)
	}
	s := &signIn{LoginConfig: cfg, relyingParty: party}
	run := s.code
	if cfg.Device {
		run = s.device
	}
	raw, err := run(ctx)
	switch {
	case err == nil:
		return raw, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "", fmt.Errorf("cannot sign in: nobody signed in within %s: try again", loginTimeout)
	case ctx.Err() != nil:
		return "", fmt.Errorf("sign-in given up: %w", context.Cause(ctx))
	}
	return "", explain(err)
}

// signIn is one sign-in under way.
type signIn struct {
	LoginConfig
	*relyingParty
}

func (s *signIn) asked() asked {
	return asked{nonce: s.Nonce, prompt: s.Prompt, maxAge: s.MaxAge}
}

// device runs the device authorization grant: the code is typed in on another
// machine while this one asks for the outcome.
func (s *signIn) device(ctx context.Context) (string, error) {
	if s.oauth.Endpoint.DeviceAuthURL == "" {
		return "", errors.New("the identity provider has no device flow: sign in without --device")
	}
	ctx = s.httpContext(ctx)
	if s.Nonce != "" {
		fmt.Fprint(s.Out, "This sign-in is tied to one request, which many identity providers cannot do by a code.\n"+
			"If it fails, "+withoutDevice+".\n\n")
	}
	answer, err := s.oauth.DeviceAuth(ctx, s.asked().options()...)
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
	raw, err := s.idToken(ctx, token, s.asked())
	if errors.Is(err, errNonce) {
		return "", fmt.Errorf("%w: many identity providers leave the nonce out of the device flow: %s", err, withoutDevice)
	}
	return raw, err
}

// withoutDevice is what to do where the device flow cannot carry a nonce.
const withoutDevice = "decide on the console's page, or sign in without --device on a machine with a browser"

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
