package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func checkKernel(context.Context, *Options) []Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return []Check{{Name: "kernel", Status: Warn, Detail: err.Error()}}
	}
	c := ok("kernel", "Linux %s, %s", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]))
	if os.Geteuid() != 0 {
		return []Check{c, {Name: "user", Status: Fail, Detail: fmt.Sprintf("uid %d", os.Geteuid()), Cost: "most of what follows cannot be seen", Fix: "run weir doctor as root, where the agent will run"}}
	}
	return []Check{c}
}

// capability is one that the agent uses (capabilities(7)).
type capability struct {
	bit    int
	name   string
	needed bool
	cost   string
}

var capabilities = []capability{
	{39, "CAP_BPF", true, "no eBPF program can be loaded"},
	{12, "CAP_NET_ADMIN", true, "no program can be attached to a cgroup's network hooks"},
	{38, "CAP_PERFMON", true, "who connects cannot be read in the kernel"},
	{21, "CAP_SYS_ADMIN", true, "other network namespaces (pods) cannot be served, bpffs cannot be mounted"},
	{19, "CAP_SYS_PTRACE", false, "programs of other users are recorded without their path"},
	{2, "CAP_DAC_READ_SEARCH", false, "cgroups of other users may not be found by id"},
}

func checkCapabilities(context.Context, *Options) []Check {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return []Check{{Name: "capabilities", Status: Warn, Detail: err.Error()}}
	}
	have, err := effective(string(status))
	if err != nil {
		return []Check{{Name: "capabilities", Status: Warn, Detail: err.Error()}}
	}
	return missing(have)
}

// effective reads the CapEff line of proc_pid_status(5).
func effective(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	return 0, errors.New("/proc/self/status has no CapEff")
}

func missing(have uint64) []Check {
	var out []Check
	var names []string
	for _, c := range capabilities {
		if have&(1<<c.bit) != 0 {
			names = append(names, c.name)
			continue
		}
		check := Check{Name: "capabilities", Status: Warn, Detail: c.name + " is missing", Cost: c.cost, Fix: "run the agent as root, or grant it (systemd: AmbientCapabilities, Kubernetes: securityContext.capabilities.add)"}
		if c.needed {
			check.Status = Fail
		}
		out = append(out, check)
	}
	if len(out) == 0 {
		return []Check{ok("capabilities", "%s", strings.Join(names, " "))}
	}
	return out
}

func checkFeatures(_ context.Context, o *Options) []Check {
	if o.Probe == nil {
		return nil
	}
	var out []Check
	fine := 0
	for _, f := range o.Probe() {
		if f.Err == nil {
			fine++
			continue
		}
		c := Check{Name: "eBPF: " + f.Name, Status: Warn, Detail: f.Err.Error(), Cost: f.Cost, Fix: "Weir needs Linux 6.1 or newer with BTF, and root"}
		if f.Needed {
			c.Status = Fail
		}
		out = append(out, c)
	}
	if fine > 0 {
		out = append([]Check{ok("eBPF", "%s tried by loading and there", count(fine, "feature", "features"))}, out...)
	}
	return out
}

func checkOthers(_ context.Context, o *Options) []Check {
	if o.Others == nil {
		return nil
	}
	const name = "other eBPF users"
	others, err := o.Others()
	if err != nil {
		return []Check{{Name: name, Status: Warn, Detail: err.Error(), Cost: "conflicts are not seen"}}
	}
	if len(others) == 0 {
		return []Check{ok(name, "none on the hooks that Weir uses")}
	}
	var list []string
	for _, f := range others {
		program := f.Program
		if program == "" {
			program = "a program without a name"
		}
		list = append(list, fmt.Sprintf("%s (id %d, %s at %s)", program, f.ID, f.Hook, f.Cgroup))
	}
	return []Check{{Name: name, Status: Warn, Detail: strings.Join(list, ", "),
		Cost: "all of them run, the child cgroup's first: one that rewrites or refuses connections before Weir hides their true destination, one that does so after it may undo the redirect",
		Fix:  "attach Weir below them (intercept.cgroups: the pods', users' and services' slices), and try a connection to each backend"}}
}

func checkBPFFS(_ context.Context, o *Options) []Check {
	if o.BPFFS == "" {
		return nil
	}
	const name = "bpf file system"
	at := o.BPFFS
	for at != "/" {
		if _, err := os.Stat(at); err == nil {
			break
		}
		at = filepath.Dir(at)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		return []Check{ok(name, "%s lies on one", o.BPFFS)}
	}
	return []Check{{Name: name, Status: Warn, Detail: o.BPFFS + " is not on a bpf file system",
		Cost: "the agent mounts one when it starts; in a container of its own mount namespace that mount ends with the container, and the hooks with it (connections then go past Weir)",
		Fix:  "mount -t bpf bpf /sys/fs/bpf on the host; Kubernetes: mount the host's /sys/fs/bpf into the agent with mountPropagation Bidirectional"}}
}

// Inodes of the initial namespaces (include/linux/proc_ns.h).
const (
	initialCgroupNS = 0xEFFFFFFB
	initialPIDNS    = 0xEFFFFFFC
)

func checkNamespaces(context.Context, *Options) []Check {
	return []Check{
		checkNamespace("pid namespace", "pid", initialPIDNS, Fail,
			"processes that connect cannot be found: neither their program nor who is signed in", "hostPID: true (Kubernetes), --pid=host (docker)"),
		checkNamespace("cgroup namespace", "cgroup", initialCgroupNS, Warn,
			"cgroup paths differ from the host's, so pods are not recognised", "--cgroupns=host (docker); containerd and Kubernetes: a privileged pod gets the host's"),
	}
}

func checkNamespace(name, kind string, initial uint64, status Status, cost, fix string) Check {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/"+kind, &st); err != nil {
		return Check{Name: name, Status: Warn, Detail: err.Error()}
	}
	if st.Ino == initial {
		return ok(name, "the host's")
	}
	return Check{Name: name, Status: status, Detail: fmt.Sprintf("not the host's (%d)", st.Ino), Cost: cost, Fix: fix}
}

// unsetLoginUID is what the kernel shows when nobody logged in (audit(7)).
const unsetLoginUID = "4294967295"

func checkLoginUID(context.Context, *Options) []Check {
	const name = "login audit"
	v, err := os.ReadFile("/proc/self/loginuid")
	if err != nil {
		return []Check{{Name: name, Status: Warn, Detail: "this kernel keeps no login uid (CONFIG_AUDIT)",
			Cost: "a sign-in is bound to user id and cgroup, so that two logins of one account in one cgroup are the same person", Fix: "use `weir exec`, or a kernel with CONFIG_AUDIT and CONFIG_AUDITSYSCALL"}}
	}
	if uid := strings.TrimSpace(string(v)); uid != unsetLoginUID {
		return []Check{ok(name, "login uids are kept; this login is uid %s", uid)}
	}
	if !pamLoginUID() {
		return []Check{{Name: name, Status: Warn, Detail: "the kernel keeps login uids, but none is set here and pam_loginuid is in no service of /etc/pam.d",
			Cost: "a sign-in is bound to user id and cgroup instead of the login session", Fix: "add `session required pam_loginuid.so` to /etc/pam.d/sshd and login"}}
	}
	return []Check{ok(name, "login uids are kept; none is set for this process")}
}

func pamLoginUID() bool {
	files, _ := filepath.Glob("/etc/pam.d/*")
	return slices.ContainsFunc(files, func(f string) bool {
		b, err := os.ReadFile(f)
		if err != nil {
			return false
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && strings.Contains(line, "pam_loginuid.so") {
				return true
			}
		}
		return false
	})
}

func checkPtrace(context.Context, *Options) []Check {
	const name = "ptrace"
	v, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err == nil && strings.TrimSpace(string(v)) != "0" {
		return []Check{ok(name, "restricted (yama.ptrace_scope %s)", strings.TrimSpace(string(v)))}
	}
	return []Check{{Name: name, Status: Warn, Detail: "a process may trace others of the same user",
		Cost: "it can take over a signed-in process's connection (ptrace, pidfd_getfd) and act as that person", Fix: "sysctl kernel.yama.ptrace_scope=1"}}
}

func checkClock(context.Context, *Options) []Check {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return []Check{{Name: "clock", Status: Warn, Detail: err.Error()}}
	}
	return []Check{clock(state, t.Status, t.Maxerror)}
}

// Of adjtimex(2).
const (
	timeError = 5 // TIME_ERROR
	staUnsync = 0x40
)

func clock(state int, status int32, maxError int64) Check {
	if state != timeError && status&staUnsync == 0 {
		return ok("clock", "synchronised, error at most %d ms", maxError/1000)
	}
	return Check{Name: "clock", Status: Warn, Detail: "the kernel does not know it to be synchronised",
		Cost: "tokens are taken for expired or not valid yet, and the times in the audit log are not evidence", Fix: "run chrony, systemd-timesyncd or ntpd (a virtual machine may rely on its host's clock; then this can be left)"}
}
