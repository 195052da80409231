package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/bpf"
)

// Kind says why programs are attached to a cgroup.
type Kind string

// The kinds of attachments. They are part of the names of pins.
const (
	KindNode  Kind = "node"  // from the configuration
	KindExec  Kind = "exec"  // made by AttachCgroup
	KindAgent Kind = "agent" // the agent's own: only what its accepted sockets need
)

// attachment is the set of links on one cgroup. Its links are pinned below dir.
type attachment struct {
	cgroup
	kind  Kind
	dir   string
	links map[string]link.Link // by program name
}

func newAttachment(bpffs string, kind Kind, c cgroup) *attachment {
	return &attachment{cgroup: c, kind: kind, dir: attachmentDir(bpffs, kind, c.id), links: make(map[string]link.Link)}
}

func attachmentDir(bpffs string, kind Kind, id uint64) string {
	return filepath.Join(bpffs, linksDir, fmt.Sprintf("%s-%d", kind, id))
}

// programsFor names the programs that a cgroup of that kind needs.
func (o *objects) programsFor(kind Kind) map[string]program {
	if kind == KindAgent {
		name := bpf.RedirectProgWeirSockops
		return map[string]program{name: o.programs[name]}
	}
	return o.programs
}

// attach links to a cgroup what is missing there and returns the programs' names;
// when it fails, nothing new is left. With skipCovered a program that already runs
// for the cgroup, from there or from above, is left out, for it must not run twice
// for one connect. The new links are not pinned yet.
func (o *objects) attach(a *attachment, skipCovered bool) (added []string, err error) {
	dir, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	for name, p := range o.programsFor(a.kind) {
		if a.links[name] != nil {
			continue
		}
		l, err := o.attachOne(a.cgroup, int(dir.Fd()), p, skipCovered)
		if err != nil {
			return nil, errors.Join(err, a.removeLinks(added))
		}
		if l != nil {
			a.links[name] = l
			added = append(added, name)
		}
	}
	return added, nil
}

func (o *objects) attachOne(c cgroup, dirFD int, p program, skipCovered bool) (link.Link, error) {
	if skipCovered {
		n, err := o.effective(dirFD, p)
		if err != nil {
			return nil, fmt.Errorf("which programs run for cgroup %s: %w", c.path, err)
		}
		if n > 0 {
			return nil, nil
		}
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: c.path, Attach: p.attach, Program: p.Program})
	if err != nil {
		return nil, explainAttach(c, p, err)
	}
	return l, nil
}

// effective counts how often a program of ours runs for a cgroup.
func (o *objects) effective(dirFD int, p program) (int, error) {
	res, err := link.QueryPrograms(link.QueryOptions{Target: dirFD, Attach: p.attach, QueryFlags: unix.BPF_F_QUERY_EFFECTIVE})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range res.Programs {
		if e.ID == p.id {
			n++
		}
	}
	return n, nil
}

// explainAttach finds the program that keeps ours out: one attached without
// BPF_F_ALLOW_MULTI on the cgroup or above makes every link fail with EPERM.
func explainAttach(c cgroup, p program, err error) error {
	err = fmt.Errorf("attach %s to cgroup %s: %w", p.attach, c.path, err)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	for dir := c.path; strings.HasPrefix(dir, "/sys/fs/cgroup") && dir != "/sys/fs/cgroup"; dir = filepath.Dir(dir) {
		if ids := attachedTo(dir, p.attach); len(ids) > 0 {
			return fmt.Errorf("%w: program %v on %s was attached by somebody else without BPF_F_ALLOW_MULTI, so that nobody can attach there or below; detach it, or let its owner attach with that flag or a link (`bpftool cgroup show %s`)", err, ids, dir, dir)
		}
	}
	return fmt.Errorf("%w: root is needed (CAP_BPF, CAP_NET_ADMIN)", err)
}

func attachedTo(dir string, attach ebpf.AttachType) []ebpf.ProgramID {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	res, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: attach})
	if err != nil {
		return nil
	}
	var ids []ebpf.ProgramID
	for _, p := range res.Programs {
		ids = append(ids, p.ID)
	}
	return ids
}

// pin makes the links outlive the agent.
func (a *attachment) pin() error {
	if len(a.links) == 0 {
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	for name, l := range a.links {
		path := filepath.Join(a.dir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := l.Pin(path); err != nil {
			return fmt.Errorf("pin the link of %s on cgroup %s: %w", name, a.path, err)
		}
	}
	return nil
}

// close lets the descriptors go. What is pinned stays attached.
func (a *attachment) close() {
	for _, l := range a.links {
		_ = l.Close()
	}
}

// remove detaches and unpins every link.
func (a *attachment) remove() error {
	return a.removeLinks(slices.Collect(maps.Keys(a.links)))
}

// removeLinks detaches and unpins links, and takes the folder of the pins out when
// none is left.
func (a *attachment) removeLinks(names []string) error {
	var errs []error
	for _, name := range names {
		l := a.links[name]
		delete(a.links, name)
		// ENOLINK: the cgroup is gone and the kernel has detached it already.
		if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
			errs = append(errs, fmt.Errorf("detach %s from cgroup %s: %w", name, a.path, err))
		}
		if err := os.Remove(filepath.Join(a.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		errs = append(errs, l.Close())
	}
	if len(a.links) == 0 {
		if err := os.Remove(a.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// gone is true when the cgroup was removed; the kernel has detached its programs then.
func (a *attachment) gone() bool {
	var st unix.Stat_t
	return a.path == "" || unix.Stat(a.path, &st) != nil || st.Ino != a.id
}

// pinnedAttachments opens every link that an earlier agent pinned. Those whose
// cgroup is gone come back with an empty path.
func pinnedAttachments(h hierarchy, bpffs string) (_ []*attachment, err error) {
	dirs, err := os.ReadDir(filepath.Join(bpffs, linksDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []*attachment
	defer func() {
		if err != nil {
			closeAll(out)
		}
	}()
	for _, d := range dirs {
		kind, number, ok := strings.Cut(d.Name(), "-")
		id, convErr := strconv.ParseUint(number, 10, 64)
		if !ok || convErr != nil {
			return nil, fmt.Errorf("%s was not made by this version of weir; `weir agent --uninstall` of the version that made it takes it out", filepath.Join(bpffs, linksDir, d.Name()))
		}
		a := &attachment{kind: Kind(kind), dir: filepath.Join(bpffs, linksDir, d.Name()), links: make(map[string]link.Link)}
		out = append(out, a)
		a.id = id
		a.path, _ = h.byID(id)
		if err := a.openPins(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *attachment) openPins() error {
	pins, err := os.ReadDir(a.dir)
	if err != nil {
		return err
	}
	for _, p := range pins {
		l, err := link.LoadPinnedLink(filepath.Join(a.dir, p.Name()), nil)
		if err != nil {
			return fmt.Errorf("open the pinned link %s: %w", filepath.Join(a.dir, p.Name()), err)
		}
		a.links[p.Name()] = l
	}
	return nil
}

func closeAll(as []*attachment) {
	for _, a := range as {
		a.close()
	}
}

// update puts the new programs behind existing links. Each link changes
// atomically, and the maps are the same before and after. finish must be called:
// with false it puts the old programs back.
func (o *objects) update(a *attachment) (finish func(keep bool), err error) {
	type change struct {
		link link.Link
		old  *ebpf.Program
	}
	var changes []change
	finish = func(keep bool) {
		for _, c := range changes {
			if !keep {
				_ = c.link.Update(c.old)
			}
			_ = c.old.Close()
		}
	}
	if a.gone() {
		return finish, nil
	}
	for name, l := range a.links {
		p, known := o.programsFor(a.kind)[name]
		if !known {
			continue // of another version; it goes with its attachment
		}
		info, err := l.Info()
		if err != nil {
			return finish, fmt.Errorf("link of %s on cgroup %s: %w", name, a.path, err)
		}
		old, err := ebpf.NewProgramFromID(info.Program)
		if err != nil {
			return finish, fmt.Errorf("program %d of %s: %w", info.Program, name, err)
		}
		changes = append(changes, change{l, old})
		// ENOLINK: the cgroup was removed this moment.
		if err := l.Update(p.Program); err != nil && !errors.Is(err, unix.ENOLINK) {
			return finish, fmt.Errorf("update %s on cgroup %s: %w", name, a.path, err)
		}
	}
	return finish, nil
}
