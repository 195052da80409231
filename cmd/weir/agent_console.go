package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/netutil"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/console"
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/identity"
)

// Bounds of requests at the console's address. Those that wait for an identity provider,
// or watch, set longer ones themselves.
const (
	consoleTimeout = 5 * time.Second  // to read a request; twice that to answer
	consoleIdle    = 30 * time.Second // between two requests
	// maxConsole bounds the connections: flows need the descriptors more.
	maxConsole = 512
)

// makeConsole makes the pages before they are served: what starts in between has to know
// who is signed in there.
func (a *agent) makeConsole(ctx context.Context) (err error) {
	if a.cfg.Console.Listen == "" {
		return nil
	}
	a.console, err = console.New(console.Config{URL: a.cfg.Console.URL, Issuers: a.consoleIssuers(ctx), Verify: a.verifyForConsole,
		Approvals: func() approval.Service { return a.approvals }, Log: a.log})
	return err
}

// consoleIssuers are the providers of people. One that cannot be used is a problem that
// `weir status` shows: people sign in at another one, or decide at a terminal.
func (a *agent) consoleIssuers(ctx context.Context) []console.Issuer {
	hosts := map[string]int{}
	for _, i := range a.cfg.Identity.Issuers {
		hosts[issuerHost(i.Issuer)]++
	}
	var all []console.Issuer
	for _, i := range a.cfg.Identity.Issuers {
		if i.Kind != flow.Human || i.ClientID == "" { // without a client nobody can sign in, only bring tokens
			continue
		}
		web, err := a.webSignIn(ctx, &i)
		if err != nil {
			a.setProblem("console "+i.Issuer, fmt.Sprintf("nobody can sign in at the console by %s: %v", i.Issuer, err))
			a.log.Error("nobody can sign in at the console by this issuer", "issuer", i.Issuer, "error", err)
			continue
		}
		name := issuerHost(i.Issuer)
		if hosts[name] > 1 {
			name = i.Issuer
		}
		all = append(all, console.Issuer{Name: name, SignIn: web})
	}
	return all
}

func issuerHost(issuer string) string {
	if u, err := url.Parse(issuer); err == nil && u.Host != "" {
		return u.Host
	}
	return issuer
}

func (a *agent) webSignIn(ctx context.Context, i *config.Issuer) (console.SignIn, error) {
	secret := ""
	if i.ClientSecret != "" {
		s, _, err := a.secrets.Get(ctx, i.ClientSecret)
		if err != nil {
			return nil, fmt.Errorf("client_secret: %w", err)
		}
		secret = s.Reveal()
		s.Wipe()
	}
	web, err := identity.NewWeb(identity.WebConfig{Issuer: i.Issuer, ClientID: i.ClientID, ClientSecret: secret, CAFile: i.CAFile,
		RedirectURL: a.cfg.Console.URL + "/callback"})
	if err != nil {
		return nil, fmt.Errorf("%w; console.url says what browsers call the console", err)
	}
	return webSignIn{web}, nil
}

// webSignIn gives the console's words to the identity package's answers.
type webSignIn struct{ web *identity.Web }

func (s webSignIn) Begin(ctx context.Context, req console.SignInRequest) (string, console.Pending, error) {
	address, pending, err := s.web.Begin(ctx, identity.WebRequest(req))
	return address, console.Pending(pending), err
}

func (s webSignIn) Answer(ctx context.Context, pending console.Pending, q url.Values) (string, error) {
	return s.web.Answer(ctx, identity.Pending(pending), q)
}

func (a *agent) verifyForConsole(ctx context.Context, token string) (*flow.Principal, error) {
	who, err := a.identity.Verifier().Verify(ctx, token)
	if errors.Is(err, identity.ErrProvider) {
		err = console.Unavailable{Err: err}
	}
	return who, err
}

// startConsole serves the pages, /metrics and /healthz. It listens where the configuration
// says; an address in use is a problem that `weir status` shows, not a reason to
// stop protecting backends.
func (a *agent) startConsole(context.Context) error {
	if a.console == nil {
		return nil
	}
	l, err := net.Listen("tcp", a.cfg.Console.Listen)
	if err != nil {
		a.setProblem("console", fmt.Sprintf("the console, /metrics and /healthz are not served: %v; set console.listen to a free address, or to \"\"", err))
		a.log.Error("the console's address cannot be used", "error", err)
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.telemetry.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !a.ready.Load() || a.audit.Status().Problem != "" {
			http.Error(w, "not ready: see weir status", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("/", a.console.Handler())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: consoleTimeout, ReadTimeout: consoleTimeout, WriteTimeout: 2 * consoleTimeout,
		IdleTimeout: consoleIdle, MaxHeaderBytes: console.MaxHeader, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn)}
	a.run("console", func(context.Context) error {
		if err := server.Serve(netutil.LimitListener(l, maxConsole)); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	a.onStop("console requests", server.Close)
	// First, so that whoever decides just now learns what has come of it.
	a.onStop("console pages", func() error { a.console.Close(); return nil })
	return nil
}
