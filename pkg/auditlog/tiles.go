package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The sealed log is a transparency log in files: C2SP tlog-tiles.md, with signed
// checkpoints of C2SP tlog-checkpoint.md.
//
//	log/tiles/checkpoint           the newest signed tree head
//	log/tiles/tile/0/x001/234      hashes, 256 in a tile; 234.p/7 the first 7 of them
//	log/tiles/tile/entries/...     the leaves, 256 in a bundle
//	log/tiles/long/HEX             events too long for a bundle, by their SHA-256
const (
	TileWidth  = 256
	tileHeight = 8
	maxBundle  = TileWidth * (2 + MaxLeaf)
	// maxHead bounds a checkpoint with the signatures of its witnesses, bytes.
	maxHead = 64 << 10
)

// TilesDir is where the sealed log lives in a state directory.
func TilesDir(stateDir string) string { return filepath.Join(stateDir, "log", "tiles") }

// The names of the two keys of a node, NODE before them. The same key signs both
// under two names, so that a checkpoint of the one is none of the other.
const (
	spoolName = "/weir-spool"
	tilesName = "/weir-log"
)

// ForTiles is the key under the name that the sealed log's checkpoints are signed
// with.
func (k PublicKey) ForTiles() PublicKey {
	name := strings.TrimSuffix(strings.TrimSuffix(k.Name, tilesName), spoolName)
	return PublicKey{Name: name + tilesName, Key: k.Key}
}

// TreeHead is a signed statement of how many leaves the sealed log has, and of
// their root.
type TreeHead struct {
	Origin string
	Size   uint64
	Root   Hash
	Note   []byte // the signed note, with the signatures of witnesses
}

// Text is the part of a head that is signed (C2SP tlog-checkpoint.md).
func (h TreeHead) Text() []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\n", h.Origin, h.Size, base64.StdEncoding.EncodeToString(h.Root[:]))
}

// ParseTreeHead reads a signed note with a tree head; one of its signatures must
// be of key, under its own name.
func ParseTreeHead(note []byte, key PublicKey) (TreeHead, error) {
	if len(note) > maxHead {
		return TreeHead{}, errors.New("the tree head is too long")
	}
	i := bytes.LastIndex(note, []byte("\n\n"))
	if i < 0 || note[len(note)-1] != '\n' {
		return TreeHead{}, errors.New("the tree head has no signature")
	}
	text := note[:i+1]
	h := TreeHead{Note: bytes.Clone(note)}
	found := false
	for line := range strings.SplitSeq(strings.TrimSuffix(string(note[i+2:]), "\n"), "\n") {
		name, sig, ok := strings.Cut(strings.TrimPrefix(line, "— "), " ")
		if !ok || !strings.HasPrefix(line, "— ") || !ValidOrigin(name) {
			return TreeHead{}, errors.New("the tree head has a malformed signature")
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(sig)
		if err != nil || len(raw) < 5 {
			return TreeHead{}, errors.New("the tree head has a malformed signature")
		}
		if name != key.Name || binary.BigEndian.Uint32(raw) != key.ID() {
			continue // a witness; who knows its key can check it
		}
		if found || !ed25519.Verify(key.Key, text, raw[4:]) {
			return TreeHead{}, errors.New("the tree head's signature is wrong")
		}
		found = true
	}
	if !found {
		return TreeHead{}, errors.New("the tree head is not signed with this key")
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 4 || lines[0] != key.Name {
		return TreeHead{}, errors.New("the tree head is malformed")
	}
	h.Origin = lines[0]
	size, err := strconv.ParseUint(lines[1], 10, 63)
	root, rootErr := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || strconv.FormatUint(size, 10) != lines[1] || rootErr != nil || len(root) != len(h.Root) {
		return TreeHead{}, errors.New("the tree head is malformed")
	}
	h.Size = size
	copy(h.Root[:], root)
	return h, nil
}

// Tiles is the sealed log as its checkpoint states it. It may grow meanwhile;
// OpenTiles again sees that. It is safe for concurrent use.
type Tiles struct {
	dir  string
	head TreeHead
}

// OpenTiles reads the checkpoint of the sealed log in dir (see TilesDir) and
// verifies its signature. Key may have the name of the spool's. Without a sealed
// log the error is fs.ErrNotExist.
func OpenTiles(dir string, key PublicKey) (*Tiles, error) {
	note, err := readAtMost(filepath.Join(dir, CheckpointFile), maxHead)
	if err != nil {
		return nil, fmt.Errorf("read the sealed log's checkpoint: %w", err)
	}
	head, err := ParseTreeHead(note, key.ForTiles())
	if err != nil {
		return nil, &SealedError{File: CheckpointFile, Why: err.Error()}
	}
	return &Tiles{dir: dir, head: head}, nil
}

// At is the log as an earlier or another checkpoint of it states it. It is not
// checked that one continues the other.
func (t *Tiles) At(head TreeHead) *Tiles { return &Tiles{dir: t.dir, head: head} }

// Head is the checkpoint.
func (t *Tiles) Head() TreeHead { return t.head }

// SealedError is the error of a sealed log that is not what was written.
type SealedError struct {
	File  string // below the directory of the sealed log
	Index uint64 // of the first leaf that it concerns
	Why   string
}

func (e *SealedError) Error() string {
	return fmt.Sprintf("sealed log, %s, index %d: %s", e.File, e.Index, e.Why)
}

// RemovedError is the error of entries that are not there any more: their hashes
// are, the events went with the retention.
type RemovedError struct{ From, To uint64 } // indexes, To not included

func (e *RemovedError) Error() string {
	return fmt.Sprintf("the events with index %d to %d have been removed", e.From, e.To-1)
}

// tilePath is the path of a tile, below the directory of the log. level is a
// number or "entries"; width is below TileWidth for a partial one.
func tilePath(level string, n uint64, width int) string {
	name := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		name = fmt.Sprintf("x%03d", n%1000) + "/" + name
	}
	p := "tile/" + level + "/" + name
	if width < TileWidth {
		p += ".p/" + strconv.Itoa(width)
	}
	return p
}

// width is how many hashes or leaves tile n has at a level of tiles.
func (t *Tiles) width(level int, n uint64) int {
	all := t.head.Size >> (tileHeight * level)
	if n > all/TileWidth {
		return 0
	}
	return int(min(all-n*TileWidth, TileWidth))
}

// readTile reads tile n, at least width of it: a partial tile goes when the full
// one is there.
func (t *Tiles) readTile(level string, n uint64, width, limit int) (b []byte, file string, err error) {
	file = tilePath(level, n, width)
	b, err = readAtMost(filepath.Join(t.dir, file), limit)
	if errors.Is(err, fs.ErrNotExist) && width < TileWidth {
		file = tilePath(level, n, TileWidth)
		b, err = readAtMost(filepath.Join(t.dir, file), limit)
	}
	return b, file, err
}

func readAtMost(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return b, err
}

// Hashes returns the hashes of tile n at a level of tiles, as many as the
// checkpoint covers.
func (t *Tiles) Hashes(level int, n uint64) ([]Hash, error) {
	width := t.width(level, n)
	b, file, err := t.readTile(strconv.Itoa(level), n, width, TileWidth*sha256.Size)
	wrong := func(why string) error {
		return &SealedError{File: file, Index: n << (tileHeight * (level + 1)), Why: why}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, wrong("the tile is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("read the sealed log: %w", err)
	}
	if want := width * sha256.Size; width == 0 || len(b) != want && (file == tilePath(strconv.Itoa(level), n, width) || len(b) != TileWidth*sha256.Size) {
		return nil, wrong("the tile does not have the length that it should")
	}
	list := make([]Hash, width)
	for i := range list {
		copy(list[i][:], b[i*sha256.Size:])
	}
	return list, nil
}

// node implements nodes over the tiles.
func (t *Tiles) node(level int, index uint64) (Hash, error) {
	tiles, within := level/tileHeight, level%tileHeight
	first := index << within
	list, err := t.Hashes(tiles, first/TileWidth)
	if err != nil {
		return Hash{}, err
	}
	at := int(first % TileWidth)
	if at+1<<within > len(list) {
		return Hash{}, fmt.Errorf("the sealed log has no full subtree %d at level %d", index, level)
	}
	var sum TreeHash
	for _, h := range list[at : at+1<<within] {
		sum.Add(h)
	}
	return sum.Root(), nil
}

// Inclusion is the proof that the leaf at index is in the tree.
func (t *Tiles) Inclusion(index uint64) ([]Hash, error) {
	if index >= t.head.Size {
		return nil, fmt.Errorf("the sealed log has %d leaves, and none with index %d", t.head.Size, index)
	}
	return nodes(t.node).inclusion(index, 0, t.head.Size)
}

// Consistency is the proof that the tree of size to begins with that of size from.
func (t *Tiles) Consistency(from, to uint64) ([]Hash, error) {
	if from > to || to > t.head.Size {
		return nil, fmt.Errorf("the sealed log has %d leaves: there is no proof from %d to %d", t.head.Size, from, to)
	}
	if from == 0 || from == to {
		return nil, nil
	}
	return nodes(t.node).consistency(from, 0, to, true)
}

// Frontier is the hashes of the full subtrees that the first size leaves make up,
// the largest first: with them NewTreeHash goes on behind these leaves.
func (t *Tiles) Frontier(size uint64) ([]Hash, error) {
	if size > t.head.Size {
		return nil, fmt.Errorf("the sealed log has %d leaves, not %d", t.head.Size, size)
	}
	return nodes(t.node).frontier(size)
}

// Root is the root over the first size leaves, by the tiles.
func (t *Tiles) Root(size uint64) (Hash, error) {
	if size == 0 {
		return EmptyRoot(), nil
	}
	if size > t.head.Size {
		return Hash{}, fmt.Errorf("the sealed log has %d leaves, not %d", t.head.Size, size)
	}
	return nodes(t.node).rangeHash(0, size)
}

// Entry is a leaf of the sealed log.
type Entry struct {
	Index   uint64
	Seq     uint64 // of the event
	Leaf    []byte // what the tree holds; see Leaf
	Payload []byte // the event's JSON
}

// Entries yields the leaves with index from to before to, in order; an Entry is
// valid until the next one. Each leaf has the hash that its tile states; that the
// tiles make up the checkpoint's root is VerifySealed's business. What retention
// has removed gives one *RemovedError for a run, and the iteration goes on behind
// it; any other error ends it.
func (t *Tiles) Entries(from, to uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		to = min(to, t.head.Size)
		var gone *RemovedError
		for n := from / TileWidth; n*TileWidth < to; n++ {
			list, file, err := t.bundle(n)
			lo, hi := max(from, n*TileWidth), min(to, (n+1)*TileWidth)
			if errors.Is(err, fs.ErrNotExist) {
				if gone == nil {
					gone = &RemovedError{From: lo}
				}
				gone.To = hi
				continue
			}
			if gone != nil {
				if !yield(Entry{}, gone) {
					return
				}
				gone = nil
			}
			var hashes []Hash
			if err == nil {
				hashes, err = t.Hashes(0, n)
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for i := lo; i < hi; i++ {
				e := Entry{Index: i, Leaf: list[i%TileWidth]}
				if LeafHash(e.Leaf) != hashes[i%TileWidth] {
					err = &SealedError{File: file, Index: i, Why: "the event does not have the hash that the tree states"}
				} else {
					err = t.complete(&e)
				}
				var removed *RemovedError
				if errors.As(err, &removed) {
					if !yield(Entry{}, err) {
						return
					}
					continue
				}
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
		if gone != nil {
			yield(Entry{}, gone)
		}
	}
}

// bundle reads the leaves of bundle n. One that retention has removed gives
// fs.ErrNotExist.
func (t *Tiles) bundle(n uint64) ([][]byte, string, error) {
	width := t.width(0, n)
	b, file, err := t.readTile("entries", n, width, maxBundle)
	if err != nil {
		return nil, file, fmt.Errorf("read the sealed log: %w", err)
	}
	list, err := splitBundle(b)
	if err != nil || len(list) != width && (file == tilePath("entries", n, width) || len(list) != TileWidth) {
		return nil, file, &SealedError{File: file, Index: n * TileWidth, Why: "the bundle does not hold the entries that it should"}
	}
	return list[:width], file, nil
}

// splitBundle reads an entry bundle: each entry behind its length in two bytes.
func splitBundle(b []byte) ([][]byte, error) {
	bad := errors.New("the bundle is malformed")
	list := make([][]byte, 0, TileWidth)
	for len(b) > 0 {
		if len(b) < 2 || len(list) == TileWidth {
			return nil, bad
		}
		n := int(binary.BigEndian.Uint16(b))
		if len(b) < 2+n {
			return nil, bad
		}
		list = append(list, b[2:2+n:2+n])
		b = b[2+n:]
	}
	return list, nil
}

// LongFile is the path of an event too long for a leaf, below the directory of
// the sealed log.
func LongFile(payload []byte) string {
	return fmt.Sprintf("long/%x", sha256.Sum256(payload))
}

// complete finds the event that a leaf stands for.
func (t *Tiles) complete(e *Entry) error {
	seq, ok := seqOf(e.Leaf)
	if !ok {
		return &SealedError{Index: e.Index, Why: "the leaf is no event"}
	}
	e.Seq, e.Payload = seq, e.Leaf
	size, sum, long := longLeaf(e.Leaf)
	if !long {
		return nil
	}
	file := fmt.Sprintf("long/%x", sum)
	b, err := readAtMost(filepath.Join(t.dir, file), MaxPayload)
	if errors.Is(err, fs.ErrNotExist) {
		return &RemovedError{From: e.Index, To: e.Index + 1}
	}
	if err != nil {
		return fmt.Errorf("read the sealed log: %w", err)
	}
	if len(b) != size || sha256.Sum256(b) != sum {
		return &SealedError{File: file, Index: e.Index, Why: "the event does not have the hash that its leaf states"}
	}
	e.Payload = b
	return nil
}

// TileFile is the path of tile n at a level of tiles, below the directory of the
// sealed log; BundleFile that of an entry bundle. A width below TileWidth is that
// of a partial one.
func TileFile(level int, n uint64, width int) string {
	return tilePath(strconv.Itoa(level), n, width)
}

func BundleFile(n uint64, width int) string { return tilePath("entries", n, width) }

// AppendEntry appends a leaf to an entry bundle.
func AppendEntry(bundle, leaf []byte) []byte {
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(leaf)))
	return append(bundle, leaf...)
}

// LongFiles are the paths, below the directory of the sealed log, of the events
// of bundle n that are too long for their leaf.
func (t *Tiles) LongFiles(n uint64) []string {
	list, _, err := t.bundle(n)
	if err != nil {
		return nil
	}
	var files []string
	for _, leaf := range list {
		if _, sum, long := longLeaf(leaf); long {
			files = append(files, fmt.Sprintf("long/%x", sum))
		}
	}
	return files
}
