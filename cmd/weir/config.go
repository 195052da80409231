package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/strictyaml"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "check and show the configuration",
		Subcommands: []*cli.Command{
			{
				Name:      "check",
				Usage:     "check a configuration file; an unknown key is an error with its line",
				ArgsUsage: "[FILE]",
				Description: "Prints ok, or everything that is wrong as FILE:LINE: what; what to do, and exits 1.\n" +
					"Without FILE it checks the one of --config or WEIR_CONFIG. Secrets are not resolved and names not looked up.",
				Flags:  []cli.Flag{outputFlag()},
				Action: checkConfig,
			},
			{
				Name:        "show",
				Usage:       "print the configuration in force, defaults included, without secrets",
				ArgsUsage:   "[FILE]",
				Description: "Header values, webhook paths and commands that print secrets are left out.",
				Flags:       []cli.Flag{outputFlag()},
				Action:      showConfig,
			},
		},
	}
}

// configPath is the one argument, else --config.
func configPath(c *cli.Context) (string, error) {
	switch c.NArg() {
	case 0:
		return c.String("config"), nil
	case 1:
		return c.Args().First(), nil
	}
	return "", usagef("name one file, not %d", c.NArg())
}

func checkConfig(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	path, err := configPath(c)
	if err != nil {
		return err
	}
	cfg, err := config.Load(path)
	if asJSON {
		return reportJSON(c.App.Writer, err, struct {
			OK       bool          `json:"ok"`
			File     string        `json:"file"`
			Problems []fileProblem `json:"problems"`
		}{err == nil, path, problemsOf(err)})
	}
	if err != nil {
		return reportText(c.App.ErrWriter, err)
	}
	_, err = fmt.Fprintf(c.App.Writer, "ok: %s: node %s, %s, %s\n", path, cfg.Node,
		plural(len(cfg.Backends), "backend"), plural(len(cfg.Identity.Issuers), "issuer"))
	return err
}

func showConfig(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	path, err := configPath(c)
	if err != nil {
		return err
	}
	cfg, err := config.Load(path)
	if err != nil {
		return reportText(c.App.ErrWriter, err)
	}
	dump, err := cfg.Dump()
	if err != nil {
		return err
	}
	if !asJSON {
		_, err = c.App.Writer.Write(dump)
		return err
	}
	// The keys in JSON are those of the file.
	var v map[string]any
	if err := yaml.Unmarshal(dump, &v); err != nil {
		return err
	}
	return printJSON(c.App.Writer, v)
}

// fileProblem is one line of a check.
type fileProblem struct {
	File string `json:"file,omitempty"`
	strictyaml.Problem
}

// problemsOf lists what an error of a check is made of.
func problemsOf(err error) []fileProblem {
	list := []fileProblem{}
	var one *strictyaml.Error
	joined, many := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
	case many:
		for _, e := range joined.Unwrap() {
			list = append(list, problemsOf(e)...)
		}
	case errors.As(err, &one):
		for _, p := range one.Problems {
			list = append(list, fileProblem{one.File, p})
		}
	default:
		list = append(list, fileProblem{Problem: strictyaml.Problem{What: err.Error()}})
	}
	return list
}

// reportText writes problems a line each, FILE:LINE: what; what to do, and
// returns the failed exit status.
func reportText(w io.Writer, err error) error {
	for _, p := range problemsOf(err) {
		line := prefixed(p.What)
		if p.File != "" {
			line = p.File + ":" + p.Problem.String()
		}
		fmt.Fprintln(w, line)
	}
	return cli.Exit("", exitFailed)
}

// reportJSON prints v; a check that found something exits with failed.
func reportJSON(w io.Writer, found error, v any) error {
	if err := printJSON(w, v); err != nil {
		return err
	}
	if found != nil {
		return cli.Exit("", exitFailed)
	}
	return nil
}

func plural(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case noun[len(noun)-1] == 'y':
		return fmt.Sprintf("%d %sies", n, noun[:len(noun)-1])
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
