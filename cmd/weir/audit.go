package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// spoolDir is the directory of the log, which must be there.
func spoolDir(c *cli.Context) (string, error) {
	dir, err := stateDir(c)
	if err != nil {
		return "", err
	}
	spool := auditlog.SpoolDir(dir)
	switch _, err := os.Stat(spool); {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no audit log in %s; name the state directory of the agent with --dir", dir)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("the audit log in %s is not yours to read; ask root on this node", dir)
	case err != nil:
		return "", err
	}
	return spool, nil
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
	dir, err := spoolDir(c)
	if err != nil {
		return err
	}
	r, err := auditlog.OpenDir(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	left := c.Int("limit")
	if left < 0 {
		return usagef("--limit %d: a number of events", left)
	}
	damaged := false
	for c.Context.Err() == nil {
		rec, err := r.Next()
		var damage *auditlog.DamageError
		if errors.As(err, &damage) {
			damaged = true
			logDamaged(c, err)
			r.Skip()
			continue
		}
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
	if damaged {
		return cli.Exit("what is shown above is not the whole log", exitUnproven)
	}
	return c.Context.Err()
}

func selected(f *auditlog.Filter, rec auditlog.Record) (*auditlog.Event, bool, error) {
	if rec.Kind != auditlog.RecordEvent {
		return nil, false, nil
	}
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
	dir, err := spoolDir(c)
	if err != nil {
		return err
	}
	n := c.Int("lines")
	if n < 0 {
		return usagef("-n %d: a number of events", n)
	}
	r, last, err := lastEvents(c, dir, f, n)
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
	return followEvents(c.Context, c, r, f, out)
}

// lastEvents returns the last n events that f selects, and a reader behind the
// last event of all. It reads segments from the newest one back, so the length of
// the log does not matter when they are near its end.
func lastEvents(c *cli.Context, dir string, f *auditlog.Filter, n int) (*auditlog.Reader, [][]byte, error) {
	segments, err := auditlog.Segments(dir)
	if err != nil {
		return nil, nil, err
	}
	if len(segments) == 0 {
		r, err := auditlog.OpenDir(dir)
		return r, nil, err
	}
	newest := len(segments) - 1
	end, last, err := segmentEvents(c, dir, segments[newest], false, f, n)
	if err != nil {
		return nil, nil, err
	}
	for i := newest - 1; i >= 0 && len(last) < n; i-- {
		r, more, err := segmentEvents(c, dir, segments[i], true, f, n-len(last))
		if err != nil {
			end.Close()
			return nil, nil, err
		}
		r.Close()
		last = append(more, last...)
	}
	return end, last, nil
}

// segmentEvents returns the last n events that f selects in a segment, or with
// only unset in it and all that come behind it.
func segmentEvents(c *cli.Context, dir string, segment uint64, only bool, f *auditlog.Filter, n int) (*auditlog.Reader, [][]byte, error) {
	r, err := auditlog.OpenDirSegment(dir, segment)
	if err != nil {
		return nil, nil, err
	}
	var list [][]byte
	for c.Context.Err() == nil {
		rec, err := r.Next()
		var damage *auditlog.DamageError
		if errors.As(err, &damage) {
			logDamaged(c, err)
			r.Skip()
			continue
		}
		if err == io.EOF || (err == nil && only && rec.End.Segment != segment) {
			break
		}
		if err != nil {
			r.Close()
			return nil, nil, err
		}
		if _, ok, _ := selected(f, rec); ok && n > 0 {
			if len(list) == n {
				list = append(list[:0], list[1:]...)
			}
			list = append(list, append([]byte(nil), rec.Payload...))
		}
	}
	return r, list, c.Context.Err()
}

// followEvents prints events as they come until ctx ends.
func followEvents(ctx context.Context, c *cli.Context, r *auditlog.Reader, f *auditlog.Filter, out *auditLine) error {
	for {
		rec, err := r.Next()
		var damage *auditlog.DamageError
		switch {
		case errors.As(err, &damage):
			logDamaged(c, err)
			r.Skip()
		case err == io.EOF:
			if err := out.w.Flush(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(followPoll):
			}
		case err != nil:
			return err
		default:
			ev, ok, err := selected(f, rec)
			if err != nil {
				return err
			}
			if ok {
				if err := out.print(ev, rec.Payload); err != nil {
					return err
				}
			}
		}
	}
}

func auditVerify(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	dir, err := stateDir(c)
	if err != nil {
		return err
	}
	spool, err := spoolDir(c)
	if err != nil {
		return err
	}
	keyFile := c.String("key")
	if keyFile == "" {
		keyFile = auditlog.PublicKeyFile(dir)
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return fmt.Errorf("read the log's public key: %w; name a copy of it with --key", err)
	}
	key, err := auditlog.ParsePublicKey(string(text))
	if err != nil {
		return cli.Exit(fmt.Sprintf("%s: %v", keyFile, err), exitUnproven)
	}
	rep, err := auditlog.Verify(spool, key)
	if errors.Is(err, auditlog.ErrNoLog) {
		return fmt.Errorf("there is no audit log in %s; name the state directory of the agent with --dir", dir)
	}
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(c.App.Writer, verifyJSON(rep))
	} else {
		printReport(c.App.Writer, rep, keyFile)
	}
	if err == nil && !rep.Intact() {
		return cli.Exit(fmt.Sprintf("the audit log in %s is not what was written: %v", dir, rep.Wrong), exitUnproven)
	}
	return err
}

func printReport(w io.Writer, r *auditlog.Report, keyFile string) {
	fmt.Fprintf(w, "log:         %s (node %s)\n", r.Dir, or(clean(r.Node)))
	fmt.Fprintf(w, "key:         %s+%08x, from %s\n", r.Key.Name, r.Key.ID(), keyFile)
	fmt.Fprintf(w, "segments:    %d, %s, each in its place\n", r.Segments, bytesText(r.Bytes))
	if r.Events > 0 {
		fmt.Fprintf(w, "events:      %d, number %d to %d, %s to %s\n", r.Events, r.FirstSeq, r.LastSeq,
			r.First.Format(time.RFC3339), r.Last.Format(time.RFC3339))
	} else {
		fmt.Fprintln(w, "events:      none")
	}
	fmt.Fprintf(w, "signatures:  %d checkpoints inside the log\n", r.Checkpoints)
	if cp := r.Checkpoint; cp != nil {
		fmt.Fprintf(w, "checkpoint:  signed at %s, covers the log up to event %d", cp.Time.UTC().Format(time.RFC3339), cp.Position.Seq)
		switch {
		case r.Uncovered > 0:
			fmt.Fprintf(w, "; %d more are chained and not yet signed", r.Uncovered)
		case cp.Closed:
			fmt.Fprint(w, ", its end")
		}
		fmt.Fprintln(w)
	}
	if r.Gaps > 0 {
		fmt.Fprintf(w, "gaps:        %d, stated by the log itself (`weir audit query --kind gap`)\n", r.Gaps)
	}
	if r.Unfinished > 0 {
		fmt.Fprintf(w, "unfinished:  %d bytes of a record at the end: a write under way, or one that a crash cut short and nobody relied on\n", r.Unfinished)
	}
	if r.Intact() {
		fmt.Fprintln(w, "intact")
		return
	}
	fmt.Fprintf(w, "NOT INTACT   (what is counted above is what was checked before the first wrong entry)\n")
	fmt.Fprintf(w, "first wrong: %s, offset %d, event %d: %s\n", filepath.Join(r.Dir, auditlog.SegmentName(r.Wrong.Segment)),
		r.Wrong.Offset, r.Wrong.Seq, r.Wrong.Why)
}

// verifyResult is `weir audit verify -o json`.
type verifyResult struct {
	Intact      bool         `json:"intact"`
	Dir         string       `json:"dir"`
	Node        string       `json:"node"`
	Key         string       `json:"key"`
	Segments    int          `json:"segments"`
	Bytes       int64        `json:"bytes"`
	Events      uint64       `json:"events"`
	FirstSeq    uint64       `json:"first_seq"`
	LastSeq     uint64       `json:"last_seq"`
	Checkpoints int          `json:"checkpoints"`
	SignedSeq   uint64       `json:"signed_seq"`
	Signed      *time.Time   `json:"signed,omitempty"`
	Unsigned    uint64       `json:"unsigned"`
	Gaps        int          `json:"gaps"`
	Unfinished  int64        `json:"unfinished_bytes"`
	Wrong       *verifyWrong `json:"wrong,omitempty"`
}

type verifyWrong struct {
	Segment uint64 `json:"segment"`
	File    string `json:"file"`
	Offset  int64  `json:"offset"`
	Seq     uint64 `json:"seq"`
	Why     string `json:"why"`
}

func verifyJSON(r *auditlog.Report) verifyResult {
	v := verifyResult{Intact: r.Intact(), Dir: r.Dir, Node: r.Node, Key: r.Key.String(), Segments: r.Segments, Bytes: r.Bytes,
		Events: r.Events, FirstSeq: r.FirstSeq, LastSeq: r.LastSeq, Checkpoints: r.Checkpoints, Unsigned: r.Uncovered,
		Gaps: r.Gaps, Unfinished: r.Unfinished}
	if c := r.Checkpoint; c != nil {
		at := c.Time.UTC()
		v.SignedSeq, v.Signed = c.Position.Seq, &at
	}
	if w := r.Wrong; w != nil {
		v.Wrong = &verifyWrong{Segment: w.Segment, File: filepath.Join(r.Dir, auditlog.SegmentName(w.Segment)), Offset: w.Offset, Seq: w.Seq, Why: w.Why}
	}
	return v
}
