package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:  "audit",
		Usage: "read and verify the audit log",
		Description: "The commands read the log in the state directory itself, whether an agent runs or not.\n" +
			"Times are RFC 3339 (2026-11-23T06:00:00Z), a day (2026-11-23, UTC), or a time ago (1h, -30m, 2d).",
		Subcommands: []*cli.Command{
			{
				Name:  "query",
				Usage: "events of the log, oldest first",
				Flags: append(filterFlags(),
					&cli.StringFlag{Name: "from", Usage: "events at `TIME` or later"},
					&cli.StringFlag{Name: "to", Usage: "events before `TIME`"},
					&cli.IntFlag{Name: "limit", Usage: "no more than `N` events (default: all)"},
				),
				Action: auditQuery,
			},
			{
				Name:  "tail",
				Usage: "the last events of the log, then new ones as they come",
				Flags: append(filterFlags(),
					&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Value: 10, Usage: "begin with the last `N` events"},
					&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Value: true, Usage: "wait for new events until Ctrl-C"},
				),
				Action: auditTail,
			},
			{
				Name:  "verify",
				Usage: "check the whole log: every hash, place and signature",
				Description: "Exits 0 when the log is intact, 4 when it is not, and names the first wrong entry. The public key is\n" +
					"the one in the state directory; who does not trust that directory keeps a copy (`weir trust bundle --log`)\n" +
					"and names it with --key.",
				Flags: []cli.Flag{
					stateDirFlag(),
					&cli.StringFlag{Name: "key", Usage: "`FILE` with the log's public key"},
					&cli.StringSliceFlag{Name: "witness", Usage: "a checkpoint must be cosigned by the witness with this `KEY` (NAME+HASH+BASE64); may be repeated"},
					outputFlag(),
				},
				Action: auditVerify,
			},
			auditAccountCommand(),
			auditCompareCommand(),
		},
	}
}

func stateDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "state `DIR` that holds the log (default: the configuration's state_dir)"}
}

func filterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "user", Usage: "events of `USER`: name or subject of who acted, or of who acted for them"},
		&cli.StringFlag{Name: "backend", Usage: "events at `BACKEND`"},
		&cli.StringFlag{Name: "verdict", Usage: "events with verdict `V`: allow, deny or approve"},
		&cli.StringSliceFlag{Name: "kind", Usage: "events of `KIND` (action, flow.open, ...); may be repeated"},
		&cli.StringFlag{Name: "flow", Usage: "events of the flow `ID`"},
		&cli.StringFlag{Name: "text", Usage: "events with `TEXT` in the statement, a resource, the rule or the reason"},
		stateDirFlag(),
		outputFlag(),
	}
}

// stateDir is where the log is: the flag, else the configuration's, else the
// default.
func stateDir(c *cli.Context) (string, error) {
	if dir := c.String("dir"); dir != "" {
		return dir, nil
	}
	cfg, err := config.Load(c.String("config"))
	switch {
	case err == nil:
		return cfg.StateDir, nil
	case errors.Is(err, fs.ErrNotExist) && !c.IsSet("config"):
		return config.DefaultStateDir, nil
	}
	return "", fmt.Errorf("%w; name the state directory with --dir", err)
}

func filterOf(c *cli.Context) (*auditlog.Filter, error) {
	if c.Args().Present() {
		return nil, usagef("what is %q? see `weir audit %s --help`", c.Args().First(), c.Command.Name)
	}
	f := &auditlog.Filter{User: c.String("user"), Backend: c.String("backend"), Verdict: c.String("verdict"),
		Flow: c.String("flow"), Text: c.String("text")}
	switch f.Verdict {
	case "", "allow", "deny", "approve":
	default:
		return nil, usagef("--verdict %s: the verdicts are allow, deny and approve", f.Verdict)
	}
	for _, k := range c.StringSlice("kind") {
		f.Kinds = append(f.Kinds, auditlog.Kind(k))
	}
	return f, timesOf(c, f)
}

// timesOf reads --from and --to.
func timesOf(c *cli.Context, f *auditlog.Filter) error {
	now := time.Now()
	for flag, to := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		text := c.String(flag)
		if text == "" {
			continue
		}
		at, err := parseWhen(text, now)
		if err != nil {
			return usagef("--%s %v", flag, err)
		}
		*to = at
	}
	return nil
}

// parseWhen reads a time, a day in UTC, or a time ago.
func parseWhen(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	ago := strings.TrimPrefix(strings.TrimSpace(strings.TrimSuffix(text, "ago")), "-")
	days := time.Duration(0)
	if n, rest, ok := strings.Cut(ago, "d"); ok {
		d, err := time.ParseDuration(n + "h")
		if err != nil {
			ago = "?"
		} else {
			days, ago = 24*d, rest
		}
	}
	d, err := time.Duration(0), error(nil)
	if ago != "" || days == 0 {
		d, err = time.ParseDuration(ago)
	}
	if err != nil || d < 0 || days < 0 {
		return time.Time{}, fmt.Errorf("%q: a time is like 2026-11-23T06:00:00Z, 2026-11-23, 1h or 2d", text)
	}
	return now.Add(-days - d), nil
}

// auditLine writes events for people or for programs.
type auditLine struct {
	w    *bufio.Writer
	json bool
	head bool // the heading was written
}

func newAuditLine(c *cli.Context) (*auditLine, error) {
	asJSON, err := wantJSON(c)
	return &auditLine{w: bufio.NewWriterSize(c.App.Writer, 64<<10), json: asJSON}, err
}

const auditColumns = "%-24s  %-15s  %-24s  %-12s  %-7s  %s\n"

func (l *auditLine) print(ev *auditlog.Event, raw []byte) error {
	if l.json {
		_, _ = l.w.Write(raw)
		return l.w.WriteByte('\n')
	}
	if !l.head {
		l.head = true
		fmt.Fprintf(l.w, auditColumns, "TIME", "KIND", "USER", "BACKEND", "VERDICT", "WHAT")
	}
	user := "-"
	if p := ev.Principal; p != nil {
		user = p.User
		if p.Actor != nil {
			user = cmp.Or(p.Actor.User, p.Actor.Subject) + " for " + user
		}
	}
	_, err := fmt.Fprintf(l.w, auditColumns, ev.Time.UTC().Format("2006-01-02T15:04:05.000Z"), ev.Kind, clean(user),
		or(clean(ev.Backend)), or(ev.Verdict), clean(whatOf(ev)))
	return err
}

// maxWhat bounds the last column, characters; -o json has the whole.
const maxWhat = 200

// whatOf says in one line what an event is about.
func whatOf(ev *auditlog.Event) string {
	var parts []string
	add := func(format, s string) {
		if s != "" {
			parts = append(parts, fmt.Sprintf(format, s))
		}
	}
	if a := ev.Action; a != nil {
		if a.Phase == auditlog.PhaseIntent && a.Text == "" {
			add("%s", strings.Join(a.Verbs, ",")+" "+strings.Join(a.Resources, " "))
		}
		add("%s", a.Text)
	}
	if r := ev.Result; r != nil && r.Status != auditlog.StatusDenied {
		add("%s", r.Status)
		add("code %s", r.Code)
		parts = append(parts, fmt.Sprintf("%d rows, %s in %s", r.Rows, bytesText(r.Bytes), time.Duration(r.DurationUS)*time.Microsecond))
	}
	for _, m := range ev.Masks {
		parts = append(parts, fmt.Sprintf("masked %s (%s) %d times", m.Column, m.Method, m.Count))
	}
	if ev.Kind == auditlog.FlowOpen || ev.Kind == auditlog.FlowRefused || ev.Kind == auditlog.BypassBlocked {
		add("to %s", ev.Destination)
		add("database %s", ev.Database)
		add("as %s", ev.Login)
	}
	if p := ev.Process; p != nil {
		add("by %s", or(p.Exe))
	}
	if c := ev.Completeness; c != nil {
		add("%s", accountText(c))
	}
	add("rule %q", ev.Rule)
	add("%s", ev.Reason)
	if g := ev.Gap; g != nil {
		if g.Lost > 0 {
			parts = append(parts, fmt.Sprintf("%d events refused", g.Lost))
		}
		if g.Unsure > 0 {
			parts = append(parts, fmt.Sprintf("%d events after %d may be missing on disk", g.Unsure, g.After))
		}
	}
	if ev.Kind == auditlog.PolicyLoad {
		add("%s", ev.Policy)
	}
	text := []rune(strings.Join(parts, "; "))
	if len(text) > maxWhat {
		return string(text[:maxWhat-1]) + "…"
	}
	return string(text)
}

// logDamaged says on stderr that the log at hand is not what was written.
func logDamaged(c *cli.Context, err error) {
	fmt.Fprintf(c.App.ErrWriter, "weir: the log is damaged: %v; `weir audit verify` says more\n", err)
}

func auditQuery(c *cli.Context) error {
	f, err := filterOf(c)
	if err != nil {
		return err
	}
	out, err := newAuditLine(c)
	if err != nil {
		return err
	}
	r, err := openLog(c)
	if err != nil {
		return err
	}
	defer r.Close()
	left := c.Int("limit")
	if left < 0 {
		return usagef("--limit %d: a number of events", left)
	}
	for c.Context.Err() == nil {
		rec, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		ev, ok, err := selected(f, rec)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := out.print(ev, rec.Payload); err != nil {
			return err
		}
		if left--; left == 0 {
			break
		}
	}
	if err := out.w.Flush(); err != nil {
		return err
	}
	if r.damaged {
		return cli.Exit("what is shown above is not the whole log", exitUnproven)
	}
	return c.Context.Err()
}

func selected(f *auditlog.Filter, rec auditlog.LogEvent) (*auditlog.Event, bool, error) {
	ev, ok, err := f.Select(rec.Payload)
	if err != nil {
		return nil, false, fmt.Errorf("event %d cannot be read: %w", rec.Seq, err)
	}
	return ev, ok, nil
}

// followPoll is how often tail looks for new events.
const followPoll = 200 * time.Millisecond

func auditTail(c *cli.Context) error {
	f, err := filterOf(c)
	if err != nil {
		return err
	}
	out, err := newAuditLine(c)
	if err != nil {
		return err
	}
	n := c.Int("lines")
	if n < 0 {
		return usagef("-n %d: a number of events", n)
	}
	r, last, err := lastEvents(c, f, n)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, raw := range last {
		ev, _, err := f.Select(raw)
		if err != nil {
			return err
		}
		if err := out.print(ev, raw); err != nil {
			return err
		}
	}
	if err := out.w.Flush(); err != nil || !c.Bool("follow") {
		return err
	}
	return followEvents(c.Context, r, f, out)
}
