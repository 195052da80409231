package bypass

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
)

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Node.AgentPID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// resident is the agent's memory, MiB.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.Node.AgentPID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var n int
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			return n >> 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// enough is far above what a client can make the agent hold, and far below what
// these clients would need if it held what they send, MiB.
const enough = 400

// TestAgentIsBounded: clients that prepare, announce and never read.
func TestAgentIsBounded(t *testing.T) {
	before := descriptors(t)
	text := "SELECT 1 /*" + strings.Repeat("x", 1<<20-200) + "*/"
	for name, attack := range map[string]func(c *client){
		"long prepared statements": func(c *client) {
			for i := range 100 {
				c.send(&pgproto3.Parse{Name: fmt.Sprint("s", i), Query: text}, &pgproto3.Sync{})
				c.until('Z')
			}
		},
		"many prepared statements": func(c *client) {
			var m sent
			for i := range 10000 {
				m = append(m, &pgproto3.Parse{Name: fmt.Sprint("s", i), Query: "SELECT 1"}, &pgproto3.Sync{})
			}
			b := encode(c.t, m)
			go c.raw(b)
			for range 10000 {
				c.until('Z')
			}
		},
		"announced and not sent": func(c *client) {
			for range 20 {
				x := connect(t, "ann")
				x.raw([]byte{'Q', 0x3f, 0xff, 0xff, 0xf0})
				x.raw(make([]byte, 60<<10))
			}
		},
		"never reads": func(c *client) {
			for range 10 {
				x := connect(t, "ann")
				var m sent
				for range 50 {
					m = append(m, &pgproto3.Query{String: "SELECT note, repeat('x', 1000000) FROM shop.payments, generate_series(1, 100)"})
				}
				x.send(m...)
			}
		},
		"a bind of 100 MiB": func(c *client) {
			const n = 100 << 20
			c.send(&pgproto3.Parse{Query: "SELECT length($1)"}, &pgproto3.Bind{Parameters: [][]byte{make([]byte, n)}}, &pgproto3.Sync{})
			c.until('Z')
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, "ann")
			attack(c)
			if n := resident(t); n > enough {
				t.Errorf("the agent holds %d MiB", n)
			}
			// Others are served meanwhile.
			if f := failure(connect(t, "bob").query("SELECT 1")); f != "" {
				t.Error(f)
			}
		})
	}
	w.closeAll()
	eventually(t, "the descriptors are free again", func() bool { return descriptors(t) <= before })
}

// TestAgentSocket: what a process without an identity gets from the agent's socket.
func TestAgentSocket(t *testing.T) {
	sock := filepath.Join(w.Dir, "node", "run", "agent.sock")
	long := strings.Repeat("a", 3<<20)
	for _, c := range []struct {
		name, request string
		status        int // 0: anything but 2xx
	}{
		{"status", "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"whoami", "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX-Uid: 0\r\n\r\n", 401},
		{"logout", "POST /v1/logout HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 401},
		{"exec without a login", "POST /v1/exec HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 401},
		{"a token that is none", "POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"token\":\"aaa.bb.c\"}", 401},
		{"no JSON", "POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 400},
		{"no HTTP", "\x00\x01\x02\r\n\r\n", 0},
		{"long header", "GET /v1/status HTTP/1.1\r\nX: " + long + "\r\n\r\n", 0},
		{"long body", "POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 3145728\r\n\r\n" + long, 0},
		{"negative length", "POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
		{"a path", "GET /v1/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 0},
		{"debugging", "GET /debug/pprof/ HTTP/1.1\r\nHost: x\r\n\r\n", 404},
	} {
		conn, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(answerTimeout))
		go func() { _, _ = io.WriteString(conn, c.request) }()
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			if c.status != 0 {
				t.Errorf("%s: %v", c.name, err)
			}
			_ = conn.Close()
			continue
		}
		if r.StatusCode != c.status && (c.status != 0 || r.StatusCode < 300) {
			t.Errorf("%s: %s", c.name, r.Status)
		}
		if c.status == 200 && !json.Valid(readAll(r.Body)) {
			t.Errorf("%s: no JSON", c.name)
		}
		_ = conn.Close()
	}
}

func readAll(r io.Reader) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, 1<<20))
	return b
}
