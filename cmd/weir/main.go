// Command weir is the one binary of Weir: the agent of a node, and the commands
// that people, CI jobs and auditors type. One file a subcommand; this package is
// the only place that wires the others together, and it decides nothing itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/sqlparse"
)

// version is set by the linker (make build).
var version = "dev"

// Exit statuses (contract section 1).
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitDenied   = 3
	exitUnproven = 4 // verification failed
)

func main() {
	sqlparse.ChildMain() // returns unless this process is a parser child
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args)
	stop()
	os.Exit(code)
}

// run is the whole command line; it returns the exit status.
func run(ctx context.Context, args []string) int {
	err := app().RunContext(ctx, args)
	if err == nil {
		return exitDone
	}
	code := exitFailed
	var coded cli.ExitCoder
	if errors.As(err, &coded) {
		code = coded.ExitCode()
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, prefixed(text))
	}
	return code
}

func app() *cli.App {
	a := &cli.App{
		Name:  "weir",
		Usage: "a transparent access gateway for Linux nodes",
		Description: "weir takes a node's outbound database, Kubernetes, SSH and HTTP connections, binds each to a verified\n" +
			"person or workload, decides every action, masks what they may not read, and keeps a tamper-evident record.\n\n" +
			"People type: weir login, weir whoami, weir exec.  Operators: weir agent, status, flows, doctor, policy, config.\n" +
			"Auditors: weir audit, weir evidence.",
		Version:              version,
		HideVersion:          true,
		EnableBashCompletion: true,
		Suggest:              true,
		ExitErrHandler:       func(*cli.Context, error) {},
		OnUsageError:         usageError,
		CommandNotFound:      func(c *cli.Context, name string) {},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("there is no command %q; `weir --help` lists them", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "configuration `FILE`", EnvVars: []string{"WEIR_CONFIG"}, Value: defaultConfig},
			&cli.StringFlag{Name: "run-dir", Usage: "`DIR` of the agent's socket (default: the configuration's run_dir)", EnvVars: []string{"WEIR_RUN_DIR"}},
		},
		Commands: []*cli.Command{
			agentCommand(),
			statusCommand(),
			demoCommand(),
			loginCommand(),
			logoutCommand(),
			whoamiCommand(),
			execCommand(),
			flowsCommand(),
			approvalsCommand(),
			auditCommand(),
			sessionsCommand(),
			evidenceCommand(),
			policyCommand(offlineSQL),
			configCommand(),
			trustCommand(),
			doctorCommand(),
			versionCommand(),
			completionCommand(),
		},
	}
	for _, c := range a.Commands {
		prepare(c)
	}
	return a
}

// prepare gives every command the same behaviour on usage errors, and a group
// of subcommands an error for a name that is none of them.
func prepare(c *cli.Command) {
	c.OnUsageError = usageError
	for _, sub := range c.Subcommands {
		prepare(sub)
	}
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = func(cc *cli.Context) error {
			if cc.Args().Present() {
				return usagef("`weir %s` has no command %q; see `weir %s --help`", c.Name, cc.Args().First(), c.Name)
			}
			return cli.ShowSubcommandHelp(cc)
		}
	}
}
