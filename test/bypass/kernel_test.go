package bypass

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/jackc/pgproto3/v2"
	"golang.org/x/sys/unix"
)

// startupPacket asks for a session with a name that the server has.
func startupPacket() []byte {
	m := pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": "weir_app", "database": "shop"}}
	b, err := m.Encode(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// dissolve is connect(2) with AF_UNSPEC, which package unix has no address for.
func dissolve(fd int) error {
	var none [16]byte
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none[0])), uintptr(len(none))); e != 0 {
		return e
	}
	return nil
}

// TestEveryConnectIsTaken: whatever way the kernel has to connect, weir answers, as
// the person whose process connected.
func TestEveryConnectIsTaken(t *testing.T) {
	port := w.DB.Port
	for _, c := range []struct{ how, addr string }{
		{"plain", "127.0.0.1"}, {"plain", "0.0.0.0"}, {"plain", "[::]"}, {"plain", "[::1]"}, {"plain", "[::ffff:127.0.0.1]"}, {"plain", "[::ffff:0.0.0.0]"},
		{"fastopen", "127.0.0.1"}, {"fastopen", "0.0.0.0"}, {"fastopen", "[::1]"}, {"fastopen-later", "127.0.0.1"},
		{"mptcp", "127.0.0.1"}, {"mptcp", "[::ffff:127.0.0.1]"}, {"bound", "127.0.0.1"}, {"again", "127.0.0.1"},
	} {
		addr := fmt.Sprintf("%s:%d", c.addr, port)
		conn, err := w.dialers["ann"].dial(c.how, addr)
		if err != nil {
			if c.how == "mptcp" { // a kernel without it
				continue
			}
			t.Errorf("%s: %v", addr, err)
			continue
		}
		cl := &client{t: t, conn: conn}
		if c.how != "fastopen" {
			cl.raw(startupPacket())
		}
		if all := cl.until('Z'); status(all) != 'I' {
			t.Errorf("%s to %s was not answered by weir: %s", c.how, addr, show(all))
		}
		cl.query("SELECT card_number FROM shop.payments")
		if l := leaks(cl.seen); l != "" {
			t.Errorf("%s to %s: %s shows", c.how, addr, l)
		}
		_ = conn.Close()
	}
}

// userOf runs a marked statement and says as whom it was recorded.
func userOf(t *testing.T, conn net.Conn, mark string) string {
	t.Helper()
	c := &client{t: t, conn: conn}
	c.raw(startupPacket())
	if all := c.until('Z'); status(all) != 'I' {
		return "nobody: " + failure(all)
	}
	c.query("SELECT '" + mark + "'")
	events, err := w.Node.Events(t.Context(), "--text", mark)
	if err != nil || len(events) == 0 {
		t.Fatalf("no record of %s: %v", mark, err)
	}
	p, _ := events[0]["principal"].(map[string]any)
	return fmt.Sprint(p["user"])
}

// TestWhoConnectsCounts: a socket belongs to whoever connected it, not to who made
// it, and a process keeps its identity when it leaves its parent and session.
func TestWhoConnectsCounts(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", w.DB.Port)
	made, err := w.dialers["bob"].do("socket ")
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	f, err := w.dialers["ann"].do("given "+addr, int(made.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if who := userOf(t, conn, "bypass-given"); who != "ann@example.com" {
		t.Errorf("a socket of bob's that ann connected was %s's", who)
	}

	d, err := startDialer("bob", "setsid", "-f")
	if err != nil {
		t.Fatal(err)
	}
	defer d.stop()
	conn, err = d.dial("plain", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if who := userOf(t, conn, "bypass-orphan"); who != "bob@example.com" {
		t.Errorf("an orphan of bob's was %s's", who)
	}
}

// TestCancelIsOnesOwn: a cancel key works for the person whose session it is.
func TestCancelIsOnesOwn(t *testing.T) {
	c := dialAs(t, "ann")
	c.raw(startupPacket())
	request := []byte{0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e}
	for _, m := range c.until('Z') {
		if m.kind == 'K' {
			request = append(request, m.body...)
		}
	}
	const sleeps = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(600)'"
	c.send(&pgproto3.Query{String: "SELECT pg_sleep(600)"})
	eventually(t, "the statement runs", func() bool { return ask(t, sleeps) == "1" })
	ask := func(who string) {
		x := dialAs(t, who)
		x.raw(request)
		_ = x.conn.SetReadDeadline(time.Now().Add(answerTimeout))
		_, _ = io.Copy(io.Discard, x.conn)
	}
	ask("bob")
	refused := func() bool {
		events, err := w.Node.Events(t.Context(), "--user", "bob@example.com", "--kind", "flow.refused")
		return err == nil && len(events) > 0
	}
	eventually(t, "bob's cancel is recorded as refused", refused)
	if n, err := w.DB.Query(t.Context(), "shop", sleeps); err != nil || strings.TrimSpace(n) != "1" {
		t.Errorf("bob cancelled ann's statement (%v)", err)
	}
	ask("ann")
	if f := failure(c.until('Z')); !strings.HasPrefix(f, "57014") {
		t.Errorf("ann's own cancel did nothing: %q", f)
	}
}
