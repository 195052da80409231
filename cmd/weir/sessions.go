package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"github.com/charmbracelet/x/term"
	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/record"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func sessionsCommand() *cli.Command {
	identity := &cli.StringFlag{Name: "identity", Aliases: []string{"i"}, Usage: "`FILE` with the age identity (or SSH private key) that sealed recordings open with"}
	return &cli.Command{
		Name:  "sessions",
		Usage: "recordings of sessions: list, show, play, export",
		Description: "The commands read the state directory itself, whether an agent runs or not. ID is a recording's or a flow's. Every chunk\n" +
			"is checked against the audit log before it is shown; one that is not what the log says ends the command with status 4.",
		Subcommands: []*cli.Command{
			{
				Name:  "list",
				Usage: "recordings, oldest first",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "user", Usage: "of `USER`"},
					&cli.StringFlag{Name: "backend", Usage: "at `BACKEND`"},
					&cli.StringFlag{Name: "flow", Usage: "of the flow `ID`"},
					&cli.StringFlag{Name: "from", Usage: "that began at `TIME` or later"},
					&cli.StringFlag{Name: "to", Usage: "that began before `TIME`"},
					stateDirFlag(), outputFlag(),
				},
				Action: sessionsList,
			},
			{Name: "show", Usage: "one recording, and whether it is what the audit log says", ArgsUsage: "ID", Flags: []cli.Flag{stateDirFlag(), outputFlag()}, Action: sessionsShow},
			{
				Name: "play", Usage: "replay a terminal, or write down what was asked and answered", ArgsUsage: "ID",
				Description: "A terminal is replayed with pauses of 2 s at most, all at once when stdout is no terminal. What would make your own\n" +
					"terminal do more than draw is left out.",
				Flags:  []cli.Flag{identity, &cli.Float64Flag{Name: "speed", Value: 1, Usage: "`N` times as fast"}, stateDirFlag()},
				Action: sessionsPlay,
			},
			{
				Name: "export", Usage: "write a recording as it is: asciicast v2 or JSON lines", ArgsUsage: "ID",
				Flags:  []cli.Flag{identity, &cli.StringFlag{Name: "out", Usage: "`FILE`, which must not be there yet (default: stdout)"}, stateDirFlag()},
				Action: sessionsExport,
			},
		},
	}
}

// recordings reads what the log says of recordings.
func recordings(c *cli.Context) (*record.Index, string, error) {
	dir, err := logDir(c)
	if err != nil {
		return nil, "", err
	}
	r, err := openLog(c)
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	x := &record.Index{}
	f := &auditlog.Filter{Kinds: []auditlog.Kind{auditlog.Recording}}
	for c.Context.Err() == nil {
		rec, err := r.Next()
		if err == io.EOF {
			return x, record.Dir(dir), nil
		}
		if err != nil {
			return nil, "", err
		}
		if !bytes.Contains(rec.Payload, []byte(`"kind":"recording"`)) {
			continue
		}
		if ev, ok, err := selected(f, rec); err != nil {
			return nil, "", err
		} else if ok {
			x.Take(ev)
		}
	}
	return nil, "", context.Cause(c.Context)
}

func sessionsList(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	if c.Args().Present() {
		return usagef("what is %q? see `weir sessions list --help`", c.Args().First())
	}
	f := &auditlog.Filter{}
	if err := timesOf(c, f); err != nil {
		return err
	}
	x, _, err := recordings(c)
	if err != nil {
		return err
	}
	list := []*record.Session{}
	for _, s := range x.Sessions() {
		switch {
		case !f.From.IsZero() && s.Started.Before(f.From), !f.To.IsZero() && !s.Started.Before(f.To),
			c.String("user") != "" && !strings.EqualFold(s.User(), c.String("user")),
			c.String("backend") != "" && s.Backend != c.String("backend"),
			c.String("flow") != "" && s.Flow != c.String("flow"):
			continue
		}
		list = append(list, s)
	}
	if asJSON {
		return printJSON(c.App.Writer, list)
	}
	return table(c.App.Writer, "ID\tSTARTED\tUSER\tBACKEND\tDATABASE\tEVENTS\tSEALED\tSTATE", func(row func(...any)) {
		for _, s := range list {
			row(s.ID, s.Started.Format(time.RFC3339), or(s.User()), s.Backend, or(s.Database), s.Events, yesNo(s.Sealed), stateOf(s))
		}
	})
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// stateOf is the state with the reason of the end.
func stateOf(s *record.Session) string {
	if s.Reason == "" || s.State == auditlog.RecordingRemoved {
		return s.State
	}
	return s.State + " (" + s.Reason + ")"
}

// oneSession finds the recording that a command is about.
func oneSession(c *cli.Context) (*record.Session, string, error) {
	args, err := arguments(c)
	if err != nil {
		return nil, "", err
	}
	if len(args) != 1 {
		return nil, "", usagef("which recording? `weir sessions %s ID`; `weir sessions list` has the ids", c.Command.Name)
	}
	x, dir, err := recordings(c)
	if err != nil {
		return nil, "", err
	}
	s, ok := x.Find(args[0])
	if !ok {
		return nil, "", fmt.Errorf("the audit log has no recording %q; `weir sessions list` has the ids", args[0])
	}
	return s, dir, nil
}

// unproven gives a recording that is not what the log says its exit status.
func unproven(err error) error {
	var wrong *record.WrongError
	if errors.As(err, &wrong) {
		return cli.Exit(prefixed(err.Error()), exitUnproven)
	}
	return err
}

func sessionsShow(c *cli.Context) error {
	s, dir, err := oneSession(c)
	if err != nil {
		return err
	}
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	wrong := error(nil)
	if s.State != auditlog.RecordingRemoved {
		wrong = s.Verify(dir)
	}
	if asJSON {
		if err := printJSON(c.App.Writer, s); err != nil {
			return err
		}
		return unproven(wrong)
	}
	w := c.App.Writer
	fmt.Fprintf(w, "recording:  %s (%s)\nstate:      %s\nstarted:    %s\n", s.ID, s.Format, stateOf(s), s.Started.Format(time.RFC3339))
	if s.Ended != nil {
		fmt.Fprintf(w, "ended:      %s\n", s.Ended.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "who:        %s\nflow:       %s\nbackend:    %s (%s), database %s, as %s\n", clean(or(s.User())), s.Flow, s.Backend, s.Protocol, clean(or(s.Database)), clean(or(s.Login)))
	fmt.Fprintf(w, "content:    %d events in %d chunks, %d bytes, sealed: %s\nfile:       %s\n", s.Events, s.Chunks, s.Bytes, yesNo(s.Sealed), clean(s.File))
	switch {
	case s.State == auditlog.RecordingRemoved:
		fmt.Fprintf(w, "removed:    %s\n", clean(s.Reason))
	case wrong == nil:
		fmt.Fprintln(w, "checked:    every chunk is what the audit log says")
	}
	return unproven(wrong)
}

// identitiesOf reads --identity; nil without it.
func identitiesOf(c *cli.Context) ([]age.Identity, error) {
	file := c.String("identity")
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte("-----BEGIN")) {
		id, err := agessh.ParseIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("%s holds no SSH private key that can be used here (without a passphrase)", file)
		}
		return []age.Identity{id}, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s holds no age identity; it is what age-keygen writes", file) // the parser's words may quote a key
	}
	return ids, nil
}

func sessionsExport(c *cli.Context) error {
	s, dir, err := oneSession(c)
	if err != nil {
		return err
	}
	ids, err := identitiesOf(c)
	if err != nil {
		return err
	}
	out := c.App.Writer
	if name := c.String("out"); name != "" {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		err = s.Read(dir, ids, func(b []byte) error { _, err := f.Write(b); return err })
		if err = errors.Join(err, f.Close()); err != nil {
			return errors.Join(unproven(err), os.Remove(name))
		}
		return nil
	}
	return unproven(s.Read(dir, ids, func(b []byte) error { _, err := out.Write(b); return err }))
}

// maxPause is the longest pause of a replay.
const maxPause = 2 * time.Second

func sessionsPlay(c *cli.Context) error {
	s, dir, err := oneSession(c)
	if err != nil {
		return err
	}
	if c.Float64("speed") <= 0 {
		return usagef("--speed is how many times as fast, more than 0")
	}
	ids, err := identitiesOf(c)
	if err != nil {
		return err
	}
	w := c.App.Writer
	if s.Format != auditlog.RecordingCast {
		return unproven(s.Read(dir, ids, func(b []byte) error {
			return record.Lines(b, false, func(l record.Line) error { return writeEntry(w, s, l) })
		}))
	}
	f, ok := w.(*os.File)
	live := ok && term.IsTerminal(f.Fd())
	var harmless record.Harmless
	last := time.Duration(0)
	err = s.Read(dir, ids, func(b []byte) error {
		return record.Lines(b, true, func(l record.Line) error {
			if l.Entry.Kind != session.EntryOutput {
				return nil
			}
			if pause := min(l.At-last, maxPause); live && pause > 0 {
				select {
				case <-c.Context.Done():
					return context.Cause(c.Context)
				case <-time.After(time.Duration(float64(pause) / c.Float64("speed"))):
				}
			}
			last = l.At
			_, err := io.WriteString(w, harmless.Text(l.Entry.Text))
			return err
		})
	})
	if live { // whatever the recording ended in
		_, _ = io.WriteString(w, "\x1b[?1049l\x1b[?25h\x1b[0m\x1b[r\r\n")
	}
	return unproven(err)
}

// writeEntry writes down one entry of a recording of events.
func writeEntry(w io.Writer, s *record.Session, l record.Line) error {
	e := &l.Entry
	at := s.Started.Add(l.At).UTC().Format("15:04:05.000")
	text := func(v session.Value) string {
		switch {
		case v.Null:
			return "NULL"
		case v.Cut > 0:
			return clean(string(v.Bytes)) + fmt.Sprintf("... (%d bytes more)", v.Cut)
		}
		return clean(string(v.Bytes))
	}
	values := func(sep string) string {
		list := make([]string, len(e.Values))
		for i, v := range e.Values {
			list[i] = text(v)
		}
		return strings.Join(list, sep)
	}
	var err error
	switch e.Kind {
	case session.EntryAction, session.EntryRefused:
		_, err = fmt.Fprintf(w, "%s  %s> %s\n", at, clean(or(s.User())), lines(e.Text))
		for i, p := range e.Params {
			fmt.Fprintf(w, "              $%d = %s\n", i+1, clean(p))
		}
		if e.Kind == session.EntryRefused {
			_, err = fmt.Fprintf(w, "              refused: %s\n", text(e.Data))
		}
	case session.EntryColumns:
		_, err = fmt.Fprintf(w, "              %s\n", values(" | "))
	case session.EntryRow, session.EntryResult:
		_, err = fmt.Fprintf(w, "              %s\n", values(" | "))
	case session.EntryOriginal:
		switch {
		case e.N > 0:
			_, err = fmt.Fprintf(w, "              [behind the mask: row %d, column %d: %s]\n", e.N, e.Column+1, text(e.Data))
		case e.Column >= 0:
			_, err = fmt.Fprintf(w, "              [behind the mask: $%d = %s]\n", e.Column+1, text(e.Data))
		default:
			_, err = fmt.Fprintf(w, "              [behind the mask: %s]\n", text(e.Data))
		}
	case session.EntryCopyIn, session.EntryCopyOut:
		_, err = fmt.Fprintf(w, "              %s: %s\n", e.Kind, text(e.Data))
	case session.EntryDone:
		_, err = fmt.Fprintf(w, "              %s\n", clean(e.Text))
	case session.EntryError, session.EntryNotice:
		_, err = fmt.Fprintf(w, "              %s %s: %s\n", e.Kind, clean(e.Code), lines(e.Text))
	}
	return err
}

// lines is a text of several lines, indented.
func lines(s string) string {
	list := strings.Split(s, "\n")
	for i := range list {
		list[i] = clean(list[i])
	}
	return strings.Join(list, "\n              ")
}
