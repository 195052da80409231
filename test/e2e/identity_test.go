package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/testkit/dex"
)

// TestDeviceLogin: a shell signs in on another device; it is then that person for
// every process of the login, until logout cuts what is open.
func TestDeviceLogin(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// The login of this test: a user of its own in a cgroup of its own.
	shell := func(script string) (string, error) {
		cmd := command(ctx, "", "setpriv", "--reuid", "65534", "--clear-groups", "bash", "-c", script)
		cmd.Env = append(cmd.Environ(), "WEIR_CONFIG="+w.Node.ConfigFile(), "PATH="+w.Dir+":"+os.Getenv("PATH"), "LC_ALL=C")
		return w.Node.Run(cmd)
	}
	sql := fmt.Sprintf("psql -X -h 127.0.0.1 -p %d -d shop -Atc", w.DB.Port)
	if out, err := shell(sql + " 'SELECT 1'"); err == nil || !strings.Contains(out, "weir login") {
		t.Fatalf("before: %v: %s", err, out)
	}
	login := command(ctx, "", "setpriv", "--reuid", "65534", "--clear-groups", w.Weir, "--config", w.Node.ConfigFile(), "login", "--device", "--issuer", w.IDP.Issuer)
	stderr, err := login.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Node.Start(login); err != nil {
		t.Fatal(err)
	}
	url := ""
	var said []string
	for sc := bufio.NewScanner(stderr); url == "" && sc.Scan(); {
		said = append(said, sc.Text())
		url = regexp.MustCompile(`http://\S+user_code=\S+`).FindString(sc.Text())
	}
	if url == "" {
		t.Fatalf("no address was printed: %q", said)
	}
	if _, err := dex.NewBrowser(dex.Person{User: "ann", Email: "ann@example.com", Groups: []string{"developer"}}).Visit(ctx, url); err != nil {
		t.Fatal(err)
	}
	for sc := bufio.NewScanner(stderr); sc.Scan(); {
		said = append(said, sc.Text())
	}
	if err := login.Wait(); err != nil {
		t.Fatalf("weir login: %v: %q", err, said)
	}
	if out, err := shell("weir whoami && " + sql + " 'SELECT count(*) FROM shop.orders'"); err != nil || !strings.Contains(out, "ann@example.com") || !strings.Contains(out, "100") {
		t.Fatalf("signed in: %v: %s", err, out)
	}
	// An open session is cut by logout.
	from := since()
	done := make(chan string, 1)
	go func() {
		out, _ := shell(sql + " 'SELECT pg_sleep(600) /* logout */'")
		done <- out
	}()
	eventually(t, "the statement runs", func() bool {
		return ask(t, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* logout */%' AND state = 'active' AND pid <> pg_backend_pid()") == "1"
	})
	if out, err := shell("weir logout"); err != nil {
		t.Fatalf("weir logout: %v: %s", err, out)
	}
	holds(t, <-done, "weir:")
	if out, err := shell("weir whoami"); err == nil {
		t.Errorf("after logout: %s", out)
	}
	var reasons []string
	for _, e := range events(t, "--from", from) {
		if k := fmt.Sprint(e["kind"]); k == "flow.close" || k == "identity.unbind" {
			reasons = append(reasons, fmt.Sprint(k, " ", e["reason"]))
		}
	}
	holds(t, strings.Join(reasons, "\n"), "flow.close revoked", "identity.unbind logout")
}

// TestExpiry: the next action after the token's expiry is refused with words, and
// the flow is closed.
func TestExpiry(t *testing.T) {
	token, err := brief.Token(t.Context(), "ann", "ann@example.com", []string{"developer"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.Dir, "brief.jwt")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := w.Node.As(t.Context(), file, "psql", "-X", "-At", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop",
		"-c", "SELECT 'early'", "-c", fmt.Sprintf(`\! sleep %d`, int(briefLife.Seconds())+1), "-c", "SELECT 'late'")
	out, err := w.Node.Run(cmd)
	if err == nil {
		t.Fatalf("psql: %s", out)
	}
	holds(t, out, "early", "FATAL:  weir:", "expired")
	if strings.Contains(out, "late") {
		t.Error("a statement ran under an expired token")
	}
	if out, err := w.Node.Run(w.Node.As(t.Context(), file, "true")); err == nil || !strings.Contains(out, "expired") {
		t.Errorf("an expired token was bound: %v: %s", err, out)
	}
}

// TestExecBindsNobodyElse: the identity ends with the command, and a neighbour
// in the same cgroup never has it.
func TestExecBindsNobodyElse(t *testing.T) {
	out, err := run(t, "ann", "bash", "-c", `weir=$1; shift; "$weir" whoami; (exec "$@"); exit 7`, "x", w.Weir, "psql", "-X", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop", "-Atc", "SELECT 'child'")
	if err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("exit status: %v", err)
	}
	holds(t, out, "child")
	if out, err := psql(t, "", "-Atc", "SELECT 1"); err == nil {
		t.Errorf("a neighbour passed: %s", out)
	}
	eventually(t, "the cgroup of the command is gone", func() bool {
		entries, err := os.ReadDir(w.Node.Clients)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				return false
			}
		}
		return true
	})
}

func TestBadTokens(t *testing.T) {
	file := filepath.Join(w.Dir, "bad.jwt")
	for name, token := range map[string]string{
		"garbage":  "not a token",
		"alg none": "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.",
	} {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := w.Node.Run(w.Node.As(t.Context(), file, "true"))
		if err == nil || strings.Contains(out, token) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

// TestPolicyReload: a broken file never replaces a working one; a good one is in
// force without losing flows.
func TestPolicyReload(t *testing.T) {
	t.Cleanup(func() {
		from := since()
		if err := w.Node.SetPolicy(policyText); err != nil {
			t.Error(err)
		}
		eventually(t, "the policy is loaded again", func() bool {
			all, err := w.Node.Events(context.Background(), "--from", from, "--kind", "policy.load") // the test's own context has ended
			return err == nil && len(all) > 0
		})
	})
	cmd := command(t.Context(), "ann", "psql", "-X", "-At", "-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port), "-d", "shop")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := w.Node.Start(cmd); err != nil {
		t.Fatal(err)
	}
	defer func() { stdin.Close(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(stdout)
	say := func(sql string) string {
		fmt.Fprintln(stdin, sql)
		if !lines.Scan() {
			t.Fatal("psql ended")
		}
		return lines.Text()
	}
	if got := say("SELECT count(*) FROM shop.orders;"); got != "100" {
		t.Fatalf("before: %q", got)
	}
	from := since()
	if err := w.Node.SetPolicy("policies: [{name: broken, rulez: []}]\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broken file is noticed", func() bool {
		for _, e := range events(t, "--from", from, "--kind", "policy.load") {
			if e["reason"] != nil {
				return true
			}
		}
		return false
	})
	if got := say("SELECT count(*) FROM shop.orders;"); got != "100" {
		t.Errorf("with a broken file: %q", got)
	}
	from = since()
	if err := w.Node.SetPolicy(strings.Replace(policyText, "      - name: no drops\n", "      - {name: no orders, groups: [developer], actions: [select], resources: [shop.orders], effect: deny}\n      - name: no drops\n", 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new policy is loaded", func() bool { return len(events(t, "--from", from, "--kind", "policy.load")) > 0 })
	if got := say("SELECT count(*) FROM shop.orders;"); !strings.Contains(got, "no orders") {
		t.Errorf("with the new policy: %q", got)
	}
}
