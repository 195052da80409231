// Package host has the few things of this machine that tests and the demo share:
// where cgroups are, free ports, processes that start inside a cgroup. It changes
// nothing by itself.
package host

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// CgroupRoot is the folder where cgroup v2 is mounted: /sys/fs/cgroup, or
// /sys/fs/cgroup/unified on hybrid hosts.
func CgroupRoot() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted on this machine")
}

// StartIn starts cmd inside a cgroup (a folder): it is there before its first
// instruction.
func StartIn(cgroup string, cmd *exec.Cmd) error {
	dir, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	return cmd.Start()
}

// FreePort is a TCP port below the ephemeral range that nobody listens on, on
// any address of either family. It stays free unless somebody asks for it by
// number.
func FreePort() (uint16, error) {
	const low, high = 10000, 32000 // net.ipv4.ip_local_port_range begins at 32768
	for range 200 {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		l.Close()
		return uint16(port), nil
	}
	return 0, errors.New("no free TCP port found")
}
