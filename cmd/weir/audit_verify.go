package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/pkg/auditlog"
)

func auditVerify(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	dir, err := logDir(c)
	if err != nil {
		return err
	}
	keyFile := c.String("key")
	if keyFile == "" {
		keyFile = auditlog.PublicKeyFile(dir)
	}
	key, err := readLogKey(keyFile)
	if err != nil {
		return err
	}
	witnesses, err := witnessKeys(c)
	if err != nil {
		return err
	}
	rep, err := auditlog.VerifyLog(dir, key)
	if errors.Is(err, auditlog.ErrNoLog) {
		return fmt.Errorf("there is no audit log in %s; name the state directory of the agent with --dir", dir)
	}
	if err != nil {
		return err
	}
	signed, err := cosigned(dir, key, witnesses)
	if err != nil {
		return err
	}
	if asJSON {
		v := verifyJSON(rep, key)
		v.Witnesses = signed
		err = printJSON(c.App.Writer, v)
	} else {
		printReport(c.App.Writer, rep, signed, key, keyFile)
	}
	if err == nil && !rep.Intact() {
		return cli.Exit(fmt.Sprintf("the audit log in %s is not what was written: %v", dir, firstWrong(rep)), exitUnproven)
	}
	for _, w := range signed {
		if err == nil && w.Size == 0 {
			return cli.Exit(fmt.Sprintf("no checkpoint is cosigned by the witness %s", w.Name), exitUnproven)
		}
	}
	return err
}

// verifyWitness is how far a witness has signed the log.
type verifyWitness struct {
	Name string     `json:"name"`
	Size uint64     `json:"size"`           // of the largest head with its signature; 0: none
	Time *time.Time `json:"time,omitempty"` // by the witness's clock
}

func witnessKeys(c *cli.Context) ([]auditlog.WitnessKey, error) {
	var keys []auditlog.WitnessKey
	for _, text := range c.StringSlice("witness") {
		k, err := auditlog.ParseWitnessKey(text)
		if err != nil {
			return nil, usagef("--witness: %v", err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// cosigned looks for the witnesses' signatures; that each head is a beginning of
// the log is checked elsewhere.
func cosigned(dir string, key auditlog.PublicKey, witnesses []auditlog.WitnessKey) ([]verifyWitness, error) {
	list := make([]verifyWitness, len(witnesses))
	for i, w := range witnesses {
		list[i].Name = w.Name
	}
	if len(witnesses) == 0 {
		return nil, nil
	}
	for h, err := range auditlog.AnchoredHeads(dir, key) {
		if err != nil {
			return list, nil // VerifyLog says so
		}
		for i, w := range witnesses {
			if at, ok := h.Cosigned(w); ok && h.Size >= list[i].Size {
				list[i].Size, list[i].Time = h.Size, &at
			}
		}
	}
	return list, nil
}

func firstWrong(r *auditlog.LogReport) error {
	if r.Spool != nil && !r.Spool.Intact() {
		return r.Spool.Wrong
	}
	return r.Sealed.Wrong
}

// printReport writes what was checked, the sealed log first: it is the older part.
func printReport(w io.Writer, r *auditlog.LogReport, signed []verifyWitness, key auditlog.PublicKey, keyFile string) {
	fmt.Fprintf(w, "key:         %s+%08x, from %s\n", key.Name, key.ID(), keyFile)
	if r.Sealed != nil {
		printSealed(w, r.Sealed, r.Spool)
	} else {
		fmt.Fprintln(w, "sealed log:  none yet")
	}
	for _, x := range signed {
		if x.Time != nil {
			fmt.Fprintf(w, "witness:     %s has signed the first %d entries, at %s by its clock\n", clean(x.Name), x.Size, x.Time.Format(time.RFC3339))
		}
	}
	if r.Spool != nil {
		printSpool(w, r.Spool)
	} else {
		fmt.Fprintln(w, "spool:       not here")
	}
	if r.Intact() {
		fmt.Fprintln(w, "intact")
		return
	}
	fmt.Fprintf(w, "NOT INTACT   (what is counted above is what was checked before the first wrong entry)\n")
	if r.Sealed != nil && r.Sealed.Wrong != nil {
		x := r.Sealed.Wrong
		fmt.Fprintf(w, "first wrong: %s, index %d: %s\n", filepath.Join(r.Sealed.Dir, x.File), x.Index, x.Why)
	}
	if r.Spool != nil && r.Spool.Wrong != nil {
		x := r.Spool.Wrong
		fmt.Fprintf(w, "first wrong: %s, offset %d, event %d: %s\n", filepath.Join(r.Spool.Dir, auditlog.SegmentName(x.Segment)), x.Offset, x.Seq, x.Why)
	}
}

func printSealed(w io.Writer, r *auditlog.SealedReport, spool *auditlog.Report) {
	fmt.Fprintf(w, "sealed log:  %s\n", r.Dir)
	if r.Entries > 0 {
		fmt.Fprintf(w, "entries:     %d of %d, number %d to %d, %s to %s\n", r.Entries, r.Head.Size, r.FirstSeq, r.LastSeq,
			r.First.Format(time.RFC3339), r.Last.Format(time.RFC3339))
	} else {
		fmt.Fprintln(w, "entries:     none")
	}
	fmt.Fprintf(w, "tree:        root %s, signed; every entry and every hash leads to it\n", base64.StdEncoding.EncodeToString(r.Head.Root[:]))
	fmt.Fprintf(w, "checkpoints: %d kept, each a beginning of this log\n", r.Heads)
	if r.Anchored > 0 {
		fmt.Fprintf(w, "anchors:     %d checkpoints that others signed or stamped, each a beginning of this log\n", r.Anchored)
	}
	for _, gone := range r.Removed {
		fmt.Fprintf(w, "removed:     index %d to %d by retention, as the log says; their hashes are there\n", gone.From, gone.To-1)
	}
	if r.Gaps > 0 {
		fmt.Fprintf(w, "gaps:        %d, stated by the log itself (`weir audit query --kind gap`)\n", r.Gaps)
	}
	if spool != nil {
		fmt.Fprintf(w, "overlap:     %d events stand in the spool too, equal\n", r.Overlap)
	}
}

func printSpool(w io.Writer, r *auditlog.Report) {
	fmt.Fprintf(w, "spool:       %s (node %s)\n", r.Dir, or(clean(r.Node)))
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
}

// verifyResult is `weir audit verify -o json`.
type verifyResult struct {
	Intact      bool            `json:"intact"`
	Dir         string          `json:"dir"`
	Node        string          `json:"node"`
	Key         string          `json:"key"`
	Segments    int             `json:"segments"`
	Bytes       int64           `json:"bytes"`
	Events      uint64          `json:"events"`
	FirstSeq    uint64          `json:"first_seq"`
	LastSeq     uint64          `json:"last_seq"`
	Checkpoints int             `json:"checkpoints"`
	SignedSeq   uint64          `json:"signed_seq"`
	Signed      *time.Time      `json:"signed,omitempty"`
	Unsigned    uint64          `json:"unsigned"`
	Gaps        int             `json:"gaps"`
	Unfinished  int64           `json:"unfinished_bytes"`
	Wrong       *verifyWrong    `json:"wrong,omitempty"`
	Sealed      *verifySealed   `json:"sealed,omitempty"`
	Witnesses   []verifyWitness `json:"witnesses,omitempty"`
}

// verifySealed is about the sealed log.
type verifySealed struct {
	Dir         string           `json:"dir"`
	Origin      string           `json:"origin"`
	Size        uint64           `json:"size"`
	Root        string           `json:"root"`
	Entries     uint64           `json:"entries"`
	FirstSeq    uint64           `json:"first_seq"`
	LastSeq     uint64           `json:"last_seq"`
	Checkpoints int              `json:"checkpoints"`
	Anchored    int              `json:"anchored"`
	Removed     []verifyRange    `json:"removed"`
	Gaps        int              `json:"gaps"`
	Overlap     uint64           `json:"overlap"`
	Wrong       *verifyWrongLeaf `json:"wrong,omitempty"`
}

// verifyRange is a run of indexes, To not included.
type verifyRange struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

type verifyWrongLeaf struct {
	File  string `json:"file"`
	Index uint64 `json:"index"`
	Why   string `json:"why"`
}

type verifyWrong struct {
	Segment uint64 `json:"segment"`
	File    string `json:"file"`
	Offset  int64  `json:"offset"`
	Seq     uint64 `json:"seq"`
	Why     string `json:"why"`
}

func verifyJSON(l *auditlog.LogReport, key auditlog.PublicKey) verifyResult {
	v := verifyResult{Intact: l.Intact(), Key: key.String()}
	if r := l.Spool; r != nil {
		v.Dir, v.Node, v.Segments, v.Bytes, v.Events, v.FirstSeq, v.LastSeq = r.Dir, r.Node, r.Segments, r.Bytes, r.Events, r.FirstSeq, r.LastSeq
		v.Checkpoints, v.Unsigned, v.Gaps, v.Unfinished = r.Checkpoints, r.Uncovered, r.Gaps, r.Unfinished
		if c := r.Checkpoint; c != nil {
			at := c.Time.UTC()
			v.SignedSeq, v.Signed = c.Position.Seq, &at
		}
		if w := r.Wrong; w != nil {
			v.Wrong = &verifyWrong{Segment: w.Segment, File: filepath.Join(r.Dir, auditlog.SegmentName(w.Segment)), Offset: w.Offset, Seq: w.Seq, Why: w.Why}
		}
	}
	if r := l.Sealed; r != nil {
		v.Sealed = &verifySealed{Dir: r.Dir, Origin: r.Head.Origin, Size: r.Head.Size, Root: base64.StdEncoding.EncodeToString(r.Head.Root[:]), Entries: r.Entries,
			FirstSeq: r.FirstSeq, LastSeq: r.LastSeq, Checkpoints: r.Heads, Anchored: r.Anchored, Removed: []verifyRange{}, Gaps: r.Gaps, Overlap: r.Overlap}
		for _, gone := range r.Removed {
			v.Sealed.Removed = append(v.Sealed.Removed, verifyRange(gone))
		}
		if w := r.Wrong; w != nil {
			v.Sealed.Wrong = &verifyWrongLeaf{File: filepath.Join(r.Dir, w.File), Index: w.Index, Why: w.Why}
		}
	}
	return v
}
