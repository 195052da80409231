package e2e

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// benchSeconds is the length of each pgbench run. `WEIR_PGBENCH_SECONDS=60 go
// test -run Pgbench` is the long form.
func benchSeconds() string {
	if s := os.Getenv("WEIR_PGBENCH_SECONDS"); s != "" {
		return s
	}
	return "6"
}

func pgbench(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return pgbenchAs(t, "bench", args...)
}

func pgbenchAs(t testing.TB, who string, args ...string) (string, error) {
	t.Helper()
	return run(t, who, "pgbench", append(args, "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "shop")...)
}

func initBench(t testing.TB) {
	t.Helper()
	if ask(t, "SELECT to_regclass('public.pgbench_accounts') IS NOT NULL") == "t" {
		return
	}
	if out, err := pgbench(t, "-i", "-q", "-s", "1"); err != nil {
		t.Fatalf("pgbench -i through weir: %v: %s", err, out)
	}
}

// TestPgbenchReconciles: every statement in the server's own log is exactly one
// allowed action in the audit log and the other way round, in every mode of the
// protocol, also while the agent is killed and comes back.
func TestPgbenchReconciles(t *testing.T) {
	initBench(t)
	for _, mode := range []string{"simple", "extended", "prepared"} {
		t.Run(mode, func(t *testing.T) {
			from, mark := since(), logSize(t)
			out, err := pgbench(t, "-n", "-c", "16", "-j", "2", "-T", benchSeconds(), "-M", mode)
			if err != nil || strings.Contains(out, "error") || strings.Contains(out, "aborted") {
				t.Fatalf("%v: %s", err, out)
			}
			reconcile(t, from, mark, 0)
		})
	}
	t.Run("killed", func(t *testing.T) {
		from, mark := since(), logSize(t)
		for range 3 {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = pgbench(t, "-n", "-c", "8", "-T", "600", "-M", "prepared") // ends when its connections break
			}()
			eventually(t, "pgbench is at work", func() bool {
				return len(events(t, "--from", from, "--kind", "action", "--limit", "500")) == 500
			})
			time.Sleep(300 * time.Millisecond) // somewhere in the middle of things
			w.Node.Kill()
			<-done
			if err := w.Node.StartAgent(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		reconcile(t, from, mark, 3*8)
	})
}

func logSize(t *testing.T) int64 {
	t.Helper()
	info, err := os.Stat(w.DB.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// A line of the server's log: log_line_prefix is [pid|application_name|sqlstate].
var logLine = regexp.MustCompile(`^\[(\d+)\|weir:([0-9A-Z]{26})[^|]*\|[^\]]*\] LOG:  (?:statement: |execute [^:]*: )(.*)$`)

// reconcile compares the server's log with the audit log, flow by flow, in
// order. Actions whose outcome is lost may or may not have reached the server;
// at most lost of them are expected.
func reconcile(t *testing.T, from string, mark int64, lost int) {
	t.Helper()
	server := map[string][]string{}
	f, err := os.Open(w.DB.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(mark, 0); err != nil {
		t.Fatal(err)
	}
	statements := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if m := logLine.FindStringSubmatch(sc.Text()); m != nil {
			server[m[2]] = append(server[m[2]], bare(m[3]))
			statements++
		}
	}
	type action struct{ text, status string }
	audit := map[string][]*action{}
	byID := map[string]*action{}
	nLost := 0
	for _, e := range events(t, "--from", from, "--kind", "action") {
		flow, id := fmt.Sprint(e["flow"]), fmt.Sprint(field(e, "action", "id"))
		switch field(e, "action", "phase") {
		case "intent":
			if e["verdict"] != "allow" {
				t.Errorf("a refused action: %v", e)
				continue
			}
			a := &action{text: bare(fmt.Sprint(field(e, "action", "text")))}
			audit[flow] = append(audit[flow], a)
			byID[id] = a
		case "outcome":
			a := byID[id]
			if a == nil || a.status != "" {
				t.Errorf("an outcome without its one intent: %v", e)
				continue
			}
			a.status = fmt.Sprint(field(e, "result", "status"))
			if a.status == "lost" {
				nLost++
			}
		}
	}
	for flow, actions := range audit {
		got := server[flow]
		for _, a := range actions {
			if a.status == "" {
				t.Errorf("flow %s: %q has no outcome", flow, a.text)
			}
			if len(got) > 0 && got[0] == a.text {
				got = got[1:]
				continue
			}
			if a.status != "lost" {
				t.Errorf("flow %s: action %q (%s) is not in the server's log at its place", flow, a.text, a.status)
				break
			}
		}
		if len(got) > 0 {
			t.Errorf("flow %s: %d statements of the server have no action, first %q", flow, len(got), got[0])
		}
		delete(server, flow)
	}
	for flow, got := range server {
		t.Errorf("flow %s: %d statements of the server, and no action at all", flow, len(got))
	}
	if nLost > lost {
		t.Errorf("%d actions are lost, at most %d expected", nLost, lost)
	}
	if statements < 100 {
		t.Errorf("only %d statements were compared", statements)
	}
	t.Logf("%d statements, %d actions, %d flows, %d lost", statements, len(byID), len(audit), nLost)
}

// bare is a statement without what the two logs treat differently at its end.
func bare(sql string) string { return strings.TrimRight(sql, "; \n") }
