package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestPsqlEveryday(t *testing.T) {
	if got := mustPsql(t, "ann", "-Atc", "select 1"); got != "1\n" {
		t.Errorf("select 1: %q", got)
	}
	holds(t, mustPsql(t, "ann", "-c", `\d`, "-c", `\d shop.orders`, "-c", `\dt shop.*`, "-c", `\df shop.*`, "-c", `\dn+`, "-c", `\l`, "-c", `\du`),
		"placed_at", "timestamp with time zone", "orders_pkey", "customer_total")
	holds(t, mustPsql(t, "ann", "-c", `\conninfo`), `on host "127.0.0.1"`, fmt.Sprintf(`at port "%d"`, w.DB.Port))

	file := filepath.Join(w.Dir, "out", "orders.csv")
	out := mustPsql(t, "ann", "-c", `\copy (SELECT id, item FROM shop.orders ORDER BY id) TO '`+file+`' CSV`)
	holds(t, out, "COPY 100")
	if b, err := os.ReadFile(file); err != nil || len(lines(string(b))) != 100 || !strings.HasPrefix(string(b), "1,kettle\n") {
		t.Errorf("copied %q, %v", b, err)
	}
	mustPsql(t, "dora", "-c", "CREATE TABLE IF NOT EXISTS shop.notes (id int, note text)", "-c", `\copy shop.notes FROM '`+file+`' CSV`)
	if n := ask(t, "SELECT count(*) FROM shop.notes"); n != "100" {
		t.Errorf("copied %s rows in", n)
	}
	mustPsql(t, "dora", "-c", "DROP TABLE shop.notes")
}

func TestCardsAreMasked(t *testing.T) {
	const whole = "4111 1111 1111 1111"
	tries := []string{
		"SELECT card_number FROM shop.payments WHERE id = 1",
		"SELECT card_number AS a, id AS card_number FROM shop.payments WHERE id = 1",
		"SELECT upper(card_number) FROM shop.payments WHERE id = 1",
		"SELECT card_number FROM shop.customer_payments WHERE payment_id = 1",
		"SELECT p FROM shop.payments p WHERE id = 1",
		"SELECT row_to_json(p) FROM shop.payments p WHERE id = 1",
		"SELECT replace(card_number, ' ', '_') FROM shop.payments WHERE id = 1",
		"SELECT encode(card_number::bytea, 'hex') FROM shop.payments WHERE id = 1",
		"SELECT card_number FROM shop.payments UNION ALL SELECT item FROM shop.orders",
		"WITH RECURSIVE r AS (SELECT card_number c, 1 n FROM shop.payments UNION ALL SELECT c, n+1 FROM r WHERE n < 2) SELECT c FROM r",
		"COPY shop.payments TO STDOUT",
		"COPY (SELECT card_number FROM shop.payments) TO STDOUT CSV",
		"SELECT card_number::int FROM shop.payments WHERE id = 1",
		"SELECT string_agg(card_number, ',') FROM shop.payments",
		"SELECT (SELECT card_number FROM shop.payments WHERE id = 1)",
	}
	for _, sql := range tries {
		out, _ := psql(t, "ann", "-Atc", sql)
		digits := strings.NewReplacer(" ", "", "-", "", "_", "").Replace(out)
		if strings.Contains(out, whole) || strings.Contains(digits, "4111111111111111") || strings.Contains(out, "343131312031313131") {
			t.Errorf("%s: a card came through: %s", sql, out)
		}
	}
	holds(t, mustPsql(t, "ann", "-Atc", tries[0]), "**** **** **** 1111")
	holds(t, mustPsql(t, "dora", "-Atc", tries[0]), whole)
	if got := mustPsql(t, "ann", "-Atc", "SELECT count(*), sum(amount) FROM shop.payments"); got != "10|903.99\n" {
		t.Errorf("an aggregate over unmasked columns is changed: %q", got)
	}
	from := since()
	mustPsql(t, "ann", "-Atc", tries[0])
	var masked any
	for _, e := range events(t, "--from", from, "--kind", "action") {
		if m := e["masks"]; m != nil {
			masked = m
		}
	}
	holds(t, fmt.Sprint(masked), "shop.payments.card_number", "last4", "origin")
}

func TestDenials(t *testing.T) {
	out, err := psql(t, "ann", "-v", "VERBOSITY=verbose", "-c", "DROP TABLE shop.orders")
	if err == nil {
		t.Fatal("DROP passed")
	}
	holds(t, out, "ERROR:  42501: weir:", "no drops")

	// The session goes on; in a transaction everything up to ROLLBACK fails.
	script := "SELECT 'before';\nDELETE FROM shop.orders;\nSELECT 'after';\nBEGIN;\nSELECT 'in';\nDELETE FROM shop.orders;\nSELECT 'not reached';\nROLLBACK;\nSELECT 'end';\n"
	cmd := command(t.Context(), "ann", "psql", "-X", "-At", "-v", "VERBOSITY=verbose", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop")
	cmd.Stdin = strings.NewReader(script)
	out, err = w.Node.Run(cmd)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	holds(t, out, "before", "after", "in", "end", "25P02")
	if strings.Contains(out, "not reached") {
		t.Error("a statement ran in a transaction that must have failed")
	}
	// A string of several statements is decided whole.
	if out, err := psql(t, "ann", "-Atc", "SELECT 'first'; DELETE FROM shop.orders; SELECT 'third'"); err == nil || strings.Contains(out, "first") {
		t.Errorf("part of a refused string ran: %s", out)
	}
	out, _ = psql(t, "ann", "-v", "VERBOSITY=verbose", "-c", "SELEKT 1")
	holds(t, out, "42601: weir:")
	if n := ask(t, "SELECT count(*) FROM shop.orders"); n != "100" {
		t.Errorf("%s orders are left", n)
	}
	out, err = psql(t, "", "-c", "SELECT 1")
	if err == nil {
		t.Fatal("nobody passed")
	}
	holds(t, out, "FATAL:  weir:", "weir login")
	out, err = psql(t, "eve", "-c", "SELECT 1")
	if err == nil {
		t.Fatal("a group without rules passed")
	}
	holds(t, out, "FATAL:  weir:")
}

func TestCancel(t *testing.T) {
	cmd := command(t.Context(), "ann", "psql", "-X", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop", "-c", "SELECT pg_sleep(3600) /* cancel me */")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if err := w.Node.Start(cmd); err != nil {
		t.Fatal(err)
	}
	in.Close()
	eventually(t, "the server runs the statement", func() bool {
		return ask(t, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* cancel me */%' AND state = 'active' AND pid <> pg_backend_pid()") == "1"
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(out)
	_ = cmd.Wait()
	holds(t, string(text), "canceling statement due to user request")
}

// TestBigResult: 1 GiB goes through with little memory of the agent's own. The
// peak is measured by the kernel, from a reset just before.
func TestBigResult(t *testing.T) {
	pid := w.Node.AgentPID()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	cmd := command(t.Context(), "ann", "psql", "-X", "-q", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop",
		"-c", "COPY (SELECT repeat('x', 1023) FROM generate_series(1, 1048576)) TO STDOUT")
	counter := &countingWriter{}
	cmd.Stdout, cmd.Stderr = counter, os.Stderr
	if err := w.Node.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if counter.n != 1<<30 {
		t.Errorf("%d bytes arrived, want %d", counter.n, 1<<30)
	}
	// And as rows of a result, by the extended protocol, one long value among them.
	out, err := run(t, "ann", "/usr/bin/python3", "-c", `
import psycopg2, sys
c = psycopg2.connect(host="127.0.0.1", port=sys.argv[1], dbname="shop", user="ann")
k = c.cursor("k"); k.itersize = 2000
k.execute("SELECT repeat('y', 1000) FROM generate_series(1, 200000)")
print(sum(len(r[0]) for r in k))
`, fmt.Sprint(w.DB.Port))
	if err != nil || strings.TrimSpace(out) != "200000000" {
		t.Errorf("%v: %s", err, out)
	}
	// The pages of the binary are the page cache's, and grow with what is linked in, not with what flows.
	peak, file := statusKiB(t, pid, "VmHWM"), statusKiB(t, pid, "RssFile")
	t.Logf("agent's peak resident memory: %d KiB, %d KiB of it pages of the binary", peak, file)
	if own := peak - file; own > 32<<10 {
		t.Errorf("the agent's own memory rose to %d KiB", own)
	}
}

type countingWriter struct{ n int64 }

func (c *countingWriter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}

// statusKiB reads a size from /proc/PID/status.
func statusKiB(t *testing.T, pid int, name string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in /proc/%d/status", name, pid)
	return 0
}

func TestUnchangedClients(t *testing.T) {
	jdbc := filepath.Join(w.Dir, "out", "jdbc")
	if out, err := exec.Command("javac", "-d", jdbc, "../clients/JdbcClient.java").CombinedOutput(); err != nil {
		t.Fatalf("javac: %v: %s", err, out)
	}
	port := fmt.Sprint(w.DB.Port)
	java := []string{"java", "-XX:+UseSerialGC", "-cp", jdbc + ":/usr/share/java/postgresql.jar"}
	clients := map[string][]string{
		"psycopg 2":            {"/usr/bin/python3", "../clients/psycopg2_client.py", "127.0.0.1", port, "shop"},
		"psycopg 2 over IPv6":  {"/usr/bin/python3", "../clients/psycopg2_client.py", "::1", port, "shop"},
		"psycopg 3":            {"/usr/bin/python3", "../clients/psycopg3_client.py", "127.0.0.1", port, "shop"},
		"asyncpg":              {"/usr/bin/python3", "../clients/asyncpg_client.py", "127.0.0.1", port, "shop"},
		"node-postgres":        {"node", "../clients/node_client.mjs", "127.0.0.1", port, "shop"},
		"JDBC over v4-mapped":  append(java, "JdbcClient", "127.0.0.1", port, "shop"),
		"JDBC over IPv6":       append(java, "-Djava.net.preferIPv6Addresses=true", "JdbcClient", "::1", port, "shop"),
		"JDBC over plain IPv4": append(java, "-Djava.net.preferIPv4Stack=true", "-Dsslmode=disable", "JdbcClient", "127.0.0.1", port, "shop"),
		"JDBC with TLS":        append(java, "-Dsslmode=require", "JdbcClient", "127.0.0.1", port, "shop"),
	}
	for name, args := range clients {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, "ann", args[0], args[1:]...)
			if err != nil || !strings.HasSuffix(strings.TrimSpace(out), "ok") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestSSLModes(t *testing.T) {
	for _, mode := range []string{"disable", "allow", "prefer", "require"} {
		out, err := run(t, "ann", "psql", "-X", "-Atc", "SELECT 1", fmt.Sprintf("host=localhost port=%d dbname=shop sslmode=%s", w.DB.Port, mode))
		if err != nil || out != "1\n" {
			t.Errorf("sslmode=%s: %v: %s", mode, err, out)
		}
	}
	bundle, err := w.Node.Weir(t.Context(), "trust", "bundle").Output()
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(w.Dir, "out", "ca.pem")
	if err := os.WriteFile(ca, bundle, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1"} {
		out, err := run(t, "ann", "psql", "-X", "-Atc", "SELECT 1", fmt.Sprintf("host=%s port=%d dbname=shop sslmode=verify-full sslrootcert=%s", host, w.DB.Port, ca))
		if err != nil || out != "1\n" {
			t.Errorf("verify-full with weir's bundle on %s: %v: %s", host, err, out)
		}
	}
}
