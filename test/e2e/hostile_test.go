package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// raw connects from the captured cgroup as somebody, sends bytes, and prints
// what comes back. piece is the size of each send.
func raw(t *testing.T, who string, payload []byte, piece int) string {
	t.Helper()
	out, err := run(t, who, "/usr/bin/python3", "-c", `
import base64, socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 30)
b, piece = base64.b64decode(sys.argv[2]), int(sys.argv[3])
try:
    for i in range(0, len(b), piece):
        s.sendall(b[i:i + piece])
        if piece == 1: time.sleep(0.0005)
    s.settimeout(90)
    got = b""
    while True:
        d = s.recv(65536)
        if not d: break
        got += d
        if b"Z\0\0\0\5" in got: break
    sys.stdout.write(repr(got))
except ConnectionError as e:
    sys.stdout.write("closed")
`, fmt.Sprint(w.DB.Port), base64.StdEncoding.EncodeToString(payload), fmt.Sprint(piece))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return out
}

func startup() []byte {
	body := "\x00\x03\x00\x00user\x00ann\x00database\x00shop\x00\x00"
	return append([]byte{0, 0, 0, byte(len(body) + 4)}, body...)
}

func TestHostileBytes(t *testing.T) {
	noise := make([]byte, 4096)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	noise[0] = 0x7f // neither a TLS hello nor a small packet
	sslRequest := []byte{0, 0, 0, 8, 4, 210, 22, 47}
	cases := map[string][]byte{
		"2 GiB startup":            {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"random bytes":             noise,
		"negative length":          {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"length of three":          {0, 0, 0, 3},
		"pipelined before TLS":     append(append([]byte{}, sslRequest...), startup()...),
		"protocol 2":               {0, 0, 0, 8, 0, 2, 0, 0},
		"no terminator":            {0, 0, 0, 12, 0, 3, 0, 0, 'u', 's', 'e', 'r'},
		"plain HTTP":               []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"2 GiB query after login":  append(startup(), 'Q', 0x7f, 0xff, 0xff, 0xff, 'x'),
		"unknown type after login": append(startup(), 0xfe, 0, 0, 0, 4),
		"password after login":     append(startup(), 'p', 0, 0, 0, 5, 0),
		"second startup":           append(startup(), startup()...),
	}
	before := statusKiB(t, w.Node.AgentPID(), "VmRSS")
	for name, payload := range cases {
		t.Run(name, func(t *testing.T) {
			from := since()
			got := raw(t, "ann", payload, len(payload))
			if strings.Contains(got, "kettle") {
				t.Errorf("answer %s", got)
			}
			eventually(t, "the flow's end is recorded", func() bool {
				return len(events(t, "--from", from, "--kind", "flow.refused"))+len(events(t, "--from", from, "--kind", "flow.close")) > 0
			})
			var kinds []string
			for _, e := range events(t, "--from", from) {
				if k := fmt.Sprint(e["kind"]); strings.HasPrefix(k, "flow.") {
					kinds = append(kinds, k)
				}
			}
			want := "flow.refused"
			if strings.Contains(name, "after login") || name == "second startup" {
				want = "flow.open flow.close"
			}
			if got := strings.Join(kinds, " "); got != want {
				t.Errorf("events %q, want %q", got, want)
			}
		})
	}
	if after := statusKiB(t, w.Node.AgentPID(), "VmRSS"); after > before+32<<10 {
		t.Errorf("memory rose from %d to %d KiB", before, after)
	}
	if got := raw(t, "ann", startup(), 1); !strings.Contains(got, "server_version") {
		t.Errorf("a startup packet in pieces of one byte: %s", got)
	}
	if got := mustPsql(t, "ann", "-Atc", "SELECT 1"); got != "1\n" {
		t.Errorf("afterwards: %q", got)
	}
}

// TestSilentConnections: a thousand connections that say nothing do not keep a
// new client waiting.
func TestSilentConnections(t *testing.T) {
	cmd := command(t.Context(), "eve", "/usr/bin/python3", "-c", `
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), 30) for _ in range(1000)]
print("held", flush=True)
sys.stdin.read()
`, fmt.Sprint(w.DB.Port))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Node.Start(cmd); err != nil {
		t.Fatal(err)
	}
	defer func() { stdin.Close(); _ = cmd.Wait() }()
	said := make([]byte, 5)
	if _, err := stdout.Read(said); err != nil {
		t.Fatal(err)
	}
	if got := mustPsql(t, "ann", "-Atc", "SELECT 1"); got != "1\n" {
		t.Errorf("answer %q", got)
	}
}
