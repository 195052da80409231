// What tests need of a real kernel: cgroups, network namespaces, bpffs mounts,
// free ports, processes inside them, and checks that nothing stays behind.
// Root is required. Nothing here touches the root cgroup's own attachments.

package testkit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/testkit/host"
)

// settle bounds how long clean-up waits for the kernel to let go of something.
const settle = 10 * time.Second

// helperEnv names the helper that a re-executed test binary is to run.
const helperEnv = "WEIR_TESTKIT_HELPER"

// Main runs the tests, or, when the binary was started by Helper, the helper of
// that name with its arguments. Call it from TestMain:
//
//	func TestMain(m *testing.M) { testkit.Main(m, map[string]func([]string) int{...}) }
func Main(m *testing.M, helpers map[string]func(args []string) int) {
	name := os.Getenv(helperEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	run, ok := helpers[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "testkit: no helper %q\n", name)
		os.Exit(2)
	}
	os.Exit(run(os.Args[1:]))
}

// Helper is a command that runs the named helper of Main in a process of its own.
func Helper(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	// Under the race detector a process sleeps for a second when it exits.
	race := strings.TrimSpace(os.Getenv("GORACE") + " atexit_sleep_ms=0")
	cmd.Env = append(os.Environ(), helperEnv+"="+name, "GORACE="+race)
	cmd.Stderr = os.Stderr
	return cmd
}

// CgroupRoot is the folder where cgroup v2 is mounted: /sys/fs/cgroup, or
// /sys/fs/cgroup/unified on hybrid hosts.
func CgroupRoot(t testing.TB) string {
	t.Helper()
	root, err := host.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Cgroup makes a cgroup of the test's own below the v2 root and returns its
// folder. What still runs in it at the end is killed; the calling process, if it
// sits in it, moves back to the root.
func Cgroup(t testing.TB) string { return CgroupIn(t, CgroupRoot(t)) }

// CgroupIn is Cgroup below another folder.
func CgroupIn(t testing.TB, parent string) string {
	t.Helper()
	dir := filepath.Join(parent, fmt.Sprintf("weir-test-%d-%08x", os.Getpid(), rand.Uint32()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root := CgroupRoot(t)
	t.Cleanup(func() { removeCgroup(t, root, dir) })
	return dir
}

func removeCgroup(t testing.TB, root, dir string) {
	// What is below was made by the code under test, which should have removed it.
	children, _ := os.ReadDir(dir)
	for _, c := range children {
		if c.IsDir() {
			child := filepath.Join(dir, c.Name())
			t.Errorf("cgroup %s was left behind", child)
			removeCgroup(t, root, child)
		}
	}
	emptyCgroup(t, root, dir)
	var err error
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	t.Errorf("cgroup %s stays behind: %v", dir, err)
}

// emptyCgroup kills what runs in a cgroup; the calling process moves to the root.
func emptyCgroup(t testing.TB, root, dir string) {
	procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	self := strconv.Itoa(os.Getpid())
	for _, pid := range strings.Fields(string(procs)) {
		if pid == self {
			if err := os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(self), 0o644); err != nil {
				t.Errorf("leave cgroup %s: %v", dir, err)
			}
		} else if n, err := strconv.Atoi(pid); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
}

// CgroupID is the kernel's id of a cgroup: the inode of its folder.
func CgroupID(t testing.TB, dir string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatalf("stat %s: %v", dir, err)
	}
	return st.Ino
}

// Namespace is a network namespace that lives as long as the test, or until
// Close. It has a loopback interface that is up, and nothing else.
type Namespace struct {
	file  *os.File
	Inode uint64
}

// NetNS makes a network namespace with lo up.
func NetNS(t testing.TB) *Namespace {
	t.Helper()
	n := NetNSDown(t)
	if err := n.Do(loopbackUp); err != nil {
		t.Fatal(err)
	}
	return n
}

// NetNSDown makes a network namespace whose lo is still down, as the kernel makes it.
func NetNSDown(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		var err error
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(n.file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	n.Inode = st.Ino
	t.Cleanup(n.Close)
	return n
}

// LoopbackUp sets lo up in a namespace made by NetNSDown.
func (n *Namespace) LoopbackUp() error { return n.Do(loopbackUp) }

// Close lets the namespace go; the kernel frees it when no process and no socket is left in it.
func (n *Namespace) Close() { n.file.Close() }

// Do runs f on a thread inside the namespace. Sockets that f makes stay there;
// goroutines that f starts do not run there.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a locked thread and brings the thread back to the network
// namespace where it began. A thread that cannot come back is thrown away.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, back)
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// StartIn starts cmd inside a cgroup (a folder; "" for the caller's) and a network
// namespace (nil for the caller's). It is in both before its first instruction.
func StartIn(cgroup string, ns *Namespace, cmd *exec.Cmd) error {
	start := cmd.Start
	if cgroup != "" {
		start = func() error { return host.StartIn(cgroup, cmd) }
	}
	if ns == nil {
		return start()
	}
	return ns.Do(start)
}

// RunIn is StartIn and Wait.
func RunIn(cgroup string, ns *Namespace, cmd *exec.Cmd) error {
	if err := StartIn(cgroup, ns, cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// BPFFS mounts a bpf file system of the test's own and returns its folder.
func BPFFS(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// FreePort is a TCP port below the ephemeral range that nobody listens on, on
// any address of either family. It stays free unless somebody asks for it by number.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	port, err := host.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Eventually waits until ok, and fails the test when that takes too long.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("still not so after %v: %s", settle, what)
}

// NoLeaks fails the test when at its end more goroutines or file descriptors are
// there than now. Call it first, so that it looks last; not with t.Parallel.
func NoLeaks(t testing.TB) {
	t.Helper()
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close() // the runtime's epoll descriptors are there from here on
	}
	goroutines, fds := runtime.NumGoroutine(), openFDs(t)
	t.Cleanup(func() {
		var g, f int
		for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if g, f = runtime.NumGoroutine(), openFDs(t); g <= goroutines && f <= fds {
				return
			}
		}
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		t.Errorf("left behind: %d goroutines (%d before), %d descriptors (%d before)\n%s", g, goroutines, f, fds, stacks)
	})
}

func openFDs(t testing.TB) int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
