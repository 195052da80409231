package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, dir string, now func() time.Time) *CA {
	t.Helper()
	c, err := Open(Config{Dir: dir, Node: "node-a", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pool(t *testing.T, c *CA) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(c.Bundle()) {
		t.Fatal("the bundle holds no certificate")
	}
	return p
}

// handshake connects a client to what TLSConfig serves.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(a, server).Handshake() }()
	c := tls.Client(b, client)
	err := c.Handshake()
	if err != nil {
		b.Close()
	}
	<-done
	return c.ConnectionState(), err
}

func TestAuthorityIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	first := open(t, dir, nil)
	second := open(t, dir, nil)
	if d := cmp.Diff(string(first.Bundle()), string(second.Bundle())); d != "" {
		t.Error(d)
	}
	for file, mode := range map[string]os.FileMode{KeyFile: 0o600, CertFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("keys: %v", info.Mode())
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("%d files", len(entries))
	}
	c := first.cert
	if !c.IsCA || !c.MaxPathLenZero || c.PermittedDNSDomains != nil || c.Subject.CommonName != "Weir CA node-a" || !first.Expires().After(time.Now().Add(9*365*24*time.Hour)) {
		t.Errorf("authority %+v", c.Subject)
	}
}

func TestInterruptedStart(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir, nil)
	if err := os.Remove(filepath.Join(dir, CertFile)); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir, nil)
	if !second.key.Equal(first.key) {
		t.Error("a key was thrown away")
	}
	if err := os.Remove(filepath.Join(dir, KeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "without its key") {
		t.Errorf("certificate without key: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	other := t.TempDir()
	open(t, other, nil)
	for name, damage := range map[string]func(dir string) error{
		"key is garbage":       func(d string) error { return os.WriteFile(filepath.Join(d, KeyFile), []byte("x"), 0o600) },
		"certificate is empty": func(d string) error { return os.Truncate(filepath.Join(d, CertFile), 0) },
		"other key":            func(d string) error { return os.Rename(filepath.Join(other, KeyFile), filepath.Join(d, KeyFile)) },
	} {
		dir := t.TempDir()
		open(t, dir, nil)
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: dir}); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestTwoStartsAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := Open(Config{Dir: dir})
			if err == nil && !c.key.PublicKey.Equal(c.cert.PublicKey) {
				t.Error("key and certificate of different authorities")
			}
		})
	}
	wg.Wait()
	open(t, dir, nil)
}

func TestLeaf(t *testing.T) {
	c := open(t, t.TempDir(), nil)
	server := c.TLSConfig(Server{Destination: netip.MustParseAddr("::ffff:10.1.2.3"), Names: []string{"Orders.db.internal", "10.1.2.4"}, ALPN: []string{"postgresql"}})
	for name, works := range map[string]bool{
		"orders.db.internal": true, "whatever.example.com": true, "10.1.2.3": true, "10.1.2.4": false,
	} {
		state, err := handshake(t, server, &tls.Config{RootCAs: pool(t, c), ServerName: name, NextProtos: []string{"postgresql"}})
		if (err == nil) != works {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			continue
		}
		leaf := state.PeerCertificates[0]
		if state.NegotiatedProtocol != "postgresql" || leaf.IsCA || leaf.NotAfter.Sub(leaf.NotBefore) > leafLife+skew {
			t.Errorf("%s: %q, %v to %v", name, state.NegotiatedProtocol, leaf.NotBefore, leaf.NotAfter)
		}
	}
	if _, err := handshake(t, server, &tls.Config{RootCAs: pool(t, open(t, t.TempDir(), nil)), ServerName: "orders.db.internal"}); err == nil {
		t.Error("a client of another authority took it")
	}
	if _, err := handshake(t, server, &tls.Config{RootCAs: pool(t, c), ServerName: "x.example.com", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 was spoken")
	}
	v6 := c.TLSConfig(Server{Destination: netip.MustParseAddr("fe80::1%eth0")})
	if _, err := handshake(t, v6, &tls.Config{RootCAs: pool(t, c), ServerName: "fe80::1"}); err != nil {
		t.Errorf("IPv6 without SNI: %v", err)
	}
}

// TestOpenSSL has another implementation verify a leaf.
func TestOpenSSL(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, nil)
	cert, err := c.leaf(netip.MustParseAddr("10.1.2.3"), nil, "orders.db.internal")
	if err != nil {
		t.Fatal(err)
	}
	leafFile := filepath.Join(dir, "leaf.der")
	if err := os.WriteFile(leafFile, cert.Certificate[0], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-verify_hostname", "orders.db.internal"}, {"-verify_ip", "10.1.2.3"}} {
		args = append([]string{"verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", filepath.Join(dir, CertFile)}, append(args, leafFile)...)
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Errorf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	bad := []string{"verify", "-CAfile", filepath.Join(dir, CertFile), "-verify_hostname", "other.example.com", leafFile}
	if exec.Command("openssl", bad...).Run() == nil {
		t.Error("openssl took another name")
	}
}

func TestLeavesAreReusedRenewedAndBounded(t *testing.T) {
	now := time.Now()
	c := open(t, t.TempDir(), func() time.Time { return now })
	addr := netip.MustParseAddr("10.0.0.1")
	get := func(sni string) *tls.Certificate {
		t.Helper()
		cert, err := c.leaf(addr, nil, sni)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first := get("a.example.com")
	if get("A.example.com.") != first {
		t.Error("not reused")
	}
	now = now.Add(leafLife - renewBefore - time.Minute)
	if get("a.example.com") != first {
		t.Error("renewed too early")
	}
	now = now.Add(2 * time.Minute)
	second := get("a.example.com")
	if second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("not renewed")
	}
	for i := range maxLeaves + 50 {
		get(fmt.Sprintf("h%d.example.com", i))
		get("a.example.com")
	}
	if n := c.leaves.order.Len(); n != maxLeaves || len(c.leaves.byKey) != n {
		t.Errorf("%d and %d leaves kept", n, len(c.leaves.byKey))
	}
	if get("a.example.com") != second {
		t.Error("the leaf in use was dropped")
	}
	now = c.cert.NotAfter.Add(-time.Hour)
	if end := get("a.example.com").Leaf.NotAfter; end.After(c.cert.NotAfter) {
		t.Errorf("a leaf ends %v, its authority %v", end, c.cert.NotAfter)
	}
}

func FuzzHostName(f *testing.F) {
	f.Add("orders.db.internal")
	f.Add("*.example.com")
	f.Add("-a.b\x00c")
	c, err := Open(Config{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sni string) {
		cert, err := c.leaf(netip.MustParseAddr("10.0.0.1"), nil, sni)
		if err != nil {
			t.Fatalf("%q: %v", sni, err)
		}
		for _, n := range cert.Leaf.DNSNames {
			if strings.ContainsAny(n, "*/ \x00") || len(n) > 253 {
				t.Fatalf("%q gave %q", sni, n)
			}
		}
	})
}

func TestInstall(t *testing.T) {
	ctx := context.Background()
	c := open(t, t.TempDir(), nil)
	dir := t.TempDir()
	mark := filepath.Join(t.TempDir(), "updated")
	s := Store{Dir: dir, Update: []string{"sh", "-c", "cat " + dir + "/*.crt > " + mark + ".crt; echo x >> " + mark}, Bundle: mark + ".crt"}
	if s.Trusts(c.Bundle()) {
		t.Error("trusted before it is installed")
	}
	for range 2 {
		file, err := s.Install(ctx, "node/../a", c.Bundle())
		if err != nil || file != filepath.Join(dir, "weir-node_.._a.crt") {
			t.Fatal(file, err)
		}
	}
	if !s.Trusts(c.Bundle()) || s.Trusts(open(t, t.TempDir(), nil).Bundle()) {
		t.Error("Trusts is wrong")
	}
	if b, _ := os.ReadFile(mark); string(b) != "x\n" {
		t.Errorf("the update ran %q", b)
	}
	if _, err := s.Install(ctx, "node-a", []byte("not a certificate")); err == nil {
		t.Error("garbage was installed")
	}
	for range 2 {
		if err := s.Uninstall(ctx, "node/../a"); err != nil {
			t.Fatal(err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
	s.Update = []string{"sh", "-c", "echo broken store; exit 1"}
	if _, err := s.Install(ctx, "n", c.Bundle()); err == nil || !strings.Contains(err.Error(), "broken store") {
		t.Errorf("a failing update: %v", err)
	}
	if _, err := Folder(dir).Install(ctx, "m", c.Bundle()); err != nil {
		t.Error(err)
	}
	if _, err := Folder(filepath.Join(dir, "missing")).Install(ctx, "m", c.Bundle()); err == nil {
		t.Error("installed into nowhere")
	}
}

// TestSystemStore does not change this machine's trust store: it lets Debian's
// own tool work on a copy of the layout.
func TestSystemStore(t *testing.T) {
	s, err := System()
	if errors.Is(err, ErrNoStore) {
		t.Skip("not supported: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	local, etc := t.TempDir(), t.TempDir()
	conf := filepath.Join(t.TempDir(), "ca-certificates.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Update = append(s.Update, "--certsconf", conf, "--localcertsdir", local, "--etccertsdir", etc, "--hooksdir", t.TempDir())
	s.Dir, s.Bundle = local, filepath.Join(etc, "ca-certificates.crt")
	c := open(t, t.TempDir(), nil)
	for node, bundle := range map[string][]byte{"node-a": c.Bundle(), "node-b": open(t, t.TempDir(), nil).Bundle()} {
		if _, err := s.Install(context.Background(), node, bundle); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Trusts(c.Bundle()) {
		t.Error("update-ca-certificates did not take it")
	}
	if err := s.Uninstall(context.Background(), "node-a"); err != nil || s.Trusts(c.Bundle()) {
		t.Errorf("still trusted; %v", err)
	}
	if _, err := os.Lstat(filepath.Join(etc, "weir-node-a.pem")); err == nil {
		t.Error("a dead link is left")
	}
}

func BenchmarkLeaf(b *testing.B) {
	c, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.issue(netip.MustParseAddr("10.0.0.1"), []string{"a.example.com"}); err != nil {
			b.Fatal(err)
		}
	}
}
