package approvals

import (
	"archive/zip"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/evidence"
)

// TestEvidence exports a pack of pgbench, an approved action, masks and a refusal, and
// checks it where there is nothing but the binary, the pack and the key: no network, no
// state, nobody's rights. WEIR_PGBENCH_SECONDS says how long pgbench runs.
func TestEvidence(t *testing.T) {
	from := since()
	run := func(who string, args ...string) {
		t.Helper()
		out, err := w.Node.Run(w.Node.As(t.Context(), w.Files[who], "pgbench", append(args, "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "shop")...))
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	seconds := os.Getenv("WEIR_PGBENCH_SECONDS")
	if seconds == "" {
		seconds = "3"
	}
	run("bench", "-i", "-q", "-s", "1")
	run("bench", "-n", "-c", "4", "-T", seconds)
	if out, err := psql(t, "ann", "-At", "-c", "SELECT card FROM shop.cards").wait(); err != nil || strings.Contains(out, "4111") {
		t.Fatalf("%v: %s", err, out)
	}
	c := psql(t, "ann", "-c", "DELETE FROM shop.ledger")
	id := c.held()
	approve(t, "dora", id, "--reason", "=quarterly cleaning")
	if out, err := c.wait(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := psql(t, "ann", "-c", "DROP TABLE shop.vault").wait(); err == nil {
		t.Fatal(out)
	}

	pack := filepath.Join(t.TempDir(), "pack.zip")
	if out, code := weir(t, "evidence", "export", "--from", from, "--out", pack, "--sample", "5", "--seed", "7", "--framework", "iso27001-2013"); code != 0 {
		t.Fatalf("exit %d: %s\nagent: %s", code, out, w.Node.LogTail())
	}
	exports := events(t, "--from", from, "--kind", "evidence.export")
	if len(exports) != 1 {
		t.Fatalf("%d exports on record", len(exports))
	}
	key := filepath.Join(t.TempDir(), "log.pub")
	if out, code := weir(t, "trust", "bundle", "--log"); code != 0 || os.WriteFile(key, []byte(out), 0o644) != nil {
		t.Fatalf("exit %d: %s", code, out)
	}
	verify := func(pack string) (*evidence.Report, error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "unshare", "-n", w.Weir, "evidence", "verify", "--key", key, "-o", "json", pack)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.Output()
		r := new(evidence.Report)
		if e := json.Unmarshal(out, r); e != nil {
			t.Fatalf("%v: %s", e, out)
		}
		return r, err
	}
	r, err := verify(pack)
	if err != nil {
		t.Errorf("%v: %+v", err, r.Claims)
	}
	for _, claim := range r.Claims {
		t.Logf("%-12s %s: %s", claim.Result, claim.Claim, claim.Detail)
		if claim.Result == evidence.Wrong || claim.Result == evidence.Unchecked && !strings.Contains(claim.Claim, "kept in the period") {
			t.Errorf("%+v", claim)
		}
		if strings.Contains(claim.Claim, "tokens") && !strings.Contains(claim.Detail, "1 decisions with a token") {
			t.Errorf("%+v", claim)
		}
	}
	if got := field(exports[0], "evidence", "manifest"); got != r.ManifestSHA256 || r.Manifest.Unsealed.Events != 0 {
		t.Errorf("the log names manifest %v: %+v", got, r)
	}
	saysOf(t, pack, "approvals", "ann@example.com", "DELETE FROM shop.ledger", "dora@example.com", "'=quarterly cleaning", "idp", "ok")
	saysOf(t, pack, "masks", "shop.cards.card", "last4", "20")
	saysOf(t, pack, "denials", "DROP TABLE shop.vault")
	saysOf(t, pack, "access", "destructive needs a second person", "1 of dba")
	saysOf(t, pack, "keys", w.IDP.Issuer)

	whole, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	bad := filepath.Join(t.TempDir(), "bad.zip")
	for range 20 {
		b, at := slices.Clone(whole), rnd.IntN(len(whole))
		b[at] ^= byte(1 + rnd.IntN(255))
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := verify(bad)
		var exit *exec.ExitError
		if r.Intact || err == nil || !asExit(err, &exit) || exit.ExitCode() != 4 {
			t.Errorf("byte %d was changed: %v", at, err)
		}
	}
}

func asExit(err error, to **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*to = e
	return ok
}

// saysOf: a row of the table has all of the words.
func saysOf(t *testing.T, pack, table string, words ...string) {
	t.Helper()
	z, err := zip.OpenReader(pack)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open("tables/" + table + ".csv")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		text, all := strings.Join(row, "\t"), true
		for _, word := range words {
			all = all && strings.Contains(text, word)
		}
		if all {
			return
		}
	}
	t.Errorf("no row of %s says %q: %q", table, words, rows)
}
