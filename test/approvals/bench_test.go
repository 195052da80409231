package approvals

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

// pgbench runs pgbench as somebody.
func pgbench(b *testing.B, who string, args ...string) (string, error) {
	b.Helper()
	return w.Node.Run(w.Node.As(b.Context(), w.Files[who], "pgbench", append(args, "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "shop")...))
}

var tpsLine = regexp.MustCompile(`tps = ([0-9.]+)`)

// selectOnly is pgbench's select-only run on eight connections, transactions a second.
func selectOnly(b *testing.B) float64 {
	b.Helper()
	seconds := os.Getenv("WEIR_PGBENCH_SECONDS")
	if seconds == "" {
		seconds = "6"
	}
	out, err := pgbench(b, "bench", "-n", "-S", "-M", "prepared", "-c", "8", "-j", "2", "-T", seconds)
	m := tpsLine.FindStringSubmatch(out)
	if err != nil || m == nil {
		b.Fatalf("%v: %s", err, out)
	}
	tps, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		b.Fatal(err)
	}
	return tps
}

// holdMany has n connections wait, after `pause` seconds of doing nothing, and returns
// what ends them.
func holdMany(b *testing.B, n, pause int) (end func()) {
	b.Helper()
	script := filepath.Join(b.TempDir(), "held.sql")
	if err := os.WriteFile(script, fmt.Appendf(nil, "\\sleep %d s\nSELECT * FROM shop.queue;\n", pause), 0o644); err != nil {
		b.Fatal(err)
	}
	cmd := w.Node.As(b.Context(), w.Files["held"], "pgbench", "-n", "-f", script, "-c", fmt.Sprint(n), "-t", "1", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "shop")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := w.Node.Start(cmd); err != nil {
		b.Fatal(err)
	}
	return func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		waitFor(b, 0)
	}
}

func pending(b *testing.B) int {
	b.Helper()
	out, err := w.Node.Weir(b.Context(), "approvals", "list", "-o", "json").Output()
	if err != nil {
		b.Fatal(err)
	}
	return strings.Count(string(out), fmt.Sprintf(`"status": %q`, approval.Pending)) + strings.Count(string(out), fmt.Sprintf(`"status":%q`, approval.Pending))
}

func waitFor(b *testing.B, n int) {
	b.Helper()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if pending(b) == n {
			return
		}
	}
	b.Fatalf("%d are held, not %d\nagent: %s", pending(b), n, w.Node.LogTail())
}

// BenchmarkUndisturbed compares eight busy connections without and with 500 actions
// held, A B A B in one run. The ratio is to be 0.95 or more (issue 4).
func BenchmarkUndisturbed(b *testing.B) {
	if out, err := pgbench(b, "bench", "-i", "-q", "-s", "1"); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	selectOnly(b)
	for b.Loop() {
		var alone, beside float64
		for range 3 {
			alone += selectOnly(b)
			end := holdMany(b, 500, 0)
			waitFor(b, 500)
			beside += selectOnly(b)
			end()
		}
		b.ReportMetric(beside/alone, "ratio")
		b.ReportMetric(beside/3, "tps")
	}
}

// BenchmarkMemory says what one of 1,000 held actions costs above its idle connection,
// and with it, in bytes of the agent's resident memory.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		from := time.Now().UTC().Format(time.RFC3339Nano)
		before := rss(b)
		end := holdMany(b, 1000, 20)
		for end := time.Now().Add(time.Minute); time.Now().Before(end) && flows(b) < 1000; time.Sleep(200 * time.Millisecond) {
		}
		idle := rss(b)
		asked(b, from, 1000)
		held := rss(b)
		end()
		b.ReportMetric(float64(held-idle)/1000, "B/held")
		b.ReportMetric(float64(held-before)/1000, "B/held+flow")
	}
}

// asked waits until n requests are in the log, without asking the agent: a list of so
// many would itself take memory there.
func asked(b *testing.B, from string, n int) {
	b.Helper()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
		list, err := w.Node.Events(b.Context(), "--from", from, "--kind", "approval.request")
		if err != nil {
			b.Fatal(err)
		}
		if len(list) >= n {
			return
		}
	}
	b.Fatal("not all are held")
}

func flows(b *testing.B) int {
	b.Helper()
	out, err := w.Node.Weir(b.Context(), "status", "-o", "json").Output()
	if err != nil {
		b.Fatal(err)
	}
	m := regexp.MustCompile(`"flows": ?([0-9]+)`).FindStringSubmatch(string(out))
	n, _ := strconv.Atoi(m[1])
	return n
}

// rss is the agent's resident memory, bytes.
func rss(b *testing.B) int64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.Node.AgentPID()))
	if err != nil {
		b.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+([0-9]+) kB`).FindStringSubmatch(string(status))
	n, _ := strconv.ParseInt(m[1], 10, 64)
	return n << 10
}
