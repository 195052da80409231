package evidence

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// More names of members.
const (
	proofsFile = "proofs.jsonl"
	sampleFile = "sample.jsonl"
)

// maxProofs is the largest number of events for which a file of single proofs is
// written: about 1 KiB for an event, which packs to an eighth. The events of a
// larger pack are proven all the same, in one range, and Prove computes any of them.
const maxProofs = 20_000

// proofLine is a line of proofs.jsonl: the inclusion proof of one event (RFC 9162
// section 2.1.3).
type proofLine struct {
	Index     uint64     `json:"index"`
	Leaf      hashText   `json:"leaf_hash"`
	Inclusion []hashText `json:"inclusion"`
}

func nodeOf(key auditlog.PublicKey) string {
	return strings.TrimSuffix(key.ForTiles().Name, "/weir-log")
}

func list(items []string) string {
	return strings.Join(items, " ")
}

// policyRows writes the rules of all revisions.
func (r *report) policyRows() {
	for i, v := range r.revisions {
		to := "(end of the period)"
		if !v.to.IsZero() {
			to = stamp(v.to)
		}
		if i == maxRevisions {
			r.policies.add("", "", fmt.Sprintf("%d more", len(r.revisions)-i), "", "")
			return
		}
		var files []policy.File
		var names []string
		for n, f := range v.files {
			name := fmt.Sprintf("policies/%s-%d.yaml", short(v.digest), n+1)
			if !validName(name) {
				continue
			}
			names = append(names, name)
			r.texts = append(r.texts, policyText{name, f.Text})
			files = append(files, policy.File{Name: f.Name, Data: []byte(f.Text)})
		}
		r.policies.add(stamp(v.from), to, v.digest, count(v.seq), strings.Join(names, " "))
		if !v.text {
			r.access.add(stamp(v.from), to, v.digest, "", "", "(the log has no text of this revision)")
			continue
		}
		if policy.Revision(files) != v.digest {
			r.access.add(stamp(v.from), to, v.digest, "", "", "(the text in the log is not that of this revision)")
			continue
		}
		rows, err := policy.Outline(files)
		if err != nil {
			r.access.add(stamp(v.from), to, v.digest, "", "", "(this version of weir cannot read the text: see policies/)")
			continue
		}
		for _, x := range rows {
			r.access.add(stamp(v.from), to, v.digest, x.Policy, cmp.Or(list(x.Backends), "(all)"), x.Rule, x.Effect, list(x.Groups), list(x.Users), list(x.Kinds),
				cmp.Or(list(x.Actions), "(all)"), cmp.Or(list(x.Resources), "(all)"), x.When, x.Approval, x.Record)
		}
	}
}

// short is the beginning of a digest, for names.
func short(digest string) string {
	d := strings.TrimPrefix(digest, "sha256:")
	return d[:min(len(d), 16)]
}

func (r *report) keyRows() {
	for _, sum := range sortedKeys(r.keySets, func(a, b [32]byte) int {
		return cmp.Or(r.keySets[a].first.Compare(r.keySets[b].first), strings.Compare(string(a[:]), string(b[:])))
	}) {
		k := r.keySets[sum]
		var set jose.JSONWebKeySet
		_ = json.Unmarshal(k.set, &set)
		if len(set.Keys) == 0 {
			r.keys.add(k.issuer, "", "(not readable)", "", stamp(k.first), count(k.used), hexOf(sum[:]))
		}
		for _, key := range set.Keys {
			r.keys.add(k.issuer, key.KeyID, strings.TrimPrefix(fmt.Sprintf("%T", key.Key), "*"), key.Algorithm, stamp(k.first), count(k.used), hexOf(sum[:]))
		}
	}
}

// headRows lists the tree heads. Signatures are Verify's business.
func (r *report) headRows(open opener) error {
	row := func(note []byte, place string) {
		text, sigs, _ := strings.Cut(string(note), "\n\n")
		lines := strings.Split(text, "\n")
		var by []string
		for line := range strings.SplitSeq(sigs, "\n") {
			if name, _, ok := strings.Cut(strings.TrimPrefix(line, "— "), " "); ok {
				by = append(by, name)
			}
		}
		if len(lines) >= 3 {
			r.heads.add(lines[1], lines[2], strings.Join(by, " "), place)
		}
	}
	if err := eachLine(open, headsFile, func(line []byte) error {
		var k keptHead
		if err := strict(line, &k); err != nil {
			return err
		}
		row([]byte(k.Note), headsFile)
		return nil
	}); err != nil {
		return err
	}
	note, err := readSmall(open, headFile)
	row(note, headFile+" (covers the pack)")
	return err
}

// write writes the members that are no tables.
func (r *report) write(open opener, create creator, book *workbook, seen nodes, cases []*caseOf) error {
	if len(cases) > 0 {
		w, err := create(sampleFile, "the cases that the seed picked, each with its inclusion proof and the events around it")
		if err != nil {
			return err
		}
		for _, c := range cases {
			line, err := c.line()
			if err != nil {
				return err
			}
			if err := writeLine(w, line); err != nil {
				return err
			}
		}
	}
	if n, _ := r.proof.events(); n > 0 && n <= maxProofs {
		if err := r.writeProofs(open, create, seen); err != nil {
			return err
		}
	}
	done := map[string]bool{}
	for _, p := range r.texts {
		if done[p.name] {
			continue // a revision that came back
		}
		done[p.name] = true
		w, err := create(p.name, "a policy file as it was loaded")
		if err == nil {
			_, err = io.WriteString(w, p.text)
		}
		if err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name, about string
		write       func(io.Writer) error
	}{
		{"readme.txt", "what is in the pack and how to check it", r.writeReadme},
		{"index.html", "the report as a page; no scripts, opens from disk", r.writeHTML},
		{"report.pdf", "the report to print", r.writePDF},
		{"tables.xlsx", "all tables as one workbook", book.write},
		{"oscal/assessment-results.json", "the mapping to controls as OSCAL assessment results, version " + oscalVersion, r.writeOSCAL},
	} {
		w, err := create(f.name, f.about)
		if err == nil {
			err = f.write(w)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func (r *report) writeProofs(open opener, create creator, seen nodes) error {
	w, err := create(proofsFile, "the inclusion proof of every event by itself")
	if err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	walker, err := walk(r.proof, nil)
	if err != nil {
		return err
	}
	if err := eachLine(open, eventsFile, func(line []byte) error {
		index, err := walker.add(line)
		if err != nil {
			return err
		}
		path, err := seen.path(index, r.proof.Size)
		if err != nil {
			return err
		}
		leaf, err := auditlog.Leaf(line)
		if err != nil {
			return err
		}
		return writeLine(b, &proofLine{Index: index, Leaf: hashText(auditlog.LeafHash(leaf)), Inclusion: texts(path)})
	}); err != nil {
		return err
	}
	return b.Flush()
}

// sampleText says how to pick the cases by hand.
func (r *report) sampleText() string {
	if r.m.Sample == 0 {
		return "No sample was asked for (weir evidence export --sample N --seed S)."
	}
	return fmt.Sprintf("Seed %q picked %d of %d cases. A case is a line of events.jsonl of kind action with phase intent, or of kind flow.refused; they are numbered from 0 in their order. "+
		"Draw i (0, 1, 2, ...) takes the case with the number (first 8 bytes, big-endian, of SHA-256 of the text \"weir-sample-v1\", newline, seed, newline, i, newline) modulo %d; cases drawn before are passed over.",
		plain(r.m.Seed), min(uint64(r.m.Sample), r.eligible), r.eligible, max(r.eligible, 1))
}

func (r *report) writeReadme(w io.Writer) error {
	_, err := fmt.Fprintf(w, `Evidence pack of the Weir node %s
Period: %s to %s (the end is not included), %d events, number %d to %d

Open index.html in a browser, or report.pdf. The tables are in tables/ (CSV) and tables.xlsx.

What is evidence, and what is made of it
  events.jsonl           the events of the period, one JSON object in a line, exactly as they were logged
  log/checkpoint         the signed head of the log's Merkle tree (C2SP tlog-checkpoint)
  log/range.json         hashes that lead all events at once to that head
  log/checkpoints.jsonl  earlier signed heads, with consistency proofs
  log/context.jsonl      events from before the period that the reports need, with inclusion proofs
  keys/log.pub           the public key of the log
  manifest.json          every member with its size and SHA-256; "before" is a digest of all bytes of the zip file before it
  manifest.note          the signature of the manifest (C2SP signed-note)
  everything else        follows from these files; weir evidence verify makes it again and compares

How to check it
  weir evidence verify PACK.zip --key log.pub
      log.pub: the node's key, got on another way than this pack (on the node: weir trust bundle --log).
      No network and no agent is needed. Exit status 0: intact; 4: not.
  By hand
      sha256sum manifest.json         must be the hex in manifest.note
      sha256sum of every other file   must be what manifest.json says
      a leaf hash is SHA-256 of a byte 0 and the line of events.jsonl without its newline; a node is SHA-256 of
      a byte 1, the left hash and the right hash (RFC 9162 section 2.1). An event longer than 65535 bytes has the leaf
      {"v":1,"seq":N,"bytes":LENGTH,"sha256":"HEX"}.
  weir evidence proof PACK.zip --seq N
      the inclusion proof of one event by itself.

Sample
  %s

Cells of the tables that begin like a formula have a ' in front, characters that cannot be seen are shown as a square, and
long text is cut: events.jsonl has everything as it was.
`, r.m.Node, stamp(r.m.From), stamp(r.m.To), r.events, r.firstSeq, r.lastSeq, r.sampleText())
	return err
}

// span is a length of time for people.
func span(a, b time.Time) string {
	d := b.Sub(a)
	if d >= 48*time.Hour {
		return fmt.Sprintf("%.1f days", d.Hours()/24)
	}
	return d.Round(time.Second).String()
}
