package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Deadlines of starting and stopping. They are generous: a loaded machine is no
// error.
const (
	startTimeout = 60 * time.Second
	fastTimeout  = 20 * time.Second // SIGINT, fast shutdown
	quitTimeout  = 10 * time.Second // SIGQUIT, immediate shutdown
)

// process is a child and the goroutine that waits for it.
type process struct {
	pid  int
	done chan struct{} // closed when the child is gone
	err  error         // of Wait; read after done
}

// startProcess forks on a thread of its own that lives as long as the child:
// Pdeathsig is about the forking thread, and prepare may move that thread into
// another namespace. The thread is never reused: it ends locked.
func startProcess(cmd *exec.Cmd, prepare func(*exec.Cmd) error) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer close(p.done)
		if prepare != nil {
			if err := prepare(cmd); err != nil {
				started <- err
				return
			}
		}
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, err
	}
	return p, nil
}

func (p *process) gone(within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// portAttempts bounds the tries when a free port was taken before the server
// bound it.
const portAttempts = 5

var errPortTaken = errors.New("port taken")

// run starts the server on the configured port, or on a free one.
func (s *Server) run(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		s.Port = s.config.Port
		if s.Port == 0 {
			port, err := freePort()
			if err != nil {
				return err
			}
			s.Port = port
		}
		err := s.launch(ctx)
		if !errors.Is(err, errPortTaken) || s.config.Port != 0 || attempt == portAttempts {
			return err
		}
	}
}

// launch starts the server and waits until postmaster.pid says "ready".
func (s *Server) launch(ctx context.Context) error {
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	begin, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(s.config.Bin, "postgres"), "-D", s.DataDir, "-p", strconv.Itoa(int(s.Port)))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = s.DataDir
	cmd.Env = environment()
	cmd.SysProcAttr = s.account.attributes()
	p, err := startProcess(cmd, s.config.Prepare)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.process = p
	deadline := time.Now().Add(startTimeout)
	for !s.ready() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			tail := s.logSince(begin)
			if strings.Contains(tail, "Address already in use") {
				return fmt.Errorf("postgres: %w: %d", errPortTaken, s.Port)
			}
			return fmt.Errorf("postgres ended while starting (%v):\n%s", p.err, tail)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("postgres is not ready after %v:\n%s", startTimeout, s.logSince(begin))
		}
	}
	return nil
}

// ready reads the status line that the postmaster keeps in its pid file
// (PostgreSQL source, miscadmin.h: LOCK_FILE_LINE_PM_STATUS is line 8).
func (s *Server) ready() bool {
	b, err := os.ReadFile(filepath.Join(s.DataDir, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(b), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(s.process.pid) && strings.TrimSpace(lines[7]) == "ready"
}

// maxLogTail bounds what of the server's log goes into an error, bytes.
const maxLogTail = 4 << 10

func (s *Server) logSince(begin int64) string {
	b, err := os.ReadFile(s.LogFile)
	if err != nil || int64(len(b)) < begin {
		return ""
	}
	b = b[begin:]
	if len(b) > maxLogTail {
		b = b[len(b)-maxLogTail:]
	}
	return string(b)
}

// Stop ends the server: fast shutdown, then immediate, then SIGKILL, each by its
// own process id. Files stay. Stopping twice is no error.
func (s *Server) Stop() error {
	err := s.shutdown()
	if s.ownSocket {
		s.ownSocket = false
		return errors.Join(err, os.RemoveAll(s.Socket))
	}
	return err
}

func (s *Server) shutdown() error {
	p := s.process
	if p == nil {
		return nil
	}
	for _, step := range []struct {
		signal syscall.Signal
		within time.Duration
	}{{syscall.SIGINT, fastTimeout}, {syscall.SIGQUIT, quitTimeout}, {syscall.SIGKILL, quitTimeout}} {
		select {
		case <-p.done: // the pid may belong to somebody else by now
			return nil
		default:
		}
		if err := syscall.Kill(p.pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop postgres (pid %d): %w", p.pid, err)
		}
		if p.gone(step.within) {
			return nil
		}
	}
	return fmt.Errorf("postgres (pid %d) does not end", p.pid)
}

// Restart stops the server and starts it again on the same port with its data.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.shutdown(); err != nil {
		return err
	}
	return s.launch(ctx)
}

// freePort finds a port that is free on 127.0.0.1 and, where there is IPv6, ::1.
func freePort() (uint16, error) {
	for range 50 {
		l4, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l4.Addr().(*net.TCPAddr).Port
		l6, err := net.Listen("tcp6", net.JoinHostPort("::1", strconv.Itoa(port)))
		l4.Close()
		if err == nil {
			l6.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return uint16(port), nil
		}
	}
	return 0, errors.New("postgres: no free TCP port")
}
