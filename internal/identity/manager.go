package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/oklog/ulid/v2"

	"github.com/weirproxy/weir/internal/flow"
)

const (
	// maxBindings and maxBindingsPerUID keep one user from filling the table.
	maxBindings       = 16384
	maxBindingsPerUID = 2048
	// sweepEvery bounds how late an end is noticed when the kernel's
	// notification is missed.
	sweepEvery = time.Second
	// keepExpired is how long an expired login is remembered, to say so.
	keepExpired = 24 * time.Hour
)

// Config is what a Manager needs.
type Config struct {
	Issuers  []Issuer
	StateDir string // keys/jwks and kv/bindings are made in it
	// RootGroup is the group below the v2 root that takes the exec cgroups of
	// callers in the root itself. Empty: weir.
	RootGroup string
	// Attach makes the redirect cover an exec cgroup (its directory) before a
	// process is moved into it; it is called again after a restart and must
	// accept a directory that is covered already. nil: nothing to do.
	Attach func(dir string) error
	// Detach drops what Attach made, after the cgroup has gone. nil: nothing.
	Detach func(dir string) error
	// OnChange is told of every change, one at a time and in order; New calls it
	// already. An error refuses a Bound or Renewed; it cannot stop the others.
	// It must not call the Manager's changing methods. nil: nobody is told.
	OnChange func(context.Context, Event) error
	Now      func() time.Time // nil: time.Now
	Log      *slog.Logger     // nil: silent
}

// Manager owns the bindings and the cgroups of weir exec.
type Manager struct {
	cfg      Config
	verifier *Verifier
	store    *store
	mount    string // of cgroup v2
	bootID   string
	watch    *fsnotify.Watcher // of cgroup.events; nil: only the sweep notices

	// change serialises changes together with their events. It is taken before
	// mu, and held while OnChange and Attach run.
	change sync.Mutex

	mu     sync.RWMutex // guards the maps; never held across I/O
	byID   map[string]*Binding
	execs  map[string]*Binding // by cgroup path
	logins map[loginKey]*Binding

	stop context.CancelFunc
	done chan struct{}
}

// New reads back the bindings of before a restart, ends those that no longer
// hold, and starts to watch the others. Close ends it.
func New(ctx context.Context, cfg Config) (*Manager, error) {
	bootID, err := readBootID()
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return newManager(ctx, cfg, bootID)
}

func newManager(ctx context.Context, cfg Config, bootID string) (_ *Manager, err error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.RootGroup = cmp.Or(cfg.RootGroup, "weir")
	m := &Manager{
		cfg: cfg, bootID: bootID,
		byID: map[string]*Binding{}, execs: map[string]*Binding{}, logins: map[loginKey]*Binding{},
		done: make(chan struct{}),
	}
	if m.mount, err = cgroupMount(); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	m.verifier, err = NewVerifier(VerifierConfig{Issuers: cfg.Issuers, CacheDir: filepath.Join(cfg.StateDir, "keys", "jwks"), Now: cfg.Now, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	if m.store, err = openStore(filepath.Join(cfg.StateDir, "kv", "bindings")); err != nil {
		return nil, err
	}
	if m.watch, err = fsnotify.NewWatcher(); err != nil {
		cfg.Log.Warn("no inotify: the end of a command is noticed later", "error", err, "within", sweepEvery)
		m.watch = nil
	}
	if err := m.restore(ctx); err != nil {
		m.closeWatch()
		return nil, fmt.Errorf("identity: cannot read the bindings back: %w", err)
	}
	loop, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	m.sweep(loop)
	go m.run(loop)
	return m, nil
}

// Close ends the watching. Bindings, cgroups and processes stay as they are: the
// next agent takes them over.
func (m *Manager) Close() error {
	m.stop()
	<-m.done
	return m.closeWatch()
}

func (m *Manager) closeWatch() error {
	if m.watch == nil {
		return nil
	}
	return m.watch.Close()
}

// Verifier returns the verifier of the configured issuers.
func (m *Manager) Verifier() *Verifier { return m.verifier }

// Identify finds the verified identity of a process: the binding of the nearest
// exec cgroup around it, or else of its login. Errors are ErrNoIdentity and
// ErrExpired; both say what to do.
func (m *Manager) Identify(_ context.Context, proc *flow.Process) (*flow.Principal, error) {
	b, err := m.find(proc)
	if err != nil {
		return nil, err
	}
	return b.current(m.cfg.Now())
}

// Current returns the principal that a binding stands for now: the renewed one
// after a new sign-in. A flow asks with its Principal.Session.
func (m *Manager) Current(id string) (*flow.Principal, error) {
	b := m.binding(id)
	if b == nil || b.Ended != "" {
		return nil, fmt.Errorf("%w: signed out: %s", ErrNoIdentity, howToSignIn)
	}
	return b.current(m.cfg.Now())
}

// find returns the binding that covers a process, expired or not.
func (m *Manager) find(proc *flow.Process) (*Binding, error) {
	b, err := m.findExec(proc)
	if err != nil {
		return nil, err
	}
	if b == nil {
		m.mu.RLock()
		b = m.logins[loginKeyOf(proc)]
		m.mu.RUnlock()
	}
	if b == nil {
		return nil, noIdentity(proc, "is not signed in")
	}
	if b.Ended != "" {
		return nil, noIdentity(proc, fmt.Sprintf("was %s's until %s (%s)", b.Principal.User, b.EndedAt.UTC().Format(time.RFC3339), b.Ended))
	}
	return b, nil
}

// findExec walks from a process's cgroup up to the root. The path was true when
// it was read; only if it still leads to the same cgroup are its ancestors the
// process's own (a cgroup cannot be renamed or moved).
func (m *Manager) findExec(proc *flow.Process) (*Binding, error) {
	if id, err := cgroupID(m.mount, proc.Cgroup); proc.Cgroup == "" || err != nil || id != proc.CgroupID {
		return nil, noIdentity(proc, "was in a cgroup that has gone meanwhile")
	}
	b := m.nearestExec(proc.Cgroup)
	if b == nil {
		return nil, nil
	}
	if id, err := cgroupID(m.mount, b.Cgroup); err != nil || id != b.CgroupID {
		return nil, noIdentity(proc, "is below a cgroup that was replaced meanwhile")
	}
	return b, nil
}

func (m *Manager) nearestExec(cgroup string) *Binding {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for ; len(m.execs) > 0 && cgroup != "/" && cgroup != "."; cgroup = path.Dir(cgroup) {
		if b := m.execs[cgroup]; b != nil {
			return b
		}
	}
	return nil
}

// binding returns the present state of a binding, nil if there is none.
func (m *Manager) binding(id string) *Binding {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.byID[id]
}

// Whoami returns the binding that covers a caller, also when it has expired:
// then with ErrExpired.
func (m *Manager) Whoami(caller *Caller) (Binding, error) {
	proc, err := caller.refresh()
	if err != nil {
		return Binding{}, err
	}
	b, err := m.find(&proc)
	if err != nil {
		return Binding{}, err
	}
	_, err = b.current(m.cfg.Now())
	return *b, err
}

// List returns every binding, oldest first; also expired and ended ones whose
// processes still live.
func (m *Manager) List() []Binding {
	list := []Binding{}
	for _, b := range m.all() {
		list = append(list, *b)
	}
	return list
}

func (m *Manager) all() []*Binding {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]*Binding, 0, len(m.byID))
	for _, b := range m.byID {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b *Binding) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return list
}

// publish makes a binding, or a new state of it, count.
func (m *Manager) publish(b *Binding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byID[b.ID] = b
	if b.Kind == ExecBinding {
		m.execs[b.Cgroup] = b
	} else {
		m.logins[b.loginKey()] = b
	}
}

// withdraw makes a binding count no more.
func (m *Manager) withdraw(b *Binding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byID, b.ID)
	if b.Kind == ExecBinding && m.execs[b.Cgroup] != nil && m.execs[b.Cgroup].ID == b.ID {
		delete(m.execs, b.Cgroup)
	}
	if key := b.loginKey(); b.Kind == LoginBinding && m.logins[key] != nil && m.logins[key].ID == b.ID {
		delete(m.logins, key)
	}
}

func (m *Manager) emit(ctx context.Context, e Event) error {
	if m.cfg.OnChange == nil {
		return nil
	}
	e.Time = m.cfg.Now()
	return m.cfg.OnChange(ctx, e)
}

// tell emits an event that nobody can refuse.
func (m *Manager) tell(ctx context.Context, e Event) {
	if err := m.emit(ctx, e); err != nil {
		m.cfg.Log.Error("a change of identity was not recorded", "event", e.Type, "binding", e.Binding.ID, "error", err)
	}
}

func (m *Manager) checkLimits(uid uint32) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	mine := 0
	for _, b := range m.byID {
		if b.UID == uid {
			mine++
		}
	}
	if len(m.byID) >= maxBindings || mine >= maxBindingsPerUID {
		return fmt.Errorf("%w: %d of this user, %d in all: end commands that were started with weir exec, or sign out", ErrLimit, mine, len(m.byID))
	}
	return nil
}

func newBindingID(now time.Time) (string, error) {
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	return id.String(), err
}

// samePerson decides whether a new sign-in renews a binding or replaces it.
func samePerson(a, b *flow.Principal) bool {
	return a.Issuer == b.Issuer && a.Subject == b.Subject && a.User == b.User && sameActor(a.Actor, b.Actor)
}

func sameActor(a, b *flow.Actor) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Issuer == b.Issuer && a.Subject == b.Subject && a.User == b.User && sameActor(a.Actor, b.Actor)
}

// withSession returns a copy of a principal that belongs to a binding.
func withSession(p *flow.Principal, id string) *flow.Principal {
	own := *p
	own.Session = id
	return &own
}
