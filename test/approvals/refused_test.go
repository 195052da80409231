package approvals

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/testkit"
)

// TestAttempts: none of these lets the statement through, each is refused with exit 3
// and on record, and the request stays pending.
func TestAttempts(t *testing.T) {
	from := since()
	c := psql(t, "amy", "-c", "DELETE FROM shop.ledger") // she is in dba herself
	id := c.held()
	before := ask(t, "SELECT count(*) FROM shop.ledger")
	nonce := show(t, id).Nonce
	other := psql(t, "ann", "-c", "DELETE FROM shop.ledger")
	otherNonce := show(t, other.held()).Nonce
	attempt := func(name, words string, run func(t *testing.T) (string, int)) {
		t.Run(name, func(t *testing.T) {
			out, code := run(t)
			if code != 3 || !strings.Contains(out, words) {
				t.Errorf("exit %d, want 3 with %q: %s", code, words, out)
			}
			if s := show(t, id).Status; s != approval.Pending {
				t.Errorf("status %s", s)
			}
		})
	}
	with := func(file func(t *testing.T) string) func(t *testing.T) (string, int) {
		return func(t *testing.T) (string, int) { return weir(t, "approvals", "approve", id, "--token-file", file(t)) }
	}
	attempt("own", "nobody decides on what they ask for themselves", with(func(t *testing.T) string { return token(t, w.IDP, "amy", nonce) }))
	attempt("own address in another case", "nobody decides", with(func(t *testing.T) string {
		raw, err := w.IDP.TokenWithNonce(t.Context(), "amy2", "AMY@Example.COM", []string{"dba"}, nonce)
		if err != nil {
			t.Fatal(err)
		}
		return tokenFile(t, raw)
	}))
	attempt("same subject, another address", "nobody decides", with(func(t *testing.T) string {
		raw, err := w.IDP.TokenWithNonce(t.Context(), "amy", "second@example.com", []string{"dba"}, nonce)
		if err != nil {
			t.Fatal(err)
		}
		return tokenFile(t, raw)
	}))
	attempt("under weir exec of the same person", "nobody decides", func(t *testing.T) (string, int) {
		return weirAs(t, "amy", "approvals", "deny", id, "--reason", "me")
	})
	attempt("token of another request", "does not prove", with(func(t *testing.T) string { return token(t, w.IDP, "dora", otherNonce) }))
	attempt("token without a nonce", "does not prove", with(func(t *testing.T) string { return w.Files["dora"] }))
	attempt("wrong nonce", "does not prove", with(func(t *testing.T) string { return token(t, w.IDP, "dora", "AAAA") }))
	attempt("unknown issuer", "does not prove", with(func(t *testing.T) string {
		return tokenFile(t, testkit.NewIssuer(t).Token(map[string]any{"nonce": nonce, "email": "dora@example.com", "groups": []string{"dba"}}))
	}))
	attempt("expired", "expired", with(func(t *testing.T) string {
		f := token(t, brief, "dora", nonce)
		time.Sleep(briefLife + time.Second) // its lifetime counts in seconds
		return f
	}))
	attempt("group missing", "none of the groups", with(func(t *testing.T) string { return token(t, w.IDP, "eve", nonce) }))
	attempt("removed from the group since", "none of the groups", with(func(t *testing.T) string { return token(t, w.IDP, "dora", nonce, "former") }))
	attempt("a session where the rule wants a sign-in", "wants a sign-in", func(t *testing.T) (string, int) {
		return postAs(t, "dora", id)
	})
	attempt("an altered token", "does not prove", with(func(t *testing.T) string {
		raw, err := os.ReadFile(token(t, w.IDP, "dora", nonce))
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(raw), ".")
		parts[2] = strings.Repeat("A", len(parts[2]))
		return tokenFile(t, strings.Join(parts, "."))
	}))
	refused := 0
	for _, e := range events(t, "--from", from, "--kind", "approval.decide") {
		if field(e, "approval", "id") == id && field(e, "approval", "decided") == "refused" {
			refused++
		}
	}
	if refused < 13 {
		t.Errorf("%d refused attempts on record", refused)
	}
	if n := ask(t, "SELECT count(*) FROM shop.ledger"); n != before {
		t.Errorf("%s rows, %s before", n, before)
	}
	c.interrupt()
	other.interrupt()
	_, _ = c.wait()
	_, _ = other.wait()
}

// postAs sends an approval without a token to the console's interface for programs, under
// somebody's ordinary sign-in.
func postAs(t *testing.T, who, id string) (string, int) {
	t.Helper()
	raw, err := os.ReadFile(w.Files[who])
	if err != nil {
		t.Fatal(err)
	}
	status, body := postConsole(t, "/api/v1/approvals/"+id+"/approve", string(raw), `{}`)
	if status == 403 {
		return body, 3
	}
	return body, status
}

// TestForeignStore: what somebody wrote into the files of the store does not count.
// The store has no listener, so that the agent has to be stopped for it.
func TestForeignStore(t *testing.T) {
	c := psql(t, "ann", "-c", "DELETE FROM shop.ledger")
	id := c.held()
	w.Node.Kill()
	_, _ = c.wait()
	forge(t, filepath.Join(w.Node.StateDir(), "kv", "nats"), id)
	if err := w.Node.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, code := weir(t, "approvals", "show", id); code == 0 && strings.Contains(out, "approved") {
		t.Errorf("a forged approval is believed: %s", out)
	}
	tampered := false
	for _, e := range events(t, "--kind", "approval.expire") {
		tampered = tampered || field(e, "approval", "id") == id && e["reason"] == "tampered"
	}
	if !tampered {
		t.Error("the forgery is not on record")
	}
}
