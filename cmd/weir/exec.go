package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/control"
)

// Exit statuses of a shell for a command that cannot be run (POSIX 2.8.2).
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

func execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run a command, and its children, bound to a token's identity",
		ArgsUsage: "[--] CMD ARG...",
		Description: "The command gets a cgroup of its own that is bound to the verified token; nobody else is. Without a flag it is bound to\n" +
			"the caller's login. With --token-env the variable is taken out of the command's environment. The exit status is CMD's.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "token-file", Usage: "read the ID token from `FILE` (- for standard input)"},
			&cli.StringFlag{Name: "token-env", Usage: "read the ID token from the environment variable `NAME`"},
		},
		UseShortOptionHandling: false,
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			if len(args) > 0 && args[0] == "--" {
				args = args[1:]
			}
			if len(args) == 0 {
				return usagef("weir exec needs a command; see `weir exec --help`")
			}
			path, err := exec.LookPath(args[0])
			if err != nil {
				code := exitNotExecutable
				if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
					code = exitNotFound
				}
				return cli.Exit(fmt.Sprintf("exec %s: %v", args[0], errors.Unwrap(err)), code)
			}
			token, env, err := execToken(c)
			if err != nil {
				return err
			}
			// From here on this process is in the new cgroup, and so is what it becomes.
			if err := client(c).Call(c.Context, http.MethodPost, "/v1/exec", control.Bind{Token: token}, nil); err != nil {
				return err
			}
			err = syscall.Exec(path, args, env)
			return cli.Exit(fmt.Sprintf("exec %s: %v", args[0], err), exitNotExecutable)
		},
	}
}

// execToken reads the token and returns the command's environment without it.
func execToken(c *cli.Context) (token string, env []string, err error) {
	file, name := c.String("token-file"), c.String("token-env")
	env = os.Environ()
	switch {
	case file != "" && name != "":
		return "", nil, usagef("--token-file and --token-env exclude each other")
	case file == "-":
		file = "/dev/stdin"
		fallthrough
	case file != "":
		if token, err = readFileTrimmed(file); err != nil {
			return "", nil, fmt.Errorf("read the token: %w", err)
		}
	case name != "":
		if token = os.Getenv(name); token == "" {
			return "", nil, usagef("the environment variable %s is empty; it should hold the ID token", name)
		}
		if err := os.Unsetenv(name); err != nil {
			return "", nil, err
		}
		env = os.Environ()
	default:
		return "", env, nil
	}
	if token == "" {
		return "", nil, fmt.Errorf("the token file %s is empty", file)
	}
	return token, env, nil
}
