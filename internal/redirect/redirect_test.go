package redirect

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/testkit"
)

var contextForever = context.Background()

func sockaddrPointer(sa *unix.RawSockaddr) uintptr { return uintptr(unsafe.Pointer(sa)) }

// Addresses of documentation: nothing answers there, so that an answer is the agent's.
const (
	protected4 = "192.0.2.10:5432"
	protected6 = "[2001:db8::10]:5432"
	mapped4    = "[::ffff:192.0.2.10]:5432"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var protectedSet = []Destination{
	{Prefix: prefix("192.0.2.0/24"), Port: 5432, Backend: 3},
	{Prefix: prefix("2001:db8::10/128"), Port: 5432, Backend: 4},
	{Prefix: prefix("127.0.0.1/32"), Port: 5431, Backend: 5},
	{Prefix: prefix("::1/128"), Port: 5431, Backend: 6},
}

// rig is an agent inside the test, and a cgroup that it redirects.
type rig struct {
	*Redirector
	config   Config
	client   string // cgroup
	mu       sync.Mutex
	records  []Record
	bypasses []Bypass
}

func newConfig(t testing.TB) (Config, string) {
	t.Helper()
	client := testkit.Cgroup(t)
	return Config{
		Cgroups: []string{client}, BPFFS: filepath.Join(testkit.BPFFS(t), "weir"), ProxyPort: testkit.FreePort(t),
		AgentCgroup: testkit.Cgroup(t), Destinations: protectedSet, Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}, client
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func openRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	testkit.NoLeaks(t)
	c, client := newConfig(t)
	g := &rig{client: client}
	c.OnBypass = func(b Bypass) { g.mu.Lock(); g.bypasses = append(g.bypasses, b); g.mu.Unlock() }
	if change != nil {
		change(&c)
	}
	g.config = c
	g.open(t)
	return g
}

// open starts the agent, and takes everything out at the end of the test.
func (g *rig) open(t testing.TB) {
	t.Helper()
	r, err := Open(g.config)
	if err != nil {
		t.Fatal(err)
	}
	g.Redirector = r
	served := make(chan struct{})
	go func() {
		defer close(served)
		serve(r, func(c *Conn) { g.mu.Lock(); g.records = append(g.records, c.Record); g.mu.Unlock() })
	}()
	t.Cleanup(func() {
		r.Close()
		<-served
		if err := Uninstall(g.config.BPFFS); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(g.config.BPFFS); err == nil {
			t.Error("the bpffs folder is still there")
		}
	})
}

func (g *rig) last(t testing.TB) Record {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.records) == 0 {
		t.Fatal("no connection arrived")
	}
	return g.records[len(g.records)-1]
}

func (g *rig) bypassed(t testing.TB, n int) []Bypass {
	t.Helper()
	var out []Bypass
	testkit.Eventually(t, fmt.Sprintf("%d blocked connections reported", n), func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		out = append([]Bypass(nil), g.bypasses...)
		return len(out) >= n
	})
	return out
}

func (g *rig) counters(t testing.TB) Counters {
	t.Helper()
	c, err := g.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConnectIsHandedOver(t *testing.T) {
	g := openRig(t, nil)
	for _, tt := range []struct {
		step, addr, peer, destination string
		backend                       int
	}{
		{"tcp4", protected4, protected4, protected4, 3},
		{"tcp6", protected6, protected6, protected6, 4},
		{"mapped", mapped4, mapped4, protected4, 3},
		{"nonblock", protected4, protected4, protected4, 3},
		{"tcp4", "0.0.0.0:5431", "127.0.0.1:5431", "127.0.0.1:5431", 5},
		{"tcp6", "[::]:5431", "[::1]:5431", "[::1]:5431", 6},
		{"mapped", "[::ffff:0.0.0.0]:5431", "[::ffff:127.0.0.1]:5431", "127.0.0.1:5431", 5},
	} {
		t.Run(tt.step+" "+tt.addr, func(t *testing.T) {
			got := client(t, g.client, nil, tt.step, tt.addr)[0]
			want := attempt{Step: tt.step, Peer: tt.peer, Local: got.Local, Reply: fmt.Sprintf("agent %s backend %d", tt.destination, tt.backend)}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the client saw (-want +got):\n%s", diff)
			}
			if r := g.last(t); r.Destination.String() != tt.destination || r.Backend != tt.backend {
				t.Errorf("the record says %s backend %d", r.Destination, r.Backend)
			}
		})
	}
	c := g.counters(t)
	if c.Redirected != 7 || c.HandedOver != 7 || c.NoRecord != 0 {
		t.Errorf("counters: %+v", c)
	}
}

func TestRecordSaysWhoConnected(t *testing.T) {
	g := openRig(t, nil)
	p, _ := start(t, g.client, nil, "wait")
	defer p.stop()
	client(t, g.client, nil, "tcp4", protected4)
	got := g.last(t).Process

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(exe, &st); err != nil {
		t.Fatal(err)
	}
	if got.ExeInode != st.Ino || got.ExeDev != st.Dev {
		t.Errorf("executable %d on %d, want %d on %d", got.ExeInode, got.ExeDev, st.Ino, st.Dev)
	}
	if got.CgroupID != testkit.CgroupID(t, g.client) {
		t.Errorf("cgroup %d, want %d", got.CgroupID, testkit.CgroupID(t, g.client))
	}
	if got.PID <= 1 || got.UID != 0 || got.LoginUID != ownNumber(t, "loginuid") || got.AuditSession != ownNumber(t, "sessionid") {
		t.Errorf("process %+v", got)
	}
	if comm := filepath.Base(exe); !strings.HasPrefix(comm, got.Comm) || got.Comm == "" {
		t.Errorf("comm %q, want the beginning of %q", got.Comm, comm)
	}
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	if age := time.Duration(uint64(now.Nano()) - got.StartTime); age < 0 || age > time.Minute {
		t.Errorf("started %v ago", age)
	}
	s, err := g.Status()
	if err != nil {
		t.Fatal(err)
	}
	if got.NetNS != s.Namespaces[0].Cookie {
		t.Errorf("namespace %d, want %d", got.NetNS, s.Namespaces[0].Cookie)
	}
	path, err := g.CgroupPath(got.CgroupID)
	if err != nil || filepath.Join(g.CgroupRoot(), path) != g.client {
		t.Errorf("the cgroup's path is %q (%v), want %q", path, err, g.client)
	}
	if _, err := g.CgroupPath(1 << 40); err == nil {
		t.Error("a cgroup that never was has a path")
	}
}

func ownNumber(t *testing.T, name string) uint32 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var n uint32
	fmt.Sscan(string(data), &n)
	return n
}

func TestUnprotectedIsLeftAlone(t *testing.T) {
	g := openRig(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go answer(l)
	got := client(t, g.client, nil, "tcp4", l.Addr().String())[0]
	if got.Reply != "direct" || got.Peer != l.Addr().String() {
		t.Errorf("the client saw %+v", got)
	}
	if c := g.counters(t); c.Redirected != 0 {
		t.Errorf("counters: %+v", c)
	}
}

func answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Write([]byte("direct"))
		c.(*net.TCPConn).CloseWrite()
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			io.Copy(io.Discard, c)
		}()
	}
}

func TestLatestConnectCounts(t *testing.T) {
	g := openRig(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go answer(l)
	direct := l.Addr().String()

	got := client(t, g.client, nil, "tcp4", protected4, "dissolve", "again", "192.0.2.77:5432", "dissolve", "again", direct,
		"dissolve", "again", fmt.Sprintf("127.0.0.1:%d", g.config.ProxyPort))
	for i := range got {
		got[i].Local = ""
	}
	want := []attempt{
		{Step: "tcp4", Peer: protected4, Reply: "agent 192.0.2.10:5432 backend 3"}, {Step: "dissolve"},
		{Step: "again", Peer: "192.0.2.77:5432", Reply: "agent 192.0.2.77:5432 backend 3"}, {Step: "dissolve"},
		{Step: "again", Peer: direct, Reply: "direct"}, {Step: "dissolve"},
		{Step: "again"},
	}
	want[6].Peer, want[6].Reply = got[6].Peer, got[6].Reply // the reset may come before or after the look
	if strings.Contains(got[6].Reply, "agent") || strings.HasPrefix(got[6].Peer, "192") {
		t.Errorf("a direct connect to the proxy was served: %+v", got[6])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if b := g.bypassed(t, 1); b[0].Record != nil {
		t.Errorf("a direct connect found a record: %+v", b[0].Record)
	}
}

func TestDirectConnectToTheProxyIsClosedAndReported(t *testing.T) {
	g := openRig(t, nil)
	outside := testkit.Cgroup(t) // no programs run there
	for i, cgroup := range []string{g.client, outside} {
		for j, step := range []string{"tcp4", "tcp6", "mapped"} {
			addr := map[string]string{"tcp4": "127.0.0.1", "tcp6": "[::1]", "mapped": "[::ffff:127.0.0.1]"}[step]
			got := client(t, cgroup, nil, step, fmt.Sprintf("%s:%d", addr, g.config.ProxyPort))[0]
			if strings.Contains(got.Reply, "agent") {
				t.Errorf("%s from %s was served: %+v", step, cgroup, got)
			}
			b := g.bypassed(t, 3*i+j+1)[3*i+j]
			if b.Local.Port() != g.config.ProxyPort || b.NetNS == 0 || !b.Peer.IsValid() || b.Err == nil {
				t.Errorf("the report says %+v", b)
			}
			if got.Local != "" && b.Peer.Port() != netip.MustParseAddrPort(got.Local).Port() {
				t.Errorf("the report says peer %s, the client was %s", b.Peer, got.Local)
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.records) != 0 {
		t.Errorf("served: %+v", g.records)
	}
	if c := g.counters(t); c.NoRecord != 6 {
		t.Errorf("counters: %+v", c)
	}
}

func TestSocketMadeElsewhereFollowsItsOwnCgroup(t *testing.T) {
	g := openRig(t, nil)
	// Made by the test, in the agent's cgroup, where no programs run: not hooked.
	// Made in the client's cgroup and connected by somebody outside: hooked, and
	// the record names who called connect.
	outside := testkit.Cgroup(t)
	fd := socketMadeIn(t, g.client)
	defer fd.Close()
	got := clientWith(t, outside, nil, fd, "inherited", protected4)[0]
	if got.Err != "" || got.Reply != "agent 192.0.2.10:5432 backend 3" {
		t.Fatalf("a socket of the client's cgroup was not redirected: %+v", got)
	}
	if id := g.last(t).Process.CgroupID; id != testkit.CgroupID(t, outside) {
		t.Errorf("the record names cgroup %d, not the caller's", id)
	}
}

// socketMadeIn has a child inside the cgroup make a socket and takes a copy of it.
func socketMadeIn(t *testing.T, cgroup string) *os.File {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := os.NewFile(uintptr(pair[0]), "theirs"), os.NewFile(uintptr(pair[1]), "ours")
	defer ours.Close()
	cmd := testkit.Helper(t, "makesocket")
	cmd.ExtraFiles = []*os.File{theirs}
	err = testkit.RunIn(cgroup, nil, cmd)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(ours.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%d control messages, %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "socket")
}

func makeSocketMain([]string) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Sendmsg(3, []byte("x"), unix.UnixRights(fd), nil, 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestDatagramsAreDenied(t *testing.T) {
	g := openRig(t, nil)
	got := client(t, g.client, nil, "udp", protected4, "udpconn", protected4, "udp", protected6, "udpconn", protected6, "udp", mapped4, "udpconn", mapped4,
		"udp", "0.0.0.0:5431", "udp", "127.0.0.1:9", "udpconn", "127.0.0.1:9")
	for i, a := range got[:7] {
		if a.Err != "EPERM" {
			t.Errorf("step %d %s: %q, want EPERM", i, a.Step, a.Err)
		}
	}
	for i, a := range got[7:] {
		if a.Err != "" {
			t.Errorf("unprotected step %d %s: %s", i, a.Step, a.Err)
		}
	}
	if c := g.counters(t); c.UDPDenied != 7 {
		t.Errorf("counters: %+v", c)
	}
}

func TestProxyPortCannotBeTaken(t *testing.T) {
	g := openRig(t, nil)
	g.StopAccepting() // the port is free now
	port := g.config.ProxyPort
	for addr, want := range map[string]string{
		fmt.Sprintf("127.0.0.1:%d", port): "EPERM", fmt.Sprintf("0.0.0.0:%d", port): "EPERM",
		fmt.Sprintf("[::1]:%d", port): "EPERM", fmt.Sprintf("[::]:%d", port): "EPERM",
		fmt.Sprintf("127.0.0.2:%d", port): "", fmt.Sprintf("127.0.0.1:%d", port+1): "",
	} {
		if got := client(t, g.client, nil, "bind", addr)[0]; got.Err != want {
			t.Errorf("bind %s: %q, want %q", addr, got.Err, want)
		}
	}
	if c := g.counters(t); c.BindDenied != 4 {
		t.Errorf("counters: %+v", c)
	}
}

func TestFullHandoverTableRefuses(t *testing.T) {
	g := openRig(t, func(c *Config) { c.maxHandovers = 4 })
	fill := rawKeys(4)
	for i := range fill {
		rec := rawRecord()
		if err := g.objects.HandoversV1.Put(&fill[i], &rec); err != nil {
			t.Fatal(err)
		}
	}
	if got := client(t, g.client, nil, "tcp4", protected4)[0]; got.Err != "ECONNREFUSED" {
		t.Errorf("with a full table: %+v, want ECONNREFUSED", got)
	}
	if err := g.objects.HandoversV1.Delete(&fill[0]); err != nil {
		t.Fatal(err)
	}
	if got := client(t, g.client, nil, "tcp4", protected4)[0]; got.Err != "" {
		t.Errorf("with room again: %+v", got)
	}
	if c := g.counters(t); c.DeniedFull != 1 || c.Redirected != 1 {
		t.Errorf("counters: %+v", c)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.records) != 1 || len(g.bypasses) != 0 {
		t.Errorf("%d connections served, %d blocked", len(g.records), len(g.bypasses))
	}
}

func TestManyConnectsLeaveNothing(t *testing.T) {
	g := openRig(t, nil)
	const n = 500
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if got := client(t, g.client, nil, "many", fmt.Sprint(n), protected4)[0]; got.Err != "" {
				t.Errorf("after some connects: %+v", got)
			}
		})
	}
	wg.Wait()
	testkit.Eventually(t, "the hand-over table is empty", func() bool { return g.pending() == 0 })
	if c := g.counters(t); c.Redirected != 4*n || c.HandedOver != 4*n || c.NoRecord != 0 {
		t.Errorf("counters: %+v", c)
	}
}

func TestAgentsOwnDialIsExempt(t *testing.T) {
	g := openRig(t, func(c *Config) {
		c.Cgroups = append(c.Cgroups, c.AgentCgroup) // the programs run for the agent too
		c.Destinations = []Destination{{Prefix: prefix("127.0.0.0/8"), Port: testkit.FreePort(t), Backend: 1}}
	})
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", g.config.Destinations[0].Port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go answer(l)
	if got := client(t, g.client, nil, "tcp4", l.Addr().String())[0]; !strings.HasPrefix(got.Reply, "agent") {
		t.Fatalf("the client was not redirected: %+v", got)
	}
	for _, byStamp := range []bool{false, true} {
		if byStamp { // without the exemption of the cgroup the stamp alone must do
			if err := g.objects.AgentsV1.Delete(g.agent.id); err != nil {
				t.Fatal(err)
			}
		}
		for _, cookie := range []uint64{0, g.last(t).Process.NetNS} {
			c, err := g.DialNetNS(t.Context(), cookie, "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, c); got != "direct" {
				t.Errorf("stamp %v, namespace %d: the agent's own dial was answered %q", byStamp, cookie, got)
			}
		}
	}
	// And without stamp or exemption it is redirected: the test can fail.
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); !strings.HasPrefix(got, "agent") {
		t.Errorf("an unstamped dial was answered %q", got)
	}
	if c := g.counters(t); c.Exempt != 4 {
		t.Errorf("counters: %+v", c)
	}
}

func readAll(t *testing.T, c net.Conn) string {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 256)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func agentConfig(t *testing.T, c Config) string {
	t.Helper()
	c.Log, c.OnBypass = nil, nil
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
