// Package kv is the state that many parts share: keys with compare-and-set, watch and a
// time to live, in NATS JetStream. On one machine the server is embedded in the process
// and listens nowhere; what works on a Bucket works the same on a NATS cluster.
package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of the embedded server.
const (
	startTimeout = 30 * time.Second
	maxMemory    = 16 << 20 // bytes; nothing is kept in memory
	maxDisk      = 4 << 30  // bytes
	maxPayload   = 8 << 20 // bytes of one message; the server advises against more
)

// Config says where the embedded server keeps its files.
type Config struct {
	Dir string // made when missing, 0700
	Log *slog.Logger
}

// Server is an embedded NATS server with JetStream. It has no listener: only this
// process can talk to it.
type Server struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
}

// Open starts the server. A write has reached the disk when it returns (SyncAlways): an
// approval must not be forgotten over a loss of power.
func Open(ctx context.Context, c Config) (*Server, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the store: %w", err)
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "weir", DontListen: true, JetStream: true, StoreDir: c.Dir, SyncAlways: true,
		JetStreamMaxMemory: maxMemory, JetStreamMaxStore: maxDisk, MaxPayload: maxPayload,
		NoSigs: true, NoSystemAccount: true,
	})
	if err != nil {
		return nil, fmt.Errorf("the embedded store: %w", err)
	}
	s.SetLoggerV2(logger{c.Log}, false, false, false)
	s.Start()
	out := &Server{server: s}
	if !s.ReadyForConnections(startTimeout) {
		return nil, errors.Join(errors.New("the embedded store did not start in time; is its folder readable?"), out.Close())
	}
	if out.conn, err = nats.Connect("", nats.InProcessServer(s), nats.Name("weir")); err == nil {
		out.js, err = jetstream.New(out.conn)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the embedded store: %w", err), out.Close())
	}
	return out, nil
}

// Options are those of a bucket.
type Options struct {
	TTL      time.Duration // of every key, from its last change; 0: for ever
	MaxValue int32         // bytes; 0: what a message takes
}

// Bucket opens a bucket, which is made when it is missing.
func (s *Server) Bucket(ctx context.Context, name string, o Options) (*Bucket, error) {
	b, err := s.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, TTL: o.TTL, MaxValueSize: o.MaxValue, History: 1, Storage: jetstream.FileStorage})
	if err != nil {
		return nil, fmt.Errorf("open bucket %s of the store: %w", name, err)
	}
	return &Bucket{kv: b, max: int(o.MaxValue)}, nil
}

// Close stops the server and waits until its files are closed.
func (s *Server) Close() error {
	if s.conn != nil {
		s.conn.Close()
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return nil
}

// logger passes what the server warns of on. Its lines hold names of streams and files,
// never a value.
type logger struct{ log *slog.Logger }

func (l logger) Noticef(string, ...any) {}
func (l logger) Debugf(string, ...any)  {}
func (l logger) Tracef(string, ...any)  {}
func (l logger) Warnf(format string, v ...any) {
	l.log.Warn("store", "text", fmt.Sprintf(format, v...))
}
func (l logger) Errorf(format string, v ...any) {
	l.log.Error("store", "text", fmt.Sprintf(format, v...))
}
func (l logger) Fatalf(format string, v ...any) {
	l.log.Error("store", "text", fmt.Sprintf(format, v...))
}
