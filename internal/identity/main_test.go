package identity

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/testkit"
)

func TestMain(m *testing.M) {
	testkit.Main(m, map[string]func([]string) int{"client": clientHelper})
}

// clientHelper is a process that calls the agent: it takes on a login uid and a
// user ("-" for none), connects to a socket and then does what it is told there:
// "spawn" starts a child, "move DIR" moves the last child, "exit" ends it.
func clientHelper(args []string) int {
	if args[1] != "-" {
		if err := os.WriteFile("/proc/self/loginuid", []byte(args[1]), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "loginuid:", err)
			return 1
		}
	}
	if args[2] != "-" {
		uid, _ := strconv.Atoi(args[2])
		if err := syscall.Setresuid(uid, uid, uid); err != nil {
			fmt.Fprintln(os.Stderr, "setresuid:", err)
			return 1
		}
	}
	conn, err := net.Dial("unix", args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for s := bufio.NewScanner(conn); s.Scan(); {
		switch s.Text() {
		case "spawn":
			cmd := exec.Command("sleep", "600")
			if err := cmd.Start(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			fmt.Fprintln(conn, cmd.Process.Pid)
		case "exit":
			return 0
		}
	}
	return 0
}

// client is the test's end of a clientHelper.
type client struct {
	*Caller
	t    *testing.T
	cmd  *exec.Cmd
	conn *net.UnixConn
	in   *bufio.Scanner
	once sync.Once
}

// newClient starts a clientHelper in a cgroup and asks the kernel who it is.
func newClient(t *testing.T, cgroup, loginuid, uid string) *client {
	t.Helper()
	c := connectClient(t, cgroup, loginuid, uid)
	caller, err := PeerCaller(c.conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { caller.Close() })
	c.Caller = caller
	return c
}

func connectClient(t *testing.T, cgroup, loginuid, uid string) *client {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@weir-identity-" + newID(t), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, cmd: testkit.Helper(t, "client", l.Addr().String(), loginuid, uid)}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{}
	if err := testkit.StartIn(cgroup, nil, c.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.exit)
	if c.conn, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	c.in = bufio.NewScanner(c.conn)
	return c
}

func newID(t *testing.T) string {
	t.Helper()
	id, err := newBindingID(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// spawn has the client start a child and returns it.
func (c *client) spawn() (pid int) {
	c.t.Helper()
	fmt.Fprintln(c.conn, "spawn")
	if !c.in.Scan() {
		c.t.Fatal("the client gave no answer")
	}
	pid, err := strconv.Atoi(c.in.Text())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { kill(pid) })
	return pid
}

// exit ends the client, not its children.
func (c *client) exit() {
	c.once.Do(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
}

// kill ends a process of this test by its id, if it still is a sleep.
func kill(pid int) {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if strings.TrimSpace(string(comm)) == "sleep" {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// process is what the connect hook would report of a process.
func process(t *testing.T, pid int) *flow.Process {
	t.Helper()
	mount, err := cgroupMount()
	if err != nil {
		t.Fatal(err)
	}
	p, err := readProc(pid, mount)
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

// sleeper runs a process in a cgroup and returns what the hook would report.
func sleeper(t *testing.T, cgroup string) *flow.Process {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if err := testkit.StartIn(cgroup, nil, cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return process(t, cmd.Process.Pid)
}

// recorder collects events, as the agent's audit would.
type recorder struct {
	mu     sync.Mutex
	events []Event
	attach []string // calls of the redirect
	refuse error
}

func (r *recorder) OnChange(_ context.Context, e Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	return r.refuse
}

// redirect stands for the redirect's Attach and Detach.
func (r *recorder) redirect(what string) func(string) error {
	return func(dir string) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.attach = append(r.attach, what+" "+filepath.Base(filepath.Dir(dir)))
		return nil
	}
}

func (r *recorder) takeAttach() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.attach
	r.attach = nil
	return list
}

// take returns the events so far, as "type reason user", and forgets them.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for _, e := range r.events {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Type, e.Binding.Principal.User, e.Reason)))
	}
	r.events = nil
	return list
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// world is a manager with one issuer inside the test.
type world struct {
	t      *testing.T
	m      *Manager
	idp    *testkit.Issuer
	rec    *recorder
	cfg    Config
	cgroup string // of the test, absolute
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, idp: testkit.NewIssuer(t), rec: &recorder{}, cgroup: testkit.Cgroup(t)}
	w.cfg = Config{
		Issuers:   []Issuer{{Issuer: w.idp.URL, ClientID: "weir"}},
		StateDir:  t.TempDir(),
		RootGroup: "weir-test-" + newID(t),
		OnChange:  w.rec.OnChange,
		Attach:    w.rec.redirect("attach"),
		Detach:    w.rec.redirect("detach"),
	}
	w.open()
	// Processes end before the manager does, so that it removes their cgroups.
	t.Cleanup(func() {
		testkit.Eventually(t, "exec cgroups are removed", func() bool { return len(w.execs()) == 0 })
		w.m.Close()
	})
	return w
}

func (w *world) execs() []Binding {
	var list []Binding
	for _, b := range w.m.List() {
		if b.Kind == ExecBinding {
			list = append(list, b)
		}
	}
	return list
}

func (w *world) open() {
	w.t.Helper()
	w.openAs(must(readBootID()))
}

func (w *world) openAs(bootID string) {
	w.t.Helper()
	m, err := newManager(context.Background(), w.cfg, bootID)
	if err != nil {
		w.t.Fatal(err)
	}
	w.m = m
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// token is one of a person's.
func (w *world) token(user string, more ...map[string]any) string {
	claims := map[string]any{"sub": "id-" + user, "email": user, "groups": []string{"developer"}}
	for _, m := range more {
		for k, v := range m {
			claims[k] = v
		}
	}
	return w.idp.Token(claims)
}

// who is the user that the manager takes a process for.
func (w *world) who(p *flow.Process) string {
	principal, err := w.m.Identify(context.Background(), p)
	if err != nil {
		return "error: " + err.Error()
	}
	return principal.User
}
