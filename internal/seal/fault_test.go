package seal_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/internal/seal"
	"github.com/weirproxy/weir/internal/testkit"
)

func TestMain(m *testing.M) {
	testkit.Main(m, map[string]func([]string) int{"seal": sealForever})
}

// mode is how a fault strikes.
type mode string

const (
	before mode = "before" // nothing is done
	torn   mode = "torn"   // half of a write is
	after  mode = "after"  // all is done, and an error returned
)

// faultFS fails the operation with number at, and with dead all that follow it.
type faultFS struct {
	audit.FS
	mode mode
	at   int
	dead bool

	mu  sync.Mutex
	ops int
}

var errFault = fmt.Errorf("%w: fault", syscall.ENOSPC)

func (f *faultFS) do(run func() error) error {
	f.mu.Lock()
	n := f.ops
	f.ops++
	f.mu.Unlock()
	switch {
	case n < f.at || n > f.at && !f.dead:
		return run()
	case n == f.at && f.mode == after:
		run()
	}
	return errFault
}

func (f *faultFS) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

func (f *faultFS) Create(name string) (audit.File, error) {
	var file audit.File
	err := f.do(func() (err error) { file, err = f.FS.Create(name); return err })
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	return &faultFile{file, f}, nil
}

func (f *faultFS) Rename(from, to string) error {
	return f.do(func() error { return f.FS.Rename(from, to) })
}

func (f *faultFS) SyncDir(dir string) error { return f.do(func() error { return f.FS.SyncDir(dir) }) }

type faultFile struct {
	audit.File
	fs *faultFS
}

func (f *faultFile) Write(b []byte) (n int, err error) {
	err = f.fs.do(func() error { n, err = f.File.Write(b); return err })
	if err != nil && f.fs.mode == torn {
		n, _ = f.File.Write(b[:len(b)/2])
	}
	return n, err
}

func (f *faultFile) Sync() error { return f.fs.do(f.File.Sync) }

// TestFaults lets each operation on the disk fail once, and lets the disk die at
// each: no event is lost, none stands in the log twice, and the log verifies at
// any time.
func TestFaults(t *testing.T) {
	testkit.NoLeaks(t)
	work := func(t *testing.T, disk *faultFS) {
		dir := t.TempDir()
		spool := openSpool(t, dir, 16<<10)
		// Three batches: one within a bundle, one over two, one with a long event.
		add := []func(){
			func() { appendN(t, spool, 100) },
			func() { appendN(t, spool, 500) },
			func() {
				if err := spool.Append(t.Context(), false, event(strings.Repeat("x", 100_000))); err != nil {
					t.Fatal(err)
				}
			},
		}
		total := uint64(0)
		sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool, FS: disk, Every: time.Hour, Retry: time.Hour})
		for _, do := range add {
			// Each Close seals what is there, once.
			do()
			total = spool.Status().Seq
			err := sealer.Close()
			if err != nil && !errors.Is(err, errFault) {
				t.Fatal(err)
			}
			wantIntact(t, dir)
			sealer = openSealer(t, seal.Config{StateDir: dir, Spool: spool, FS: disk, Every: time.Hour, Retry: time.Hour})
		}
		if err := sealer.Close(); err != nil && !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		wantIntact(t, dir)
		sealer = openSealer(t, seal.Config{StateDir: dir, Spool: spool})
		closeAll(t, spool, sealer)
		rep := wantIntact(t, dir)
		if rep.Sealed.Entries != total || rep.Sealed.LastSeq != total || rep.Sealed.Overlap != total {
			t.Errorf("%d events, %+v", total, rep.Sealed)
		}
	}
	whole := &faultFS{FS: audit.RealFS(), at: -1}
	work(t, whole)
	if whole.count() < 50 {
		t.Fatalf("%d operations", whole.count())
	}
	for _, m := range []mode{before, torn, after} {
		for _, dead := range []bool{false, true} {
			for at := 0; at < whole.count(); at += 1 + at/8 {
				t.Run(fmt.Sprint(m, "/dead=", dead, "/", at), func(t *testing.T) {
					work(t, &faultFS{FS: audit.RealFS(), mode: m, at: at, dead: dead})
				})
			}
		}
	}
}

// TestUnwritable: a directory that cannot be written holds nobody up, and sealing
// goes on when it can.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	spool := openSpool(t, dir, 16<<10)
	disk := &switchFS{FS: audit.RealFS(), off: true}
	said := make(chan string, 10)
	sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool, FS: disk, Retry: time.Millisecond, Problem: func(text string) { said <- text }})
	appendN(t, spool, 100)
	if text := <-said; !strings.Contains(text, "recorded but not sealed") || !strings.Contains(text, "read-only") {
		t.Error(text)
	}
	disk.set(false)
	if text := <-said; text != "" {
		t.Error(text)
	}
	until(t, "all is sealed", func() bool { return sealer.Status().Size == 100 })
	closeAll(t, spool, sealer)
	wantIntact(t, dir)
}

// switchFS is a file system that is read-only while it is off.
type switchFS struct {
	audit.FS
	mu  sync.Mutex
	off bool
}

func (f *switchFS) set(off bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = off
}

func (f *switchFS) Create(name string) (audit.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, syscall.EROFS
	}
	return f.FS.Create(name)
}

// sealForever is the process that is killed: it records, seals, and removes what
// is sealed, as fast as it can.
func sealForever(args []string) int {
	dir := args[0]
	spool, err := audit.Open(audit.Config{StateDir: dir, Node: "node-a", SegmentBytes: 32 << 10})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	_, err = seal.Open(seal.Config{StateDir: dir, Spool: spool, Every: time.Millisecond, Clean: 5 * time.Millisecond,
		Problem: func(text string) { fmt.Println("problem", text) }})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	for i := 0; ; i++ {
		ev := event(fmt.Sprint("SELECT ", i))
		if i%500 == 0 {
			ev = event(strings.Repeat("y", 80_000))
		}
		if err := spool.Append(context.Background(), false, ev); err != nil {
			fmt.Println("error", err)
			return 1
		}
		fmt.Println("ack", ev.Seq)
	}
}

// TestKill kills a sealing process again and again.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acked := uint64(0)
	for range 8 {
		acked = max(acked, killedRun(t, dir))
		wantIntact(t, dir)
	}
	spool := openSpool(t, dir, 32<<10)
	sealer := openSealer(t, seal.Config{StateDir: dir, Spool: spool})
	total := spool.Status().Seq
	closeAll(t, spool, sealer)
	rep := wantIntact(t, dir)
	if rep.Sealed.Entries != total || rep.Sealed.LastSeq != total || total < acked {
		t.Errorf("%d events, %d acknowledged, %+v", total, acked, rep.Sealed)
	}
	if sealed, unsealed := readLog(t, dir, 1); uint64(sealed) != total || unsealed != 0 {
		t.Errorf("%d sealed, %d not", sealed, unsealed)
	}
	if rep.Spool.FirstSeq == 1 {
		t.Error("no segment was removed")
	}
	t.Logf("%d events, the spool begins with %d", total, rep.Spool.FirstSeq)
}

// killedRun lets the process work and kills it at some event; it returns the last
// one that was acknowledged.
func killedRun(t *testing.T, dir string) uint64 {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := testkit.Helper(t, "seal", dir)
	cmd.Stdout = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	last, end := uint64(0), 500+rand.IntN(3000)
	r := bufio.NewScanner(out)
	for n := 0; r.Scan(); n++ {
		var seq uint64
		if _, err := fmt.Sscanf(r.Text(), "ack %d", &seq); err != nil {
			t.Error(r.Text())
			break
		}
		last = seq
		if n == end {
			cmd.Process.Kill()
		}
	}
	cmd.Process.Kill()
	io.Copy(io.Discard, out)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Error(err)
	}
	return last
}
