package tcp

import (
	"errors"
	"io"
	"net"
	"sync"
)

// halfCloser is the server's connection with the server's end-of-file passed on
// to the client. For the protocols that Weir knows, a server that stops sending
// is the end of the flow; here the client may still have bytes to send, so Read
// reports the end only when the client has ended as well, or the flow is cut.
type halfCloser struct {
	net.Conn
	client net.Conn

	once       sync.Once
	clientDone chan struct{} // closed when the client's direction has ended

	mu    sync.Mutex
	first bool // the server ended first
}

type closeWriter interface{ CloseWrite() error }

func newHalfCloser(server, client net.Conn) *halfCloser {
	return &halfCloser{Conn: server, client: client, clientDone: make(chan struct{})}
}

func (h *halfCloser) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	select {
	case <-h.clientDone:
		return 0, err
	default:
	}
	h.mu.Lock()
	h.first = true
	h.mu.Unlock()
	if w, ok := h.client.(closeWriter); !ok || w.CloseWrite() != nil {
		return 0, err // the client cannot be told but by closing
	}
	<-h.clientDone // Relay calls CloseWrite or Close in the end, whatever happens
	return 0, err
}

// CloseWrite is called when the client has sent its last byte.
func (h *halfCloser) CloseWrite() error {
	defer h.once.Do(func() { close(h.clientDone) })
	if w, ok := h.Conn.(closeWriter); ok {
		return w.CloseWrite()
	}
	return h.Conn.Close()
}

func (h *halfCloser) Close() error {
	defer h.once.Do(func() { close(h.clientDone) })
	return h.Conn.Close()
}

func (h *halfCloser) serverWasFirst() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.first
}
