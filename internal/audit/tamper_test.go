package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// smallLog makes a log of at least three segments that was closed.
func smallLog(t testing.TB) (dir string, key auditlog.PublicKey) {
	t.Helper()
	dir = t.TempDir()
	s := open(t, audit.Config{StateDir: dir, SegmentBytes: 900})
	key = s.PublicKey()
	for i := range 3 {
		id := fmt.Sprint("F", i)
		add(t, s, &auditlog.Event{Kind: auditlog.FlowOpen, Flow: id})
		add(t, s, flowClose(id))
		if i == 1 {
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeSpool(t, s)
	if rep := wantIntact(t, dir); rep.Segments < 3 || rep.Events != 6 {
		t.Fatalf("%+v", rep)
	}
	return dir, key
}

func segmentPath(dir string, n uint64) string {
	return filepath.Join(auditlog.SpoolDir(dir), auditlog.SegmentName(n))
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestEveryByte changes every byte of a log, one after the other, to two other
// values: verification finds each, and at the record that the byte belongs to.
func TestEveryByte(t *testing.T) {
	dir, key := smallLog(t)
	spool := auditlog.SpoolDir(dir)
	files, err := os.ReadDir(spool)
	if err != nil {
		t.Fatal(err)
	}
	changes := 0
	for _, f := range files {
		if f.Name() == "lock" {
			continue
		}
		path := filepath.Join(spool, f.Name())
		good := read(t, path)
		starts := recordStarts(t, f.Name(), good)
		for i := range good {
			for _, flip := range []byte{0x01, 0xff} {
				bad := bytes.Clone(good)
				bad[i] ^= flip
				write(t, path, bad)
				rep, err := auditlog.Verify(spool, key)
				if err != nil {
					t.Fatalf("%s, byte %d: %v", f.Name(), i, err)
				}
				if rep.Intact() {
					t.Fatalf("%s: byte %d changed by %#x was not found", f.Name(), i, flip)
				}
				if want := starts(i); want >= 0 && rep.Wrong.Offset != want {
					t.Fatalf("%s: byte %d belongs to the record at %d, reported was %v", f.Name(), i, want, rep.Wrong)
				}
				changes++
			}
		}
		write(t, path, good)
	}
	wantIntact(t, dir)
	t.Logf("%d changes", changes)
}

// recordStarts says where the record of a byte starts; -1 outside of segments.
func recordStarts(t *testing.T, name string, b []byte) func(int) int64 {
	if !strings.HasSuffix(name, ".segment") {
		return func(int) int64 { return -1 }
	}
	r, err := auditlog.NewSegmentReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	starts := []int64{0}
	for {
		starts = append(starts, r.Position().Offset)
		if _, err := r.Next(); err != nil {
			break
		}
	}
	return func(i int) int64 {
		at := int64(0)
		for _, s := range starts {
			if s <= int64(i) {
				at = s
			}
		}
		return at
	}
}

// TestStructure changes more than bytes.
func TestStructure(t *testing.T) {
	good, key := smallLog(t)
	other, _ := smallLog(t)
	tests := map[string]func(dir string){
		"first segment removed":  func(d string) { os.Remove(segmentPath(d, 1)) },
		"middle segment removed": func(d string) { os.Remove(segmentPath(d, 2)) },
		"last segment removed":   func(d string) { os.Remove(last(d)) },
		"all but the first removed": func(d string) {
			for n := uint64(2); os.Remove(segmentPath(d, n)) == nil; n++ {
			}
		},
		"all removed": func(d string) {
			for n := uint64(1); os.Remove(segmentPath(d, n)) == nil; n++ {
			}
		},
		"segments swapped": func(d string) {
			a, b := read(t, segmentPath(d, 1)), read(t, segmentPath(d, 2))
			write(t, segmentPath(d, 1), b)
			write(t, segmentPath(d, 2), a)
		},
		"segment doubled": func(d string) {
			list, _ := auditlog.Segments(auditlog.SpoolDir(d))
			last := list[len(list)-1]
			write(t, segmentPath(d, last+1), read(t, segmentPath(d, last)))
		},
		"segments renumbered": func(d string) {
			os.Remove(segmentPath(d, 1))
			for n := uint64(2); os.Rename(segmentPath(d, n), segmentPath(d, n-1)) == nil; n++ {
			}
		},
		"segment of another log":    func(d string) { write(t, segmentPath(d, 2), read(t, segmentPath(other, 2))) },
		"checkpoint of another log": func(d string) { copySpoolFile(t, other, d, "checkpoint") },
		"checkpoint removed":        func(d string) { os.Remove(filepath.Join(auditlog.SpoolDir(d), "checkpoint")) },
		"checkpoint emptied":        func(d string) { write(t, filepath.Join(auditlog.SpoolDir(d), "checkpoint"), nil) },
		"zeros appended":            func(d string) { appendTo(t, last(d), make([]byte, 100)) },
		"bytes appended":            func(d string) { appendTo(t, last(d), []byte("x")) },
		"record doubled": func(d string) {
			b := read(t, last(d))
			appendTo(t, last(d), b[len(b)-200:])
		},
		"middle segment cut": func(d string) {
			b := read(t, segmentPath(d, 2))
			write(t, segmentPath(d, 2), b[:len(b)-10])
		},
		"middle segment cut at a record": func(d string) { dropLastRecord(t, segmentPath(d, 2)) },
		"record cut out": func(d string) {
			b := read(t, segmentPath(d, 1))
			at := lastStart(t, b, 2)
			end := lastStart(t, b, 1)
			write(t, segmentPath(d, 1), append(bytes.Clone(b[:at]), b[end:]...))
		},
		"records swapped": func(d string) {
			b := read(t, segmentPath(d, 1))
			x, y := lastStart(t, b, 2), lastStart(t, b, 1)
			write(t, segmentPath(d, 1), append(append(bytes.Clone(b[:x]), b[y:]...), b[x:y]...))
		},
		"end rewritten without the key": func(d string) { forge(t, last(d)) },
		"all rewritten without the key": func(d string) {
			list, _ := auditlog.Segments(auditlog.SpoolDir(d))
			for _, n := range list {
				if n > 1 {
					os.Remove(segmentPath(d, n))
				}
			}
			forge(t, segmentPath(d, 1))
		},
		"whole log replaced by another one": func(d string) {
			os.RemoveAll(auditlog.SpoolDir(d))
			if err := os.CopyFS(auditlog.SpoolDir(d), os.DirFS(auditlog.SpoolDir(other))); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			dir := clone(t, good)
			change(dir)
			rep, err := auditlog.Verify(auditlog.SpoolDir(dir), key)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Intact() {
				t.Fatal("not found")
			}
			t.Log(rep.Wrong)
			damagedStays(t, dir, key)
		})
	}
}

// TestRollback cuts the log in front of each checkpoint that stands in it and puts
// that one, which is signed, in the place of the file beside the log.
func TestRollback(t *testing.T) {
	good, key := smallLog(t)
	r, err := auditlog.OpenDir(auditlog.SpoolDir(good))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	for {
		rec, err := r.Next()
		if err != nil {
			break
		}
		if rec.Kind != auditlog.RecordCheckpoint {
			continue
		}
		n++
		dir := clone(t, good)
		for later := rec.End.Segment + 1; os.Remove(segmentPath(dir, later)) == nil; later++ {
		}
		at := segmentPath(dir, rec.End.Segment)
		write(t, at, read(t, at)[:rec.Start])
		write(t, filepath.Join(auditlog.SpoolDir(dir), "checkpoint"), rec.Payload)
		rep, err := auditlog.Verify(auditlog.SpoolDir(dir), key)
		if err != nil {
			t.Fatal(err)
		}
		if rep.Intact() {
			t.Errorf("a roll-back to event %d was not found", rec.Seq)
		}
		damagedStays(t, dir, key)
	}
	if n < 4 {
		t.Errorf("only %d checkpoints", n)
	}
}

// TestRemovedUnderTheAgent removes or cuts the segment that is being written.
func TestRemovedUnderTheAgent(t *testing.T) {
	for name, change := range map[string]func(path string){
		"removed": func(path string) { os.Remove(path) },
		"cut":     func(path string) { write(t, path, read(t, path)[:150]) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, audit.Config{StateDir: dir})
			add(t, s, flowOpen("F1"))
			change(last(dir))
			s.Attend() // the keeper's next look
			if err := s.Append(context.Background(), false, intent("F1", "A1")); !errors.Is(err, audit.ErrUnwritable) {
				t.Fatalf("append: %v", err)
			}
			s.Attend()
			ev := intent("F1", "A2")
			add(t, s, ev)
			closeSpool(t, s)
			if ev.Seq < 3 {
				t.Errorf("seq %d was used before", ev.Seq)
			}
			if rep := verify(t, dir); rep.Intact() {
				t.Error("not found")
			}
		})
	}
}

// TestNewLogWithOldKey begins a log where the one before was wiped out.
func TestNewLogWithOldKey(t *testing.T) {
	dir := t.TempDir()
	closeSpool(t, open(t, audit.Config{StateDir: dir}))
	if err := os.RemoveAll(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	closeSpool(t, open(t, audit.Config{StateDir: dir}))
	wantIntact(t, dir)
	wantLog(t, dir, "gap damage")
}

// damagedStays opens a log that does not verify and writes to it: an agent works,
// but what was done to the log remains to be seen.
func damagedStays(t *testing.T, dir string, key auditlog.PublicKey) {
	t.Helper()
	s, err := audit.Open(withTestDefaults(audit.Config{StateDir: dir}))
	if err != nil {
		return // also an answer
	}
	add(t, s, flowOpen("NEW"))
	closeSpool(t, s)
	rep, err := auditlog.Verify(auditlog.SpoolDir(dir), key)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Intact() {
		t.Error("a new start of the agent has made the log look intact")
	}
}

// TestTruncation cuts the end of a closed log at every length.
func TestTruncation(t *testing.T) {
	dir, key := smallLog(t)
	path := last(dir)
	good := read(t, path)
	for n := range good {
		write(t, path, good[:n])
		rep, err := auditlog.Verify(auditlog.SpoolDir(dir), key)
		if err != nil {
			t.Fatal(err)
		}
		if rep.Intact() {
			t.Fatalf("cut to %d of %d bytes: not found", n, len(good))
		}
	}
}

// TestTornWrite cuts the end of a log behind its last checkpoint, at the ends of
// records and at every seventh length, as a crash within a write may: the log verifies as it is, and a start repairs it
// and keeps everything whole before the cut.
func TestTornWrite(t *testing.T) {
	dir := t.TempDir()
	s := open(t, audit.Config{StateDir: dir})
	add(t, s, flowOpen("F1"))
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	signed := len(read(t, last(dir)))
	add(t, s, intent("F1", "A1"))
	one := len(read(t, last(dir)))
	add(t, s, outcome("F1", "A1"))
	crash := clone(t, dir)
	closeSpool(t, s)
	whole := read(t, last(crash))
	for n := signed; n <= len(whole); n++ {
		if n%7 != 0 && n != signed && n != one && n != len(whole) {
			continue // each length costs a dozen syncs
		}
		dir := clone(t, crash)
		write(t, last(dir), whole[:n])
		rep := wantIntact(t, dir)
		events, torn := 1, n != signed && n != one && n != len(whole)
		if n >= one {
			events++
		}
		if n == len(whole) {
			events++
		}
		if int(rep.Events) != events || (rep.Unfinished > 0) != torn {
			t.Fatalf("cut to %d: %+v", n, rep)
		}
		s := open(t, audit.Config{StateDir: dir})
		closeSpool(t, s)
		wantIntact(t, dir)
		want := []string{"flow.open F1", "action F1 A1 intent", "action F1 A1 outcome ok"}[:events]
		if torn {
			want = append(want, "gap torn")
		} else {
			want = append(want, "gap crash")
		}
		if events == 2 {
			want = append(want, "action F1 A1 outcome lost")
		}
		wantLog(t, dir, append(want, "flow.close F1 agent_lost")...)
	}
}

// TestPowerLoss leaves zeros where the last write was to be.
func TestPowerLoss(t *testing.T) {
	dir := t.TempDir()
	s := open(t, audit.Config{StateDir: dir})
	add(t, s, flowOpen("F1"))
	crash := clone(t, dir)
	closeSpool(t, s)
	appendTo(t, last(crash), make([]byte, 3<<20))
	if rep := wantIntact(t, crash); rep.Unfinished != 3<<20 {
		t.Errorf("%+v", rep)
	}
	s = open(t, audit.Config{StateDir: crash})
	closeSpool(t, s)
	wantIntact(t, crash)
	wantLog(t, crash, "flow.open F1", "gap torn", "flow.close F1 agent_lost")
}

// TestCutBehindCheckpoint tells a cut from a torn write: an open log loses what a
// checkpoint has covered.
func TestCutBehindCheckpoint(t *testing.T) {
	dir := t.TempDir()
	s := open(t, audit.Config{StateDir: dir})
	add(t, s, flowOpen("F1"))
	short := len(read(t, last(dir)))
	add(t, s, flowClose("F1"))
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	crash := clone(t, dir)
	closeSpool(t, s)
	write(t, last(crash), read(t, last(crash))[:short])
	rep := verify(t, crash)
	if rep.Intact() || !strings.Contains(rep.Wrong.Why, "cut off") || rep.Wrong.Seq != 2 {
		t.Fatalf("%+v", rep.Wrong)
	}
	s = open(t, audit.Config{StateDir: crash})
	ev := flowOpen("F2")
	add(t, s, ev)
	closeSpool(t, s)
	if ev.Seq <= 2 {
		t.Errorf("seq %d was used before", ev.Seq)
	}
	if rep := verify(t, crash); rep.Intact() {
		t.Error("a new start hides the cut")
	}
}

func last(dir string) string {
	list, _ := auditlog.Segments(auditlog.SpoolDir(dir))
	if len(list) == 0 {
		return segmentPath(dir, 1)
	}
	return segmentPath(dir, list[len(list)-1])
}

func appendTo(t testing.TB, path string, b []byte) {
	t.Helper()
	write(t, path, append(read(t, path), b...))
}

func copySpoolFile(t testing.TB, from, to, name string) {
	t.Helper()
	write(t, filepath.Join(auditlog.SpoolDir(to), name), read(t, filepath.Join(auditlog.SpoolDir(from), name)))
}

// lastStart is where the n-th last record of a segment starts.
func lastStart(t testing.TB, b []byte, n int) int64 {
	t.Helper()
	r, err := auditlog.NewSegmentReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var starts []int64
	for {
		rec, err := r.Next()
		if err != nil {
			return starts[len(starts)-n]
		}
		starts = append(starts, rec.Start)
	}
}

func dropLastRecord(t testing.TB, path string) {
	t.Helper()
	b := read(t, path)
	write(t, path, b[:lastStart(t, b, 1)])
}

// forge changes a word in the events of a segment and computes the chain anew,
// as somebody who can write but not sign would.
func forge(t testing.TB, path string) {
	t.Helper()
	b := read(t, path)
	r, err := auditlog.NewSegmentReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(b[:r.Position().Offset])
	for {
		rec, err := r.Next()
		if err != nil {
			break
		}
		var mark int
		out, mark = auditlog.BeginRecord(out, rec.Kind)
		out = append(out, bytes.ReplaceAll(rec.Payload, []byte(`"flow":"F`), []byte(`"flow":"G`))...)
		if out, _, err = auditlog.SealRecord(out, mark); err != nil {
			t.Fatal(err)
		}
	}
	if sha256.Sum256(out) == sha256.Sum256(b) {
		t.Fatal("nothing was forged")
	}
	write(t, path, out)
}
