package audit_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/weirproxy/weir/internal/audit"
)

// TestDiskFull fills a real file system of a quarter of a megabyte: the spool
// refuses when it is full, and writes again when there is room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	err := syscall.Mount("weir-test", dir, "tmpfs", 0, "size=256k")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("not supported: mounting a tmpfs needs root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	filler := filepath.Join(dir, "filler")
	write(t, filler, make([]byte, 100<<10))
	s, err := audit.Open(withTestDefaults(audit.Config{StateDir: dir}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() // before the unmount
	kept := 0
	for {
		err := s.Append(context.Background(), kept%2 == 0, flowOpen("F"))
		if err == nil {
			kept++
			continue
		}
		if !errors.Is(err, audit.ErrUnwritable) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		break
	}
	for range 3 {
		s.Attend()
		if err := s.Append(context.Background(), false, flowOpen("G")); !errors.Is(err, audit.ErrUnwritable) {
			t.Fatalf("on a full disk: %v", err)
		}
	}
	wantIntact(t, dir)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.Attend()
	add(t, s, flowClose("F"))
	closeSpool(t, s)
	rep := wantIntact(t, dir)
	if rep.Events != uint64(kept)+2 || rep.Gaps != 1 {
		t.Errorf("%d events, %d gaps; %d were acknowledged before", rep.Events, rep.Gaps, kept)
	}
	for _, ev := range readAll(t, dir) {
		if ev.Gap != nil && (ev.Gap.Lost != 4 || ev.Gap.After != uint64(kept)) {
			t.Errorf("gap %+v", ev.Gap)
		}
	}
}
