package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/internal/seal"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func limitsOf(t *testing.T, pack []byte) string {
	t.Helper()
	text := ""
	for _, row := range rowsOf(t, pack, "limits") {
		text += strings.Join(row, " | ") + "\n"
	}
	return text
}

// TestRemoved: retention has taken whole bundles and the text of a long event. What
// is left is proven, and what is not is stated.
func TestRemoved(t *testing.T) {
	n := large(t, 1000)
	n.log(auditlog.Event{Kind: auditlog.ActionEvent, Time: start.Add(2 * time.Second), Action: &auditlog.Action{ID: "long", Phase: auditlog.PhaseIntent, Text: strings.Repeat("y", 70000)}})
	n.log(auditlog.Event{Kind: auditlog.RetentionEvent, Time: start.Add(3 * time.Second), Retention: &auditlog.Retention{From: 256, To: 512, Count: 256, Before: start}})
	n.seal(true)
	dir := auditlog.TilesDir(n.dir)
	if err := os.Remove(filepath.Join(dir, tileName("entries", 1, 256))); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "long")); err != nil {
		t.Fatal(err)
	}
	pack := n.export(n.config(start.Add(-time.Hour), start.Add(time.Hour)))
	r := verify(t, pack, &n.key)
	if !r.Intact || r.Manifest.Events != 1002-257 {
		t.Errorf("%+v", r)
	}
	text := limitsOf(t, pack)
	for _, want := range []string{"256 events with index 256 to 511 are not in the log any more", "1 events with index 1000 to 1000", "events removed because of their age", "events are missing"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, seq := range []uint64{256, 513, 1000} {
		if p, err := Prove(t.Context(), bytes.NewReader(pack), int64(len(pack)), seq); err != nil || p.Index != seq-1 {
			t.Errorf("%d: %v", seq, err)
		}
	}
}

// TestPeriods: nothing in it, before the log, behind it, one event.
func TestPeriods(t *testing.T) {
	n := world(t)
	for name, c := range map[string]struct {
		from, to time.Duration
		events   uint64
	}{"before": {-2 * time.Hour, -time.Hour, 0}, "behind": {20 * time.Hour, 21 * time.Hour, 0}, "between": {10 * time.Minute, 20 * time.Minute, 0},
		"first": {0, 1500 * time.Millisecond, 1}, "last": {3 * time.Hour, 4 * time.Hour, 1}, "all": {-time.Hour, 20 * time.Hour, 81}} {
		pack := n.export(n.config(start.Add(c.from), start.Add(c.to)))
		r := verify(t, pack, &n.key)
		if !r.Intact || r.Manifest.Events != c.events {
			t.Errorf("%s: %+v %+v", name, r.Claims[len(r.Claims)-1], r.Manifest)
		}
		if c.events == 0 && !strings.Contains(limitsOf(t, pack), "no events") {
			t.Errorf("%s: the limits do not say that there are none", name)
		}
	}
}

// TestRealLog exports from what the spool and the sealer write, with and without
// events that are not sealed.
func TestRealLog(t *testing.T) {
	dir := t.TempDir()
	spool, err := audit.Open(audit.Config{StateDir: dir, Node: "node-a"})
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	write := func(n int) {
		for range n {
			if err := spool.Append(t.Context(), true, &auditlog.Event{Kind: auditlog.ActionEvent, Node: "node-a", Flow: "f", Verdict: "allow", Action: &auditlog.Action{ID: "a", Phase: auditlog.PhaseIntent, Text: "select 1"}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	key, sign, err := audit.ManifestSigner(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign([]byte("node-a/weir-log\n1\nAAAA\n")); err == nil {
		t.Error("it signs what passes for a tree head")
	}
	config := Config{StateDir: dir, Key: key, Sign: sign, Period: Period{time.Now().Add(-time.Hour), time.Now().Add(time.Hour)}, Framework: "iso27001-2013", Temp: t.TempDir(), Version: "test", Now: time.Now}
	write(3)
	if _, _, err := Export(t.Context(), config, new(bytes.Buffer)); !errors.Is(err, ErrNotSealed) {
		t.Errorf("a log that is not sealed: %v", err)
	}
	sealer, err := seal.Open(seal.Config{StateDir: dir, Spool: spool, Every: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	write(300)
	config.Wait = 20 * time.Second // for broken code
	var b bytes.Buffer
	m, manifest, err := Export(t.Context(), config, &b)
	if err != nil || m.Events != 303 || m.Unsealed.Events != 0 {
		t.Fatalf("%v: %+v", err, m)
	}
	if r := verify(t, b.Bytes(), &key); !r.Intact || r.ManifestSHA256 != Digest(manifest) {
		t.Errorf("%+v", r)
	}
	if err := sealer.Close(); err != nil {
		t.Fatal(err)
	}
	write(5)
	config.Wait = 0
	b.Reset()
	m, _, err = Export(t.Context(), config, &b)
	if err != nil || m.Events != 303 || m.Unsealed != (Unsealed{Events: 5, First: 304, Last: 308}) {
		t.Errorf("%v: %+v", err, m)
	}
	if r := verify(t, b.Bytes(), &key); !r.Intact {
		t.Errorf("%+v", r)
	}
	if text := limitsOf(t, b.Bytes()); !strings.Contains(text, "5 events of the period (number 304 to 308)") {
		t.Error(text)
	}
}

// TestOCSF: every kind has what the schema requires of its class, and one type for
// each name.
func TestOCSF(t *testing.T) {
	n := world(t)
	pack := n.export(morning(n))
	required := map[int][]string{classAuthentication: {"user", "service"}, classNetwork: {"src_endpoint", "dst_endpoint"}, classLifecycle: {"app"}, classAPI: {"actor", "api", "src_endpoint"},
		classDatastore: {"actor", "src_endpoint", "database"}}
	seen := 0
	for line := range bytes.Lines(memberOf(t, pack, "ocsf.jsonl")) {
		var e map[string]any
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		class, activity := int(e["class_uid"].(float64)), int(e["activity_id"].(float64))
		if int(e["type_uid"].(float64)) != class*100+activity || int(e["category_uid"].(float64)) != class/1000 {
			t.Errorf("the numbers do not match: %s", line)
		}
		if activity == activityOther && e["activity_name"] == nil {
			t.Errorf("another activity without a name: %s", line)
		}
		for _, name := range append([]string{"severity_id", "time", "metadata"}, required[class]...) {
			if e[name] == nil {
				t.Errorf("no %s: %s", name, line)
			}
		}
		seen++
	}
	if seen != 77 {
		t.Errorf("%d events", seen)
	}
}
