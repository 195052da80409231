package identity

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/testkit"
)

func TestPeerCallerIsWhoTheKernelSays(t *testing.T) {
	cgroup := testkit.Cgroup(t)
	for _, c := range []struct {
		loginuid, uid string
		wantLogin     uint32
		wantUID       uint32
	}{
		{"-", "-", must(readID("/proc/self/loginuid")), 0},
		{"-", "4711", must(readID("/proc/self/loginuid")), 4711},
		{"1234", "4711", 1234, 4711}, // a person's shell
		{"1234", "-", 1234, 0},       // the same person after sudo
	} {
		t.Run(c.loginuid+"/"+c.uid, func(t *testing.T) {
			got := newClient(t, cgroup, c.loginuid, c.uid)
			p := got.Process
			if p.PID != got.cmd.Process.Pid || p.UID != c.wantUID || p.LoginUID != c.wantLogin {
				t.Errorf("got %+v", p)
			}
			if set := p.AuditSession != flow.Unset; set != (c.wantLogin != flow.Unset) {
				t.Errorf("audit session %d", p.AuditSession)
			}
			if p.CgroupID != testkit.CgroupID(t, cgroup) || p.Cgroup != "/"+filepath.Base(cgroup) {
				t.Errorf("cgroup %s %d", p.Cgroup, p.CgroupID)
			}
			if exe := must(os.Executable()); p.Exe != exe || p.StartTime == 0 {
				t.Errorf("exe %s, start %d", p.Exe, p.StartTime)
			}
		})
	}
}

func TestPeerCallerOnOldKernels(t *testing.T) {
	c := connectClient(t, testkit.Cgroup(t), "-", "4711")
	before := func(fd, level, opt int) (int, error) {
		if opt == unix.SO_PEERPIDFD {
			return -1, unix.ENOPROTOOPT // Linux before 6.5
		}
		return unix.GetsockoptInt(fd, level, opt)
	}
	peer := func() (caller *Caller, err error) {
		raw := must(c.conn.SyscallConn())
		if ctlErr := raw.Control(func(fd uintptr) { caller, err = peerOf(int(fd), before) }); ctlErr != nil {
			t.Fatal(ctlErr)
		}
		return caller, err
	}
	caller, err := peer()
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	if caller.Process.PID != c.cmd.Process.Pid || caller.Process.UID != 4711 {
		t.Errorf("got %+v", caller.Process)
	}
	c.exit()
	if caller, err := peer(); err == nil {
		t.Errorf("a dead peer is %+v", caller.Process)
	}
}

func TestDeadCallerIsNobody(t *testing.T) {
	c := newClient(t, testkit.Cgroup(t), "-", "4711")
	if err := c.Alive(); err != nil {
		t.Fatal(err)
	}
	c.exit()
	if err := c.Alive(); !errors.Is(err, ErrCaller) {
		t.Errorf("got %v", err)
	}
	if caller, err := PeerCaller(c.conn); !errors.Is(err, ErrCaller) {
		t.Errorf("got %v, %v", caller, err)
	}
}

// A process id that came round must not be taken for the caller: neither read
// nor moved. The test has the kernel hand out the caller's id again.
func TestRecycledProcessIDIsNotTheCaller(t *testing.T) {
	w := newWorld(t)
	c := newClient(t, w.cgroup, "-", "4711")
	pid := c.Process.PID
	c.exit()
	impostor := startWithPID(t, pid)
	if _, err := c.refresh(); !errors.Is(err, ErrCaller) {
		t.Errorf("read: %v", err)
	}
	if caller, err := PeerCaller(c.conn); !errors.Is(err, ErrCaller) {
		t.Errorf("peer: %+v, %v", caller, err)
	}
	if _, err := w.m.BindExec(t.Context(), c.Caller, w.token("ann@example.com")); !errors.Is(err, ErrCaller) {
		t.Errorf("exec: %v", err)
	}
	// The last line of defence: the id comes round between check and move.
	inner := filepath.Join(w.cgroup, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(inner)
	from := must(parseCgroup(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))))))
	if err := enter(c.Caller, w.m.mount, from, "/"+filepath.Base(w.cgroup)+"/inner"); !errors.Is(err, ErrCaller) {
		t.Errorf("enter: %v", err)
	}
	if now := process(t, impostor.Process.Pid); now.Cgroup != from {
		t.Errorf("a stranger was moved to %s", now.Cgroup)
	}
	if events := w.rec.take(); len(events) != 0 {
		t.Errorf("events %q", events)
	}
}

// startWithPID starts a process with a given free id: the kernel counts up from
// the last id that it gave (proc(5), ns_last_pid); others may be faster.
func startWithPID(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	for range 2000 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if cmd.Process.Pid == pid {
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			return cmd
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Fatalf("the kernel did not give process id %d again", pid)
	return nil
}

func TestParseProc(t *testing.T) {
	comm, start, err := parseStat("42 (a) b ( c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n")
	if comm != "a) b ( c)" || start != 7_770_000_000 || err != nil {
		t.Errorf("got %q %d %v", comm, start, err)
	}
	for text, want := range map[string]string{
		"9:name=systemd:/x\n0::/\n":      "/",
		"0::/user.slice/a b\n":           "/user.slice/a b",
		"1:cpu:/y\n0::/gone (deleted)\n": "/gone",
		"1:cpu:/y\n":                     "",
		"0::/../../other\n":              "",
		"":                               "",
	} {
		if got, err := parseCgroup(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	mounts := "1 2 0:3 /sub /mnt/a rw - cgroup2 none rw\n" +
		"4 2 0:3 / /mnt/b\\040c rw,relatime shared:7 - cgroup2 none rw\n" +
		"5 2 0:4 / /sys/fs/cgroup rw - tmpfs none rw\n"
	if got := parseMountinfo(mounts); got != "/mnt/b c" {
		t.Errorf("mount %q", got)
	}
}

func FuzzParseProc(f *testing.F) {
	f.Add("42 (a) b ( c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n")
	f.Add("0::/user.slice\nUid:\t0\t0\t0\t0\n")
	f.Add("4 2 0:3 / /mnt/b\\040c rw,relatime shared:7 - cgroup2 none rw\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _, _ = parseStat(text)
		_, _ = parseUID(text)
		if path, err := parseCgroup(text); err == nil && !strings.HasPrefix(path, "/") {
			t.Errorf("cgroup %q", path)
		}
		_ = parseMountinfo(text)
	})
}
