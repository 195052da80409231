package postgres

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// psql runs an unchanged psql against w.
func (w *world) psql(t testing.TB, env []string, args ...string) (stdout, stderr string) {
	t.Helper()
	host, port := w.addr()
	cmd := exec.Command("psql", append([]string{"-X", "-At", "-h", host, "-p", port, "-U", "whoever", "-d", "postgres"}, args...)...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C.UTF-8"}, env...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return out.String(), errs.String()
}

func TestPsql(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	out, errs := w.psql(t, nil, "-c", "select 1", "-c", "select 2; select 3", "-c", "drop table x", "-c", "select 4")
	if out != "1\n2\n3\n4\n" || !strings.Contains(errs, `ERROR:  weir: rule "no secrets" denies this`) {
		t.Fatalf("stdout %q stderr %q", out, errs)
	}
	waitFor(t, "flow.close", func() bool { e := w.snapshot(); return e[len(e)-1].Kind == auditlog.FlowClose })
	events := w.snapshot()
	if e := events[len(events)-1]; e.Reason != "client_closed" {
		t.Errorf("reason %q", e.Reason)
	}
	for _, text := range []string{"select 1", "select 2", "select 3", "select 4"} {
		o := w.outcomes(text)
		if len(o) != 1 || o[0].Result.Status != auditlog.StatusOK || o[0].Result.Rows != 1 {
			t.Errorf("%s: %+v", text, o)
		}
	}
}
