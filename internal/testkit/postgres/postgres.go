// Package postgres starts a real PostgreSQL server for tests and for the demo.
//
// It owns the server's process, data directory and throw-away certificates, and
// nothing else: a server is stopped by its own process id, dies with the program
// that started it, and leaves behind only what lies in Config.Dir. It must never
// be used for data that anybody wants to keep: fsync is off.
package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Superuser is the role that initdb makes. Its password is random.
const Superuser = "postgres"

// Config says what server to start. Only Dir is required.
type Config struct {
	// Dir receives everything: data, socket, certificates, log. It must exist and
	// hold no earlier server. The server runs as the user postgres, so a
	// directory below the system's temporary one is made searchable for others;
	// elsewhere that is an error for the caller to solve.
	Dir string
	// Bin is the folder of the server's programs; "" takes version 15 if it is
	// there, else the newest in /usr/lib/postgresql.
	Bin string
	// Port is the TCP port; 0 takes a free one.
	Port uint16
	// Listen are addresses besides 127.0.0.1 and ::1.
	Listen []netip.Addr
	// Settings are added to postgresql.conf, e.g. log_line_prefix, log_statement.
	Settings map[string]string
	// HBA are lines of pg_hba.conf for TCP; "" asks everybody for a
	// SCRAM-SHA-256 password. The superuser's way in over the private unix socket
	// is always there.
	HBA string
	// TLS makes a certificate authority and a server certificate for localhost,
	// all addresses and ServerNames, and turns ssl on.
	TLS         bool
	ServerNames []string
	// Shop loads the fixture of shop.sql into the database shop.
	Shop bool
	// InitSQL is a psql script, run by the superuser in the database postgres
	// (after Shop); it may \connect elsewhere.
	InitSQL string
	// Prepare, when set, is called just before the server is forked, on the
	// locked thread that forks it and that ends with it. It may change the
	// command (a cgroup file descriptor) and the thread itself: setns(2) there
	// starts the server in another network namespace.
	Prepare func(*exec.Cmd) error
}

// Server is a running server.
type Server struct {
	Port    uint16
	DataDir string
	Socket  string // directory of the unix socket
	LogFile string // what the server wrote: log_line_prefix, log_statement apply
	CAFile  string // PEM certificate of the authority; "" without TLS

	config    Config
	account   *account
	passwords map[string]string
	process   *process
	ownSocket bool
}

// Start makes a data directory, starts the server and returns when it takes
// connections. On error nothing is left running.
func Start(ctx context.Context, c Config) (_ *Server, err error) {
	s := &Server{config: c, passwords: map[string]string{Superuser: rand.Text(), AppRole: rand.Text(), DBARole: rand.Text()}}
	if s.config.Bin, err = findBin(c.Bin); err != nil {
		return nil, err
	}
	if s.account, err = serverAccount(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.layout(); err != nil {
		return nil, err
	}
	if err := s.initdb(ctx); err != nil {
		return nil, err
	}
	if err := s.configure(); err != nil {
		return nil, err
	}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	if c.Shop {
		if err := s.loadShop(ctx); err != nil {
			return nil, fmt.Errorf("load the shop: %w", err)
		}
	}
	if c.InitSQL != "" {
		if _, err := s.psql(ctx, c.InitSQL, "-f", "-"); err != nil {
			return nil, fmt.Errorf("run InitSQL: %w", err)
		}
	}
	return s, nil
}

// maxSocketPath is the room for a unix socket's path, unix(7): 108 bytes with
// the terminating zero, less "/.s.PGSQL.65535.lock".
const maxSocketPath = 107 - len("/.s.PGSQL.65535.lock")

func (s *Server) layout() error {
	dir, err := filepath.Abs(s.config.Dir)
	if err != nil {
		return err
	}
	if s.config.Dir == "" {
		return errors.New("postgres: Config.Dir is empty; give a directory for the server's files")
	}
	if err := s.account.makeSearchable(dir); err != nil {
		return err
	}
	s.DataDir = filepath.Join(dir, "data")
	s.LogFile = filepath.Join(dir, "postgresql.log")
	if _, err := os.Stat(s.DataDir); err == nil {
		return fmt.Errorf("postgres: %s exists already; give an empty directory", s.DataDir)
	}
	if err := s.account.mkdir(s.DataDir); err != nil {
		return err
	}
	s.Socket = filepath.Join(dir, "socket")
	if len(s.Socket) <= maxSocketPath {
		return s.account.mkdir(s.Socket)
	}
	if s.Socket, err = os.MkdirTemp("", "weir-pg-"); err != nil {
		return err
	}
	s.ownSocket = true
	return s.account.own(s.Socket)
}

func (s *Server) initdb(ctx context.Context) error {
	pw := filepath.Join(s.config.Dir, "superuser.password")
	if err := os.WriteFile(pw, []byte(s.passwords[Superuser]+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(pw)
	if err := s.account.own(pw); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.config.Bin, "initdb"), "--no-sync", "--no-instructions",
		"-D", s.DataDir, "-U", Superuser, "--pwfile", pw, "-A", "scram-sha-256",
		"-E", "UTF8", "--locale", "C.UTF-8")
	if out, err := s.combined(cmd); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// combined runs a short command as the server's account; it dies with us.
func (s *Server) combined(cmd *exec.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = environment()
	cmd.Dir = s.DataDir
	cmd.SysProcAttr = s.account.attributes()
	p, err := startProcess(cmd, nil)
	if err != nil {
		return nil, err
	}
	<-p.done
	return out.Bytes(), p.err
}

// Addr is the server's first address, 127.0.0.1 and the port.
func (s *Server) Addr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(s.Port)))
}

// PID is the process id of the postmaster.
func (s *Server) PID() int { return s.process.pid }

// Password is the password of the superuser or of a role of the shop, "" for
// anybody else.
func (s *Server) Password(user string) string { return s.passwords[user] }

// URL is a connection string over TCP, with the password when Password knows it
// and with verify-full when the server has TLS.
func (s *Server) URL(user, db string) string {
	u := url.URL{Scheme: "postgres", Host: s.Addr(), Path: "/" + db, User: url.User(user)}
	if pw := s.passwords[user]; pw != "" {
		u.User = url.UserPassword(user, pw)
	}
	q := url.Values{"sslmode": {"disable"}}
	if s.CAFile != "" {
		q.Set("sslmode", "verify-full")
		q.Set("sslrootcert", s.CAFile)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// Psql runs psql as the superuser over the private unix socket and returns what
// it printed on standard output. It stops at the first error. Later arguments
// win: "-d", "shop", "-U", "weir_app", "-c", "select 1".
func (s *Server) Psql(ctx context.Context, args ...string) (string, error) {
	return s.psql(ctx, "", args...)
}

// Query runs one statement in db as the superuser and returns its rows unaligned
// and without headings, "|" between columns.
func (s *Server) Query(ctx context.Context, db, sql string) (string, error) {
	out, err := s.psql(ctx, "", "-At", "-d", db, "-c", sql)
	return strings.TrimSuffix(out, "\n"), err
}

func (s *Server) psql(ctx context.Context, stdin string, args ...string) (string, error) {
	base := []string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", s.Socket, "-p", strconv.Itoa(int(s.Port)), "-U", Superuser, "-d", "postgres"}
	cmd := exec.CommandContext(ctx, filepath.Join(s.config.Bin, "psql"), append(base, args...)...)
	cmd.Env = environment()
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("psql: %w: %s", err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}

// environment keeps the caller's PG* variables and locale out.
func environment() []string {
	return []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=/nonexistent"}
}

// findBin looks where Debian installs the servers of all versions.
func findBin(bin string) (string, error) {
	if bin != "" {
		return bin, nil
	}
	const preferred = 15
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		if n == preferred {
			return 1 << 20
		}
		return n
	}
	sort.Slice(found, func(i, j int) bool { return version(found[i]) > version(found[j]) })
	if len(found) == 0 {
		return "", errors.New("postgres: no server in /usr/lib/postgresql/*/bin; install the Debian package postgresql (`apt-get install -y postgresql`)")
	}
	return filepath.Dir(found[0]), nil
}
