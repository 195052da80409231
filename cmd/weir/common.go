package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/control"
)

const defaultConfig = "/etc/weir/weir.yaml"

// outputFlag is -o of every command that lists or shows.
func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FORMAT`: text or json", Value: "text"}
}

// wantJSON reads -o.
func wantJSON(c *cli.Context) (bool, error) {
	switch o := c.String("output"); o {
	case "json":
		return true, nil
	case "text", "":
		return false, nil
	default:
		return false, usagef("-o %s: the formats are text and json", o)
	}
}

func usagef(format string, args ...any) error {
	return cli.Exit(fmt.Sprintf(format, args...), exitUsage)
}

func usageError(c *cli.Context, err error, _ bool) error {
	name := "weir"
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != "weir" {
		name = "weir " + c.Command.Name
	}
	return usagef("%v; see `%s --help`", err, name)
}

func prefixed(text string) string {
	if strings.HasPrefix(text, "weir:") {
		return text
	}
	return "weir: " + text
}

// configFile is --config, which the agent also takes behind its name.
func configFile(c *cli.Context) string {
	for _, level := range c.Lineage() {
		if level.IsSet("config") {
			return level.String("config")
		}
	}
	return defaultConfig
}

// loadConfig reads the configuration that the command line names.
func loadConfig(c *cli.Context) (*config.Config, error) {
	path := configFile(c)
	cfg, err := config.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration at %s; name one with --config or WEIR_CONFIG", path)
	}
	return cfg, err
}

// runDir is where the agent's socket is: the flag, the environment, else the
// configuration's, else the default. A user who may not read the configuration
// gets the default.
func runDir(c *cli.Context) string {
	if dir := c.String("run-dir"); dir != "" {
		return dir
	}
	if cfg, err := config.Load(configFile(c)); err == nil {
		return cfg.RunDir
	}
	return config.DefaultRunDir
}

func client(c *cli.Context) *control.Client { return control.NewClient(runDir(c)) }

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func table(w io.Writer, header string, rows func(row func(cells ...any))) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, header)
	rows(func(cells ...any) {
		for i, cell := range cells {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, clean(fmt.Sprint(cell)))
		}
		fmt.Fprintln(tw)
	})
	return tw.Flush()
}

// clean keeps control characters that a process or a statement chose out of the
// terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}

// or is s, or a dash where there is nothing to show.
func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago is a duration since t as people say it.
func ago(t time.Time) string {
	d := time.Since(t).Round(time.Second)
	if d < 0 {
		d = 0
	}
	return d.String()
}

func readFileTrimmed(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
