package accept

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/flow"
)

// clockTick is the unit of start times in /proc/PID/stat: USER_HZ, 100 on every
// architecture that Linux 6.1 supports with BPF (proc_pid_stat(5), time(7)).
const clockTick = time.Second / 100

// describe fills what the kernel's record does not hold.
func (a *Acceptor) describe(p *flow.Process) {
	p.Exe, p.Argv0 = program(p)
	path, err := a.config.CgroupPath(p.CgroupID)
	if err != nil {
		a.config.Log.Debug("the cgroup of a process is gone", "pid", p.PID, "cgroup", p.CgroupID, "error", err)
		return
	}
	p.Cgroup = path
	p.Pod = podOf(path)
}

// maxArgv0 bounds what is read of a process's first argument, bytes.
const maxArgv0 = 4096

// program is the path and the first argument of the program that made the
// connection; both are "" when the process is gone, its pid belongs to another
// one, or it runs another program by now. The start time is looked at before and
// after, so that a pid that changes hands in between is noticed. Devices are not
// compared: overlayfs and btrfs show others to stat(2) than the kernel has inside.
func program(p *flow.Process) (exe, argv0 string) {
	proc := "/proc/" + strconv.Itoa(p.PID)
	if !startedAt(proc, p.StartTime) {
		return "", ""
	}
	path, err := os.Readlink(proc + "/exe")
	if err != nil {
		return "", ""
	}
	var st unix.Stat_t
	if err := unix.Stat(proc+"/exe", &st); err != nil || st.Ino != p.ExeInode {
		return "", ""
	}
	argv0 = firstArgument(proc + "/cmdline")
	if !startedAt(proc, p.StartTime) {
		return "", ""
	}
	return path, argv0
}

// firstArgument reads up to the first NUL of proc_pid_cmdline(5).
func firstArgument(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, maxArgv0)
	n, _ := f.Read(b) // what cannot be read is not known
	argv0, _, _ := strings.Cut(string(b[:n]), "\x00")
	return argv0
}

// startedAt compares a process's start time, in ticks, with the kernel's in
// nanoseconds since boot.
func startedAt(proc string, ns uint64) bool {
	data, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return false
	}
	ticks, err := startTicks(string(data))
	return err == nil && ticks == ns/uint64(clockTick)
}

// startTicks finds field 22 of proc_pid_stat(5). comm is in parentheses and may hold
// anything; the fields begin after the last ")".
func startTicks(stat string) (uint64, error) {
	const startTime = 22 - 3 // counted from the field after comm
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) <= startTime {
		return 0, fmt.Errorf("%d fields in a process's stat", len(fields))
	}
	return strconv.ParseUint(fields[startTime], 10, 64)
}
