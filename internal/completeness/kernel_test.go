package completeness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/redirect"
	"github.com/weirproxy/weir/internal/testkit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// An address of documentation: nothing answers there, so that an answer is the agent's.
const protected = "192.0.2.10:5432"

func TestMain(m *testing.M) { testkit.Main(m, map[string]func([]string) int{"clients": clientsMain}) }

// clientsMain connects PER times on each of N goroutines. Every third connection is
// reset at once; of the others the answer is read to its end. It prints how many of each
// kind ended well.
func clientsMain(args []string) int {
	n, _ := strconv.Atoi(args[0])
	per, _ := strconv.Atoi(args[1])
	var answered, left atomic.Int64
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for i := range per {
				c, err := net.Dial("tcp", protected)
				if err != nil {
					continue
				}
				if i%3 == 2 {
					_ = c.(*net.TCPConn).SetLinger(0)
					left.Add(1)
				} else if b, _ := io.ReadAll(c); len(b) > 0 {
					answered.Add(1)
				}
				c.Close()
			}
		})
	}
	all.Wait()
	fmt.Println(answered.Load(), left.Load())
	return 0
}

// memory is a log that keeps nothing but counts.
type memory struct {
	mu     sync.Mutex
	events []*auditlog.Event
}

func (m *memory) Append(_ context.Context, _ bool, events ...*auditlog.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, events...)
	return nil
}

func (m *memory) last() *auditlog.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.events[len(m.events)-1]
}

// rig is the real hooks, an agent that records every connection as a flow, and a clock.
type rig struct {
	*redirect.Redirector
	config redirect.Config
	client string // cgroup
	ledger *Ledger
	log    *memory
	now    atomic.Int64 // ns
	served chan struct{}
	flows  sync.WaitGroup
	serve  atomic.Pointer[func(*redirect.Conn)] // instead of recording; nil: record
}

func newRig(t *testing.T) *rig {
	t.Helper()
	testkit.NoLeaks(t)
	g := &rig{client: testkit.Cgroup(t), log: &memory{}}
	g.config = redirect.Config{
		Cgroups: []string{g.client}, BPFFS: filepath.Join(testkit.BPFFS(t), "weir"), ProxyPort: testkit.FreePort(t),
		AgentCgroup: testkit.Cgroup(t), Log: slog.New(slog.DiscardHandler), Backends: []string{"other", "orders"},
		Destinations: []redirect.Destination{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Port: 5432, Backend: 1}},
	}
	t.Cleanup(func() {
		g.close()
		if err := redirect.Uninstall(g.config.BPFFS); err != nil {
			t.Error(err)
		}
	})
	g.open(t)
	return g
}

func (g *rig) open(t *testing.T) {
	t.Helper()
	r, err := redirect.Open(g.config)
	if err != nil {
		t.Fatal(err)
	}
	g.Redirector, g.served = r, make(chan struct{})
	g.now.Store(time.Now().UnixNano())
	clock := func() time.Time { return time.Unix(0, g.now.Load()) }
	g.ledger = New(Config{Record: g.log, Started: clock(), Now: clock})
	g.ledger.Begin(func() (map[string]auditlog.KernelFlows, error) {
		counts, err := r.FlowCounts()
		return kernel(counts), err
	}, Start{Base: kernel(r.FlowBase()), Counting: r.FlowsSince(), Run: r.Generation(), Backends: g.config.Backends})
	go func() {
		defer close(g.served)
		for i := 0; ; i++ {
			c, err := r.Accept(context.Background())
			if err != nil {
				return
			}
			if f := g.serve.Load(); f != nil {
				(*f)(c)
				continue
			}
			g.ledger.Claimed("orders")
			g.flows.Go(func() { g.record(c, fmt.Sprintf("%d-%d", r.Generation(), i), i) })
		}
	}()
}

// record opens or refuses the flow and answers.
func (g *rig) record(c *redirect.Conn, id string, i int) {
	defer c.Close()
	ev := &auditlog.Event{Kind: auditlog.FlowOpen, Flow: id, Backend: "orders"}
	if i%4 == 0 {
		ev.Kind, ev.Reason = auditlog.FlowRefused, clientClosed
	}
	_ = g.ledger.Append(context.Background(), false, ev)
	fmt.Fprint(c, "hello")
	g.ledger.Ended("orders", id)
}

func (g *rig) close() {
	g.Close()
	<-g.served
	g.flows.Wait()
}

func kernel(counts map[string]redirect.FlowCounts) map[string]auditlog.KernelFlows {
	out := make(map[string]auditlog.KernelFlows)
	for name, c := range counts {
		out[name] = auditlog.KernelFlows(c)
	}
	return out
}

func (g *rig) account(t *testing.T, scope string) auditlog.FlowCount {
	t.Helper()
	c, err := g.ledger.Account(scope)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range c.Backends {
		if b.Backend == "orders" {
			return b
		}
		if b.Kernel != (auditlog.KernelFlows{}) {
			t.Errorf("counted for %s: %+v", b.Backend, b)
		}
	}
	t.Fatal("no account of the backend")
	return auditlog.FlowCount{}
}

// clients runs clients and returns how many got an answer, and how many left at once.
func (g *rig) clients(t *testing.T, n, per int) (answered, left uint64) {
	t.Helper()
	cmd := testkit.Helper(t, "clients", strconv.Itoa(n), strconv.Itoa(per))
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout = out
	if err := testkit.RunIn(g.client, nil, cmd); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(text), &answered, &left); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return answered, left
}

// TestNoFalseDifference reads the account as fast as it can while connections come, are
// reset, refused and served, through the real hooks. Every reading has to be complete,
// and the last one exact.
func TestNoFalseDifference(t *testing.T) {
	g := newRig(t)
	done, readings := make(chan struct{}), 0
	var answered, left uint64
	go func() { defer close(done); answered, left = g.clients(t, 64, 60) }()
	for running := true; running; readings++ {
		select {
		case <-done:
			running = false
		default:
		}
		b := g.account(t, auditlog.ScopeRun)
		sum := b.Unclaimed + b.Opened + b.Refused + b.UnderWay
		if b.Difference != 0 || b.Kernel.HandedOver != sum {
			t.Fatalf("reading %d: %+v", readings, b)
		}
	}
	g.flows.Wait()
	testkit.Eventually(t, "every connection is accounted for", func() bool { return g.account(t, auditlog.ScopeRun).UnderWay == 0 })
	g.now.Add(int64(2 * DefaultPatience)) // nothing has waited all the time
	b := g.account(t, auditlog.ScopeRun)
	t.Logf("%d readings; %d answered, %d left at once: %+v", readings, answered, left, b)
	if b.Difference != 0 || b.Opened+b.Refused < answered || b.Kernel.HandedOver != b.Unclaimed+b.Opened+b.Refused || b.Kernel.HandedOver < answered {
		t.Errorf("the last account: %+v", b)
	}
	if b.Kernel.HandedOver+b.Kernel.Abandoned != answered+left || b.Early != b.Refused || b.Refused == 0 {
		t.Errorf("%d answered and %d left, but %+v", answered, left, b)
	}
	g.close()
	if b := g.account(t, auditlog.ScopeStop); b.Difference != 0 || b.UnderWay != 0 {
		t.Errorf("at the end: %+v", b)
	}
}

// TestMissingFlowIsFound: a connection that was taken and has no flow in the log is a
// difference, whichever way it went missing.
func TestMissingFlowIsFound(t *testing.T) {
	g := newRig(t)
	if answered, _ := g.clients(t, 1, 2); answered != 2 {
		t.Fatalf("%d answered", answered)
	}
	// Taken, never told to the ledger: it waits, and then it is missing.
	hidden := func(c *redirect.Conn) { fmt.Fprint(c, "hello"); c.Close() }
	g.serve.Store(&hidden)
	g.clients(t, 1, 1)
	if b := g.account(t, auditlog.ScopeRun); b.Difference != 0 || b.UnderWay != 1 {
		t.Errorf("at once: %+v", b)
	}
	g.now.Add(int64(DefaultPatience))
	if b := g.account(t, auditlog.ScopeRun); b.Difference != 1 || b.UnderWay != 0 {
		t.Errorf("later: %+v", b)
	}
	// Told, and ended without its event, since the log could not be written.
	lost := func(c *redirect.Conn) {
		g.ledger.Claimed("orders")
		fmt.Fprint(c, "hello")
		c.Close()
		g.ledger.Ended("orders", "nothing")
	}
	g.serve.Store(&lost)
	g.clients(t, 1, 1)
	testkit.Eventually(t, "both are missing", func() bool { return g.account(t, auditlog.ScopeRun).Difference == 2 })
	// That is recorded when it is seen, once.
	told := 0
	for range 3 {
		if err := g.ledger.look(t.Context(), func(string) { told++ }); err != nil {
			t.Fatal(err)
		}
	}
	if ev := g.log.last(); told != 1 || ev.Kind != auditlog.CompletenessEvent || ev.Completeness.Complete() || ev.Reason == "" || ev.Reason != g.ledger.Said() {
		t.Errorf("told %d times; the log has %+v", told, ev)
	}
	g.close()
	b := g.account(t, auditlog.ScopeStop)
	if b.Difference != 2 || b.Opened+b.Refused != 2 || b.Kernel.HandedOver != 4 {
		t.Errorf("at the end: %+v", b)
	}
	if why := Why(&auditlog.Completeness{Backends: []auditlog.FlowCount{b}}); why != `backend "orders": 2 connections that the kernel handed over have no flow in the audit log` {
		t.Error(why)
	}
}

// TestUnreadNotesAreCounted: what is closed before the agent takes its note has a cause,
// and the counters go on after the agent.
func TestUnreadNotesAreCounted(t *testing.T) {
	g := newRig(t)
	if answered, _ := g.clients(t, 1, 2); answered != 2 {
		t.Fatalf("%d answered", answered)
	}
	// The agent takes nothing any more: connections wait, and the end closes them.
	block, blocked := make(chan struct{}), make(chan struct{}, 1)
	stuck := func(c *redirect.Conn) {
		g.ledger.Claimed("orders")
		g.flows.Go(func() { g.record(c, "stuck", 1) })
		select {
		case blocked <- struct{}{}:
			<-block
		default:
		}
	}
	g.serve.Store(&stuck)
	finished := make(chan struct{})
	go func() { defer close(finished); g.clients(t, 8, 1) }()
	<-blocked
	testkit.Eventually(t, "seven wait to be accepted", func() bool {
		b := g.account(t, auditlog.ScopeRun)
		return b.Kernel.HandedOver == 10 && b.UnderWay == 7
	})
	go func() { <-finished; close(block) }()
	g.Close()
	g.close()
	if b := g.account(t, auditlog.ScopeStop); b.Difference != 0 || b.Unclaimed != 7 || b.Opened+b.Refused != 3 {
		t.Errorf("at the end: %+v", b)
	}
	stop, err := g.ledger.Record(t.Context(), auditlog.ScopeStop)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody listens now.
	if answered, left := g.clients(t, 1, 1); answered+left != 0 {
		t.Error("connected without an agent")
	}
	g.serve.Store(nil)
	g.open(t)
	if g.FlowsSince() != stop.Counting.Local() && !g.FlowsSince().Equal(stop.Counting) {
		t.Errorf("counting since %v, before that since %v", g.FlowsSince(), stop.Counting)
	}
	dir := t.TempDir() // an empty log: what the last account said is known from nowhere
	if err := os.MkdirAll(auditlog.SpoolDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := g.ledger.Before(t.Context(), Log{StateDir: dir})
	if err != nil || before.Problem == "" {
		t.Errorf("%+v, %v", before, err)
	}
	if answered, _ := g.clients(t, 1, 1); answered != 1 {
		t.Error("not served after the restart")
	}
	testkit.Eventually(t, "it is accounted for", func() bool { return g.account(t, auditlog.ScopeRun).UnderWay == 0 })
	b := g.account(t, auditlog.ScopeRun)
	if b.Kernel.HandedOver != 1 || b.Total.HandedOver != 11 || b.Total.Abandoned < 1 || b.Difference != 0 {
		t.Errorf("after the restart: %+v", b)
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Append(context.Context, bool, ...*auditlog.Event) error { return errBroken }

func TestWhatCannotBeRecordedIsNotCounted(t *testing.T) {
	l := New(Config{Record: broken{}, Now: time.Now})
	handed := uint64(1)
	l.Begin(func() (map[string]auditlog.KernelFlows, error) {
		return map[string]auditlog.KernelFlows{"b": {HandedOver: handed}}, nil
	}, Start{Backends: []string{"b"}})
	l.Claimed("b")
	if err := l.Append(t.Context(), false, &auditlog.Event{Kind: auditlog.FlowOpen, Flow: "f", Backend: "b"}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	l.Ended("b", "f")
	c, err := l.Account(auditlog.ScopeRun)
	if err != nil || c.Backends[0].Difference != 1 || c.Complete() {
		t.Errorf("%+v, %v", c, err)
	}
}
