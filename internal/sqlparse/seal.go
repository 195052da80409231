package sqlparse

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// Limits of a child, setrlimit(2). The data limit counts what is written to:
// heaps and thread stacks; the address space also holds what Go and glibc only
// reserve.
const (
	maxChildData  = 512 << 20
	maxChildSpace = 4 << 30
)

// seal gives up everything that a parser does not need. After it returns the
// process can compute, use its own memory and move bytes on descriptors 0 to 2.
// Privileges are gone already: the keeper thread that forked it has none to give.
func seal() error {
	if err := closeOthers(); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	// Rather this process than its parent, when memory runs out; a hint only.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	for _, l := range []struct {
		resource int
		max      uint64
	}{
		{unix.RLIMIT_CORE, 0}, // a core file would hold statements
		{unix.RLIMIT_FSIZE, 0},
		{unix.RLIMIT_DATA, maxChildData},
		{unix.RLIMIT_AS, maxChildSpace},
	} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.max, Max: l.max}); err != nil {
			return fmt.Errorf("set resource limit %d: %w", l.resource, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	filter, err := filter()
	if err != nil {
		return err
	}
	if err := seccomp.LoadFilter(filter); err != nil {
		return fmt.Errorf("load the system call filter (a kernel with CONFIG_SECCOMP_FILTER is needed): %w", err)
	}
	return nil
}

// closeOthers closes what was inherited beyond stdin, stdout and stderr. The
// runtime's own descriptors (poller, CPU limit of the cgroup) stay.
func closeOthers() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil { // the directory's own descriptor, closed by now
			continue
		}
		if strings.HasPrefix(target, "anon_inode:[event") || strings.HasPrefix(target, "/sys/fs/cgroup/") {
			continue
		}
		_ = syscall.Close(fd)
	}
	return nil
}

// allowed are the system calls of the Go runtime and of glibc's allocator and
// threads. Names that an architecture lacks are left out there.
var allowed = []string{
	"read", "write", "close",
	"futex", "futex_waitv", "sched_yield", "sched_getaffinity", "restart_syscall",
	"nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "time",
	"munmap", "mremap", "madvise", "brk", "mincore",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
	"getpid", "gettid", "tgkill", "set_robust_list", "rseq",
	"getrandom", "exit", "exit_group",
	"epoll_wait", "epoll_pwait", "epoll_ctl", "pread64",
}

// filter allows the list, threads, and memory that is not executable; everything
// else fails with EPERM. clone3 passes its flags in memory, where a filter cannot
// look: it does not exist, so that glibc falls back to clone. Calls with
// conditions stand last and clone last of all: in the library's programs a failed
// condition leaves its argument where the next comparison expects the number.
func filter() (seccomp.Filter, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Filter{}, fmt.Errorf("no system call filter for this architecture: %w", err)
	}
	names := make([]string, 0, len(allowed))
	for _, n := range allowed {
		if _, ok := info.SyscallNames[n]; ok {
			names = append(names, n)
		}
	}
	notExec := seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.BitsNotSet, Value: unix.PROT_EXEC}}
	return seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno, // EPERM
			Syscalls: []seccomp.SyscallGroup{
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
				{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: []seccomp.NameWithConditions{
					{Name: "mmap", Conditions: notExec},
					{Name: "mprotect", Conditions: notExec},
					{Name: "clone", Conditions: seccomp.ArgumentConditions{
						{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD}}},
				}},
			},
		},
	}, nil
}
