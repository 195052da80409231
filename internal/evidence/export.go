package evidence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Config is what an export is made of.
type Config struct {
	StateDir string
	Key      auditlog.PublicKey                // of the node's log
	Sign     func(text []byte) ([]byte, error) // see audit.ManifestSigner
	Period
	Framework string // one of Frameworks
	Sample    int    // cases; 0: none
	Seed      string
	// Wait is how long events of the period that are in the spool only are waited
	// for, until the agent has sealed them; 0: not.
	Wait time.Duration
	// Temp is a folder for what is being made; it has to have room for the pack.
	Temp    string
	Version string // of weir
	// Recorded is what the manifest says about the export's own record.
	Recorded string
	Now      func() time.Time
}

// MaxSample bounds the cases of a sample.
const MaxSample = 10000

// ErrNotSealed is the error of a node whose log was never sealed.
var ErrNotSealed = errors.New("the log has not been sealed yet, so nothing in it can be proven: start the agent, which seals it within a second")

// exporter is one export under way.
type exporter struct {
	Config
	ctx     context.Context
	dir     string // of the members that are made
	members []*made
	tiles   *auditlog.Tiles // as large as the log is
	head    auditlog.TreeHead
	proof   leafRange
	m       *Manifest
}

// made is a member that is finished.
type made struct {
	*member
	entry entry
}

// Export writes a pack to w and returns its manifest and the manifest's bytes. The
// same period of the same log gives the same bytes, apart from exported_at,
// recorded, and what hangs on the tree head if another one covers the period now.
func Export(ctx context.Context, c Config, w io.Writer) (*Manifest, []byte, error) {
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(c.Temp, ".weir-evidence-*")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	x := &exporter{Config: c, ctx: ctx, dir: dir}
	defer x.close()
	if err := x.gather(); err != nil {
		return nil, nil, err
	}
	if err := derive(ctx, x.m, x.open, x.create); err != nil {
		return nil, nil, err
	}
	manifest, err := x.write(w)
	return x.m, manifest, err
}

func (c *Config) check() error {
	if !c.From.Before(c.To) {
		return fmt.Errorf("the period from %s to %s is empty", stamp(c.From), stamp(c.To))
	}
	if c.Sample < 0 || c.Sample > MaxSample {
		return fmt.Errorf("a sample has at most %d cases", MaxSample)
	}
	if len(c.Seed) > 256 {
		return errors.New("the seed is longer than 256 bytes")
	}
	if frameworkOf(c.Framework) == nil {
		return fmt.Errorf("there is no framework %q; there are %v", c.Framework, Frameworks())
	}
	c.From, c.To = c.From.UTC(), c.To.UTC()
	return nil
}

func (x *exporter) close() {
	for _, m := range x.members {
		m.file.Close()
	}
}

// create begins a member; the one before is finished by then or by finish.
func (x *exporter) create(name, about string) (io.Writer, error) {
	m, err := newMember(x.dir, name, about)
	if err != nil {
		return nil, err
	}
	x.members = append(x.members, &made{member: m})
	return m, nil
}

// finish ends the writing of all members.
func (x *exporter) finish() error {
	for _, m := range x.members {
		if m.entry.name != "" {
			continue
		}
		var err error
		if m.entry, err = m.member.finish(); err != nil {
			return fmt.Errorf("write %s: %w", m.name, err)
		}
	}
	return nil
}

// open reads a finished member.
func (x *exporter) open(name string) (io.ReadCloser, error) {
	for _, m := range x.members {
		if m.name == name {
			return openPacked(io.NewSectionReader(m.file, 0, int64(m.entry.packed)), &m.entry), nil
		}
	}
	return nil, fmt.Errorf("there is no %s", name)
}

// put makes a member out of JSON lines or other bytes.
func (x *exporter) put(name, about string, b []byte) error {
	w, err := x.create(name, about)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// gather makes the members that are not derived.
func (x *exporter) gather() error {
	unsealed, err := x.awaitSeal()
	if err != nil {
		return err
	}
	if err := x.findPeriod(); err != nil {
		return err
	}
	if err := x.chooseHead(); err != nil {
		return err
	}
	x.m = &Manifest{Version: manifestVersion, Node: nodeOf(x.Key), Origin: x.head.Origin, Period: x.Period, Framework: x.Framework, Sample: x.Sample, Seed: x.Seed,
		ExportedAt: x.Now().UTC(), Made: madeBy(x.Version), Recorded: x.Recorded, Unsealed: unsealed, Size: x.head.Size, Root: x.head.Root}
	needs, err := x.events()
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		x.proofOfRange,
		func() error { return x.put(headFile, "the signed tree head that all proofs lead to", x.head.Note) },
		x.heads,
		func() error { return x.context(needs) },
		func() error { return x.put(keyFile, "the log's public key", []byte(x.Key.String()+"\n")) },
		x.finish,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// madeBy names the program: another Go may pack other bytes.
func madeBy(version string) string { return "weir " + version + ", " + runtime.Version() }

// sealPoll is how often the sealed log is looked at while events are waited for.
const sealPoll = 100 * time.Millisecond

// awaitSeal waits until the events of the period are sealed, and counts those that
// are not.
func (x *exporter) awaitSeal() (Unsealed, error) {
	deadline := time.Now().Add(x.Wait)
	for {
		tiles, err := auditlog.OpenTiles(auditlog.TilesDir(x.StateDir), x.Key)
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotSealed
		}
		if err == nil && tiles.Head().Size == 0 {
			err = ErrNotSealed
		}
		if err != nil && !errors.Is(err, ErrNotSealed) {
			return Unsealed{}, err
		}
		if err == nil {
			x.tiles = tiles
			left, e := x.unsealed()
			if e != nil || left.Events == 0 {
				return left, e
			}
			if !time.Now().Before(deadline) {
				return left, nil
			}
		} else if !time.Now().Before(deadline) {
			return Unsealed{}, err
		}
		select {
		case <-x.ctx.Done():
			return Unsealed{}, context.Cause(x.ctx)
		case <-time.After(sealPoll):
		}
	}
}

// unsealed counts events of the period that the spool alone has.
func (x *exporter) unsealed() (Unsealed, error) {
	var u Unsealed
	last := uint64(0)
	size := x.tiles.Head().Size
	for e, err := range x.tiles.Entries(size-1, size) {
		if err != nil {
			return u, err
		}
		last = e.Seq
	}
	r, err := auditlog.OpenDir(auditlog.SpoolDir(x.StateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil // a copy of the sealed log alone
	}
	if err != nil {
		u.Unknown = "the spool cannot be read: " + err.Error()
		return u, nil
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		var damage *auditlog.DamageError
		switch {
		case err == io.EOF:
			return u, nil
		case errors.As(err, &damage):
			u.Unknown = "the spool is damaged: " + err.Error()
			r.Skip()
			continue
		case err != nil:
			u.Unknown = "the spool cannot be read: " + err.Error()
			return u, nil
		}
		if rec.Kind != auditlog.RecordEvent || rec.Seq <= last {
			continue
		}
		if at, ok := auditlog.EventTime(rec.Payload); ok && x.has(at) {
			if u.Events == 0 {
				u.First = rec.Seq
			}
			u.Events++
			u.Last = rec.Seq
		}
	}
}

func (p Period) has(at time.Time) bool { return !at.Before(p.From) && at.Before(p.To) }

// findPeriod finds the shortest run of leaves that holds all events of the period.
// It reads the whole log, since a clock that was set back leaves times without
// order.
func (x *exporter) findPeriod() error {
	size := x.tiles.Head().Size
	found := false
	before := uint64(0)              // leaves whose events were before the period
	after, ended := uint64(0), false // index of the first event behind it
	for e, err := range x.tiles.Entries(0, size) {
		var gone *auditlog.RemovedError
		if errors.As(err, &gone) {
			continue // when they were is not known any more
		}
		if err != nil {
			return err
		}
		if e.Index&0xffff == 0 && x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		at, ok := auditlog.EventTime(e.Payload)
		if !ok {
			return &auditlog.SealedError{File: "tile/entries", Index: e.Index, Why: "the entry is no event"}
		}
		if at.Before(x.From) && !found {
			before = e.Index + 1
		}
		if !at.Before(x.To) && !ended {
			after, ended = e.Index, true
		}
		if !x.has(at) {
			continue
		}
		if !found {
			// What was removed right before the period's first event may have been of it.
			x.proof.From, found = before, true
		}
		x.proof.To = e.Index + 1
	}
	if !found { // what was removed in between may have been of it
		x.proof.From, x.proof.To = before, max(before, after)
	}
	return nil
}

// chooseHead takes the first kept tree head that covers the period, so that a
// later export takes the same; else the newest.
func (x *exporter) chooseHead() error {
	x.head = x.tiles.Head()
	for h, err := range auditlog.KeptHeads(x.StateDir, x.Key) {
		if err != nil {
			return err
		}
		if h.Size >= x.proof.To && h.Size > 0 && h.Size <= x.head.Size {
			root, err := x.tiles.Root(h.Size)
			if err != nil {
				return err
			}
			if root != h.Root {
				return fmt.Errorf("the log is not what it was: the first %d entries are not those of a tree head that was kept; see `weir audit verify`", h.Size)
			}
			x.head = h
			break
		}
	}
	x.proof.Origin, x.proof.Size, x.proof.Root = x.head.Origin, x.head.Size, hashText(x.head.Root)
	return nil
}

// needs is what the events of the period rest on and is not among them.
type needs struct {
	policy, agent bool // the policy in force, the agent's start
	asked         map[string]bool
	approvals     map[string]bool
	flows         map[string]bool
	sessions      map[string]bool
}

// maxNeeds bounds each set of needs.
const maxNeeds = 1 << 16

func newNeeds() *needs {
	return &needs{policy: true, agent: true, asked: map[string]bool{}, approvals: map[string]bool{}, flows: map[string]bool{}, sessions: map[string]bool{}}
}

// see takes note of an event of the period.
func (n *needs) see(ev *auditlog.Event) {
	want := func(set map[string]bool, id string, given bool) {
		if _, known := set[id]; id == "" || known || len(set) >= maxNeeds {
			return
		}
		set[id] = !given
	}
	if ev.Approval != nil {
		want(n.approvals, ev.Approval.ID, ev.Kind == auditlog.ApprovalRequest)
	}
	want(n.flows, ev.Flow, ev.Kind == auditlog.FlowOpen || ev.Kind == auditlog.FlowRefused)
	want(n.sessions, ev.Session, ev.Kind == auditlog.IdentityBind)
}

// take reports whether an event before the period is needed. They come newest first.
func (n *needs) take(ev *auditlog.Event) bool {
	switch ev.Kind {
	case auditlog.PolicyLoad:
		if n.policy {
			n.policy = ev.Reason != "" // one that did not load changes nothing
			return true
		}
	case auditlog.AgentStart, auditlog.AgentStop:
		if n.agent {
			n.agent = ev.Kind != auditlog.AgentStart
			return true
		}
	case auditlog.ApprovalRequest, auditlog.ApprovalDecide, auditlog.ApprovalView, auditlog.ApprovalExpire:
		if ev.Approval != nil && n.approvals[ev.Approval.ID] {
			if ev.Kind == auditlog.ApprovalRequest {
				n.approvals[ev.Approval.ID] = false
			}
			return true
		}
	case auditlog.FlowOpen:
		if n.flows[ev.Flow] {
			n.flows[ev.Flow] = false
			return true
		}
	case auditlog.IdentityBind:
		if n.sessions[ev.Session] {
			n.sessions[ev.Session] = false
			return true
		}
	}
	return false
}

func (n *needs) met() bool {
	if n.policy || n.agent {
		return false
	}
	for _, set := range []map[string]bool{n.approvals, n.flows, n.sessions} {
		for _, missing := range set {
			if missing {
				return false
			}
		}
	}
	return true
}

// events writes events.jsonl.
func (x *exporter) events() (*needs, error) {
	w, err := x.create(eventsFile, "the events of the period, one JSON object in a line, exactly as they were logged")
	if err != nil {
		return nil, err
	}
	n := newNeeds()
	for e, err := range x.tiles.Entries(x.proof.From, x.proof.To) {
		var gone *auditlog.RemovedError
		if errors.As(err, &gone) {
			run := removedRun{From: gone.From, To: gone.To}
			if run.Hashes, err = x.trees(gone.From, gone.To); err != nil {
				return nil, err
			}
			x.proof.Removed = append(x.proof.Removed, run)
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.Index&0xfff == 0 && x.ctx.Err() != nil {
			return nil, context.Cause(x.ctx)
		}
		var ev auditlog.Event
		if err := json.Unmarshal(e.Payload, &ev); err != nil || bytes.IndexByte(e.Payload, '\n') >= 0 {
			return nil, &auditlog.SealedError{File: "tile/entries", Index: e.Index, Why: "the entry is no event"}
		}
		n.see(&ev)
		if _, err := w.Write(append(e.Payload[:len(e.Payload):len(e.Payload)], '\n')); err != nil {
			return nil, err
		}
		x.m.Events++
	}
	return n, nil
}

// trees is the hashes of the subtrees that cover leaves.
func (x *exporter) trees(lo, hi uint64) ([]hashText, error) {
	list := []hashText{}
	for _, s := range auditlog.Subtrees(lo, hi) {
		h, err := x.tiles.Node(s)
		if err != nil {
			return nil, err
		}
		list = append(list, hashText(h))
	}
	return list, nil
}

func (x *exporter) proofOfRange() error {
	var err error
	if x.proof.Left, err = x.trees(0, x.proof.From); err != nil {
		return err
	}
	if x.proof.Right, err = x.trees(x.proof.To, x.proof.Size); err != nil {
		return err
	}
	if x.proof.Removed == nil {
		x.proof.Removed = []removedRun{}
	}
	b, err := json.MarshalIndent(&x.proof, "", " ")
	if err != nil {
		return err
	}
	return x.put(rangeFile, "hashes that lead the events to the root of the tree head", append(b, '\n'))
}

// heads writes the tree heads that the node kept in the period, and the last one
// before it.
func (x *exporter) heads() error {
	var list []auditlog.TreeHead
	for h, err := range auditlog.KeptHeads(x.StateDir, x.Key) {
		if err != nil {
			return err
		}
		if h.Size > x.head.Size {
			break
		}
		if h.Size <= x.proof.From {
			list = list[:0]
		}
		list = append(list, h)
	}
	w, err := x.create(headsFile, "tree heads that the node kept in the period, each proven to be a beginning of the log")
	if err != nil {
		return err
	}
	for _, h := range list {
		line := keptHead{Size: h.Size, Note: string(h.Note)}
		if h.Size > 0 && h.Size < x.head.Size {
			proof, err := x.tiles.Consistency(h.Size, x.head.Size)
			if err != nil {
				return err
			}
			line.Proof = texts(proof)
		}
		if err := writeLine(w, &line); err != nil {
			return err
		}
	}
	return nil
}

func writeLine(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// context writes the events from before the period that the reports rest on.
func (x *exporter) context(n *needs) error {
	const step = 256
	type found struct {
		index   uint64
		payload []byte
	}
	var list []found
	for hi := x.proof.From; hi > 0 && !n.met(); {
		lo := (hi - 1) / step * step
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		var some []found
		for e, err := range x.tiles.Entries(lo, hi) {
			var gone *auditlog.RemovedError
			if errors.As(err, &gone) {
				continue
			}
			if err != nil {
				return err
			}
			if auditlog.KindOf(e.Payload) == auditlog.ActionEvent {
				continue
			}
			some = append(some, found{e.Index, bytes.Clone(e.Payload)})
		}
		for _, f := range slices.Backward(some) {
			var ev auditlog.Event
			if json.Unmarshal(f.payload, &ev) == nil && n.take(&ev) {
				list = append(list, f)
			}
		}
		hi = lo
	}
	w, err := x.create(contextFile, "events from before the period that the reports rest on: the policy in force, sign-ins, open flows, requests")
	if err != nil {
		return err
	}
	for _, f := range slices.Backward(list) {
		proof, err := x.tiles.InclusionAt(f.index, x.head.Size)
		if err != nil {
			return err
		}
		line, err := contextLine(f.index, texts(proof), f.payload)
		if err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// contextLine keeps the event's bytes as they are.
func contextLine(index uint64, proof []hashText, payload []byte) ([]byte, error) {
	p, err := json.Marshal(proof)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"index":%d,"inclusion":%s,"event":%s}`+"\n", index, p, payload), nil
}

// write writes the pack: the members in a fixed order, the manifest, its note.
func (x *exporter) write(w io.Writer) ([]byte, error) {
	if err := x.finish(); err != nil {
		return nil, err
	}
	sortMembers(x.members, func(m *made) string { return m.name })
	p := newPacker(w)
	for _, m := range x.members {
		if err := p.add(m.entry, io.NewSectionReader(m.file, 0, int64(m.entry.packed))); err != nil {
			return nil, err
		}
		x.m.Members = append(x.m.Members, Member{Name: m.name, Bytes: m.size, SHA256: hexOf(m.sum.Sum(nil)), About: m.about})
	}
	x.m.Before = Before{Bytes: p.at, SHA256: hexOf(p.sum.Sum(nil))}
	manifest, err := x.m.encode()
	if err != nil {
		return nil, err
	}
	if len(manifest) > maxManifest {
		return nil, errors.New("the manifest would be too long; export a shorter period")
	}
	note, err := sealManifest(x.Key, x.Sign, manifest)
	if err != nil {
		return nil, err
	}
	if err := p.store(manifestFile, manifest); err != nil {
		return nil, err
	}
	if err := p.store(noteFile, note); err != nil {
		return nil, err
	}
	return manifest, p.close()
}

// sortMembers gives members the order of the pack.
func sortMembers[T any](list []T, name func(T) string) {
	slices.SortStableFunc(list, func(a, b T) int { return orderOf(name(a)) - orderOf(name(b)) })
}

// orderOf puts what people open first at the front.
func orderOf(name string) int {
	order := []string{"readme.txt", "index.html", "report.pdf"}
	if i := slices.Index(order, name); i >= 0 {
		return i
	}
	if filepath.Dir(name) == "." {
		return len(order)
	}
	return len(order) + 1
}
