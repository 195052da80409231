package postgres

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// startupPacket encodes a StartupMessage.
func startupPacket(version uint32, pairs ...string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0}, version)
	for _, s := range pairs {
		b = append(append(b, s...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func codePacket(code uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)
}

// dial connects to w.
func (w *world) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", w.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// end waits for the one closing event of a world with one flow.
func (w *world) end(t testing.TB) *auditlog.Event {
	t.Helper()
	var last *auditlog.Event
	waitFor(t, "the end of the flow", func() bool {
		n := 0
		for _, e := range w.snapshot() {
			if e.Kind == auditlog.FlowClose || e.Kind == auditlog.FlowRefused {
				last = e
				n++
			}
		}
		if n > 1 {
			t.Fatalf("%d closing events for one flow", n)
		}
		return n == 1
	})
	return last
}

// readUntil reads server messages until one of the given type; it returns all of
// them as a script.
func readUntil(t testing.TB, c net.Conn, kind byte) string {
	t.Helper()
	var all []byte
	for {
		h := make([]byte, 5)
		if _, err := io.ReadFull(c, h); err != nil {
			t.Fatalf("after %q: %v", serverScript(all), err)
		}
		body := make([]byte, binary.BigEndian.Uint32(h[1:])-4)
		if _, err := io.ReadFull(c, body); err != nil {
			t.Fatal(err)
		}
		all = append(append(all, h...), body...)
		if h[0] == kind {
			return serverScript(all)
		}
	}
}

// TestHostileStartups: every one is refused cleanly, with exactly one event.
func TestHostileStartups(t *testing.T) {
	huge := []byte{0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0}
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	random[0] = 0xff
	tests := []struct {
		name   string
		send   []byte
		answer string // part of what comes back, "" for nothing
		reason flow.Reason
	}{
		{"a length of 2 GiB", huge, "invalid length", flow.ReasonProtocol},
		{"a length of 0", []byte{0, 0, 0, 0, 0, 3, 0, 0}, "invalid length", flow.ReasonProtocol},
		{"a length of 10,001", []byte{0, 0, 0x27, 0x11, 0, 3, 0, 0}, "invalid length", flow.ReasonProtocol},
		{"random bytes", random, "invalid length", flow.ReasonProtocol},
		{"half a packet", []byte{0, 0, 0, 20, 0, 3}, "", flow.ReasonProtocol},
		{"nothing", nil, "", flow.ReasonClientClosed},
		{"protocol 2.0", startupPacket(2<<16, "user", "x"), "0A000", flow.ReasonProtocol},
		{"no user", startupPacket(version30), "28000", flow.ReasonProtocol},
		{"pairs that are none", append(startupPacket(version30, "user", "x")[:13], 'a', 'b', 0), "invalid startup packet", flow.ReasonProtocol},
		{"bytes before TLS", append(codePacket(codeSSLRequest), clientBytes("Q select 1")...), "received data after", flow.ReasonProtocol},
		{"bytes before GSS", append(codePacket(codeGSSENCRequest), startupPacket(version30, "user", "x")...), "received data after", flow.ReasonProtocol},
		{"replication", startupPacket(version30, "user", "x", "replication", "database"), "replication", flow.ReasonProtocol},
		{"role", startupPacket(version30, "user", "x", "role", "dba"), `parameter "role"`, flow.ReasonDenied},
		{"session_replication_role", startupPacket(version30, "user", "x", "session_replication_role", "replica"), `"session_replication_role"`, flow.ReasonDenied},
		{"role in options", startupPacket(version30, "user", "x", "options", `-c\ role=dba`), "option", flow.ReasonDenied},
		{"role in options, long", startupPacket(version30, "user", "x", "options", `--role=dba`), `"role"`, flow.ReasonDenied},
		{"another switch", startupPacket(version30, "user", "x", "options", `-O`), `"-O"`, flow.ReasonDenied},
		{"an empty option", startupPacket(version30, "user", "x", "options", `-c =x`), "option", flow.ReasonDenied},
		{"SJIS", startupPacket(version30, "user", "x", "client_encoding", "Shift-JIS"), "client_encoding", flow.ReasonProtocol},
		{"a cancel request of nobody", append([]byte{0, 0, 0, 16}, []byte{4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 1}...), "", flow.ReasonCancelRequest},
		{"a torn cancel request", append([]byte{0, 0, 0, 12}, []byte{4, 210, 22, 46, 0, 0, 0, 1}...), "invalid cancel request", flow.ReasonProtocol},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, "postgres://nowhere.invalid:1/x", nil)
			c := w.dial(t)
			if _, err := c.Write(test.send); err != nil {
				t.Fatal(err)
			}
			_ = c.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(c)
			if err != nil && !strings.Contains(err.Error(), "reset") {
				t.Fatal(err)
			}
			if test.answer == "" && len(got) > 0 || !strings.Contains(string(got), test.answer) {
				t.Errorf("answer %q, want %q in it", got, test.answer)
			}
			if e := w.end(t); e.Kind != auditlog.FlowRefused || e.Reason != string(test.reason) {
				t.Errorf("event %s %s, want %s", e.Kind, e.Reason, test.reason)
			}
		})
	}
}

func TestStartupInPieces(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	c := w.dial(t)
	for _, b := range startupPacket(version30, "user", "x", "database", "postgres") {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	got := readUntil(t, c, 'Z')
	if !strings.HasPrefix(got, "R | S ") || !strings.HasSuffix(got, "K | Z I") {
		t.Errorf("welcome %q", got)
	}
}

// TestSilentClients: many connections that say nothing do not keep anybody waiting,
// and cost little.
func TestSilentClients(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	before := heap()
	for range 1000 {
		w.dial(t)
	}
	c := w.dial(t)
	if _, err := c.Write(startupPacket(version30, "user", "x", "database", "postgres")); err != nil {
		t.Fatal(err)
	}
	readUntil(t, c, 'Z')
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("1,000 silent connections cost %d bytes", grown)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestVersionNegotiation(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	c := w.dial(t)
	if _, err := c.Write(startupPacket(version30+2, "user", "x", "database", "postgres", "_pq_.some", "1")); err != nil {
		t.Fatal(err)
	}
	h := make([]byte, 5)
	if _, err := io.ReadFull(c, h); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(h[1:])-4)
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatal(err)
	}
	want := "\x00\x03\x00\x00\x00\x00\x00\x01_pq_.some\x00"
	if h[0] != 'v' || string(body) != want {
		t.Errorf("%q %q", h[0], body)
	}
	readUntil(t, c, 'Z')
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name   string
		whoErr error
		deny   bool
		code   string
		reason flow.Reason
	}{
		{"no identity", errors.New("nobody is signed in here; run `weir login`"), false, codeAuthorization, flow.ReasonNoIdentity},
		{"expired", session.ErrExpired, false, codeAuthorization, flow.ReasonExpired},
		{"denied", nil, true, codeDenied, flow.ReasonDenied},
		{"unreachable", nil, false, codeConnect, flow.ReasonUnreachable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, "postgres://127.0.0.1:1/x?sslmode=disable", nil)
			w.set(func() {
				w.whoErr = test.whoErr
				if test.whoErr != nil {
					w.who = nil
				}
				if test.deny {
					w.decide = func(policy.Input) policy.Decision {
						return policy.Decision{Verdict: flow.Deny, Rule: "r", Reason: "no"}
					}
				}
			})
			c := w.dial(t)
			_, _ = c.Write(startupPacket(version30, "user", "x"))
			got := readUntil(t, c, 'E')
			if !strings.HasPrefix(got, "E FATAL!"+test.code+" weir: ") {
				t.Errorf("%q", got)
			}
			if e := w.end(t); e.Kind != auditlog.FlowRefused || e.Reason != string(test.reason) || e.Database != "x" {
				t.Errorf("event %s %s database %q", e.Kind, e.Reason, e.Database)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	url := startBackend(t)
	config := &tls.Config{InsecureSkipVerify: true}
	direct := config.Clone()
	direct.NextProtos = []string{alpn}
	t.Run("direct", func(t *testing.T) {
		w := newWorld(t, url, nil)
		c := tls.Client(w.dial(t), direct)
		if _, err := c.Write(startupPacket(version30, "user", "x", "database", "postgres")); err != nil {
			t.Fatal(err)
		}
		readUntil(t, c, 'Z')
		_, _ = c.Write(clientBytes("Q select 5 | X"))
		if got := readUntil(t, c, 'Z'); !strings.Contains(got, "D 5") {
			t.Errorf("%q", got)
		}
		if e := w.end(t); e.Kind != auditlog.FlowClose || e.Reason != "client_closed" {
			t.Errorf("%s %s", e.Kind, e.Reason)
		}
	})
	t.Run("direct without ALPN", func(t *testing.T) {
		w := newWorld(t, url, nil)
		c := tls.Client(w.dial(t), config)
		_, _ = c.Write(startupPacket(version30, "user", "x", "database", "postgres"))
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Log(err)
		}
		if e := w.end(t); e.Kind != auditlog.FlowRefused || e.Reason != "protocol_error" {
			t.Errorf("%s %s", e.Kind, e.Reason)
		}
	})
	t.Run("GSS, then TLS, then a second TLS", func(t *testing.T) {
		w := newWorld(t, url, nil)
		raw := w.dial(t)
		b := make([]byte, 1)
		_, _ = raw.Write(codePacket(codeGSSENCRequest))
		if _, err := io.ReadFull(raw, b); err != nil || b[0] != 'N' {
			t.Fatalf("%q %v", b, err)
		}
		_, _ = raw.Write(codePacket(codeSSLRequest))
		if _, err := io.ReadFull(raw, b); err != nil || b[0] != 'S' {
			t.Fatalf("%q %v", b, err)
		}
		c := tls.Client(raw, config)
		_, _ = c.Write(codePacket(codeSSLRequest))
		if got := readUntil(t, c, 'E'); !strings.Contains(got, "08P01") {
			t.Errorf("%q", got)
		}
		w.end(t)
	})
	t.Run("psql", func(t *testing.T) {
		w := newWorld(t, url, nil)
		for _, mode := range []string{"disable", "prefer", "require"} {
			if out, errs := w.psql(t, []string{"PGSSLMODE=" + mode}, "-c", "select 1"); out != "1\n" {
				t.Errorf("%s: %q %q", mode, out, errs)
			}
		}
	})
}

// TestMessagesOutOfPlace sends every message type that a client may not send: the
// flow ends with an error in words.
func TestMessagesOutOfPlace(t *testing.T) {
	w := fakeWorld(t)
	for kind := range 256 {
		if strings.IndexByte("QPBDCEHSFdcfX", byte(kind)) >= 0 {
			continue
		}
		withGate(t, w, func(g *session.Gate, grant session.Grant) {
			d := testEngine(t, w, g, grant)
			d.client(appendFrame(nil, byte(kind), 0, 0, 0, 0))
			if d.err == nil || len(d.toServer) > 0 || !strings.HasPrefix(serverScript(d.toClient), "E FATAL!08P01 weir: ") {
				t.Errorf("type %q: %v, %q", byte(kind), d.err, d.toClient)
			}
		})
	}
}

// TestMessageLengths tries the lengths at which a parser goes wrong.
func TestMessageLengths(t *testing.T) {
	w := fakeWorld(t)
	for _, kind := range []byte("QPBDCEHSFdcfX") {
		for _, n := range []uint32{0, 1, 3, maxLarge + 1, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
			withGate(t, w, func(g *session.Gate, grant session.Grant) {
				d := testEngine(t, w, g, grant)
				d.client(binary.BigEndian.AppendUint32([]byte{kind}, n))
				if d.err == nil {
					t.Errorf("type %q with length %d was taken", kind, n)
				}
			})
		}
	}
	for _, kind := range []byte("123ACDEGHINSTVZdcnst") {
		for _, n := range []uint32{0, 3, maxLarge + 1, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
			withGate(t, w, func(g *session.Gate, grant session.Grant) {
				d := testEngine(t, w, g, grant)
				d.client(clientBytes("Q select 1"))
				d.server(binary.BigEndian.AppendUint32([]byte{kind}, n))
				if d.err == nil {
					t.Errorf("the server's type %q with length %d was taken", kind, n)
				}
			})
		}
	}
}

// TestCancelOfOthers: somebody else's key does nothing.
func TestCancelOfOthers(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	c := w.dial(t)
	_, _ = c.Write(startupPacket(version30, "user", "x", "database", "postgres"))
	var key []byte
	for {
		h := make([]byte, 5)
		if _, err := io.ReadFull(c, h); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, binary.BigEndian.Uint32(h[1:])-4)
		_, _ = io.ReadFull(c, body)
		if h[0] == 'K' {
			key = body
		}
		if h[0] == 'Z' {
			break
		}
	}
	_, _ = c.Write(clientBytes("Q select pg_sleep(0.5)"))
	w.set(func() { w.who = &flow.Principal{Issuer: "https://idp.test", Subject: "ben", User: "ben@example.com"} })
	other := w.dial(t)
	_, _ = other.Write(append([]byte{0, 0, 0, 16, 4, 210, 22, 46}, key...))
	if b, err := io.ReadAll(other); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%q %v", b, err)
	}
	if got := readUntil(t, c, 'Z'); !strings.Contains(got, "C SELECT 1") {
		t.Errorf("%q", got)
	}
	if e := w.end(t); e.Kind != auditlog.FlowRefused || e.Reason != "cancel_request" {
		t.Errorf("%s %s", e.Kind, e.Reason)
	}
}

// TestRevocation: a live flow is cut, and its client told why.
func TestRevocation(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	w.set(func() { w.who.Expires = time.Now().Add(time.Hour) })
	c := w.dial(t)
	_, _ = c.Write(startupPacket(version30, "user", "x", "database", "postgres"))
	readUntil(t, c, 'Z')
	w.server.Live().Revoke(func(*flow.Principal) bool { return true }, session.ErrRevoked)
	if got := readUntil(t, c, 'E'); !strings.HasPrefix(got, "E FATAL!28000 weir: ") {
		t.Errorf("%q", got)
	}
	if e := w.end(t); e.Reason != "revoked" {
		t.Errorf("reason %s", e.Reason)
	}
}

// TestBigResult streams 300 MB through masks that have nothing to do and through
// none, with bounded memory.
func TestBigResult(t *testing.T) {
	url := startBackend(t)
	for _, masked := range []bool{false, true} {
		t.Run(fmt.Sprint("masked=", masked), func(t *testing.T) {
			w := newWorld(t, url, nil)
			if masked {
				w.setMasks(detect...)
			}
			c := w.dial(t)
			_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
			_, _ = c.Write(startupPacket(version30, "user", "x", "database", "postgres"))
			readUntil(t, c, 'Z')
			before := heap()
			_, _ = c.Write(clientBytes("Q select repeat('x', 1000) from generate_series(1, 300000)"))
			n, peak := int64(0), int64(0)
			buf := make([]byte, 256<<10)
			for n < 300e6 {
				k, err := c.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				if n>>25 != (n+int64(k))>>25 {
					peak = max(peak, heap()-before)
				}
				n += int64(k)
			}
			if peak > 8<<20 {
				t.Errorf("memory grew by %d bytes", peak)
			}
		})
	}
}

// TestLongMessages: values and statements that are longer than anything held.
func TestLongMessages(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	c := w.dial(t)
	_, _ = c.Write(startupPacket(version30, "user", "x", "database", "postgres"))
	readUntil(t, c, 'Z')
	long := strings.Repeat("v", 20<<20)
	before := heap()
	go func() {
		_, _ = c.Write(clientBytes("P - select length($1::text) | B - - " + long + " | D P  | E - | S"))
	}()
	if got := readUntil(t, c, 'Z'); !strings.Contains(got, fmt.Sprint("D ", 20<<20)) {
		t.Errorf("%.200q", got)
	}
	if grown := heap() - before; grown > 30<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	var params []string
	for _, e := range w.snapshot() {
		if e.Action != nil && len(e.Action.Params) > 0 {
			params = e.Action.Params
		}
	}
	if len(params) != 1 || !strings.HasPrefix(params[0], "[20971520 bytes, sha256:") {
		t.Errorf("params %.100q", params)
	}
	// A statement that is too long to be analysed is unknown: denied, and streamed
	// where policy allows it.
	text := "select 1 /* " + strings.Repeat("x", 2<<20) + " */"
	_, _ = c.Write(clientBytes("Q " + text))
	if got := readUntil(t, c, 'Z'); !strings.HasPrefix(got, "E 42501 weir: ") {
		t.Errorf("%.200q", got)
	}
	w.set(func() { w.decide = allowAll })
	_, _ = c.Write(clientBytes("Q " + text))
	if got := readUntil(t, c, 'Z'); !strings.Contains(got, "D 1 | C SELECT 1 | Z I") {
		t.Errorf("%.200q", got)
	}
	_, _ = c.Write(clientBytes("P - " + text + " | B - - | E - | S"))
	if got := readUntil(t, c, 'Z'); !strings.Contains(got, "D 1 | C SELECT 1 | Z I") {
		t.Errorf("%.200q", got)
	}
}

func allowAll(policy.Input) policy.Decision { return policy.Decision{Verdict: flow.Allow, Rule: "all"} }

// TestExpiry: the next action of an expired sign-in is refused in words, and the
// flow ends.
func TestExpiry(t *testing.T) {
	w := newWorld(t, startBackend(t), nil)
	c := w.dial(t)
	_, _ = c.Write(startupPacket(version30, "user", "x", "database", "postgres"))
	readUntil(t, c, 'Z')
	w.set(func() {
		late := *w.who
		late.Expires = time.Now().Add(-time.Second)
		w.who = &late
	})
	w.server.Live().Revoke(func(*flow.Principal) bool { return true }, session.ErrExpired)
	if got := readUntil(t, c, 'E'); !strings.HasPrefix(got, "E FATAL!28000 weir: ") {
		t.Errorf("%q", got)
	}
	if e := w.end(t); e.Reason != "expired" {
		t.Errorf("reason %s", e.Reason)
	}
}

// TestRowTooLong: a row that needs masking and is longer than the bound ends the
// flow; one that needs none passes.
func TestRowTooLong(t *testing.T) {
	for _, masked := range []bool{true, false} {
		w := newWorld(t, startBackend(t), nil)
		if masked {
			w.setMasks(detect...)
		}
		c := w.dial(t)
		_, _ = c.Write(startupPacket(version30, "user", "x", "database", "postgres"))
		readUntil(t, c, 'Z')
		_, _ = c.Write(clientBytes("Q select repeat('x', 5000000)"))
		if !masked {
			readUntil(t, c, 'Z')
			continue
		}
		if got := readUntil(t, c, 'E'); !strings.Contains(got, "FATAL!08P01 weir: ") {
			t.Errorf("%.200q", got)
		}
		if e := w.end(t); e.Reason != "protocol_error" {
			t.Errorf("reason %s", e.Reason)
		}
	}
}

// TestStartupSearchPath: a search path of the startup packet counts for decisions,
// however it is written.
func TestStartupSearchPath(t *testing.T) {
	url := startBackend(t)
	for _, pairs := range [][]string{{"search_path", "secret"}, {"options", "-c search_path=secret"}, {"options", `--search-path=secret`}, {"OPTIONS", "x"}} {
		w := newWorld(t, url, nil)
		c := w.dial(t)
		_, _ = c.Write(startupPacket(version30, append([]string{"user", "x", "database", "postgres"}, pairs...)...))
		if pairs[0] == "OPTIONS" {
			readUntil(t, c, 'E')
			continue
		}
		readUntil(t, c, 'Z')
		_, _ = c.Write(clientBytes("Q select * from pg_class_of_mine"))
		if got := readUntil(t, c, 'Z'); !strings.HasPrefix(got, "E 42501 weir: ") {
			t.Errorf("%v: %q", pairs, got)
		}
		_, _ = c.Write(clientBytes("Q show search_path"))
		if got := readUntil(t, c, 'Z'); !strings.Contains(got, "D secret") {
			t.Errorf("%v: %q", pairs, got)
		}
	}
}

// silentConn is a client that says nothing until its deadline.
type silentConn struct {
	net.Conn
	deadline time.Time
}

func (c *silentConn) SetDeadline(t time.Time) error { c.deadline = t; return nil }
func (*silentConn) SetReadDeadline(time.Time) error { return nil }
func (*silentConn) Read([]byte) (int, error)        { return 0, os.ErrDeadlineExceeded }
func (*silentConn) Write(b []byte) (int, error)     { return len(b), nil }
func (*silentConn) Close() error                    { return nil }

func TestSilentClientIsDropped(t *testing.T) {
	w := fakeWorld(t)
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	h, err := New(Config{Now: func() time.Time { return now }, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	c := &silentConn{}
	s := session.New(session.Config{Node: "test", Identify: w, Policy: func() session.Policy { return w }, Record: w,
		Login:    func(string, *flow.Principal) (string, bool) { return "postgres", true },
		Handlers: map[flow.Protocol]session.Handler{flow.Postgres: h}, Now: time.Now, Log: quiet()})
	s.Serve(t.Context(), &testConn{c, &flow.Flow{ID: "01TEST", Protocol: flow.Postgres}})
	if want := now.Add(startupTimeout); !c.deadline.Equal(want) {
		t.Errorf("deadline %v, want %v", c.deadline, want)
	}
	if e := w.end(t); e.Kind != auditlog.FlowRefused || e.Reason != string(flow.ReasonTimeout) {
		t.Errorf("%s %s", e.Kind, e.Reason)
	}
}
