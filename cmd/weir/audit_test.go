package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// auditRun runs `weir audit ...` and returns what it prints and its exit status.
func auditRun(ctx context.Context, args ...string) (string, string, int) {
	var out lockedBuffer
	errOut, code := auditRunTo(ctx, &out, args...)
	return out.String(), errOut, code
}

// auditRunTo is auditRun whose output can be read meanwhile.
func auditRunTo(ctx context.Context, out *lockedBuffer, args ...string) (string, int) {
	return commandRunTo(ctx, out, append([]string{"audit"}, args...)...)
}

// commandRunTo runs the audit and evidence commands.
func commandRunTo(ctx context.Context, out *lockedBuffer, args ...string) (string, int) {
	var errOut lockedBuffer
	a := &cli.App{Name: "weir", Writer: out, ErrWriter: &errOut, Commands: []*cli.Command{auditCommand(), evidenceCommand()},
		ExitErrHandler: func(*cli.Context, error) {},
		Flags:          []cli.Flag{&cli.StringFlag{Name: "config", Value: "/nonexistent/weir.yaml"}, &cli.StringFlag{Name: "run-dir", EnvVars: []string{"WEIR_RUN_DIR"}}}}
	err := a.RunContext(ctx, append([]string{"weir"}, args...))
	code := exitDone
	var coded cli.ExitCoder
	if errors.As(err, &coded) {
		code = coded.ExitCode()
	} else if err != nil {
		code = exitFailed
	}
	if err != nil {
		fmt.Fprintln(&errOut, err)
	}
	return errOut.String(), code
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func auditEvents(i int) []*auditlog.Event {
	user := []string{"ann@example.com", "bob@example.com"}[i%2]
	flow := fmt.Sprintf("F%d", i)
	who := &auditlog.Principal{Issuer: "https://idp", Subject: user[:3], User: user, Groups: []string{"dev"}, Kind: "human"}
	verdict, result := "allow", (*auditlog.Result)(nil)
	if i%3 == 0 {
		verdict, result = "deny", &auditlog.Result{Status: auditlog.StatusDenied}
	}
	return []*auditlog.Event{
		{Kind: auditlog.FlowOpen, Flow: flow, Principal: who, Backend: "orders", Destination: "127.0.0.1:5432", Database: "shop", Login: "weir_app"},
		{Kind: auditlog.ActionEvent, Flow: flow, Principal: who, Backend: "orders", Verdict: verdict, Rule: "read", Result: result,
			Action: &auditlog.Action{ID: flow + "A", Phase: auditlog.PhaseIntent, Verbs: []string{"select"}, Text: fmt.Sprintf("SELECT %d\n\x1b[31m", i)}},
		{Kind: auditlog.FlowClose, Flow: flow, Principal: who, Backend: "orders", Reason: "client_closed"},
	}
}

// auditLog makes a log of 30 events in several segments.
func auditLog(t *testing.T) (string, *audit.Spool) {
	t.Helper()
	dir := t.TempDir()
	s, err := audit.Open(audit.Config{StateDir: dir, Node: "node-a", SegmentBytes: 2 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for i := range 10 {
		if err := s.Append(t.Context(), false, auditEvents(i)...); err != nil {
			t.Fatal(err)
		}
	}
	return dir, s
}

func TestAuditQuery(t *testing.T) {
	dir, _ := auditLog(t)
	for _, c := range []struct {
		args string
		want int
	}{
		{"", 30}, {"--limit 7", 7}, {"--user ann@example.com", 15}, {"--verdict deny", 4}, {"--kind action", 10},
		{"--kind flow.open --kind flow.close", 20}, {"--kind flow.open,flow.close", 20}, {"--flow F3", 3}, {"--text select", 10},
		{"--backend orders --user BOB@example.com --kind action --verdict allow", 3}, {"--backend none", 0},
		{"--from 1h", 30}, {"--from -1h", 30}, {"--to 1h", 0}, {"--from 2d", 30}, {"--from 2020-01-01 --to 2020-01-02", 0},
		{"--to 2999-01-01T00:00:00+02:00", 30},
	} {
		args := append([]string{"query", "--dir", dir, "-o", "json"}, strings.Fields(c.args)...)
		out, errOut, code := auditRun(t.Context(), args...)
		if code != exitDone || errOut != "" {
			t.Errorf("%s: exit %d: %s", c.args, code, errOut)
		}
		n, seq := 0, uint64(0)
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			if line == "" {
				continue
			}
			var ev auditlog.Event
			if err := json.Unmarshal([]byte(line), &ev); err != nil || ev.Seq <= seq {
				t.Fatalf("%s: %q after event %d: %v", c.args, line, seq, err)
			}
			n, seq = n+1, ev.Seq
		}
		if n != c.want {
			t.Errorf("%s: %d events, want %d", c.args, n, c.want)
		}
	}
}

func TestAuditQueryText(t *testing.T) {
	dir, _ := auditLog(t)
	out, _, code := auditRun(t.Context(), "query", "--dir", dir, "--flow", "F3")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != exitDone || len(lines) != 4 || strings.ContainsRune(out, '\x1b') {
		t.Fatalf("exit %d, %q", code, out)
	}
	for i, want := range []string{"WHAT", "as weir_app", "deny", "client_closed"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %q has no %q", lines[i], want)
		}
	}
	if !strings.Contains(lines[2], "SELECT 3") || !strings.Contains(lines[2], "bob@example.com") {
		t.Errorf("line %q", lines[2])
	}
}

func TestAuditUsage(t *testing.T) {
	dir, _ := auditLog(t)
	for _, args := range []string{"query --from yesterday", "query --from -xd", "query --verdict maybe", "query stray", "query -o xml", "query --limit -1", "tail -n -1"} {
		if _, errOut, code := auditRun(t.Context(), append(strings.Fields(args), "--dir", dir)...); code != exitUsage {
			// Flags behind an argument are arguments: that is what a stray word makes.
			if _, _, again := auditRun(t.Context(), append([]string{strings.Fields(args)[0], "--dir", dir}, strings.Fields(args)[1:]...)...); again != exitUsage {
				t.Errorf("%s: exit %d: %s", args, code, errOut)
			}
		}
	}
	if _, errOut, code := auditRun(t.Context(), "query", "--dir", t.TempDir()); code != exitFailed || !strings.Contains(errOut, "--dir") {
		t.Errorf("no log: exit %d: %s", code, errOut)
	}
	if _, errOut, code := auditRun(t.Context(), "verify", "--dir", t.TempDir()); code != exitFailed || !strings.Contains(errOut, "no audit log") {
		t.Errorf("no log: exit %d: %s", code, errOut)
	}
}

func TestAuditVerify(t *testing.T) {
	dir, s := auditLog(t)
	out, errOut, code := auditRun(t.Context(), "verify", "--dir", dir)
	if code != exitDone || !strings.Contains(out, "30, number 1 to 30") || !strings.HasSuffix(out, "\nintact\n") {
		t.Errorf("an open log: exit %d\n%s%s", code, out, errOut)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "copy.pub")
	b, err := os.ReadFile(auditlog.PublicKeyFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errOut, code = auditRun(t.Context(), "verify", "--dir", dir, "-o", "json", "--key", key)
	var got verifyResult
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone || !got.Intact || got.Events != 30 || got.SignedSeq != 30 {
		t.Errorf("a closed log: exit %d, %v\n%s%s", code, err, out, errOut)
	}

	path := filepath.Join(auditlog.SpoolDir(dir), auditlog.SegmentName(2))
	b, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errOut, code = auditRun(t.Context(), "verify", "--dir", dir)
	if code != exitUnproven || !strings.Contains(out, "NOT INTACT") || !strings.Contains(out, auditlog.SegmentName(2)) {
		t.Errorf("a changed log: exit %d\n%s%s", code, out, errOut)
	}
	if _, errOut, code = auditRun(t.Context(), "query", "--dir", dir, "-o", "json"); code != exitUnproven || !strings.Contains(errOut, "damaged") {
		t.Errorf("a query of a changed log: exit %d: %s", code, errOut)
	}
	if _, _, code = auditRun(t.Context(), "verify", "--dir", dir, "--key", path); code != exitUnproven {
		t.Errorf("a file that is no key: exit %d", code)
	}
}

func TestAuditTail(t *testing.T) {
	dir, s := auditLog(t)
	for n := range 32 {
		out, errOut, code := auditRun(t.Context(), "tail", "--dir", dir, "-o", "json", "--follow=false", "-n", fmt.Sprint(n))
		lines := strings.Count(out, "\n")
		if code != exitDone || lines != min(n, 30) {
			t.Fatalf("-n %d: exit %d, %d lines: %s", n, code, lines, errOut)
		}
		if n > 0 && !strings.Contains(strings.TrimSpace(out)[strings.LastIndex(strings.TrimSpace(out), "\n")+1:], `"seq":30,`) {
			t.Fatalf("-n %d does not end with the last event:\n%s", n, out)
		}
	}
	if out, _, _ := auditRun(t.Context(), "tail", "--dir", dir, "-o", "json", "--follow=false", "--kind", "action", "-n", "4"); strings.Count(out, "\n") != 4 {
		t.Errorf("filtered:\n%s", out)
	}

	// Follow: over a rotation, until Ctrl-C.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan int)
	go func() {
		a := &cli.App{Name: "weir", Writer: pw, ErrWriter: os.Stderr, Commands: []*cli.Command{auditCommand()}, ExitErrHandler: func(*cli.Context, error) {}}
		err := a.RunContext(ctx, []string{"weir", "audit", "tail", "--dir", dir, "-o", "json", "-n", "1"})
		pw.Close()
		if err != nil {
			done <- 1
		}
		done <- 0
	}()
	dec := json.NewDecoder(pr)
	for want := uint64(30); want <= 60; want++ {
		if want == 31 {
			for i := range 10 {
				if err := s.Append(t.Context(), false, auditEvents(i)...); err != nil {
					t.Fatal(err)
				}
			}
		}
		var ev auditlog.Event
		if err := dec.Decode(&ev); err != nil || ev.Seq != want {
			t.Fatalf("event %d instead of %d: %v", ev.Seq, want, err)
		}
	}
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("Ctrl-C: exit %d", code)
	}
}
