package evidence

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

func morning(n *node) Config {
	c := n.config(start.Add(30*time.Minute), start.Add(4*time.Hour))
	c.Sample, c.Seed = 8, "auditor 17"
	return c
}

func memberOf(t testing.TB, pack []byte, name string) []byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := z.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rowsOf(t testing.TB, pack []byte, table string) [][]string {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader(memberOf(t, pack, "tables/"+table+".csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

func TestExportAndVerify(t *testing.T) {
	n := world(t)
	pack := n.export(morning(n))
	if keep := os.Getenv("WEIR_KEEP_PACK"); keep != "" {
		if err := os.WriteFile(keep, pack, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile(keep+".pub", []byte(n.key.String()+"\n"), 0o600)
	}
	r := verify(t, pack, &n.key)
	for _, c := range r.Claims {
		t.Logf("%-12s %s: %s", c.Result, c.Claim, c.Detail)
		if c.Result != Proven {
			t.Errorf("%s: %s: %s", c.Claim, c.Result, c.Detail)
		}
	}
	if !r.Intact || r.KeyFrom != "given" || r.Manifest.Events != 77 {
		t.Errorf("%+v", r)
	}
	if r := verify(t, pack, nil); !r.Intact || r.KeyFrom != "pack" || !strings.Contains(r.Claims[1].Detail, "INSIDE") {
		t.Errorf("without a key: %+v", r)
	}
	other := n.key
	other.Name = "node-b/weir-spool"
	if r := verify(t, pack, &other); r.Intact {
		t.Error("a pack of another node is intact")
	}
	// What the tables say.
	for table, want := range map[string]int{"approvals": 1, "decisions": 1, "masks": 1, "denials": 2, "bypass": 1, "identities": 2, "policies": 2, "access": 4, "keys": 1, "sample": 8, "completeness": 2} {
		if rows := rowsOf(t, pack, table); len(rows) != want {
			t.Errorf("%s has %d rows, want %d: %q", table, len(rows), want, rows)
		}
	}
	a := rowsOf(t, pack, "approvals")[0]
	if got := strings.Join(a, "|"); !strings.Contains(got, "dora@example.com|ticket OPS-7, +1|idp|no|1|ok|sha256:") || !strings.Contains(got, "update shop.orders set state") {
		t.Errorf("the approval: %s", got)
	}
	if m := rowsOf(t, pack, "masks")[0]; m[6] != "90" || m[7] != "30" || m[8] != "1" {
		t.Errorf("masks: %q", m)
	}
	limits := ""
	for _, row := range rowsOf(t, pack, "limits") {
		limits += strings.Join(row[3:], ": ") + "\n"
	}
	for _, want := range []string{"agent restarted after an end", "gap in the record", "the clock was set back", "connection without an end", "action without an outcome", "2 more than the log has records of"} {
		if !strings.Contains(limits, want) {
			t.Errorf("the limits do not say %q:\n%s", want, limits)
		}
	}
}

func TestTwiceTheSame(t *testing.T) {
	n := world(t)
	c := morning(n)
	first := n.export(c)
	if again := n.export(c); !bytes.Equal(first, again) {
		t.Error("the same export gives other bytes: " + differing(t, first, again))
	}
	// The log grows, and the export is at another time: only the manifest differs.
	n.now = start.Add(5 * time.Hour)
	n.log(auditlog.Event{Kind: auditlog.AgentStart}, auditlog.Event{Kind: auditlog.AgentStop})
	n.seal(true)
	c.Now = func() time.Time { return start.Add(48 * time.Hour) }
	second := n.export(c)
	var m Manifest
	if err := json.Unmarshal(memberOf(t, first, manifestFile), &m); err != nil {
		t.Fatal(err)
	}
	if k := m.Before.Bytes; !bytes.Equal(first[:k], second[:k]) {
		t.Error("more than the manifest has changed: " + differing(t, first, second))
	}
	if bytes.Equal(first, second) {
		t.Error("the manifest does not say when it was made")
	}
}

// differing names the members that differ.
func differing(t *testing.T, a, b []byte) string {
	var m, n Manifest
	if err := json.Unmarshal(memberOf(t, a, manifestFile), &m); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(memberOf(t, b, manifestFile), &n); err != nil {
		t.Fatal(err)
	}
	names := ""
	for i := range m.Members {
		if m.Members[i] != n.Members[i] {
			names += " " + m.Members[i].Name
		}
	}
	return names
}

func TestProve(t *testing.T) {
	n := world(t)
	pack := n.export(morning(n))
	for _, seq := range []uint64{5, 23, 70, 78} {
		p, err := Prove(t.Context(), bytes.NewReader(pack), int64(len(pack)), seq)
		if err != nil || p.Seq != seq || p.Index != seq-1 {
			t.Errorf("%d: %+v %v", seq, p, err)
		}
	}
	if _, err := Prove(t.Context(), bytes.NewReader(pack), int64(len(pack)), 4000); err != ErrNoEvent {
		t.Error(err)
	}
}
