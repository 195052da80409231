package audit_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// childEnv makes the test binary the process that is killed.
const childEnv = "WEIR_AUDIT_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		appendForever(dir)
	}
	os.Exit(m.Run())
}

// appendForever records flows with actions and says on stdout what was
// acknowledged.
func appendForever(dir string) {
	s, err := audit.Open(audit.Config{StateDir: dir, Node: "node-a", SegmentBytes: 64 << 10})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	run := os.Getenv(childEnv + "_RUN")
	var wg sync.WaitGroup
	for a := range 6 {
		wg.Go(func() {
			for i := 0; ; i++ {
				f := fmt.Sprintf("F%s.%d.%d", run, a, i)
				for _, ev := range []*auditlog.Event{flowOpen(f), intent(f, f+"-A"), outcome(f, f+"-A"), intent(f, f+"-B"),
					denied(f, f+"-C"), outcome(f, f+"-B"), flowClose(f)} {
					if err := s.Append(context.Background(), false, ev); err != nil {
						fmt.Println("error", err)
						os.Exit(1)
					}
					fmt.Println("ack", ev.Seq, strings.ReplaceAll(brief(ev), " ", "_")) // one write(2)
				}
			}
		})
	}
	wg.Wait()
}

// TestKill kills a process that writes, again and again: what it was told is in
// the log stays there, every flow and action has one end, and the log verifies
// before and after the next start.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acked := make(map[uint64]string)
	const runs = 8
	for run := range runs {
		for seq, what := range killedRun(t, dir, run) {
			acked[seq] = what
		}
		wantIntact(t, dir)
	}
	closeSpool(t, open(t, audit.Config{StateDir: dir}))
	rep := wantIntact(t, dir)
	if rep.Gaps != runs {
		t.Errorf("%d gaps for %d kills", rep.Gaps, runs)
	}
	events := readAll(t, dir)
	open, ends, lost := make(map[string]bool), make(map[string]int), 0
	for i, ev := range events {
		if ev.Seq != uint64(i+1) {
			t.Fatalf("event %d has seq %d", i+1, ev.Seq)
		}
		if want, ok := acked[ev.Seq]; ok && want != strings.ReplaceAll(brief(ev), " ", "_") {
			t.Fatalf("event %d was acknowledged as %s and is %s", ev.Seq, want, brief(ev))
		}
		delete(acked, ev.Seq)
		switch {
		case ev.Kind == auditlog.FlowOpen:
			open[ev.Flow] = true
		case ev.Kind == auditlog.FlowClose:
			ends[ev.Flow]++
			if ev.Reason == "agent_lost" {
				lost++
			}
		case ev.Action != nil && ev.Action.Phase == auditlog.PhaseIntent && ev.Result == nil:
			open[ev.Action.ID] = true
		case ev.Action != nil && ev.Action.Phase == auditlog.PhaseOutcome:
			ends[ev.Action.ID]++
		}
	}
	if len(acked) > 0 {
		t.Errorf("%d acknowledged events are not in the log", len(acked))
	}
	for id := range open {
		if ends[id] != 1 {
			t.Errorf("%s has %d ends", id, ends[id])
		}
	}
	if lost == 0 {
		t.Error("no flow was open at any of the kills")
	}
	t.Logf("%d events, %d flows lost", len(events), lost)
}

// killedRun lets a child append for a while, kills it, and returns what it had
// been told to be in the log.
func killedRun(t *testing.T, dir string, run int) map[uint64]string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, fmt.Sprintf("%s_RUN=%d", childEnv, run))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	acked := make(map[uint64]string)
	limit := 200 + rand.IntN(1000)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var seq uint64
		var what string
		if _, err := fmt.Sscanf(lines.Text(), "ack %d %s", &seq, &what); err != nil {
			_ = cmd.Process.Kill()
			t.Fatalf("the child said %q", lines.Text())
		}
		acked[seq] = what
		if len(acked) == limit {
			_ = cmd.Process.Kill() // SIGKILL; what is in the pipe is read on
		}
	}
	return acked
}
