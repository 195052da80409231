package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bindingAttr marks the cgroup of an exec binding with the binding's id. Only
// CAP_SYS_ADMIN can write trusted.* (xattr(7)), and the mark goes with the
// directory: a cgroup made later under the same path or inode does not have it.
const bindingAttr = "trusted.weir.binding"

// cgroupMount finds where the whole cgroup v2 hierarchy is mounted:
// /sys/fs/cgroup, or /sys/fs/cgroup/unified on hybrid hosts.
func cgroupMount() (string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	mount := parseMountinfo(string(data))
	if mount == "" {
		return "", errors.New("no cgroup v2 hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup")
	}
	return mount, nil
}

// parseMountinfo returns the first cgroup2 mount that shows the hierarchy's root
// (proc(5), mountinfo: id parent major:minor root mountpoint options ... - type).
func parseMountinfo(s string) string {
	for line := range strings.Lines(s) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) > 5 && len(r) > 0 && r[0] == "cgroup2" && l[3] == "/" {
			return unescape(l[4])
		}
	}
	return ""
}

// unescape undoes the octal escapes of mountinfo (\040 for a space).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// cgroupID returns the id of a cgroup, which is the inode of its directory.
func cgroupID(mount, cgroup string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(mount, cgroup), &st); err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", quote(cgroup), err)
	}
	return st.Ino, nil
}

// execCgroupPath is where the cgroup of a binding goes: below the caller's own,
// or below rootGroup for callers that sit in the hierarchy's root.
func execCgroupPath(caller, rootGroup, id string) string {
	if caller == "/" {
		return path.Join("/", rootGroup, "exec-"+id)
	}
	return path.Join(caller, "weir-exec-"+id)
}

// makeExecCgroup makes the cgroup and marks it. On error nothing is left.
func makeExecCgroup(mount, cgroup, rootGroup, id string) (uint64, error) {
	dir := filepath.Join(mount, cgroup)
	err := os.Mkdir(dir, 0o755)
	// The group below the root comes and goes with its last child.
	for try := 0; errors.Is(err, fs.ErrNotExist) && path.Dir(cgroup) == "/"+rootGroup && try < 10; try++ {
		if err = os.Mkdir(filepath.Dir(dir), 0o755); err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Mkdir(dir, 0o755)
		}
	}
	if err != nil {
		return 0, cgroupError("make", cgroup, err)
	}
	if err := unix.Lsetxattr(dir, bindingAttr, []byte(id), unix.XATTR_CREATE); err != nil {
		os.Remove(dir)
		return 0, cgroupError("mark", cgroup, err)
	}
	n, err := cgroupID(mount, cgroup)
	if err != nil {
		os.Remove(dir)
		return 0, err
	}
	return n, nil
}

// markOf returns the binding id that a cgroup was made for, "" for none.
func markOf(mount, cgroup string) string {
	buf := make([]byte, 64)
	n, err := unix.Lgetxattr(filepath.Join(mount, cgroup), bindingAttr, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// enter moves a caller's process, with all its threads, into a cgroup. The pid
// is written by number, so the pidfd is asked afterwards: was the process alive
// then, the number was its own. If not, whatever was moved goes back.
func enter(c *Caller, mount, from, cgroup string) error {
	err := writePID(mount, cgroup, c.Process.PID)
	if err != nil {
		return cgroupError("enter", cgroup, err)
	}
	if err := c.Alive(); err != nil {
		return errors.Join(err, evict(mount, cgroup, from))
	}
	return nil
}

// evict moves every process of a cgroup elsewhere.
func evict(mount, cgroup, to string) error {
	procs, err := os.ReadFile(filepath.Join(mount, cgroup, "cgroup.procs"))
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(string(procs)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return err
		}
		if err := writePID(mount, to, pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func writePID(mount, cgroup string, pid int) error {
	f, err := os.OpenFile(filepath.Join(mount, cgroup, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(strconv.Itoa(pid))
	return err
}

// populated tells whether a process lives in a cgroup or below it.
func populated(mount, cgroup string) (bool, error) {
	data, err := os.ReadFile(eventsFile(mount, cgroup))
	if err != nil {
		return false, err
	}
	return strings.Contains(string(data), "populated 1"), nil
}

// eventsFile is the file that the kernel marks as modified when the last process
// leaves (cgroup v2 documentation, "populated").
func eventsFile(mount, cgroup string) string {
	return filepath.Join(mount, cgroup, "cgroup.events")
}

// removeCgroup removes a cgroup and what its processes made below it. The kernel
// refuses while a process is left (EBUSY), so no race can cut off a live one.
func removeCgroup(mount, cgroup string) error {
	dir := filepath.Join(mount, cgroup)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeCgroup(mount, path.Join(cgroup, e.Name())); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// cgroupError says what the kernel's errno means here (cgroup v2 documentation).
func cgroupError(what, cgroup string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EBUSY):
		hint = ": a cgroup above it has controllers enabled for its children (cgroup.subtree_control) and may hold no processes itself; start weir exec from a shell in a leaf cgroup, for example with systemd-run --scope"
	case errors.Is(err, unix.EOPNOTSUPP):
		hint = ": the caller's cgroup is threaded (cgroup.type); start weir exec outside of it"
	case errors.Is(err, unix.EAGAIN):
		hint = ": cgroup.max.depth or cgroup.max.descendants is reached above it"
	case errors.Is(err, unix.EROFS):
		hint = ": cgroup v2 is mounted read-only; the agent needs it writable"
	case errors.Is(err, unix.ESRCH):
		hint = ": the calling process has ended"
	}
	return fmt.Errorf("%w: cannot %s %s: %w%s", ErrCgroup, what, quote(cgroup), err, hint)
}
