package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/flow"
)

const password = "correct horse; battery staple"

// env is an environment of its own for a store.
func env(kv ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == name {
				return kv[i+1], true
			}
		}
		return "", false
	}
}

func open(t *testing.T, c Config) *Store {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func file(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func want(t *testing.T, s *Store, ref, secret string) {
	t.Helper()
	got, _, err := s.Get(context.Background(), ref)
	if err != nil {
		t.Fatalf("%s: %v", ref, err)
	}
	if got.Reveal() != secret {
		t.Fatalf("%s: another secret than expected came out (%d bytes)", ref, len(got.Bytes()))
	}
}

func wantError(t *testing.T, s *Store, ref, part string) {
	t.Helper()
	got, _, err := s.Get(context.Background(), ref)
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Fatalf("%s: got error %v, want one with %q", ref, err, part)
	}
	if !got.Empty() {
		t.Fatalf("%s: a secret beside an error", ref)
	}
	if strings.Contains(err.Error(), password) {
		t.Fatalf("%s: the error holds the secret", ref)
	}
}

func TestFile(t *testing.T) {
	s := open(t, Config{})
	path := file(t, password+"\n", 0o600)
	want(t, s, "file:"+path, password)
	if err := os.WriteFile(path, []byte("rotated"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, s, "file:"+path, "rotated")
	wantError(t, s, "file:/does/not/exist", "no such file")
	wantError(t, s, "file:"+t.TempDir(), "not a regular file")
	wantError(t, s, "file:"+file(t, "\n", 0o600), "empty")
	wantError(t, s, "file:"+file(t, strings.Repeat("x", maxSecret+1), 0o600), "longer than")
}

func TestFileModeWarning(t *testing.T) {
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o640: true, 0o604: true} {
		var log bytes.Buffer
		s := open(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
		path := file(t, password, mode)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		want(t, s, "file:"+path, password)
		want(t, s, "file:"+path, password)
		if n := strings.Count(log.String(), path); (n == 1) != warned || n > 1 {
			t.Errorf("mode %o: %d warnings", mode, n)
		}
		if strings.Contains(log.String(), password) {
			t.Error("the log holds the secret")
		}
	}
}

func TestEnv(t *testing.T) {
	s := open(t, Config{Getenv: env("A", password, "EMPTY", "")})
	want(t, s, "env:A", password)
	wantError(t, s, "env:B", "no such variable")
	wantError(t, s, "env:EMPTY", "empty")
}

func TestUnknownSchemeDoesNotRepeatTheText(t *testing.T) {
	s := open(t, Config{})
	wantError(t, s, password, "must start with")
	wantError(t, s, "plain:"+password, "must start with")
}

func TestExec(t *testing.T) {
	s := open(t, Config{Getenv: env("HOME", "/nonexistent", "SECRET_OF_AGENT", "x")})
	want(t, s, `exec:printf '%s\n' "correct horse; battery"\ staple`, password)
	want(t, s, `exec:sh -c 'echo $HOME'`, "/nonexistent")
	want(t, s, `exec:sh -c 'env | grep -c SECRET_OF_AGENT || :'`, "0")
	wantError(t, s, "exec:sh -c 'echo "+password+" >&2; exit 3'", "exit status 3")
	wantError(t, s, "exec:true", "empty")
	wantError(t, s, "exec:/does/not/exist", "no such file")
	wantError(t, s, "exec:", "no command")
	wantError(t, s, "exec:yes", "printed more than")
}

func TestExecTimeoutKillsTheGroup(t *testing.T) {
	s := open(t, Config{})
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := s.fromExec(ctx, "sh -c 'sleep 1000 & echo $! > "+pidFile+"; wait'")
		done <- err
	}()
	var pid string
	waitFor(t, func() bool {
		b, _ := os.ReadFile(pidFile)
		pid = strings.TrimSpace(string(b))
		return pid != ""
	})
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "did not finish") {
		t.Fatalf("got %v", err)
	}
	waitFor(t, func() bool {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited for 20 s")
		}
	}
}

func TestSplitCommand(t *testing.T) {
	for line, words := range map[string][]string{
		"a b  c":             {"a", "b", "c"},
		`a 'b c' "d e"`:      {"a", "b c", "d e"},
		`a ''`:               {"a", ""},
		`a "x\"y\$z\n"`:      {"a", `x"y$z\n`},
		`a b\ c$HOME ;d|e`:   {"a", "b c$HOME", ";d|e"},
		`a pre'fix 'post"x"`: {"a", "prefix postx"},
	} {
		got, err := splitCommand(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if d := cmp.Diff(words, got); d != "" {
			t.Errorf("%s: %s", line, d)
		}
	}
	for _, line := range []string{"", "  ", "a 'b", `a "b`, `a \`, "''"} {
		if got, err := splitCommand(line); err == nil {
			t.Errorf("%q: got %q", line, got)
		}
	}
}

func FuzzSplitCommand(f *testing.F) {
	f.Add(`vault read -field="a b" 'x'\y`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitCommand(line)
		if err != nil {
			return
		}
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		again, err := splitCommand(strings.Join(quoted, " "))
		if err != nil || !cmp.Equal(words, again) {
			t.Fatalf("%q: %q, then %q, %v", line, words, again, err)
		}
	})
}

func TestAge(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	idFile := file(t, "# made by age-keygen\n"+id.String()+"\n", 0o600)
	binary := file(t, encrypt(t, id.Recipient(), password+"\n", false), 0o644)
	armored := file(t, encrypt(t, id.Recipient(), password, true), 0o644)

	for _, s := range []*Store{open(t, Config{AgeIdentities: []string{idFile}}), open(t, Config{Getenv: env(ageIdentityEnv, idFile)})} {
		want(t, s, "age:"+binary, password)
		want(t, s, "age:"+armored, password)
		wantError(t, s, "age:"+file(t, encrypt(t, other.Recipient(), password, false), 0o600), "not encrypted to")
		wantError(t, s, "age:"+file(t, "plain "+password, 0o600), "not a readable age file")
		cut := encrypt(t, id.Recipient(), password, false)
		wantError(t, s, "age:"+file(t, cut[:len(cut)-3], 0o600), "damaged")
	}
	wantError(t, open(t, Config{Getenv: env()}), "age:"+binary, ageIdentityEnv)
	wantError(t, open(t, Config{Getenv: env(ageIdentityEnv, file(t, password, 0o600))}), "age:"+binary, "age-keygen")
	if _, err := Open(Config{AgeIdentities: []string{file(t, password, 0o600)}}); err == nil || strings.Contains(err.Error(), password) {
		t.Errorf("opened with an identity file that is none: %v", err)
	}
}

func encrypt(t *testing.T, to age.Recipient, text string, armored bool) string {
	t.Helper()
	var out bytes.Buffer
	dst := &nopCloser{&out}
	var a = armor.NewWriter(&out)
	w, err := age.Encrypt(dst, to)
	if armored {
		out.Reset()
		w, err = age.Encrypt(a, to)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if armored {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

type nopCloser struct{ *bytes.Buffer }

// bao speaks as much of the documented HTTP API of OpenBao and Vault as reading
// takes: mount information, KV v1, KV v2, a dynamic secret. It is a fake; no
// OpenBao can be installed here.
func bao(t *testing.T, hits *atomic.Int64) *httptest.Server {
	t.Helper()
	answers := map[string]string{
		"/v1/sys/internal/ui/mounts/secret/orders":      `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`,
		"/v1/sys/internal/ui/mounts/secret/data/orders": `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`,
		"/v1/secret/data/orders":                        `{"lease_id":"","lease_duration":0,"data":{"data":{"password":"` + password + `","n":1},"metadata":{"version":3}}}`,
		"/v1/sys/internal/ui/mounts/old/orders":         `{"data":{"path":"old/","type":"kv","options":{"version":"1"}}}`,
		"/v1/old/orders":                                `{"lease_id":"","lease_duration":2764800,"data":{"password":"` + password + `"}}`,
		"/v1/database/creds/ro":                         `{"lease_id":"database/creds/ro/x","lease_duration":60,"data":{"username":"v-1","password":"` + password + `"}}`,
		"/v1/sys/internal/ui/mounts/secret/deleted":     `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`,
		"/v1/secret/data/deleted":                       `{"data":{"data":null,"metadata":{"version":3}}}`,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if r.Header.Get("X-Vault-Token") != "s.good" || r.Header.Get("X-Vault-Request") != "true" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors":["permission denied"]}`)
			return
		}
		if r.URL.Path == "/v1/moved" {
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusTemporaryRedirect)
			return
		}
		a, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[]}`)
			return
		}
		fmt.Fprint(w, a)
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestBao(t *testing.T) {
	var hits atomic.Int64
	srv := bao(t, &hits)
	tokenFile := file(t, "s.good\n", 0o600)
	for name, s := range map[string]*Store{
		"config":      open(t, Config{Bao: Bao{Address: srv.URL, TokenFile: tokenFile}, Getenv: env()}),
		"openbao env": open(t, Config{Getenv: env("BAO_ADDR", srv.URL, "BAO_TOKEN", "s.good", "VAULT_ADDR", "http://wrong.invalid")}),
		"vault env":   open(t, Config{Getenv: env("VAULT_ADDR", srv.URL, "VAULT_TOKEN", "s.good")}),
	} {
		t.Run(name, func(t *testing.T) {
			want(t, s, "bao:secret/orders#password", password)
			want(t, s, "bao:secret/data/orders#password", password)
			want(t, s, "bao:old/orders#password", password)
			wantError(t, s, "bao:secret/orders#nothing", "no such field")
			wantError(t, s, "bao:secret/orders#n", "not a string")
			wantError(t, s, "bao:secret/deleted#password", "deleted")
			wantError(t, s, "bao:secret/none#password", "404")
			wantError(t, s, "bao:moved#password", "redirects to elsewhere.invalid")
			wantError(t, s, "bao:secret/orders", "PATH#FIELD")
			before := time.Now()
			_, expires, err := s.Get(context.Background(), "bao:database/creds/ro#password")
			if err != nil || expires.Before(before.Add(50*time.Second)) || expires.After(time.Now().Add(60*time.Second)) {
				t.Errorf("lease: %v, %v", expires, err)
			}
		})
	}
	wantError(t, open(t, Config{Getenv: env("BAO_ADDR", srv.URL, "BAO_TOKEN", "s.bad")}), "bao:old/orders#password", "403")
	wantError(t, open(t, Config{Getenv: env("BAO_ADDR", srv.URL)}), "bao:old/orders#password", "no token")
	wantError(t, open(t, Config{Getenv: env("BAO_TOKEN", "s.good")}), "bao:old/orders#password", "no address")
	srv.Close()
	wantError(t, open(t, Config{Getenv: env("BAO_ADDR", srv.URL, "BAO_TOKEN", "s.good")}), "bao:old/orders#password", "cannot be asked")
}

func TestCache(t *testing.T) {
	var hits atomic.Int64
	srv := bao(t, &hits)
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	s := open(t, Config{Getenv: env("BAO_ADDR", srv.URL, "BAO_TOKEN", "s.good"), Now: clock})
	const ref = "bao:database/creds/ro#password"

	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, _, err := s.Get(context.Background(), ref); err != nil || got.Reveal() != password {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := hits.Load(); n > 6 { // two requests a fetch; nearly all callers share one
		t.Errorf("%d requests for 20 callers", n)
	}
	s.mu.Lock()
	kept := s.cache[ref].secret
	s.mu.Unlock()

	mu.Lock()
	now = now.Add(2 * time.Minute) // past the lease
	mu.Unlock()
	before := hits.Load()
	want(t, s, ref, password)
	if hits.Load() == before {
		t.Error("an expired secret came out of the cache")
	}
	if strings.Trim(string(kept.Bytes()), "\x00") != "" {
		t.Error("the expired secret was not wiped")
	}

	before = hits.Load()
	s.Forget(ref)
	want(t, s, ref, password)
	if hits.Load() == before {
		t.Error("a forgotten secret came out of the cache")
	}
	own, _, err := s.Get(context.Background(), ref)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if own.Reveal() != password {
		t.Error("the caller's copy was wiped")
	}
	if _, _, err := s.Get(context.Background(), ref); err != ErrClosed {
		t.Errorf("closed: %v", err)
	}
}

func TestSecretNeverPrints(t *testing.T) {
	s := NewSecret([]byte(password))
	var out bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, format, s)
		fmt.Fprintf(&out, format, struct{ S Secret }{s})
		fmt.Fprintf(&out, format, &s)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", s, "in", struct{ S Secret }{s})
	if err := json.NewEncoder(&out).Encode(struct{ S Secret }{s}); err != nil {
		t.Fatal(err)
	}
	hex := fmt.Sprintf("%x", password)
	if strings.Contains(out.String(), password) || strings.Contains(out.String(), hex) || strings.Contains(out.String(), "99 111 114") {
		t.Errorf("the secret is in %s", out.String())
	}
}

func TestPick(t *testing.T) {
	entries := []Entry{{Groups: []string{"dba", "root"}, Username: "dba"}, {Groups: []string{"dev"}, Username: "dev"}, {Username: "all"}}
	for _, c := range []struct {
		p    *flow.Principal
		want string
	}{
		{&flow.Principal{Groups: []string{"x", "root"}}, "dba"},
		{&flow.Principal{Groups: []string{"dev", "dba"}}, "dba"},
		{&flow.Principal{Groups: []string{"dev"}}, "dev"},
		{&flow.Principal{Groups: []string{"DBA"}}, "all"},
		{nil, "all"},
	} {
		if e, ok := Pick(entries, c.p); !ok || e.Username != c.want {
			t.Errorf("%v: got %v", c.p, e)
		}
	}
	if e, ok := Pick(entries[:2], nil); ok {
		t.Errorf("nobody got %v", e)
	}
}

func TestBook(t *testing.T) {
	path := file(t, password, 0o600)
	b := NewBook(open(t, Config{}), map[string][]Entry{"orders": {
		{Groups: []string{"dba"}, Username: "weir_dba", Password: "file:" + path},
		{Groups: []string{"peer"}, Username: "weir_peer"},
		{Groups: []string{"lost"}, Username: "weir_lost", Password: "file:/does/not/exist"},
	}})
	dba := &flow.Principal{Groups: []string{"dba"}}
	if login, ok := b.Login("orders", dba); !ok || login != "weir_dba" {
		t.Error(login, ok)
	}
	if _, ok := b.Login("orders", nil); ok {
		t.Error("nobody got a login")
	}
	if _, ok := b.Login("other", dba); ok {
		t.Error("a login at an unknown backend")
	}
	user, pw, err := b.Password(context.Background(), "orders", dba)
	if user != "weir_dba" || string(pw) != password || err != nil {
		t.Error(user, err)
	}
	user, pw, err = b.Password(context.Background(), "orders", &flow.Principal{Groups: []string{"peer"}})
	if user != "weir_peer" || pw != nil || err != nil {
		t.Error(user, err)
	}
	if _, _, err = b.Password(context.Background(), "orders", &flow.Principal{Groups: []string{"lost"}}); err == nil || !strings.Contains(err.Error(), "weir_lost") {
		t.Error(err)
	}
	if _, _, err = b.Password(context.Background(), "orders", nil); err == nil {
		t.Error("nobody got a password")
	}
}
