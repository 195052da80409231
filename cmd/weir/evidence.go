package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/evidence"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func evidenceCommand() *cli.Command {
	return &cli.Command{
		Name:  "evidence",
		Usage: "make and check evidence packs for auditors",
		Subcommands: []*cli.Command{
			{
				Name:  "export",
				Usage: "write an evidence pack about a period (root on the node)",
				Description: "A pack is one zip file: the exact events of the period, proofs that they are those of the signed log, reports\n" +
					"mapped to controls (HTML, PDF, CSV, XLSX, OCSF, OSCAL), and a signed manifest. It holds statements and names of\n" +
					"people: keep it as you keep the log. The export itself is recorded in the log.\n" +
					"Times are RFC 3339 (2026-11-23T06:00:00Z), a day (2026-11-23, UTC), or a time ago (1h, 2d).",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "from", Usage: "events at `TIME` or later", Required: true},
					&cli.StringFlag{Name: "to", Usage: "events before `TIME` (default: now)"},
					&cli.StringFlag{Name: "out", Usage: "`FILE` to write; it must not exist", Required: true},
					&cli.StringFlag{Name: "framework", Usage: "`NAME` of the controls: " + strings.Join(evidence.Frameworks(), " or "), Value: evidence.Frameworks()[0]},
					&cli.IntFlag{Name: "sample", Usage: "pick `N` cases for closer study"},
					&cli.StringFlag{Name: "seed", Usage: "the auditor's `TEXT` that picks them"},
					&cli.DurationFlag{Name: "wait", Usage: "wait up to `TIME` until the newest events are sealed", Value: 10 * time.Second},
					stateDirFlag(),
					outputFlag(),
				},
				Action: evidenceExport,
			},
			{
				Name:      "verify",
				Usage:     "check a pack, offline: exit 0 intact, 4 not",
				ArgsUsage: "PACK.zip",
				Description: "It needs neither an agent nor a network, and says of each claim what it checked. Without --key it checks against\n" +
					"the key inside the pack, which whoever made the pack chose: get the node's key on another way\n" +
					"(`weir trust bundle --log` on the node) and name it.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "key", Usage: "`FILE` with the log's public key"},
					outputFlag(),
				},
				Action: evidenceVerify,
			},
			{
				Name:      "proof",
				Usage:     "print the inclusion proof of one event of a pack (JSON)",
				ArgsUsage: "PACK.zip",
				Flags: []cli.Flag{
					&cli.Uint64Flag{Name: "seq", Usage: "`NUMBER` of the event"},
				},
				Action: evidenceProof,
			},
		},
	}
}

// evidencePeriod reads --from and --to. Events that are still to come are no part
// of a pack: the end is now at the latest.
func evidencePeriod(c *cli.Context, now time.Time) (evidence.Period, error) {
	p := evidence.Period{To: now}
	var err error
	if p.From, err = parseWhen(c.String("from"), now); err != nil {
		return p, usagef("--from %v", err)
	}
	if text := c.String("to"); text != "" {
		if p.To, err = parseWhen(text, now); err != nil {
			return p, usagef("--to %v", err)
		}
	}
	if p.To.After(now) {
		return p, usagef("--to %s is in the future: what is still to come cannot be proven", c.String("to"))
	}
	if !p.From.Before(p.To) {
		return p, usagef("the period from %s to %s is empty", p.From.Format(time.RFC3339), p.To.Format(time.RFC3339))
	}
	return p, nil
}

func evidenceExport(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("what is %q? see `weir evidence export --help`", c.Args().First())
	}
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	period, err := evidencePeriod(c, time.Now())
	if err != nil {
		return err
	}
	if c.Int("sample") < 0 || c.Int("sample") > evidence.MaxSample {
		return usagef("--sample %d: a number of cases, at most %d", c.Int("sample"), evidence.MaxSample)
	}
	if c.IsSet("seed") != (c.Int("sample") > 0) {
		return usagef("--sample N and --seed TEXT belong together: the auditor's seed picks the cases")
	}
	dir, err := stateDir(c)
	if err != nil {
		return err
	}
	key, sign, err := audit.ManifestSigner(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no audit log with its key in %s; name the state directory of the agent with --dir", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the audit log's key in %s is not yours to read: an export is signed with it, so root on this node makes it", dir)
	case err != nil:
		return err
	}
	agent := evidenceAgent(c, dir)
	recorded := "yes: the node's log has an evidence.export event with the digest of this file"
	if !agent {
		recorded = "no: no agent ran on this state directory when the pack was made"
	}
	cfg := evidence.Config{StateDir: dir, Key: key, Sign: sign, Period: period, Framework: c.String("framework"), Sample: c.Int("sample"), Seed: c.String("seed"),
		Wait: c.Duration("wait"), Temp: filepath.Dir(c.String("out")), Version: version, Recorded: recorded, Now: time.Now}
	if !agent {
		cfg.Wait = 0 // nobody seals
	}
	m, digest, err := writeEvidence(c, cfg, agent)
	if err != nil {
		return err
	}
	if !agent {
		fmt.Fprintln(c.App.ErrWriter, "weir: no agent answers for this state directory, so the log does not say that this pack was made; the pack says so")
	}
	if m.Unsealed.Events > 0 {
		fmt.Fprintf(c.App.ErrWriter, "weir: %d events of the period are not sealed yet, so they are not in the pack; it says so. Export again when the agent has sealed them\n", m.Unsealed.Events)
	}
	if asJSON {
		return printJSON(c.App.Writer, struct {
			File     string             `json:"file"`
			SHA256   string             `json:"manifest_sha256"`
			Manifest *evidence.Manifest `json:"manifest"`
		}{c.String("out"), digest, m})
	}
	fmt.Fprintf(c.App.Writer, "%s: %d events of %s, %s to %s\nmanifest: %s\nGive the auditor the node's public key on another way: weir trust bundle --log\n", c.String("out"), m.Events, m.Node,
		m.From.Format(time.RFC3339), m.To.Format(time.RFC3339), digest)
	return nil
}

// evidenceAgent reports whether an agent runs on the state directory.
func evidenceAgent(c *cli.Context, dir string) bool {
	var s control.Status
	if client(c).Call(c.Context, http.MethodGet, "/v1/status", nil, &s) != nil {
		return false
	}
	a, err := os.Stat(s.Audit.Dir)
	if err != nil {
		return false
	}
	b, err := os.Stat(auditlog.SpoolDir(dir))
	return err == nil && os.SameFile(a, b)
}

// writeEvidence writes the pack beside its place, has the export recorded, and puts
// it there: nobody has a pack that the log does not know of, while an agent runs.
func writeEvidence(c *cli.Context, cfg evidence.Config, agent bool) (*evidence.Manifest, string, error) {
	out := c.String("out")
	if _, err := os.Lstat(out); err == nil {
		return nil, "", fmt.Errorf("%s exists already; name another file with --out", out)
	}
	f, err := os.CreateTemp(filepath.Dir(out), ".weir-evidence-*")
	if err != nil {
		return nil, "", fmt.Errorf("write the pack: %w", err)
	}
	defer os.Remove(f.Name()) // what was put in its place has another name by then
	defer f.Close()
	m, manifest, err := evidence.Export(c.Context, cfg, f)
	if err != nil {
		return nil, "", err
	}
	if err := f.Sync(); err != nil {
		return nil, "", fmt.Errorf("write the pack: %w", err)
	}
	digest := evidence.Digest(manifest)
	if agent {
		in := &auditlog.Evidence{From: m.From, To: m.To, Manifest: digest, Events: m.Events, Framework: m.Framework, Sample: m.Sample, Seed: m.Seed}
		if err := client(c).Call(c.Context, http.MethodPost, "/v1/evidence", in, nil); err != nil {
			return nil, "", fmt.Errorf("the export could not be recorded, so there is no pack: %w", err)
		}
	}
	if err := os.Link(f.Name(), out); err != nil { // unlike a rename it replaces nothing
		if errors.Is(err, fs.ErrExist) {
			return nil, "", fmt.Errorf("%s exists already; name another file with --out", out)
		}
		if err := os.Rename(f.Name(), out); err != nil {
			return nil, "", fmt.Errorf("write the pack: %w", err)
		}
	}
	return m, digest, nil
}

// openPack opens the one argument. It comes first: flags may stand behind the name.
func openPack(c *cli.Context) (*os.File, int64, error) {
	args, err := arguments(c)
	if err != nil {
		return nil, 0, err
	}
	if len(args) != 1 {
		return nil, 0, usagef("name one pack; see `weir evidence %s --help`", c.Command.Name)
	}
	f, err := os.Open(args[0])
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", args[0])
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func evidenceVerify(c *cli.Context) error {
	f, size, err := openPack(c)
	if err != nil {
		return err
	}
	defer f.Close()
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	var key *auditlog.PublicKey
	if path := c.String("key"); path != "" {
		text, err := readFileTrimmed(path)
		if err != nil {
			return fmt.Errorf("read the log's public key: %w", err)
		}
		k, err := auditlog.ParsePublicKey(text)
		if err != nil {
			return usagef("--key %s: %v", path, err)
		}
		key = &k
	}
	r, err := evidence.Verify(c.Context, f, size, key, version)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(c.App.Writer, r)
	} else {
		printClaims(c.App.Writer, f.Name(), r)
	}
	if err == nil && !r.Intact {
		return cli.Exit(fmt.Sprintf("%s is not what was signed: do not rely on anything in it", f.Name()), exitUnproven)
	}
	return err
}

func printClaims(w io.Writer, name string, r *evidence.Report) {
	fmt.Fprintf(w, "%s\n", clean(name))
	if m := r.Manifest; m != nil {
		fmt.Fprintf(w, "node %s, %s to %s, %d events, made %s by %s\nmanifest %s\n", clean(m.Node), m.From.Format(time.RFC3339), m.To.Format(time.RFC3339), m.Events,
			m.ExportedAt.Format(time.RFC3339), clean(m.Made), r.ManifestSHA256)
		if m.Unsealed.Events > 0 {
			fmt.Fprintf(w, "NOT IN IT: %d events of the period that were not sealed when it was made\n", m.Unsealed.Events)
		}
	}
	fmt.Fprintln(w)
	for _, claim := range r.Claims {
		fmt.Fprintf(w, "%-12s %s\n             %s\n", claim.Result, claim.Claim, clean(claim.Detail))
	}
	switch {
	case !r.Intact:
		fmt.Fprintln(w, "\nNOT INTACT: the first wrong claim is the last one above; nothing behind it was checked")
	case r.KeyFrom == "pack":
		fmt.Fprintln(w, "\nintact in itself, BY THE KEY INSIDE THE PACK: that it is the node's must be checked with --key")
	default:
		fmt.Fprintln(w, "\nintact")
	}
}

func evidenceProof(c *cli.Context) error {
	f, size, err := openPack(c)
	if err != nil {
		return err
	}
	defer f.Close()
	if !c.IsSet("seq") {
		return usagef("name the event's number with --seq; see `weir evidence proof --help`")
	}
	p, err := evidence.Prove(c.Context, f, size, c.Uint64("seq"))
	if err != nil {
		return err
	}
	return printJSON(c.App.Writer, p)
}
