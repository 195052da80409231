package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Results of a claim.
const (
	Proven    = "proven"
	Wrong     = "WRONG"
	Unchecked = "not checked"
)

// Claim is something that a pack claims, and what came of checking it.
type Claim struct {
	Claim  string `json:"claim"`
	Result string `json:"result"` // proven | WRONG | not checked
	Detail string `json:"detail"`
}

// Report is what Verify found.
type Report struct {
	Intact   bool      `json:"intact"`
	Claims   []Claim   `json:"claims"`
	Key      string    `json:"key"`
	KeyFrom  string    `json:"key_from"` // given | pack
	Manifest *Manifest `json:"manifest,omitempty"`
	// ManifestSHA256 is what the node's evidence.export event names.
	ManifestSHA256 string `json:"manifest_sha256,omitempty"`
}

// verifier is one verification.
type verifier struct {
	ctx      context.Context
	a        *archive
	key      auditlog.PublicKey
	m        *Manifest
	manifest []byte
	head     auditlog.TreeHead
	proof    *leafRange
	version  string
	report   *Report
}

// Verify checks a pack by itself, in bounded memory, without a network. Key is the
// log's public key, nil for the one in the pack: then it is only proven that the
// pack was not changed since whoever has that key's other half made it. The error
// is for what kept it from checking; what is wrong with the pack is in the report.
func Verify(ctx context.Context, r io.ReaderAt, size int64, key *auditlog.PublicKey, version string) (*Report, error) {
	v := &verifier{ctx: ctx, version: version, report: &Report{Intact: true}}
	steps := []struct {
		claim string
		run   func() (string, error)
	}{
		{"the file is an evidence pack and nothing else", func() (string, error) {
			var err error
			if v.a, err = openArchive(r, size); err != nil {
				return "", err
			}
			return fmt.Sprintf("%d members, %d bytes, every byte of the zip file's structure", len(v.a.list), size), nil
		}},
		{"the manifest is signed with the log's key", func() (string, error) { return v.signature(key) }},
		{"the manifest covers every byte of the file", v.before},
		{"every member is what the manifest says", v.members},
		{"the tree head is signed with the log's key", v.treeHead},
		{"the events are exactly those of the log, each in its place", v.events},
		{"tree heads kept in the period are beginnings of the same log", v.keptHeads},
		{"events from before the period are in the log", v.context},
		{"single proofs lead to the tree head", v.singles},
		{"approvals rest on signed tokens of the approvers", v.approvals},
		{"reports, tables, sample and proofs follow from the events", v.derived},
	}
	for _, s := range steps {
		detail, err := s.run()
		c := Claim{Claim: s.claim, Result: Proven, Detail: detail}
		var un uncheckedError
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.As(err, &un):
			c.Result, c.Detail = Unchecked, string(un)
		case err != nil:
			c.Result, c.Detail = Wrong, err.Error()
			v.report.Intact = false
		}
		v.report.Claims = append(v.report.Claims, c)
		if c.Result == Wrong {
			break // nothing behind it can be relied on
		}
	}
	return v.report, nil
}

// uncheckedError says why a claim was left out.
type uncheckedError string

func (e uncheckedError) Error() string { return string(e) }

func (v *verifier) small(name string, limit int64) ([]byte, error) {
	e := v.a.by[name]
	if e == nil {
		return nil, fmt.Errorf("%s is missing", name)
	}
	if int64(e.size) > limit {
		return nil, fmt.Errorf("%s is too long", name)
	}
	return readSmall(v.a.open, name)
}

func (v *verifier) signature(given *auditlog.PublicKey) (string, error) {
	n := len(v.a.list)
	if n < 3 || v.a.list[n-2].name != manifestFile || v.a.list[n-1].name != noteFile ||
		v.a.list[n-2].method != methodStore || v.a.list[n-1].method != methodStore {
		return "", fmt.Errorf("%s and %s are not at the end of the pack", manifestFile, noteFile)
	}
	inner, err := v.small(keyFile, maxNote)
	if err != nil {
		return "", err
	}
	v.key, err = auditlog.ParsePublicKey(string(inner))
	if err != nil {
		return "", fmt.Errorf("%s: %w", keyFile, err)
	}
	v.report.KeyFrom = "pack"
	if given != nil {
		if given.String() != v.key.String() {
			return "", fmt.Errorf("the pack is of the log %s+%08x, and the given key is of %s+%08x", v.key.Name, v.key.ID(), given.Name, given.ID())
		}
		v.report.KeyFrom = "given"
	}
	v.report.Key = v.key.String()
	if v.manifest, err = v.small(manifestFile, maxManifest); err != nil {
		return "", err
	}
	note, err := v.small(noteFile, maxNote)
	if err != nil {
		return "", err
	}
	if err := checkNote(v.key, v.manifest, note); err != nil {
		return "", err
	}
	if v.m, err = parseManifest(v.manifest); err != nil {
		return "", err
	}
	v.report.Manifest, v.report.ManifestSHA256 = v.m, Digest(v.manifest)
	if nodeOf(v.key) != v.m.Node || v.key.ForTiles().Name != v.m.Origin {
		return "", errors.New("the manifest is of another node than the key")
	}
	if frameworkOf(v.m.Framework) == nil || !v.m.From.Before(v.m.To) || v.m.Sample < 0 || v.m.Sample > MaxSample {
		return "", errors.New("the manifest says what no export says")
	}
	text := fmt.Sprintf("key %s+%08x", v.key.Name, v.key.ID())
	if given == nil {
		return text + ", THE ONE INSIDE THE PACK: whoever made the pack chose it. Name the node's key, kept elsewhere, with --key", nil
	}
	return text + ", the one that you gave", nil
}

func (v *verifier) before() (string, error) {
	at := int64(v.a.by[manifestFile].offset)
	if v.m.Before.Bytes != at {
		return "", fmt.Errorf("the manifest is about a file with %d bytes before it, and this one has %d", v.m.Before.Bytes, at)
	}
	h := sha256.New()
	if _, err := io.Copy(h, &ctxReader{v.ctx, io.NewSectionReader(v.a.r, 0, at)}); err != nil {
		return "", err
	}
	if hexOf(h.Sum(nil)) != v.m.Before.SHA256 {
		return "", errors.New("the file was changed since it was signed")
	}
	return fmt.Sprintf("%d bytes, SHA-256 %s", at, v.m.Before.SHA256), nil
}

// ctxReader ends with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

func (v *verifier) members() (string, error) {
	if len(v.m.Members) != len(v.a.list)-2 {
		return "", fmt.Errorf("the manifest names %d members, and the pack has %d", len(v.m.Members), len(v.a.list)-2)
	}
	for i, want := range v.m.Members {
		e := &v.a.list[i]
		if e.name != want.Name {
			return "", fmt.Errorf("%s stands where the manifest has %s", e.name, want.Name)
		}
		if int64(e.size) != want.Bytes {
			return "", fmt.Errorf("%s has %d bytes, and the manifest says %d", e.name, e.size, want.Bytes)
		}
		f, err := v.a.open(e.name)
		if err != nil {
			return "", err
		}
		h := sha256.New()
		_, err = io.Copy(h, &ctxReader{v.ctx, f})
		f.Close()
		if err != nil {
			return "", err
		}
		if hexOf(h.Sum(nil)) != want.SHA256 {
			return "", fmt.Errorf("%s is not what the manifest says", e.name)
		}
	}
	return fmt.Sprintf("%d members, their sizes and SHA-256", len(v.m.Members)), nil
}

func (v *verifier) treeHead() (string, error) {
	note, err := v.small(headFile, maxSmall)
	if err != nil {
		return "", err
	}
	if v.head, err = auditlog.ParseTreeHead(note, v.key.ForTiles()); err != nil {
		return "", err
	}
	if v.proof, err = readRange(v.a.open); err != nil {
		return "", err
	}
	if v.proof.Origin != v.head.Origin || v.proof.Size != v.head.Size || auditlog.Hash(v.proof.Root) != v.head.Root || v.m.Size != v.head.Size {
		return "", fmt.Errorf("%s, %s and %s are about different tree heads", manifestFile, rangeFile, headFile)
	}
	return fmt.Sprintf("%s, %d events, root %s", v.head.Origin, v.head.Size, mustText(v.proof.Root)), nil
}

func mustText(h hashText) string {
	b, _ := h.MarshalText() // it has no error
	return string(b)
}

func (v *verifier) events() (string, error) {
	w, err := walk(v.proof, nil)
	if err != nil {
		return "", err
	}
	n, outside, first, last := uint64(0), 0, uint64(0), uint64(0)
	var jumps []string
	next := v.proof.From
	err = eachLine(v.a.open, eventsFile, func(line []byte) error {
		var ev struct {
			Seq uint64 `json:"seq"`
		}
		at, ok := auditlog.EventTime(line)
		if err := json.Unmarshal(line, &ev); err != nil || !ok {
			return fmt.Errorf("line %d is no event", n+1)
		}
		index, err := w.add(line)
		if err != nil {
			return err
		}
		switch {
		case n == 0:
			first = ev.Seq
		case ev.Seq <= last:
			return fmt.Errorf("event %d stands behind event %d", ev.Seq, last)
		case ev.Seq != last+1 && index == next:
			jumps = append(jumps, fmt.Sprintf("%d to %d", last, ev.Seq))
			if len(jumps) > 1000 {
				return errors.New("the numbers of the events jump all the time")
			}
		}
		if !v.m.has(at) {
			outside++
		}
		last, next = ev.Seq, index+1
		if n++; n&0xfff == 0 && v.ctx.Err() != nil {
			return context.Cause(v.ctx)
		}
		return nil
	})
	if err == nil {
		err = w.end()
	}
	if err != nil {
		return "", err
	}
	if n != v.m.Events {
		return "", fmt.Errorf("%s has %d events, and the manifest says %d", eventsFile, n, v.m.Events)
	}
	text := fmt.Sprintf("%d events, number %d to %d, leaves %d to %d of the tree, lead to its root", n, first, last, v.proof.From, v.proof.To)
	for _, g := range v.proof.Removed {
		text += fmt.Sprintf("; %d events from index %d on were removed by retention, only their hashes are here", g.To-g.From, g.From)
	}
	if len(jumps) > 0 {
		text += "; the log itself jumps in numbers: " + strings.Join(jumps[:min(len(jumps), 5)], ", ")
	}
	if outside > 0 {
		text += fmt.Sprintf("; %d of them are outside of the period by the clock, which was set back meanwhile", outside)
	}
	return text, nil
}

func (v *verifier) keptHeads() (string, error) {
	n, last := 0, uint64(0)
	err := eachLine(v.a.open, headsFile, func(line []byte) error {
		var k keptHead
		if err := strict(line, &k); err != nil {
			return err
		}
		h, err := auditlog.ParseTreeHead([]byte(k.Note), v.key.ForTiles())
		if err != nil {
			return err
		}
		if h.Size != k.Size || h.Size < last {
			return errors.New("they are in no order")
		}
		n, last = n+1, h.Size
		if err := auditlog.VerifyConsistency(h.Size, v.head.Size, hashes(k.Proof), h.Root, v.head.Root); err != nil {
			return fmt.Errorf("the log with %d events is no beginning of that with %d: %w", h.Size, v.head.Size, err)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", uncheckedError("the node had kept no tree head up to the period's end")
	}
	return fmt.Sprintf("%d tree heads, each with a consistency proof", n), nil
}

func (v *verifier) context() (string, error) {
	n, last := 0, uint64(0)
	err := eachLine(v.a.open, contextFile, func(line []byte) error {
		var c contextEvent
		if err := strict(line, &c); err != nil {
			return err
		}
		if c.Index >= v.proof.From || n > 0 && c.Index <= last {
			return errors.New("they are in no order")
		}
		n, last = n+1, c.Index
		return v.included(c.Index, c.Event, c.Proof)
	})
	return fmt.Sprintf("%d events, each with its inclusion proof", n), err
}

func (v *verifier) included(index uint64, payload []byte, proof []hashText) error {
	leaf, err := auditlog.Leaf(payload)
	if err != nil {
		return err
	}
	if err := auditlog.VerifyInclusion(index, v.head.Size, auditlog.LeafHash(leaf), hashes(proof), v.head.Root); err != nil {
		return fmt.Errorf("the event with index %d: %w", index, err)
	}
	return nil
}

// singles checks the proofs of single events, which the walk over all has proven
// already, as somebody would who has one of them alone.
func (v *verifier) singles() (string, error) {
	n := 0
	if v.a.by[proofsFile] != nil {
		if err := eachLine(v.a.open, proofsFile, func(line []byte) error {
			var p proofLine
			if err := strict(line, &p); err != nil {
				return err
			}
			n++
			return auditlog.VerifyInclusion(p.Index, v.head.Size, auditlog.Hash(p.Leaf), hashes(p.Inclusion), v.head.Root)
		}); err != nil {
			return "", err
		}
	}
	cases := 0
	if v.a.by[sampleFile] != nil {
		if err := eachLine(v.a.open, sampleFile, func(line []byte) error {
			var s sampleLine
			if err := strict(line, &s); err != nil {
				return err
			}
			cases++
			return v.included(s.Index, s.Event, s.Inclusion)
		}); err != nil {
			return "", err
		}
	}
	switch {
	case n > 0:
		return fmt.Sprintf("%d events in %s and %d cases of the sample", n, proofsFile, cases), nil
	case cases > 0:
		return fmt.Sprintf("%d cases of the sample; the pack is too large for a file of single proofs, `weir evidence proof` computes any", cases), nil
	}
	return "", uncheckedError("the pack has none: it is too large for a file of single proofs, and no sample was asked for; `weir evidence proof` computes any")
}

// derived makes everything again that is not evidence itself, and compares.
func (v *verifier) derived() (string, error) {
	if v.m.Made != madeBy(v.version) {
		return "", uncheckedError(fmt.Sprintf("the pack was made by %s, and this is %s: another version may word a report otherwise. They are signed as they are", v.m.Made, madeBy(v.version)))
	}
	type output struct {
		hash.Hash
		n *countWriter
	}
	made := map[string]output{}
	about := map[string]string{}
	order := []string{eventsFile, rangeFile, headFile, headsFile, contextFile, keyFile} // as gather makes them
	primary := map[string]bool{}
	for _, name := range order {
		primary[name] = true
	}
	err := derive(v.ctx, v.m, v.a.open, func(name, text string) (io.Writer, error) {
		o := output{sha256.New(), &countWriter{}}
		made[name], about[name], order = o, text, append(order, name)
		return io.MultiWriter(o, o.n), nil
	})
	if err != nil {
		return "", err
	}
	sortMembers(order, func(name string) string { return name })
	if len(order) != len(v.m.Members) {
		return "", fmt.Errorf("the events make up %d members, and the pack has %d", len(order), len(v.m.Members))
	}
	seen := 0
	for i, m := range v.m.Members {
		if m.Name != order[i] {
			return "", fmt.Errorf("%s stands where %s should", m.Name, order[i])
		}
		if primary[m.Name] {
			continue
		}
		o := made[m.Name]
		seen++
		if hexOf(o.Sum(nil)) != m.SHA256 || o.n.n != m.Bytes || about[m.Name] != m.About {
			return "", fmt.Errorf("%s is not what the events say", m.Name)
		}
	}
	return fmt.Sprintf("%d members made again, equal to the byte", seen), nil
}

type countWriter struct{ n int64 }

func (c *countWriter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}

// Proof is the inclusion proof of one event of a pack.
type Proof struct {
	Seq       uint64          `json:"seq"`
	Index     uint64          `json:"index"`
	Size      uint64          `json:"size"`
	Root      hashText        `json:"root"`
	Leaf      hashText        `json:"leaf_hash"`
	Inclusion []hashText      `json:"inclusion"`
	Event     json.RawMessage `json:"event"`
	Head      string          `json:"checkpoint"`
}

// ErrNoEvent is the error of a pack without the event that was asked for.
var ErrNoEvent = errors.New("the pack has no event with that number")

// Prove computes the inclusion proof of the event with a number out of a pack. What
// the pack holds is not verified besides; see Verify.
func Prove(ctx context.Context, r io.ReaderAt, size int64, seq uint64) (*Proof, error) {
	a, err := openArchive(r, size)
	if err != nil {
		return nil, err
	}
	proof, err := readRange(a.open)
	if err != nil {
		return nil, err
	}
	note, err := readSmall(a.open, headFile)
	if err != nil {
		return nil, err
	}
	rep := &report{proof: proof}
	p := &Proof{Seq: seq, Size: proof.Size, Root: proof.Root, Head: string(note)}
	found := false
	if err := rep.pass(ctx, a.open, nil, func(index uint64, ev *auditlog.Event, raw []byte) {
		if ev.Seq == seq {
			found, p.Index, p.Event = true, index, bytes.Clone(raw)
		}
	}); err != nil {
		return nil, err
	}
	if !found {
		return nil, ErrNoEvent
	}
	seen := make(nodes)
	if err := seen.want(p.Index, proof.Size); err != nil {
		return nil, err
	}
	if err := rep.pass(ctx, a.open, seen, func(uint64, *auditlog.Event, []byte) {}); err != nil {
		return nil, err
	}
	path, err := seen.path(p.Index, proof.Size)
	if err != nil {
		return nil, err
	}
	leaf, err := auditlog.Leaf(p.Event)
	if err != nil {
		return nil, err
	}
	p.Leaf, p.Inclusion = hashText(auditlog.LeafHash(leaf)), texts(path)
	return p, auditlog.VerifyInclusion(p.Index, p.Size, auditlog.LeafHash(leaf), path, auditlog.Hash(proof.Root))
}
