package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/policy/policystore"
	"github.com/weirproxy/weir/internal/replay"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func (p *policyCLI) replayCommand() *cli.Command {
	return &cli.Command{
		Name:      "replay",
		Usage:     "what would these files have decided differently on recorded actions",
		ArgsUsage: "[FILE...]",
		Description: "Reads the audit log on disk and decides each recorded action again, at its own time, under FILE... (or the policy of\n" +
			"the configuration). Example: weir policy replay --from 7d new.yaml\n" +
			"Rules are compared, not masks: what masks refused then is counted apart. At the end stands which masks would come or\n" +
			"go for the people seen, against the configuration's policy files. What no record holds is not guessed: actions whose\n" +
			"verdict hangs on a token's claims, for example, are counted as such that cannot be replayed.\n" +
			"Exits 0, with --exit-code 1 when there are differences. Times are as for `weir audit query`.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "actions at `TIME` or later"},
			&cli.StringFlag{Name: "to", Usage: "actions before `TIME`"},
			&cli.StringFlag{Name: "user", Usage: "actions of `USER`: name or subject of who acted, or of who acted for them"},
			&cli.StringFlag{Name: "backend", Usage: "actions at `BACKEND`"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit 1 when there are differences"},
			stateDirFlag(), outputFlag(),
		},
		Action: p.replay,
	}
}

func (p *policyCLI) replay(c *cli.Context) error {
	out, err := newReplayOutput(c)
	if err != nil {
		return err
	}
	filter := &auditlog.Filter{User: c.String("user"), Backend: c.String("backend")}
	if err := timesOf(c, filter); err != nil {
		return err
	}
	set, _, found, err := p.load(c)
	if err != nil {
		return err
	}
	if found != nil {
		return reportText(c.App.ErrWriter, found)
	}
	r := replay.New(set, configuredPolicy(c))
	damaged, err := replayLog(c, filter, r, out)
	if err != nil {
		return err
	}
	report := r.Report()
	if err := out.report(&report); err != nil {
		return err
	}
	switch {
	case damaged:
		return cli.Exit("the log is damaged, so that not all recorded actions were decided again", exitUnproven)
	case c.Bool("exit-code") && report.Differences > 0:
		return cli.Exit("", exitFailed)
	}
	return nil
}

// configuredPolicy is the policy of the configuration, to compare masks with; nil
// when there is none that can be read.
func configuredPolicy(c *cli.Context) *policy.Set {
	cfg, err := loadConfig(c)
	if err != nil {
		return nil
	}
	files, err := policystore.Read(cfg.PolicyFiles)
	if err != nil {
		return nil
	}
	set, err := policy.Compile(files, policy.Options{})
	if err != nil {
		return nil
	}
	return set
}

// replayLog gives the log to the replay, from its start: what a flow's process was
// stands at its opening. It reports whether a part of the log could not be read.
func replayLog(c *cli.Context, f *auditlog.Filter, r *replay.Replay, out *replayOutput) (damaged bool, err error) {
	log, err := openLog(c)
	if err != nil {
		return false, err
	}
	defer log.Close()
	for c.Context.Err() == nil {
		rec, err := log.Next()
		switch {
		case err == io.EOF:
			return log.damaged, nil
		case err != nil:
			return log.damaged, err
		case !replayable(rec.Payload):
			continue
		}
		ev := new(auditlog.Event)
		if err := json.Unmarshal(rec.Payload, ev); err != nil {
			return log.damaged, fmt.Errorf("event %d cannot be read: %w", rec.Seq, err)
		}
		if d := r.Take(ev, f.Match(ev)); d != nil {
			if err := out.difference(d); err != nil {
				return log.damaged, err
			}
		}
	}
	return log.damaged, c.Context.Err()
}

// replayable reports whether an event may say something to a replay; most that do
// not are outcomes, which need not be decoded.
func replayable(payload []byte) bool {
	return bytes.Contains(payload, []byte(`"phase":"intent"`)) || bytes.Contains(payload, []byte(`"kind":"flow.`))
}

// replayOutput writes a replay for people or for programs, as it goes.
type replayOutput struct {
	w    *bufio.Writer
	json bool
	head bool // the heading was written
}

func newReplayOutput(c *cli.Context) (*replayOutput, error) {
	asJSON, err := wantJSON(c)
	return &replayOutput{w: bufio.NewWriterSize(c.App.Writer, 64<<10), json: asJSON}, err
}

const replayColumns = "%-24s  %-24s  %-12s  %-7s  %-7s  %-30s  %s\n"

func (o *replayOutput) difference(d *replay.Difference) error {
	if o.json {
		return o.line(struct {
			Type string `json:"type"`
			*replay.Difference
		}{"difference", d})
	}
	if !o.head {
		o.head = true
		fmt.Fprintf(o.w, replayColumns, "TIME", "USER", "BACKEND", "THEN", "NOW", "RULE NOW", "ACTION")
	}
	action := []rune(d.Action)
	if len(action) > maxWhat {
		action = append(action[:maxWhat-1], '…')
	}
	_, err := fmt.Fprintf(o.w, replayColumns, d.Time.UTC().Format("2006-01-02T15:04:05.000Z"), or(clean(d.User)), or(clean(d.Backend)), d.Then, d.Now,
		noRule(d.NowRule), clean(string(action)))
	return err
}

// noRule is a rule's name; actions that no rule is about are denied.
func noRule(name string) string {
	if name == "" {
		return "(no rule)"
	}
	return clean(name)
}

func (o *replayOutput) line(v any) error {
	enc := json.NewEncoder(o.w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (o *replayOutput) report(r *replay.Report) error {
	if o.json {
		if err := o.line(struct {
			Type string `json:"type"`
			*replay.Report
		}{"summary", r}); err != nil {
			return err
		}
		return o.w.Flush()
	}
	if o.head {
		fmt.Fprintln(o.w)
	}
	fmt.Fprintf(o.w, "%s decided again, %d differently\n", plural(r.Actions, "action"), r.Differences)
	if r.ByMasks > 0 {
		fmt.Fprintf(o.w, "%s refused by masks or budgets then, which is not the rules' doing: not compared\n", plural(r.ByMasks, "action"))
	}
	if r.Ended > 0 {
		fmt.Fprintf(o.w, "%s refused then since the sign-in had ended: not compared\n", plural(r.Ended, "action"))
	}
	for _, why := range slices.Sorted(maps.Keys(r.Unknown)) {
		fmt.Fprintf(o.w, "%s cannot be replayed, for want of: %s\n", plural(r.Unknown[why], "action"), why)
	}
	if len(r.Changes) > 0 {
		fmt.Fprintln(o.w)
		if err := table(o.w, "COUNT\tUSER\tTHEN\tNOW\tRULE NOW", func(row func(...any)) {
			for _, x := range r.Changes {
				row(x.Count, or(x.User), x.Then, x.Now, noRule(x.Rule))
			}
		}); err != nil {
			return err
		}
	}
	fmt.Fprintln(o.w)
	switch {
	case !r.MasksCompared:
		fmt.Fprintln(o.w, "masks: not compared, since there is no configuration here whose policy could be read")
	case len(r.Masks) == 0:
		fmt.Fprintln(o.w, "masks: the same for everybody seen as under the configuration's policy")
	default:
		fmt.Fprintln(o.w, "masks, against the configuration's policy:")
	}
	for _, m := range r.Masks {
		fmt.Fprintf(o.w, "  %s at %s:%s%s\n", or(clean(m.User)), clean(m.Backend), maskList(" added ", m.Added), maskList(" removed ", m.Removed))
	}
	return o.w.Flush()
}

func maskList(what string, masks []string) string {
	if len(masks) == 0 {
		return ""
	}
	return what + clean(strings.Join(masks, ", "))
}
