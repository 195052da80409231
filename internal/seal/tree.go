package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// tree writes the sealed log's files (C2SP tlog-tiles.md). What the published
// head covers never changes: each append writes the bundles and tiles that grow,
// each as a whole, brings them to the disk, and then replaces the checkpoint.
// An append that does not reach that point has not happened: the tree is opened
// again, and the same events lead to the same files.
type tree struct {
	fs   audit.FS
	dir  string
	sign func(size uint64, root auditlog.Hash) []byte

	sum    *auditlog.TreeHash
	levels [][]auditlog.Hash // the hashes of the tile at hand of each level
	bundle []byte            // the entries of the bundle at hand
	last   auditlog.Entry    // what was in the log when it was opened; Seq 0: nothing
}

// openTree opens the log in dir, or begins one.
func openTree(disk audit.FS, dir string, key auditlog.PublicKey, sign func(uint64, auditlog.Hash) []byte) (*tree, error) {
	t := &tree{fs: disk, dir: dir, sign: sign, sum: new(auditlog.TreeHash)}
	tiles, err := auditlog.OpenTiles(dir, key)
	if errors.Is(err, fs.ErrNotExist) {
		return t, t.begin()
	}
	if err != nil {
		return nil, err
	}
	return t, t.restore(tiles)
}

// begin publishes the head of an empty log: from now on a log without a
// checkpoint is one that somebody took it from.
func (t *tree) begin() error {
	if _, err := os.Stat(filepath.Join(t.dir, "tile")); err == nil {
		return &auditlog.SealedError{File: auditlog.CheckpointFile, Why: "the checkpoint is missing"}
	}
	if err := t.makeDir(t.dir); err != nil {
		return err
	}
	return t.publish()
}

// restore reads the right edge of the tree. That it leads to the signed root says
// that all of it is what was written: every hash of the edge is part of the root.
func (t *tree) restore(tiles *auditlog.Tiles) error {
	size := tiles.Head().Size
	frontier, err := tiles.Frontier(size)
	if err != nil {
		return err
	}
	if t.sum, err = auditlog.NewTreeHash(size, frontier); err != nil {
		return err
	}
	if t.sum.Root() != tiles.Head().Root {
		return &auditlog.SealedError{File: auditlog.CheckpointFile, Index: size, Why: "the tiles do not lead to the root that is signed"}
	}
	for level := 0; size>>(tileBits*level) > 0; level++ {
		n := size >> (tileBits * level)
		var list []auditlog.Hash
		if n%auditlog.TileWidth != 0 {
			if list, err = tiles.Hashes(level, n/auditlog.TileWidth); err != nil {
				return err
			}
		}
		t.levels = append(t.levels, list)
	}
	if size == 0 {
		return nil
	}
	// The newest bundle always stays, so the last leaf is there.
	for e, err := range tiles.Entries((size-1)/auditlog.TileWidth*auditlog.TileWidth, size) {
		if err != nil {
			return err
		}
		if size%auditlog.TileWidth != 0 {
			t.bundle = auditlog.AppendEntry(t.bundle, e.Leaf)
		}
		t.last = auditlog.Entry{Index: e.Index, Seq: e.Seq, Payload: slices.Clone(e.Payload)}
	}
	return nil
}

// tileBits is the height of a tile.
const tileBits = 8

// file is one that is to be written.
type file struct {
	path string // below the log's directory
	data []byte
}

// append adds leaves, and publishes the head that covers them.
func (t *tree) append(leaves [][]byte) error {
	var files []file
	var full []string
	grown := make([]bool, len(t.levels), len(t.levels)+2)
	for _, leaf := range leaves {
		h, n := auditlog.LeafHash(leaf), t.sum.Size()
		t.sum.Add(h)
		t.bundle = auditlog.AppendEntry(t.bundle, leaf)
		if (n+1)%auditlog.TileWidth == 0 {
			path := auditlog.BundleFile(n/auditlog.TileWidth, auditlog.TileWidth)
			files, full = append(files, file{path, t.bundle}), append(full, path)
			t.bundle = nil
		}
		for level := 0; ; level++ {
			if level == len(t.levels) {
				t.levels, grown = append(t.levels, nil), append(grown, false)
			}
			t.levels[level], grown[level] = append(t.levels[level], h), true
			if len(t.levels[level]) < auditlog.TileWidth {
				break
			}
			n /= auditlog.TileWidth
			path := auditlog.TileFile(level, n, auditlog.TileWidth)
			var sum auditlog.TreeHash
			for _, h := range t.levels[level] {
				sum.Add(h)
			}
			files, full = append(files, file{path, join(t.levels[level])}), append(full, path)
			h, t.levels[level], grown[level] = sum.Root(), nil, false
		}
	}
	size := t.sum.Size()
	if w := int(size % auditlog.TileWidth); w != 0 {
		files = append(files, file{auditlog.BundleFile(size/auditlog.TileWidth, w), t.bundle})
	}
	for level, list := range t.levels {
		if grown[level] && len(list) > 0 {
			files = append(files, file{auditlog.TileFile(level, size>>(tileBits*(level+1)), len(list)), join(list)})
		}
	}
	if err := t.write(files); err != nil {
		return err
	}
	if err := t.publish(); err != nil {
		return err
	}
	// Partial ones may go when the full one is there. A crash leaves some behind,
	// which do no harm.
	for _, path := range full {
		if err := os.RemoveAll(filepath.Join(t.dir, path+".p")); err != nil {
			return fmt.Errorf("remove a partial tile: %w", err)
		}
	}
	return nil
}

func join(list []auditlog.Hash) []byte {
	b := make([]byte, 0, len(list)*len(auditlog.Hash{}))
	for _, h := range list {
		b = append(b, h[:]...)
	}
	return b
}

// write brings files to the disk.
func (t *tree) write(files []file) error {
	var dirs []string
	for _, f := range files {
		path := filepath.Join(t.dir, f.path)
		dir := filepath.Dir(path)
		if !slices.Contains(dirs, dir) {
			if err := t.makeDir(dir); err != nil {
				return err
			}
			dirs = append(dirs, dir)
		}
		if err := audit.WriteWhole(t.fs, path, f.data); err != nil {
			return fmt.Errorf("write the sealed log: %w", err)
		}
	}
	for _, dir := range dirs {
		if err := t.fs.SyncDir(dir); err != nil {
			return fmt.Errorf("write the sealed log: %w", err)
		}
	}
	return nil
}

// makeDir makes a directory whose name is on disk when it returns. One that is
// there already may be there since an attempt that ended between the two.
func (t *tree) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if dir != t.dir {
		if err := t.makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write the sealed log: %w", err)
	}
	err := t.fs.SyncDir(filepath.Dir(dir))
	if err != nil {
		// Tried again next time.
		return errors.Join(fmt.Errorf("write the sealed log: %w", err), os.Remove(dir))
	}
	return nil
}

// publish signs the head of the tree. The point of no return: what it covers is
// sealed.
func (t *tree) publish() error {
	err := audit.WriteWhole(t.fs, filepath.Join(t.dir, auditlog.CheckpointFile), t.sign(t.sum.Size(), t.sum.Root()))
	if err == nil {
		err = t.fs.SyncDir(t.dir)
	}
	if err != nil {
		return fmt.Errorf("write the sealed log's checkpoint: %w", err)
	}
	return nil
}
