package postgres

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// script runs a client program with the address of w in its environment. It must
// end with status 0; what it prints is returned.
func (w *world) script(t *testing.T, program ...string) string {
	t.Helper()
	host, port := w.addr()
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGUSER=whoever", "PGDATABASE=postgres", "HOME=/nonexistent")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program[0], err, out)
	}
	return string(out)
}

// TestPgbench runs pgbench in its three modes; every transaction must succeed, and
// every statement that the server logged must have one action, and the other way
// round.
func TestPgbench(t *testing.T) {
	startBackend(t)
	initPgbench(t)
	for _, mode := range []string{"simple", "extended", "prepared"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, backendURL, nil)
			w.script(t, "pgbench", "-n", "-M", mode, "-c", "8", "-j", "2", "-t", "20")
			w.compareLogs(t, 8*20*7)
		})
	}
}

// initPgbench makes pgbench's tables, past weir.
func initPgbench(t testing.TB) {
	t.Helper()
	cmd := exec.Command("pgbench", "-i", "-q", "-s", "1", backendURL)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pgbench -i: %v\n%s", err, out)
	}
}

// compareLogs compares the statements that the server logged for the flows of w with
// the actions that were allowed, as multisets.
func (w *world) compareLogs(t *testing.T, atLeast int) {
	t.Helper()
	raw, err := os.ReadFile(backend.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]int{}
	flows := map[string]bool{}
	n := 0
	for _, e := range w.snapshot() {
		flows[e.Flow] = true
		if e.Action != nil && e.Action.Phase == auditlog.PhaseIntent && e.Verdict == "allow" {
			ours[e.Flow+" "+e.Action.Text]++
			n++
		}
	}
	if n < atLeast {
		t.Errorf("%d actions, want at least %d", n, atLeast)
	}
	for _, line := range strings.Split(string(raw), "\n") {
		name, rest, _ := strings.Cut(line, "|")
		id, _, _ := strings.Cut(strings.TrimPrefix(name, "weir:"), " ")
		_, said, ok := strings.Cut(rest, "|LOG:  ")
		if !ok || !flows[id] {
			continue
		}
		what, text, _ := strings.Cut(said, ": ")
		if what == "statement" || strings.HasPrefix(what, "execute") {
			ours[id+" "+strings.TrimSuffix(text, ";")]--
		}
	}
	for text, n := range ours {
		if n != 0 {
			t.Errorf("%+d actions more than statements in the server's log: %s", n, text)
		}
	}
}

func TestPgbenchPipeline(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	file := filepath.Join(t.TempDir(), "pipeline.sql")
	text := "\\startpipeline\nbegin;\nselect 1;\nselect 2;\ncommit;\nselect 3;\n\\endpipeline\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"extended", "prepared"} {
		w.script(t, "pgbench", "-n", "-M", mode, "-c", "4", "-t", "10", "-f", file)
	}
	if n := len(w.outcomes("select 3")); n != 80 {
		t.Errorf("%d outcomes, want 80", n)
	}
}

func python(t *testing.T, w *world, text string) {
	t.Helper()
	w.script(t, "/usr/bin/python3", "-c", text)
}

func TestPsycopg2(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	python(t, w, `
import psycopg2, psycopg2.errors, psycopg2.extensions
c = psycopg2.connect("")
cur = c.cursor()
cur.execute("select %s + 1", (41,))
assert cur.fetchone() == (42,)
try:
    cur.execute("drop table nothing")
    assert False
except psycopg2.errors.InsufficientPrivilege as e:
    assert str(e).startswith("weir: "), e
assert c.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_INERROR
try:
    cur.execute("select 1")
    assert False
except psycopg2.errors.InFailedSqlTransaction:
    pass
c.rollback()
cur.execute("select 7")
assert cur.fetchone() == (7,)
try:
    cur.execute("weird words")
    assert False
except psycopg2.errors.SyntaxError as e:
    assert str(e).startswith("weir: syntax error"), e
c.rollback()
c.autocommit = True
try:
    cur.execute("drop table nothing")
    assert False
except psycopg2.errors.InsufficientPrivilege:
    pass
assert c.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE
cur.execute("create temp table cp(a int, b text)")
import io
cur.copy_expert("copy cp FROM STDIN", io.StringIO("1\tone\n2\ttwo\n"))
out = io.StringIO()
cur.copy_expert("copy cp to stdout", out)
assert out.getvalue() == "1\tone\n2\ttwo\n"
`)
}

func TestPsycopg3(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	python(t, w, `
import psycopg
c = psycopg.connect("", autocommit=True)
assert c.execute("select %s::int + 1", (41,)).fetchone() == (42,)
for i in range(20):
    assert c.execute("select %s::text", (str(i),)).fetchone() == (str(i),)
try:
    c.execute("drop table nothing where %s", (1,))
    assert False
except psycopg.errors.InsufficientPrivilege as e:
    assert str(e).startswith("weir: ")
with c.pipeline() as p:
    a = c.execute("select 1 where %s", (True,))
    b = c.execute("select 2")
    p.sync()
    assert a.fetchone() == (1,) and b.fetchone() == (2,)
# a denial in a pipeline takes what came before it in the same batch with it
c.execute("create table if not exists pipe(a int)")
c.execute("truncate table pipe")
try:
    with c.pipeline() as p:
        c.execute("insert into pipe values (1)")
        c.execute("select * from secret")
        c.execute("insert into pipe values (2)")
    assert False
except psycopg.errors.InsufficientPrivilege as e:
    assert str(e).startswith("weir: "), e
assert c.execute("select count(*) from pipe").fetchone() == (0,), "the implicit transaction was not rolled back"
try:
    with c.transaction():
        c.execute("insert into pipe values (1)")
        try:
            with c.transaction():
                c.execute("select * from secret")
        except psycopg.errors.InsufficientPrivilege:
            pass
        c.execute("insert into pipe values (3)")
except Exception as e:
    raise
assert c.execute("select count(*) from pipe").fetchone() == (2,)
with c.cursor(binary=True) as cur:
    assert cur.execute("select 7::int8, 'x'::text").fetchone() == (7, 'x')
with c.cursor() as cur:
    with cur.copy("copy pipe FROM STDIN") as cp:
        cp.write_row((9,))
    with cur.copy("copy pipe to stdout") as cp:
        assert len(list(cp.rows())) == 3
    for row in cur.stream("select generate_series(1, 10)"):
        pass
with c.transaction():
    cur = c.cursor("named")
    cur.execute("select generate_series(1, 100)")
    assert len(cur.fetchmany(10)) == 10
    cur.close()
c.execute("drop_me_not") if False else None
c.execute("truncate table pipe")
`)
}

func TestAsyncpg(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	python(t, w, `
import asyncio, asyncpg
async def main():
    c = await asyncpg.connect(ssl=False)
    assert await c.fetchval("select $1::int + 1", 41) == 42
    try:
        await c.fetch("select * from secret where a = $1", 1)
        assert False
    except asyncpg.exceptions.InsufficientPrivilegeError as e:
        assert str(e).startswith("weir: "), e
    try:
        async with c.transaction():
            await c.execute("select * from secret")
        assert False
    except asyncpg.exceptions.InsufficientPrivilegeError:
        pass
    assert await c.fetchval("select 2") == 2
    await c.execute("create temp table am(a int, b text)")
    await c.executemany("insert into am values ($1, $2)", [(i, str(i)) for i in range(500)])
    assert await c.fetchval("select count(*) from am") == 500
    async with c.transaction():
        n = 0
        async for r in c.cursor("select a from am", prefetch=50):
            n += 1
        assert n == 500
    await c.close()
asyncio.run(main())
`)
}

// outcomesOf fails unless an action with the text ended as given.
func (w *world) wantOutcome(t *testing.T, text, status string) {
	t.Helper()
	waitFor(t, "the outcome of "+text, func() bool { return len(w.outcomes(text)) > 0 })
	for _, o := range w.outcomes(text) {
		if o.Result.Status != status {
			t.Errorf("%s ended %s, want %s", text, o.Result.Status, status)
		}
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	python(t, w, `
import psycopg2, psycopg2.errors, threading, time
c = psycopg2.connect("", sslmode="disable")
def stop():
    time.sleep(0.3)
    c.cancel()
t = threading.Thread(target=stop); t.start()
try:
    c.cursor().execute("select pg_sleep(60)")
    assert False
except psycopg2.errors.QueryCanceled:
    pass
t.join()
`)
	w.wantOutcome(t, "select pg_sleep(60)", auditlog.StatusCancelled)
	ends := func() string {
		var all []string
		for _, e := range w.snapshot() {
			if e.Kind == auditlog.FlowClose || e.Kind == auditlog.FlowRefused {
				all = append(all, e.Reason)
			}
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	waitFor(t, "the end of both flows", func() bool { return ends() == "cancel_request client_closed" })
}

const jdbc = `
import java.sql.*;
public class T {
  public static void main(String[] a) throws Exception {
    String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/postgres?user=x&prepareThreshold=2";
    try (Connection c = DriverManager.getConnection(url)) {
      try (PreparedStatement p = c.prepareStatement("select ?::int + 1")) {
        for (int i = 0; i < 10; i++) { p.setInt(1, i); ResultSet r = p.executeQuery(); r.next(); if (r.getInt(1) != i + 1) throw new Exception("value"); }
      }
      try (Statement s = c.createStatement()) { s.executeQuery("select * from secret"); throw new Exception("not denied"); }
      catch (SQLException e) { if (!e.getSQLState().equals("42501") || !e.getMessage().contains("weir: ")) throw e; }
      c.setAutoCommit(false);
      try (Statement s = c.createStatement()) { s.execute("select 1"); s.executeQuery("select * from secret"); throw new Exception("not denied"); }
      catch (SQLException e) { if (!e.getSQLState().equals("42501")) throw e; }
      try (Statement s = c.createStatement()) { s.execute("select 1"); throw new Exception("the transaction goes on"); }
      catch (SQLException e) { if (!e.getSQLState().equals("25P02")) throw e; }
      c.rollback();
      try (Statement s = c.createStatement()) { s.execute("create temp table b(a int, t text)"); }
      try (PreparedStatement p = c.prepareStatement("insert into b values (?, ?)")) {
        for (int i = 0; i < 300; i++) { p.setInt(1, i); p.setString(2, "v" + i); p.addBatch(); }
        p.executeBatch();
      }
      c.commit();
      try (Statement s = c.createStatement()) {
        s.setFetchSize(50);
        ResultSet r = s.executeQuery("select a from b"); int n = 0; while (r.next()) n++;
        if (n != 300) throw new Exception("rows " + n);
      }
      c.commit();
    }
    System.out.println("ok");
  }
}`

func TestJDBC(t *testing.T) {
	const jar = "/usr/share/java/postgresql.jar"
	w := newWorld(t, startBackend(t), nil)
	file := filepath.Join(t.TempDir(), "T.java")
	if err := os.WriteFile(file, []byte(jdbc), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := w.script(t, "java", "-XX:TieredStopAtLevel=1", "-cp", jar, file); !strings.Contains(out, "ok") {
		t.Fatalf("java said %q", out)
	}
}
