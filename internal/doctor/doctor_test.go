package doctor

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/redirect"
)

// find returns the checks of a name; parts narrow it to those whose text holds them.
func find(t *testing.T, checks []Check, name string, status Status, parts ...string) {
	t.Helper()
	for _, c := range checks {
		if c.Name != name {
			continue
		}
		text := c.Detail + "\n" + c.Cost + "\n" + c.Fix
		hit := c.Status == status
		for _, p := range parts {
			hit = hit && strings.Contains(text, p)
		}
		if hit {
			return
		}
	}
	t.Errorf("no %s %q with %q in %+v", status, name, parts, checks)
}

// TestThisMachine runs everything against the real kernel.
func TestThisMachine(t *testing.T) {
	probe := func() (out []Feature) {
		for _, f := range redirect.Probe(nil) {
			out = append(out, Feature(f))
		}
		return out
	}
	others := func() (out []Foreign, err error) {
		all, err := redirect.Others(nil)
		for _, f := range all {
			out = append(out, Foreign(f))
		}
		return out, err
	}
	checks := Run(context.Background(), Options{Config: "/etc/weir/weir.yaml", Probe: probe, Others: others, StateDir: t.TempDir(), BPFFS: "/sys/fs/bpf/weir"})
	for _, name := range []string{"kernel", "configuration", "capabilities", "eBPF", "other eBPF users", "bpf file system", "cgroups", "processes in the cgroup root",
		"cgroups to attach to", "pid namespace", "cgroup namespace", "login audit", "ptrace", "clock", "state directory", "weir's CA", "identity providers"} {
		n := 0
		for _, c := range checks {
			if c.Name == name {
				n++
			}
			if c.Status != OK && (c.Detail == "" || c.Cost == "") {
				t.Errorf("%q says too little: %+v", c.Name, c)
			}
		}
		if n == 0 {
			t.Errorf("no check %q", name)
		}
	}
	if os.Geteuid() == 0 {
		find(t, checks, "eBPF", OK, "tried by loading")
		find(t, checks, "capabilities", OK, "CAP_BPF")
	}
	var out bytes.Buffer
	if err := Print(&out, checks); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + out.String())
	if _, err := json.Marshal(checks); err != nil {
		t.Fatal(err)
	}
}

func TestCapabilities(t *testing.T) {
	all, err := effective("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n")
	if err != nil {
		t.Fatal(err)
	}
	find(t, missing(all), "capabilities", OK)
	some := missing(all &^ (1<<39 | 1<<19))
	if len(some) != 2 {
		t.Errorf("%+v", some)
	}
	find(t, some, "capabilities", Fail, "CAP_BPF")
	find(t, some, "capabilities", Warn, "CAP_SYS_PTRACE")
	if _, err := effective("Name:\tx\n"); err == nil {
		t.Error("no CapEff was taken")
	}
}

func TestFeatures(t *testing.T) {
	o := &Options{Probe: func() []Feature {
		return []Feature{{Name: "a", Needed: true}, {Name: "b", Needed: true, Cost: "all", Err: errors.New("no b")}, {Name: "c", Cost: "little", Err: errors.New("no c")}}
	}}
	got := checkFeatures(context.Background(), o)
	find(t, got, "eBPF", OK, "1 feature")
	find(t, got, "eBPF: b", Fail, "no b", "all")
	find(t, got, "eBPF: c", Warn, "no c", "little")
}

func TestOthers(t *testing.T) {
	o := &Options{Others: func() ([]Foreign, error) {
		return []Foreign{{Cgroup: "/sys/fs/cgroup", Hook: "CGroupInet4Connect", Program: "cil_sock4_conne", ID: 7}}, nil
	}}
	find(t, checkOthers(context.Background(), o), "other eBPF users", Warn, "cil_sock4_conne (id 7")
	o.Others = func() ([]Foreign, error) { return nil, nil }
	find(t, checkOthers(context.Background(), o), "other eBPF users", OK)
	o.Others = func() ([]Foreign, error) { return nil, errors.New("EPERM") }
	find(t, checkOthers(context.Background(), o), "other eBPF users", Warn, "EPERM")
}

func TestCgroupLayout(t *testing.T) {
	const (
		unified = "25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
		hybrid  = "25 1 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n26 1 0:24 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu\n"
		legacy  = "26 1 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	)
	for text, want := range map[string]struct {
		v2 string
		v1 bool
	}{unified: {"/sys/fs/cgroup", false}, hybrid: {"/sys/fs/cgroup/unified", true}, legacy: {"", true}, "": {"", false}} {
		if v2, v1 := layout(parseMounts(text)); v2 != want.v2 || v1 != want.v1 {
			t.Errorf("%q: %q, %v", text, v2, v1)
		}
	}
}

func TestAttachPoints(t *testing.T) {
	v2 := t.TempDir()
	check := func(configured []string, status Status, parts ...string) {
		t.Helper()
		find(t, []Check{attachPoints(v2, configured)}, "cgroups to attach to", status, parts...)
	}
	check(nil, Warn, "the root is taken")
	check([]string{filepath.Join(v2, "ci")}, Fail, "not there")
	for _, d := range []string{"user.slice", "system.slice"} {
		if err := os.Mkdir(filepath.Join(v2, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	check(nil, OK, "user.slice system.slice")
	if err := os.Mkdir(filepath.Join(v2, "machine.slice"), 0o755); err != nil {
		t.Fatal(err)
	}
	check(nil, Warn, "not covered: machine.slice")
	check([]string{filepath.Join(v2, "user.slice")}, OK)
}

func TestClock(t *testing.T) {
	find(t, []Check{clock(0, 0x2001, 250_000)}, "clock", OK, "250 ms")
	find(t, []Check{clock(0, staUnsync, 0)}, "clock", Warn)
	find(t, []Check{clock(timeError, 0, 0)}, "clock", Warn)
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	run := func(state string) []Check { return checkState(context.Background(), &Options{StateDir: state}) }
	if c := run(dir)[0]; c.Status == Fail || !strings.Contains(c.Detail, "MiB free") {
		t.Errorf("%+v", c)
	}
	if c := run(filepath.Join(dir, "new"))[0]; c.Status == Fail {
		t.Errorf("%+v", c)
	}
	find(t, run(filepath.Join(dir, "far", "off")), "state directory", Fail, "mkdir")
	find(t, run("/proc/weir"), "state directory", Fail, "recorded")
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	find(t, []Check{space("s", "/x", 10<<20)}, "s", Fail)
	find(t, []Check{space("s", "/x", 500<<20)}, "s", Warn)
	find(t, []Check{space("s", "/x", 5<<30)}, "s", OK)
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := os.Mkdir(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, secret := write(filepath.Join(keys, "ca.key"), 0o600), write(filepath.Join(dir, "secret"), 0o600)
	write(filepath.Join(keys, "log.pub"), 0o644)
	o := &Options{StateDir: dir, SecretFiles: []string{secret}}
	find(t, checkKeys(context.Background(), o), "secret files", OK, "2 files")
	write(key, 0o640)
	write(secret, 0o604)
	find(t, checkKeys(context.Background(), o), "secret files", Fail, "ca.key has mode 0640")
	find(t, checkKeys(context.Background(), o), "secret files", Warn, "secret has mode 0604")
	o.SecretFiles = []string{filepath.Join(dir, "missing")}
	find(t, checkKeys(context.Background(), o), "secret files", Fail, "no such file")
}

func TestAuthority(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "keys", "ca.crt")
	now := time.Now()
	o := &Options{StateDir: dir, Now: func() time.Time { return now }}
	run := func() []Check { return checkAuthority(context.Background(), o) }
	find(t, run(), "weir's CA", OK, "not made yet")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(365 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	find(t, run(), "weir's CA", OK, "valid until")
	for answer, status := range map[bool]Status{true: OK, false: Warn} {
		o.Trusted = func([]byte) (bool, error) { return answer, nil }
		find(t, run(), "trust", status)
	}
	o.Trusted = func([]byte) (bool, error) { return false, errors.New("unknown store") }
	find(t, run(), "trust", Warn, "unknown store")
	now = c.NotAfter.Add(-time.Hour)
	find(t, run(), "weir's CA", Warn, "expires on")
	now = c.NotAfter.Add(time.Hour)
	find(t, run(), "weir's CA", Fail, "expired on")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	find(t, run(), "weir's CA", Fail, "no PEM")
}

func TestIssuers(t *testing.T) {
	meta := ""
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dex/.well-known/openid-configuration" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, meta)
	}))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	url := srv.URL + "/dex"
	run := func(i Issuer) []Check { return checkIssuers(context.Background(), &Options{Issuers: []Issuer{i}}) }
	meta = fmt.Sprintf(`{"issuer":%q,"jwks_uri":"x"}`, url)
	find(t, run(Issuer{url, ca}), "identity provider "+url, OK)
	find(t, run(Issuer{url, ""}), "identity provider "+url, Warn, "certificate")
	find(t, run(Issuer{srv.URL + "/other", ca}), "identity provider "+srv.URL+"/other", Warn, "404")
	find(t, run(Issuer{url, "/does/not/exist"}), "identity provider "+url, Warn, "no such file")
	meta = `{"issuer":"https://other.example.com","jwks_uri":"x"}`
	find(t, run(Issuer{url, ca}), "identity provider "+url, Warn, "other.example.com")
	meta = fmt.Sprintf(`{"issuer":%q}`, url)
	find(t, run(Issuer{url, ca}), "identity provider "+url, Warn, "jwks_uri")
	meta = "<html>"
	find(t, run(Issuer{url, ca}), "identity provider "+url, Warn, "discovery")
	srv.Close()
	find(t, run(Issuer{url, ca}), "identity provider "+url, Warn, "refused")
}

func TestBackends(t *testing.T) {
	asked := []string{}
	o := &Options{
		Backends: []Backend{{"a", []string{"10.0.0.0/16", "10.1.1.1", "fd00::1", "fd00::/64"}}, {"b", []string{"orders.db.internal"}}, {"c", []string{"gone.invalid", "10.0.0.1"}}},
		LookupHost: func(_ context.Context, host string) ([]string, error) {
			asked = append(asked, host)
			if host == "gone.invalid" {
				return nil, errors.New("no such host")
			}
			return []string{"10.0.0.9"}, nil
		},
	}
	got := checkBackends(context.Background(), o)
	find(t, got, "backend a", OK, "addresses only")
	find(t, got, "backend b", OK, "1 name resolved")
	find(t, got, "backend c", Warn, "gone.invalid")
	if d := cmp.Diff([]string{"orders.db.internal", "gone.invalid"}, asked); d != "" {
		t.Error(d)
	}
}

func TestPrintAndWorst(t *testing.T) {
	var out bytes.Buffer
	checks := []Check{ok("a", "fine"), {Name: "b", Status: Warn, Detail: "evil\x1b[2J", Cost: "some", Fix: "this"}}
	if err := Print(&out, checks); err != nil {
		t.Fatal(err)
	}
	const want = "ok    a: fine\nwarn  b: evil?[2J\n      costs: some\n      to do: this\n\n1 ok, 1 warning, 0 failures\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
	if Worst(checks) != Warn || Worst(checks[:1]) != OK || Worst(append(checks, Check{Status: Fail})) != Fail {
		t.Error("Worst is wrong")
	}
}

func TestConfig(t *testing.T) {
	o := Options{Config: "/etc/weir/weir.yaml", ConfigErr: errors.New("weir.yaml:3: unknown key")}
	find(t, checkConfig(context.Background(), &o), "configuration", Fail, "weir.yaml:3")
}
