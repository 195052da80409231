package config

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/strictyaml"
)

var update = flag.Bool("update", false, "write the golden files")

// The example holds every key, so that it documents all of them.
func TestExample(t *testing.T) {
	c, err := Load("../../deploy/weir.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Backends) != 6 || c.Backends[0].Names()[0] != "orders.db.internal" || c.Backends[0].Protocol != flow.Postgres ||
		time.Duration(c.Audit.Retention) != 400*24*time.Hour || c.Identity.Issuers[1].Kind != flow.CI ||
		c.Identity.Issuers[1].Audiences[0] != "weir-ci" {
		t.Errorf("%+v", c)
	}
	data, _ := os.ReadFile("../../deploy/weir.example.yaml")
	text := string(data)
	var walk func(reflect.Type)
	walk = func(ty reflect.Type) {
		for ty.Kind() == reflect.Slice || ty.Kind() == reflect.Pointer {
			ty = ty.Elem()
		}
		if ty.Kind() != reflect.Struct {
			return
		}
		for i := range ty.NumField() {
			f := ty.Field(i)
			if key := f.Tag.Get("yaml"); key != "" {
				if !strings.Contains(text, key+":") && key != "namespace" {
					t.Errorf("the example does not show %s", key)
				}
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}

func TestDefaults(t *testing.T) {
	c, err := Parse([]byte("backends:\n  - {name: db, protocol: postgres, addresses: ['DB.Internal.:5432'], tls: {ca_file: /ca}, credentials: [{username: u}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	want := &Config{
		Node: host, StateDir: DefaultStateDir, RunDir: DefaultRunDir,
		Intercept: Intercept{Mode: Enforce, BPFFS: DefaultBPFFS, ProxyPort: DefaultProxyPort},
		Backends: []Backend{{Name: "db", Protocol: flow.Postgres, Addresses: []Address{{Host: "db.internal", Port: 5432}},
			TLS: TLS{Mode: TLSVerifyFull, CAFile: "/ca"}, Credentials: []Credential{{Username: "u"}}}},
		PolicyFiles: []string{DefaultPolicyFile},
		Approvals:   Approvals{Timeout: Duration(15 * time.Minute)},
		Audit:       Audit{Durability: DurabilityProcess, Retention: Duration(400 * 24 * time.Hour)},
		Console:     Console{Listen: DefaultConsole, URL: "http://" + DefaultConsole},
	}
	if diff := cmp.Diff(want, c, cmp.Comparer(func(a, b Address) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if _, err := Parse(nil); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:5432": "", "10.1.0.0/16:5432": "", "orders.db.internal:5432": "", "[fd00::]/64:5432": "", "[fd00::1]:5432": "",
		"DB:1": "db:1", "db.:1": "db:1", "[::ffff:10.0.0.1]:22": "10.0.0.1:22", "[::ffff:10.0.0.0]/104:22": "10.0.0.0/8:22",
		"0.0.0.0/0:22": "", "[::]/0:22": "", "my_db-1:65535": "", "10.0.0.1/32:5": "10.0.0.1:5",
	} {
		var a Address
		if want == "" {
			want = text
		}
		if err := a.ParseScalar(text); err != nil || a.String() != want {
			t.Errorf("%s: %v %v", text, a, err)
		}
	}
	for _, text := range []string{
		"", "db", "db:", ":5432", "db:0", "db:65536", "db:x", "db:+5", "db:-5", "10.1.2.3/16:5432", "fd00::1:5432", "[fd00::/64]:5432", "[fd00::1:5432",
		"[10.0.0.1]:5", "[fe80::1%eth0]:5", "10.0.0:5", "10.0.0.256:5", "10.0.0.0/33:5", "0.0.0.0:5", "[::]:5", "a..b:5", "-a:5", "a b:5", "*:5",
		"[::ffff:0:0]/64:5", "http://db:5", strings.Repeat("a", 64) + ":5", "[fd00::]/129:5", "db/24:5", "[]:5", "[",
	} {
		var a Address
		err := a.ParseScalar(text)
		var fix *strictyaml.FixError
		if !errors.As(err, &fix) || fix.Fix == "" {
			t.Errorf("%q: %v %v", text, a, err)
		}
	}
}

// Everything that is wrong is reported at once, with its line, and no value that
// may be a secret is repeated.
func TestErrors(t *testing.T) {
	const secret = "hunter2"
	text := `node: "a b"
stat_dir: /x
state_dir: var/lib
run_dir: /` + strings.Repeat("r", 100) + `
intercept: {mode: watch, cgroups: [a, /b, /b], bpffs: x, proxy_port: 0}
identity:
  issuers:
    - {issuer: "http://idp.example.com", client_id: a, kind: robot}
    - {issuer: "http://127.0.0.1:5556/dex", audiences: []}
    - {issuer: "https://u:hunter2@idp.example.com?x", client_id: a}
    - {issuer: "http://127.0.0.1:5556/dex", client_id: b, client_secret: ""}
    - {client_id: a, ca_file: ca.pem}
    - {issuer: "https://a.example.com", audiences: [a], client_secret: "exec: "}
    - {issuer: "https://b.example.com", client_id: b, kind: ci, client_secret: hunter2}
backends:
  - name: orders
    protocol: postgres
    addresses: ["10.1.2.3/16:5432", "db:5432", "DB:5432", "127.0.0.1:15001"]
    dial: nowhere
    tls: {mode: sometimes}
    credentials:
      - {username: u, password: hunter2, bearer_token: "file:/x"}
      - {groups: [], username: u, password: "file:relative"}
      - {groups: [a], password: "exec: "}
  - name: orders
    protocol: postgress
    addresses: ["10.1.0.0/16:5432", "db:5432"]
    tls: {mode: disable, ca_file: /x}
  - name: "a b"
    addresses: []
  - {protocol: kubernetes, addresses: ["k:443"], credentials: [{headers: {"X Y": hunter2, Z: "env:1"}, username: u}]}
  - {name: s, protocol: ssh, addresses: ["s:22"], credentials: [{username: u, private_key: "bao:hunter2", password: ""}]}
policy_files: []
approvals:
  timeout: 0s
  notify:
    - {webhook: "http://hooks.example.com/hunter2"}
    - {slack: {app_token: hunter2}, secret: "env:A"}
    - {}
    - {slack: {app_token: "env:A", bot_token: "env:B", channel: c, api_url: "http://slack.example.com/hunter2?hunter2"}, details: true}
audit: {durability: fsync, seal_to: [hunter2], retention: forever, otlp: {endpoint: "grpc://x", headers: {"a b": c}}}
hub: {join: "nats://u:hunter2@x", credentials: c}
console: {listen: "7443"}
secrets: {age_identities: [""], bao: {address: x, token_file: t, ca_file: c}}
`
	path := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if err == nil {
		t.Fatal("it is taken")
	}
	got := strings.ReplaceAll(err.Error(), path, "weir.yaml") + "\n"
	if strings.Contains(got, secret) {
		t.Error("an error repeats a secret")
	}
	if *update {
		if err := os.WriteFile("testdata/errors.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, _ := os.ReadFile("testdata/errors.txt")
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestDump(t *testing.T) {
	const secret = "hunter2"
	c, err := Parse([]byte(`
identity: {issuers: [{issuer: "https://idp.example.com", client_id: weir, client_secret: "exec:/bin/get oidc hunter2"}]}
backends:
  - name: w
    protocol: http
    addresses: ["w:443", "10.0.0.0/8:80"]
    credentials: [{bearer_token: "exec:/bin/get hunter2", headers: {X-Key: "env:KEY"}}]
approvals:
  notify:
    - {webhook: "https://hooks.example.com/hunter2?x=hunter2", secret: "file:/s", details: true}
    - {slack: {app_token: "exec:/bin/get hunter2", bot_token: env:B, channel: c, api_url: "https://proxy.example.com/hunter2/"}}
audit: {otlp: {endpoint: "http://x:4318", headers: {Authorization: hunter2}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Dump()
	if err != nil {
		t.Fatal(err)
	}
	js, _ := json.Marshal(c.Redacted())
	if strings.Contains(string(out)+string(js), secret) {
		t.Errorf("the dump holds a secret:\n%s", out)
	}
	for _, want := range []string{"env:KEY", "exec:***", "https://hooks.example.com/***", "file:/s", "400d", "10.0.0.0/8:80", "proxy_port: 15001",
		"client_secret: exec:***", "details: true", "api_url: https://proxy.example.com/***"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the dump lacks %s:\n%s", want, out)
		}
	}
	if c.Backends[0].Credentials[0].BearerToken != "exec:/bin/get hunter2" || c.Audit.OTLP.Headers["Authorization"] != secret ||
		c.Identity.Issuers[0].ClientSecret != "exec:/bin/get oidc hunter2" {
		t.Error("redacting changed the configuration")
	}
}

func FuzzParse(f *testing.F) {
	data, err := os.ReadFile("../../deploy/weir.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("backends: [{name: a, protocol: tcp, addresses: ['[::1]/128:1']}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			return
		}
		for _, b := range c.Backends {
			for _, a := range b.Addresses {
				var again Address
				if err := again.ParseScalar(a.String()); err != nil || again != a {
					t.Fatalf("%v does not read back: %v %v", a, again, err)
				}
			}
		}
		if _, err := c.Dump(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestConsole(t *testing.T) {
	const minimal = "backends:\n  - {name: db, protocol: postgres, addresses: ['db:5432'], credentials: [{username: u}]}\n"
	for text, want := range map[string]Console{
		`{listen: ""}`:           {},
		`{listen: "0.0.0.0:80"}`: {Listen: "0.0.0.0:80", URL: "http://127.0.0.1:80"},
		`{listen: "[::1]:80"}`:   {Listen: "[::1]:80", URL: "http://[::1]:80"},
		`{listen: "127.0.0.1:80", url: "https://weir.example"}`: {Listen: "127.0.0.1:80", URL: "https://weir.example"},
	} {
		c, err := Parse([]byte(minimal + "console: " + text + "\n"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if c.Console != want {
			t.Errorf("%s: %+v", text, c.Console)
		}
	}
	for _, url := range []string{"weir.example", "ftp://weir.example", "https://weir.example/x", "https://a:b@weir.example", "https://weir.example?q"} {
		if _, err := Parse([]byte(minimal + "console: {url: \"" + url + "\"}\n")); err == nil {
			t.Errorf("%s: no error", url)
		}
	}
}
