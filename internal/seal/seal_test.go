package seal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/internal/seal"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func openSpool(t testing.TB, dir string, segment int64) *audit.Spool {
	t.Helper()
	s, err := audit.Open(audit.Config{StateDir: dir, Node: "node-a", SegmentBytes: segment})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openSealer(t testing.TB, c seal.Config) *seal.Sealer {
	t.Helper()
	if c.Every == 0 {
		c.Every = 20 * time.Millisecond
	}
	s, err := seal.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func appendN(t testing.TB, s *audit.Spool, n int) {
	t.Helper()
	for i := range n {
		if err := s.Append(context.Background(), false, event(fmt.Sprint("SELECT ", i))); err != nil {
			t.Fatal(err)
		}
	}
}

func event(text string) *auditlog.Event {
	return &auditlog.Event{Kind: auditlog.ActionEvent, Flow: "F1", Verdict: "allow",
		Action: &auditlog.Action{ID: "A1", Phase: auditlog.PhaseOutcome, Verbs: []string{"select"}, Text: text}}
}

func closeAll(t testing.TB, spool *audit.Spool, sealer *seal.Sealer) {
	t.Helper()
	if err := sealer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := spool.Close(); err != nil {
		t.Fatal(err)
	}
}

func publicKey(t testing.TB, dir string) auditlog.PublicKey {
	t.Helper()
	text, err := os.ReadFile(auditlog.PublicKeyFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	key, err := auditlog.ParsePublicKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func verify(t testing.TB, dir string) *auditlog.LogReport {
	t.Helper()
	rep, err := auditlog.VerifyLog(dir, publicKey(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func wantIntact(t testing.TB, dir string) *auditlog.LogReport {
	t.Helper()
	rep := verify(t, dir)
	if !rep.Intact() {
		if rep.Spool != nil && rep.Spool.Wrong != nil {
			t.Fatal("spool:", rep.Spool.Wrong)
		}
		t.Fatal("sealed:", rep.Sealed.Wrong)
	}
	return rep
}

// readLog reads the whole log; every number once and in order, from first on.
func readLog(t testing.TB, dir string, first uint64) (sealed, unsealed int) {
	t.Helper()
	r, err := auditlog.OpenLog(dir, publicKey(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for next := first; ; next++ {
		ev, err := r.Next()
		var gone *auditlog.RemovedError
		if errors.As(err, &gone) {
			next--
			continue
		}
		if err == io.EOF {
			return sealed, unsealed
		}
		if err != nil {
			t.Fatal(err)
		}
		if ev.Seq != next || !json.Valid(ev.Payload) {
			t.Fatalf("event %d where %d should be", ev.Seq, next)
		}
		if ev.Sealed {
			sealed++
		} else {
			unsealed++
		}
	}
}

func TestSeal(t *testing.T) {
	dir := t.TempDir()
	total := 0
	for run := range 3 {
		spool := openSpool(t, dir, 64<<10)
		sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool})
		appendN(t, spool, 700)
		long := event(strings.Repeat("x", 300_000))
		if err := spool.Append(t.Context(), false, long); err != nil {
			t.Fatal(err)
		}
		appendN(t, spool, 10)
		total += 711
		closeAll(t, spool, sealer)
		rep := wantIntact(t, dir)
		if rep.Sealed.Entries != uint64(total) || rep.Sealed.Overlap != uint64(total) || rep.Sealed.Head.Size != uint64(total) || rep.Sealed.LastSeq != uint64(total) {
			t.Fatalf("run %d: %+v", run, rep.Sealed)
		}
		if rep.Sealed.Heads < run+1 {
			t.Errorf("run %d: %d heads are kept", run, rep.Sealed.Heads)
		}
		if sealed, unsealed := readLog(t, dir, 1); sealed != total || unsealed != 0 {
			t.Fatalf("%d sealed, %d not", sealed, unsealed)
		}
	}
	// The tiles alone are enough.
	if err := os.RemoveAll(auditlog.SpoolDir(dir)); err != nil {
		t.Fatal(err)
	}
	if rep := wantIntact(t, dir); rep.Spool != nil {
		t.Error("there is no spool")
	}
	readLog(t, dir, 1)
	proofs(t, dir)
}

// proofs proves every 50th entry, and the log's growth.
func proofs(t *testing.T, dir string) {
	tiles, err := auditlog.OpenTiles(auditlog.TilesDir(dir), publicKey(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	head := tiles.Head()
	for e, err := range tiles.Entries(0, head.Size) {
		if err != nil {
			t.Fatal(err)
		}
		if at, err := tiles.Find(e.Seq); err != nil || at != e.Index {
			t.Fatalf("event %d is at %d, not %d: %v", e.Seq, e.Index, at, err)
		}
		if e.Index%50 != 0 {
			continue
		}
		p, err := tiles.Inclusion(e.Index)
		if err != nil {
			t.Fatal(err)
		}
		if err := auditlog.VerifyInclusion(e.Index, head.Size, auditlog.LeafHash(e.Leaf), p, head.Root); err != nil {
			t.Fatal(err)
		}
		old, err := tiles.Root(e.Index)
		if err != nil {
			t.Fatal(err)
		}
		if p, err = tiles.Consistency(e.Index, head.Size); err != nil {
			t.Fatal(err)
		}
		if err := auditlog.VerifyConsistency(e.Index, head.Size, p, old, head.Root); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOldState: a spool of many segments that is older than the sealer.
func TestOldState(t *testing.T) {
	dir := t.TempDir()
	spool := openSpool(t, dir, 16<<10)
	appendN(t, spool, 10_000)
	sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool})
	closeAll(t, spool, sealer)
	if rep := wantIntact(t, dir); rep.Sealed.Entries != 10_000 || rep.Spool.Segments < 50 {
		t.Errorf("%d entries, %d segments", rep.Sealed.Entries, rep.Spool.Segments)
	}
}

// until waits for a condition that the sealer brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain: ", what)
		}
	}
}

// TestRemoveSegments: segments go when they are sealed and every reader has passed
// them, or when they are old.
func TestRemoveSegments(t *testing.T) {
	for _, old := range []bool{false, true} {
		dir := t.TempDir()
		spool := openSpool(t, dir, 16<<10)
		appendN(t, spool, 3000)
		before, _ := auditlog.Segments(auditlog.SpoolDir(dir))
		reader := make(chan auditlog.Position, 1)
		reader <- auditlog.Position{Segment: 5}
		now := time.Now
		retention := time.Duration(0)
		if old {
			now = func() time.Time { return time.Now().Add(48 * time.Hour) }
			retention = 24 * time.Hour
		}
		sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool, Clean: time.Millisecond, Now: now, Retention: retention,
			Keep: []func() auditlog.Position{func() auditlog.Position { p := <-reader; reader <- p; return p }}})
		first := func() uint64 {
			list, err := auditlog.Segments(auditlog.SpoolDir(dir))
			if err != nil {
				t.Fatal(err)
			}
			return list[0]
		}
		if !old {
			until(t, "segments up to the reader's are removed", func() bool { return first() == 5 })
			<-reader
			reader <- auditlog.Position{Segment: 1 << 40}
		}
		until(t, "all segments but the newest are removed", func() bool { return first() >= before[len(before)-1]-1 })
		appendN(t, spool, 5)
		closeAll(t, spool, sealer)
		rep := wantIntact(t, dir)
		if rep.Spool.FirstSeq == 1 {
			t.Error("the spool begins at 1")
		}
		if !old {
			if sealed, unsealed := readLog(t, dir, 1); sealed != 3005 || unsealed != 0 {
				t.Errorf("%d sealed, %d not", sealed, unsealed)
			}
		}
		// And the next agent goes on.
		spool = openSpool(t, dir, 16<<10)
		sealer = openSealer(t, seal.Config{StateDir: dir, Spool: spool})
		appendN(t, spool, 5)
		closeAll(t, spool, sealer)
		wantIntact(t, dir)
		// Without the sealed log the beginning is missing.
		if err := os.RemoveAll(auditlog.TilesDir(dir)); err != nil {
			t.Fatal(err)
		}
		if verify(t, dir).Intact() {
			t.Error("the beginning is missing, and verifies")
		}
	}
}

// TestRetention: expired events go, their hashes stay, the log says so.
func TestRetention(t *testing.T) {
	dir := t.TempDir()
	spool := openSpool(t, dir, 16<<10)
	appendN(t, spool, 600)
	if err := spool.Append(t.Context(), false, event(strings.Repeat("x", 100_000))); err != nil {
		t.Fatal(err)
	}
	appendN(t, spool, 400)
	sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool})
	closeAll(t, spool, sealer)
	long, _ := filepath.Glob(filepath.Join(auditlog.TilesDir(dir), "long", "*"))
	if len(long) != 1 {
		t.Fatal(long)
	}

	spool = openSpool(t, dir, 16<<10)
	sealer = openSealer(t, seal.Config{StateDir: dir, Spool: spool, Clean: time.Millisecond, Retention: time.Hour,
		Now: func() time.Time { return time.Now().Add(2 * time.Hour) }})
	gone := filepath.Join(auditlog.TilesDir(dir), auditlog.BundleFile(2, auditlog.TileWidth))
	until(t, "three bundles are removed", func() bool { _, err := os.Stat(gone); return os.IsNotExist(err) })
	closeAll(t, spool, sealer)
	if long, _ := filepath.Glob(filepath.Join(auditlog.TilesDir(dir), "long", "*")); len(long) != 0 {
		t.Error(long)
	}
	rep := wantIntact(t, dir)
	if fmt.Sprint(rep.Sealed.Removed) != "[{0 768}]" || rep.Sealed.FirstSeq != 769 {
		t.Errorf("%+v", rep.Sealed)
	}
	readLog(t, dir, 769)

	// One more, that no event tells of.
	if err := os.RemoveAll(filepath.Join(auditlog.TilesDir(dir), auditlog.BundleFile(3, auditlog.TileWidth)+".p")); err != nil {
		t.Fatal(err)
	}
	if rep := verify(t, dir); rep.Intact() || rep.Sealed.Wrong.Index != 768 {
		t.Errorf("%+v", rep.Sealed)
	}
}

// TestOtherSpool: what does not continue the sealed log is not put behind it.
func TestOtherSpool(t *testing.T) {
	dir := t.TempDir()
	spool := openSpool(t, dir, 16<<10)
	sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool})
	appendN(t, spool, 100)
	closeAll(t, spool, sealer)
	for _, n := range []int{3, 200} {
		if err := os.RemoveAll(auditlog.SpoolDir(dir)); err != nil {
			t.Fatal(err)
		}
		spool = openSpool(t, dir, 16<<10)
		appendN(t, spool, n)
		said := make(chan string, 10)
		sealer = openSealer(t, seal.Config{StateDir: dir, Spool: spool, Problem: func(text string) { said <- text }})
		if text := <-said; !strings.Contains(text, seal.ErrOtherSpool.Error()) {
			t.Error(text)
		}
		if sealer.Status().Size > 100 {
			t.Error("it was sealed")
		}
		if err := sealer.Close(); !errors.Is(err, seal.ErrOtherSpool) {
			t.Error(err)
		}
		if err := spool.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedSpool: what can be read is sealed, and the log says what is missing.
func TestDamagedSpool(t *testing.T) {
	dir := t.TempDir()
	spool := openSpool(t, dir, 16<<10)
	appendN(t, spool, 1000)
	if err := spool.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(auditlog.SpoolDir(dir), auditlog.SegmentName(2))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	spool = openSpool(t, dir, 16<<10)
	sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool})
	appendN(t, spool, 10)
	closeAll(t, spool, sealer)
	rep := verify(t, dir)
	if rep.Intact() || rep.Spool.Wrong == nil || rep.Spool.Wrong.Segment != 2 || rep.Sealed.Wrong == nil || rep.Sealed.Wrong.Index+1 != rep.Spool.Wrong.Seq {
		t.Fatalf("%+v %+v", rep.Spool.Wrong, rep.Sealed.Wrong)
	}
	tiles, err := auditlog.OpenTiles(auditlog.TilesDir(dir), publicKey(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	told := false
	for e, err := range tiles.Entries(0, tiles.Head().Size) {
		if err != nil {
			t.Fatal(err)
		}
		told = told || bytes.Contains(e.Payload, []byte(`are not in the sealed log`))
	}
	if !told || tiles.Head().Size < 900 || tiles.Head().Size >= 1010 {
		t.Errorf("told %v, %d sealed", told, tiles.Head().Size)
	}
}

// TestAltered: a sealed log that was altered is not continued.
func TestAltered(t *testing.T) {
	for _, c := range []struct{ file, change string }{
		{"tile/0/000.p/100", "flip"}, {"checkpoint", "flip"}, {"tile/entries/000.p/100", "flip"}, {"checkpoint", "old"},
	} {
		t.Run(c.file+" "+c.change, func(t *testing.T) {
			dir := t.TempDir()
			spool := openSpool(t, dir, 16<<10)
			sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool})
			appendN(t, spool, 50)
			until(t, "50 are sealed", func() bool { return sealer.Status().Size == 50 })
			old, err := os.ReadFile(filepath.Join(auditlog.TilesDir(dir), "checkpoint"))
			if err != nil {
				t.Fatal(err)
			}
			appendN(t, spool, 50)
			closeAll(t, spool, sealer)
			path := filepath.Join(auditlog.TilesDir(dir), c.file)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if c.change == "old" {
				b = old
			} else {
				b[len(b)-7] ^= 1 // in the last hash, signature, root or entry
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			spool = openSpool(t, dir, 16<<10)
			appendN(t, spool, 10)
			said := make(chan string, 10)
			sealer = openSealer(t, seal.Config{StateDir: dir, Spool: spool, Problem: func(text string) { said <- text }})
			if text := <-said; !strings.Contains(text, "not sealed") {
				t.Error(text)
			}
			if err := sealer.Close(); err == nil {
				t.Error("a false head was signed")
			}
			tiles, err := auditlog.OpenTiles(auditlog.TilesDir(dir), publicKey(t, dir))
			if err == nil && tiles.Head().Size > 100 {
				t.Errorf("it was continued to %d", tiles.Head().Size)
			}
		})
	}
}
