package completeness

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/internal/seal"
	"github.com/weirproxy/weir/internal/testkit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// logOf makes a log with an account, flows behind it, and so many other events before,
// between and behind.
func logOf(t *testing.T, spool *audit.Spool, last *auditlog.Completeness, opened, refused, others int) Log {
	t.Helper()
	add := func(ev *auditlog.Event) {
		if err := spool.Append(context.Background(), false, ev); err != nil {
			t.Fatal(err)
		}
	}
	other := func() {
		for range others {
			add(&auditlog.Event{Kind: auditlog.ActionEvent, Flow: "F", Backend: "orders", Action: &auditlog.Action{ID: "A", Phase: auditlog.PhaseOutcome, Text: `,"kind":"flow.open"`}})
		}
	}
	add(&auditlog.Event{Kind: auditlog.FlowOpen, Flow: "earlier", Backend: "orders"})
	other()
	if last != nil {
		add(Event(last))
	}
	for i := range opened {
		add(&auditlog.Event{Kind: auditlog.FlowOpen, Flow: fmt.Sprint("O", i), Backend: "orders"})
		if i == opened/2 {
			other()
		}
	}
	for i := range refused {
		add(&auditlog.Event{Kind: auditlog.FlowRefused, Flow: fmt.Sprint("R", i), Backend: "orders"})
	}
	other()
	return Log{StateDir: spool.StateDir, Key: spool.PublicKey(), Through: spool.Status().Seq}
}

func TestBefore(t *testing.T) {
	counting := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	last := func(scope string, handed, underWay uint64) *auditlog.Completeness {
		k := auditlog.KernelFlows{Redirected: handed, HandedOver: handed}
		return &auditlog.Completeness{Scope: scope, Run: 1, From: counting, To: counting.Add(time.Hour), Counting: counting,
			Backends: []auditlog.FlowCount{{Backend: "orders", Kernel: k, Total: k, Opened: handed - underWay, UnderWay: underWay}}}
	}
	for _, c := range []struct {
		name            string
		last            *auditlog.Completeness
		handed          uint64 // by the kernel at the start of this run
		unclaimed       uint64
		counting        time.Time
		opened, refused int
		lost            uint64
		difference      int64
		problem         bool
	}{
		{"stopped", last(auditlog.ScopeStop, 10, 0), 10, 0, counting, 0, 0, 0, 0, false},
		{"connects while nobody listens", last(auditlog.ScopeStop, 10, 0), 12, 2, counting, 0, 0, 0, 0, false},
		{"killed", last(auditlog.ScopeRun, 10, 1), 17, 1, counting, 4, 2, 1, 0, false},
		{"stopped, and a flow is missing", last(auditlog.ScopeStop, 10, 0), 13, 0, counting, 2, 0, 0, 1, false},
		{"more flows than connections", last(auditlog.ScopeRun, 10, 0), 12, 0, counting, 3, 0, 0, -1, false},
		{"rebooted after a stop", last(auditlog.ScopeStop, 10, 0), 0, 0, counting.Add(2 * time.Hour), 0, 0, 0, 0, false},
		{"rebooted after a crash", last(auditlog.ScopeRun, 10, 0), 0, 0, counting.Add(2 * time.Hour), 3, 0, 0, 0, true},
		{"the counters went back", last(auditlog.ScopeRun, 10, 0), 5, 0, counting, 0, 0, 0, 0, true},
		{"no account in the log", nil, 5, 0, counting, 5, 0, 0, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			spool, err := audit.Open(audit.Config{StateDir: t.TempDir(), Node: "n"})
			if err != nil {
				t.Fatal(err)
			}
			defer spool.Close()
			log := logOf(t, spool, c.last, c.opened, c.refused, 3)
			l := New(Config{Record: spool, Started: counting.Add(3 * time.Hour), Now: time.Now})
			l.Begin(nil, Start{Base: map[string]auditlog.KernelFlows{"orders": {Redirected: c.handed, HandedOver: c.handed, Unclaimed: c.unclaimed}}, Counting: c.counting, Run: 2})
			got, err := l.Before(t.Context(), log)
			if err != nil {
				t.Fatal(err)
			}
			var b auditlog.FlowCount
			if len(got.Backends) > 0 {
				b = got.Backends[0]
			}
			if b.AgentLost != c.lost || b.Difference != c.difference || (got.Problem != "") != c.problem || got.Complete() != (c.difference == 0 && !c.problem) ||
				c.last != nil && b.Opened != uint64(c.opened) || b.Refused != uint64(c.refused) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestBeforeInTheSealedLog: the last account is found where the spool has it no more.
func TestBeforeInTheSealedLog(t *testing.T) {
	spool, err := audit.Open(audit.Config{StateDir: t.TempDir(), Node: "n", SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	sealer, err := seal.Open(seal.Config{StateDir: spool.StateDir, Spool: spool, Every: 10 * time.Millisecond, Clean: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer sealer.Close()
	counting := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	total := auditlog.KernelFlows{HandedOver: 10}
	log := logOf(t, spool, &auditlog.Completeness{Scope: auditlog.ScopeRun, Run: 1, To: counting.Add(time.Hour), Counting: counting,
		Backends: []auditlog.FlowCount{{Backend: "orders", Total: total, Opened: 10}}}, 100, 7, 2*window)
	testkit.Eventually(t, "the spool begins behind the account", func() bool {
		segments, err := auditlog.Segments(auditlog.SpoolDir(spool.StateDir))
		if err != nil || len(segments) == 0 {
			return false
		}
		r, err := auditlog.OpenDirSegment(auditlog.SpoolDir(spool.StateDir), segments[0])
		if err != nil {
			return false
		}
		defer r.Close()
		return r.Header().First > 2*window+200
	})
	l := New(Config{Record: spool, Started: counting.Add(3 * time.Hour), Now: time.Now})
	l.Begin(nil, Start{Base: map[string]auditlog.KernelFlows{"orders": {HandedOver: 118}}, Counting: counting, Run: 2})
	got, err := l.Before(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	if b := got.Backends[0]; b.Opened != 100 || b.Refused != 7 || b.AgentLost != 1 || got.Problem != "" || !got.From.Equal(counting.Add(time.Hour)) {
		t.Errorf("%+v", got)
	}
}
