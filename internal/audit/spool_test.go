package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// never is a CheckpointEvery with which the keeper leaves a test alone.
const never = 24 * time.Hour

func open(t testing.TB, c audit.Config) *audit.Spool {
	t.Helper()
	s, err := audit.Open(withTestDefaults(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func withTestDefaults(c audit.Config) audit.Config {
	if c.Node == "" {
		c.Node = "node-a"
	}
	if c.CheckpointEvery == 0 {
		c.CheckpointEvery = never
	}
	return c
}

func closeSpool(t testing.TB, s *audit.Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func add(t testing.TB, s *audit.Spool, events ...*auditlog.Event) {
	t.Helper()
	if err := s.Append(context.Background(), false, events...); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func flowOpen(id string) *auditlog.Event {
	return &auditlog.Event{Kind: auditlog.FlowOpen, Flow: id, Backend: "orders", Protocol: "postgres",
		Principal: &auditlog.Principal{Issuer: "https://idp", Subject: "1", User: "ann@example.com", Groups: []string{"dev"}, Kind: "human"},
		Upstream:  &auditlog.Upstream{Address: "127.0.0.1:5432", PID: 7}, Assurance: "inspected"}
}

func flowClose(id string) *auditlog.Event {
	return &auditlog.Event{Kind: auditlog.FlowClose, Flow: id, Reason: "client_closed"}
}

func intent(flow, id string) *auditlog.Event {
	return &auditlog.Event{Kind: auditlog.ActionEvent, Flow: flow, Verdict: "allow", Rule: "read",
		Action: &auditlog.Action{ID: id, Phase: auditlog.PhaseIntent, Verbs: []string{"select"}, Text: "select 1"}}
}

func outcome(flow, id string) *auditlog.Event {
	return &auditlog.Event{Kind: auditlog.ActionEvent, Flow: flow,
		Action: &auditlog.Action{ID: id, Phase: auditlog.PhaseOutcome}, Result: &auditlog.Result{Status: auditlog.StatusOK, Rows: 1}}
}

func denied(flow, id string) *auditlog.Event {
	ev := intent(flow, id)
	ev.Verdict, ev.Result = "deny", &auditlog.Result{Status: auditlog.StatusDenied}
	return ev
}

// readAll reads the events of a log through the reader that everybody uses.
func readAll(t testing.TB, stateDir string) []*auditlog.Event {
	t.Helper()
	r, err := auditlog.OpenDir(auditlog.SpoolDir(stateDir))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var list []*auditlog.Event
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		if rec.Kind != auditlog.RecordEvent {
			continue
		}
		ev := new(auditlog.Event)
		if err := json.Unmarshal(rec.Payload, ev); err != nil {
			t.Fatal(err)
		}
		list = append(list, ev)
	}
}

func verify(t testing.TB, stateDir string) *auditlog.Report {
	t.Helper()
	text, err := os.ReadFile(auditlog.PublicKeyFile(stateDir))
	if err != nil {
		t.Fatal(err)
	}
	key, err := auditlog.ParsePublicKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := auditlog.Verify(auditlog.SpoolDir(stateDir), key)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	return rep
}

func wantIntact(t testing.TB, stateDir string) *auditlog.Report {
	t.Helper()
	rep := verify(t, stateDir)
	if !rep.Intact() {
		t.Fatalf("the log is not intact: %v", rep.Wrong)
	}
	return rep
}

// brief is an event in one word or two, for comparing.
func brief(ev *auditlog.Event) string {
	s := string(ev.Kind)
	if ev.Flow != "" {
		s += " " + ev.Flow
	}
	if ev.Action != nil {
		s += " " + ev.Action.ID + " " + ev.Action.Phase
	}
	if ev.Result != nil {
		s += " " + ev.Result.Status
	}
	if ev.Kind == auditlog.FlowClose {
		s += " " + ev.Reason
	}
	if ev.Gap != nil {
		s += " " + ev.Gap.Cause
		if ev.Gap.Lost > 0 {
			s += fmt.Sprintf(" lost %d", ev.Gap.Lost)
		}
		if ev.Gap.Unsure > 0 {
			s += fmt.Sprintf(" unsure %d", ev.Gap.Unsure)
		}
	}
	return s
}

func wantLog(t testing.TB, stateDir string, want ...string) {
	t.Helper()
	var got []string
	for i, ev := range readAll(t, stateDir) {
		if ev.Seq != uint64(i+1) {
			t.Errorf("event %d has seq %d", i+1, ev.Seq)
		}
		got = append(got, brief(ev))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("the log is not as expected (-want +got):\n%s", d)
	}
}

func TestAppendReadVerify(t *testing.T) {
	dir := t.TempDir()
	s := open(t, audit.Config{StateDir: dir})
	ev := flowOpen("F1")
	add(t, s, ev)
	if ev.Seq != 1 || ev.V != auditlog.Version || ev.Node != "node-a" || ev.Time.IsZero() || ev.Time.Location() != time.UTC {
		t.Errorf("the event was not stamped: %+v", ev)
	}
	add(t, s, intent("F1", "A1"), intent("F1", "A2"))
	add(t, s, outcome("F1", "A1"), outcome("F1", "A2"))
	add(t, s, flowClose("F1"))
	if st := s.Status(); st.Seq != 6 || st.Problem != "" {
		t.Errorf("status %+v", st)
	}
	wantIntact(t, dir) // while it is written
	closeSpool(t, s)
	rep := wantIntact(t, dir)
	if rep.Events != 6 || rep.Segments != 1 || rep.FirstSeq != 1 || rep.LastSeq != 6 || rep.Uncovered != 0 || rep.Node != "node-a" ||
		rep.Checkpoint == nil || !rep.Checkpoint.Closed || rep.Checkpoint.Position.Seq != 6 || rep.Checkpoints != 2 {
		t.Errorf("report %+v", rep)
	}
	if got := readAll(t, dir)[0]; cmp.Diff(ev, got) != "" {
		t.Errorf("read back differently:\n%s", cmp.Diff(ev, got))
	}
	if err := s.Append(context.Background(), false, flowOpen("F2")); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
}

func TestReopenAfterClose(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		s := open(t, audit.Config{StateDir: dir})
		add(t, s, flowOpen(fmt.Sprint("F", i)), flowClose(fmt.Sprint("F", i)))
		closeSpool(t, s)
	}
	wantLog(t, dir, "flow.open F0", "flow.close F0 client_closed", "flow.open F1", "flow.close F1 client_closed",
		"flow.open F2", "flow.close F2 client_closed")
	if rep := wantIntact(t, dir); rep.Gaps != 0 || rep.Segments != 3 {
		t.Errorf("report %+v", rep)
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, audit.Config{StateDir: dir})
	add(t, s, flowOpen("F1"))
	closeSpool(t, s)
	for path, want := range map[string]os.FileMode{
		"log/spool": 0o700, "keys": 0o700, "keys/log.key": 0o600, "keys/log.pub": 0o644,
		"log/spool/" + auditlog.SegmentName(1): 0o600, "log/spool/checkpoint": 0o600, "log/spool/lock": 0o600,
	} {
		st, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Error(err)
		} else if st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, st.Mode().Perm(), want)
		}
	}
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	s := open(t, audit.Config{StateDir: dir})
	if s2, err := audit.Open(withTestDefaults(audit.Config{StateDir: dir})); err == nil {
		s2.Close()
		t.Fatal("two spools have opened one directory")
	}
	closeSpool(t, s)
	open(t, audit.Config{StateDir: dir})
}

func TestKeyMissing(t *testing.T) {
	dir := t.TempDir()
	closeSpool(t, open(t, audit.Config{StateDir: dir}))
	if err := os.Remove(filepath.Join(dir, "keys", "log.key")); err != nil {
		t.Fatal(err)
	}
	if s, err := audit.Open(withTestDefaults(audit.Config{StateDir: dir})); err == nil {
		s.Close()
		t.Fatal("a log was opened without its key")
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	s := open(t, audit.Config{StateDir: dir})
	long := intent("F1", "A1")
	long.Action.Text = string(make([]byte, auditlog.MaxPayload/6)) // \u0000 each
	if err := s.Append(context.Background(), false, flowOpen("F1"), long); !errors.Is(err, auditlog.ErrTooLong) {
		t.Errorf("a long event: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Append(ctx, false, flowOpen("F1")); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	far := flowOpen("F1")
	at := time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)
	far.Principal.Expires = &at
	if err := s.Append(context.Background(), false, far); err == nil {
		t.Error("a time that has no form was recorded")
	}
	add(t, s, flowOpen("F2"))
	closeSpool(t, s)
	wantLog(t, dir, "flow.open F2")
	if _, err := audit.Open(audit.Config{StateDir: t.TempDir(), Node: "n", Durability: "maybe"}); err == nil {
		t.Error("an unknown durability was taken")
	}
}

func TestRotationCarriesOpenFlows(t *testing.T) {
	dir := t.TempDir()
	s := open(t, audit.Config{StateDir: dir, SegmentBytes: 8 << 10})
	add(t, s, flowOpen("OLD"), intent("OLD", "A"))
	for i := range 200 {
		id := fmt.Sprint("F", i)
		add(t, s, flowOpen(id), flowClose(id))
	}
	rep := wantIntact(t, dir)
	if rep.Segments < 5 {
		t.Fatalf("only %d segments", rep.Segments)
	}
	copied := clone(t, dir) // as kill -9 would leave it
	s2 := open(t, audit.Config{StateDir: copied})
	closeSpool(t, s2)
	events := readAll(t, copied)
	if len(events) != 2+400+3 {
		t.Fatalf("%d events", len(events))
	}
	var tail []string
	for _, ev := range events[402:] {
		tail = append(tail, brief(ev))
	}
	if d := cmp.Diff([]string{"gap crash", "action OLD A outcome lost", "flow.close OLD agent_lost"}, tail); d != "" {
		t.Error(d)
	}
	last := events[len(events)-1]
	if last.Principal == nil || last.Principal.User != "ann@example.com" || last.Backend != "orders" || last.Assurance != "inspected" {
		t.Errorf("the closing does not say whose flow it was: %+v", last)
	}
	wantIntact(t, copied)
	closeSpool(t, s)
}

// TestConcurrentAppenders checks order, completeness and atomicity of lists.
func TestConcurrentAppenders(t *testing.T) {
	const appenders, rounds = 32, 60
	dir := t.TempDir()
	s := open(t, audit.Config{StateDir: dir, SegmentBytes: 64 << 10, CheckpointEvery: time.Millisecond})
	var wg sync.WaitGroup
	for a := range appenders {
		wg.Go(func() {
			for i := range rounds {
				id := fmt.Sprintf("F%d.%d", a, i)
				list := []*auditlog.Event{flowOpen(id), intent(id, "A"), outcome(id, "A"), flowClose(id)}
				if err := s.Append(context.Background(), i%16 == 0, list...); err != nil {
					t.Error(err)
					return
				}
				for j, ev := range list {
					if ev.Seq != list[0].Seq+uint64(j) {
						t.Errorf("a list is not consecutive")
					}
				}
			}
		})
	}
	wg.Wait()
	closeSpool(t, s)
	rep := wantIntact(t, dir)
	if want := uint64(appenders * rounds * 4); rep.Events != want || rep.LastSeq != want {
		t.Errorf("%d events, last %d, want %d", rep.Events, rep.LastSeq, want)
	}
	seen := make(map[string]int)
	for _, ev := range readAll(t, dir) {
		seen[ev.Flow]++
	}
	for id, n := range seen {
		if n != 4 {
			t.Errorf("%s has %d events", id, n)
		}
	}
}

// clone copies a state directory, as it stands, byte by byte. A spool may be open
// in it, but nobody may append; what its keeper does meanwhile does no harm: the
// checkpoint is copied before the segments.
func clone(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "state")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasSuffix(path, ".new") {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}
