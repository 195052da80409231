package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/evidence"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func evidenceRun(t *testing.T, args ...string) (string, string, int) {
	var out lockedBuffer
	errOut, code := commandRunTo(t.Context(), &out, append([]string{"evidence"}, args...)...)
	return out.String(), errOut, code
}

// TestEvidenceCommands exports from a log that the spool wrote and the sealer sealed,
// without an agent.
func TestEvidenceCommands(t *testing.T) {
	t.Setenv("WEIR_RUN_DIR", t.TempDir())
	dir := sealedLog(t)
	pack := filepath.Join(t.TempDir(), "pack.zip")
	key := auditlog.PublicKeyFile(dir)
	export := []string{"export", "--dir", dir, "--from", "1h", "--out", pack, "--sample", "3", "--seed", "a b"}
	out, errOut, code := evidenceRun(t, export...)
	if code != exitDone || !strings.Contains(out, "30 events of node-a") || !strings.Contains(errOut, "no agent answers") {
		t.Fatalf("exit %d: %s\n%s", code, errOut, out)
	}
	if st, err := os.Stat(pack); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(pack), ".weir*")); len(left) > 0 {
		t.Error("left over:", left)
	}
	if _, errOut, code = evidenceRun(t, export...); code != exitFailed || !strings.Contains(errOut, "exists already") {
		t.Errorf("twice to one file: exit %d: %s", code, errOut)
	}
	out, errOut, code = evidenceRun(t, "verify", "--key", key, pack)
	if code != exitDone || !strings.HasSuffix(out, "\nintact\n") || strings.Contains(out, "WRONG") {
		t.Errorf("exit %d: %s\n%s", code, errOut, out)
	}
	out, _, code = evidenceRun(t, "verify", pack)
	if code != exitDone || !strings.Contains(out, "BY THE KEY INSIDE THE PACK") {
		t.Errorf("without a key: exit %d\n%s", code, out)
	}
	out, _, code = evidenceRun(t, "verify", "-o", "json", "--key", key, pack)
	var r evidence.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitDone || !r.Intact || len(r.Claims) != 11 || r.KeyFrom != "given" {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	out, _, code = evidenceRun(t, "proof", "--seq", "7", pack)
	var p evidence.Proof
	if err := json.Unmarshal([]byte(out), &p); err != nil || code != exitDone || p.Seq != 7 || p.Size < 30 {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	b, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/3] ^= 1
	bad := filepath.Join(t.TempDir(), "bad.zip")
	if err := os.WriteFile(bad, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errOut, code = evidenceRun(t, "verify", "--key", key, bad); code != exitUnproven || !strings.Contains(out, "NOT INTACT") || !strings.Contains(errOut, "do not rely") {
		t.Errorf("exit %d: %s\n%s", code, errOut, out)
	}
	// The key of another node.
	other, _ := auditLog(t)
	if _, _, code = evidenceRun(t, "verify", "--key", auditlog.PublicKeyFile(other), pack); code != exitUnproven {
		t.Errorf("another node's key: exit %d", code)
	}
	for args, want := range map[string]string{
		"export --dir " + dir + " --from 1h --to 2h --out x":                   "is empty",
		"export --dir " + dir + " --from x --out x":                            "a time is like",
		"export --dir " + dir + " --from 1h --to 2999-01-01 --out x":           "in the future",
		"export --dir " + dir + " --from 1h --out x --sample 3":                "belong together",
		"export --dir " + dir + " --from 1h --out x --sample 100000 --seed s":  "at most",
		"export --dir /nonexistent --from 1h --out x":                          "name the state directory",
		"export --dir " + dir + " --from 1h --out x --framework cobit":         "no framework",
		"export --dir " + other + " --from 1h --out " + t.TempDir() + "/y.zip": "has not been sealed",
		"verify":                   "name one pack",
		"verify /nonexistent.zip":  "no such file",
		"verify " + t.TempDir():    "is no file",
		"proof --seq 5000 " + pack: "no event with that number",
	} {
		if _, errOut, code := evidenceRun(t, strings.Fields(args)...); code == exitDone || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d: %s, want %q", args, code, errOut, want)
		}
	}
}

// TestEvidenceRecorded: while an agent runs, no pack is there that it did not record.
func TestEvidenceRecorded(t *testing.T) {
	dir, run := sealedLog(t), t.TempDir()
	t.Setenv("WEIR_RUN_DIR", run)
	l, err := control.Listen(run)
	if err != nil {
		t.Fatal(err)
	}
	var recorded []auditlog.Evidence
	refuse := true
	s := control.NewServer(func(*net.UnixConn) (int, error) { return 0, nil }, func(int) {})
	s.Handle("GET /v1/status", func(context.Context, int, []byte, *http.Request) (any, error) {
		return control.Status{Audit: control.Audit{Dir: auditlog.SpoolDir(dir)}}, nil
	})
	s.Handle("POST /v1/evidence", func(_ context.Context, _ int, body []byte, _ *http.Request) (any, error) {
		if refuse {
			return nil, control.Refuse(http.StatusInternalServerError, "weir: the log cannot be written")
		}
		var e auditlog.Evidence
		if err := json.Unmarshal(body, &e); err != nil {
			return nil, err
		}
		recorded = append(recorded, e)
		return struct{}{}, nil
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	pack := filepath.Join(t.TempDir(), "pack.zip")
	args := []string{"export", "--dir", dir, "--from", "1h", "--out", pack, "-o", "json"}
	if _, errOut, code := evidenceRun(t, args...); code != exitFailed || !strings.Contains(errOut, "there is no pack") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	if _, err := os.Stat(pack); err == nil {
		t.Error("a pack is there that was not recorded")
	}
	refuse = false
	out, errOut, code := evidenceRun(t, args...)
	var got struct {
		SHA256   string            `json:"manifest_sha256"`
		Manifest evidence.Manifest `json:"manifest"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone || errOut != "" {
		t.Fatalf("exit %d, %v: %s", code, err, errOut)
	}
	if len(recorded) != 1 || recorded[0].Manifest != got.SHA256 || recorded[0].Events != 30 || !strings.HasPrefix(got.Manifest.Recorded, "yes") {
		t.Errorf("recorded %+v, printed %+v", recorded, got)
	}
}
