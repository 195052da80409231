package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/redirect"
)

// gcPercent keeps the agent's heap close to what it uses: memory of a node is the
// node's, and the agent allocates little on its hot path.
const gcPercent = 50

// drainTimeout is how long a stopping agent waits for flows to become idle.
const drainTimeout = 20 * time.Second

func agentCommand() *cli.Command {
	return &cli.Command{
		Name:  "agent",
		Usage: "the node's daemon: eBPF, proxy, and all that one machine needs (root)",
		Description: "Logs JSON lines to stderr; ready when `weir status` exits 0. SIGHUP reloads the policy. SIGTERM drains and exits with the hooks\n" +
			"in place: connections to protected backends are then refused. --uninstall takes the hooks out.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "configuration `FILE`", EnvVars: []string{"WEIR_CONFIG"}},
			&cli.BoolFlag{Name: "uninstall", Usage: "take out every hook, pin and cgroup that agents on this configuration left, and exit"},
		},
		Action: func(c *cli.Context) error {
			if os.Geteuid() != 0 {
				return errors.New("the agent loads eBPF programs and enters network namespaces: run it as root")
			}
			cfg, err := loadConfig(c)
			if err != nil {
				return err
			}
			if c.Bool("uninstall") {
				return uninstall(cfg)
			}
			log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("node", cfg.Node)
			return runAgent(c.Context, cfg, log)
		},
	}
}

func uninstall(cfg *config.Config) error {
	if err := redirect.Uninstall(cfg.Intercept.BPFFS); err != nil {
		return fmt.Errorf("take the hooks out: %w", err)
	}
	fmt.Println("the hooks are out; connections go where they always went")
	return nil
}

// runAgent runs the agent until ctx ends, drains it and takes it down in the
// order opposite to its start. The hooks stay.
func runAgent(ctx context.Context, cfg *config.Config, log *slog.Logger) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	a := &agent{cfg: cfg, log: log, started: time.Now()}
	// Whatever was started is stopped, last first, also when a later step fails.
	defer func() { err = errors.Join(err, a.stopAll()) }()
	if err := a.start(ctx); err != nil {
		log.Error("weir cannot start", "error", err)
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	log.Info("weir is ready", "version", version, "socket", cfg.RunDir)
	for {
		select {
		case <-hup:
			if _, err := a.policy.Reload(); err != nil {
				log.Error("the policy could not be loaded; the one before stays in force", "error", err)
			}
		case err := <-a.failed:
			log.Error("weir must stop", "error", err)
			return err
		case <-ctx.Done():
			log.Info("weir is stopping: no new flows, running ones are drained", "grace", drainTimeout.String())
			a.drain()
			return nil
		}
	}
}

// drain refuses new connections and lets the running flows come to an end.
func (a *agent) drain() {
	a.ready.Store(false)
	a.redirect.StopAccepting()
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	a.sessions.Live().Drain(ctx)
}
