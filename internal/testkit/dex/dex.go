// Package dex runs a real OpenID Connect provider (github.com/dexidp/dex, built
// from the nested module test/dex) for tests and for weir demo, and signs people
// in at it as a browser would. Whoever can reach its loopback port can be
// anybody: it must never stand before anything real.
package dex

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// Defaults and deadlines.
const (
	// DefaultClient is the public client that exists if Config names none.
	DefaultClient   = "weir"
	defaultLifetime = 5 * time.Minute
	startTimeout    = 60 * time.Second // generous: a busy machine is no error
	stopTimeout     = 10 * time.Second
	startTries      = 3 // a free port may be taken before Dex binds it
	connectorID     = "headers"
)

// Config says what provider to run. The zero value will do, but for Dir.
type Config struct {
	Dir    string // configuration and log
	Binary string // "": WEIR_DEX, else bin/dex beside this program or in the repository
	WebDir string // page templates; "": WEIR_DEX_WEB, else Binary with "-web" added
	// Clients are the relying parties; empty: DefaultClient, public.
	Clients []Client
	// People are offered on the sign-in page when a person with a browser comes.
	People []Person
	// TokenLifetime of ID tokens; 0: 5 minutes. Seconds are its smallest unit.
	TokenLifetime time.Duration
}

// Client is a relying party. Without RedirectURIs and Secret it is public and may
// use any loopback port (RFC 8252, 7.3) and the device flow.
type Client struct {
	ID           string
	Secret       string
	RedirectURIs []string
}

// Person is somebody whom the provider signs in, without asking for a password.
type Person struct {
	User   string
	Email  string
	Groups []string
}

// Provider is a running Dex.
type Provider struct {
	Issuer string
	PID    int
	cfg    Config
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has been waited for
	front  *http.Server  // the page of People; nil without
	served chan struct{}
}

// Start runs Dex on a free loopback port, with its state in memory, and returns
// when it answers. Stop ends it; it also ends with this process.
func Start(ctx context.Context, cfg Config) (*Provider, error) {
	if cfg.Binary == "" {
		var err error
		if cfg.Binary, err = find(); err != nil {
			return nil, err
		}
	}
	if cfg.WebDir == "" {
		if cfg.WebDir = os.Getenv("WEIR_DEX_WEB"); cfg.WebDir == "" {
			cfg.WebDir = cfg.Binary + "-web"
		}
	}
	if _, err := os.Stat(filepath.Join(cfg.WebDir, "templates")); err != nil {
		return nil, fmt.Errorf("dex: no page templates: %w: run `make dex`", err)
	}
	if len(cfg.Clients) == 0 {
		cfg.Clients = []Client{{ID: DefaultClient}}
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = defaultLifetime
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	for range startTries {
		var p *Provider
		if p, err = start(ctx, cfg); err == nil {
			return p, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// find looks for the binary that `make dex` builds.
func find() (string, error) {
	if path := os.Getenv("WEIR_DEX"); path != "" {
		return path, nil
	}
	var tried []string
	if exe, err := os.Executable(); err == nil {
		tried = append(tried, filepath.Join(filepath.Dir(exe), "dex"))
	}
	if dir, err := os.Getwd(); err == nil {
		for ; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				tried = append(tried, filepath.Join(dir, "bin", "dex"))
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	for _, path := range tried {
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("dex: the identity provider's binary is not at %q: run `make dex`, or set WEIR_DEX", tried)
}

func start(ctx context.Context, cfg Config) (_ *Provider, err error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: cfg, Issuer: "http://" + address + "/dex"}
	defer func() {
		if err != nil {
			p.Stop()
		}
	}()
	backend := address
	if len(cfg.People) > 0 {
		if backend, err = freeAddress(); err != nil {
			return nil, err
		}
		if err = p.openFront(address, backend); err != nil {
			return nil, err
		}
	}
	if err = os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(cfg.Dir, "dex.json") // JSON is YAML
	data, err := json.MarshalIndent(p.settings(backend), "", "  ")
	if err != nil {
		return nil, err
	}
	if err = os.WriteFile(file, data, 0o600); err != nil {
		return nil, err
	}
	if err = p.spawn(file); err != nil {
		return nil, err
	}
	return p, p.waitReady(ctx)
}

// settings is Dex's configuration file.
func (p *Provider) settings(listen string) map[string]any {
	var clients []map[string]any
	for _, c := range p.cfg.Clients {
		client := map[string]any{"id": c.ID, "name": c.ID, "redirectURIs": c.RedirectURIs}
		if c.Secret == "" {
			client["public"] = true
		} else {
			client["secret"] = c.Secret
		}
		clients = append(clients, client)
	}
	return map[string]any{
		"issuer":   p.Issuer,
		"storage":  map[string]any{"type": "memory"},
		"web":      map[string]any{"http": listen},
		"logger":   map[string]any{"level": "info", "format": "json"},
		"oauth2":   map[string]any{"skipApprovalScreen": true},
		"expiry":   map[string]any{"idTokens": p.cfg.TokenLifetime.String(), "deviceRequests": "5m"},
		"frontend": map[string]any{"dir": p.cfg.WebDir},
		// Signs in whoever the request's headers name: see Browser.
		"connectors": []any{map[string]any{"type": "authproxy", "id": connectorID, "name": "Headers", "config": map[string]any{
			"userHeader": headerUser, "emailHeader": headerEmail, "groupHeader": headerGroups,
		}}},
		"staticClients": clients,
	}
}

// spawn starts Dex from a thread that lives as long as Dex does: the parent death
// signal is bound to the thread, not to the process (prctl(2)).
func (p *Provider) spawn(file string) error {
	log, err := os.Create(filepath.Join(p.cfg.Dir, "dex.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(p.cfg.Binary, "serve", file)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own: Ctrl-C at a terminal is for whoever started it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("dex: %w", err)
	}
	p.PID, p.done = p.cmd.Process.Pid, done
	return nil
}

func (p *Provider) waitReady(ctx context.Context) error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		resp, err := client.Get(p.Issuer + "/.well-known/openid-configuration")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.done:
			return fmt.Errorf("dex: it ended at once: see %s", filepath.Join(p.cfg.Dir, "dex.log"))
		case <-ctx.Done():
			return fmt.Errorf("dex: it does not answer: see %s: %w", filepath.Join(p.cfg.Dir, "dex.log"), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends Dex and waits until it is gone. It may be called again.
func (p *Provider) Stop() error {
	if p.front != nil {
		p.front.Close()
		<-p.served
	}
	if p.done == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("dex: %w", err)
	}
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill() // it may have ended just now
		<-p.done
	}
	return nil
}

// freeAddress returns a loopback address that nobody listens on just now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), nil
}
