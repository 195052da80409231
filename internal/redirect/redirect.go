package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"github.com/weirproxy/weir/bpf"
)

const configVersion = 1

// Config says what to redirect and where to.
type Config struct {
	// Cgroups are cgroup v2 directories to attach at. Empty: the kubepods, user
	// and system slices that exist, else the v2 root.
	Cgroups []string
	// BPFFS is the folder of the pins, on a bpf file system; one is mounted where
	// there is none.
	BPFFS string
	// ProxyPort is the loopback port in each network namespace.
	ProxyPort uint16
	// AgentCgroup is a cgroup v2 directory that the agent moves itself into. Empty:
	// the one that it is in when nobody else is, else a new one below the v2 root.
	// Whatever is in it is not redirected.
	AgentCgroup string
	// Destinations are protected from the first moment on; see SetDestinations.
	Destinations []Destination
	// Backends are the names of the backends that Destinations number. Connections are
	// counted for each of them; see FlowCounts.
	Backends []string
	// OnBypass is told of every connection that was closed for lack of a valid
	// record. It runs on a goroutine of its own, one call at a time.
	OnBypass func(Bypass) `json:"-"`
	Log      *slog.Logger `json:"-"`

	maxHandovers uint32 // tests fill the map; 0 is WEIR_MAX_HANDOVERS
}

// Redirector is the running half of the redirect: listeners, and the means to
// change what is attached. It is safe for concurrent use.
type Redirector struct {
	config     Config
	cgroups    hierarchy
	agent      cgroup
	lock       *os.File // the bpffs folder, locked against a second agent
	objects    *objects
	generation uint32
	listeners  *listeners

	conns    chan *Conn
	bypasses chan Bypass
	missed   atomic.Uint64
	done     chan struct{}
	stop     context.CancelFunc
	flows    flowCounts
	workers  sync.WaitGroup
	closing  sync.Once

	mu           sync.Mutex // guards what follows
	attachments  []*attachment
	destinations *destinations
}

// Open loads, fills, listens, attaches and pins, in that order. It is a
// transaction: when it fails, what was attached before still is, with the programs
// of before. Over the pins of an earlier agent it goes on without a gap: each link
// gets its new program atomically.
func Open(c Config) (_ *Redirector, err error) {
	if c.ProxyPort == 0 || c.BPFFS == "" || c.Log == nil {
		return nil, errors.New("redirect: ProxyPort, BPFFS and Log are needed")
	}
	if c.OnBypass == nil {
		c.OnBypass = func(Bypass) {}
	}
	r := &Redirector{
		config: c, conns: make(chan *Conn, acceptQueue), bypasses: make(chan Bypass, bypassQueue), done: make(chan struct{}),
	}
	var undo undoList
	defer func() {
		if err != nil {
			undo.run()
		}
	}()
	for _, step := range []func(*undoList) error{r.prepare, r.load, r.populate, r.listen, r.attach} {
		if err := step(&undo); err != nil {
			return nil, err
		}
	}
	// From here on nothing fails and nothing is undone.
	r.retire()
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	r.workers.Go(r.report)
	r.workers.Go(func() { r.listeners.run(ctx, r.tick) })
	return r, nil
}

// undoList is what a failing constructor takes back, last first.
type undoList []func()

func (u *undoList) add(f func()) { *u = append(*u, f) }

func (u *undoList) run() {
	for _, f := range slices.Backward(*u) {
		f()
	}
}

// prepare finds the cgroup tree, takes the folder, and puts the agent into a cgroup
// that can be exempted.
func (r *Redirector) prepare(undo *undoList) (err error) {
	if r.cgroups, err = findHierarchy(); err != nil {
		return err
	}
	if r.lock, err = openBPFFS(r.config.BPFFS); err != nil {
		return err
	}
	undo.add(func() { r.lock.Close() })
	var back func()
	if r.agent, back, err = r.cgroups.agentCgroup(r.config.AgentCgroup); err != nil {
		return err
	}
	undo.add(back)
	return nil
}

func (r *Redirector) load(undo *undoList) (err error) {
	if r.objects, err = loadObjects(r.config.BPFFS, r.config.maxHandovers); err != nil {
		return err
	}
	undo.add(func() { r.objects.Close() })
	return nil
}

// populate writes what the programs read: exemption and port before anything is
// attached, so that the agent's own traffic is never caught.
func (r *Redirector) populate(undo *undoList) error {
	var old bpf.RedirectWeirConfig
	if err := r.objects.ConfigV1.Lookup(uint32(0), &old); err != nil {
		return fmt.Errorf("read the programs' configuration: %w", err)
	}
	r.generation = old.Generation + 1
	if err := r.forgetAgents(); err != nil {
		return err
	}
	if err := r.objects.AgentsV1.Put(r.agent.id, uint32(os.Getpid())); err != nil {
		return fmt.Errorf("exempt the agent's cgroup %s: %w", r.agent.path, err)
	}
	undo.add(func() { _ = r.objects.AgentsV1.Delete(r.agent.id) })
	now := bpf.RedirectWeirConfig{Version: configVersion, Generation: r.generation, ProxyPort: networkOrder(r.config.ProxyPort)}
	if err := r.objects.ConfigV1.Put(uint32(0), &now); err != nil {
		return fmt.Errorf("set the proxy port: %w", err)
	}
	// A generation is never used twice: entries of this run may be in the table already.
	old.Generation = r.generation
	undo.add(func() { _ = r.objects.ConfigV1.Put(uint32(0), &old) })
	start := time.Now()
	// The counting begins before there is anything to count.
	err := r.flows.begin(r.objects.FlowsV1, r.config.Backends, r.generation, start)
	if err != nil {
		return err
	}
	if r.destinations, err = loadDestinations(r.objects.DestinationsV1, r.generation, start); err != nil {
		return err
	}
	return r.destinations.set(r.config.Destinations, 0, start)
}

// forgetAgents ends the exemption of agents that are gone, and takes out the
// cgroups that they made.
func (r *Redirector) forgetAgents() error {
	var id uint64
	var pid uint32
	var gone []uint64
	it := r.objects.AgentsV1.Iterate()
	for it.Next(&id, &pid) {
		gone = append(gone, id)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the list of agents: %w", err)
	}
	for _, id := range gone {
		path, err := r.cgroups.byID(id)
		if err == nil && id != r.agent.id {
			pids, err := cgroup{path: path}.processes()
			if err != nil || len(pids) > 0 {
				continue // an agent that is still draining
			}
			if err := removeAgentCgroup(path); err != nil {
				r.config.Log.Warn("the cgroup of an earlier agent stays behind", "cgroup", path, "error", err)
			}
		}
		if id != r.agent.id {
			if err := r.objects.AgentsV1.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("end the exemption of cgroup %d: %w", id, err)
			}
		}
	}
	return nil
}

// listen opens the listeners of every namespace in use, before a connect can be
// sent to them.
func (r *Redirector) listen(undo *undoList) (err error) {
	if r.attachments, err = pinnedAttachments(r.cgroups, r.config.BPFFS); err != nil {
		return err
	}
	undo.add(func() { closeAll(r.attachments) })
	if r.listeners, err = newListeners(r.config.ProxyPort, r.config.Log, r.handle); err != nil {
		return err
	}
	undo.add(r.endListeners)
	targets, err := r.cgroups.targets(r.config.Cgroups)
	if err != nil {
		return err
	}
	r.listeners.scan(append(targets, r.watched()...))
	return nil
}

// attach brings the links in line with the configuration: new programs behind old
// links, missing links made, pins last.
func (r *Redirector) attach(undo *undoList) error {
	var commit []func(keep bool)
	for _, a := range r.attachments {
		finish, err := r.objects.update(a)
		undo.add(func() { finish(false) })
		if err != nil {
			return err
		}
		commit = append(commit, finish)
	}
	targets, err := r.cgroups.targets(r.config.Cgroups)
	if err != nil {
		return err
	}
	for _, c := range targets {
		if err := r.attachTo(KindNode, c, false, undo); err != nil {
			return err
		}
	}
	for _, a := range r.attachments {
		if a.kind == KindExec && !a.gone() {
			if err := r.attachTo(KindExec, a.cgroup, true, undo); err != nil {
				return err
			}
		}
	}
	if err := r.attachTo(KindAgent, r.agent, true, undo); err != nil {
		return err
	}
	unpin, err := r.objects.pinMaps(r.config.BPFFS)
	undo.add(unpin)
	if err != nil {
		return err
	}
	for _, a := range r.attachments {
		if err := a.pin(); err != nil {
			return err
		}
	}
	for _, finish := range commit {
		finish(true)
	}
	return nil
}

// attachTo completes the attachment of a cgroup, or makes it.
func (r *Redirector) attachTo(kind Kind, c cgroup, skipCovered bool, undo *undoList) error {
	i := slices.IndexFunc(r.attachments, func(a *attachment) bool { return a.kind == kind && a.id == c.id })
	a := newAttachment(r.config.BPFFS, kind, c)
	if i >= 0 {
		a = r.attachments[i]
	}
	added, err := r.objects.attach(a, skipCovered)
	if err != nil {
		return err
	}
	undo.add(func() { _ = a.removeLinks(added) })
	if i < 0 && len(a.links) > 0 {
		r.attachments = append(r.attachments, a)
	}
	return nil
}

// retire takes out what nobody needs any more, after everything new is in place:
// for a moment two sets of programs may run for one connect, and then it is refused.
func (r *Redirector) retire() {
	targets, err := r.cgroups.targets(r.config.Cgroups)
	if err != nil {
		r.config.Log.Warn("the attached cgroups could not be compared with the configuration", "error", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeIf(func(a *attachment) bool {
		switch {
		case a.gone():
			return true
		case a.kind == KindNode:
			return !slices.ContainsFunc(targets, func(c cgroup) bool { return c.id == a.id })
		case a.kind == KindAgent:
			pids, err := a.processes()
			return a.id != r.agent.id && err == nil && len(pids) == 0
		}
		return slices.ContainsFunc(targets, func(c cgroup) bool { return c.covers(a.cgroup) })
	})
}

// removeIf detaches and forgets attachments. r.mu is held.
func (r *Redirector) removeIf(unwanted func(*attachment) bool) {
	r.attachments = slices.DeleteFunc(r.attachments, func(a *attachment) bool {
		if !unwanted(a) {
			return false
		}
		if err := a.remove(); err != nil {
			r.config.Log.Warn("old links stay behind", "cgroup", a.path, "kind", a.kind, "error", err)
		}
		return true
	})
}

// watched are the cgroups whose processes' namespaces are served.
func (r *Redirector) watched() []cgroup {
	var out []cgroup
	for _, a := range r.attachments {
		if a.kind != KindAgent && a.path != "" {
			out = append(out, a.cgroup)
		}
	}
	return out
}

// tick is the agent's housekeeping, once a second.
func (r *Redirector) tick() {
	r.mu.Lock()
	r.removeIf((*attachment).gone)
	watched := r.watched()
	err := r.destinations.expire(time.Now())
	r.mu.Unlock()
	if err != nil {
		r.config.Log.Warn("an old destination stays protected", "error", err)
	}
	r.listeners.scan(watched)
	if err := r.sweep(handoverTTL); err != nil {
		r.config.Log.Warn("the hand-over table could not be swept", "error", err)
	}
}

// SetDestinations replaces the set of protected destinations. What is new is
// protected before anything old is let go; what is no longer in the set stays
// protected, with its backend, for grace. What an earlier run of the agent left and
// is not in the set is refused, and let go a minute after Open: its numbers have no
// meaning any more.
func (r *Redirector) SetDestinations(want []Destination, grace time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.destinations.set(want, grace, time.Now())
}

// AttachCgroup redirects the connections of the processes of one more cgroup and of
// all below it. When programs of this agent run for it already, from a cgroup
// above, it changes nothing. The link is pinned: it outlives the agent and goes with
// the cgroup.
func (r *Redirector) AttachCgroup(path string) error {
	c, err := r.cgroups.open(path)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed() {
		return ErrClosed
	}
	var undo undoList
	before := len(r.attachments)
	if err := r.attachTo(KindExec, c, true, &undo); err != nil {
		return err
	}
	if len(r.attachments) == before {
		return nil
	}
	a := r.attachments[before]
	if err := a.pin(); err != nil {
		r.attachments = r.attachments[:before]
		return errors.Join(err, a.remove())
	}
	return nil
}

// DetachCgroup undoes AttachCgroup. It is no error when nothing was attached there.
func (r *Redirector) DetachCgroup(path string) error {
	path = filepath.Clean(path)
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	r.attachments = slices.DeleteFunc(r.attachments, func(a *attachment) bool {
		if a.kind != KindExec || a.path != path {
			return false
		}
		errs = append(errs, a.remove())
		return true
	})
	return errors.Join(errs...)
}

// CgroupPath finds the directory of a cgroup by its id, relative to the cgroup v2
// mount ("/user.slice/..."). The error wraps fs.ErrNotExist when it is gone.
func (r *Redirector) CgroupPath(id uint64) (string, error) {
	path, err := r.cgroups.byID(id)
	if err != nil {
		return "", err
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(path, r.cgroups.root), "/"), nil
}

// CgroupRoot is the folder where the cgroup v2 tree is mounted.
func (r *Redirector) CgroupRoot() string { return r.cgroups.root }

func (r *Redirector) isClosed() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Close ends the listeners and lets the folder go. The hooks stay: from here on
// connections to protected destinations are refused, until an agent opens the
// folder again or Uninstall takes the hooks out.
func (r *Redirector) Close() error {
	r.closing.Do(func() {
		r.stop()
		r.endListeners()
		r.workers.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.flows.end()
		closeAll(r.attachments)
		r.objects.Close()
		r.lock.Close()
	})
	return nil
}

func (r *Redirector) endListeners() {
	close(r.done)
	r.listeners.close()
	for len(r.conns) > 0 {
		reset((<-r.conns).TCPConn)
	}
}

// StopAccepting closes the listeners of every namespace, now and for good: new
// connections are refused by the kernel. What was accepted before can still be had
// from Accept, and DialNetNS goes on working, so that running flows can end in peace.
func (r *Redirector) StopAccepting() { r.listeners.stopAccepting() }
