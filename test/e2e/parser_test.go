package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// peak is the most memory that the agent had resident since forgetPeak, KiB
// (proc_pid_status(5)).
func peak(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.Node.AgentPID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var n int
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// forgetPeak makes the present size the peak (proc_pid_clear_refs(5)).
func forgetPeak(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", w.Node.AgentPID()), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestHostileStatements: what the parser could die of, or take long over, is unknown
// and refused with words; the agent goes on and needs little for it.
func TestHostileStatements(t *testing.T) {
	mustPsql(t, "ann", "-c", "SELECT 1")
	pid, from := w.Node.AgentPID(), since()
	for name, sql := range map[string]string{
		"1 MiB":                  "SELECT 1 /*" + strings.Repeat("x", 1<<20) + "*/",
		"parentheses":            "SELECT " + strings.Repeat("(", 100000) + "1" + strings.Repeat(")", 100000),
		"plus":                   "SELECT 1" + strings.Repeat("+1", 30000),
		"casts":                  "SELECT 1" + strings.Repeat("::int", 30000),
		"unions":                 "SELECT 1" + strings.Repeat(" UNION SELECT 1", 50000),
		"case":                   "SELECT " + strings.Repeat("CASE WHEN true THEN ", 20000) + "1" + strings.Repeat(" END", 20000),
		"arrays":                 "SELECT " + strings.Repeat("ARRAY[", 50000) + "1" + strings.Repeat("]", 50000),
		"subqueries":             "SELECT " + strings.Repeat("(SELECT ", 30000) + "1" + strings.Repeat(")", 30000),
		"not":                    "SELECT " + strings.Repeat("NOT ", 50000) + "true",
		"joins":                  "SELECT 1 FROM shop.orders" + strings.Repeat(" CROSS JOIN shop.orders", 10000),
		"body of a block":        "DO $$ BEGIN PERFORM 1" + strings.Repeat("+1", 30000) + "; END $$",
		"recursion in recursion": recursions(12),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "statement.sql")
			if err := os.WriteFile(file, []byte(sql+";\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			forgetPeak(t)
			before := peak(t)
			out, err := psql(t, "ann", "-v", "ON_ERROR_STOP=1", "-f", file)
			if err == nil || !strings.Contains(out, "weir: ") {
				t.Errorf("%v: %.300s", err, out)
			}
			if more := peak(t) - before; more > 64<<10 {
				t.Errorf("the agent took %d MiB more", more>>10)
			}
			mustPsql(t, "ann", "-c", "SELECT 1")
		})
	}
	if now := w.Node.AgentPID(); now != pid {
		t.Errorf("agent %d became %d", pid, now)
	}
	unknown := 0
	for _, e := range events(t, "--from", from, "--kind", "action", "--verdict", "deny") {
		if fmt.Sprint(field(e, "action", "verbs")) == "[unknown]" {
			unknown++
		}
	}
	if unknown < 12 {
		t.Errorf("%d unknown actions are on record", unknown)
	}
}

// recursions is a recursive query within another, n deep.
func recursions(n int) string {
	sql := "SELECT 1 AS a"
	for i := range n {
		sql = fmt.Sprintf("WITH RECURSIVE r%d AS (SELECT 1 AS a UNION ALL SELECT a FROM (%s) q UNION ALL SELECT a FROM r%d) SELECT a FROM r%d", i, sql, i, i)
	}
	return sql
}
