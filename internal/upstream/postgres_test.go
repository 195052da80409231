package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirproxy/weir/internal/testkit/postgres"
)

const roles = `
SET password_encryption = 'scram-sha-256';
CREATE ROLE scram LOGIN PASSWORD 'scram secret';
CREATE ROLE scram_tls LOGIN PASSWORD 'scram secret';
CREATE ROLE scram_plain LOGIN PASSWORD 'scram secret';
CREATE ROLE clear LOGIN PASSWORD 'clear secret';
SET password_encryption = 'md5';
CREATE ROLE md5 LOGIN PASSWORD 'md5 secret';
CREATE ROLE trusted LOGIN;
CREATE ROLE limited LOGIN PASSWORD 'x' CONNECTION LIMIT 0;
`

const hba = `hostssl   all scram_tls   all scram-sha-256
hostnossl all scram_plain all scram-sha-256
host      all md5         all md5
host      all trusted     all trust
host      all limited     all trust
host      all clear       all password
host      all scram       all scram-sha-256
`

var accountPasswords = map[string]string{
	"scram": "scram secret", "scram_tls": "scram secret", "scram_plain": "scram secret",
	"md5": "md5 secret", "clear": "clear secret", "limited": "x",
}

// signIn signs in as user at the server on address.
func signIn(t *testing.T, b Backend, address, user string, params map[string]string) (*PostgresSession, *accounts, error) {
	t.Helper()
	creds := &accounts{user: user, password: accountPasswords[user]}
	s, err := dialer(t, b, creds).SignInPostgres(context.Background(), grant(t, "db", address, user, "postgres"), params)
	if s != nil {
		t.Cleanup(func() { s.Conn.Close() })
	}
	creds.checkWiped(t)
	return s, creds, err
}

// query runs sql over the taken-over connection with nothing but the protocol.
func query(t *testing.T, s *PostgresSession, sql string) string {
	t.Helper()
	fe := pgproto3.NewFrontend(s.Conn, s.Conn)
	fe.Send(&pgproto3.Query{String: sql})
	if err := fe.Flush(); err != nil {
		t.Fatal(err)
	}
	value := ""
	for {
		m, err := fe.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			if m.Values[0] != nil {
				value = string(m.Values[0])
			}
		case *pgproto3.ErrorResponse:
			value = m.Code
		case *pgproto3.ReadyForQuery:
			return value
		}
	}
}

func TestSignInOverTLS(t *testing.T) {
	srv := postgres.For(t, postgres.Config{TLS: true, ServerNames: []string{"orders.db.internal"}, HBA: hba, InitSQL: roles,
		Settings: map[string]string{"log_statement": "all", "log_connections": "on"}})
	other := otherCA(t)
	ca := srv.CAFile

	for name, c := range map[string]struct {
		user string
		b    Backend
		tls  bool
	}{
		"prefer":                          {"scram_tls", Backend{}, true},
		"require":                         {"scram_tls", Backend{TLS: TLS{Mode: Require}}, true},
		"require with CA, other name":     {"scram_tls", Backend{TLS: TLS{Mode: Require, CAFile: ca, ServerName: "elsewhere.invalid"}}, true},
		"verify-full by default, address": {"scram_tls", Backend{TLS: TLS{CAFile: ca}}, true},
		"verify-full, name of addresses":  {"scram_tls", Backend{Names: []string{"orders.db.internal"}, TLS: TLS{Mode: VerifyFull, CAFile: ca}}, true},
		"verify-full, server_name":        {"scram_tls", Backend{TLS: TLS{CAFile: ca, ServerName: "orders.db.internal"}}, true},
		"disable":                         {"scram_plain", Backend{TLS: TLS{Mode: Disable}}, false},
		"scram":                           {"scram", Backend{}, true},
		"md5":                             {"md5", Backend{}, true},
		"md5 without TLS":                 {"md5", Backend{TLS: TLS{Mode: Disable}}, false},
		"trust":                           {"trusted", Backend{}, true},
		"clear text over TLS":             {"clear", Backend{TLS: TLS{CAFile: ca}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := signIn(t, c.b, srv.Addr(), c.user, map[string]string{"application_name": "weir:01TEST psql", "user": "mallory", "Replication": "true", "datestyle": "German"})
			if err != nil {
				t.Fatalf("%v (%v)", err, errors.Unwrap(errors.Unwrap(err)))
			}
			if _, ok := s.Conn.(*tls.Conn); ok != c.tls || s.TLS != c.tls {
				t.Errorf("TLS is %v", ok)
			}
			if got := query(t, s, "select current_user || ' ' || current_setting('application_name')"); got != c.user+" weir:01TEST psql" {
				t.Errorf("signed in as %q", got)
			}
			if got := query(t, s, "select pg_backend_pid()::text || ' ' || (select ssl from pg_stat_ssl where pid = pg_backend_pid())"); got != fmtPID(s.PID)+" "+fmtBool(c.tls) {
				t.Errorf("backend and ssl %q, want %d %v", got, s.PID, c.tls)
			}
			if s.Parameters["server_version"] == "" || !strings.HasPrefix(s.Parameters["DateStyle"], "German") || s.TxStatus != 'I' || len(s.Secret) != 4 || s.Address != srv.Addr() {
				t.Errorf("session %+v", s)
			}
		})
	}

	for name, c := range map[string]struct {
		user string
		b    Backend
		kind Kind
		says string
	}{
		"wrong CA":                  {"scram_tls", Backend{TLS: TLS{CAFile: other}}, TLSFailed, "not trusted"},
		"wrong CA, require":         {"scram_tls", Backend{TLS: TLS{Mode: Require, CAFile: other}}, TLSFailed, "not trusted"},
		"system CAs":                {"scram_tls", Backend{TLS: TLS{Mode: VerifyFull}}, TLSFailed, "not trusted"},
		"wrong server_name":         {"scram_tls", Backend{TLS: TLS{CAFile: ca, ServerName: "elsewhere.invalid"}}, TLSFailed, "another name"},
		"wrong name of dial":        {"scram_tls", Backend{Dial: "elsewhere.invalid:" + portString(srv.Addr()), TLS: TLS{CAFile: ca}}, TLSFailed, "another name"},
		"no TLS where hba wants it": {"scram_tls", Backend{TLS: TLS{Mode: Disable}}, Refused, "28000"},
		"clear text without TLS":    {"clear", Backend{TLS: TLS{Mode: Disable}}, Refused, "clear text"},
		"too many connections":      {"limited", Backend{}, Unreachable, "53300"},
	} {
		t.Run(name, func(t *testing.T) {
			creds := &accounts{user: c.user, password: accountPasswords[c.user]}
			d, err := New(Config{Backends: map[string]Backend{"db": c.b}, Credentials: creds, DialNetNS: dialHere,
				LookupHost: func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }})
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.SignInPostgres(context.Background(), grant(t, "db", srv.Addr(), c.user, "postgres"), nil)
			wantEnd(t, err, c.kind, c.says)
			creds.checkWiped(t)
		})
	}

	t.Run("wrong password", func(t *testing.T) {
		for _, user := range []string{"scram", "md5", "clear"} {
			creds := &accounts{user: user, password: "wrong secret"}
			_, err := dialer(t, Backend{}, creds).SignInPostgres(context.Background(), grant(t, "db", srv.Addr(), user, "postgres"), nil)
			wantEnd(t, err, Refused, "28P01", user)
			if strings.Contains(err.Error(), "wrong secret") || creds.rejected != 1 {
				t.Errorf("%s: %v, told %d times", user, err, creds.rejected)
			}
		}
	})
	t.Run("no password", func(t *testing.T) {
		for _, user := range []string{"scram", "md5", "clear"} {
			_, err := dialer(t, Backend{}, &accounts{user: user}).SignInPostgres(context.Background(), grant(t, "db", srv.Addr(), user, "postgres"), nil)
			wantEnd(t, err, NoPassword, "wants a password")
		}
		_, err := dialer(t, Backend{}, &accounts{err: errors.New("the vault is sealed")}).SignInPostgres(context.Background(), grant(t, "db", srv.Addr(), "scram", "postgres"), nil)
		wantEnd(t, err, NoPassword, "no usable credentials")
	})
	t.Run("account changed since admission", func(t *testing.T) {
		_, err := dialer(t, Backend{}, &accounts{user: "trusted"}).SignInPostgres(context.Background(), grant(t, "db", srv.Addr(), "scram", "postgres"), nil)
		wantEnd(t, err, NoPassword, "connect again")
	})
	t.Run("no such database", func(t *testing.T) {
		_, err := dialer(t, Backend{}, &accounts{user: "trusted"}).SignInPostgres(context.Background(), grant(t, "db", srv.Addr(), "trusted", "nope"), nil)
		wantEnd(t, err, Refused, "3D000", `"nope"`)
	})
	t.Run("unknown parameter", func(t *testing.T) {
		_, _, err := signIn(t, Backend{}, srv.Addr(), "trusted", map[string]string{"no_such_setting": "1"})
		wantEnd(t, err, Refused, "42704")
	})
	t.Run("channel binding", func(t *testing.T) { testChannelBinding(t, srv) })
	t.Run("environment", func(t *testing.T) { testEnvironment(t, srv) })
	t.Run("cancel", func(t *testing.T) { testCancel(t, srv) })
	t.Run("catalogue", func(t *testing.T) { testCatalogue(t, srv) })
	t.Run("no statement of ours", func(t *testing.T) {
		log, err := os.ReadFile(srv.LogFile)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), "-- ping") {
			t.Error("taking a connection over sent a statement")
		}
	})
}

func fmtPID(pid uint32) string { return big.NewInt(int64(pid)).String() }

func fmtBool(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func portString(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// testChannelBinding puts a man in the middle whose certificate is taken (mode
// require checks none): SCRAM must notice that the channel is another one.
func testChannelBinding(t *testing.T, srv *postgres.Server) {
	cert := selfSigned(t)
	middle := func(strip bool) string {
		return listen(t, func(c net.Conn) {
			if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
				return
			}
			_, _ = c.Write([]byte("S"))
			client := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			raw, err := net.Dial("tcp", srv.Addr())
			if err != nil {
				return
			}
			defer raw.Close()
			_, _ = raw.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeSSL))
			if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
				return
			}
			server := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
			go func() { _, _ = io.Copy(server, client); raw.Close() }()
			relayAuth(client, server, strip)
		})
	}
	for name, strip := range map[string]bool{"relayed": false, "offer of binding taken out": true} {
		for _, user := range []string{"scram", "trusted"} {
			_, _, err := signIn(t, Backend{TLS: TLS{Mode: Require}}, middle(strip), user, nil)
			if user == "trusted" { // the man in the middle works at all
				if err != nil {
					t.Errorf("%s: trust through the middle: %v", name, err)
				}
				continue
			}
			wantEnd(t, err, Refused)
		}
	}
}

// relayAuth copies server messages, taking SCRAM-SHA-256-PLUS out of the offer
// when asked to.
func relayAuth(client io.Writer, server io.Reader, strip bool) {
	for {
		header := make([]byte, 5)
		if _, err := io.ReadFull(server, header); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if strip && header[0] == 'R' && binary.BigEndian.Uint32(body) == authSASL {
			body = append(body[:4:4], "SCRAM-SHA-256\x00\x00"...)
			binary.BigEndian.PutUint32(header[1:], uint32(len(body)+4))
		}
		if _, err := client.Write(append(header, body...)); err != nil {
			return
		}
	}
}

// testEnvironment sets everything that libpq and pgconn read from outside.
func testEnvironment(t *testing.T, srv *postgres.Server) {
	dir := t.TempDir()
	passfile := filepath.Join(dir, "pgpass")
	if err := os.WriteFile(passfile, []byte("*:*:*:*:from passfile\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"PGHOST": "192.0.2.1", "PGPORT": "1", "PGDATABASE": "nope", "PGUSER": "mallory", "PGPASSWORD": "nope",
		"PGPASSFILE": passfile, "PGAPPNAME": "leak", "PGCONNECT_TIMEOUT": "x", "PGSSLMODE": "verify-full", "PGSSLKEY": "/nope", "PGSSLCERT": "/nope",
		"PGSSLROOTCERT": "/nope", "PGSSLCERTMODE": "require", "PGSSLSNI": "0", "PGSSLNEGOTIATION": "direct", "PGTARGETSESSIONATTRS": "standby",
		"PGTZ": "Asia/Tokyo", "PGOPTIONS": "-c search_path=leak", "PGMINPROTOCOLVERSION": "3.2", "PGMAXPROTOCOLVERSION": "3.2",
		"PGCHANNELBINDING": "disable", "PGREQUIREAUTH": "none", "PGSERVICEFILE": passfile, "HOME": dir} {
		t.Setenv(k, v)
	}
	s, _, err := signIn(t, Backend{TLS: TLS{CAFile: srv.CAFile}}, srv.Addr(), "scram", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := query(t, s, "select current_user || current_database() || current_setting('search_path') || current_setting('TimeZone') || current_setting('application_name')"); got != `scrampostgres"$user", publicUTC` {
		t.Errorf("the session is %q", got)
	}
	_, err = dialer(t, Backend{}, &accounts{user: "scram"}).SignInPostgres(context.Background(), grant(t, "db", srv.Addr(), "scram", "postgres"), nil)
	wantEnd(t, err, NoPassword)

	t.Setenv("PGSERVICE", "x")
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "PGSERVICE") {
		t.Errorf("PGSERVICE: %v", err)
	}
}

func testCancel(t *testing.T, srv *postgres.Server) {
	for _, b := range []Backend{{TLS: TLS{Mode: Disable}}, {TLS: TLS{Mode: Require}}} {
		s, _, err := signIn(t, b, srv.Addr(), "scram", nil)
		if err != nil {
			t.Fatal(err)
		}
		watcher, _, err := signIn(t, b, srv.Addr(), "scram", nil)
		if err != nil {
			t.Fatal(err)
		}
		d := dialer(t, b, &accounts{})
		g := grant(t, "db", srv.Addr(), "scram", "postgres")
		done := make(chan string, 1)
		go func() { done <- query(t, s, "select pg_sleep(600)") }()
		running := "select count(*)::text from pg_stat_activity where state = 'active' and wait_event = 'PgSleep' and pid = " + fmtPID(s.PID)
		for deadline := time.Now().Add(20 * time.Second); query(t, watcher, running) != "1"; {
			if time.Now().After(deadline) {
				t.Fatal("the sleeper does not run")
			}
		}
		if err := d.CancelPostgres(context.Background(), g, s.PID, []byte{s.Secret[0] + 1, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if query(t, watcher, running) != "1" {
			t.Error("a wrong secret cancelled the statement")
		}
		if err := d.CancelPostgres(context.Background(), g, s.PID, s.Secret); err != nil {
			t.Fatal(err)
		}
		if code := <-done; code != "57014" {
			t.Errorf("the statement ended with %q", code)
		}
	}
}

func testCatalogue(t *testing.T, srv *postgres.Server) {
	creds := &accounts{user: "scram", password: accountPasswords["scram"]}
	c, err := dialer(t, Backend{}, creds).ConnectCatalogue(context.Background(), grant(t, "db", srv.Addr(), "scram", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	// A result beyond the bounds of a login, in one row and in many.
	r := c.ExecParams(context.Background(), "select current_setting('application_name'), repeat('x', 2000000) from generate_series(1, 3)", nil, nil, nil, nil).Read()
	if r.Err != nil || len(r.Rows) != 3 || string(r.Rows[0][0]) != "weir:catalogue" || len(r.Rows[2][1]) != 2000000 {
		t.Errorf("%d rows, %v", len(r.Rows), r.Err)
	}
	creds.checkWiped(t)
}

func TestSignInWithoutTLS(t *testing.T) {
	srv := postgres.For(t, postgres.Config{HBA: hba, InitSQL: roles})
	for _, user := range []string{"scram_plain", "md5", "trusted"} {
		s, _, err := signIn(t, Backend{}, srv.Addr(), user, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Conn.(*net.TCPConn); !ok || query(t, s, "select current_user::text") != user {
			t.Errorf("%s: %T", user, s.Conn)
		}
	}
	_, _, err := signIn(t, Backend{TLS: TLS{Mode: Require}}, srv.Addr(), "scram", nil)
	wantEnd(t, err, TLSFailed, "does not offer it")
	_, _, err = signIn(t, Backend{}, srv.Addr(), "clear", nil)
	wantEnd(t, err, Refused, "clear text")
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	_, _, err = signIn(t, Backend{}, srv.Addr(), "scram_plain", nil)
	wantEnd(t, err, Unreachable, "connection refused")
}

// message is one protocol message.
func message(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))) + body
}

func auth(code uint32) string {
	return message('R', string(binary.BigEndian.AppendUint32(nil, code)))
}

// scripted plays a server that says reply after the startup message.
func scripted(t *testing.T, reply string, then func(net.Conn)) string {
	return listen(t, func(c net.Conn) {
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(b)-4)); err != nil {
			return
		}
		_, _ = c.Write([]byte(reply))
		if then != nil {
			then(c)
		}
	})
}

func TestPendingBytesStayInTheConnection(t *testing.T) {
	hello := auth(0) + message('K', "\x00\x00\x00\x07abcd") + message('Z', "I")
	notice := message('N', "SNOTICE\x00Mhello\x00\x00")
	address := scripted(t, hello+notice, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	s, _, err := signIn(t, Backend{TLS: TLS{Mode: Disable}}, address, "trusted", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(notice))
	if _, err := io.ReadFull(s.Conn, got); err != nil || string(got) != notice {
		t.Errorf("%q, %v", got, err)
	}
	if s.PID != 7 || string(s.Secret) != "abcd" {
		t.Errorf("%+v", s)
	}
}

func TestHostileServers(t *testing.T) {
	for name, c := range map[string]struct {
		reply string
		kind  Kind
		says  string
	}{
		"claims 2 GiB":            {"R\x7f\xff\xff\xff", Refused, "rules of the protocol"},
		"length below 4":          {"R\x00\x00\x00\x00", Refused, "rules of the protocol"},
		"empty auth request":      {message('R', ""), Refused, "rules of the protocol"},
		"ready without login":     {message('Z', "I"), Refused, "rules of the protocol"},
		"garbage":                 {"HTTP/1.1 400 Bad Request\r\n\r\n", Refused, "rules of the protocol"},
		"endless parameters":      {auth(0) + strings.Repeat(message('S', strings.Repeat("k", 60000)+"\x00v\x00"), 20), Refused, "rules of the protocol"},
		"Kerberos":                {auth(7), Refused, "rules of the protocol"},
		"closes":                  {"", Unreachable, "closed the connection"},
		"closes after the start":  {auth(0), Unreachable, "closed the connection"},
		"starting up":             {message('E', "SFATAL\x00VFATAL\x00C57P03\x00Mthe database system is starting up\x00\x00"), Unreachable, "starting up"},
		"repeats the password":    {message('E', "SFATAL\x00VFATAL\x00C28P01\x00Mno scram secret for you\x00\x00"), Refused, "FATAL 28P01)"},
		"control characters":      {message('E', "SFATAL\x00VFATAL\x00C28P01\x00Ma\x1b[31m\r\nb\x00\x00"), Refused, "a [31m  b"},
		"long message":            {message('E', "SFATAL\x00C28P01\x00M"+strings.Repeat("x", 5000)+"\x00\x00"), Refused, "xxx..."},
		"severity is not a word":  {message('E', "Sfatal \x1b\x00C28P01\x00Mx\x00\x00"), Refused, "(28P01: x)"},
		"never a useless iterate": {message('R', "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00") + message('R', "\x00\x00\x00\x0br=x,s=eA==,i=1"), Refused, "rules of the protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			address := scripted(t, c.reply, func(conn net.Conn) {
				if tc, ok := conn.(*net.TCPConn); ok {
					_ = tc.CloseWrite()
				}
				_, _ = io.Copy(io.Discard, conn)
			})
			_, _, err := signIn(t, Backend{TLS: TLS{Mode: Disable}}, address, "scram", nil)
			wantEnd(t, err, c.kind, c.says)
			if strings.Contains(err.Error(), accountPasswords["scram"]) {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
}

func TestSilentServerEndsWithTheContext(t *testing.T) {
	for name, mode := range map[string]string{"before TLS": Require, "in the login": Disable} {
		t.Run(name, func(t *testing.T) {
			reached := make(chan struct{})
			address := listen(t, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1))
				close(reached)
				_, _ = io.Copy(io.Discard, c)
			})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() { <-reached; cancel() }()
			_, err := dialer(t, Backend{TLS: TLS{Mode: mode}}, &accounts{user: "trusted"}).SignInPostgres(ctx, grant(t, "db", address, "trusted", "postgres"), nil)
			wantEnd(t, err, Unreachable)
		})
	}
}

func TestPlainTextBehindTheAnswerToSSLRequest(t *testing.T) {
	address := listen(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 8))
		_, _ = c.Write([]byte("S" + auth(0) + message('Z', "I")))
		_, _ = io.Copy(io.Discard, c)
	})
	_, _, err := signIn(t, Backend{}, address, "trusted", nil)
	wantEnd(t, err, TLSFailed)
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "middle"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// otherCA is a file with an authority that signed nothing here.
func otherCA(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(t).Certificate[0]})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// FuzzLoginReader: whatever comes and however it is cut, the reader hands out a
// prefix of it, at most one message per call, and stays within its bounds.
func FuzzLoginReader(f *testing.F) {
	f.Add([]byte(auth(0)+message('Z', "I")+"more"), uint8(3))
	f.Add([]byte("R\x7f\xff\xff\xff"), uint8(1))
	f.Add([]byte(message('R', "\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00\x00")), uint8(200))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		l := &loginReader{r: strings.NewReader(string(in)), check: func(b []byte) error {
			if len(b) > maxLoginFrame {
				t.Fatalf("%d bytes", len(b))
			}
			return nil
		}}
		var out []byte
		buf := make([]byte, int(size)+1)
		for {
			n, err := l.Read(buf)
			out = append(out, buf[:n]...)
			if err != nil {
				break
			}
		}
		if !strings.HasPrefix(string(in), string(out)) {
			t.Fatalf("%q is no prefix of %q", out, in)
		}
	})
}
