package kv_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/kv"
)

// childEnv makes the test binary the process that is killed.
const childEnv = "WEIR_KV_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := killed(dir, os.Getenv(childEnv+"_RUN"), os.Getenv(childEnv+"_SIGNAL")); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// killed writes and sends itself a signal once it was told that all is written, while
// another write is under way.
func killed(dir, run, signal string) error {
	number, err := strconv.Atoi(signal)
	if err != nil {
		return err
	}
	ctx := context.Background()
	s, err := kv.Open(ctx, kv.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	b, err := s.Bucket(ctx, "test", kv.Options{})
	if err != nil {
		return err
	}
	first, err := b.Create(ctx, "updated."+run, []byte("old"))
	if err != nil {
		return err
	}
	if _, err := b.Update(ctx, "updated."+run, []byte("new"), first); err != nil {
		return err
	}
	gone, err := b.Create(ctx, "deleted."+run, nil)
	if err != nil {
		return err
	}
	if err := b.Delete(ctx, "deleted."+run, gone); err != nil {
		return err
	}
	noisy := make(chan error)
	go func() {
		for n := 0; ; n++ {
			if _, err := b.Put(ctx, "noise", bytes.Repeat([]byte("n"), 100+n)); err != nil || n == 3 {
				noisy <- err
			}
		}
	}()
	if err := <-noisy; err != nil {
		return err
	}
	if _, err := b.Create(ctx, "created."+run, []byte("new")); err != nil {
		return err
	}
	if err := syscall.Kill(os.Getpid(), syscall.Signal(number)); err != nil {
		return err
	}
	time.Sleep(time.Second) // the signal may be on its way to another thread
	return fmt.Errorf("still there after signal %d", number)
}

// TestKill: what was written is there after the process was killed, also in the middle of
// another write. The other signals end it as they would any Go program: the server has no
// handlers. (Not others, which may be ignored where tests run in the background.) It prints nothing.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGKILL, syscall.SIGTERM}
	for run, sig := range signals {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for broken code
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir, fmt.Sprintf("%s_RUN=%d", childEnv, run), fmt.Sprintf("%s_SIGNAL=%d", childEnv, int(sig)))
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			t.Fatalf("signal %v does not end the child, which says %q", sig, out)
		}
		if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !st.Signaled() || st.Signal() != sig {
			t.Fatalf("signal %v: the child ended with %v, saying %q", sig, err, out)
		}
		if len(out) > 0 {
			t.Errorf("the child printed %q", out)
		}
		s := open(t, dir)
		b := bucket(t, s, kv.Options{})
		for earlier := range run + 1 {
			for _, key := range []string{"created", "updated"} {
				if e, err := b.Get(t.Context(), fmt.Sprintf("%s.%d", key, earlier)); err != nil || string(e.Value) != "new" {
					t.Errorf("%s.%d after run %d: %q, %v", key, earlier, run, e.Value, err)
				}
			}
			_, err := b.Get(t.Context(), fmt.Sprintf("deleted.%d", earlier))
			wantErr(t, "get of what was deleted", err, kv.ErrNotFound)
		}
		if e, err := b.Get(t.Context(), "noise"); err != nil || len(bytes.Trim(e.Value, "n")) > 0 {
			t.Errorf("noise after run %d: %q, %v", run, e.Value, err)
		}
		closeServer(t, s)
	}
}

// sockets returns those of this process, of any kind.
func sockets(t *testing.T) []string {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:") { // the glob's own fd has gone
			all = append(all, to)
		}
	}
	slices.Sort(all)
	return all
}

// TestQuiet: the server has no socket at all, so nothing listens, and it leaves what
// belongs to the whole process alone.
func TestQuiet(t *testing.T) {
	umask := func() int {
		old := syscall.Umask(0o077)
		syscall.Umask(old)
		return old
	}
	gc := func() int {
		old := debug.SetGCPercent(100)
		debug.SetGCPercent(old)
		return old
	}
	type settings struct {
		Umask, GC, Procs int
		Memory           int64
	}
	read := func() settings { return settings{umask(), gc(), runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1)} }
	hadSockets, had := sockets(t), read()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if len(sockets(t)) != len(hadSockets)+1 {
		t.Errorf("a listener does not show: %q", sockets(t))
	}
	l.Close()

	s := open(t, t.TempDir())
	b := bucket(t, s, kv.Options{})
	w, err := b.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	must(t)(b.Create(t.Context(), "a", nil))
	next(t, w)
	if now := sockets(t); !slices.Equal(now, hadSockets) {
		t.Errorf("sockets: %q, before %q", now, hadSockets)
	}
	if now := read(); now != had {
		t.Errorf("the process has %+v, before %+v", now, had)
	}
}

// TestNothingLeft: after Close no goroutine, no open file and no lock stays, even though
// nobody has read or closed the watches.
func TestNothingLeft(t *testing.T) {
	dir := t.TempDir()
	cycle := func() {
		s := open(t, dir)
		b := bucket(t, s, kv.Options{})
		for range 3 {
			if _, err := b.Watch(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 600 { // more than the client's buffer for a watch
			must(t)(b.Put(t.Context(), fmt.Sprintf("k%d", i), nil))
		}
		if _, err := b.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		closeServer(t, s)
	}
	cycle() // what the runtime and the packages make once
	files := func() int {
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	goroutines, open := runtime.NumGoroutine(), files()
	for range 3 {
		cycle()
	}
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > goroutines || files() > open {
		if time.Now().After(deadline) {
			_ = pprof.Lookup("goroutine").WriteTo(t.Output(), 1)
			t.Fatalf("%d goroutines and %d files, before %d and %d", runtime.NumGoroutine(), files(), goroutines, open)
		}
		runtime.Gosched()
	}
}
