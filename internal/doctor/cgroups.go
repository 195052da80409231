package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mount is one of proc_pid_mountinfo(5).
type mount struct{ point, kind string }

func parseMounts(mountinfo string) []mount {
	var out []mount
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if ok && len(b) >= 5 && len(a) >= 1 {
			out = append(out, mount{point: b[4], kind: a[0]})
		}
	}
	return out
}

// layout says which cgroup versions are mounted and where v2 is.
func layout(mounts []mount) (v2 string, v1 bool) {
	for _, m := range mounts {
		switch {
		case m.kind == "cgroup2" && v2 == "":
			v2 = m.point
		case m.kind == "cgroup":
			v1 = true
		}
	}
	return v2, v1
}

func checkCgroups(_ context.Context, o *Options) []Check {
	const name = "cgroups"
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []Check{{Name: name, Status: Fail, Detail: err.Error()}}
	}
	v2, v1 := layout(parseMounts(string(b)))
	if v2 == "" {
		return []Check{{Name: name, Status: Fail, Detail: "no cgroup v2 file system is mounted", Cost: "no connection can be redirected",
			Fix: "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup/unified"}}
	}
	out := []Check{ok(name, "version 2 at %s", v2)}
	if v1 {
		out[0] = Check{Name: name, Status: Warn, Detail: "hybrid: version 2 at " + v2 + ", controllers in version 1",
			Cost: "container runtimes and services may use version 1 only; what sits in no version 2 cgroup is told apart by login session and user id", Fix: "boot with systemd.unified_cgroup_hierarchy=1"}
	}
	return append(out, rootProcesses(v2), attachPoints(v2, o.Cgroups))
}

// rootProcesses counts processes in the v2 root: they have no cgroup of their own
// to be known by. Kernel threads always sit there and do not connect.
func rootProcesses(v2 string) Check {
	const name = "processes in the cgroup root"
	b, err := os.ReadFile(filepath.Join(v2, "cgroup.procs"))
	if err != nil {
		return Check{Name: name, Status: Warn, Detail: err.Error()}
	}
	n := 0
	for _, pid := range strings.Fields(string(b)) {
		if _, err := os.Readlink("/proc/" + pid + "/exe"); err == nil { // fails for kernel threads
			n++
		}
	}
	if n == 0 {
		return ok(name, "none")
	}
	return Check{Name: name, Status: Warn, Detail: count(n, "process", "processes"),
		Cost: "they share one cgroup, so a sign-in by user id and cgroup covers every one of them with that uid, and they are captured only by attaching at the root",
		Fix:  "let systemd or the container runtime place them in slices; use `weir exec`, which makes a cgroup of its own"}
}

// slices that an agent attaches to when none are configured.
var defaultSlices = []string{"kubepods.slice", "kubepods", "user.slice", "system.slice"}

func attachPoints(v2 string, configured []string) Check {
	const name = "cgroups to attach to"
	if len(configured) > 0 {
		var gone []string
		for _, c := range configured {
			if info, err := os.Stat(c); err != nil || !info.IsDir() {
				gone = append(gone, c)
			}
		}
		if len(gone) > 0 {
			return Check{Name: name, Status: Fail, Detail: "not there: " + strings.Join(gone, ", "), Cost: "the agent does not start", Fix: "correct intercept.cgroups"}
		}
		return ok(name, "%s", strings.Join(configured, " "))
	}
	var found []string
	for _, s := range defaultSlices {
		if _, err := os.Stat(filepath.Join(v2, s)); err == nil {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return Check{Name: name, Status: Warn, Detail: fmt.Sprintf("none of %s, so the root is taken", strings.Join(defaultSlices, ", ")),
			Cost: "a program that others attached at the root before Weir (Cilium) sees connections first, and service addresses may be translated already", Fix: "name the cgroups in intercept.cgroups"}
	}
	entries, _ := os.ReadDir(v2)
	var outside []string
	for _, e := range entries {
		if e.IsDir() && strings.HasSuffix(e.Name(), ".slice") && !slices.Contains(found, e.Name()) {
			outside = append(outside, e.Name())
		}
	}
	if len(outside) > 0 {
		return Check{Name: name, Status: Warn, Detail: strings.Join(found, " ") + "; not covered: " + strings.Join(outside, " "),
			Cost: "connections of processes in what is not covered go past Weir", Fix: "name all of them in intercept.cgroups"}
	}
	return ok(name, "%s", strings.Join(found, " "))
}
