package sqlparse

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one child and the parent's ends of its pipes.
type process struct {
	cmd    *exec.Cmd
	in     *os.File // requests
	out    *os.File // answers
	exited chan struct{}
	stderr firstWords
}

// readyWithin bounds the time from fork to the sandbox being shut.
const readyWithin = 30 * time.Second

// keeper is the one thread that forks children. It must not be any other: a
// child's parent-death signal comes when the thread that forked it ends, and Go
// ends threads. It also has given up every capability, so its children have none
// even as root.
type keeper struct {
	exe    string
	starts chan *startRequest
	done   chan struct{} // closed when the thread has ended
	wg     sync.WaitGroup
}

type startRequest struct {
	process *process
	result  chan error
}

func newKeeper(exe string) *keeper {
	k := &keeper{exe: exe, starts: make(chan *startRequest), done: make(chan struct{})}
	locked := make(chan struct{})
	go k.run(locked)
	<-locked
	return k
}

// run ends with its thread still locked, so the runtime ends the thread, and the
// kernel every child that is left. The main thread will not do: it never ends,
// and its credentials are what the world sees of the whole process.
func (k *keeper) run(locked chan struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		elsewhere := make(chan struct{})
		go k.run(elsewhere)
		<-elsewhere // on another thread: this one is taken until then
		runtime.UnlockOSThread()
		close(locked)
		return
	}
	close(locked)
	defer close(k.done)
	err := dropCapabilities()
	for r := range k.starts {
		if err != nil {
			r.result <- fmt.Errorf("drop privileges: %w", err)
			continue
		}
		r.result <- r.process.cmd.Start()
	}
}

// close waits for the children that were killed, then ends the thread.
func (k *keeper) close() {
	k.wg.Wait()
	close(k.starts)
	<-k.done
}

// start forks a child and returns when its sandbox is shut.
func (k *keeper) start() (*process, error) {
	p, childEnds, err := k.prepare()
	if err != nil {
		return nil, err
	}
	r := &startRequest{process: p, result: make(chan error, 1)}
	k.starts <- r
	err = <-r.result
	for _, f := range childEnds {
		f.Close()
	}
	if err != nil {
		p.in.Close()
		p.out.Close()
		return nil, fmt.Errorf("start a SQL parser process: %w", err)
	}
	k.wg.Go(func() {
		p.cmd.Wait()
		close(p.exited)
	})
	if err := p.awaitReady(); err != nil {
		p.kill()
		<-p.exited
		return nil, fmt.Errorf("the SQL parser process did not get ready: %w: %s", err, p.stderr.String())
	}
	return p, nil
}

func (k *keeper) prepare() (p *process, childEnds []*os.File, err error) {
	reqR, reqW, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make pipes for a SQL parser process: %w", err)
	}
	ansR, ansW, err := os.Pipe()
	if err != nil {
		reqR.Close()
		reqW.Close()
		return nil, nil, fmt.Errorf("make pipes for a SQL parser process: %w", err)
	}
	p = &process{in: reqW, out: ansR, exited: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path: k.exe,
		Args: []string{childName},
		Dir:  "/",
		// One thread suffices, and no look at the cgroup's CPU limit is needed; a
		// crash must not print memory.
		Env:         []string{"GOMAXPROCS=1", "GOTRACEBACK=none"},
		Stdin:       reqR,
		Stdout:      ansW,
		Stderr:      &p.stderr,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true},
		WaitDelay:   time.Second,
	}
	return p, []*os.File{reqR, ansW}, nil
}

func (p *process) awaitReady() error {
	if err := p.out.SetReadDeadline(time.Now().Add(readyWithin)); err != nil {
		return err
	}
	kind, n, err := readHeader(p.out)
	if err != nil {
		return err
	}
	if kind != frameReady || n != 0 {
		return errFrame
	}
	p.stderr.stop()
	return nil
}

// kill ends the child; it has no state to lose. Safe to call more than once, but
// not while another goroutine uses the pipes.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.in.Close()
	p.out.Close()
}

func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// dropCapabilities takes from the calling thread what its children must not
// have. A child of root gets what the bounding and inheritable sets hold.
func dropCapabilities() error {
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL { // past the last capability
			break
		}
		if err == unix.EPERM { // no CAP_SETPCAP: not privileged to begin with
			return nil
		}
		if err != nil {
			return err
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capset(&header, &data[0])
}

// firstWords keeps what a child says before it is ready, when it has seen no
// statement yet, and drops the rest.
type firstWords struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	stopped bool
}

func (w *firstWords) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped && w.buf.Len() < 1024 {
		w.buf.Write(b[:min(len(b), 1024)])
	}
	return len(b), nil
}

func (w *firstWords) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
}

func (w *firstWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}
