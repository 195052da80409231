package approvals

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

// TestDelete is the story: it waits, another person approves, it runs once; the same
// again waits again; a space more is another request.
func TestDelete(t *testing.T) {
	from := since()
	const sql = "DELETE FROM shop.ledger"
	ask(t, "TRUNCATE shop.ledger; INSERT INTO shop.ledger SELECT n, 'x' FROM generate_series(1, 42) n")
	c := psql(t, "ann", "-c", sql)
	id := c.held()
	holds(t, c.text(), `NOTICE:  weir: waiting for another person's approval (rule "destructive needs a second person")`, "needs 1 of group dba, until", "weir approvals approve "+id)
	if n := ask(t, "SELECT count(*) FROM shop.ledger"); n != "42" {
		t.Fatalf("it ran while it waited: %s rows", n)
	}
	r := show(t, id)
	if r.Status != approval.Pending || r.Requester != "ann@example.com" || r.Action.Text != sql || !r.Action.Unrestricted || r.Database != "shop" {
		t.Errorf("%+v", r)
	}
	checkDigest(t, &r)
	eventually(t, "approvers see how many rows", func() bool {
		p := show(t, id).Preview
		return len(p) == 1 && p[0].Rows != nil && *p[0].Rows == 42 && strings.Contains(p[0].Plan, "Delete on")
	})
	if out, _ := weirAs(t, "ann", "approvals", "show", id, "-o", "json"); strings.Contains(out, `"preview"`) {
		t.Error("the requester is shown what it would do")
	}
	if out, code := weirAs(t, "eve", "approvals", "show", id); code == 0 || strings.Contains(out, "DELETE") {
		t.Errorf("a stranger sees it: exit %d, %s", code, out)
	}
	approve(t, "dora", id, "--reason", "cleaning up")
	out, err := c.wait()
	if err != nil || !strings.Contains(out, "DELETE 42") {
		t.Fatalf("%v: %s", err, out)
	}
	wantStatus(t, id, approval.Used)
	checkRecord(t, from, id)

	again := psql(t, "ann", "-c", sql)
	second := again.held()
	spaced := psql(t, "ann", "-c", sql+" ")
	third := spaced.held()
	if second == id || third == second || show(t, third).Action.Digest == show(t, second).Action.Digest {
		t.Error("not a new request")
	}
	again.interrupt()
	spaced.interrupt()
	for _, c := range []*client{again, spaced} {
		if out, err := c.wait(); err == nil || !strings.Contains(out, "is withdrawn") {
			t.Errorf("Ctrl-C: %v: %s", err, out)
		}
	}
	wantStatus(t, second, approval.Withdrawn)
	wantStatus(t, third, approval.Withdrawn)
}

// checkDigest: the digest is of the document, which says what was asked for.
func checkDigest(t *testing.T, r *approval.Request) {
	t.Helper()
	sum := sha256.Sum256([]byte(r.Document))
	if r.Digest != fmt.Sprintf("sha256:%x", sum) || r.Nonce != base64.RawURLEncoding.EncodeToString(sum[:]) {
		t.Errorf("digest %s, nonce %s", r.Digest, r.Nonce)
	}
	for _, word := range []string{r.Action.Text, r.ID, r.Requester, `"search_path"`, `"role"`} {
		if !strings.Contains(r.Document, word) {
			t.Errorf("no %s in the document %s", word, r.Document)
		}
	}
}

// checkRecord: who asked, who saw, who decided, when, why, with what proof, what ran.
func checkRecord(t *testing.T, from, id string) {
	t.Helper()
	kinds := map[string]map[string]any{}
	for _, e := range events(t, "--from", from) {
		if field(e, "approval", "id") == id {
			kinds[fmt.Sprint(e["kind"])] = e
		}
	}
	for _, k := range []string{"approval.request", "approval.view", "approval.decide", "action"} {
		if kinds[k] == nil {
			t.Fatalf("no %s among %v", k, kinds)
		}
	}
	req, dec, act := kinds["approval.request"], kinds["approval.decide"], kinds["action"]
	if field(req, "principal", "user") != "ann@example.com" || field(req, "approval", "document") == nil {
		t.Errorf("request %v", req)
	}
	if field(dec, "principal", "user") != "dora@example.com" || field(dec, "approval", "proof") != "idp" || field(dec, "approval", "justification") != "cleaning up" ||
		field(dec, "approval", "token") == nil || field(dec, "approval", "keys") == nil || field(dec, "approval", "shown") == nil {
		t.Errorf("decision %v", dec)
	}
	if field(act, "verdict") != "approve" || field(act, "approval", "decided") != "approved" || fmt.Sprint(field(act, "approval", "approvers")) != "[dora@example.com]" {
		t.Errorf("action %v", act)
	}
	// The provider's own signature is over this very request.
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(fmt.Sprint(field(dec, "approval", "token")), ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ Nonce, Email string }
	sum := sha256.Sum256([]byte(fmt.Sprint(field(req, "approval", "document"))))
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Nonce != base64.RawURLEncoding.EncodeToString(sum[:]) || claims.Email != "dora@example.com" {
		t.Errorf("%+v, %v", claims, err)
	}
}

// TestExtendedProtocol: drivers wait as well, with bound values in the request.
func TestExtendedProtocol(t *testing.T) {
	c := start(t, w.Node.As(t.Context(), w.Files["ann"], "/usr/bin/python3", "-c", fmt.Sprintf(`
import psycopg
c = psycopg.connect("host=127.0.0.1 port=%d dbname=shop sslmode=prefer")
c.add_notice_handler(lambda d: print(d.message_primary, flush=True))
c.execute("UPDATE shop.vault SET note = %%s WHERE id = %%s", ("changed", 1))
c.commit()
print("done")
`, w.DB.Port)))
	id := c.held()
	r := show(t, id)
	if fmt.Sprint(r.Action.Params) != `[changed \x0001]` || len(r.Needed) != 2 {
		t.Errorf("%+v", r)
	}
	out, code := weir(t, "approvals", "approve", id, "--token-file", token(t, w.IDP, "dora", r.Nonce))
	if code != 3 || !strings.Contains(out, "wants a reason") {
		t.Errorf("without a reason: exit %d, %s", code, out)
	}
	approve(t, "dora", id, "--reason", "first")
	eventually(t, "the client learns who is still needed", func() bool { return strings.Contains(c.text(), "needs 1 of group lead") })
	approve(t, "lea", id, "--reason", "second")
	if out, err := c.wait(); err != nil || !strings.Contains(out, "done") {
		t.Fatalf("%v: %s", err, out)
	}
	if got := ask(t, "SELECT note FROM shop.vault"); got != "changed" {
		t.Errorf("note %q", got)
	}
}

// TestDenied: words, in the client's protocol, and the session goes on.
func TestDenied(t *testing.T) {
	c := psql(t, "ann", "-c", "DELETE FROM shop.ledger", "-c", "SELECT 'still here'")
	id := c.held()
	if out, code := weirAs(t, "dora", "approvals", "deny", id, "--reason", "not today"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	out, _ := c.wait()
	holds(t, out, "ERROR:  weir:", "was denied by dora@example.com: not today", "still here")
	wantStatus(t, id, approval.Denied)
}

func TestExpires(t *testing.T) {
	c := psql(t, "ann", "-c", "UPDATE shop.reports SET id = 2")
	id := c.held()
	out, err := c.wait()
	if err == nil {
		t.Error("it ran")
	}
	holds(t, out, "expired at", "nobody decided in time")
	wantStatus(t, id, approval.Expired)
}

// TestHangUp: a client that has gone, with bytes of it unread or not, waits no more.
func TestHangUp(t *testing.T) {
	c := psql(t, "ann", "-c", "DELETE FROM shop.ledger")
	id := c.held()
	if err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		_ = c.cmd.Process.Kill()
	}
	wantStatus(t, id, approval.Withdrawn)
}

// TestCatalogueChanges: what was approved is not what would run.
func TestCatalogueChanges(t *testing.T) {
	ask(t, "DROP VIEW IF EXISTS shop.door; CREATE VIEW shop.door AS SELECT * FROM shop.reports; GRANT SELECT ON shop.door TO weir_app")
	defer ask(t, "DROP VIEW shop.door")
	if out, err := psql(t, "ann", "-c", "SELECT 1").wait(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := w.Node.SetPolicy(strings.Replace(policyText, `resources: ["shop.reports"]`, `resources: ["shop.reports", "shop.door"]`, 1)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Node.SetPolicy(policyText); err != nil {
			t.Error(err)
		}
	}()
	var c *client
	eventually(t, "the view is known and needs approval", func() bool {
		c = psql(t, "ann", "-c", "SELECT * FROM shop.door")
		for !requestID.MatchString(c.text()) {
			select {
			case err := <-c.done:
				c.done <- err
				return false
			case <-time.After(10 * time.Millisecond):
			}
		}
		return true
	})
	id := c.held()
	ask(t, "CREATE OR REPLACE VIEW shop.door AS SELECT id FROM shop.vault")
	if out, code := weirAs(t, "dora", "approvals", "approve", id); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	out, err := c.wait()
	if err == nil {
		t.Error("it ran")
	}
	holds(t, out, "has changed while it waited", "catalogue")
}

// TestConnect: a connection itself can wait.
func TestConnect(t *testing.T) {
	c := psql(t, "carol", "-c", "SELECT 'in'")
	id := c.held()
	approve(t, "dora", id)
	if out, err := c.wait(); err != nil || !strings.Contains(out, "in") {
		t.Fatalf("%v: %s", err, out)
	}
	c = psql(t, "carol", "-c", "SELECT 'in'")
	id = c.held()
	if out, code := weirAs(t, "dora", "approvals", "deny", id, "--reason", "no"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	out, err := c.wait()
	if err == nil {
		t.Error("it got in")
	}
	holds(t, out, "was denied by dora@example.com")
	c = psql(t, "carol", "-c", "SELECT 'in'")
	id = c.held()
	_ = c.cmd.Process.Kill()
	wantStatus(t, id, approval.Withdrawn)
}

// TestDuration: a grant with a duration stands for the same statement, over a restart of
// the agent; withdrawn, what runs under it is cut, at the backend too.
func TestDuration(t *testing.T) {
	const sql = "SELECT id, pg_sleep(0) FROM shop.reports"
	c := psql(t, "ann", "-Atc", sql)
	id := c.held()
	if out, code := weirAs(t, "dora", "approvals", "approve", id); code != 0 { // proof: session
		t.Fatalf("exit %d: %s", code, out)
	}
	if out, err := c.wait(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := psql(t, "ann", "-Atc", sql).wait(); err != nil || strings.Contains(out, "NOTICE") {
		t.Errorf("the grant does not stand: %v: %s", err, out)
	}
	w.Node.Kill()
	if err := w.Node.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := psql(t, "ann", "-Atc", sql).wait(); err != nil || strings.Contains(out, "NOTICE") {
		t.Errorf("the grant does not go on over a restart: %v: %s", err, out)
	}
	other := psql(t, "ann", "-Atc", sql+" ")
	other.held()
	other.interrupt()
	if _, err := other.wait(); err == nil {
		t.Error("a space more was covered")
	}
	if out, code := weirAs(t, "dora", "approvals", "withdraw", id, "--reason", "enough"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	third := psql(t, "ann", "-Atc", sql)
	third.held()
	third.interrupt()
	_, _ = third.wait()
}

func TestWithdrawCutsWhatRuns(t *testing.T) {
	const sql = "SELECT id, pg_sleep(600) FROM shop.reports"
	c := psql(t, "ann", "-Atc", sql)
	id := c.held()
	if out, code := weirAs(t, "dora", "approvals", "approve", id); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	running := func() string {
		return ask(t, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT id, pg_sleep(600)%'")
	}
	eventually(t, "it runs", func() bool { return running() == "1" })
	if out, code := weirAs(t, "dora", "approvals", "withdraw", id); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	out, err := c.wait()
	if err == nil {
		t.Error("it went on")
	}
	holds(t, out, "FATAL:  weir: the approval that this hung on was withdrawn")
	eventually(t, "it is cancelled at the backend", func() bool { return running() == "0" })
}

// TestGrantExpires while a statement runs under it: the flow is cut.
func TestGrantExpires(t *testing.T) {
	c := psql(t, "ann", "-Atc", "INSERT INTO shop.reports SELECT 9 FROM pg_sleep(600)")
	id := c.held()
	approve(t, "dora", id)
	out, err := c.wait()
	if err == nil {
		t.Error("it went on")
	}
	holds(t, out, "FATAL:  weir: the approval that this hung on has expired")
	wantStatus(t, id, approval.Expired)
	if n := ask(t, "SELECT count(*) FROM shop.reports WHERE id = 9"); n != "0" {
		t.Errorf("%s rows were written", n)
	}
}

// TestRestart: what waits when the agent dies has ended, with a reason.
func TestRestart(t *testing.T) {
	from := since()
	c := psql(t, "ann", "-c", "DELETE FROM shop.ledger")
	id := c.held()
	w.Node.Kill()
	if err := w.Node.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.wait(); err == nil {
		t.Error("it ran")
	}
	if r := show(t, id); r.Status != approval.Withdrawn || !strings.Contains(r.Ended, "started anew") {
		t.Errorf("%s: %s", r.Status, r.Ended)
	}
	lost := false
	for _, e := range events(t, "--from", from, "--kind", "approval.expire") {
		lost = lost || field(e, "approval", "id") == id && e["reason"] == "agent_lost"
	}
	if !lost {
		t.Error("its end is not on record")
	}
}

func TestBreakGlass(t *testing.T) {
	c := psql(t, "olga", "-c", "DELETE FROM shop.ledger")
	id := c.held()
	holds(t, c.text(), "break-glass "+id)
	if out, code := weirAs(t, "ann", "approvals", "break-glass", id, "--reason", "mine"); code == 0 {
		t.Errorf("somebody else broke it: %s", out)
	}
	if out, code := weirAs(t, "olga", "approvals", "break-glass", id, "--reason", "the shop is on fire"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	if out, err := c.wait(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r := show(t, id); r.Review != "open" || r.Status != approval.Used {
		t.Errorf("review %s, status %s", r.Review, r.Status)
	}
	if out, code := weirAs(t, "olga", "approvals", "review", id, "--reason", "all fine"); code != 3 {
		t.Errorf("reviewed by herself: exit %d, %s", code, out)
	}
	if out, code := weirAs(t, "dora", "approvals", "review", id, "--reason", "it was"); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	if r := show(t, id); r.Review != "done" {
		t.Errorf("review %s", r.Review)
	}
}
