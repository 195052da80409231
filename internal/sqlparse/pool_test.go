package sqlparse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

func newPool(t testing.TB, size int) *Pool {
	p, err := New(Config{Size: size, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func parses(t *testing.T, p *Pool) {
	t.Helper()
	tree, err := p.Parse(context.Background(), "select 1")
	if err != nil || len(tree.GetStmts()) != 1 {
		t.Fatalf("the pool does not parse any more: %v", err)
	}
}

// eventually waits for a condition, with a deadline that only a failure meets.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("still not: %s", what)
}

func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

func TestParse(t *testing.T) {
	p := newPool(t, 2)
	ctx := context.Background()
	tree, err := p.Parse(ctx, "select 'ä'; delete from t")
	if err != nil || len(tree.GetStmts()) != 2 || tree.GetStmts()[1].GetStmt().GetDeleteStmt() == nil {
		t.Fatalf("%v %v", tree, err)
	}
	var syntax *SyntaxError
	if _, err := p.Parse(ctx, "select 'ä', from t"); !errors.As(err, &syntax) || syntax.Cursor != 13 || syntax.Message != `syntax error at or near "from"` {
		t.Errorf("%v %+v", err, syntax)
	}
	if strings.Contains(syntax.Error(), "from") {
		t.Errorf("Error() quotes the text: %s", syntax)
	}
	if _, err := p.Parse(ctx, `select 1 from "`+strings.Repeat("é", 2000)); !errors.As(err, &syntax) || len(syntax.Message) > maxMessage+3 {
		t.Errorf("%v: message of %d bytes", err, len(syntax.Message))
	}
	for name, c := range map[string]struct {
		sql  string
		want error
	}{
		"long":     {strings.Repeat(" ", sqlmeta.MaxText), ErrTooLong},
		"deep":     {"select " + strings.Repeat("(", 100000), ErrTooDeep},
		"NUL":      {"select 1\x00", ErrNotText},
		"large":    {"select " + strings.Repeat("a,", 150000) + "a", ErrTooLarge},
		"misread":  {"select 'a' -- x\n'b'", ErrMisread},
		"too deep": {"select 1" + strings.Repeat(" + 1", 4998), ErrTooDeep}, // for the decoder
	} {
		if _, err := p.Parse(ctx, c.sql); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if tree, err := p.Parse(ctx, ""); err != nil || len(tree.GetStmts()) != 0 {
		t.Errorf("empty: %v %v", tree, err)
	}
	if _, err := p.Parse(ctx, strings.Repeat(" ", sqlmeta.MaxText-1)); err != nil {
		t.Errorf("longest: %v", err)
	}
	if n := p.Deaths(); n != 0 {
		t.Errorf("%d children died", n)
	}
}

// TestKillers sends what the guard would refuse straight to the children.
func TestKillers(t *testing.T) {
	p := newPool(t, 2)
	for name, sql := range map[string]string{
		"plus":  "select 1" + strings.Repeat("+1", 30000),
		"union": "select 1" + strings.Repeat(" union select 1", 60000),
		"cast":  "select 1" + strings.Repeat("::int", 60000),
	} {
		if _, err := p.request(context.Background(), sql, 0); !errors.Is(err, ErrParserDied) {
			t.Errorf("%s: %v", name, err)
		}
		parses(t, p)
	}
	// Nesting of the grammar's own stack is an error without a death.
	before := p.Deaths()
	var syntax *SyntaxError
	for _, open := range []string{"(", "not ", "array[", "(select "} {
		if _, err := p.request(context.Background(), "select "+strings.Repeat(open, 100000), 0); !errors.As(err, &syntax) {
			t.Errorf("%s: %v", open, err)
		}
	}
	if p.Deaths() != before {
		t.Error("a child died of nesting")
	}
	eventually(t, "the pool is full again", func() bool { return len(p.idle) == cap(p.idle) })
}

func TestKilledWhileIdle(t *testing.T) {
	p := newPool(t, 1)
	for range 3 {
		child := <-p.idle
		p.idle <- child
		child.cmd.Process.Kill()
		<-child.exited
		parses(t, p)
	}
}

// stoppedRequest returns when a request sits in the pipe of a stopped child.
func stoppedRequest(t *testing.T, p *Pool) (*process, chan error) {
	child := <-p.idle
	p.idle <- child
	if err := child.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := p.Parse(context.Background(), "select 1")
		result <- err
	}()
	conn, err := child.in.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request is in the pipe", func() bool {
		n := 0
		conn.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		return n > 0
	})
	return child, result
}

func TestKilledDuringRequest(t *testing.T) {
	p := newPool(t, 1)
	child, result := stoppedRequest(t, p)
	child.cmd.Process.Kill()
	if err := <-result; !errors.Is(err, ErrParserDied) {
		t.Errorf("%v", err)
	}
	parses(t, p)
	if p.Deaths() != 1 {
		t.Errorf("%d deaths: the statement was tried again", p.Deaths())
	}
}

func TestTimeout(t *testing.T) {
	p := newPool(t, 1)
	p.timeout = 100 * time.Millisecond
	child, result := stoppedRequest(t, p)
	if err := <-result; !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	eventually(t, "the child is gone", func() bool { return gone(child.cmd.Process.Pid) })
	p.timeout = requestTimeout
	parses(t, p)
}

func TestContextAndClose(t *testing.T) {
	p := newPool(t, 1)
	child := <-p.idle // nobody can have it
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := p.Parse(ctx, "select 1")
		result <- err
	}()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	p.idle <- child
	parses(t, p)

	child, result = stoppedRequest(t, p)
	closed := make(chan struct{})
	go func() {
		p.Close()
		close(closed)
	}()
	if err := <-result; err == nil {
		t.Error("a request survived Close")
	}
	<-closed
	if !gone(child.cmd.Process.Pid) {
		t.Error("a child survived Close")
	}
	if _, err := p.Parse(context.Background(), "select 1"); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	p.Close() // again
}

func TestConcurrent(t *testing.T) {
	before := runtime.NumGoroutine()
	p := newPool(t, 2)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				want := fmt.Sprintf("t_%d_%d", i, j)
				tree, err := p.Parse(context.Background(), "select * from "+want)
				if err != nil {
					t.Error(err)
					return
				}
				got := tree.GetStmts()[0].GetStmt().GetSelectStmt().GetFromClause()[0].GetRangeVar().GetRelname()
				if got != want {
					t.Errorf("%s for %s: an answer went to another", got, want)
				}
			}
		})
	}
	wg.Wait()
	p.Close()
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

func TestGrownChildIsReplaced(t *testing.T) {
	p := newPool(t, 1)
	p.resident = 1
	child := <-p.idle
	p.idle <- child
	parses(t, p) // a small answer: nobody looks
	if !child.alive() {
		t.Error("replaced after a small answer")
	}
	if _, err := p.Parse(context.Background(), "select "+strings.Repeat("a,", 40000)+"a"); err != nil {
		t.Fatal(err)
	}
	<-child.exited
	parses(t, p)
	if p.Deaths() != 0 {
		t.Error("it was counted as a death")
	}
}

func TestNoExecutable(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, exe := range []string{"/nonexistent", "/bin/true"} {
		if p, err := New(Config{Exe: exe, Log: slog.New(slog.DiscardHandler)}); err == nil {
			p.Close()
			t.Errorf("%s is no parser", exe)
		}
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// TestChild looks at a child from outside.
func TestChild(t *testing.T) {
	p := newPool(t, 1)
	parses(t, p)
	child := <-p.idle
	defer func() { p.idle <- child }()
	dir := fmt.Sprintf("/proc/%d/", child.cmd.Process.Pid)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
		"CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	environ, err := os.ReadFile(dir + "environ")
	if err != nil || string(environ) != "GOMAXPROCS=1\x00GOTRACEBACK=none\x00" {
		t.Errorf("environment %q %v", environ, err)
	}
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, _ := os.Readlink(dir + "fd/" + fd.Name())
		n, _ := strconv.Atoi(fd.Name())
		if n <= 2 && !strings.HasPrefix(target, "pipe:") || n > 2 && !strings.HasPrefix(target, "anon_inode:[event") && !strings.HasPrefix(target, "/sys/fs/cgroup/") {
			t.Errorf("descriptor %d is %s", n, target)
		}
	}
	if os.Getuid() == 0 { // our own children still have what we have
		b, _ := os.ReadFile("/proc/self/status")
		if strings.Contains(string(b), "CapEff:\t0000000000000000") {
			t.Error("the pool took this process's own capabilities")
		}
	}
}

func TestSealed(t *testing.T) {
	out, err := play(probeName).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := `socket: operation not permitted
unix socket: operation not permitted
openat: operation not permitted
execve: operation not permitted
fork: operation not permitted
clone3: function not implemented
kill: operation not permitted
ptrace: operation not permitted
setrlimit: operation not permitted
unlink: operation not permitted
bpf: operation not permitted
mount: operation not permitted
mmap exec: operation not permitted
mmap: <nil>
mprotect exec: operation not permitted
all memory: cannot allocate memory
`
	if string(out) != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestParentKilled(t *testing.T) {
	cmd := play(parentName)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(lines.Text())
		}
		pids = append(pids, pid)
	}
	if len(pids) == 0 || gone(pids[0]) {
		t.Fatalf("children %v", pids)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for _, pid := range pids {
		eventually(t, "a child is gone with its parent", func() bool { return gone(pid) })
	}
}

// TestMemory: hostile text takes less than 64 MiB of this side's memory, however
// many send it at once.
func TestMemory(t *testing.T) {
	out, err := play(memoryName).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took, err := strconv.Atoi(string(bytes.TrimSpace(out)))
	if err != nil {
		t.Fatalf("%s", out)
	}
	t.Logf("%d MiB", took>>20)
	if took > raceFactor*64<<20 {
		t.Errorf("%d MiB", took>>20)
	}
}
