package redirect

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// agentCgroupPrefix begins the name of every cgroup that an agent makes for itself.
const agentCgroupPrefix = "weir-agent-"

// defaultSlices are attached to when no cgroup is configured: where systemd and the
// cgroupfs driver of container runtimes put pods, people and services.
var defaultSlices = []string{"kubepods.slice", "kubepods", "user.slice", "system.slice"}

// cgroup is one cgroup v2 directory. The kernel's id of it is the directory's inode.
type cgroup struct {
	path string
	id   uint64
}

// hierarchy is the mounted cgroup v2 tree.
type hierarchy struct{ root string }

// findHierarchy looks cgroup v2 up in mountinfo: /sys/fs/cgroup on pure v2 hosts,
// /sys/fs/cgroup/unified on hybrid ones. Of several mounts the one of the whole
// tree wins.
func findHierarchy() (hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return hierarchy{}, err
	}
	defer f.Close()
	found := ""
	s := bufio.NewScanner(f)
	for s.Scan() {
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if !strings.HasPrefix(after, "cgroup2 ") || len(fields) < 5 {
			continue
		}
		if found == "" || fields[3] == "/" {
			found = unescapeMount(fields[4])
		}
		if fields[3] == "/" {
			break
		}
	}
	if err := s.Err(); err != nil {
		return hierarchy{}, err
	}
	if found == "" {
		return hierarchy{}, errors.New("cgroup v2 is not mounted: mount it with `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot with systemd.unified_cgroup_hierarchy=1")
	}
	return hierarchy{found}, nil
}

// unescapeMount undoes the octal escapes of mountinfo, proc_pid_mountinfo(5).
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// open checks that path is a cgroup v2 directory of the hierarchy.
func (h hierarchy) open(path string) (cgroup, error) {
	path = filepath.Clean(path)
	if path != h.root && !strings.HasPrefix(path, h.root+"/") {
		return cgroup{}, fmt.Errorf("%s is not a cgroup v2 directory: give a directory below %s", path, h.root)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return cgroup{}, fmt.Errorf("cgroup %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return cgroup{}, fmt.Errorf("cgroup %s is not a directory", path)
	}
	return cgroup{path, st.Ino}, nil
}

// targets turns the configured paths, or the defaults, into cgroups to attach to:
// none below another, since a program that runs twice for one connect would take
// its own rewrite for a new destination.
func (h hierarchy) targets(configured []string) ([]cgroup, error) {
	paths := configured
	if len(paths) == 0 {
		for _, name := range defaultSlices {
			if _, err := os.Stat(filepath.Join(h.root, name)); err == nil {
				paths = append(paths, filepath.Join(h.root, name))
			}
		}
		if len(paths) == 0 {
			paths = []string{h.root}
		}
	}
	paths = slices.Clone(paths)
	slices.Sort(paths)
	var out []cgroup
	for _, p := range paths {
		c, err := h.open(p)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(o cgroup) bool { return o.covers(c) }) {
			out = append(out, c)
		}
	}
	return out, nil
}

// covers is true when o is c or below it.
func (c cgroup) covers(o cgroup) bool {
	return c.path == o.path || strings.HasPrefix(o.path, strings.TrimSuffix(c.path, "/")+"/")
}

// byID finds the directory of a cgroup by its id.
func (h hierarchy) byID(id uint64) (string, error) {
	root, err := os.Open(h.root)
	if err != nil {
		return "", err
	}
	defer root.Close()
	// kernfs file handles hold the id alone: FILEID_KERNFS, include/linux/exportfs.h.
	const fileidKernfs = 0xfe
	handle := unix.NewFileHandle(fileidKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(root.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY)
	if err != nil {
		return "", fmt.Errorf("cgroup %d: %w", id, err)
	}
	defer unix.Close(fd)
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	// The path of a removed cgroup still opens by handle for a moment.
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Ino != id {
		return "", fmt.Errorf("cgroup %d: %w", id, fs.ErrNotExist)
	}
	return path, nil
}

// own is the cgroup that the calling process sits in.
func (h hierarchy) own() (cgroup, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return cgroup{}, err
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return h.open(filepath.Join(h.root, path))
		}
	}
	return cgroup{}, errors.New("this process is in no cgroup v2 cgroup")
}

// processes lists the processes that sit directly in a cgroup.
func (c cgroup) processes() ([]int, error) {
	data, err := os.ReadFile(filepath.Join(c.path, "cgroup.procs"))
	if errors.Is(err, unix.EOPNOTSUPP) { // a threaded cgroup, cgroups(7)
		data, err = os.ReadFile(filepath.Join(c.path, "cgroup.threads"))
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 { // 0: outside our pid namespace
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// enter moves the calling process, all threads of it, into the cgroup.
func (c cgroup) enter() error {
	err := os.WriteFile(filepath.Join(c.path, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	if err != nil {
		return fmt.Errorf("move the agent into cgroup %s: %w", c.path, err)
	}
	return nil
}

// private is true when exempting the cgroup exempts nobody but the calling process
// and its children, now and later: it is not the root, nobody else is in it, and
// only root can put somebody in.
func (h hierarchy) private(c cgroup) (bool, error) {
	if c.path == h.root {
		return false, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(c.path, "cgroup.procs"), &st); err != nil {
		return false, err
	}
	if st.Uid != 0 || st.Mode&0o022 != 0 {
		return false, nil
	}
	pids, err := c.processes()
	if err != nil {
		return false, err
	}
	self := os.Getpid()
	for _, pid := range pids {
		if !descends(pid, self) {
			return false, nil
		}
	}
	return true, nil
}

// descends is true when pid is ancestor or a descendant of it.
func descends(pid, ancestor int) bool {
	for range 64 { // deeper trees of the agent's own children do not exist
		if pid == ancestor {
			return true
		}
		ppid, ok := parent(pid)
		if !ok || ppid <= 1 {
			return false
		}
		pid = ppid
	}
	return false
}

func parent(pid int) (int, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// comm is in parentheses and may hold anything: the fields begin after the last ")".
	rest := string(data[strings.LastIndexByte(string(data), ')')+1:])
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0, false
	}
	ppid, err := strconv.Atoi(fields[1])
	return ppid, err == nil
}

// agentCgroup puts the calling process into a cgroup that can be exempted. undo
// takes it back to where it was.
func (h hierarchy) agentCgroup(configured string) (own cgroup, undo func(), err error) {
	before, err := h.own()
	if err != nil {
		return cgroup{}, nil, err
	}
	if configured == "" {
		ok, err := h.private(before)
		if err != nil {
			return cgroup{}, nil, err
		}
		if ok {
			return before, func() {}, nil
		}
	}
	path, made, err := h.makeAgentCgroup(configured)
	if err != nil {
		return cgroup{}, nil, fmt.Errorf("make a cgroup for the agent: %w", err)
	}
	remove := func() {
		if made {
			_ = os.Remove(path)
		}
	}
	own, err = h.open(path)
	if err == nil {
		err = own.enter()
	}
	if err != nil {
		remove()
		return cgroup{}, nil, err
	}
	ok, err := h.private(own)
	if err == nil && !ok {
		err = fmt.Errorf("cgroup %s holds other processes, or others may enter it: the agent must be alone in its cgroup, since whatever is in it is not redirected", own.path)
	}
	undo = func() {
		_ = before.enter()
		remove()
	}
	if err != nil {
		undo()
		return cgroup{}, nil, err
	}
	return own, undo, nil
}

func (h hierarchy) makeAgentCgroup(configured string) (path string, made bool, err error) {
	if configured == "" {
		path, err = os.MkdirTemp(h.root, agentCgroupPrefix)
		if err == nil {
			err = os.Chmod(path, 0o755)
		}
		return path, true, err
	}
	err = os.Mkdir(configured, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return configured, false, nil
	}
	return configured, err == nil, err
}

// removeAgentCgroup takes out a cgroup that an agent made for itself, when it is
// empty. It leaves cgroups alone that somebody else made.
func removeAgentCgroup(path string) error {
	if !strings.HasPrefix(filepath.Base(path), agentCgroupPrefix) {
		return nil
	}
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
