// Package control is the unix socket between the agent and the weir command:
// HTTP and JSON on RUN_DIR/agent.sock. It carries requests and says who sends
// them; what a request may do is its handler's business.
//
// The caller is what the kernel says about the socket's peer when the connection
// is accepted, never anything in a message.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// SocketName is the socket's name in the run directory.
const SocketName = "agent.sock"

// Bounds of one request.
const (
	maxBody        = 1 << 20 // bytes; an ID token is at most a few KiB
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second // of a whole request
	idleTimeout    = 5 * time.Second  // between two requests; weir's own client makes one
	requestTimeout = 30 * time.Second
)

// Error is what a handler refuses with; its text is for the user.
type Error struct {
	Status  int    `json:"-"` // HTTP status
	Message string `json:"error"`
}

func (e *Error) Error() string { return e.Message }

// Refuse makes an Error.
func Refuse(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// Server answers on the socket. C is whatever is learnt about a caller.
type Server[C any] struct {
	mux     *http.ServeMux
	server  *http.Server
	callers sync.Map // net.Conn -> C, released when the connection ends
}

type callerKey struct{}

type peerResult[C any] struct {
	caller C
	err    error
}

// NewServer makes a server without routes. peer asks the kernel about a new
// connection; release is called for its answer when the connection ends.
func NewServer[C any](peer func(*net.UnixConn) (C, error), release func(C)) *Server[C] {
	s := &Server[C]{mux: http.NewServeMux()}
	s.server = &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			var p peerResult[C]
			if u, ok := c.(*limitedConn); ok {
				if p.caller, p.err = peer(u.UnixConn); p.err == nil {
					s.callers.Store(c, p.caller)
				}
			} else {
				p.err = errors.New("not a unix socket")
			}
			return context.WithValue(ctx, callerKey{}, p)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if state != http.StateClosed && state != http.StateHijacked {
				return
			}
			if caller, ok := s.callers.LoadAndDelete(c); ok {
				release(caller.(C))
			}
		},
	}
	return s
}

// Handle adds a route ("GET /v1/status"). The handler's result is sent as JSON;
// a result that is an Stream is sent as JSON lines until its channel closes.
func (s *Server[C]) Handle(pattern string, h func(ctx context.Context, caller C, body []byte, r *http.Request) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		p, _ := r.Context().Value(callerKey{}).(peerResult[C])
		if p.err != nil {
			reply(w, http.StatusForbidden, Refuse(0, "weir: cannot tell who is calling: %v", p.err))
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			reply(w, http.StatusRequestEntityTooLarge, Refuse(0, "weir: the request is too long"))
			return
		}
		result, err := h(r.Context(), p.caller, body, r)
		var refusal *Error
		switch {
		case errors.As(err, &refusal):
			reply(w, refusal.Status, refusal)
		case err != nil:
			reply(w, http.StatusInternalServerError, Refuse(0, "weir: %v", err))
		default:
			if next, ok := result.(Stream); ok {
				stream(r.Context(), w, next)
				return
			}
			reply(w, http.StatusOK, result)
		}
	})
}

// Stream yields the values of an endless answer; an error ends it.
type Stream func(ctx context.Context) (any, error)

func stream(ctx context.Context, w http.ResponseWriter, next Stream) {
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // the request has been read; its end is the client's hang-up
	enc := json.NewEncoder(w)
	for {
		_ = rc.Flush()
		v, err := next(ctx)
		if err != nil || enc.Encode(v) != nil {
			return
		}
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// Listen opens the socket in dir, mode 0666: everybody may ask, the kernel says
// who does. A socket left by a dead agent is replaced; a live agent's is not.
func Listen(dir string) (*net.UnixListener, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	path := filepath.Join(dir, SocketName)
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another weir agent answers on %s; stop it or set run_dir", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the stale socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open the agent's socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the agent's socket to users: %w", err)
	}
	return l, nil
}

// Serve answers until Shutdown.
func (s *Server[C]) Serve(l *net.UnixListener) error {
	if err := s.server.Serve(&limited{UnixListener: l, held: make(map[uint32]int)}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops answering and waits for running requests until ctx ends.
func (s *Server[C]) Shutdown(ctx context.Context) error {
	if err := s.server.Shutdown(ctx); err != nil {
		return s.server.Close()
	}
	return nil
}

// ErrNoAgent is returned when nobody answers on the socket.
var ErrNoAgent = errors.New("no weir agent answers")

// Client calls the agent.
type Client struct {
	path string
	http *http.Client
}

// NewClient makes a client for the agent with this run directory.
func NewClient(dir string) *Client {
	path := filepath.Join(dir, SocketName)
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}}
}

// Call sends in (nil for none) and decodes the answer into out (nil for none).
// Refusals are *Error.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}

// Follow calls each for every line of an endless answer until ctx ends.
func (c *Client) Follow(ctx context.Context, path string, each func(json.RawMessage) error) error {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read the agent's answer: %w", err)
		}
		if err := each(raw); err != nil {
			return err
		}
	}
}

func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("%w on %s; is it running? (`systemctl status weir`, or set WEIR_RUN_DIR)", ErrNoAgent, c.path)
		}
		return nil, fmt.Errorf("call the agent: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	refusal := &Error{Status: resp.StatusCode}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(refusal); err != nil || refusal.Message == "" {
		refusal.Message = "weir: the agent answered " + resp.Status
	}
	return nil, refusal
}
