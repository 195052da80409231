// Package independent checks a sealed log without any code of Weir: with the
// public modules for signed notes and Merkle trees, and the layout of C2SP
// tlog-tiles.md read anew.
package independent

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/internal/seal"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// checkpoint opens the log's checkpoint.
func checkpoint(dir, key string) (size uint64, root []byte, err error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return 0, nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return 0, nil, err
	}
	n, err := note.Open(b, note.VerifierList(v))
	if err != nil {
		return 0, nil, err
	}
	lines := strings.Split(n.Text, "\n")
	if lines[0] != v.Name() {
		return 0, nil, fmt.Errorf("the origin is %s", lines[0])
	}
	if size, err = strconv.ParseUint(lines[1], 10, 64); err != nil {
		return 0, nil, err
	}
	root, err = base64.StdEncoding.DecodeString(lines[2])
	return size, root, err
}

// name is the name of tile n (below 1000 times 1000) with so many hashes.
func name(n, width uint64) string {
	s := fmt.Sprintf("%03d", n%1000)
	if n >= 1000 {
		s = fmt.Sprintf("x%03d/%s", n/1000, s)
	}
	if width < 256 {
		s += fmt.Sprintf(".p/%d", width)
	}
	return s
}

// check reads all entries and computes the root over them.
func check(dir, key string, each func(index uint64, leaf []byte)) error {
	size, root, err := checkpoint(dir, key)
	if err != nil {
		return err
	}
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for index := uint64(0); index < size; {
		b, err := os.ReadFile(filepath.Join(dir, "tile", "entries", name(index/256, min(size-index, 256))))
		if err != nil {
			return err
		}
		for ; len(b) > 0; index++ {
			n := int(binary.BigEndian.Uint16(b))
			leaf := b[2 : 2+n]
			if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(leaf), nil); err != nil {
				return err
			}
			each(index, leaf)
			b = b[2+n:]
		}
	}
	got, err := tree.GetRootHash(nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, root) {
		return fmt.Errorf("the entries lead to %x, and the signed root is %x", got, root)
	}
	return nil
}

func TestIndependent(t *testing.T) {
	dir := t.TempDir()
	spool, err := audit.Open(audit.Config{StateDir: dir, Node: "node-a"})
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	const total = 70_000 // tiles at three levels
	for i := range total {
		ev := &auditlog.Event{Kind: auditlog.ActionEvent, Flow: "F", Action: &auditlog.Action{ID: "A", Phase: auditlog.PhaseOutcome, Text: fmt.Sprint("SELECT ", i)}}
		if err := spool.Append(t.Context(), false, ev); err != nil {
			t.Fatal(err)
		}
	}
	sealer, err := seal.Open(seal.Config{StateDir: dir, Spool: spool})
	if err != nil {
		t.Fatal(err)
	}
	if err := sealer.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(auditlog.PublicKeyFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	public, err := auditlog.ParsePublicKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	key, tilesDir := public.ForTiles().String(), auditlog.TilesDir(dir)
	tiles, err := auditlog.OpenTiles(tilesDir, public)
	if err != nil {
		t.Fatal(err)
	}
	size, root, err := checkpoint(tilesDir, key)
	if err != nil {
		t.Fatal(err)
	}
	seq := uint64(0)
	err = check(tilesDir, key, func(index uint64, leaf []byte) {
		var ev struct {
			Seq uint64 `json:"seq"`
		}
		if err := json.Unmarshal(leaf, &ev); err != nil || ev.Seq != seq+1 {
			t.Fatalf("event %d follows %d: %v", ev.Seq, seq, err)
		}
		seq = ev.Seq
		if index%3301 != 0 {
			return
		}
		p, err := tiles.Inclusion(index)
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, rfc6962.DefaultHasher.HashLeaf(leaf), hashes(p), root); err != nil {
			t.Fatal(err)
		}
		if index == 0 {
			return
		}
		before, err := tiles.Root(index)
		if err != nil {
			t.Fatal(err)
		}
		if p, err = tiles.Consistency(index, size); err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, index, size, hashes(p), before[:], root); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil || seq != total {
		t.Fatal(seq, err)
	}

	// It must be able to fail.
	path := filepath.Join(tilesDir, "tile", "entries", "100")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(tilesDir, key, func(uint64, []byte) {}); err == nil {
		t.Error("an altered entry passes")
	}
}

func hashes(list []auditlog.Hash) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i][:]
	}
	return out
}
