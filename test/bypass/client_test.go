package bypass

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
)

// client speaks the protocol by hand and keeps all that it was sent.
type client struct {
	t    *testing.T
	conn net.Conn
	seen []byte
}

// message is one message of the server's.
type message struct {
	kind byte
	body []byte
}

const answerTimeout = 30 * time.Second

// connect opens a session as somebody; it must succeed.
func connect(t *testing.T, who string, params ...string) *client {
	t.Helper()
	c := dialAs(t, who)
	m := map[string]string{"user": "whoever", "database": "shop"}
	for i := 0; i+1 < len(params); i += 2 {
		m[params[i]] = params[i+1]
	}
	c.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: m})
	if all := c.until('Z'); len(all) == 0 || all[len(all)-1].kind != 'Z' {
		t.Fatalf("no session for %s: %s\nagent: %s", who, show(all), w.Node.LogTail())
	}
	c.seen = nil
	return c
}

func dialAs(t *testing.T, who string) *client {
	t.Helper()
	conn, err := w.dialers[who].dial("plain", w.DB.Addr())
	if err != nil {
		t.Fatalf("connect as %s: %v", who, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w.mu.Lock()
	w.open = append(w.open, conn)
	w.mu.Unlock()
	return &client{t: t, conn: conn}
}

func (c *client) send(messages ...pgproto3.FrontendMessage) {
	c.t.Helper()
	c.raw(encode(c.t, messages))
}

func encode(t *testing.T, messages []pgproto3.FrontendMessage) (b []byte) {
	t.Helper()
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (c *client) raw(b []byte) {
	c.t.Helper()
	_ = c.conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	if _, err := c.conn.Write(b); err != nil {
		c.t.Logf("write: %v", err)
	}
}

// next reads one message; false at the end of the connection.
func (c *client) next() (message, bool) {
	_ = c.conn.SetReadDeadline(time.Now().Add(answerTimeout))
	var h [5]byte
	if _, err := io.ReadFull(c.conn, h[:]); err != nil {
		return message{}, false
	}
	n := int(binary.BigEndian.Uint32(h[1:])) - 4
	if n < 0 || n > 1<<28 {
		c.t.Fatalf("a message of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return message{}, false
	}
	c.seen = append(append(c.seen, h[:]...), body...)
	return message{h[0], body}, true
}

// until reads up to a message of a kind, or to the end.
func (c *client) until(kind byte) (all []message) {
	for {
		m, ok := c.next()
		if !ok {
			return all
		}
		if all = append(all, m); m.kind == kind {
			return all
		}
	}
}

// rest reads to the end.
func (c *client) rest() []message { return c.until(0) }

// query runs a simple query to its end.
func (c *client) query(sql string) []message {
	c.t.Helper()
	c.send(&pgproto3.Query{String: sql})
	return c.until('Z')
}

// extended is Parse, Bind, Execute and Sync of the unnamed statement.
func (c *client) extended(sql string, formats ...int16) []message {
	c.t.Helper()
	c.send(&pgproto3.Parse{Query: sql}, &pgproto3.Bind{ResultFormatCodes: formats}, &pgproto3.Execute{}, &pgproto3.Sync{})
	return c.until('Z')
}

// failure is the first error's code and message, "" without one.
func failure(all []message) string {
	for _, m := range all {
		if m.kind == 'E' {
			var e pgproto3.ErrorResponse
			if e.Decode(m.body) == nil {
				return e.Code + " " + e.Message
			}
		}
	}
	return ""
}

// status is the transaction status of the last ReadyForQuery, 0 without one.
func status(all []message) byte {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].kind == 'Z' {
			return all[i].body[0]
		}
	}
	return 0
}

func kinds(all []message) string {
	var b strings.Builder
	for _, m := range all {
		b.WriteByte(m.kind)
	}
	return b.String()
}

// show is for messages of failed tests.
func show(all []message) string {
	var b strings.Builder
	for _, m := range all {
		body := m.body
		if len(body) > 300 {
			body = body[:300]
		}
		fmt.Fprintf(&b, "%c %q\n", m.kind, body)
	}
	return b.String()
}
