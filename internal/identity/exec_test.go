package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/testkit"
)

// exec binds a client to a person's token and returns the binding.
func (w *world) exec(c *client, user string) Binding {
	w.t.Helper()
	raw := ""
	if user != "" {
		raw = w.token(user)
	}
	b, err := w.m.BindExec(w.t.Context(), c.Caller, raw)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) wantEvents(want ...string) {
	w.t.Helper()
	if got := w.rec.take(); !cmp.Equal(got, want) {
		w.t.Errorf("events %q, want %q", got, want)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestExecCoversItsProcessesAndNobodyElse(t *testing.T) {
	w := newWorld(t)
	c := newClient(t, w.cgroup, "-", "4711")
	outside := sleeper(t, w.cgroup)
	if got := w.who(&c.Process); !strings.Contains(got, "weir login") || !strings.Contains(got, "weir exec") {
		t.Errorf("without an identity: %q does not say what to do", got)
	}

	b := w.exec(c, "ann@example.com")
	dir := filepath.Join(w.m.mount, b.Cgroup)
	if want := "/" + filepath.Base(w.cgroup) + "/weir-exec-" + b.ID; b.Cgroup != want {
		t.Errorf("cgroup %s, want %s", b.Cgroup, want)
	}
	w.wantEvents("bound ann@example.com")
	self := process(t, c.Process.PID)
	if got := w.who(self); self.CgroupID != b.CgroupID || got != "ann@example.com" {
		t.Errorf("the command in %s is %s", self.Cgroup, got)
	}
	if p, err := w.m.Identify(t.Context(), self); err != nil || p.Session != b.ID {
		t.Errorf("session %v, %v", p, err)
	}
	child := c.spawn()
	if got := w.who(process(t, child)); got != "ann@example.com" {
		t.Errorf("its child is %s", got)
	}
	if got := w.who(outside); !strings.HasPrefix(got, "error: no identity") {
		t.Errorf("a process outside is %s", got)
	}

	// A cgroup that the command's children make below is covered, too.
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte(strconv.Itoa(child)), 0o644); err != nil {
		t.Fatal(err)
	}
	grandchild := process(t, child)
	if got := w.who(grandchild); got != "ann@example.com" || !strings.HasSuffix(grandchild.Cgroup, "/inner") {
		t.Errorf("in %s it is %s", grandchild.Cgroup, got)
	}

	// The command ends, its child goes on: so does the identity.
	c.exit()
	if got := w.who(grandchild); got != "ann@example.com" {
		t.Errorf("after the command's end its child is %s", got)
	}
	if w.rec.count() != 0 || !exists(dir) {
		t.Errorf("ended too early: %q", w.rec.take())
	}
	kill(child)
	testkit.Eventually(t, "cgroup and binding go", func() bool { return !exists(dir) && len(w.m.List()) == 0 && w.rec.count() > 0 })
	w.wantEvents("unbound ann@example.com exited")
	if got := w.who(grandchild); !strings.HasPrefix(got, "error: no identity") {
		t.Errorf("afterwards it is %s", got)
	}
	if files := must(filepath.Glob(filepath.Join(w.cfg.StateDir, "kv", "bindings", "*"))); len(files) != 0 {
		t.Errorf("left on disk: %v", files)
	}
	base := filepath.Base(w.cgroup)
	if got, want := w.rec.takeAttach(), []string{"attach " + base, "detach " + base}; !cmp.Equal(got, want) {
		t.Errorf("redirect: %q, want %q", got, want)
	}
}

func TestNestedExecNearestWins(t *testing.T) {
	w := newWorld(t)
	outer, inner := newClient(t, w.cgroup, "-", "4711"), newClient(t, w.cgroup, "-", "4711")
	a := w.exec(outer, "ann@example.com")
	// The second client runs inside the first's cgroup, as its child would.
	if err := writePID(w.m.mount, a.Cgroup, inner.Process.PID); err != nil {
		t.Fatal(err)
	}
	b := w.exec(inner, "agent@example.com")
	if !strings.HasPrefix(b.Cgroup, a.Cgroup+"/") {
		t.Errorf("inner %s is not below outer %s", b.Cgroup, a.Cgroup)
	}
	p := process(t, inner.Process.PID)
	if got := w.who(p); got != "agent@example.com" {
		t.Errorf("inside it is %s", got)
	}
	if got := w.who(process(t, outer.Process.PID)); got != "ann@example.com" {
		t.Errorf("outside it is %s", got)
	}
	// The outer command goes first; its cgroup has to stay for the inner one.
	outer.exit()
	child := inner.spawn()
	if got := w.who(process(t, child)); got != "agent@example.com" {
		t.Errorf("later it is %s", got)
	}
	kill(child)
	inner.exit()
	testkit.Eventually(t, "both go", func() bool { return !exists(filepath.Join(w.m.mount, a.Cgroup)) && w.rec.count() == 4 })
	w.wantEvents("bound ann@example.com", "bound agent@example.com", "unbound agent@example.com exited", "unbound ann@example.com exited")
}

func TestExecTakesOverTheIdentityAround(t *testing.T) {
	w := newWorld(t)
	shell := newClient(t, w.cgroup, "1001", "4711")
	if _, err := w.m.BindExec(t.Context(), shell.Caller, ""); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("not signed in: %v", err)
	}
	if _, err := w.m.Bind(t.Context(), shell.Caller, w.token("ann@example.com")); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, w.cgroup, "-", "-")
	if _, err := w.m.BindExec(t.Context(), c.Caller, ""); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("another login: %v", err)
	}
	login := w.exec(shell, "")
	p := process(t, shell.Process.PID)
	if got := w.who(p); got != "ann@example.com" || login.Parent == "" {
		t.Errorf("it is %s, taken over from %q", got, login.Parent)
	}
	// Signing out of the login ends what was taken over from it.
	if err := w.m.Revoke(t.Context(), login.Parent); err != nil {
		t.Fatal(err)
	}
	if got := w.who(p); !strings.Contains(got, "error: no identity") || !strings.Contains(got, "parent") {
		t.Errorf("after the end of the login it is %s", got)
	}
	w.wantEvents("bound ann@example.com", "bound ann@example.com", "unbound ann@example.com revoked", "unbound ann@example.com parent")
	shell.exit()
	testkit.Eventually(t, "the ended one is forgotten", func() bool { return len(w.m.List()) == 0 })
	w.wantEvents()
}

func TestEndedExecDoesNotFallBackToTheLogin(t *testing.T) {
	w := newWorld(t)
	shell, c := newClient(t, w.cgroup, "1001", "4711"), newClient(t, w.cgroup, "1001", "4711")
	if _, err := w.m.Bind(t.Context(), shell.Caller, w.token("ann@example.com")); err != nil {
		t.Fatal(err)
	}
	w.exec(c, "agent@example.com")
	p := process(t, c.Process.PID)
	if got, err := w.m.Unbind(t.Context(), c.Caller); err != nil || got.Kind != ExecBinding {
		t.Fatalf("ended %+v, %v", got, err)
	}
	if got := w.who(p); !strings.Contains(got, "logout") {
		t.Errorf("it is %s", got)
	}
	if got := w.who(process(t, shell.Process.PID)); got != "ann@example.com" {
		t.Errorf("the shell is %s", got)
	}
	if _, err := w.m.Bind(t.Context(), c.Caller, w.token("eve@example.com")); !errors.Is(err, ErrInsideExec) {
		t.Errorf("sign-in from inside: %v", err)
	}
}

func TestExecInTheRootCgroup(t *testing.T) {
	w := newWorld(t)
	if self := must(parseCgroup(string(must(os.ReadFile("/proc/self/cgroup"))))); self != "/" {
		t.Skipf("not supported: the test itself must sit in the root cgroup, not in %s", self)
	}
	group := filepath.Join(w.m.mount, w.cfg.RootGroup)
	c := newClient(t, "", "-", "4711")
	b := w.exec(c, "ann@example.com")
	if want := "/" + w.cfg.RootGroup + "/exec-" + b.ID; b.Cgroup != want {
		t.Errorf("cgroup %s, want %s", b.Cgroup, want)
	}
	if got := w.who(process(t, c.Process.PID)); got != "ann@example.com" {
		t.Errorf("it is %s", got)
	}
	c.exit()
	testkit.Eventually(t, "the group goes with its last child", func() bool { return !exists(group) })
}

// Whatever fails: the caller is where it was, nothing is bound, nothing is left.
func TestExecFailsWhole(t *testing.T) {
	cases := []struct {
		name   string
		break_ func(*world, *client)
		want   string
	}{
		{"attach", func(w *world, _ *client) {
			w.m.cfg.Attach = func(string) error { return errors.New("map full") }
		}, "map full"},
		{"record", func(w *world, _ *client) { w.rec.refuse = errors.New("disk full") }, "disk full"},
		{"move", func(w *world, c *client) {
			// The caller sits in a threaded cgroup: the kernel lets no process into a
			// new one below it (cgroup v2 documentation, "Threads").
			threaded := testkit.CgroupIn(w.t, w.cgroup)
			if err := os.WriteFile(filepath.Join(threaded, "cgroup.type"), []byte("threaded"), 0o644); err != nil {
				w.t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(threaded, "cgroup.procs"), []byte(strconv.Itoa(c.Process.PID)), 0o644); err != nil {
				w.t.Fatal(err)
			}
		}, "threaded"},
		{"depth", func(w *world, _ *client) {
			if err := os.WriteFile(filepath.Join(w.cgroup, "cgroup.max.descendants"), []byte("0"), 0o644); err != nil {
				w.t.Fatal(err)
			}
		}, "cgroup.max"},
		{"store", func(w *world, _ *client) {
			if err := os.RemoveAll(filepath.Join(w.cfg.StateDir, "kv")); err != nil {
				w.t.Fatal(err)
			}
		}, "could not be kept"},
		{"token", func(w *world, _ *client) { w.idp.RotateKey(); w.idp.Down() }, "key"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			cl := newClient(t, w.cgroup, "-", "4711")
			raw := w.token("ann@example.com")
			c.break_(w, cl)
			before := process(t, cl.Process.PID)
			_, err := w.m.BindExec(t.Context(), cl.Caller, raw)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), raw) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if after := process(t, cl.Process.PID); after.Cgroup != before.Cgroup {
				t.Errorf("the caller was moved to %s", after.Cgroup)
			}
			if left := must(filepath.Glob(filepath.Join(w.m.mount, before.Cgroup, "weir-exec-*"))); len(left)+len(w.m.List()) != 0 {
				t.Errorf("left: %v %v", left, w.m.List())
			}
			if files := must(filepath.Glob(filepath.Join(w.cfg.StateDir, "kv", "bindings", "*"))); len(files) != 0 {
				t.Errorf("left on disk: %v", files)
			}
			if got := w.who(before); !strings.HasPrefix(got, "error: no identity") {
				t.Errorf("it is %s", got)
			}
			cl.exit() // before its cgroup is removed
		})
	}
}

func TestExecOutlivesTheAgent(t *testing.T) {
	w := newWorld(t)
	lives, ends := newClient(t, w.cgroup, "-", "4711"), newClient(t, w.cgroup, "-", "4711")
	a, b := w.exec(lives, "ann@example.com"), w.exec(ends, "bob@example.com")
	w.m.Close()
	ends.exit()
	w.idp.Down()
	w.rec.take()
	w.rec.takeAttach()
	w.open()
	p := process(t, lives.Process.PID)
	if got := w.who(p); got != "ann@example.com" {
		t.Errorf("after a restart it is %s", got)
	}
	if who, err := w.m.Identify(t.Context(), p); err != nil || who.Session != a.ID || !cmp.Equal(who.Groups, []string{"developer"}) {
		t.Errorf("got %+v, %v", who, err)
	}
	if exists(filepath.Join(w.m.mount, b.Cgroup)) || len(w.m.List()) != 1 {
		t.Errorf("the ended one is still there: %v", w.m.List())
	}
	w.wantEvents("unbound bob@example.com exited")
	base := filepath.Base(w.cgroup)
	if got := w.rec.takeAttach(); len(got) == 0 || got[0] != "attach "+base {
		t.Errorf("redirect after a restart: %q", got)
	}
	lives.exit()
	testkit.Eventually(t, "the other goes, too", func() bool { return len(w.m.List()) == 0 && w.rec.count() == 1 })
	w.wantEvents("unbound ann@example.com exited")
}

// A cgroup that somebody made anew under an old path is not the one that was bound.
func TestReplacedCgroupIsNotRevived(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			w := newWorld(t)
			c := newClient(t, w.cgroup, "-", "4711")
			b := w.exec(c, "ann@example.com")
			dir := filepath.Join(w.m.mount, b.Cgroup)
			if restart {
				w.m.Close()
			} else {
				w.m.change.Lock() // the manager does not come round to notice the end
			}
			c.exit()
			testkit.Eventually(t, "it can be removed", func() bool { return os.Remove(dir) == nil })
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			impostor := sleeper(t, dir)
			if restart {
				w.open()
			}
			if got := w.who(impostor); !strings.HasPrefix(got, "error: no identity") {
				t.Errorf("in a new cgroup under the old path it is %s", got)
			}
			if !restart {
				w.m.change.Unlock()
			}
			testkit.Eventually(t, "the binding goes", func() bool { return len(w.m.List()) == 0 })
			if !exists(dir) {
				t.Error("a cgroup of somebody else was removed")
			}
			if err := syscall.Kill(impostor.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, "the test's own cgroup is removed", func() bool { return os.Remove(dir) == nil })
		})
	}
}

// The agent died while it made the cgroup: nobody was in it, nobody was told.
func TestHalfMadeExecIsCleanedUp(t *testing.T) {
	for _, step := range []string{"nothing", "made", "marked"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			c := newClient(t, w.cgroup, "-", "4711")
			principal := must(w.m.verifier.Verify(t.Context(), w.token("ann@example.com")))
			b := must(w.m.newBinding(ExecBinding, principal, &c.Process))
			b.Cgroup = execCgroupPath(c.Process.Cgroup, w.cfg.RootGroup, b.ID)
			dir := filepath.Join(w.m.mount, b.Cgroup)
			w.m.Close()
			if err := w.m.store.save(b, w.m.bootID); err != nil {
				t.Fatal(err)
			}
			switch step {
			case "made":
				must(struct{}{}, os.Mkdir(dir, 0o755))
			case "marked":
				must(makeExecCgroup(w.m.mount, b.Cgroup, w.cfg.RootGroup, b.ID))
			}
			w.open()
			if exists(dir) || len(w.m.List()) != 0 || exists(w.m.store.file(b.ID)) {
				t.Errorf("left: %v", w.m.List())
			}
			w.wantEvents()
		})
	}
}
