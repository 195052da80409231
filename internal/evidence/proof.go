package evidence

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// hashText is a hash in JSON, base64 as in a tree head.
type hashText auditlog.Hash

func (h hashText) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, h[:]), nil
}

func (h *hashText) UnmarshalText(b []byte) error {
	raw, err := base64.StdEncoding.Strict().DecodeString(string(b))
	if err != nil || len(raw) != len(h) {
		return errors.New("this is no hash")
	}
	copy(h[:], raw)
	return nil
}

func texts(list []auditlog.Hash) []hashText {
	out := make([]hashText, len(list))
	for i, h := range list {
		out[i] = hashText(h)
	}
	return out
}

func hashes(list []hashText) []auditlog.Hash {
	out := make([]auditlog.Hash, len(list))
	for i, h := range list {
		out[i] = auditlog.Hash(h)
	}
	return out
}

// leafRange is log/range.json: what proves that the events of the pack are the
// leaves from From to before To of the log. Hashes are those of the fewest full
// subtrees that cover the leaves they stand for, in order (RFC 9162 section 2.1).
type leafRange struct {
	Origin string     `json:"origin"`
	From   uint64     `json:"from_index"`
	To     uint64     `json:"to_index"`
	Size   uint64     `json:"size"`
	Root   hashText   `json:"root"`
	Left   []hashText `json:"left"`  // of the leaves before From
	Right  []hashText `json:"right"` // of those from To on
	// Removed are leaves in between whose events retention has removed.
	Removed []removedRun `json:"removed"`
}

type removedRun struct {
	From   uint64     `json:"from_index"`
	To     uint64     `json:"to_index"`
	Hashes []hashText `json:"hashes"`
}

// events is how many events the pack must have.
func (r *leafRange) events() (n uint64, err error) {
	if r.From > r.To || r.To > r.Size {
		return 0, errors.New("its indexes are in no order")
	}
	n = r.To - r.From
	at := r.From
	for _, g := range r.Removed {
		if g.From < at || g.From >= g.To || g.To > r.To {
			return 0, errors.New("its removed runs are in no order")
		}
		n -= g.To - g.From
		at = g.To
	}
	return n, nil
}

// addTrees adds subtrees that cover the leaves from lo to before hi.
func addTrees(b *auditlog.Builder, lo, hi uint64, list []hashText) error {
	trees := auditlog.Subtrees(lo, hi)
	if len(trees) != len(list) {
		return fmt.Errorf("the leaves %d to %d want %d hashes, not %d", lo, hi, len(trees), len(list))
	}
	for i, s := range trees {
		if err := b.AddTree(s.Level, auditlog.Hash(list[i])); err != nil {
			return err
		}
	}
	return nil
}

// rangeWalk leads the events of a pack, one by one, to the root.
type rangeWalk struct {
	r    *leafRange
	b    auditlog.Builder
	gaps []removedRun
}

func walk(r *leafRange, each func(auditlog.Subtree, auditlog.Hash)) (*rangeWalk, error) {
	if _, err := r.events(); err != nil {
		return nil, fmt.Errorf("%s: %w", rangeFile, err)
	}
	w := &rangeWalk{r: r, gaps: r.Removed}
	w.b.Each = each
	return w, addTrees(&w.b, 0, r.From, r.Left)
}

// skip passes removed leaves.
func (w *rangeWalk) skip() error {
	for len(w.gaps) > 0 && w.gaps[0].From == w.b.Size() {
		g := w.gaps[0]
		w.gaps = w.gaps[1:]
		if err := addTrees(&w.b, g.From, g.To, g.Hashes); err != nil {
			return err
		}
	}
	return nil
}

// add takes the next event and returns its index.
func (w *rangeWalk) add(payload []byte) (uint64, error) {
	if err := w.skip(); err != nil {
		return 0, err
	}
	at := w.b.Size()
	if at >= w.r.To {
		return at, fmt.Errorf("%s holds more events than the log has in the period", eventsFile)
	}
	leaf, err := auditlog.Leaf(payload)
	if err == nil {
		w.b.Add(auditlog.LeafHash(leaf))
	}
	return at, err
}

// end takes what is behind the events, and compares the root.
func (w *rangeWalk) end() error {
	if err := w.skip(); err != nil {
		return err
	}
	if w.b.Size() != w.r.To {
		return fmt.Errorf("%s holds fewer events than the log has in the period", eventsFile)
	}
	if err := addTrees(&w.b, w.r.To, w.r.Size, w.r.Right); err != nil {
		return err
	}
	if w.b.Root() != auditlog.Hash(w.r.Root) {
		return errors.New("the events do not lead to the root of the signed tree head")
	}
	return nil
}

// nodes keeps the hashes that paths want while a walk goes by.
type nodes map[auditlog.Subtree]auditlog.Hash

// want notes what the path of a leaf takes.
func (n nodes) want(index, size uint64) error {
	path, err := auditlog.Path(index, size)
	for _, part := range path {
		for _, s := range part {
			if _, ok := n[s]; !ok {
				n[s] = auditlog.Hash{}
			}
		}
	}
	return err
}

func (n nodes) see(s auditlog.Subtree, h auditlog.Hash) {
	if _, ok := n[s]; ok {
		n[s] = h
	}
}

// path is the proof for a leaf, once the walk is over.
func (n nodes) path(index, size uint64) ([]auditlog.Hash, error) {
	path, err := auditlog.Path(index, size)
	if err != nil {
		return nil, err
	}
	proof := make([]auditlog.Hash, len(path))
	for i, part := range path {
		h := n[part[len(part)-1]]
		for j := len(part) - 2; j >= 0; j-- {
			h = auditlog.NodeHash(n[part[j]], h)
		}
		proof[i] = h
	}
	return proof, nil
}

// keptHead is a line of log/checkpoints.jsonl: a tree head that the node kept, and
// the proof that the pack's continues it (RFC 9162 section 2.1.4).
type keptHead struct {
	Size  uint64     `json:"size"`
	Note  string     `json:"note"`
	Proof []hashText `json:"consistency"`
}

// contextEvent is a line of log/context.jsonl: an event from before the period that
// the reports rest on, with its inclusion proof.
type contextEvent struct {
	Index uint64          `json:"index"`
	Proof []hashText      `json:"inclusion"`
	Event json.RawMessage `json:"event"`
}

// maxLine bounds a line of JSON in a pack, bytes.
const maxLine = auditlog.MaxPayload + 64<<10

// lines yields the lines of a member, each valid until the next. The last one ends
// with a newline too.
func lines(r io.Reader, each func(line []byte) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var long []byte
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if long = append(long, line...); len(long) > maxLine {
				return errors.New("a line is too long")
			}
			continue
		}
		if err == io.EOF && len(line) == 0 && len(long) == 0 {
			return nil
		}
		if err == io.EOF {
			return errors.New("the last line has no end")
		}
		if err != nil {
			return err
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if err := each(line[:len(line)-1]); err != nil {
			return err
		}
		long = long[:0]
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
