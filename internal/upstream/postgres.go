package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
)

// PostgresSession is a session at a PostgreSQL server that is idle after its
// first ReadyForQuery. Not a byte behind that has been read.
type PostgresSession struct {
	Conn       net.Conn // a *net.TCPConn or a *tls.Conn; the caller closes it
	PID        uint32   // the server's process
	Secret     []byte   // the key that a CancelRequest must carry
	Parameters map[string]string
	TxStatus   byte
	Address    string // ip:port of the server
	TLS        bool
}

// Request codes of packets before a StartupMessage (PostgreSQL manual, 55.7).
const (
	codeCancel = 80877102
	codeSSL    = 80877103
)

// alpnPostgres is the registered protocol name (PostgreSQL manual, 55.2.10).
const alpnPostgres = "postgresql"

// SignInPostgres opens a session for an admitted flow: its database, the
// account that the backend's credentials give the principal, and the client's
// start-up parameters. `user`, `database` and `replication` among those are
// ignored.
func (d *Dialer) SignInPostgres(ctx context.Context, g session.Grant, params map[string]string) (*PostgresSession, error) {
	ctx, cancel := context.WithTimeout(ctx, signInTimeout)
	defer cancel()
	pg, err := d.signIn(ctx, g, params, loginOnly)
	if err != nil {
		return nil, err
	}
	return pg.hijack(ctx)
}

// dialPostgres connects and starts TLS as the backend's mode says. PostgreSQL
// answers an SSLRequest with one byte, so prefer costs no second connection.
func (d *Dialer) dialPostgres(ctx context.Context, b *backend, f *flow.Flow) (net.Conn, error) {
	c, err := d.connect(ctx, b, f)
	if err != nil {
		return nil, err
	}
	t, err := d.startTLS(ctx, b, f, c)
	if err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

func (d *Dialer) startTLS(ctx context.Context, b *backend, f *flow.Flow, c net.Conn) (net.Conn, error) {
	if b.tls.mode == Disable {
		return c, nil
	}
	release := deadline(ctx, c)
	defer release()
	var answer [1]byte
	_, err := c.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeSSL))
	if err == nil {
		// One byte only: what a man in the middle puts behind it in plain text is
		// then taken for TLS and fails (CVE-2021-23222).
		_, err = io.ReadFull(c, answer[:])
	}
	switch {
	case err != nil:
		return nil, d.fail(f, unreachable(b, err))
	case answer[0] == 'S':
		return d.handshake(ctx, b, f, c, alpnPostgres)
	case answer[0] == 'N' && b.tls.mode == Prefer:
		return c, nil
	case answer[0] == 'N':
		return nil, d.fail(f, tlsFailed(b, errNoTLS))
	}
	// 'E': the server could not even start a process for us.
	return nil, d.fail(f, unreachable(b, errors.New("the server answered the SSLRequest with neither S nor N")))
}

// CancelPostgres asks the server to interrupt what the session with this process
// id and secret runs, over TLS when the session was. It returns when the server
// has closed the connection, which it does after the signal is sent.
func (d *Dialer) CancelPostgres(ctx context.Context, g session.Grant, pid uint32, secret []byte) error {
	b, f, err := d.admitted(g)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, signInTimeout)
	defer cancel()
	addresses, err := d.addresses(ctx, b, &f)
	if err != nil {
		return err
	}
	// A name may stand for several servers and only one knows this process; all
	// of them are the backend's own.
	var errs []error
	for _, a := range addresses {
		if err := d.cancelAt(ctx, b, &f, a, pid, secret); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(addresses) {
		return errs[0]
	}
	return nil
}

func (d *Dialer) cancelAt(ctx context.Context, b *backend, f *flow.Flow, address string, pid uint32, secret []byte) error {
	raw, err := d.connectTo(ctx, f, address)
	if err != nil {
		return d.fail(f, unreachable(b, err))
	}
	defer raw.Close()
	c, err := d.startTLS(ctx, b, f, raw)
	if err != nil {
		return err
	}
	release := deadline(ctx, raw)
	defer release()
	m := binary.BigEndian.AppendUint32(nil, uint32(12+len(secret)))
	m = binary.BigEndian.AppendUint32(m, codeCancel)
	m = binary.BigEndian.AppendUint32(m, pid)
	if _, err := c.Write(append(m, secret...)); err != nil {
		return d.fail(f, unreachable(b, err))
	}
	// Any end will do: the server says nothing, and closes.
	_, _ = c.Read(make([]byte, 1))
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("waiting for the server to take the cancel request: %w", err)
	}
	return nil
}
