package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/charmbracelet/x/term"
	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/control"
)

// arguments returns a command's arguments, and takes flags that come after them too
// (`approve ID --reason TEXT`): the flag package stops at the first argument.
func arguments(c *cli.Context) ([]string, error) {
	var plain []string
	rest := c.Args().Slice()
	for len(rest) > 0 {
		if rest[0] == "-" || !strings.HasPrefix(rest[0], "-") {
			plain, rest = append(plain, rest[0]), rest[1:]
			continue
		}
		set := flag.NewFlagSet(c.Command.Name, flag.ContinueOnError)
		set.SetOutput(io.Discard)
		for _, f := range c.Command.Flags {
			if err := f.Apply(set); err != nil {
				return nil, err
			}
		}
		if err := set.Parse(rest); err != nil {
			return nil, usageError(c, err, true)
		}
		if err := adopt(c, set); err != nil {
			return nil, err
		}
		rest = set.Args()
	}
	return plain, nil
}

// adopt sets what a flag set has been given, under each of a flag's names.
func adopt(c *cli.Context, set *flag.FlagSet) error {
	var errs []error
	set.Visit(func(given *flag.Flag) {
		for _, f := range c.Command.Flags {
			for _, name := range f.Names() {
				if name != given.Name {
					continue
				}
				for _, alias := range f.Names() {
					errs = append(errs, c.Set(alias, given.Value.String()))
				}
			}
		}
	})
	return errors.Join(errs...)
}

// oneID is the one argument of most of the commands: an id, or the end of one.
func oneID(c *cli.Context) (string, error) {
	args, err := arguments(c)
	if err != nil {
		return "", err
	}
	if len(args) != 1 || args[0] == "" {
		return "", usagef("`weir approvals %s` takes one ID; `weir approvals list` shows those that there are", c.Command.Name)
	}
	return args[0], nil
}

// fullIDOf completes an id of which only the end, or the beginning, was given.
func fullIDOf(ctx context.Context, agent *control.Client, id string) (string, error) {
	id = strings.ToUpper(id)
	if len(id) >= fullID {
		return id, nil
	}
	if len(id) < minShortID {
		return "", usagef("%s: give the whole ID, or the last %d characters of it at least", id, minShortID)
	}
	var all []approval.Request
	if err := agent.Call(ctx, http.MethodGet, "/v1/approvals?all=1", nil, &all); err != nil {
		return "", err
	}
	var found []string
	for i := range all {
		if strings.HasSuffix(all[i].ID, id) || strings.HasPrefix(all[i].ID, id) {
			found = append(found, all[i].ID)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("there is no request whose ID begins or ends with %s; `weir approvals list --all` shows those that there are", id)
	case 1:
		return found[0], nil
	}
	const shown = 5
	return "", usagef("%d requests have an ID that begins or ends with %s; give more of it: %s", len(found), id, strings.Join(found[:min(shown, len(found))], " "))
}

// maxTokenFile bounds a file with an ID token, bytes.
const maxTokenFile = 64 << 10

// readToken reads an ID token from a file, "-" for the standard input.
func readToken(path string, stdin io.Reader) (string, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("read the ID token: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxTokenFile+1))
	token := strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the ID token: %w", err)
	case len(b) > maxTokenFile:
		return "", fmt.Errorf("%s is longer than %d bytes: it holds no ID token", path, maxTokenFile)
	case token == "":
		return "", fmt.Errorf("%s holds no ID token: it is empty", path)
	}
	return token, nil
}

// terminalWidth is that of the terminal at f in cells, 0 when there is none.
func terminalWidth(f *os.File) int {
	if !term.IsTerminal(f.Fd()) {
		return 0
	}
	width, _, err := term.GetSize(f.Fd())
	if err != nil {
		return 0
	}
	return width
}

// denied gives a refusal its exit status.
func denied(err error) error {
	var refusal *control.Error
	if errors.As(err, &refusal) && refusal.Status == http.StatusForbidden {
		return cli.Exit(clean(refusal.Message), exitDenied)
	}
	return err
}
