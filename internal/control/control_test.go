package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weirproxy/weir/internal/control"
)

// start serves a handful of routes and returns the run directory.
func start(t *testing.T, peer func(*net.UnixConn) (int, error)) (dir string, released *atomic.Int64) {
	t.Helper()
	dir, err := os.MkdirTemp("", "weir-control") // short: a unix socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	released = &atomic.Int64{}
	s := control.NewServer(peer, func(int) { released.Add(1) })
	s.Handle("GET /who", func(_ context.Context, caller int, _ []byte, _ *http.Request) (any, error) { return caller, nil })
	s.Handle("POST /echo", func(_ context.Context, _ int, body []byte, _ *http.Request) (any, error) {
		return json.RawMessage(body), nil
	})
	s.Handle("GET /refuse", func(context.Context, int, []byte, *http.Request) (any, error) {
		return nil, control.Refuse(http.StatusUnauthorized, "weir: nobody is signed in")
	})
	s.Handle("GET /stream", func(context.Context, int, []byte, *http.Request) (any, error) {
		n := 0
		return control.Stream(func(context.Context) (any, error) {
			if n++; n > 3 {
				return nil, errors.New("end")
			}
			return n, nil
		}), nil
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return dir, released
}

func seven(*net.UnixConn) (int, error) { return 7, nil }

func TestCallerAndAnswer(t *testing.T) {
	dir, released := start(t, seven)
	c := control.NewClient(dir)
	var n int
	if err := c.Call(t.Context(), http.MethodGet, "/who", nil, &n); err != nil || n != 7 {
		t.Fatalf("%d, %v", n, err)
	}
	var echo map[string]string
	if err := c.Call(t.Context(), http.MethodPost, "/echo", map[string]string{"a": "b"}, &echo); err != nil || echo["a"] != "b" {
		t.Fatalf("%v, %v", echo, err)
	}
	var refusal *control.Error
	err := c.Call(t.Context(), http.MethodGet, "/refuse", nil, nil)
	if !errors.As(err, &refusal) || refusal.Status != http.StatusUnauthorized || refusal.Error() != "weir: nobody is signed in" {
		t.Errorf("%v", err)
	}
	var got []string
	if err := c.Follow(t.Context(), "/stream", func(raw json.RawMessage) error { got = append(got, string(raw)); return nil }); err != nil || strings.Join(got, "") != "123" {
		t.Errorf("%v, %v", got, err)
	}
	for released.Load() < 4 {
		runtime.Gosched() // connections end at once: the client keeps none
	}
}

func TestUnknownCallerIsRefused(t *testing.T) {
	dir, _ := start(t, func(*net.UnixConn) (int, error) { return 0, errors.New("gone") })
	var refusal *control.Error
	if err := control.NewClient(dir).Call(t.Context(), http.MethodGet, "/who", nil, nil); !errors.As(err, &refusal) || refusal.Status != http.StatusForbidden {
		t.Errorf("%v", err)
	}
}

func TestTooLongRequestIsRefused(t *testing.T) {
	dir, _ := start(t, seven)
	var refusal *control.Error
	err := control.NewClient(dir).Call(t.Context(), http.MethodPost, "/echo", strings.Repeat("x", 2<<20), nil)
	if !errors.As(err, &refusal) || refusal.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("%v", err)
	}
}

func TestOneAgentForOneSocket(t *testing.T) {
	dir, _ := start(t, seven)
	if l, err := control.Listen(dir); err == nil {
		l.Close()
		t.Error("a second agent took the socket of a live one")
	}
	if err := control.NewClient(t.TempDir()).Call(t.Context(), http.MethodGet, "/who", nil, nil); !errors.Is(err, control.ErrNoAgent) {
		t.Errorf("no agent: %v", err)
	}
}

// TestOneUserCannotHoldAllPlaces: the places of one user are bounded, and come
// back when the connections end.
func TestOneUserCannotHoldAllPlaces(t *testing.T) {
	dir, _ := start(t, seven)
	cmd := exec.Command("/usr/bin/setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", `
import socket, sys
held, refused = [], 0
for _ in range(200):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    held.append(s)
for s in held:
    s.settimeout(0.05)
    try:
        if s.recv(1) == b"": refused += 1
    except (TimeoutError, ConnectionError) as e:
        refused += isinstance(e, ConnectionError)
print(refused)
`, filepath.Join(dir, control.SocketName))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if n, e := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || e != nil || n < 200-64 {
		t.Errorf("of 200 connections of one user %s were refused, %v", out, err)
	}
	var n int
	if err := control.NewClient(dir).Call(t.Context(), http.MethodGet, "/who", nil, &n); err != nil || n != 7 {
		t.Errorf("root meanwhile: %d, %v", n, err)
	}
}
