package redirect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/bpf"
	"github.com/weirproxy/weir/internal/testkit"
)

func (g *rig) status(t testing.TB) Status {
	t.Helper()
	s, err := g.Status()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// served finds a namespace in the status.
func (g *rig) served(t testing.TB, ns *testkit.Namespace) *NamespaceStatus {
	t.Helper()
	for _, n := range g.status(t).Namespaces {
		if n.Inode == ns.Inode {
			return &n
		}
	}
	return nil
}

func TestNamespaceThatIsThereIsServedFromTheStart(t *testing.T) {
	ns := testkit.NetNS(t)
	var upstream *process
	g := openRig(t, func(c *Config) {
		// Outside of the client's cgroup: what it gets is not redirected.
		var line string
		if upstream, line = start(t, testkit.Cgroup(t), ns, "upstream", "127.0.0.1:5431", "[::1]:5431"); line != "ready" {
			t.Fatal(line)
		}
		start(t, c.Cgroups[0], ns, "wait")
	})
	if n := g.served(t, ns); n == nil || len(n.Listeners) != 2 || !n.LoopbackUp || n.Own {
		t.Fatalf("the namespace is served as %+v", n)
	}
	for step, addr := range map[string]string{"tcp4": "127.0.0.1:5431", "tcp6": "[::1]:5431", "mapped": "[::ffff:127.0.0.1]:5431"} {
		got := client(t, g.client, ns, step, addr)[0]
		if got.Err != "" || got.Peer != addr || !strings.HasPrefix(got.Reply, "agent ") {
			t.Fatalf("%s: the client saw %+v", step, got)
		}
		r := g.last(t)
		if r.Process.NetNS != g.served(t, ns).Cookie {
			t.Errorf("%s: the record names namespace %d", step, r.Process.NetNS)
		}
		// The server is in the namespace and nowhere else.
		c, err := g.DialNetNS(t.Context(), r.Process.NetNS, "tcp", r.Destination.String())
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, c); !strings.HasPrefix(got, "upstream for ") {
			t.Errorf("%s: dialled %q", step, got)
		}
		if _, err := g.DialNetNS(t.Context(), 0, "tcp", r.Destination.String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: dialled from the agent's own namespace: %v", step, err)
		}
	}
	upstream.stop()
}

func TestNewNamespaceIsServedAndLetGo(t *testing.T) {
	g := openRig(t, nil)
	ns := testkit.NetNS(t)
	if n := g.served(t, ns); n != nil {
		t.Fatalf("an empty namespace is served: %+v", n)
	}
	p, _ := start(t, g.client, ns, "wait")
	testkit.Eventually(t, "the new namespace is served", func() bool {
		n := g.served(t, ns)
		return n != nil && len(n.Listeners) == 2
	})
	if got := client(t, g.client, ns, "tcp4", protected4)[0]; got.Err != "" || got.Reply != "agent 192.0.2.10:5432 backend 3" {
		t.Errorf("the client saw %+v", got)
	}
	cookie := g.served(t, ns).Cookie
	p.stop()
	testkit.Eventually(t, "the namespace is let go", func() bool { return g.served(t, ns) == nil && holds(t, ns) == 1 })
	if _, err := g.DialNetNS(t.Context(), cookie, "tcp", protected4); !errors.Is(err, ErrNoNamespace) {
		t.Errorf("dialled from a namespace that is gone: %v", err)
	}
}

// holds counts the descriptors that keep a namespace: the test itself has one.
func holds(t *testing.T, ns *testkit.Namespace) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		if target, err := os.Readlink("/proc/self/fd/" + name.Name()); err == nil && target == fmt.Sprintf("net:[%d]", ns.Inode) {
			n++
		}
	}
	return n
}

func TestNamespaceWithLoopbackDownIsReported(t *testing.T) {
	g := openRig(t, nil)
	ns := testkit.NetNSDown(t)
	start(t, g.client, ns, "wait")
	testkit.Eventually(t, "the namespace is known", func() bool { return g.served(t, ns) != nil })
	if n := g.served(t, ns); n.LoopbackUp {
		t.Errorf("reported as %+v", n)
	}
	if err := ns.LoopbackUp(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the namespace is served", func() bool {
		n := g.served(t, ns)
		return n.LoopbackUp && len(n.Listeners) == 2
	})
	if got := client(t, g.client, ns, "tcp4", protected4)[0]; got.Err != "" {
		t.Errorf("the client saw %+v", got)
	}
}

func TestRestartGoesOnWithoutAGap(t *testing.T) {
	g := openRig(t, nil)
	if _, err := Open(g.config); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second agent on the folder: %v", err)
	}
	client(t, g.client, nil, "tcp4", protected4)
	before := g.status(t)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	for step, addr := range map[string]string{"tcp4": protected4, "tcp6": protected6, "mapped": mapped4} {
		if got := client(t, g.client, nil, step, addr)[0]; got.Err != "ECONNREFUSED" {
			t.Errorf("%s without an agent: %+v, want ECONNREFUSED", step, got)
		}
	}
	// The next run numbers its backends in another way.
	g.config.Destinations = []Destination{{Prefix: prefix("192.0.2.0/24"), Port: 5432, Backend: 8}}
	g.open(t)
	if got := client(t, g.client, nil, "tcp4", protected4)[0]; got.Reply != "agent 192.0.2.10:5432 backend 8" {
		t.Errorf("after the restart: %+v", got)
	}
	after := g.status(t)
	if after.Generation != before.Generation+1 || after.Counters.Redirected != before.Counters.Redirected+4 {
		t.Errorf("generation %d, then %d; redirected %d, then %d", before.Generation, after.Generation, before.Counters.Redirected, after.Counters.Redirected)
	}
	for i, cg := range before.Cgroups {
		for j, l := range cg.Links {
			if now := after.Cgroups[i].Links[j]; now.ID != l.ID || now.ProgramID == l.ProgramID || now.Error != "" {
				t.Errorf("%s on %s was %+v, is %+v: the link must stay, with a new program", l.Program, cg.Path, l, now)
			}
		}
	}
	// What only the earlier run protected is refused, and then let go.
	if got := client(t, g.client, nil, "tcp6", protected6)[0]; strings.HasPrefix(got.Reply, "agent") {
		t.Errorf("a connection to a backend that is gone was served: %+v", got)
	}
	if b := g.bypassed(t, 1)[0]; b.Record == nil || b.Record.Destination.String() != protected6 {
		t.Errorf("reported as %+v", b)
	}
	g.Redirector.mu.Lock()
	err := g.destinations.expire(time.Now().Add(leftoverGrace))
	g.Redirector.mu.Unlock()
	if d := g.status(t).Destinations; err != nil || len(d) != 1 || d[0].Backend != 8 {
		t.Errorf("protected a minute later: %v (%v)", d, err)
	}
}

func TestKilledAgentFailsClosed(t *testing.T) {
	testkit.NoLeaks(t)
	c, cg := newConfig(t)
	// The agent shares a cgroup with others, so it has to make itself one.
	shared := testkit.Cgroup(t)
	start(t, shared, nil, "wait")
	c.AgentCgroup = ""
	t.Cleanup(func() { Uninstall(c.BPFFS) })
	run := func() (*process, string) {
		p, line := start(t, shared, nil, "agent", agentConfig(t, c))
		ready, own, _ := strings.Cut(line, " ")
		if ready != "ready" || !strings.Contains(own, "/"+agentCgroupPrefix) {
			t.Fatalf("the agent says %q", line)
		}
		return p, own
	}
	p, own := run()
	if got := client(t, cg, nil, "tcp4", protected4)[0]; got.Reply != "agent 192.0.2.10:5432 backend 3" {
		t.Fatalf("the client saw %+v", got)
	}
	if err := Uninstall(c.BPFFS); !errors.Is(err, ErrInUse) {
		t.Errorf("uninstall under a running agent: %v", err)
	}
	p.kill()
	proxy := fmt.Sprintf("127.0.0.1:%d", c.ProxyPort)
	for _, a := range client(t, cg, nil, "tcp4", protected4, "tcp6", protected6, "mapped", mapped4, "nonblock", protected4, "tcp4", proxy) {
		if a.Err != "ECONNREFUSED" {
			t.Errorf("%s with a dead agent: %+v, want ECONNREFUSED", a.Step, a)
		}
	}
	if a := client(t, cg, nil, "bind", proxy)[0]; a.Err != "EPERM" {
		t.Errorf("somebody else took the proxy's port: %+v", a)
	}
	p, second := run()
	if got := client(t, cg, nil, "tcp4", protected4)[0]; got.Reply != "agent 192.0.2.10:5432 backend 3" {
		t.Errorf("after the restart the client saw %+v", got)
	}
	if _, err := os.Stat(own); err == nil {
		t.Errorf("the dead agent's cgroup %s is still there", own)
	}
	p.kill()
	if err := Uninstall(c.BPFFS); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{second, c.BPFFS} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there after uninstall", path)
		}
	}
	if ids := attachedTo(cg, ebpf.AttachCGroupInet4Connect); len(ids) != 0 {
		t.Errorf("programs %v are still attached", ids)
	}
	if err := Uninstall(c.BPFFS); err != nil {
		t.Errorf("uninstall of nothing: %v", err)
	}
}

// foreign attaches a program of somebody else, with a link or, as old tools do,
// without any flag.
func foreign(t *testing.T, cgroup string, attach ebpf.AttachType, typ ebpf.ProgramType, flagless bool, code asm.Instructions) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: typ, AttachType: attach, License: "GPL", Instructions: code})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	if flagless {
		if err := link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: p, Attach: attach}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(dir.Fd()), Program: p, Attach: attach})
			dir.Close()
		})
		return
	}
	defer dir.Close()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(dir.Fd()), Program: p, Attach: attach})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

var allow = asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}

func TestForeignProgramsAbove(t *testing.T) {
	parent := testkit.Cgroup(t)
	foreign(t, parent, ebpf.AttachCGroupInet4Connect, ebpf.CGroupSockAddr, false, allow)
	foreign(t, parent, ebpf.AttachCgroupInet4GetPeername, ebpf.CGroupSockAddr, false, allow)
	// It switches every callback off, ours too: the close of a client is not reported.
	foreign(t, parent, ebpf.AttachCGroupSockOps, ebpf.SockOps, false, asm.Instructions{
		asm.Mov.Imm(asm.R2, 0), asm.FnSockOpsCbFlagsSet.Call(), asm.Mov.Imm(asm.R0, 1), asm.Return(),
	})
	var below string
	g := openRig(t, func(c *Config) {
		below = testkit.CgroupIn(t, parent)
		c.Cgroups = []string{below}
	})
	got := client(t, below, nil, "tcp4", protected4)[0]
	if got.Peer != protected4 || got.Reply != "agent 192.0.2.10:5432 backend 3" {
		t.Errorf("the client saw %+v", got)
	}
	g.StopAccepting()
	if got := client(t, below, nil, "tcp4", protected4)[0]; got.Err != "ECONNREFUSED" {
		t.Errorf("without a listener: %+v", got)
	}
	if n := g.pending(); n != 1 {
		t.Errorf("%d hand-overs are left, want the one whose close was hidden", n)
	}
}

func TestFlaglessForeignProgramIsNamed(t *testing.T) {
	parent := testkit.Cgroup(t)
	below := testkit.CgroupIn(t, parent)
	foreign(t, parent, ebpf.AttachCGroupInet4Connect, ebpf.CGroupSockAddr, true, allow)
	testkit.NoLeaks(t)
	c, _ := newConfig(t)
	c.Cgroups = []string{below}
	r, err := Open(c)
	if err == nil {
		r.Close()
		t.Fatal("attached below a program that does not share")
	}
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "BPF_F_ALLOW_MULTI") || !strings.Contains(err.Error(), parent) {
		t.Errorf("the error does not say who is in the way: %v", err)
	}
	expectNothing(t, c)
}

// expectNothing checks that a failed Open left no pin and put the process back.
func expectNothing(t *testing.T, c Config) {
	t.Helper()
	for _, dir := range []string{linksDir, mapsDir} {
		filepath.WalkDir(filepath.Join(c.BPFFS, dir), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				t.Errorf("%s was left", path)
			}
			return nil
		})
	}
	h, err := findHierarchy()
	if err != nil {
		t.Fatal(err)
	}
	if own, err := h.own(); err != nil || own.path == c.AgentCgroup {
		t.Errorf("the process is still in %s (%v)", own.path, err)
	}
}

func TestFailedOpenLeavesNothing(t *testing.T) {
	testkit.NoLeaks(t)
	c, cg := newConfig(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.ProxyPort))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Open(c); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("with the proxy port taken: %v", err)
	}
	expectNothing(t, c)
	if ids := attachedTo(cg, ebpf.AttachCGroupInet4Connect); len(ids) != 0 {
		t.Errorf("programs %v were left", ids)
	}
}

func TestFailedUpgradePutsTheOldProgramsBack(t *testing.T) {
	g := openRig(t, nil)
	before := g.status(t)
	g.Close()
	blocked := testkit.Cgroup(t)
	foreign(t, blocked, ebpf.AttachCGroupInet6Connect, ebpf.CGroupSockAddr, true, allow)
	c := g.config
	c.Cgroups = append([]string{blocked}, c.Cgroups...)
	c.ProxyPort = testkit.FreePort(t)
	if r, err := Open(c); err == nil {
		r.Close()
		t.Fatal("opened over a program that does not share")
	}
	links, err := pinnedAttachments(g.cgroups, c.BPFFS)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(links)
	for _, a := range links {
		s := a.status()
		i := 0
		for before.Cgroups[i].ID != s.ID || before.Cgroups[i].Kind != s.Kind {
			i++
		}
		if diff := cmp.Diff(before.Cgroups[i].Links, s.Links); diff != "" {
			t.Errorf("links of %s (-before +after):\n%s", s.Path, diff)
		}
	}
	if got := client(t, g.client, nil, "tcp4", protected4)[0]; got.Err != "ECONNREFUSED" {
		t.Errorf("after a failed upgrade: %+v, want ECONNREFUSED", got)
	}
	g.open(t)
	if got := client(t, g.client, nil, "tcp4", protected4)[0]; !strings.HasPrefix(got.Reply, "agent") {
		t.Errorf("after a good start: %+v", got)
	}
}

func TestNestedCgroupsAreAttachedOnce(t *testing.T) {
	var below string
	g := openRig(t, func(c *Config) {
		below = testkit.CgroupIn(t, c.Cgroups[0])
		c.Cgroups = append(c.Cgroups, below)
	})
	check := func(what string) {
		t.Helper()
		for _, cg := range []string{g.client, below} {
			if got := client(t, cg, nil, "tcp4", protected4)[0]; !strings.HasPrefix(got.Reply, "agent") {
				t.Errorf("%s: a client in %s saw %+v", what, cg, got)
			}
		}
	}
	check("configured twice")
	if err := g.AttachCgroup(below); err != nil {
		t.Fatal(err)
	}
	check("attached below")
	if n := len(g.status(t).Cgroups); n != 2 {
		t.Errorf("%d cgroups have links, want the parent's and the agent's: %+v", n, g.status(t).Cgroups)
	}
	if err := g.DetachCgroup(below); err != nil {
		t.Fatal(err)
	}
	check("detached below")
}

func TestExecCgroups(t *testing.T) {
	g := openRig(t, nil)
	parent := testkit.Cgroup(t)
	exec := testkit.CgroupIn(t, parent)
	other := testkit.CgroupIn(t, parent)
	connects := func(cg string) bool {
		t.Helper()
		return strings.HasPrefix(client(t, cg, nil, "tcp4", "127.0.0.1:5431")[0].Reply, "agent")
	}
	for _, cg := range []string{exec, other} {
		if connects(cg) {
			t.Fatalf("%s is redirected before it is attached", cg)
		}
		if err := g.AttachCgroup(cg); err != nil {
			t.Fatal(err)
		}
		if err := g.AttachCgroup(cg); err != nil {
			t.Fatal(err)
		}
		if !connects(cg) {
			t.Fatalf("%s is not redirected", cg)
		}
	}
	if err := g.DetachCgroup(other); err != nil || connects(other) || !connects(exec) {
		t.Fatalf("after the detachment of one of them: %v", err)
	}
	// The next agent is configured for a cgroup above: the programs must not run twice.
	g.Close()
	g.config.Cgroups = []string{parent}
	g.open(t)
	if !connects(exec) || !connects(other) || connects(g.client) {
		t.Error("not as configured after a restart with a cgroup above")
	}
	if n := len(g.status(t).Cgroups); n != 2 {
		t.Errorf("links on %+v", g.status(t).Cgroups)
	}
	// And back to one below.
	g.Close()
	g.config.Cgroups = []string{exec}
	g.open(t)
	if !connects(exec) || connects(other) {
		t.Error("not as configured after a restart with a cgroup below")
	}
}

func TestLinksGoWithTheirCgroup(t *testing.T) {
	g := openRig(t, nil)
	cg := filepath.Join(testkit.CgroupRoot(t), fmt.Sprintf("weir-test-gone-%d", os.Getpid()))
	if err := os.Mkdir(cg, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(cg)
	if err := g.AttachCgroup(cg); err != nil {
		t.Fatal(err)
	}
	pins := attachmentDir(g.config.BPFFS, KindExec, testkit.CgroupID(t, cg))
	if _, err := os.Stat(pins); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(cg); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the pins are gone", func() bool {
		_, err := os.Stat(pins)
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestTwoAgentsOnOnePath(t *testing.T) {
	upper := openRig(t, nil)
	below := testkit.CgroupIn(t, upper.client)
	lower := openRig(t, func(c *Config) {
		c.Cgroups, c.AgentCgroup = []string{below}, upper.config.AgentCgroup
		c.Destinations = []Destination{{Prefix: prefix("192.0.2.10/32"), Port: 5432, Backend: 30}}
	})
	for _, tt := range []struct{ cgroup, addr, reply string }{
		{below, protected4, "agent 192.0.2.10:5432 backend 30"},       // the lower one is first
		{below, "192.0.2.11:5432", "agent 192.0.2.11:5432 backend 3"}, // only the upper one protects it
		{upper.client, protected4, "agent 192.0.2.10:5432 backend 3"}, // the lower one does not run there
	} {
		got := client(t, tt.cgroup, nil, "tcp4", tt.addr)[0]
		if got.Reply != tt.reply || got.Peer != tt.addr {
			t.Errorf("%s: the client saw %+v, want %q", tt.addr, got, tt.reply)
		}
	}
	if n := lower.counters(t).NoRecord + upper.counters(t).NoRecord; n != 0 {
		t.Errorf("%d connections came without a record", n)
	}
}

func TestRefusedConnectTakesItsHandoverBack(t *testing.T) {
	g := openRig(t, nil)
	g.StopAccepting()
	if got := client(t, g.client, nil, "tcp4", protected4)[0]; got.Err != "ECONNREFUSED" {
		t.Errorf("without a listener: %+v", got)
	}
	if c := g.counters(t); c.Abandoned != 1 || c.Redirected != 1 || g.pending() != 0 {
		t.Errorf("%d hand-overs are left; counters: %+v", g.pending(), c)
	}
}

func TestSweepTakesOldHandoversOnly(t *testing.T) {
	g := openRig(t, nil)
	keys := rawKeys(2)
	old, young := rawRecord(), rawRecord()
	old.Time = 1
	for i, r := range []bpf.RedirectWeirRecord{old, young} {
		if err := g.objects.HandoversV1.Put(&keys[i], &r); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.sweep(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	var got bpf.RedirectWeirRecord
	if err := g.objects.HandoversV1.Lookup(&keys[0], &got); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the old one is still there: %v", err)
	}
	if err := g.objects.HandoversV1.Lookup(&keys[1], &got); err != nil {
		t.Errorf("the young one is gone: %v", err)
	}
}

func TestDestinationsGrowBeforeTheyShrink(t *testing.T) {
	g := openRig(t, nil)
	set := func(grace time.Duration, want ...Destination) {
		t.Helper()
		if err := g.SetDestinations(want, grace); err != nil {
			t.Fatal(err)
		}
	}
	reply := func(addr string) string {
		t.Helper()
		return client(t, g.client, nil, "tcp4", addr)[0].Reply
	}
	wide := Destination{Prefix: prefix("127.9.2.0/24"), Port: 5432, Backend: 1}
	narrow := Destination{Prefix: prefix("127.9.2.10/32"), Port: 5432, Backend: 2}
	set(time.Hour, wide, narrow)
	if got := reply("127.9.2.10:5432"); got != "agent 127.9.2.10:5432 backend 2" {
		t.Errorf("the longer prefix must win: %q", got)
	}
	set(time.Hour, wide)
	if got := reply("127.9.2.10:5432"); got != "agent 127.9.2.10:5432 backend 2" {
		t.Errorf("within its grace a destination stays: %q", got)
	}
	set(0, wide)
	set(0, Destination{Prefix: prefix("127.9.2.128/25"), Port: 5432, Backend: 7})
	if got := reply("127.9.2.200:5432"); got != "agent 127.9.2.200:5432 backend 7" {
		t.Errorf("a new destination: %q", got)
	}
	if got := reply("127.9.2.20:5432"); got != "" {
		t.Errorf("a destination without grace stays: %q", got)
	}
	if err := g.SetDestinations([]Destination{wide, {Prefix: wide.Prefix, Port: wide.Port, Backend: 9}}, 0); err == nil {
		t.Error("one destination for two backends was taken")
	}
	if err := g.SetDestinations([]Destination{{Prefix: wide.Prefix}}, 0); err == nil {
		t.Error("a destination without a port was taken")
	}
}

func TestRecordsOfAnEarlierRunAreNumberedAnew(t *testing.T) {
	g := openRig(t, nil)
	k := destinationKey{prefix("::ffff:192.0.2.10/128"), 5432}
	stale := bpf.RedirectWeirDestination{Backend: 99, Generation: g.generation - 1}
	if err := g.objects.DestinationsV1.Put(k.forProtocol(unix.IPPROTO_TCP), &stale); err != nil {
		t.Fatal(err)
	}
	if got := client(t, g.client, nil, "tcp4", protected4)[0]; got.Reply != "agent 192.0.2.10:5432 backend 3" {
		t.Errorf("the client saw %+v", got)
	}
	k.prefix = prefix("::ffff:198.51.100.1/128") // belongs to nobody now
	if err := g.objects.DestinationsV1.Put(k.forProtocol(unix.IPPROTO_TCP), &stale); err != nil {
		t.Fatal(err)
	}
	if got := client(t, g.client, nil, "tcp4", "198.51.100.1:5432")[0]; strings.HasPrefix(got.Reply, "agent") {
		t.Errorf("the client was served: %+v", got)
	}
	if b := g.bypassed(t, 1)[0]; b.Record == nil || b.Record.Destination.String() != "198.51.100.1:5432" {
		t.Errorf("the report says %+v", b)
	}
}

func TestOlderConnectionsAreListed(t *testing.T) {
	ns := testkit.NetNS(t)
	var port uint16
	var own, inside *process
	g := openRig(t, func(c *Config) {
		port = testkit.FreePort(t)
		c.Destinations = []Destination{{Prefix: prefix("127.0.0.1/32"), Port: port, Backend: 2}, {Prefix: prefix("::1/128"), Port: port, Backend: 4}}
		own, _ = start(t, c.Cgroups[0], nil, "holder", fmt.Sprintf("127.0.0.1:%d", port))
		inside, _ = start(t, c.Cgroups[0], ns, "holder", fmt.Sprintf("[::1]:%d", port))
	})
	defer own.stop()
	defer inside.stop()
	mine, err := g.DialNetNS(t.Context(), 0, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	got, err := g.Older(t.Context())
	if errors.Is(err, ErrNoSockDiag) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	byBackend := make(map[int]Socket)
	for _, s := range got {
		byBackend[s.Backend] = s
	}
	if len(got) != 2 || byBackend[2].Destination != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port) ||
		byBackend[4].Destination != netip.AddrPortFrom(netip.IPv6Loopback(), port) ||
		byBackend[4].NetNS != g.served(t, ns).Cookie || byBackend[2].State != 1 || byBackend[2].Cookie == 0 {
		t.Errorf("listed: %+v", got)
	}
}

// holderMain listens and connects to itself, and keeps both ends.
func holderMain(args []string) int {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	defer l.Close()
	return waitMain(nil)
}

func TestAcceptSurvivesRunningOutOfDescriptors(t *testing.T) {
	failed := make(chan struct{}, 1)
	g := openRig(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(notify{failed}, nil)) })
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	cmd := testkit.Helper(t, "client", "go", "tcp4", protected4)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := testkit.StartIn(g.client, nil, cmd); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // everything above is in use or may not be had
	if err := unix.Prlimit(os.Getpid(), unix.RLIMIT_NOFILE, &none, nil); err != nil {
		t.Fatal(err)
	}
	stdin.Write([]byte("\n"))
	<-failed // the connection waits in the kernel
	if err := unix.Prlimit(os.Getpid(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "agent 192.0.2.10:5432 backend 3") {
		t.Errorf("the client saw %s (%v)", out.String(), err)
	}
}

type notify struct{ c chan struct{} }

func (n notify) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "could not be accepted") {
		select {
		case n.c <- struct{}{}:
		default:
		}
	}
	return len(b), nil
}

func TestDialEndsWithItsContext(t *testing.T) {
	g := openRig(t, nil)
	// A listener whose queue is full does not answer.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	addr := fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
	first, err := g.DialNetNS(t.Context(), 0, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		c, err := g.DialNetNS(ctx, 0, "tcp", addr)
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	testkit.Eventually(t, "the dial waits", func() bool { return synSent(t, addr) })
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("the dial ended with %v", err)
	}
	if _, err := g.DialNetNS(t.Context(), 0, "udp", addr); err == nil {
		t.Error("a network that is not TCP was taken")
	}
	if _, err := g.DialNetNS(t.Context(), 1<<62, "tcp", addr); !errors.Is(err, ErrNoNamespace) {
		t.Errorf("dialled from a namespace that never was: %v", err)
	}
	if _, err := net.LookupHost("localhost"); err != nil {
		t.Skipf("this machine has no localhost: %v", err)
	}
	byName, err := g.DialNetNS(t.Context(), 0, "tcp4", fmt.Sprintf("localhost:%d", listening(t)))
	if err != nil {
		t.Fatalf("dial by name: %v", err)
	}
	byName.Close()
}

func listening(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// synSent looks for a connect to addr that waits for an answer, in /proc/net/tcp.
func synSent(t *testing.T, addr string) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	ap := netip.MustParseAddrPort(addr)
	ip := ap.Addr().As4()
	want := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), ap.Port())
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == want {
			if state, _ := strconv.ParseUint(f[3], 16, 8); state == 2 {
				return true
			}
		}
	}
	return false
}
