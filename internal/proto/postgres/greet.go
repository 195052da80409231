package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/weirproxy/weir/internal/session"
)

// greeting reads a client's first packets. It is blocking code under a deadline.
type greeting struct {
	handler *Handler
	gate    *session.Gate
	conn    net.Conn
	buf     []byte // read and not used yet
	tls     bool
}

// request is what the client wants in the end: a session or a cancellation.
type request struct {
	startup *startup
	cancel  *cancelKey
}

// firstRead is how much is read at once: ordinary startup packets are shorter.
const firstRead = 512

// fill reads until n bytes are there.
func (g *greeting) fill(n int) error {
	for len(g.buf) < n {
		if cap(g.buf)-len(g.buf) < n-len(g.buf) || cap(g.buf) == len(g.buf) {
			grown := make([]byte, len(g.buf), max(n, firstRead))
			copy(grown, g.buf)
			g.buf = grown
		}
		k, err := g.conn.Read(g.buf[len(g.buf):cap(g.buf)])
		g.buf = g.buf[:len(g.buf)+k]
		if err != nil && len(g.buf) < n {
			return err
		}
	}
	return nil
}

// packet reads one startup packet and returns it without its length.
func (g *greeting) packet() ([]byte, error) {
	if err := g.fill(4); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(g.buf))
	if n < 8 || n > maxStartup {
		return nil, &startupError{codeProtocol, "weir: invalid length of startup packet"}
	}
	if err := g.fill(int(n)); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	p := append([]byte(nil), g.buf[4:n]...)
	g.buf = g.buf[:copy(g.buf, g.buf[n:])]
	return p, nil
}

// read goes through the packets up to StartupMessage or CancelRequest.
func (g *greeting) read(ctx context.Context) (*request, error) {
	if err := g.fill(1); err != nil {
		return nil, err
	}
	if g.buf[0] == firstByteTLS {
		if err := g.startTLS(ctx, true); err != nil {
			return nil, err
		}
	}
	seen := make(map[uint32]bool, maxStartupRounds)
	for {
		p, err := g.packet()
		if err != nil {
			return nil, err
		}
		code := binary.BigEndian.Uint32(p)
		switch {
		case code == codeCancelRequest:
			k, ok := parseCancel(p)
			if !ok {
				return nil, &startupError{codeProtocol, "weir: invalid cancel request"}
			}
			return &request{cancel: &k}, nil
		case code == codeSSLRequest || code == codeGSSENCRequest:
			if len(p) != 4 || g.tls || seen[code] {
				return nil, &startupError{codeProtocol, "weir: invalid startup packet: a request for encryption out of place"}
			}
			seen[code] = true
			if len(g.buf) > 0 { // CVE-2021-23214: it would be taken for the encrypted stream's
				return nil, &startupError{codeProtocol, "weir: received data after a request for encryption"}
			}
			if err := g.negotiate(ctx, code); err != nil {
				return nil, err
			}
		default:
			s, err := parseStartup(p)
			if err != nil {
				return nil, err
			}
			return &request{startup: s}, nil
		}
	}
}

// negotiate answers SSLRequest with TLS and GSSENCRequest with no.
func (g *greeting) negotiate(ctx context.Context, code uint32) error {
	if code == codeGSSENCRequest {
		_, err := g.conn.Write([]byte{'N'})
		return err
	}
	if _, err := g.conn.Write([]byte{'S'}); err != nil {
		return err
	}
	return g.startTLS(ctx, false)
}

// startTLS makes the rest of the connection TLS. Direct TLS has to name the protocol
// by ALPN, or it could be a client of another one.
func (g *greeting) startTLS(ctx context.Context, direct bool) error {
	plain := g.conn
	if len(g.buf) > 0 {
		plain = &pushedBack{Conn: g.conn, buf: g.buf}
		g.buf = nil
	}
	c := tls.Server(plain, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			config, err := g.handler.config.TLS(g.gate, hello.ServerName)
			if err != nil {
				return nil, err
			}
			config = config.Clone()
			config.NextProtos, config.MinVersion = []string{alpn}, max(config.MinVersion, tls.VersionTLS12)
			return config, nil
		},
	})
	g.conn, g.tls = c, true
	if err := c.HandshakeContext(ctx); err != nil {
		return &tlsError{err}
	}
	if direct && c.ConnectionState().NegotiatedProtocol != alpn {
		return &tlsError{fmt.Errorf("direct TLS without ALPN %q", alpn)}
	}
	return nil
}

// tlsError is a handshake that failed: nothing can be said to the client.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS handshake with the client: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// client is the connection for all that follows.
func (g *greeting) client() net.Conn {
	if len(g.buf) == 0 {
		return g.conn
	}
	return &pushedBack{Conn: g.conn, buf: g.buf}
}

// pushedBack reads buf before the connection.
type pushedBack struct {
	net.Conn
	buf []byte
}

// NetConn is the connection under it.
func (c *pushedBack) NetConn() net.Conn { return c.Conn }

func (c *pushedBack) Read(b []byte) (int, error) {
	if len(c.buf) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.buf)
	c.buf = c.buf[n:]
	return n, nil
}

var errSilent = errors.New("the client said nothing within the time for signing in")
