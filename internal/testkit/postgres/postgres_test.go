package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func connect(t *testing.T, url string) error {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		return err
	}
	return c.Close(t.Context())
}

func TestServer(t *testing.T) {
	s := For(t, Config{TLS: true, Shop: true,
		Settings: map[string]string{"log_statement": "all", "log_line_prefix": `it's \%a `},
		HBA: strings.Join([]string{
			"host all truster all trust",
			"hostssl all weir_app all scram-sha-256",
			"host all weir_dba all scram-sha-256",
			"host all oldie all md5",
		}, "\n"),
		InitSQL: "CREATE ROLE truster LOGIN; SET password_encryption = 'md5'; CREATE ROLE oldie LOGIN PASSWORD 'old';\n\\connect shop\nCREATE TABLE public.extra ();",
	})

	t.Run("shop", func(t *testing.T) {
		for sql, want := range map[string]string{
			"select count(*) from shop.orders":                                "100",
			"select card_number from shop.payments where id = 1":              "4111 1111 1111 1111",
			"select shop.customer_total(1) > 0":                               "t",
			"select count(*) from shop.customer_payments":                     "10",
			"select count(*) from public.extra":                               "0",
			"select tableowner from pg_tables where tablename = 'orders'":     AppRole,
			"select current_user || ' ' || current_setting('data_checksums')": "postgres off",
		} {
			got, err := s.Query(t.Context(), ShopDatabase, sql)
			if err != nil || got != want {
				t.Errorf("%s: %q, %v, want %q", sql, got, err, want)
			}
		}
	})
	t.Run("logins", func(t *testing.T) {
		for _, user := range []string{AppRole, DBARole, "truster"} {
			if err := connect(t, s.URL(user, ShopDatabase)); err != nil {
				t.Errorf("%s: %v", user, err)
			}
		}
		if err := connect(t, strings.Replace(s.URL("oldie", ShopDatabase), "oldie@", "oldie:old@", 1)); err != nil {
			t.Errorf("md5: %v", err)
		}
		wrong := strings.Replace(s.URL(AppRole, ShopDatabase), s.Password(AppRole), "wrong", 1)
		var pgErr *pgconn.PgError
		if err := connect(t, wrong); !errors.As(err, &pgErr) || pgErr.Code != "28P01" {
			t.Errorf("wrong password: %v, want 28P01", err)
		}
		plain := strings.Split(s.URL(AppRole, ShopDatabase), "?")[0] + "?sslmode=disable"
		if err := connect(t, plain); !errors.As(err, &pgErr) || pgErr.Code != "28000" {
			t.Errorf("without TLS: %v, want 28000", err)
		}
	})
	t.Run("addresses", func(t *testing.T) {
		for _, host := range []string{"127.0.0.1", "::1"} {
			c, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(int(s.Port))))
			if err != nil {
				t.Error(err)
				continue
			}
			c.Close()
		}
	})
	t.Run("log", func(t *testing.T) {
		b, err := os.ReadFile(s.LogFile)
		if err != nil || !strings.Contains(string(b), `it's \psql LOG:  statement: select count(*) from shop.orders`) {
			t.Errorf("log_line_prefix and log_statement did not reach the log: %v", err)
		}
	})
	t.Run("psql error", func(t *testing.T) {
		if _, err := s.Query(t.Context(), ShopDatabase, "select * from nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("restart", func(t *testing.T) {
		before := s.PID()
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Query(t.Context(), ShopDatabase, "select count(*) from shop.payments"); got != "10" || s.PID() == before {
			t.Errorf("after restart: %q, %v, pid %d", got, err, s.PID())
		}
	})
	t.Run("stop twice", func(t *testing.T) {
		if err := errors.Join(s.Stop(), s.Stop()); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("tcp", s.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after stop: %v", err)
		}
	})
}

func TestPrepare(t *testing.T) {
	s := For(t, Config{Prepare: func(*exec.Cmd) error { return syscall.Unshare(syscall.CLONE_NEWNET) }})
	inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if outside, err := os.Readlink("/proc/self/ns/net"); err != nil || inside == outside {
		t.Errorf("the server runs in %s, the test in %s (%v)", inside, outside, err)
	}
	// The unix socket is reachable from everywhere.
	if got, err := s.Query(t.Context(), "postgres", "select 1"); got != "1" {
		t.Errorf("psql: %q, %v", got, err)
	}
	refused := errors.New("not today")
	if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Prepare: func(*exec.Cmd) error { return refused }}); !errors.Is(err, refused) {
		t.Fatalf("got %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Run("no directory", func(t *testing.T) {
		if _, err := Start(t.Context(), Config{}); err == nil {
			t.Fatal("started without a directory")
		}
	})
	t.Run("used directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Start(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "exists already") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("bad setting", func(t *testing.T) {
		_, err := Start(t.Context(), Config{Dir: t.TempDir(), Settings: map[string]string{"no_such_setting": "1"}})
		if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("bad script", func(t *testing.T) {
		dir := t.TempDir()
		_, err := Start(t.Context(), Config{Dir: dir, InitSQL: "select 1/0"})
		if err == nil || !strings.Contains(err.Error(), "division by zero") {
			t.Fatalf("got %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "data", "postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the server was left running: %v", err)
		}
	})
}

// TestDiesWithParent kills the program that started a server.
func TestDiesWithParent(t *testing.T) {
	const child = "WEIR_TEST_POSTGRES_DIR"
	if dir := os.Getenv(child); dir != "" {
		s, err := Start(context.Background(), Config{Dir: dir})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("pid", s.PID())
		select {}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiesWithParent$")
	cmd.Env = append(os.Environ(), child+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "pid %d\n", &pid); err != nil {
		t.Fatalf("the child did not start a server: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(30 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("postmaster %d outlived its parent", pid)
		}
	}
}
