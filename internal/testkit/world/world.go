// Package world starts everything that an end-to-end test needs, once: a
// PostgreSQL with the shop, an identity provider with people signed in, and a node
// with the agent that is built from the tree. Stop takes all of it out again.
package world

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/internal/testkit/dex"
	"github.com/weirproxy/weir/internal/testkit/node"
	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// startTimeout is for broken code, not for slow machines.
const startTimeout = 5 * time.Minute

// Config says what world to start.
type Config struct {
	People   map[string][]string // who is signed in, with their groups
	Policy   string
	InitSQL  string                                    // see postgres.Config
	Issuers  func(ctx context.Context, w *World) error // may start more providers and add to MoreIssuers; nil: none
	Backends string                                    // more entries for the backends of weir.yaml
	// MaxConnections of the database; "": 300.
	MaxConnections string
	Settings       map[string]string     // more of postgresql.conf
	Console        string                // the console's section of weir.yaml; "": it does not listen
	Extra          func(w *World) string // more of weir.yaml, once the rest runs; nil: nothing
}

// World is what runs.
type World struct {
	Dir   string // with a folder "out" for what tests write
	Weir  string // the binary
	DB    *postgres.Server
	IDP   *dex.Provider
	Node  *node.Node
	Files map[string]string // person -> file with their ID token

	MoreIssuers []*dex.Provider
}

// Start starts a world. On error nothing stays behind.
func Start(cfg Config) (_ *World, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("these tests attach eBPF programs: run them as root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	w := &World{Files: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Stop())
		}
	}()
	if err := w.makeDirs(); err != nil {
		return nil, err
	}
	w.Weir = filepath.Join(w.Dir, "weir")
	build := exec.CommandContext(ctx, "go", "build", "-o", w.Weir, "github.com/weirproxy/weir/cmd/weir")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build weir: %w: %s", err, out)
	}
	// The server logs every statement, with the flow's id by its application_name.
	settings := map[string]string{
		"log_statement": "all", "log_line_prefix": "[%p|%a|%e] ", "max_connections": cmp.Or(cfg.MaxConnections, "300"), "log_min_duration_statement": "-1",
	}
	maps.Copy(settings, cfg.Settings)
	w.DB, err = postgres.Start(ctx, postgres.Config{Dir: filepath.Join(w.Dir, "db"), Shop: true, InitSQL: cfg.InitSQL, Settings: settings})
	if err != nil {
		return nil, err
	}
	if w.IDP, err = dex.Start(ctx, dex.Config{Dir: filepath.Join(w.Dir, "idp"), TokenLifetime: time.Hour}); err != nil {
		return nil, err
	}
	if cfg.Issuers != nil {
		if err := cfg.Issuers(ctx, w); err != nil {
			return nil, err
		}
	}
	if err := w.signIn(ctx, cfg.People); err != nil {
		return nil, err
	}
	text, err := w.config(cfg.Backends)
	if err != nil {
		return nil, err
	}
	if cfg.Console == "" {
		cfg.Console = `{listen: ""}`
	}
	text += "console: " + cfg.Console + "\n"
	if cfg.Extra != nil {
		text += cfg.Extra(w)
	}
	w.Node, err = node.Start(ctx, node.Config{Dir: filepath.Join(w.Dir, "node"), Weir: w.Weir, Policy: cfg.Policy, Config: text})
	return w, err
}

// makeDirs keeps the path short, since a unix socket lies in it, and open, since
// PostgreSQL runs as its own user.
func (w *World) makeDirs() error {
	var err error
	if w.Dir, err = os.MkdirTemp("", "weir-world-"); err != nil {
		return err
	}
	if err := os.Chmod(w.Dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"db", "idp", "node", "out"} {
		if err := os.Mkdir(filepath.Join(w.Dir, d), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) signIn(ctx context.Context, people map[string][]string) error {
	for name, groups := range people {
		token, err := w.IDP.Token(ctx, name, name+"@example.com", groups)
		if err != nil {
			return fmt.Errorf("sign %s in: %w", name, err)
		}
		w.Files[name] = filepath.Join(w.Dir, name+".jwt")
		if err := os.WriteFile(w.Files[name], []byte(token), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// config is the rest of weir.yaml: dba signs in as weir_dba, everybody else as
// weir_app.
func (w *World) config(backends string) (string, error) {
	files := map[string]string{}
	for _, role := range []string{postgres.DBARole, postgres.AppRole} {
		files[role] = filepath.Join(w.Dir, role+".password")
		if err := os.WriteFile(files[role], []byte(w.DB.Password(role)), 0o600); err != nil {
			return "", err
		}
	}
	text := "identity:\n  issuers:\n"
	for _, p := range append([]*dex.Provider{w.IDP}, w.MoreIssuers...) {
		text += fmt.Sprintf("    - {issuer: %q, client_id: weir, kind: human}\n", p.Issuer)
	}
	return text + fmt.Sprintf(`backends:
  - name: shop
    protocol: postgres
    addresses: ["127.0.0.1:%[1]d", "[::1]:%[1]d"]
    credentials:
      - {groups: [dba], username: %[2]s, password: "file:%[3]s"}
      - {username: %[4]s, password: "file:%[5]s"}
%[6]s`, w.DB.Port, postgres.DBARole, files[postgres.DBARole], postgres.AppRole, files[postgres.AppRole], backends), nil
}

// Stop ends everything; files go when all of it ended well.
func (w *World) Stop() error {
	if w == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if w.Node != nil {
		errs = append(errs, w.Node.Stop(ctx))
	}
	for _, p := range append(w.MoreIssuers, w.IDP) {
		if p != nil {
			errs = append(errs, p.Stop())
		}
	}
	if w.DB != nil {
		errs = append(errs, w.DB.Stop())
	}
	if errors.Join(errs...) == nil && w.Dir != "" {
		errs = append(errs, os.RemoveAll(w.Dir))
	}
	return errors.Join(errs...)
}
