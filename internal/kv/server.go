package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"
)

// Bounds of the embedded server.
const (
	startTimeout = 30 * time.Second
	ackTimeout   = 10 * time.Second // of a call whose context has no deadline
	maxMemory    = 16 << 20         // bytes of buckets in memory; there are none
	maxDisk      = 4 << 30          // bytes of all buckets; writes fail when they have them
	maxPayload   = 8 << 20          // bytes of one message; the server advises against more
	maxConns     = 2                // the own one, and the same again before a lost one is noticed
)

// lockFile is held with flock(2) by the one process that uses a folder. The kernel lets
// go of it when that dies.
const lockFile = "lock"

// Config says where the embedded server keeps its files.
type Config struct {
	Dir string       // made when missing, 0700
	Log *slog.Logger // warnings and errors; nil for none
}

// Server is an embedded NATS server with JetStream. It has no listener: only this process
// can talk to it.
type Server struct {
	*Cluster
	server *server.Server
	conn   *nats.Conn
	lock   *os.File
	once   sync.Once
}

// Open starts the server. A write has reached the disk when it returns (SyncAlways): a
// decision must not be forgotten over a loss of power. Open reads what the folder holds,
// which ctx does not interrupt.
func Open(ctx context.Context, c Config) (*Server, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the store: %w", err)
	}
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{lock: lock}
	if err := s.start(c); err != nil {
		return nil, errors.Join(fmt.Errorf("start the store in %s: %w", c.Dir, err), s.Close())
	}
	return s, nil
}

func (s *Server) start(c Config) error {
	var err error
	s.server, err = server.NewServer(&server.Options{
		ServerName: "weir", DontListen: true, NoSigs: true, NoLog: true, NoSystemAccount: true,
		JetStream: true, StoreDir: c.Dir, SyncAlways: true, DisableJetStreamBanner: true,
		JetStreamMaxMemory: maxMemory, JetStreamMaxStore: maxDisk, MaxPayload: maxPayload, MaxConn: maxConns,
	})
	if err != nil {
		return err
	}
	log := &logger{log: c.Log}
	s.server.SetLoggerV2(log, false, false, false)
	s.server.Start()
	if err := log.fatal(); err != nil {
		return err
	}
	if !s.server.ReadyForConnections(startTimeout) || !s.server.JetStreamEnabled() {
		return fmt.Errorf("its server was not ready within %v", startTimeout)
	}
	s.conn, err = nats.Connect("", nats.InProcessServer(s.server), nats.Name("weir"), nats.Timeout(startTimeout),
		nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.Log.Warn("the store's connection was lost and is made again", "error", err)
			}
		}),
		// The client's own handler prints to stderr.
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.Log.Warn("store", "error", err) }))
	if err != nil {
		return err
	}
	js, err := jetstream.New(s.conn, jetstream.WithDefaultTimeout(ackTimeout))
	if err != nil {
		return err
	}
	s.Cluster = New(js)
	return nil
}

// Close ends all watches, stops the server and waits until its files are closed. Calls
// that are under way fail with ErrClosed; what they write may be written or not.
func (s *Server) Close() error {
	var err error
	s.once.Do(func() {
		if s.Cluster != nil {
			s.Cluster.Close()
		}
		if s.conn != nil {
			s.conn.Close()
		}
		if s.server != nil {
			s.server.Shutdown()
			s.server.WaitForShutdown()
		}
		err = s.lock.Close()
	})
	return err
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another process uses the store in %s; stop it, or set another folder", dir)
		}
		return nil, fmt.Errorf("lock the store in %s: %w", dir, err)
	}
	return f, nil
}

// logger passes on what the server warns of. Its lines hold names of streams, keys and
// files, never a value.
type logger struct {
	log *slog.Logger

	mu    sync.Mutex
	ended error // the first reason for which the server would have ended its process
}

func (l *logger) Noticef(string, ...any) {}
func (l *logger) Debugf(string, ...any)  {}
func (l *logger) Tracef(string, ...any)  {}
func (l *logger) Warnf(format string, v ...any) {
	l.log.Warn("store", "text", fmt.Sprintf(format, v...))
}
func (l *logger) Errorf(format string, v ...any) {
	l.log.Error("store", "text", fmt.Sprintf(format, v...))
}

// Fatalf of the server's own logger exits; a library must not.
func (l *logger) Fatalf(format string, v ...any) {
	err := fmt.Errorf(format, v...)
	l.log.Error("store", "text", err.Error())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = err
	}
}

func (l *logger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}
