package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
)

// This file is the only one that knows pgx: Hijack is outside its semantic
// versioning, so go.mod pins the version and the tests here say whether a new
// one still holds.

// newTemplate makes the pgconn configuration that every connection copies.
// pgconn wants one that came from ParseConfig, which reads the environment, a
// password file and a service file; whatever it may take from there is given
// explicitly here or replaced afterwards.
func newTemplate() (*pgconn.Config, error) {
	c, err := pgconn.ParseConfig("host=127.0.0.1 port=5432 user=weir password=unused database=weir passfile='' connect_timeout=0" +
		" sslmode=disable sslkey='' sslcert='' sslcertmode=disable sslrootcert='' sslpassword='' sslsni=1 sslnegotiation=postgres" +
		" target_session_attrs=any min_protocol_version=3.0 max_protocol_version=3.0 channel_binding=prefer require_auth=''")
	if err != nil {
		return nil, fmt.Errorf("preparing PostgreSQL connections (unset PGSERVICE in the agent's environment, weir does not use it): %w", err)
	}
	c.User, c.Password, c.Database = "", "", ""
	c.RuntimeParams, c.Fallbacks, c.ConnectTimeout = nil, nil, 0
	c.SSLCertMode, c.SSLNegotiation = "", ""
	c.KerberosSrvName, c.KerberosSpn = "", ""
	return c, nil
}

// purpose says what a connection is for.
type purpose int

const (
	loginOnly purpose = iota // hijacked after the login
	queries                  // goes on to be used through pgconn
)

// Bounds on what a server may send, bytes.
const (
	maxLoginFrame = 64 << 10 // no message of a login comes near (notices at login: a few hundred)
	maxLoginBytes = 1 << 20  // all messages up to the first ReadyForQuery together
	maxQueryFrame = 64 << 20 // a row of the catalogue: the largest holds a view's rule tree
)

// pgSession is a session that pgconn has opened.
type pgSession struct {
	conn    *pgconn.PgConn
	address string
	tls     bool
}

// ConnectCatalogue opens a connection of Weir's own to the database of an
// admitted flow, with the flow's account, for looking things up in the system
// catalogue. Its application_name is weir:catalogue.
func (d *Dialer) ConnectCatalogue(ctx context.Context, g session.Grant) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, signInTimeout)
	defer cancel()
	s, err := d.signIn(ctx, g, map[string]string{"application_name": "weir:catalogue", "client_encoding": "UTF8"}, queries)
	if err != nil {
		return nil, err
	}
	return s.conn, nil
}

func (d *Dialer) signIn(ctx context.Context, g session.Grant, params map[string]string, what purpose) (*pgSession, error) {
	b, f, err := d.admitted(g)
	if err != nil {
		return nil, err
	}
	login, password, err := d.Credentials.Password(ctx, b.name, g.Principal())
	if err != nil {
		return nil, d.fail(&f, &Error{Kind: NoPassword, cause: err,
			text: fmt.Sprintf("weir has no usable credentials for backend %q just now; tell whoever keeps weir's configuration", b.name)})
	}
	defer clear(password)
	if login != f.Login { // the record names the account; it must be the one that is used
		return nil, d.fail(&f, &Error{Kind: NoPassword, text: fmt.Sprintf("the credentials of backend %q have just changed; connect again", b.name)})
	}
	c, err := d.dialPostgres(ctx, b, &f)
	if err != nil {
		return nil, err
	}
	conf := d.loginConfig(&f, c, params, password, what)
	pg, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		c.Close()
		e := signInError(b, login, password, err)
		if e.Code == "28P01" || e.Code == "28000" {
			d.Credentials.Rejected(b.name, g.Principal())
		}
		return nil, d.fail(&f, e)
	}
	conf.Password = ""
	_, secure := c.(*tls.Conn)
	return &pgSession{conn: pg, address: c.RemoteAddr().String(), tls: secure}, nil
}

// loginConfig is the configuration of one login over c.
func (d *Dialer) loginConfig(f *flow.Flow, c net.Conn, params map[string]string, password []byte, what purpose) *pgconn.Config {
	conf := d.pg.Copy()
	address := c.RemoteAddr().String()
	conf.Host, _, _ = net.SplitHostPort(address)
	conf.Port = portOf(address)
	conf.User, conf.Password, conf.Database = f.Login, string(password), f.Database
	conf.RuntimeParams = make(map[string]string, len(params))
	for k, v := range params {
		switch strings.ToLower(k) {
		case "user", "database", "replication":
		default:
			conf.RuntimeParams[k] = v
		}
	}
	conf.DialFunc = func(context.Context, string, string) (net.Conn, error) { return c, nil }
	conf.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	conf.MaxProtocolMessageBodyLen = maxLoginFrame
	if what == queries {
		conf.MaxProtocolMessageBodyLen = maxQueryFrame
	}
	_, secure := c.(*tls.Conn)
	conf.RequireAuth = "md5,scram-sha-256,none"
	if secure {
		conf.RequireAuth = "password," + conf.RequireAuth
	}
	conf.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(&loginReader{r: r, check: func(body []byte) error {
			return checkAuth(conf, secure, body)
		}}, w)
	}
	return conf
}

// Authentication requests (PostgreSQL manual, 55.7).
const (
	authCleartext = 3
	authMD5       = 5
	authSASL      = 10
)

// checkAuth looks at the server's AuthenticationRequest before pgconn answers.
// Where the server offers channel binding it must be used: pgconn's "prefer"
// would go without when the certificate's hash cannot be had.
func checkAuth(conf *pgconn.Config, secure bool, body []byte) error {
	if len(body) < 4 {
		return errors.New("an authentication request of less than 4 bytes")
	}
	switch code := binary.BigEndian.Uint32(body); code {
	case authCleartext, authMD5, authSASL:
		if conf.Password == "" {
			return &Error{Kind: NoPassword, text: "the backend wants a password and its credentials entry has none; tell whoever keeps weir's configuration"}
		}
		if code == authCleartext && !secure {
			return &Error{Kind: Refused, text: "the backend wants the password in clear text without TLS, which weir does not send; tell whoever keeps weir's configuration to set its tls mode"}
		}
		if code == authSASL && bytes.Contains(body[4:], []byte("SCRAM-SHA-256-PLUS\x00")) {
			conf.ChannelBinding = "require"
		}
	}
	return nil
}

// loginReader gives pgproto3 one message at a time, so that it never buffers a
// byte behind the login's ReadyForQuery: the connection can be taken over
// without asking the server to speak first, which would be a statement in its
// log. It also holds what a server may send before that within bounds.
type loginReader struct {
	r     io.Reader
	check func(auth []byte) error

	buf   []byte // what of the current message is not handed out yet
	left  int    // bytes of the current message that are still to be read from r
	total int
	done  bool // the first ReadyForQuery was seen
}

func (l *loginReader) Read(p []byte) (int, error) {
	if len(l.buf) == 0 && l.left == 0 {
		if l.done {
			return l.r.Read(p)
		}
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	if len(l.buf) > 0 {
		n := copy(p, l.buf)
		l.buf = l.buf[n:]
		return n, nil
	}
	n, err := l.r.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// next reads a message's header, and all of an AuthenticationRequest.
func (l *loginReader) next() error {
	header := make([]byte, 5)
	if _, err := io.ReadFull(l.r, header); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(header[1:])
	if length < 4 || length-4 > maxLoginFrame {
		return fmt.Errorf("a message of %d bytes in a login (at most %d)", length, maxLoginFrame)
	}
	body := int(length - 4)
	if l.total += body + len(header); l.total > maxLoginBytes {
		return fmt.Errorf("a login of more than %d bytes", maxLoginBytes)
	}
	l.buf, l.left = header, body
	switch header[0] {
	case 'Z':
		l.done = true
	case 'R':
		auth := make([]byte, body)
		if _, err := io.ReadFull(l.r, auth); err != nil {
			return err
		}
		l.left = 0
		if err := l.check(auth); err != nil {
			return err
		}
		l.buf = append(l.buf, auth...)
	}
	return nil
}

// hijack takes the connection out of pgconn's hands.
func (s *pgSession) hijack(ctx context.Context) (*PostgresSession, error) {
	// loginReader leaves nothing to synchronise, so this writes nothing.
	if err := s.conn.SyncConn(ctx); err != nil {
		s.conn.Conn().Close()
		return nil, &session.End{Reason: flow.ReasonInternal, Err: err}
	}
	h, err := s.conn.Hijack()
	if err != nil {
		s.conn.Conn().Close()
		return nil, &session.End{Reason: flow.ReasonInternal, Err: err}
	}
	_ = h.Conn.SetDeadline(time.Time{})
	return &PostgresSession{Conn: h.Conn, PID: h.PID, Secret: h.SecretKey, Parameters: h.ParameterStatuses,
		TxStatus: h.TxStatus, Address: s.address, TLS: s.tls}, nil
}
