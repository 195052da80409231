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
	p.Exe = exePath(p)
	path, err := a.config.CgroupPath(p.CgroupID)
	if err != nil {
		a.config.Log.Debug("the cgroup of a process is gone", "pid", p.PID, "cgroup", p.CgroupID, "error", err)
		return
	}
	p.Cgroup = path
	p.Pod = podOf(path)
}

// exePath is the path of the program that made the connection, or "" when the
// process is gone, its pid belongs to another one, or it runs another program by
// now. The start time is looked at before and after, so that a pid that changes
// hands in between is noticed. Devices are not compared: overlayfs and btrfs show
// others to stat(2) than the kernel has inside.
func exePath(p *flow.Process) string {
	proc := "/proc/" + strconv.Itoa(p.PID)
	if !startedAt(proc, p.StartTime) {
		return ""
	}
	path, err := os.Readlink(proc + "/exe")
	if err != nil {
		return ""
	}
	var st unix.Stat_t
	if err := unix.Stat(proc+"/exe", &st); err != nil || st.Ino != p.ExeInode {
		return ""
	}
	if !startedAt(proc, p.StartTime) {
		return ""
	}
	return path
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
