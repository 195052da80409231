// Package compare runs `weir audit compare` over the log of a real PostgreSQL, behind
// the built binary and the real kernel: what went through Weir has to match, and what
// went past it has to be found.
package compare

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/testkit/host"
	"github.com/weirproxy/weir/internal/testkit/postgres"
	"github.com/weirproxy/weir/internal/testkit/world"
	"github.com/weirproxy/weir/pkg/auditlog"
)

var w *world.World // set by TestMain before any test runs

const policyText = `policies:
  - name: shop
    rules:
      - name: everyday
        groups: [developer]
        actions: [connect, select, insert, update, delete, copy_out, explain]
        resources: ["shop.*"]
        effect: allow
      - name: administrators do everything
        groups: [dba]
        effect: allow
      - name: destructive needs a second person
        groups: [developer]
        actions: [delete]
        resources: ["shop.ledger"]
        when: '!action.has_where'
        effect: approve
        approve: {groups: [dba], timeout: 10m}
`

const initSQL = `\connect shop
CREATE TABLE shop.ledger (id int, note text);
INSERT INTO shop.ledger SELECT n, 'note ' || n FROM generate_series(1, 42) n;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.ledger TO weir_app;
`

func TestMain(m *testing.M) {
	code := 1
	port, err := host.FreePort()
	if err == nil {
		w, err = world.Start(world.Config{People: map[string][]string{"ann": {"developer"}, "dora": {"dba"}}, Policy: policyText, InitSQL: initSQL,
			Console: fmt.Sprintf("{listen: \"127.0.0.1:%d\"}", port),
			Settings: map[string]string{"logging_collector": "on", "log_destination": "csvlog,jsonlog,stderr", "log_filename": "weir.log", "log_directory": "log",
				"log_line_prefix": "%m [%p] %q%u@%d/%a ", "log_timezone": "UTC", "lc_messages": "C", "log_rotation_size": "0", "log_file_mode": "0644"}})
	}
	if err == nil {
		code = m.Run()
		err = w.Stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		code = 1
	}
	os.Exit(code)
}

func finish(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	out, err := w.Node.Run(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out, cmd.ProcessState.ExitCode()
}

// as runs a program as somebody in the captured cgroup.
func as(t *testing.T, who, stdin, name string, args ...string) (string, int) {
	t.Helper()
	cmd := w.Node.As(t.Context(), w.Files[who], name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	return finish(t, cmd)
}

func psql(args ...string) []string {
	return append([]string{"-X", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop"}, args...)
}

// past runs psql past Weir: outside of the captured cgroup, with the account's password.
func past(t *testing.T, application, sql string) {
	t.Helper()
	u, err := url.Parse(w.DB.URL(postgres.AppRole, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "psql", "-X", "-d", u.String(), "-c", sql)
	cmd.Env = append(cmd.Environ(), "PGAPPNAME="+application)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// result is as much of `weir audit compare -o json` as the tests look at.
type result struct {
	Complete   bool
	Statements uint64
	Matched    uint64
	Actions    uint64
	Catalogue  uint64
	Previews   uint64
	Excepted   uint64
	ServerOnly struct {
		Statements, Outside, Unrecorded, Denied uint64
		By                                      []struct{ User, Application, Client string }
		Examples                                []struct{ Why, Text, Application string }
	} `json:"server_only"`
	WeirOnly struct {
		Actions  uint64
		ByStatus map[string]uint64 `json:"by_status"`
		Examples []struct{ Why, Text string }
	} `json:"weir_only"`
	ServerLog struct {
		Unreadable, Foreign uint64
		First               string `json:"first_unreadable"`
	} `json:"server_log"`
	Notes []string
}

func compare(t *testing.T, file string, flags ...string) (r result, code int) {
	t.Helper()
	args := append([]string{"audit", "compare", "--postgres-log", filepath.Join(w.DB.DataDir, "log", file), "-o", "json"}, flags...)
	cmd := w.Node.Weir(t.Context(), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s%s", err, &out, &errs)
	}
	return r, cmd.ProcessState.ExitCode()
}

var files = []string{"weir.csv", "weir.json", "weir.log"}

// logged waits until the collector has written a statement to all three logs.
func logged(t *testing.T, mark string) {
	t.Helper()
	for _, f := range files {
		for end := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) { // for broken code
			b, err := os.ReadFile(filepath.Join(w.DB.DataDir, "log", f))
			if err != nil {
				t.Fatal(err)
			}
			if i := bytes.LastIndex(b, []byte(mark)); i >= 0 && bytes.HasSuffix(b, []byte("\n")) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s never has %q", f, mark)
			}
		}
	}
}

// script is what goes through Weir: all forms in which statements come.
const script = `SELECT 1;
-- a comment before
SELECT /* and /* nested */ within */ id FROM shop.orders WHERE item = 'ket;tle' -- and behind
;
BEGIN; UPDATE shop.orders SET item = item WHERE id = 1; SELECT count(*)
	FROM shop.orders;
COMMIT;
SELECT 'multi', ';' \; SELECT 2 \; /* third */ SELECT 3;
PREPARE p (int) AS SELECT item FROM shop.orders WHERE id = $1;
EXECUTE p (1);
EXECUTE p (2);
DEALLOCATE p;
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM shop.orders ORDER BY id;
FETCH 3 FROM c;
CLOSE c;
ROLLBACK;
SET application_name = 'renamed';
SELECT 'after the new name', E'a\tb', 'two
	lines';
SELEKT nonsense;
SELECT * FROM shop.no_such_table;
SELECT 1/0;
DROP TABLE shop.orders;
\copy (SELECT id FROM shop.orders ORDER BY id) TO '/dev/null'
SELECT 'ünïcode ☃', 'quote '' and "double"';
`

const bench = `\set id random(1, 100)
SELECT item FROM shop.orders WHERE id = :id;
SELECT 1;
`

func TestCompare(t *testing.T) {
	from := time.Now().UTC().Format(time.RFC3339Nano)
	if out, code := as(t, "ann", script, "psql", psql("-q")...); code != 0 && code != 3 {
		t.Fatalf("exit %d: %s\nagent: %s", code, out, w.Node.LogTail())
	}
	file := filepath.Join(w.Dir, "out", "bench.sql")
	if err := os.WriteFile(file, []byte(bench), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		out, code := as(t, "ann", "", "pgbench", "-n", "-M", mode, "-c", "4", "-t", "25", "-f", file, "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "shop")
		if code != 0 {
			t.Fatalf("pgbench %s: exit %d: %s", mode, code, out)
		}
	}
	long := "SELECT '" + strings.Repeat("x", 100<<10) + "'"
	if out, code := as(t, "dora", long+";\nDO $$ BEGIN PERFORM 1; END $$;\nCALL pg_catalog.no_such();\nCREATE TABLE shop.t (a int); DROP TABLE shop.t;\n", "psql", psql("-q")...); code != 0 && code != 3 {
		t.Fatalf("exit %d: %s", code, out)
	}
	held(t)
	mark := fmt.Sprintf("the end of %d", time.Now().UnixNano())
	as(t, "ann", "SELECT '"+mark+"';", "psql", psql("-q")...)
	logged(t, mark)
	var first result
	for i, f := range files {
		r, code := compare(t, f, "--from", from)
		if code != 0 || !r.Complete || r.ServerOnly.Statements != 0 || r.ServerLog.Unreadable != 0 {
			t.Errorf("%s: exit %d: %+v", f, code, r)
		}
		// 3 x 4 x 25 x 2 of pgbench alone.
		if r.Matched < 600 || r.Actions <= r.Matched || r.Catalogue == 0 || r.Previews != 1 {
			t.Errorf("%s: %+v", f, r)
		}
		// What the server refused before it ran it, and what nobody logs, is in Weir's log only.
		for _, x := range r.WeirOnly.Examples {
			if x.Why == "ok" {
				t.Errorf("%s: the server answered and has not logged: %q", f, x.Text)
			}
		}
		if i == 0 {
			first = r
		} else if r.Matched != first.Matched || r.Actions != first.Actions || r.Catalogue != first.Catalogue {
			t.Errorf("%s: %+v\n%s: %+v", files[0], first, f, r)
		}
	}
	t.Logf("%+v", first)

	// Now past Weir, once under an innocent name and once under Weir's own.
	past(t, "psql", "SELECT card_number FROM shop.payments")
	past(t, "weir:catalogue", "SELECT amount FROM shop.payments")
	mark = fmt.Sprintf("past at %d", time.Now().UnixNano())
	past(t, "weir:01J00000000000000000000000 x", "SELECT '"+mark+"'")
	logged(t, mark)
	for _, f := range files {
		r, code := compare(t, f, "--from", from)
		if code != 4 || r.Complete || r.ServerOnly.Statements != 3 || r.ServerOnly.Outside != 3 || len(r.ServerOnly.By) != 3 || len(r.ServerOnly.Examples) != 3 || r.Matched != first.Matched {
			t.Fatalf("%s: exit %d: %+v", f, code, r)
		}
		if x := r.ServerOnly.Examples[0]; x.Text != "SELECT card_number FROM shop.payments" || x.Why != "outside" {
			t.Errorf("%s: %+v", f, x)
		}
		if r, code := compare(t, f, "--from", from, "--except-user", postgres.AppRole); code != 0 || r.Excepted != 3 {
			t.Errorf("%s: with an exception: exit %d: %+v", f, code, r)
		}
	}
	text, code := finish(t, w.Node.Weir(t.Context(), "audit", "compare", "--postgres-log", filepath.Join(w.DB.DataDir, "log", "weir.csv"), "--from", from))
	if code != 4 || !strings.Contains(text, "SELECT card_number FROM shop.payments") || !strings.Contains(text, "NOT COMPLETE") || !strings.Contains(text, "3 statements that the audit log does not have") {
		t.Errorf("exit %d: %s", code, text)
	}
	t.Log("\n" + text)
}

// accounts are the completeness events since from.
func accounts(t *testing.T, from string) (list []auditlog.Completeness) {
	t.Helper()
	events, err := w.Node.Events(t.Context(), "--kind", "completeness", "--from", from)
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range events {
		b, err := json.Marshal(ev["completeness"])
		if err != nil {
			t.Fatal(err)
		}
		var c auditlog.Completeness
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// TestAccounts: the agent's account of its connections holds over its end, and over
// being killed.
func TestAccounts(t *testing.T) {
	const rounds = 5
	connect := func() {
		for range rounds {
			if out, code := as(t, "ann", "", "psql", psql("-Atc", "SELECT 1")...); code != 0 {
				t.Fatalf("exit %d: %s", code, out)
			}
		}
	}
	from := time.Now().UTC()
	stamp := from.Format(time.RFC3339Nano)
	sum := func() *auditlog.CompletenessSummary {
		s := auditlog.NewCompletenessSum(from, time.Now().Add(time.Second))
		for _, c := range accounts(t, "2020-01-01") {
			s.Add(&c)
		}
		return s.Summary()
	}
	if out, code := finish(t, w.Node.Weir(t.Context(), "audit", "account")); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	from = time.Now().UTC()
	connect()
	out, code := finish(t, w.Node.Weir(t.Context(), "audit", "account"))
	if code != 0 || !strings.Contains(out, "shop") {
		t.Fatalf("exit %d: %s", code, out)
	}
	if out, code := finish(t, w.Node.Weir(t.Context(), "status")); code != 0 || !strings.Contains(out, " opened, ") || strings.Contains(out, "MISSING") {
		t.Errorf("exit %d: %s", code, out)
	}
	if s := sum(); !s.Complete() || len(s.Backends) != 1 || s.Backends[0].Opened != rounds || s.Backends[0].Kernel.HandedOver != rounds {
		t.Errorf("%+v", s)
	}
	connect()
	w.Node.Kill() // behind the last account: what is open there the next run closes
	if err := w.Node.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	connect()
	w.Node.Terminate()
	if err := w.Node.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	var scopes []string
	for _, c := range accounts(t, stamp) {
		scopes = append(scopes, c.Scope)
		if !c.Complete() {
			t.Errorf("%+v", c)
		}
	}
	if want := []string{"run", "run", "before", "stop", "before"}; !slices.Equal(scopes, want) {
		t.Errorf("%v, not %v", scopes, want)
	}
	if s := sum(); !s.Complete() || len(s.Backends) != 1 || s.Backends[0].Opened != 3*rounds || s.Backends[0].Kernel.HandedOver != 3*rounds || s.Backends[0].AgentLost != 0 || s.Runs != 2 {
		t.Errorf("%+v", s)
	}
}

var requestID = regexp.MustCompile(`request ([0-9A-Z]{26})`)

// held has a statement wait until another person has approved it: then Weir has looked
// ahead, at the server, under its own name.
func held(t *testing.T) {
	t.Helper()
	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := w.Node.As(t.Context(), w.Files["ann"], "psql", psql("-c", "DELETE FROM shop.ledger")...)
	cmd.Stdout, cmd.Stderr = in, in
	err = w.Node.Start(cmd)
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	b := make([]byte, 4096)
	for requestID.FindSubmatch(text) == nil {
		n, err := r.Read(b)
		if text = append(text, b[:n]...); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	id := string(requestID.FindSubmatch(text)[1])
	var request struct {
		Nonce   string
		Preview []struct{ Rows *int64 }
	}
	for end := time.Now().Add(60 * time.Second); len(request.Preview) == 0 || request.Preview[0].Rows == nil; time.Sleep(20 * time.Millisecond) {
		out, code := finish(t, w.Node.Weir(t.Context(), "approvals", "show", id, "-o", "json"))
		if err := json.Unmarshal([]byte(out), &request); err != nil || code != 0 || time.Now().After(end) {
			t.Fatalf("exit %d, %v: %s", code, err, out)
		}
	}
	token, err := w.IDP.TokenWithNonce(t.Context(), "dora", "dora@example.com", []string{"dba"}, request.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := finish(t, w.Node.Weir(t.Context(), "approvals", "approve", id, "--token-file", file)); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestNothingToCompare(t *testing.T) {
	empty := filepath.Join(w.Dir, "out", "empty.csv")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := finish(t, w.Node.Weir(t.Context(), "audit", "compare", "--backend", "shop", "--postgres-log", empty))
	if code != 1 || !strings.Contains(out, "log_statement = all") {
		t.Errorf("exit %d: %s", code, out)
	}
	for _, args := range [][]string{{}, {"--postgres-log", empty, "--format", "xml"}, {"--postgres-log", empty, "--log-timezone", "Nowhere/None"}} {
		if out, code := finish(t, w.Node.Weir(t.Context(), slices.Concat([]string{"audit", "compare"}, args)...)); code != 2 {
			t.Errorf("%q: exit %d: %s", args, code, out)
		}
	}
}
