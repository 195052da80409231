package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/testkit/dex"
	"github.com/weirproxy/weir/internal/testkit/host"
	"github.com/weirproxy/weir/internal/testkit/node"
	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// demoTimeout bounds the whole demo; it takes about ten seconds.
const demoTimeout = 5 * time.Minute

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "the whole story on this machine, with a real PostgreSQL and a real identity provider",
		Description: "Starts its own PostgreSQL, identity provider and agent, walks through what weir does, and takes everything out again.\n" +
			"Needs root, the Debian package postgresql, and bin/dex (`make demo` builds it). Exits 0 only if every step held.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "keep", Usage: "leave it running until Ctrl-C, to play with"},
			&cli.StringFlag{Name: "dir", Usage: "keep files in `DIR` (default: a temporary one, removed at the end)"},
		},
		Action: func(c *cli.Context) error {
			if os.Geteuid() != 0 {
				return errors.New("the demo attaches eBPF programs and makes cgroups: run it as root")
			}
			d := &demo{keep: c.Bool("keep"), dir: c.String("dir")}
			ctx, cancel := context.WithTimeout(c.Context, demoTimeout)
			err := d.run(ctx)
			cancel()
			if err == nil && d.keep {
				d.wait(c.Context)
			}
			if stopErr := d.stop(); err == nil {
				err = stopErr
			}
			if err != nil {
				return fmt.Errorf("the demo failed: %w", err)
			}
			return nil
		},
	}
}

// demo owns everything that it starts.
type demo struct {
	keep    bool
	dir     string
	own     bool // dir is ours to remove
	started time.Time

	console uint16 // port
	db      *postgres.Server
	idp     *dex.Provider
	node    *node.Node
}

type demoStep struct {
	title string
	run   func(ctx context.Context) error
}

func (d *demo) run(ctx context.Context) error {
	d.started = time.Now()
	steps := []demoStep{
		{"A PostgreSQL server with a small shop: orders, customers, payments with card numbers", d.startDatabase},
		{"An identity provider: Ann is a developer, Dora a database administrator", d.startProvider},
		{"The weir agent, its hooks on the cgroup of this demo's processes", d.startNode},
		{"Ann's psql, unchanged: the server's own address, no password", d.annReads},
		{"The card numbers that Ann sees are masked", d.annIsMasked},
		{"Nor can she find them out by asking: a test of a masked column is refused, equality with a value is counted", d.annCannotGuess},
		{"Dora sees them whole: she is exempt from the mask", d.doraSees},
		{"Ann's DROP TABLE is denied, by name of the rule; the table is still there", d.dropDenied},
		{"Her DELETE without WHERE waits for another person. Not herself: Dora, who signs in for this very request", d.approved},
		{"A process that nobody signed in for is refused, with the right password too", d.nobodyRefused},
		{"Connecting to the proxy itself, around the hooks, gets nothing", d.aroundRefused},
		{"kill -9 of the agent: connections are refused, nothing goes round it", d.killed},
		{"The agent is back, and so is Ann", d.restarted},
		{"The log tells who did what", d.logTells},
		{"The log verifies; with one byte changed it does not", d.logVerifies},
	}
	for i, s := range steps {
		fmt.Printf("\n%2d. %s\n", i+1, s.title)
		if err := s.run(ctx); err != nil {
			fmt.Println("    ✗", err)
			return fmt.Errorf("step %d, %s: %w", i+1, s.title, err)
		}
		fmt.Println("    ✓")
	}
	fmt.Printf("\nAll %d steps held, in %s.\n", len(steps), time.Since(d.started).Round(100*time.Millisecond))
	return nil
}

const demoPolicy = `policies:
  - name: shop
    backends: [shop]
    rules:
      - name: developers read the shop
        groups: [developer]
        actions: [connect, select]
        resources: ["shop.*"]
        effect: allow
      - name: administrators do everything
        groups: [dba]
        effect: allow
      - name: carts may go
        groups: [developer]
        actions: [delete]
        resources: ["shop.carts"]
        effect: allow
      - name: all of them need a second person
        actions: [delete]
        when: '!action.has_where'
        effect: approve
        approve: {groups: [dba], timeout: 10m}
      - name: no drops
        groups: [developer]
        actions: [drop, truncate]
        effect: deny
    masks:
      - name: cards
        columns: ["shop.payments.card_number"]
        detect: [payment_card]
        with: last4
        unless_groups: [dba]
    tests:
      - {user: ann@example.com, groups: [developer], sql: "SELECT * FROM shop.orders", expect: allow}
      - {user: ann@example.com, groups: [developer], sql: "DROP TABLE shop.orders", expect: deny}
`

func (d *demo) startDatabase(ctx context.Context) error {
	if d.dir == "" {
		dir, err := os.MkdirTemp("", "weir-demo-")
		if err != nil {
			return err
		}
		d.dir, d.own = dir, true
	}
	// PostgreSQL's user must get through to its own folder.
	for _, dir := range []string{d.dir, d.path("db"), d.path("idp"), d.path("node")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(d.dir, 0o755); err != nil {
		return err
	}
	var err error
	d.db, err = postgres.Start(ctx, postgres.Config{Dir: d.path("db"), Shop: true})
	if err == nil {
		d.say("PostgreSQL on %s", d.db.Addr())
	}
	return err
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) say(format string, args ...any) {
	for line := range strings.Lines(strings.TrimRight(fmt.Sprintf(format, args...), "\n") + "\n") {
		fmt.Print("      ", line)
	}
}

func (d *demo) startProvider(ctx context.Context) error {
	var err error
	d.idp, err = dex.Start(ctx, dex.Config{Dir: d.path("idp"), TokenLifetime: time.Hour, People: []dex.Person{
		{User: "ann", Email: "ann@example.com", Groups: []string{"developer"}},
		{User: "dora", Email: "dora@example.com", Groups: []string{"dba"}},
	}})
	if err != nil {
		return err
	}
	d.say("OpenID Connect issuer %s", d.idp.Issuer)
	for name, groups := range map[string][]string{"ann": {"developer"}, "dora": {"dba"}} {
		token, err := d.idp.Token(ctx, name, name+"@example.com", groups)
		if err != nil {
			return fmt.Errorf("sign %s in: %w", name, err)
		}
		if err := os.WriteFile(d.token(name), []byte(token), 0o600); err != nil {
			return err
		}
	}
	d.say("Ann and Dora have signed in; their ID tokens are in files, as a CI job would have its own")
	return nil
}

func (d *demo) token(name string) string { return d.path(name + ".jwt") }

func (d *demo) startNode(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for role, user := range map[string]string{"app": postgres.AppRole, "dba": postgres.DBARole} {
		if err := os.WriteFile(d.path(role+".password"), []byte(d.db.Password(user)), 0o600); err != nil {
			return err
		}
	}
	if d.console, err = host.FreePort(); err != nil {
		return err
	}
	d.node, err = node.Start(ctx, node.Config{Dir: d.path("node"), Weir: self, Policy: demoPolicy, Config: fmt.Sprintf(`identity:
  issuers: [{issuer: %q, client_id: weir, kind: human}]
backends:
  - name: shop
    protocol: postgres
    addresses: ["127.0.0.1:%[2]d", "[::1]:%[2]d"]
    credentials:
      - {groups: [dba], username: %s, password: "file:%s"}
      - {username: %s, password: "file:%s"}
console: {listen: "127.0.0.1:%[7]d"}
`, d.idp.Issuer, d.db.Port, postgres.DBARole, d.path("dba.password"), postgres.AppRole, d.path("app.password"), d.console)})
	if err != nil {
		return err
	}
	out, err := d.node.Weir(ctx, "status").Output()
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(out), "\n")
	d.say("$ weir status\n%s", first)
	return nil
}

// psql runs psql as somebody ("" for nobody) against a port of this machine.
func (d *demo) psql(ctx context.Context, who string, port uint16, sql string) (string, error) {
	args := []string{"-X", "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-d", postgres.ShopDatabase, "-c", sql}
	cmd := exec.CommandContext(ctx, "psql", args...)
	prompt := "$ psql"
	if who != "" {
		cmd = d.node.As(ctx, d.token(who), "psql", args...)
		prompt = fmt.Sprintf("$ weir exec --token-file %s.jwt -- psql", who)
	}
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=20", "LC_ALL=C")
	if who == "" {
		cmd.Env = append(cmd.Env, "PGUSER="+postgres.DBARole, "PGPASSWORD="+d.db.Password(postgres.DBARole))
	}
	out, err := d.node.Run(cmd)
	d.say("%s -h 127.0.0.1 -p %d shop -c %q\n%s", prompt, port, sql, out)
	return out, err
}

const (
	demoCards     = "SELECT customer_id, card_number, amount FROM shop.payments ORDER BY id LIMIT 3"
	demoFirstCard = "4111 1111 1111 1111"
	demoMasked    = "**** **** **** 1111"
)

func (d *demo) annReads(ctx context.Context) error {
	out, err := d.psql(ctx, "ann", d.db.Port, "SELECT id, item, total FROM shop.orders ORDER BY id LIMIT 3")
	return expect(out, err, "kettle", "(3 rows)")
}

func (d *demo) annIsMasked(ctx context.Context) error {
	out, err := d.psql(ctx, "ann", d.db.Port, demoCards)
	if err == nil && strings.Contains(out, demoFirstCard) {
		return errors.New("a whole card number came through")
	}
	if err := expect(out, err, demoMasked); err != nil {
		return err
	}
	out, err = d.psql(ctx, "ann", d.db.Port, "SELECT upper(card_number) AS nice_try FROM shop.payments ORDER BY id LIMIT 1")
	if err == nil && strings.Contains(out, demoFirstCard) {
		return errors.New("a whole card number came through an expression")
	}
	return expect(out, err, "nice_try")
}

func (d *demo) annCannotGuess(ctx context.Context) error {
	out, err := d.psql(ctx, "ann", d.db.Port, "SELECT id FROM shop.payments WHERE card_number LIKE '4%'")
	if err == nil || !strings.Contains(out, `weir: mask "`) {
		return fmt.Errorf("a test of a masked column passed: %s", out)
	}
	out, err = d.psql(ctx, "ann", d.db.Port, "SELECT id FROM shop.payments WHERE card_number = '"+demoFirstCard+"'")
	return expect(out, err, "(1 row)")
}

func (d *demo) doraSees(ctx context.Context) error {
	out, err := d.psql(ctx, "dora", d.db.Port, demoCards)
	return expect(out, err, demoFirstCard)
}

func (d *demo) dropDenied(ctx context.Context) error {
	out, err := d.psql(ctx, "ann", d.db.Port, "DROP TABLE shop.orders")
	if err == nil {
		return errors.New("psql says that it worked")
	}
	if err := expect(out, nil, "weir:", "no drops"); err != nil {
		return err
	}
	n, err := d.db.Query(ctx, postgres.ShopDatabase, "SELECT count(*) FROM shop.orders")
	if err != nil {
		return err
	}
	d.say("the server itself counts %s orders", strings.TrimSpace(n))
	return nil
}

func (d *demo) nobodyRefused(ctx context.Context) error {
	out, err := d.psql(ctx, "", d.db.Port, "SELECT 1")
	if err == nil {
		return errors.New("it was let through")
	}
	return expect(out, nil, "FATAL", "weir:", "weir login")
}

func (d *demo) aroundRefused(ctx context.Context) error {
	if out, err := d.psql(ctx, "", d.node.ProxyPort, "SELECT 1"); err == nil {
		return fmt.Errorf("the proxy answered: %s", out)
	}
	return nil
}

func (d *demo) killed(ctx context.Context) error {
	d.say("$ kill -9 %d", d.node.AgentPID())
	d.node.Kill()
	out, err := d.psql(ctx, "", d.db.Port, "SELECT 1")
	if err == nil {
		return errors.New("a connection went round the dead agent")
	}
	return expect(out, nil, "Connection refused")
}

func (d *demo) restarted(ctx context.Context) error {
	if err := d.node.StartAgent(ctx); err != nil {
		return err
	}
	out, err := d.psql(ctx, "ann", d.db.Port, "SELECT count(*) FROM shop.orders")
	return expect(out, err, "100")
}

func (d *demo) logTells(ctx context.Context) error {
	out, err := d.node.Weir(ctx, "audit", "query", "--kind", "action", "--user", "ann@example.com", "--verdict", "deny").Output()
	d.say("$ weir audit query --kind action --user ann@example.com --verdict deny\n%s", out)
	return expect(string(out), err, "DROP TABLE shop.orders", "ann@example.com")
}

func (d *demo) logVerifies(ctx context.Context) error {
	d.node.Terminate() // a copy of a log at rest
	out, err := d.node.Weir(ctx, "audit", "verify").CombinedOutput()
	d.say("$ weir audit verify\n%s", out)
	if err != nil {
		return fmt.Errorf("the log does not verify: %w", err)
	}
	forged := d.path("forged")
	if err := os.CopyFS(forged, os.DirFS(d.node.StateDir())); err != nil {
		return err
	}
	if err := flipByte(filepath.Join(forged, "log")); err != nil {
		return err
	}
	out, err = d.node.Weir(ctx, "audit", "verify", "--dir", forged).CombinedOutput()
	d.say("(a copy of the log, one byte in its middle changed)\n$ weir audit verify --dir forged\n%s", out)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitUnproven {
		return fmt.Errorf("a forged log was not found out: %v", err)
	}
	if d.keep {
		return d.node.StartAgent(ctx)
	}
	return nil
}

// flipByte changes one byte in the middle of the largest file below dir.
func flipByte(dir string) error {
	var largest string
	var size int64
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() > size {
			largest, size = p, info.Size()
		}
		return err
	})
	if err != nil {
		return err
	}
	b, err := os.ReadFile(largest)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(largest, b, 0o600)
}

// expect fails unless err is nil and out holds all of the words.
func expect(out string, err error, words ...string) error {
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			return fmt.Errorf("the answer does not hold %q", w)
		}
	}
	return nil
}

// wait shows how to play with what runs, until Ctrl-C.
func (d *demo) wait(ctx context.Context) {
	fmt.Printf(`
It keeps running until Ctrl-C. In another terminal, as root:

  export WEIR_CONFIG=%s
  weir status
  echo $$ > %s/cgroup.procs        # this shell's connections are now taken
  psql -h 127.0.0.1 -p %d shop     # refused: nobody is signed in
  weir login                       # then again
  weir approvals watch             # where requests for approval come in

and the console: http://127.0.0.1:%d

`, d.node.ConfigFile(), d.node.Clients, d.db.Port, d.console)
	<-ctx.Done()
}

func (d *demo) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if d.node != nil {
		errs = append(errs, d.node.Stop(ctx))
	}
	if d.idp != nil {
		errs = append(errs, d.idp.Stop())
	}
	if d.db != nil {
		errs = append(errs, d.db.Stop())
	}
	if d.own && errors.Join(errs...) == nil {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}
