package audit_test

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// When a fault strikes.
const (
	before = "before" // nothing was done
	short  = "short"  // half of a write was done
	after  = "after"  // all was done, the caller is told that it failed
)

// faultFS puts errors in the way of the real file system, while armed.
type faultFS struct {
	audit.FS
	op, file, when string // which operation on files whose name contains what

	mu    sync.Mutex
	armed bool
	hits  int
	files map[string]*faultFile // by their name
}

func (f *faultFS) arm(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = on
}

func (f *faultFS) strikes(op, name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed || f.op != op || !strings.Contains(filepath.Base(name), f.file) {
		return false
	}
	f.hits++
	return true
}

// do runs an operation with the fault of its kind, if any.
func (f *faultFS) do(op, name string, run func() error) error {
	if !f.strikes(op, name) {
		return run()
	}
	if f.when == after {
		if err := run(); err != nil {
			return err
		}
	}
	return syscall.EIO
}

func (f *faultFS) Create(name string) (audit.File, error) {
	var file audit.File
	err := f.do("create", name, func() (err error) { file, err = f.FS.Create(name); return err })
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files == nil {
		f.files = make(map[string]*faultFile)
	}
	f.files[name] = &faultFile{File: file, fs: f, name: name}
	return f.files[name], nil
}

func (f *faultFS) Rename(from, to string) error {
	return f.do("rename", to, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.files[to] = f.files[from]
		f.files[to].name = to
		return f.FS.Rename(from, to)
	})
}

func (f *faultFS) Truncate(name string, size int64) error {
	return f.do("truncate", name, func() error { return f.FS.Truncate(name, size) })
}

func (f *faultFS) SyncDir(dir string) error {
	return f.do("syncdir", dir, func() error { return f.FS.SyncDir(dir) })
}

type faultFile struct {
	audit.File
	fs   *faultFS
	name string
}

func (f *faultFile) path() string {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.name
}

func (f *faultFile) Write(b []byte) (int, error) {
	if !f.fs.strikes("write", f.path()) {
		return f.File.Write(b)
	}
	n := 0
	switch f.fs.when {
	case short:
		n = len(b) / 2
	case after:
		n = len(b)
	}
	if _, err := f.File.Write(b[:n]); err != nil {
		return 0, err
	}
	return n, syscall.ENOSPC
}

func (f *faultFile) Sync() error { return f.fs.do("sync", f.path(), f.File.Sync) }

// What every log of the fault table begins with, and how the crash and the
// recovery of the fault's agent end it.
var (
	kept    = []string{"flow.open F1", "action F1 A1 intent"}
	crashed = []string{"action F1 A1 outcome lost", "flow.close F1 agent_lost", "flow.open F3"}
	repair  = []string{"action F1 A1 outcome lost", "flow.close F1 recorder_failed", "flow.open F2"}
)

// TestFaults takes every step of writing the log, fails it before, within and
// after, and looks at what was returned, what a crash at that moment leaves to the
// next agent, and what the agent itself makes of it when the disk works again.
func TestFaults(t *testing.T) {
	list := func(parts ...any) (all []string) {
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				all = append(all, p)
			case []string:
				all = append(all, p...)
			}
		}
		return all
	}
	act := map[string]func(*audit.Spool) error{
		"intent":     func(s *audit.Spool) error { return s.Append(context.Background(), false, intent("F1", "A2")) },
		"denial":     func(s *audit.Spool) error { return s.Append(context.Background(), false, denied("F1", "A2")) },
		"checkpoint": (*audit.Spool).Checkpoint,
	}
	a2 := "action F1 A2 intent"
	a2lost := "action F1 A2 outcome lost"
	d2 := "action F1 A2 intent denied"
	tests := []struct {
		op, file, when string
		act            string
		segment        int64    // SegmentBytes
		crash          []string // the log after a crash while the fault lasts, and a new start
		recover        []string // the log after the fault has gone
	}{
		// A write of the batch. After a crash what was written is there; what the
		// agent repairs itself it takes back, nobody having relied on it.
		{op: "write", file: "segment", when: before, act: "intent",
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 3", repair)},
		{op: "write", file: "segment", when: short, act: "intent",
			crash: list(kept, "gap torn", crashed), recover: list(kept, "gap write lost 3", repair)},
		{op: "write", file: "segment", when: after, act: "intent",
			crash: list(kept, a2, "gap crash", crashed[0], a2lost, crashed[1:]), recover: list(kept, "gap write lost 3", repair)},
		{op: "write", file: "segment", when: short, act: "denial",
			crash: list(kept, "gap torn", crashed), recover: list(kept, "gap write lost 3", repair)},

		// A sync for one that waits for it: the events are in the log, and unsure.
		{op: "sync", file: "segment", when: before, act: "denial",
			crash: list(kept, d2, "gap crash", crashed), recover: list(kept, d2, "gap sync lost 2 unsure 3", repair)},
		{op: "sync", file: "segment", when: after, act: "denial",
			crash: list(kept, d2, "gap crash", crashed), recover: list(kept, d2, "gap sync lost 2 unsure 3", repair)},

		// Rotation: the old segment's sync, then every step of the new one.
		{op: "sync", file: "segment", when: before, act: "intent", segment: 1,
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap sync lost 3 unsure 2", repair)},
		{op: "create", file: "segment", when: before, act: "intent", segment: 1,
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 3", repair)},
		{op: "create", file: "segment", when: after, act: "intent", segment: 1,
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 3", repair)},
		{op: "write", file: "segment.new", when: short, act: "intent", segment: 1,
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 3", repair)},
		{op: "sync", file: "segment.new", when: after, act: "intent", segment: 1,
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 3", repair)},
		{op: "rename", file: "segment", when: before, act: "intent", segment: 1,
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 3", repair)},
		{op: "rename", file: "segment", when: after, act: "intent", segment: 1,
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 3", repair)},
		{op: "syncdir", file: "spool", when: before, act: "intent", segment: 1,
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 3", repair)},
		{op: "syncdir", file: "spool", when: after, act: "intent", segment: 1,
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 3", repair)},

		// A checkpoint: in the log, then beside it.
		{op: "write", file: "segment", when: before, act: "checkpoint",
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 2", repair)},
		{op: "write", file: "segment", when: short, act: "checkpoint",
			crash: list(kept, "gap torn", crashed), recover: list(kept, "gap write lost 2", repair)},
		{op: "write", file: "segment", when: after, act: "checkpoint",
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 2", repair)},
		{op: "sync", file: "segment", when: before, act: "checkpoint",
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap sync lost 2 unsure 2", repair)},
		{op: "create", file: "checkpoint", when: before, act: "checkpoint",
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 2", repair)},
		{op: "write", file: "checkpoint", when: short, act: "checkpoint",
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 2", repair)},
		{op: "sync", file: "checkpoint", when: before, act: "checkpoint",
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 2", repair)},
		{op: "rename", file: "checkpoint", when: before, act: "checkpoint",
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 2", repair)},
		{op: "rename", file: "checkpoint", when: after, act: "checkpoint",
			crash: list(kept, "gap crash", crashed), recover: list(kept, "gap write lost 2", repair)},
	}
	for _, tt := range tests {
		name := tt.op + "/" + tt.file + "/" + tt.when + "/" + tt.act
		if tt.segment != 0 {
			name += "/rotate"
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fs := &faultFS{FS: audit.RealFS(), op: tt.op, file: tt.file, when: tt.when}
			s := open(t, audit.Config{StateDir: dir, FS: fs, SegmentBytes: tt.segment})
			add(t, s, flowOpen("F1"), intent("F1", "A1"))
			fs.arm(true)
			if err := act[tt.act](s); !errors.Is(err, audit.ErrUnwritable) {
				t.Fatalf("the fault was returned as %v", err)
			}
			if fs.hits == 0 {
				t.Fatal("the fault did not strike")
			}
			// Sticky, although the fault of this step would not strike again.
			fs.arm(false)
			for _, ev := range []*auditlog.Event{outcome("F1", "A1"), flowClose("F1")} {
				if err := s.Append(context.Background(), false, ev); !errors.Is(err, audit.ErrUnwritable) {
					t.Fatalf("an append after the fault: %v", err)
				}
			}
			if s.Status().Problem == "" {
				t.Error("the status does not tell")
			}
			if rep := verify(t, dir); !rep.Intact() && tt.op != "rename" {
				t.Errorf("while broken: %v", rep.Wrong)
			}

			copied := clone(t, dir)
			next := open(t, audit.Config{StateDir: copied})
			add(t, next, flowOpen("F3"))
			closeSpool(t, next)
			wantIntact(t, copied)
			wantLog(t, copied, tt.crash...)

			s.Attend()
			if p := s.Status().Problem; p != "" {
				t.Fatalf("the spool did not recover: %s", p)
			}
			add(t, s, flowOpen("F2"))
			wantIntact(t, dir)
			closeSpool(t, s)
			wantIntact(t, dir)
			wantLog(t, dir, tt.recover...)
		})
	}
}

// TestProbeFails keeps refusing until everything that a recovery needs works.
func TestProbeFails(t *testing.T) {
	for _, op := range []string{"truncate", "create", "write", "sync", "rename", "syncdir"} {
		t.Run(op, func(t *testing.T) {
			dir := t.TempDir()
			fs := &faultFS{FS: audit.RealFS(), op: "write", file: "segment", when: short}
			s := open(t, audit.Config{StateDir: dir, FS: fs})
			add(t, s, flowOpen("F1"))
			fs.arm(true)
			if err := s.Append(context.Background(), false, intent("F1", "A1")); !errors.Is(err, audit.ErrUnwritable) {
				t.Fatal(err)
			}
			fs.op, fs.file, fs.when = op, "", before
			for range 3 {
				s.Attend()
				if err := s.Append(context.Background(), false, intent("F1", "A1")); !errors.Is(err, audit.ErrUnwritable) {
					t.Fatalf("an append after a probe that failed: %v", err)
				}
			}
			fs.arm(false)
			s.Attend()
			add(t, s, flowOpen("F2"))
			closeSpool(t, s)
			wantIntact(t, dir)
			wantLog(t, dir, "flow.open F1", "gap write lost 4", "flow.open F2")
			for _, ev := range readAll(t, dir) {
				if ev.Gap != nil && (ev.Gap.Kinds[auditlog.ActionEvent] != 4 || ev.Gap.After != 1 || ev.Gap.From.After(ev.Gap.To)) {
					t.Errorf("gap %+v", ev.Gap)
				}
			}
		})
	}
}

// TestCloseBroken says so when the end of the log could not be signed.
func TestCloseBroken(t *testing.T) {
	dir := t.TempDir()
	fs := &faultFS{FS: audit.RealFS(), op: "write", file: "segment", when: before}
	s := open(t, audit.Config{StateDir: dir, FS: fs})
	fs.arm(true)
	if err := s.Append(context.Background(), false, flowOpen("F1")); err == nil {
		t.Fatal("no error")
	}
	if err := s.Close(); !errors.Is(err, audit.ErrUnwritable) {
		t.Errorf("close: %v", err)
	}
	next := open(t, audit.Config{StateDir: dir})
	closeSpool(t, next)
	wantLog(t, dir, "gap crash")
	wantIntact(t, dir)
}

// TestFaultsUnderLoad fails writes and syncs at random while many append and the
// keeper recovers: whatever was acknowledged is in the log, once.
func TestFaultsUnderLoad(t *testing.T) {
	dir := t.TempDir()
	fs := &faultFS{FS: audit.RealFS(), op: "write", file: "segment", when: short}
	s := open(t, audit.Config{StateDir: dir, FS: fs, SegmentBytes: 32 << 10})
	var mu sync.Mutex
	acked := make(map[string]bool)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for a := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := string(rune('a'+a)) + strings.Repeat("x", i%7) + "-" + strconv.Itoa(i)
				if err := s.Append(context.Background(), i%5 == 0, intent("F", id)); err == nil {
					mu.Lock()
					acked[id] = true
					mu.Unlock()
				} else if !errors.Is(err, audit.ErrUnwritable) {
					t.Error(err)
				}
			}
		})
	}
	for i := range 30 {
		fs.mu.Lock()
		fs.op, fs.armed, fs.hits = []string{"write", "sync", "rename"}[i%3], true, 0
		fs.mu.Unlock()
		for struck := false; !struck; { // wait for the fault
			if i%3 == 2 {
				break // a rotation may be far off
			}
			fs.mu.Lock()
			struck = fs.hits > 0
			fs.mu.Unlock()
			_ = s.Checkpoint()
		}
		fs.arm(false)
		s.Attend()
		_ = s.Checkpoint()
	}
	close(stop)
	wg.Wait()
	s.Attend()
	closeSpool(t, s)
	wantIntact(t, dir)
	inLog := make(map[string]int)
	var gaps int
	for _, ev := range readAll(t, dir) {
		if ev.Kind == auditlog.Gap {
			gaps++
		} else if ev.Action.Phase == auditlog.PhaseIntent {
			inLog[ev.Action.ID]++
		}
	}
	for id := range acked {
		if inLog[id] != 1 {
			t.Fatalf("%s was acknowledged and is in the log %d times", id, inLog[id])
		}
	}
	if gaps < 20 {
		t.Errorf("%d gaps for 20 failures", gaps)
	}
	t.Logf("%d acknowledged, %d in the log, %d gaps", len(acked), len(inLog), gaps)
}
