package sqlparse

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary also plays other processes, by argv[0].
const (
	probeName  = "sqlparse-test-probe"  // tries what a sealed child must not do
	parentName = "sqlparse-test-parent" // has a pool and waits to be killed
	memoryName = "sqlparse-test-memory" // analyses hostile text and says what it took
)

func TestMain(m *testing.M) {
	ChildMain()
	switch os.Args[0] {
	case probeName:
		probe()
	case parentName:
		parent()
	case memoryName:
		hostile()
	}
	os.Exit(m.Run())
}

// play starts the test binary as another process.
func play(name string) *exec.Cmd {
	return &exec.Cmd{Path: "/proc/self/exe", Args: []string{name}, Env: os.Environ(),
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
}

// probe seals itself and prints what each attempt came to.
func probe() {
	runtime.LockOSThread()
	if err := seal(); err != nil {
		fmt.Println("seal", err)
		os.Exit(1)
	}
	out := rawFD(1)
	say := func(what string, err error) { fmt.Fprintf(out, "%s: %v\n", what, err) }
	errno := func(_, _ uintptr, e syscall.Errno) error {
		if e == 0 {
			return nil
		}
		return e
	}
	path := unsafe.Pointer(unsafe.StringData("/etc/passwd\x00"))
	say("socket", errno(syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)))
	say("unix socket", errno(syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0)))
	say("openat", errno(syscall.RawSyscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(path), unix.O_RDONLY, 0, 0, 0)))
	say("execve", errno(syscall.RawSyscall(unix.SYS_EXECVE, uintptr(path), 0, 0)))
	say("fork", errno(syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)))
	say("clone3", errno(syscall.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)))
	say("kill", errno(syscall.RawSyscall(unix.SYS_KILL, uintptr(os.Getppid()), uintptr(unix.SIGTERM), 0)))
	say("ptrace", errno(syscall.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_ATTACH, uintptr(os.Getppid()), 0, 0, 0, 0)))
	say("setrlimit", errno(syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_DATA, 0, 0, 0, 0)))
	say("unlink", errno(syscall.RawSyscall(unix.SYS_UNLINKAT, ^uintptr(99), uintptr(path), 0)))
	say("bpf", errno(syscall.RawSyscall(unix.SYS_BPF, 0, 0, 0)))
	say("mount", errno(syscall.RawSyscall6(unix.SYS_MOUNT, 0, 0, 0, 0, 0, 0)))
	say("mmap exec", errno(syscall.RawSyscall6(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON, ^uintptr(0), 0)))
	memory, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	say("mmap", err)
	say("mprotect exec", unix.Mprotect(memory, unix.PROT_EXEC))
	// The runtime still works: threads, garbage, memory up to the limit.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			runtime.LockOSThread()
			runtime.GC()
		})
	}
	wg.Wait()
	_, err = unix.Mmap(-1, 0, maxChildData, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	say("all memory", err)
	os.Exit(0)
}

func parent() {
	p, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for range cap(p.idle) {
		child := <-p.idle
		fmt.Println(child.cmd.Process.Pid)
	}
	fmt.Println("ready")
	select {}
}

// hostile analyses the largest trees that there are, many at a time, and prints
// by how many bytes its own peak of resident memory rose.
func hostile() {
	p, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	defer p.Close()
	a := &Analyzer{Pool: p, Cache: NewCache(0)}
	if _, err := a.Analyze(context.Background(), "select 1", benchSession, nil); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	before := peak()
	texts := hostileTexts()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for j := range len(texts) {
				a.Analyze(context.Background(), texts[(i+j)%len(texts)]+strings.Repeat(" ", i+j), benchSession, nil)
			}
		})
	}
	wg.Wait()
	fmt.Println(peak() - before)
	os.Exit(0)
}

// hostileTexts are as large as a tree may be, in different ways.
func hostileTexts() []string {
	return []string{
		"select " + strings.Repeat("a,", 82000) + "a",
		"select " + strings.Repeat("a.b.c,", 45000) + "a",
		"insert into t values " + strings.Repeat("($1,$2,$3),", 25000) + "($1)",
		strings.Repeat("select 1;", sqlStatements),
		"select * from " + strings.Repeat("a,", 50000) + "a",
		"select " + strings.Repeat("f(),", 60000) + "1",
		"select '" + strings.Repeat("x", 1000000) + "'",
		"drop table " + strings.Repeat("a.b,", 60000) + "a",
	}
}

const sqlStatements = 4096

// peak is the most memory that this process ever had resident, bytes.
func peak() int {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		panic(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kb, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				panic(err)
			}
			return kb << 10
		}
	}
	panic("no VmHWM")
}
