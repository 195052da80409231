package auditlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sort"
	"time"
)

// HeadsFile keeps heads of the sealed log as they were published: one JSON object
// in a line, KeptHead. Each of them must be a beginning of what the log is now.
func HeadsFile(stateDir string) string { return filepath.Join(stateDir, "log", "checkpoints") }

// AnchorsFile keeps heads with what others have said of them, one JSON object in a
// line: a KeptHead whose note has the signatures of witnesses, and in "stamp" the
// answer of a time-stamping authority (RFC 3161, base64) about the note as the
// node alone has signed it.
func AnchorsFile(stateDir string) string { return filepath.Join(stateDir, "log", "anchors") }

// KeptHead is a line of HeadsFile.
type KeptHead struct {
	Time time.Time `json:"time"` // when it was kept, by the node's clock
	Note string    `json:"note"` // see ParseTreeHead
}

// maxHeadLine bounds a line of HeadsFile, bytes: a note, escaped.
const maxHeadLine = 2*maxHead + 256

// KeptHeads reads the heads in HeadsFile, in order. An incomplete last line, of a
// write that a crash cut short, is left out. Without the file there are none.
func KeptHeads(stateDir string, key PublicKey) iter.Seq2[TreeHead, error] {
	return headsIn(HeadsFile(stateDir), key)
}

// AnchoredHeads reads the heads in AnchorsFile, in order.
func AnchoredHeads(stateDir string, key PublicKey) iter.Seq2[TreeHead, error] {
	return headsIn(AnchorsFile(stateDir), key)
}

func headsIn(file string, key PublicKey) iter.Seq2[TreeHead, error] {
	return func(yield func(TreeHead, error) bool) {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(TreeHead{}, fmt.Errorf("read the kept checkpoints: %w", err))
			return
		}
		defer f.Close()
		r := bufio.NewReaderSize(f, maxHeadLine)
		for n := 1; ; n++ {
			line, err := r.ReadSlice('\n')
			if err == io.EOF {
				return
			}
			var kept KeptHead
			var head TreeHead
			if err == nil {
				err = json.Unmarshal(line, &kept)
			}
			if err == nil {
				head, err = ParseTreeHead([]byte(kept.Note), key.ForTiles())
			}
			if err != nil {
				yield(TreeHead{}, fmt.Errorf("kept checkpoint %d: %w", n, err))
				return
			}
			if !yield(head, nil) {
				return
			}
		}
	}
}

// Find returns the index of the event with that number, or of the first one
// behind it; the size of the log when there is none.
func (t *Tiles) Find(seq uint64) (uint64, error) {
	var failed error
	bundles := int((t.head.Size + TileWidth - 1) / TileWidth)
	n := sort.Search(bundles, func(n int) bool {
		list, _, err := t.bundle(uint64(n))
		if errors.Is(err, fs.ErrNotExist) {
			return false // retention takes the oldest
		}
		if err != nil {
			failed = err
			return false
		}
		last, ok := seqOf(list[len(list)-1])
		return ok && last >= seq
	})
	if failed != nil || n == bundles {
		return t.head.Size, failed
	}
	list, _, err := t.bundle(uint64(n))
	if err != nil {
		return t.head.Size, err
	}
	for i, leaf := range list {
		if got, ok := seqOf(leaf); ok && got >= seq {
			return uint64(n)*TileWidth + uint64(i), nil
		}
	}
	return t.head.Size, nil
}

// IndexRange is a run of indexes of the sealed log, To not included.
type IndexRange struct{ From, To uint64 }

// SealedReport is what a verification of the sealed log found.
type SealedReport struct {
	Dir         string
	Head        TreeHead
	Entries     uint64 // that are there
	FirstSeq    uint64
	LastSeq     uint64
	First, Last time.Time
	Gaps        int
	// Removed is what is not there any more; the log itself says why.
	Removed  []IndexRange
	Heads    int    // kept heads that are beginnings of the log
	Anchored int    // the same of heads that others have signed
	Overlap  uint64 // events that stand in the spool too, equal

	// Wrong is the first wrong entry, nil when the log is intact.
	Wrong *SealedError
}

// LogReport is what VerifyLog found.
type LogReport struct {
	Spool  *Report       // nil: there is none
	Sealed *SealedReport // nil: there is none
}

// Intact reports whether nothing wrong was found.
func (r *LogReport) Intact() bool {
	return (r.Spool == nil || r.Spool.Intact()) && (r.Sealed == nil || r.Sealed.Wrong == nil)
}

// VerifyLog checks all of a node's log with the public key alone: the spool as
// Verify does; of the sealed log the checkpoint's signature, every entry, every
// hash up to the root, that each head that was kept is a beginning of it, and
// that what is missing was removed by retention as the log itself says; and that
// an event which stands in both is the same. Either may be missing, both not
// (ErrNoLog). An agent may write meanwhile.
func VerifyLog(stateDir string, key PublicKey) (*LogReport, error) {
	r := new(LogReport)
	v := &sealedVerifier{stateDir: stateDir, key: key}
	var err error
	if r.Sealed, err = v.verify(); err != nil {
		return nil, err
	}
	// The agent may remove a segment between the look and the read.
	for range 3 {
		r.Spool, err = verifySpool(SpoolDir(stateDir), key, v.lastSealed)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, ErrNoLog) && r.Sealed != nil {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if r.Sealed == nil || r.Sealed.Wrong != nil {
		return r, nil
	}
	if r.Spool != nil {
		if err := v.compare(); err != nil {
			return nil, err
		}
	}
	v.removals()
	return r, nil
}

type sealedVerifier struct {
	stateDir string
	key      PublicKey
	tiles    *Tiles
	report   *SealedReport

	sum    TreeHash
	levels [][]Hash     // the tile at hand of each level
	heads  []TreeHead   // by size
	met    int          // how many of heads are compared
	kept   int          // how many of heads are of HeadsFile
	stated []IndexRange // by events about retention
}

// lastSealed is the number of the last event in the sealed log as it is now.
func (v *sealedVerifier) lastSealed() (uint64, error) {
	t, err := OpenTiles(TilesDir(v.stateDir), v.key)
	var wrong *SealedError
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &wrong) {
		return 0, nil
	}
	if err != nil || t.head.Size == 0 {
		return 0, err
	}
	for e, err := range t.Entries(t.head.Size-1, t.head.Size) {
		if err != nil {
			return 0, nil // v.verify says what
		}
		return e.Seq, nil
	}
	return 0, nil
}

func (v *sealedVerifier) wrong(index uint64, file, format string, args ...any) {
	if v.report.Wrong == nil {
		v.report.Wrong = &SealedError{File: file, Index: index, Why: fmt.Sprintf(format, args...)}
	}
}

// verify checks the sealed log by itself; nil when there is none.
func (v *sealedVerifier) verify() (*SealedReport, error) {
	dir := TilesDir(v.stateDir)
	v.report = &SealedReport{Dir: dir}
	var wrong *SealedError
	tiles, err := OpenTiles(dir, v.key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return v.missing(dir)
	case errors.As(err, &wrong):
		v.report.Wrong = wrong
		return v.report, nil
	case err != nil:
		return nil, err
	}
	v.tiles, v.report.Head = tiles, tiles.head
	if !v.readHeads() {
		return v.report, nil
	}
	err = v.entries()
	if err == nil && v.report.Wrong == nil {
		err = v.partialTiles()
	}
	if errors.As(err, &wrong) {
		v.report.Wrong = wrong
		err = nil
	}
	if err == nil && v.report.Wrong == nil && v.sum.Root() != tiles.head.Root {
		v.wrong(0, CheckpointFile, "the entries do not lead to the root that is signed")
	}
	return v.report, err
}

// missing is for a log without a checkpoint: nothing, or what is left of one.
func (v *sealedVerifier) missing(dir string) (*SealedReport, error) {
	for _, path := range []string{filepath.Join(dir, "tile"), HeadsFile(v.stateDir), AnchorsFile(v.stateDir)} {
		if _, err := os.Stat(path); err == nil {
			v.wrong(0, CheckpointFile, "the checkpoint is missing")
			return v.report, nil
		}
	}
	return nil, nil
}

func (v *sealedVerifier) readHeads() bool {
	for _, file := range []string{HeadsFile(v.stateDir), AnchorsFile(v.stateDir)} {
		last, n := uint64(0), 0
		for h, err := range headsIn(file, v.key) {
			if err != nil {
				v.wrong(0, "../"+filepath.Base(file), "%v", err)
				return false
			}
			if n++; h.Size < last {
				v.wrong(h.Size, "../"+filepath.Base(file), "checkpoint %d is of a smaller log than the one before it", n)
				return false
			}
			h.Note, last = nil, h.Size
			v.heads = append(v.heads, h)
		}
		if file == HeadsFile(v.stateDir) {
			v.kept = n
		}
	}
	sort.SliceStable(v.heads, func(i, j int) bool { return v.heads[i].Size < v.heads[j].Size })
	return true
}

// entries reads all entries, and the hashes of those that are gone.
func (v *sealedVerifier) entries() error {
	v.checkHeads()
	next := uint64(1) // number that must come next; 0: unknown
	for e, err := range v.tiles.Entries(0, v.tiles.head.Size) {
		var gone *RemovedError
		switch {
		case errors.As(err, &gone):
			if gone.To == v.tiles.head.Size {
				return &SealedError{File: "tile/entries", Index: (gone.To - 1) / TileWidth * TileWidth, Why: "the newest events are missing"}
			}
			if err := v.removed(gone); err != nil {
				return err
			}
			next = 0
			continue
		case err != nil:
			return err
		}
		if next != 0 && e.Seq != next || e.Seq < next {
			return &SealedError{File: "tile/entries", Index: e.Index, Why: fmt.Sprintf("event %d should stand here, and %d does", next, e.Seq)}
		}
		next = e.Seq + 1
		if err := v.event(e); err != nil {
			return err
		}
		if err := v.add(LeafHash(e.Leaf)); err != nil || v.report.Wrong != nil {
			return err
		}
	}
	return nil
}

func (v *sealedVerifier) event(e Entry) error {
	r := v.report
	at, ok := timeOf(e.Payload)
	if !ok || !json.Valid(e.Payload) {
		return &SealedError{File: "tile/entries", Index: e.Index, Why: "the entry is no event"}
	}
	if r.Entries == 0 {
		r.FirstSeq, r.First = e.Seq, at
	}
	r.LastSeq, r.Last = e.Seq, at
	r.Entries++
	v.note(e.Payload)
	return nil
}

var retentionKind = []byte(`"kind":"retention"`)

// note remembers what an event says about the log itself.
func (v *sealedVerifier) note(payload []byte) {
	gap, retention := bytes.Contains(payload, gapKind), bytes.Contains(payload, retentionKind)
	var ev Event
	if !gap && !retention || json.Unmarshal(payload, &ev) != nil {
		return
	}
	if ev.Kind == Gap {
		v.report.Gaps++
	}
	if ev.Kind == RetentionEvent && ev.Retention != nil && ev.Retention.From < ev.Retention.To {
		v.stated = append(v.stated, IndexRange{ev.Retention.From, ev.Retention.To})
	}
}

// removed takes the hashes of entries that are gone from their tiles.
func (v *sealedVerifier) removed(gone *RemovedError) error {
	if n := len(v.report.Removed); n > 0 && v.report.Removed[n-1].To == gone.From {
		v.report.Removed[n-1].To = gone.To
	} else {
		v.report.Removed = append(v.report.Removed, IndexRange(*gone))
	}
	for i := gone.From; i < gone.To; {
		list, err := v.tiles.Hashes(0, i/TileWidth)
		if err != nil {
			return err
		}
		list = list[i%TileWidth:]
		for _, h := range list[:min(uint64(len(list)), gone.To-i)] {
			if err := v.add(h); err != nil || v.report.Wrong != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// add adds a leaf to the tree and compares each tile that it completes.
func (v *sealedVerifier) add(leaf Hash) error {
	v.sum.Add(leaf)
	h := leaf
	for level := 0; ; level++ {
		if level == len(v.levels) {
			v.levels = append(v.levels, nil)
		}
		v.levels[level] = append(v.levels[level], h)
		if len(v.levels[level]) < TileWidth {
			break
		}
		var err error
		if h, err = v.tile(level); err != nil {
			return err
		}
	}
	v.checkHeads()
	return nil
}

// tile compares the tile at hand of a level with the file, and empties it.
func (v *sealedVerifier) tile(level int) (Hash, error) {
	n := (v.sum.Size()>>(tileHeight*level) - 1) / TileWidth
	list, err := v.tiles.Hashes(level, n)
	if err != nil {
		return Hash{}, err
	}
	var sum TreeHash
	for i, h := range v.levels[level] {
		if list[i] != h {
			return Hash{}, &SealedError{File: tilePath(fmt.Sprint(level), n, len(list)), Index: (n*TileWidth + uint64(i)) << (tileHeight * level),
				Why: "the tile does not hold the hashes of what is below it"}
		}
		sum.Add(h)
	}
	v.levels[level] = v.levels[level][:0]
	return sum.Root(), nil
}

// partialTiles compares the tiles at the right edge.
func (v *sealedVerifier) partialTiles() error {
	for level := range v.levels {
		if len(v.levels[level]) == 0 {
			continue
		}
		if _, err := v.tile(level); err != nil {
			return err
		}
	}
	return nil
}

// checkHeads compares the heads of the tree's size at hand.
func (v *sealedVerifier) checkHeads() {
	for ; v.met < len(v.heads); v.met++ {
		h := v.heads[v.met]
		if h.Size > v.tiles.head.Size {
			v.wrong(v.tiles.head.Size, CheckpointFile, "the log ends here, but a kept checkpoint is of %d entries: its end was cut off", h.Size)
			return
		}
		if h.Size != v.sum.Size() {
			return
		}
		if h.Root != v.sum.Root() {
			v.wrong(0, "../checkpoints", "the first %d entries are not those of a checkpoint that was kept", h.Size)
			return
		}
	}
	v.report.Heads, v.report.Anchored = v.kept, len(v.heads)-v.kept
}

// compare compares the events of the spool with the sealed ones, and notes what
// only the spool says yet.
func (v *sealedVerifier) compare() error {
	r, err := OpenDir(SpoolDir(v.stateDir))
	if err != nil {
		return err
	}
	defer r.Close()
	var next func() (Entry, error, bool)
	stop := func() {}
	defer func() { stop() }()
	var e Entry
	have := false
	for {
		rec, err := r.Next()
		var damage *DamageError
		if err == io.EOF || errors.As(err, &damage) || errors.Is(err, fs.ErrNotExist) {
			return nil // damage is in the spool's own report
		}
		if err != nil {
			return err
		}
		if rec.Kind != RecordEvent {
			continue
		}
		if rec.Seq > v.report.LastSeq {
			v.note(rec.Payload)
			continue
		}
		if next == nil {
			at, err := v.tiles.Find(rec.Seq)
			if err != nil {
				return err
			}
			next, stop = iter.Pull2(v.tiles.Entries(at, v.tiles.head.Size))
		}
		for !have || e.Seq < rec.Seq {
			var ok bool
			if e, err, ok = next(); !ok || err != nil {
				var gone *RemovedError
				if ok && errors.As(err, &gone) {
					continue
				}
				return err
			}
			have = true
		}
		if e.Seq != rec.Seq {
			if len(v.report.Removed) == 0 || rec.Seq > v.report.FirstSeq {
				v.wrong(e.Index, "tile/entries", "event %d stands in the spool and is missing here", rec.Seq)
				return nil
			}
			continue
		}
		if !bytes.Equal(e.Payload, rec.Payload) {
			v.wrong(e.Index, "tile/entries", "event %d is another one in the spool (%s)", e.Seq, SegmentName(rec.End.Segment))
			return nil
		}
		v.report.Overlap++
	}
}

// removals checks that the log says of everything that is gone that it was
// removed.
func (v *sealedVerifier) removals() {
	sort.Slice(v.stated, func(i, j int) bool { return v.stated[i].From < v.stated[j].From })
	for _, gone := range v.report.Removed {
		at := gone.From
		for _, s := range v.stated {
			if s.From <= at && at < s.To {
				at = s.To
			}
		}
		if at < gone.To {
			v.wrong(at, "tile/entries", "events are missing from here on, and no event of the log says that retention removed them")
			return
		}
	}
}
