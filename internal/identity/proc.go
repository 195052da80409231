package identity

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
)

// userHZ is the unit of times in /proc/PID/stat: sysconf(_SC_CLK_TCK), 100 on
// every architecture that Linux's user space knows.
const userHZ = 100

// readProc reads what the kernel says about a process under /proc/PID. The
// caller must hold a pidfd and ask it afterwards whether the process still
// lives: only then was it one and the same process throughout.
func readProc(pid int, mount string) (flow.Process, error) {
	p := flow.Process{PID: pid, LoginUID: flow.Unset, AuditSession: flow.Unset}
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return p, err
	}
	if p.Comm, p.StartTime, err = parseStat(string(stat)); err != nil {
		return p, err
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return p, err
	}
	if p.UID, err = parseUID(string(status)); err != nil {
		return p, err
	}
	// Absent in kernels without audit: nobody logged in then.
	if p.LoginUID, err = readID(dir + "loginuid"); err != nil {
		return p, err
	}
	if p.AuditSession, err = readID(dir + "sessionid"); err != nil {
		return p, err
	}
	cgroups, err := os.ReadFile(dir + "cgroup")
	if err != nil {
		return p, err
	}
	if p.Cgroup, err = parseCgroup(string(cgroups)); err != nil {
		return p, err
	}
	if p.CgroupID, err = cgroupID(mount, p.Cgroup); err != nil {
		return p, err
	}
	p.Exe, _ = os.Readlink(dir + "exe") // kernel threads and zombies have none
	return p, nil
}

// parseStat reads comm and start time from /proc/PID/stat (proc(5)). comm stands
// in parentheses and may itself hold parentheses and spaces.
func parseStat(s string) (comm string, start uint64, err error) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return "", 0, errors.New("/proc/PID/stat has no comm")
	}
	const startTime = 22 - 3 // field 22; the first after comm is field 3
	fields := strings.Fields(s[end+1:])
	if len(fields) <= startTime {
		return "", 0, errors.New("/proc/PID/stat is too short")
	}
	ticks, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return "", 0, errors.New("/proc/PID/stat has no start time")
	}
	return s[open+1 : end], ticks * (1e9 / userHZ), nil
}

// parseUID reads the real user id, the one that the connect hook reports.
func parseUID(status string) (uint32, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, err := strconv.ParseUint(f[0], 10, 32)
				return uint32(n), err
			}
		}
	}
	return 0, errors.New("/proc/PID/status has no Uid")
}

// parseCgroup reads the cgroup v2 path: the line of hierarchy 0 (cgroups(7)).
func parseCgroup(s string) (string, error) {
	for line := range strings.Lines(s) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		path = strings.TrimSuffix(path, " (deleted)")
		if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "/..") {
			return "", fmt.Errorf("its cgroup %s is outside the agent's cgroup namespace: run the agent in the host's", quote(path))
		}
		return path, nil
	}
	return "", errors.New("it has no cgroup v2: mount cgroup2 on this machine")
}

func readID(file string) (uint32, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := os.Stat(strings.TrimSuffix(file, file[strings.LastIndexByte(file, '/'):])); gone != nil {
			return flow.Unset, err // the process, not the feature
		}
		return flow.Unset, nil
	}
	if err != nil {
		return flow.Unset, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 32)
	return uint32(n), err
}
