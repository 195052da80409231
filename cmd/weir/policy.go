package main

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // conditions name time zones, and a minimal image has none

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/policy/policystore"
)

func policyCommand(open openSQL) *cli.Command {
	p := policyCLI{open: open}
	return &cli.Command{
		Name:  "policy",
		Usage: "check, test and explain the policy",
		Description: "FILE... together are one policy; without FILE it is that of the configuration (--config, WEIR_CONFIG).\n" +
			"With a configuration named, actions are checked against the protocols of its backends.",
		Subcommands: []*cli.Command{
			{
				Name:      "check",
				Usage:     "compile and type-check, and warn about what is likely not meant",
				ArgsUsage: "[FILE...]",
				Description: "Prints ok and the revision, or everything that is wrong as FILE:LINE: what; what to do, and exits 1.\n" +
					"Warns about rules that can never decide, and about rules whose resources leave an action unrestricted.",
				Flags: []cli.Flag{outputFlag(),
					&cli.BoolFlag{Name: "strict", Usage: "exit 1 on warnings too"}},
				Action: p.check,
			},
			{
				Name:        "test",
				Usage:       "run the cases under tests: in the files",
				ArgsUsage:   "[FILE...]",
				Description: "Prints a table of the cases and exits 1 when one fails. A statement that masks refuse is denied, by the mask's name.",
				Flags:       []cli.Flag{outputFlag(), schemaFlag()},
				Action:      p.test,
			},
			{
				Name:      "explain",
				Usage:     "say why something is allowed, denied or held for approval",
				ArgsUsage: "[FILE...]",
				Description: "Example: weir policy explain --user ann@example.com --groups developer --backend orders --sql 'SELECT * FROM shop.orders'\n" +
					"Says what each rule thinks of each access, what masks make of each column of the result and why, and which columns\n" +
					"are tested at what price. Names without a schema are taken to be in public.",
				Flags: []cli.Flag{outputFlag(), schemaFlag(),
					&cli.StringFlag{Name: "user", Usage: "who; left out: nobody is signed in"},
					&cli.StringSliceFlag{Name: "groups", Usage: "`G,..` of the user"},
					&cli.StringFlag{Name: "kind", Usage: "human, ci, workload or agent", Value: string(flow.Human)},
					&cli.StringFlag{Name: "backend", Usage: "`NAME` of the backend", Required: true},
					&cli.StringFlag{Name: "database", Usage: "`NAME` of the database, for conditions"},
					&cli.StringFlag{Name: "exe", Usage: "`PATH` of the process, for conditions"},
					&cli.TimestampFlag{Name: "now", Usage: "`TIME` of the action (RFC 3339); default: now", Layout: time.RFC3339},
					&cli.StringFlag{Name: "sql", Usage: "`SQL`, one statement or several"},
					&cli.StringFlag{Name: "action", Usage: "`\"VERB RESOURCE\"`, for example \"select shop.orders\""},
					&cli.BoolFlag{Name: "all", Usage: "list rules of other backends and actions too"}},
				Action: p.explain,
			},
		},
	}
}

// schemaFlag names what is known of the database: the commands ask none.
func schemaFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "schema", Usage: "`FILE` of SQL DDL with the tables and views (pg_dump --schema-only); may be repeated"}
}

type policyCLI struct {
	open openSQL
}

// load compiles the files of the command line, else those of the configuration.
// What it finds wrong with the policy comes back as found.
func (p *policyCLI) load(c *cli.Context) (set *policy.Set, protocols map[string]flow.Protocol, found, err error) {
	paths := c.Args().Slice()
	if len(paths) == 0 || c.IsSet("config") {
		cfg, err := loadConfig(c)
		if err != nil {
			if len(paths) == 0 && !c.IsSet("config") {
				return nil, nil, nil, usagef("name policy files, or a configuration with --config: %v", err)
			}
			return nil, nil, nil, err
		}
		protocols = make(map[string]flow.Protocol)
		for _, b := range cfg.Backends {
			protocols[b.Name] = b.Protocol
		}
		if len(paths) == 0 {
			paths = cfg.PolicyFiles
		}
	}
	files, found := policystore.Read(paths)
	if found == nil {
		set, found = policy.Compile(files, policy.Options{Protocols: protocols})
	}
	return set, protocols, found, nil
}

func (p *policyCLI) check(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	set, _, found, err := p.load(c)
	if err != nil {
		return err
	}
	report := struct {
		OK       bool             `json:"ok"`
		Revision string           `json:"revision,omitempty"`
		Policies int              `json:"policies"`
		Rules    int              `json:"rules"`
		Masks    int              `json:"masks"`
		Tests    int              `json:"tests"`
		Problems []fileProblem    `json:"problems"`
		Warnings []policy.Warning `json:"warnings"`
	}{OK: found == nil, Problems: problemsOf(found), Warnings: []policy.Warning{}}
	if found == nil {
		report.Revision = set.Revision()
		report.Warnings = append(report.Warnings, set.Warnings()...)
		report.Policies, report.Rules, report.Masks, report.Tests = set.Counts()
		if c.Bool("strict") && len(report.Warnings) > 0 {
			report.OK, found = false, fmt.Errorf("%s", plural(len(report.Warnings), "warning"))
		}
	}
	if asJSON {
		return reportJSON(c.App.Writer, found, report)
	}
	for _, w := range report.Warnings {
		fmt.Fprintln(c.App.ErrWriter, "warning: "+w.String())
	}
	if found != nil {
		return reportText(c.App.ErrWriter, found)
	}
	_, err = fmt.Fprintf(c.App.Writer, "ok: %s, %s, %s, %s; revision %s\n", plural(report.Policies, "policy"),
		plural(report.Rules, "rule"), plural(report.Masks, "mask"), plural(report.Tests, "test"), report.Revision)
	return err
}

// sql opens the analyser of the command.
func (p *policyCLI) sql(c *cli.Context) (policy.Analyser, func(), error) {
	return p.open(c.Context, c.StringSlice("schema"), func(w string) { fmt.Fprintln(c.App.ErrWriter, "warning: the schema: "+clean(w)) })
}

func (p *policyCLI) test(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	set, protocols, found, err := p.load(c)
	if err != nil {
		return err
	}
	if found != nil {
		return reportText(c.App.ErrWriter, found)
	}
	analyse, closeSQL, err := p.sql(c)
	if err != nil {
		return err
	}
	defer closeSQL()
	results := policy.RunTests(set, analyse, protocols, time.Now())
	var failed error
	bad := 0
	for _, r := range results {
		if !r.OK {
			bad++
			failed = fmt.Errorf("%d of %s failed", bad, plural(len(results), "test"))
		}
	}
	if asJSON {
		return reportJSON(c.App.Writer, failed, struct {
			OK      bool                `json:"ok"`
			Failed  int                 `json:"failed"`
			Results []policy.TestResult `json:"results"`
		}{bad == 0, bad, results})
	}
	if len(results) == 0 {
		_, err = fmt.Fprintln(c.App.Writer, "there are no tests in these files; add some under tests:")
		return err
	}
	err = table(c.App.Writer, "RESULT\tWHERE\tCASE\tEXPECTED\tGOT\tWHY", func(row func(...any)) {
		for _, r := range results {
			row(testRow(r)...)
		}
	})
	if err != nil {
		return err
	}
	if failed != nil {
		return cli.Exit(failed.Error(), exitFailed)
	}
	_, err = fmt.Fprintf(c.App.Writer, "ok: %s\n", plural(len(results), "test"))
	return err
}

func testRow(r policy.TestResult) []any {
	result, expect := "ok", string(r.Expect)
	if !r.OK {
		result = "FAIL"
	}
	if r.WantRule != "" {
		expect += " by " + r.WantRule
	}
	return []any{result, fmt.Sprintf("%s:%d", r.File, r.Line), r.Case, expect, r.Got, r.Reason}
}

func (p *policyCLI) explain(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	in, action, err := explainInput(c)
	if err != nil {
		return err
	}
	set, protocols, found, err := p.load(c)
	if err != nil {
		return err
	}
	if found != nil {
		return reportText(c.App.ErrWriter, found)
	}
	in.Flow.Protocol = protocols[in.Flow.Backend]
	if protocols != nil && in.Flow.Protocol == "" {
		return usagef("the configuration has no backend %q", in.Flow.Backend)
	}
	analyse, closeSQL, err := p.sql(c)
	if err != nil {
		return err
	}
	defer closeSQL()
	list, err := set.ExplainText(in, c.String("sql"), action, analyse)
	if err != nil {
		return fmt.Errorf("the SQL cannot be explained: %w", err)
	}
	if asJSON {
		return printJSON(c.App.Writer, list)
	}
	for i := range list {
		if len(list) > 1 {
			fmt.Fprintf(c.App.Writer, "%sstatement %d of %d: %s\n", strings.Repeat("\n", min(i, 1)), i+1, len(list), clean(list[i].Text))
		}
		if err := list[i].WriteText(c.App.Writer, c.Bool("all")); err != nil {
			return err
		}
	}
	return nil
}

func explainInput(c *cli.Context) (policy.Input, *flow.Action, error) {
	in := policy.Input{Now: time.Now(), Flow: &flow.Flow{Backend: c.String("backend"), Database: c.String("database")}}
	in.Flow.Process.Exe = c.String("exe")
	if t := c.Timestamp("now"); t != nil {
		in.Now = *t
	}
	in.Flow.Start = in.Now
	switch flow.Kind(c.String("kind")) {
	case flow.Human, flow.CI, flow.Workload, flow.Agent:
	default:
		return in, nil, usagef("--kind %s: choose from human, ci, workload, agent", c.String("kind"))
	}
	switch {
	case c.String("user") != "":
		in.Principal = policy.NewPrincipal(c.String("user"), c.StringSlice("groups"), c.String("kind"))
	case len(c.StringSlice("groups")) > 0:
		return in, nil, usagef("--groups needs --user")
	}
	if (c.String("sql") == "") == (c.String("action") == "") {
		return in, nil, usagef("ask about either --sql or --action")
	}
	if c.String("action") == "" {
		return in, nil, nil
	}
	action, err := policy.ParseAction(c.String("action"))
	if err != nil {
		return in, nil, usagef("--action: %v", err)
	}
	return in, action, nil
}
