package accept

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/testkit"
)

var start = time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)

// source is a listener whose connections get their origins from a function.
type source struct {
	net.Listener
	origin func() Origin
}

func listen(t *testing.T, origin func() Origin) *source {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &source{l, origin}
}

func (s *source) next(ctx context.Context) (*net.TCPConn, Origin, error) {
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	c, err := s.Accept()
	if err != nil {
		return nil, Origin{}, err
	}
	return c.(*net.TCPConn), s.origin(), nil
}

func (s *source) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if errors.Is(err, unix.ECONNRESET) {
		return nil // refused so fast that the dialer noticed
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func config(s *source) Config {
	return Config{
		Node: "node-a", Backends: []Backend{{"other", flow.TCP}, {"orders", flow.Postgres}}, Next: s.next,
		CgroupPath: func(id uint64) (string, error) { return "/kubepods/podabcdef0123456789abcdef0123456789", nil },
		Now:        func() time.Time { return start }, Log: slog.New(slog.DiscardHandler),
	}
}

// self is this process as the kernel's record would say it.
func self(t *testing.T) flow.Process {
	t.Helper()
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	ticks, err := startTicks(string(stat))
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &st); err != nil {
		t.Fatal(err)
	}
	return flow.Process{PID: os.Getpid(), StartTime: ticks*uint64(clockTick) + 12345, ExeInode: st.Ino, CgroupID: 7, UID: 1000}
}

func TestConnectionBecomesFlow(t *testing.T) {
	testkit.NoLeaks(t)
	me := self(t)
	dest := netip.MustParseAddrPort("192.0.2.1:5432")
	s := listen(t, func() Origin { return Origin{Destination: dest, Backend: 1, Process: me} })
	a, err := New(config(s))
	if err != nil {
		t.Fatal(err)
	}
	flows := make(chan *flow.Flow, 1)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- a.Serve(ctx, func(c *Conn) {
			flows <- c.Flow()
			c.Write([]byte("x"))
			c.Close()
		})
	}()
	c := s.dial(t)
	if b, err := io.ReadAll(c); err != nil || string(b) != "x" {
		t.Fatalf("%q, %v", b, err)
	}
	got := <-flows
	exe, _ := os.Executable()
	want := &flow.Flow{
		ID: got.ID, Node: "node-a", Protocol: flow.Postgres, Backend: "orders", Destination: dest, Process: me, Start: start,
	}
	want.Process.Exe, want.Process.Argv0 = exe, os.Args[0]
	want.Process.Cgroup = "/kubepods/podabcdef0123456789abcdef0123456789"
	want.Process.Pod = &flow.Pod{UID: "abcdef0123456789abcdef0123456789"}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(got.ID) != 26 {
		t.Errorf("flow id %q is no ULID", got.ID)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := a.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestUnknownBackendIsRefused(t *testing.T) {
	for _, backend := range []int{-1, 2} {
		s := listen(t, func() Origin { return Origin{Backend: backend} })
		c := config(s)
		refused := make(chan error, 1)
		c.OnRefused = func(_ *flow.Flow, err error) { refused <- err }
		a, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- a.Serve(ctx, func(*Conn) { t.Error("served") }) }()
		s.dial(t)
		if err := <-refused; !errors.Is(err, ErrNoBackend) {
			t.Error(err)
		}
		cancel()
		<-served
	}
}

func TestOneCgroupGetsHalfOfThePlaces(t *testing.T) {
	cgroup := make(chan uint64, 1)
	s := listen(t, func() Origin { return Origin{Process: flow.Process{CgroupID: <-cgroup}} })
	c := config(s)
	c.MaxFlows = 4
	refused := make(chan uint64, 10)
	c.OnRefused = func(f *flow.Flow, err error) {
		if !errors.Is(err, ErrTooMany) {
			t.Error(err)
		}
		refused <- f.Process.CgroupID
	}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served, release, entered := make(chan error, 1), make(chan struct{}), make(chan uint64, 10)
	go func() {
		served <- a.Serve(ctx, func(c *Conn) {
			entered <- c.Flow().Process.CgroupID
			<-release
			c.Close()
		})
	}()
	for _, step := range []struct {
		cgroup uint64
		ok     bool
	}{{1, true}, {1, true}, {1, false}, {2, true}, {2, true}, {2, false}, {3, false}} {
		cgroup <- step.cgroup
		s.dial(t)
		select {
		case id := <-entered:
			if !step.ok || id != step.cgroup {
				t.Errorf("cgroup %d was served", id)
			}
		case id := <-refused:
			if step.ok || id != step.cgroup {
				t.Errorf("cgroup %d was refused", id)
			}
		}
	}
	cancel()
	<-served
	short, stop := context.WithCancel(t.Context())
	stop()
	if err := a.Drain(short); err == nil || a.Running() != 4 {
		t.Errorf("drained with %d flows running: %v", a.Running(), err)
	}
	close(release)
	if err := a.Drain(t.Context()); err != nil || a.Running() != 0 {
		t.Errorf("%d flows left: %v", a.Running(), err)
	}
}

func TestExePathOnlyOfTheSameProcess(t *testing.T) {
	me := self(t)
	if exe, argv0 := program(&me); exe == "" || argv0 != os.Args[0] {
		t.Error("the path of this process was not found")
	}
	for name, change := range map[string]func(*flow.Process){
		"another start":   func(p *flow.Process) { p.StartTime += uint64(clockTick) },
		"another program": func(p *flow.Process) { p.ExeInode++ },
		"nobody":          func(p *flow.Process) { p.PID = 1 << 30 },
	} {
		p := me
		change(&p)
		if got, _ := program(&p); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	// The name in parentheses is chosen by the process.
	if n, err := startTicks("12 (a) S 1 (b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"); err != nil || n != 4711 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := startTicks("12 (a) S 1 2"); err == nil {
		t.Error("a short line was read")
	}
}

func TestPodOf(t *testing.T) {
	const uid = "01234567-89ab-cdef-0123-456789abcdef"
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	under := "01234567_89ab_cdef_0123_456789abcdef"
	pod := &flow.Pod{UID: uid, Container: id}
	for path, want := range map[string]*flow.Pod{
		"/":                          nil,
		"/system.slice/sshd.service": nil,
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + id + ".scope":              pod,
		"/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + id + ".scope":                                                           pod,
		"/kubepods/besteffort/pod" + uid + "/" + id:                                                                                       pod,
		"/kubepods/besteffort/pod" + uid:                                                                                                  {UID: uid},
		"/docker/" + id + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + under + ".slice/cri-containerd-" + id + ".scope": pod,
		"/kubepods/pod" + uid + "/" + id + "/kubepods/podffffffffffffffffffffffffffffffff/" + id:                                          pod,
		"/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-pod" + under + ".slice/cri-containerd-" + id + ".scope":    nil,
		"/system.slice/pod" + uid + "/" + id:                                                                                              nil,
		"/kubepods/podzzzz":                                                                                                               nil,
		"/kubepods/pod" + uid + "/init.scope":                                                                                             {UID: uid},
		"/kubepods/tripod" + uid + "/" + id:                                                                                               nil,
		"/kubepods/pod0123456789abcdef0123456789abcdef/" + id:                                                                             {UID: "0123456789abcdef0123456789abcdef", Container: id},
	} {
		if diff := cmp.Diff(want, podOf(path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}
