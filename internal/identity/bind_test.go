package identity

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/testkit"
)

func (w *world) login(c *client, user string) Binding {
	w.t.Helper()
	b, err := w.m.Bind(w.t.Context(), c.Caller, w.token(user))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func TestLoginHoldsForItsAuditSession(t *testing.T) {
	w := newWorld(t)
	elsewhere := testkit.CgroupIn(t, w.cgroup)
	shell := newClient(t, w.cgroup, "1001", "4711")
	w.login(shell, "ann@example.com")
	w.wantEvents("bound ann@example.com")

	p := shell.Process
	same := p
	same.UID, same.Cgroup, same.CgroupID = 0, "/"+filepath.Base(w.cgroup)+"/"+filepath.Base(elsewhere), testkit.CgroupID(t, elsewhere)
	if got := w.who(&same); got != "ann@example.com" {
		t.Errorf("after sudo, in another cgroup, it is %s", got)
	}
	if got := w.who(process(t, shell.spawn())); got != "ann@example.com" {
		t.Errorf("its child is %s", got)
	}
	second := newClient(t, w.cgroup, "1001", "4711") // the same person's second login
	if got := w.who(&second.Process); !strings.HasPrefix(got, "error: no identity") {
		t.Errorf("another session is %s", got)
	}
	forged := p
	forged.LoginUID = 1002
	if got := w.who(&forged); !strings.HasPrefix(got, "error: no identity") {
		t.Errorf("the session under another login uid is %s", got)
	}
	daemon := newClient(t, w.cgroup, "-", "4711")
	if got := w.who(&daemon.Process); !strings.HasPrefix(got, "error: no identity") {
		t.Errorf("a daemon of the same user is %s", got)
	}
}

func TestLoginWithoutAuditHoldsForUserAndCgroup(t *testing.T) {
	w := newWorld(t)
	elsewhere := testkit.CgroupIn(t, w.cgroup)
	shell := newClient(t, w.cgroup, "-", "4711")
	if shell.Process.AuditSession != ^uint32(0) {
		t.Skip("not supported: the test runs inside an audit session")
	}
	w.login(shell, "ann@example.com")
	for what, c := range map[string]struct {
		client *client
		want   string
	}{
		"same user, same cgroup":    {newClient(t, w.cgroup, "-", "4711"), "ann@example.com"},
		"another user":              {newClient(t, w.cgroup, "-", "4712"), "error: no identity"},
		"root":                      {newClient(t, w.cgroup, "-", "-"), "error: no identity"},
		"same user, another cgroup": {newClient(t, elsewhere, "-", "4711"), "error: no identity"},
	} {
		if got := w.who(&c.client.Process); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s", what, got)
		}
	}
}

func TestProcessInALostCgroupIsNobody(t *testing.T) {
	w := newWorld(t)
	shell := newClient(t, w.cgroup, "1001", "4711")
	w.login(shell, "ann@example.com")
	// Of the right session, but who knows whether inside some weir exec.
	lost := shell.Process
	lost.Cgroup, lost.CgroupID = "", lost.CgroupID+1
	if got := w.who(&lost); !strings.HasPrefix(got, "error: no identity") {
		t.Errorf("without a path it is %s", got)
	}
	lost.Cgroup = shell.Process.Cgroup
	if got := w.who(&lost); !strings.HasPrefix(got, "error: no identity") {
		t.Errorf("with another cgroup's path it is %s", got)
	}
}

func TestSignInAgain(t *testing.T) {
	w := newWorld(t)
	shell := newClient(t, w.cgroup, "1001", "4711")
	first := w.login(shell, "ann@example.com")
	c := newClient(t, w.cgroup, "1001", "4711")
	if err := writePID(w.m.mount, "/"+filepath.Base(w.cgroup), c.Process.PID); err != nil {
		t.Fatal(err)
	}
	w.rec.take()

	// The same person: the binding goes on, with the new token's groups.
	raw := w.token("ann@example.com", map[string]any{"groups": "dba", "exp": time.Now().Add(time.Hour).Unix(), "nbf": time.Now().Unix()})
	again, err := w.m.Bind(t.Context(), shell.Caller, raw)
	if err != nil || again.ID != first.ID {
		t.Errorf("%s became %s, %v", first.ID, again.ID, err)
	}
	w.wantEvents("renewed ann@example.com")
	if p, err := w.m.Current(first.ID); err != nil || p.Groups[0] != "dba" || p.Session != first.ID {
		t.Errorf("current %+v, %v", p, err)
	}
	// Somebody else: a new binding, and the old one ends.
	other := w.login(shell, "bob@example.com")
	w.wantEvents("bound bob@example.com", "unbound ann@example.com replaced")
	if got := w.who(&shell.Process); got != "bob@example.com" || other.ID == first.ID {
		t.Errorf("it is %s", got)
	}
	if _, err := w.m.Current(first.ID); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("the old one: %v", err)
	}
	// The same person through an agent is not the same.
	if _, err := w.m.Bind(t.Context(), shell.Caller, w.token("bob@example.com", map[string]any{"act": map[string]any{"sub": "agent-7"}})); err != nil {
		t.Fatal(err)
	}
	w.wantEvents("bound bob@example.com", "unbound bob@example.com replaced")
}

func TestRenewalReachesWhatWasTakenOver(t *testing.T) {
	w := newWorld(t)
	shell := newClient(t, w.cgroup, "-", "4711")
	command := newClient(t, w.cgroup, "-", "4711")
	w.login(shell, "ann@example.com")
	w.exec(command, "")
	w.rec.take()
	raw := w.token("ann@example.com", map[string]any{"groups": []string{"dba"}})
	if _, err := w.m.Bind(t.Context(), shell.Caller, raw); err != nil {
		t.Fatal(err)
	}
	w.wantEvents("renewed ann@example.com", "renewed ann@example.com")
	p, err := w.m.Identify(t.Context(), process(t, command.Process.PID))
	if err != nil || p.Groups[0] != "dba" {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := w.m.Unbind(t.Context(), shell.Caller); err != nil {
		t.Fatal(err)
	}
	w.wantEvents("unbound ann@example.com logout", "unbound ann@example.com parent")
}

func TestWhoamiAndLogout(t *testing.T) {
	w := newWorld(t)
	shell := newClient(t, w.cgroup, "1001", "4711")
	if _, err := w.m.Whoami(shell.Caller); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("before: %v", err)
	}
	if _, err := w.m.Unbind(t.Context(), shell.Caller); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("logout of nobody: %v", err)
	}
	b := w.login(shell, "ann@example.com")
	if got, err := w.m.Whoami(shell.Caller); err != nil || got.ID != b.ID || got.Principal.User != "ann@example.com" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := w.m.Unbind(t.Context(), shell.Caller); err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.Whoami(shell.Caller); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("after: %v", err)
	}
	w.wantEvents("bound ann@example.com", "unbound ann@example.com logout")
	shell.exit()
	if _, err := w.m.Bind(t.Context(), shell.Caller, w.token("ann@example.com")); !errors.Is(err, ErrCaller) {
		t.Errorf("a dead caller: %v", err)
	}
}

func TestExpiry(t *testing.T) {
	w := newWorld(t)
	shell := newClient(t, w.cgroup, "1001", "4711")
	soon := time.Now().Add(3 * time.Second).UTC().Truncate(time.Second)
	raw := w.token("ann@example.com", map[string]any{"exp": soon.Unix()})
	login, err := w.m.Bind(t.Context(), shell.Caller, raw)
	if err != nil {
		t.Fatal(err)
	}
	command := newClient(t, w.cgroup, "1001", "4711")
	if _, err := w.m.BindExec(t.Context(), command.Caller, w.token("agent@example.com", map[string]any{"exp": soon.Unix()})); err != nil {
		t.Fatal(err)
	}
	inside := process(t, command.Process.PID)
	w.rec.take()
	testkit.Eventually(t, "both expire", func() bool { return w.rec.count() == 2 })
	for who, p := range map[string]string{"login": w.who(&shell.Process), "exec": w.who(inside)} {
		if !strings.Contains(p, "expired at "+soon.Format(time.RFC3339)) {
			t.Errorf("%s: %s", who, p)
		}
	}
	if _, err := w.m.Current(login.ID); !errors.Is(err, ErrExpired) {
		t.Errorf("current: %v", err)
	}
	if _, err := w.m.Whoami(command.Caller); !errors.Is(err, ErrExpired) {
		t.Errorf("whoami: %v", err)
	}
	if _, err := w.m.BindExec(t.Context(), newClient(t, w.cgroup, "1002", "4711").Caller, raw); !errors.Is(err, ErrToken) {
		t.Errorf("an expired token: %v", err)
	}
	for _, e := range w.rec.take() {
		if !strings.HasPrefix(e, "expired ") {
			t.Errorf("event %q", e)
		}
	}
	// A login that has expired is signed in again; the command's token is its own.
	w.login(shell, "ann@example.com")
	if got := w.who(&shell.Process); got != "ann@example.com" {
		t.Errorf("signed in again it is %s", got)
	}
	if got := w.who(inside); !strings.Contains(got, "expired") {
		t.Errorf("inside it is %s", got)
	}
}

func TestLoginsOutliveTheAgentButNotTheMachine(t *testing.T) {
	w := newWorld(t)
	bySession, byCgroup := newClient(t, w.cgroup, "1001", "4711"), newClient(t, w.cgroup, "-", "4711")
	var raws []string
	for _, c := range []*client{bySession, byCgroup} {
		raw := w.token("ann@example.com", map[string]any{"nbf": time.Now().Unix()})
		raws = append(raws, raw)
		if _, err := w.m.Bind(t.Context(), c.Caller, raw); err != nil {
			t.Fatal(err)
		}
	}
	before := must(w.m.Identify(t.Context(), &bySession.Process))
	w.m.Close()
	w.idp.Down()
	w.rec.take()

	files := 0
	err := filepath.WalkDir(w.cfg.StateDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info := must(d.Info())
		if d.IsDir() {
			if path != w.cfg.StateDir && path != filepath.Join(w.cfg.StateDir, "keys") && path != filepath.Join(w.cfg.StateDir, "kv") && info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return nil
		}
		files++
		data := string(must(os.ReadFile(path)))
		for _, raw := range raws {
			if parts := strings.Split(raw, "."); strings.Contains(data, parts[2]) || strings.Contains(data, parts[1]) {
				t.Errorf("%s holds a token", path)
			}
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || files != 3 { // two bindings, one key set
		t.Errorf("%d files, %v", files, err)
	}

	w.open()
	for what, c := range map[string]*client{"session": bySession, "cgroup": byCgroup} {
		if got := w.who(&c.Process); got != "ann@example.com" {
			t.Errorf("by %s it is %s", what, got)
		}
	}
	if after := must(w.m.Identify(t.Context(), &bySession.Process)); after.TokenID != before.TokenID || !after.Expires.Equal(before.Expires) || after.Session != before.Session {
		t.Errorf("before %+v, after %+v", before, after)
	}
	w.wantEvents()
	w.m.Close()

	w.openAs("another-boot")
	if len(w.m.List()) != 0 {
		t.Errorf("after a reboot: %v", w.m.List())
	}
	w.wantEvents("unbound ann@example.com reboot", "unbound ann@example.com reboot")
}

func TestRestartUnderAnotherConfiguration(t *testing.T) {
	w := newWorld(t)
	shell, command := newClient(t, w.cgroup, "1001", "4711"), newClient(t, w.cgroup, "1001", "4711")
	w.login(shell, "ann@example.com")
	w.exec(command, "ann@example.com")
	inside := process(t, command.Process.PID)
	w.m.Close()
	w.rec.take()
	w.cfg.Issuers = []Issuer{{Issuer: w.idp.URL, ClientID: "another"}}
	w.open()
	w.wantEvents("unbound id-ann@example.com refused", "unbound id-ann@example.com refused")
	for _, p := range []string{w.who(&shell.Process), w.who(inside)} {
		if !strings.HasPrefix(p, "error: no identity") {
			t.Errorf("it is %s", p)
		}
	}
}

func TestDamagedBindingsBindNobody(t *testing.T) {
	w := newWorld(t)
	shell := newClient(t, w.cgroup, "1001", "4711")
	b := w.login(shell, "ann@example.com")
	w.m.Close()
	file := w.m.store.file(b.ID)
	data := must(os.ReadFile(file))
	for _, bad := range []string{"", "{", string(data[:len(data)/2]), strings.Replace(string(data), `"version":1`, `"version":2`, 1), strings.Replace(string(data), b.ID, newID(t), 1)} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		w.open()
		if got := w.who(&shell.Process); !strings.HasPrefix(got, "error: no identity") {
			t.Errorf("from %.20q it is %s", bad, got)
		}
		w.m.Close()
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	if got := w.who(&shell.Process); got != "ann@example.com" {
		t.Errorf("from the sound file it is %s", got)
	}
}

func TestSignInThatCannotBeRecordedDoesNotCount(t *testing.T) {
	w := newWorld(t)
	shell := newClient(t, w.cgroup, "1001", "4711")
	w.rec.refuse = errors.New("disk full")
	if _, err := w.m.Bind(t.Context(), shell.Caller, w.token("ann@example.com")); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v", err)
	}
	if got := w.who(&shell.Process); !strings.HasPrefix(got, "error: no identity") {
		t.Errorf("it is %s", got)
	}
	w.rec.refuse = nil
	w.login(shell, "ann@example.com")
	// Signing out holds even if nobody records it.
	w.rec.refuse = errors.New("disk full")
	if _, err := w.m.Unbind(t.Context(), shell.Caller); err != nil {
		t.Fatal(err)
	}
	if got := w.who(&shell.Process); !strings.HasPrefix(got, "error: no identity") {
		t.Errorf("signed out it is %s", got)
	}
}

// Everything at once, for the race detector; the invariant is that a process is
// only ever ann or nobody.
func TestConcurrentUse(t *testing.T) {
	w := newWorld(t)
	shell, command := newClient(t, w.cgroup, "1001", "4711"), newClient(t, w.cgroup, "1001", "4711")
	w.exec(command, "ann@example.com")
	inside := process(t, command.Process.PID)
	raw := w.token("ann@example.com")
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				for _, p := range []string{w.who(&shell.Process), w.who(inside)} {
					if p != "ann@example.com" && !strings.HasPrefix(p, "error: no identity") {
						t.Errorf("it is %s", p)
					}
				}
				w.m.List()
			}
		})
	}
	for range 50 {
		if _, err := w.m.Bind(ctx, shell.Caller, raw); err != nil {
			t.Error(err)
		}
		if _, err := w.m.Unbind(ctx, shell.Caller); err != nil {
			t.Error(err)
		}
	}
	cancel()
	readers.Wait()
}

func BenchmarkIdentify(b *testing.B) {
	mount, err := cgroupMount()
	if err != nil {
		b.Fatal(err)
	}
	cgroup := testkit.CgroupIn(b, testkit.Cgroup(b))
	rel := strings.TrimPrefix(cgroup, mount)
	idp := testkit.NewIssuer(b)
	m, err := New(context.Background(), Config{Issuers: []Issuer{{Issuer: idp.URL, ClientID: "weir"}}, StateDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	p := must(readProc(os.Getpid(), mount))
	p.Cgroup, p.CgroupID = rel, testkit.CgroupID(b, cgroup)
	principal := must(m.verifier.Verify(b.Context(), idp.Token(nil)))
	login := must(m.newBinding(LoginBinding, principal, &p))
	login.Cgroup, login.CgroupID = p.Cgroup, p.CgroupID
	m.publish(login)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Identify(b.Context(), &p); err != nil {
			b.Fatal(err)
		}
	}
}

func TestBindingsAreLimited(t *testing.T) {
	w := newWorld(t)
	shell, other := newClient(t, w.cgroup, "1001", "4711"), newClient(t, w.cgroup, "1002", "4712")
	principal := must(w.m.verifier.Verify(t.Context(), w.token("ann@example.com")))
	w.m.mu.Lock()
	for range maxBindingsPerUID {
		b := must(w.m.newBinding(LoginBinding, principal, &shell.Process))
		b.AuditSession = 1 // none of them is looked at but by the count
		w.m.byID[b.ID] = b
	}
	w.m.mu.Unlock()
	if _, err := w.m.Bind(t.Context(), shell.Caller, w.token("ann@example.com")); !errors.Is(err, ErrLimit) {
		t.Errorf("login: %v", err)
	}
	if _, err := w.m.BindExec(t.Context(), shell.Caller, w.token("ann@example.com")); !errors.Is(err, ErrLimit) {
		t.Errorf("exec: %v", err)
	}
	w.login(other, "bob@example.com") // another user is not concerned
}
