package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/seal"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// sealedLog is auditLog, sealed, with all but the newest segments removed.
func sealedLog(t *testing.T) string {
	t.Helper()
	dir, spool := auditLog(t)
	sealer, err := seal.Open(seal.Config{StateDir: dir, Spool: spool, Every: time.Millisecond, Clean: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		list, err := auditlog.Segments(auditlog.SpoolDir(dir))
		if err != nil {
			t.Fatal(err)
		}
		if list[0] > 3 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no segment is removed")
		}
	}
	if err := sealer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := spool.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func seqsOf(t *testing.T, out string) []uint64 {
	t.Helper()
	var seqs []uint64
	for line := range strings.Lines(out) {
		var ev auditlog.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, ev.Seq)
	}
	return seqs
}

func TestSealedLogCommands(t *testing.T) {
	dir := sealedLog(t)
	all := make([]uint64, 30)
	for i := range all {
		all[i] = uint64(i + 1)
	}
	run := func(args ...string) (string, string, int) {
		return auditRun(t.Context(), append(args, "--dir", dir)...)
	}
	out, errOut, code := run("query", "-o", "json")
	if code != exitDone || errOut != "" || !slices.Equal(seqsOf(t, out), all) {
		t.Errorf("exit %d: %s\n%s", code, errOut, out)
	}
	for _, n := range []string{"3", "29", "100"} {
		out, errOut, code = run("tail", "--follow=false", "-o", "json", "-n", n)
		want := all[max(0, 30-map[string]int{"3": 3, "29": 29, "100": 100}[n]):]
		if code != exitDone || !slices.Equal(seqsOf(t, out), want) {
			t.Errorf("tail %s: exit %d: %s\n%s", n, code, errOut, out)
		}
	}
	out, errOut, code = run("verify")
	if code != exitDone || !strings.Contains(out, "entries:     30 of 30, number 1 to 30") || !strings.HasSuffix(out, "\nintact\n") {
		t.Errorf("exit %d: %s\n%s", code, errOut, out)
	}
	out, _, _ = run("verify", "-o", "json")
	var rep verifyResult
	if err := json.Unmarshal([]byte(out), &rep); err != nil || !rep.Intact || rep.Sealed == nil || rep.Sealed.Size != 30 || rep.Sealed.Origin != "node-a/weir-log" || rep.FirstSeq == 1 {
		t.Errorf("%v: %s", err, out)
	}

	// The sealed log alone, as a copy.
	if err := os.Rename(auditlog.SpoolDir(dir), filepath.Join(dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if out, errOut, code := run("verify"); code != exitDone {
		t.Errorf("exit %d: %s\n%s", code, errOut, out)
	}
	if out, _, code := run("query", "-o", "json"); code != exitDone || !slices.Equal(seqsOf(t, out), all) {
		t.Errorf("exit %d: %s", code, out)
	}
	if err := os.Rename(filepath.Join(dir, "elsewhere"), auditlog.SpoolDir(dir)); err != nil {
		t.Fatal(err)
	}

	// One byte of an event.
	path := filepath.Join(auditlog.TilesDir(dir), "tile/entries/000.p/30")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[strings.Index(string(b), "SELECT 4")+7] = '5'
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errOut, code = run("verify")
	if code != exitUnproven || !strings.Contains(out, "NOT INTACT") || !strings.Contains(errOut, "index 13: the event does not have the hash that the tree states") {
		t.Errorf("exit %d: %s\n%s", code, errOut, out)
	}
	out, errOut, code = run("query", "-o", "json")
	if seqs := seqsOf(t, out); code != exitUnproven || !strings.Contains(errOut, "the log is damaged") || len(seqs) == 30 || seqs[0] != 1 || seqs[len(seqs)-1] != 30 {
		t.Errorf("exit %d: %s\n%v", code, errOut, seqs)
	}
}

// TestTailFollowsSealing: what is sealed and removed meanwhile is neither missed
// nor shown twice.
func TestTailFollowsSealing(t *testing.T) {
	dir, spool := auditLog(t)
	sealer, err := seal.Open(seal.Config{StateDir: dir, Spool: spool, Every: time.Millisecond, Clean: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer sealer.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const total = 600
	var out lockedBuffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		auditRunTo(ctx, &out, "tail", "--dir", dir, "-o", "json", "-n", "1000")
	}()
	for i := 30; i < total; i++ {
		if err := spool.Append(t.Context(), false, auditEvents(i)[0]); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(20 * time.Second); strings.Count(out.String(), "\n") < total; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Error("events are missing")
			break
		}
	}
	stop()
	<-done
	for i, seq := range seqsOf(t, out.String()) {
		if seq != uint64(i+1) {
			t.Fatalf("event %d where %d should be", seq, i+1)
		}
	}
}
