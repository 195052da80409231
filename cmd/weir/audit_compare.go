package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/catalog"
	"github.com/weirproxy/weir/internal/completeness"
	"github.com/weirproxy/weir/internal/explain"
	"github.com/weirproxy/weir/internal/pglog"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func auditCompareCommand() *cli.Command {
	return &cli.Command{
		Name:  "compare",
		Usage: "the statements in PostgreSQL's own log against the actions in the audit log",
		Description: "Finds what the server did and Weir has no record of: sessions that went past Weir, and records that are lost.\n" +
			"The server has to log its statements (log_statement = all), best as csvlog or jsonlog. Name the files in the\n" +
			"order in which they were written. Exits 0 when the audit log has all of it, 4 when it has not.\n" +
			"docs/COMPLETENESS.md says what is compared and what cannot be seen.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "postgres-log", Usage: "`FILE` of the server's log; may be repeated"},
			&cli.StringFlag{Name: "backend", Usage: "`NAME` of the backend that the log is of (default: the only one with PostgreSQL)"},
			&cli.StringFlag{Name: "format", Usage: "csvlog, jsonlog or stderr (default: by the files' names: .csv, .json, others)"},
			&cli.StringFlag{Name: "log-line-prefix", Value: "%m [%p] %q%u@%d/%a ", Usage: "log_line_prefix of the server, for stderr; it needs %m, %p and %a"},
			&cli.StringFlag{Name: "log-timezone", Usage: "log_timezone of the server, such as Europe/Vienna (default: what the log says, when that is UTC)"},
			&cli.DurationFlag{Name: "clock-skew", Value: 2 * time.Second, Usage: "how far apart the clocks of the server and of this node may be"},
			&cli.StringSliceFlag{Name: "except-user", Usage: "statements of the server's `USER` are known to go past Weir; may be repeated"},
			&cli.StringSliceFlag{Name: "except-application", Usage: "the same for an application_name; it is as the client gives it"},
			&cli.StringFlag{Name: "from", Usage: "statements at `TIME` or later"},
			&cli.StringFlag{Name: "to", Usage: "statements before `TIME`"},
			stateDirFlag(),
			outputFlag(),
		},
		Action: auditCompare,
	}
}

// compareResult is `weir audit compare -o json`.
type compareResult struct {
	Complete bool `json:"complete"`
	*pglog.Result
	Server pglog.Counts `json:"server_log"`
	// Connections is what the kernel counted in the period against the flows in the log.
	Connections *auditlog.CompletenessSummary `json:"connections"`
}

func auditCompare(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	files := append(c.StringSlice("postgres-log"), c.Args().Slice()...)
	if len(files) == 0 {
		return usagef("name the server's log with --postgres-log FILE")
	}
	if s := c.Duration("clock-skew"); s < 0 || s > time.Hour {
		return usagef("--clock-skew %s: from 0 to an hour", s)
	}
	var times auditlog.Filter
	if err := timesOf(c, &times); err != nil {
		return err
	}
	source := &pglog.Source{Files: files, Format: c.String("format"), Prefix: c.String("log-line-prefix")}
	switch source.Format {
	case "", pglog.CSV, pglog.JSON, pglog.Stderr:
	default:
		return usagef("--format %s: the formats are csvlog, jsonlog and stderr", source.Format)
	}
	if zone := c.String("log-timezone"); zone != "" {
		if source.Zone, err = time.LoadLocation(zone); err != nil {
			return usagef("--log-timezone %s: it is not known here", zone)
		}
	}
	defer source.Close()
	backend, err := postgresBackend(c)
	if err != nil {
		return err
	}
	log, err := openLog(c)
	if err != nil {
		return err
	}
	defer log.Close()
	result, err := pglog.Compare(c.Context, pglog.Config{Log: log.LogReader, Server: source, Backend: backend, From: times.From, To: times.To,
		Skew: c.Duration("clock-skew"), Own: ownStatements(), Excepted: excepted(c)})
	if err == pglog.ErrNothing {
		return fmt.Errorf("nothing was compared: %w (%s)", err, serverLog(source.Counts()))
	}
	if err != nil {
		return err
	}
	out := compareResult{Result: result, Server: source.Counts()}
	if out.Connections, err = connections(c, backend, result.From, result.To.Add(1)); err != nil {
		return err
	}
	out.Complete = result.Complete() && out.Server.Unreadable == 0 && !different(out.Connections)
	if asJSON {
		err = printJSON(c.App.Writer, &out)
	} else {
		printCompare(c.App.Writer, &out)
	}
	if err == nil && !out.Complete {
		return cli.Exit(whyIncomplete(&out), exitUnproven)
	}
	return err
}

// eachEvent hands the events that a filter selects to f.
func eachEvent(c *cli.Context, filter *auditlog.Filter, f func(*auditlog.Event)) error {
	log, err := openLog(c)
	if err != nil {
		return err
	}
	defer log.Close()
	for c.Context.Err() == nil {
		rec, err := log.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		ev, ok, err := selected(filter, rec)
		if err != nil {
			return err
		}
		if ok {
			f(ev)
		}
	}
	return context.Cause(c.Context)
}

// postgresBackend is --backend, else the only backend that has flows with PostgreSQL.
func postgresBackend(c *cli.Context) (string, error) {
	if name := c.String("backend"); name != "" {
		return name, nil
	}
	var names []string
	err := eachEvent(c, &auditlog.Filter{Kinds: []auditlog.Kind{auditlog.FlowOpen}}, func(ev *auditlog.Event) {
		if ev.Protocol == "postgres" && !slices.Contains(names, ev.Backend) {
			names = append(names, ev.Backend)
		}
	})
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", errors.New("the audit log has no session with PostgreSQL; name the backend with --backend to compare all the same")
	case len(names) > 1:
		return "", usagef("the audit log has several backends with PostgreSQL: name the one that the log is of with --backend (%v)", names)
	}
	return names[0], nil
}

// ownStatements tells Weir's own statements from others that give themselves its name.
func ownStatements() func(*pglog.Entry) pglog.Kind {
	lookups, ahead := catalog.Statements(), explain.Own()
	return func(e *pglog.Entry) pglog.Kind {
		switch {
		case lookups[e.Text], ahead.Holds(e.Text):
			return pglog.Lookup
		case e.Prepared == explain.Count:
			return pglog.Preview
		}
		return pglog.NotOwn
	}
}

func excepted(c *cli.Context) func(*pglog.Entry) bool {
	users, applications := c.StringSlice("except-user"), c.StringSlice("except-application")
	return func(e *pglog.Entry) bool {
		return slices.Contains(users, e.User) || slices.Contains(applications, e.Application)
	}
}

// connections sums up the kernel's account of one backend's connections.
func connections(c *cli.Context, backend string, from, to time.Time) (*auditlog.CompletenessSummary, error) {
	sum := auditlog.NewCompletenessSum(from, to)
	err := eachEvent(c, &auditlog.Filter{Kinds: []auditlog.Kind{auditlog.CompletenessEvent}}, func(ev *auditlog.Event) {
		if ev.Completeness != nil {
			sum.Add(ev.Completeness)
		}
	})
	if err != nil {
		return nil, err
	}
	out := sum.Summary()
	out.Backends = slices.DeleteFunc(out.Backends, func(b auditlog.FlowCount) bool { return b.Backend != backend })
	return out, nil
}

// different reports whether the accounts have a difference; there may be none of so
// short a period.
func different(s *auditlog.CompletenessSummary) bool {
	return slices.ContainsFunc(s.Backends, func(b auditlog.FlowCount) bool { return b.Difference != 0 })
}

func whyIncomplete(r *compareResult) string {
	if n := r.ServerOnly.Statements; n > 0 {
		return fmt.Sprintf("the server did %d statements that the audit log does not have", n)
	}
	if r.Server.Unreadable > 0 {
		return fmt.Sprintf("%d records of the server's log cannot be read (%s)", r.Server.Unreadable, r.Server.FirstUnreadable)
	}
	return completeness.Why(&auditlog.Completeness{Backends: r.Connections.Backends})
}

func serverLog(n pglog.Counts) string {
	text := fmt.Sprintf("%d lines, %d statements", n.Lines, n.Statements)
	if n.Foreign > 0 {
		text += fmt.Sprintf(", %d lines without the prefix", n.Foreign)
	}
	if n.Unreadable > 0 {
		text += fmt.Sprintf(", %d records that cannot be read, the first: %s", n.Unreadable, n.FirstUnreadable)
	}
	return text
}

// shownExamples is how many examples of each difference people see; -o json has more.
const shownExamples = 10

func printCompare(w io.Writer, r *compareResult) {
	fmt.Fprintf(w, "backend:      %s\n", clean(r.Backend))
	fmt.Fprintf(w, "period:       %s to %s\n", r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
	fmt.Fprintf(w, "server's log: %s\n", clean(serverLog(r.Server)))
	fmt.Fprintf(w, "matched:      %d statements with %d actions\n", r.Matched, r.Actions)
	fmt.Fprintf(w, "weir's own:   %d look-ups in the catalogue, %d counts for approvers\n", r.Catalogue, r.Previews)
	if r.Excepted > 0 {
		fmt.Fprintf(w, "excepted:     %d statements, by the command line\n", r.Excepted)
	}
	so := &r.ServerOnly
	fmt.Fprintf(w, "server only:  %d statements", so.Statements)
	if so.Statements > 0 {
		fmt.Fprintf(w, ": %d went past Weir, %d of Weir's sessions have no record, %d were denied and ran", so.Outside, so.Unrecorded, so.Denied)
	}
	fmt.Fprintf(w, "\nweir only:    %d actions", r.WeirOnly.Actions)
	sep := ": "
	for _, s := range []string{auditlog.StatusOK, auditlog.StatusError, auditlog.StatusCancelled, auditlog.StatusLost, "unknown"} {
		if n := r.WeirOnly.ByStatus[s]; n > 0 {
			fmt.Fprintf(w, "%s%d %s", sep, n, s)
			sep = ", "
		}
	}
	fmt.Fprintln(w)
	for _, b := range r.Connections.Backends {
		fmt.Fprintf(w, "connections:  the kernel handed over %d, %d opened, %d refused, difference %d\n", b.Kernel.HandedOver, b.Opened, b.Refused, b.Difference)
	}
	if len(r.Connections.Backends) == 0 {
		fmt.Fprintln(w, "connections:  no account of the kernel's in so short a period (`weir audit query --kind completeness`)")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note:         %s\n", clean(n))
	}
	if len(so.By) > 0 {
		fmt.Fprintln(w)
		_ = table(w, "PAST WEIR: USER\tDATABASE\tAPPLICATION\tCLIENT\tSTATEMENTS\tFIRST\tLAST", func(row func(...any)) {
			for _, g := range so.By[:min(len(so.By), shownExamples)] {
				row(or(clean(g.User)), or(clean(g.Database)), or(clean(g.Application)), or(clean(g.Client)), g.Statements, g.First.Format(time.RFC3339), g.Last.Format(time.RFC3339))
			}
		})
	}
	printExamples(w, "SERVER ONLY", so.Examples)
	printExamples(w, "WEIR ONLY", r.WeirOnly.Examples)
	if r.Complete {
		fmt.Fprintln(w, "complete: the audit log has everything that the server logged")
	} else {
		fmt.Fprintln(w, "NOT COMPLETE")
	}
}

func printExamples(w io.Writer, title string, list []pglog.Statement) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(w)
	_ = table(w, title+"\tWHY\tPID\tUSER\tFLOW\tTEXT", func(row func(...any)) {
		for _, s := range list[:min(len(list), shownExamples)] {
			text := []rune(clean(s.Text))
			if len(text) > maxWhat {
				text = append(text[:maxWhat-1], '…')
			}
			row(s.Time.Format("2006-01-02T15:04:05.000Z"), s.Why, s.PID, or(clean(s.User)), or(s.Flow), string(text))
		}
	})
	if n := len(list); n > shownExamples {
		fmt.Fprintf(w, "(%d more with -o json)\n", n-shownExamples)
	}
}
