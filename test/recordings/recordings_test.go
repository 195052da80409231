// Package recordings records sessions through the whole path: a real kernel,
// PostgreSQL, identity provider and psql, with the built binary.
package recordings

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/weirproxy/weir/internal/testkit/world"
)

// w is the one world of this test binary, set by TestMain; identity is the auditors' key.
var (
	w        *world.World
	identity *age.X25519Identity
)

const policyText = `policies:
  - name: shop
    backends: [shop]
    rules:
      - name: strict
        groups: [strict]
        actions: [connect, select, copy_out]
        resources: ["shop.*"]
        effect: allow
        record: refuse
      - name: lenient
        groups: [lenient]
        actions: [connect, select]
        resources: ["shop.*"]
        effect: allow
        record: continue
      - name: plain
        groups: [plain]
        actions: [connect, select]
        resources: ["shop.*"]
        effect: allow
    masks:
      - name: cards
        columns: ["shop.payments.card_number"]
        with: last4
`

func TestMain(m *testing.M) {
	code := 1
	var err error
	if identity, err = age.GenerateX25519Identity(); err == nil {
		w, err = world.Start(world.Config{
			People: map[string][]string{"sam": {"strict"}, "len": {"lenient"}, "pat": {"plain"}}, Policy: policyText,
			Extra: func(*world.World) string {
				return fmt.Sprintf("audit:\n  seal_to: [%q]\n", identity.Recipient().String())
			}})
	}
	if err == nil {
		code = m.Run()
		err = w.Stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "recordings:", err)
		code = 1
	}
	os.Exit(code)
}

func psql(t *testing.T, who string, args ...string) (string, error) {
	t.Helper()
	cmd := w.Node.As(t.Context(), w.Files[who], "psql", append([]string{"-X", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop"}, args...)...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "PGCONNECT_TIMEOUT=30")
	return w.Node.Run(cmd)
}

func weir(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := w.Node.Weir(t.Context(), args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// sessionsOf are the recordings of a person as `sessions list` shows them.
func sessionsOf(t *testing.T, who string) []map[string]any {
	t.Helper()
	out, code := weir(t, "sessions", "list", "--user", who+"@example.com", "-o", "json")
	var list []map[string]any
	if err := json.Unmarshal([]byte(out), &list); code != 0 || err != nil {
		t.Fatalf("sessions list: %d %v\n%s", code, err, out)
	}
	return list
}

func identityFile(t *testing.T, id *age.X25519Identity) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(file, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSessionIsRecorded: what was asked and what was seen, and behind the mask only
// for whoever has the key.
func TestSessionIsRecorded(t *testing.T) {
	out, err := psql(t, "sam", "-c", "SELECT card_number FROM shop.payments ORDER BY id LIMIT 1", "-c", "COPY shop.payments TO STDOUT")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shown := ""
	for _, l := range strings.Split(out, "\n") {
		if strings.Contains(l, "****") {
			shown = strings.TrimSpace(l)
			break
		}
	}
	if shown == "" {
		t.Fatalf("nothing is masked:\n%s", out)
	}
	var original string
	if original, err = w.DB.Psql(t.Context(), "-d", "shop", "-tA", "-c", "SELECT card_number FROM shop.payments ORDER BY id LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	original = strings.TrimSpace(original)
	list := sessionsOf(t, "sam")
	if len(list) == 0 {
		t.Fatal("nothing was recorded")
	}
	id := list[len(list)-1]["id"].(string)
	if list[len(list)-1]["state"] != "closed" || list[len(list)-1]["sealed"] != true {
		t.Errorf("recording: %v", list[len(list)-1])
	}

	raw, err := os.ReadFile(filepath.Join(w.Node.StateDir(), "recordings", list[len(list)-1]["file"].(string)))
	if err != nil || strings.Contains(string(raw), original) {
		t.Errorf("the file: %v", err)
	}
	if out, code := weir(t, "sessions", "show", id); code != 0 || !strings.Contains(out, "every chunk is what the audit log says") {
		t.Errorf("show: %d\n%s", code, out)
	}
	if out, code := weir(t, "sessions", "play", id); code != 1 || !strings.Contains(out, "--identity") {
		t.Errorf("play without the key: %d\n%s", code, out)
	}
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if out, code := weir(t, "sessions", "play", id, "--identity", identityFile(t, stranger)); code != 1 || !strings.Contains(out, "other keys") {
		t.Errorf("play with another key: %d\n%s", code, out)
	}
	out, code := weir(t, "sessions", "play", id, "--identity", identityFile(t, identity))
	for _, want := range []string{"SELECT card_number FROM shop.payments", shown, "behind the mask: row 1, column 1: " + original, "copy_out:", "SELECT 1"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("play (%d) has no %q:\n%s", code, want, out)
		}
	}
	// The log itself has the original nowhere.
	if out, _ := weir(t, "audit", "query", "-o", "json"); strings.Contains(out, original) {
		t.Error("the audit log holds what stands behind a mask")
	}
	if out, code := weir(t, "audit", "verify"); code != 0 {
		t.Errorf("verify: %d\n%s", code, out)
	}
}

// TestOthersAreNotRecorded: only where a rule asks for it.
func TestOthersAreNotRecorded(t *testing.T) {
	if out, err := psql(t, "pat", "-c", "SELECT 1 FROM shop.orders LIMIT 1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if list := sessionsOf(t, "pat"); len(list) != 0 {
		t.Errorf("recorded: %v", list)
	}
}

// TestChangedRecordingIsFound: one bit of a file.
func TestChangedRecordingIsFound(t *testing.T) {
	if out, err := psql(t, "len", "-c", "SELECT id FROM shop.orders LIMIT 3"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	list := sessionsOf(t, "len")
	last := list[len(list)-1]
	file := filepath.Join(w.Node.StateDir(), "recordings", last["file"].(string))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []string{"show", "play", "export"} {
		args := []string{"sessions", cmd, last["id"].(string)}
		if cmd != "show" {
			args = append(args, "--identity", identityFile(t, identity))
		}
		if out, code := weir(t, args...); code != 4 || !strings.Contains(out, "not what the audit log says") {
			t.Errorf("%s of a changed recording: %d\n%s", cmd, code, out)
		}
	}
}

// TestNoRecorder: the recordings' directory cannot be written.
func TestNoRecorder(t *testing.T) {
	dir := filepath.Join(w.Node.StateDir(), "recordings")
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file in its place stops root too
		t.Fatal(err)
	}
	defer func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Error(err)
		}
		if out, err := psql(t, "sam", "-c", "SELECT 1"); err != nil {
			t.Errorf("the recorder works again: %v\n%s", err, out)
		}
	}()
	if out, err := psql(t, "sam", "-c", "SELECT 1"); err == nil || !strings.Contains(out, "has to be recorded and cannot be") {
		t.Errorf("refuse: %v\n%s", err, out)
	}
	if out, err := psql(t, "len", "-c", "SELECT 1"); err != nil {
		t.Errorf("continue: %v\n%s", err, out)
	}
	gaps, err := w.Node.Events(t.Context(), "--kind", "gap", "--user", "len@example.com")
	if err != nil || len(gaps) == 0 {
		t.Errorf("no gap is on record: %v", err)
	}
	refused, err := w.Node.Events(t.Context(), "--kind", "flow.refused", "--user", "sam@example.com")
	if err != nil || len(refused) == 0 || refused[len(refused)-1]["reason"] != "recorder_failed" {
		t.Errorf("refused: %v %v", refused, err)
	}
}
