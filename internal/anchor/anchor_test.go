package anchor_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/weirproxy/weir/internal/anchor"
	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/internal/seal"
	"github.com/weirproxy/weir/internal/testkit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// node is a state directory with a log.
type node struct {
	dir string
	key auditlog.PublicKey
}

// grow adds n events, and seals them.
func (d node) grow(t *testing.T, n int) {
	t.Helper()
	spool, err := audit.Open(audit.Config{StateDir: d.dir, Node: "node-a"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		text := fmt.Sprint("SELECT ", i)
		if i == 7 {
			text = strings.Repeat("x", 100_000)
		}
		ev := &auditlog.Event{Kind: auditlog.ActionEvent, Flow: "F", Action: &auditlog.Action{ID: "A", Phase: auditlog.PhaseOutcome, Text: text}}
		if err := spool.Append(t.Context(), false, ev); err != nil {
			t.Fatal(err)
		}
	}
	sealer, err := seal.Open(seal.Config{StateDir: d.dir, Spool: spool})
	if err == nil {
		err = sealer.Close()
	}
	if err == nil {
		err = spool.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newNode(t *testing.T, events int) node {
	t.Helper()
	d := node{dir: t.TempDir()}
	d.grow(t, events)
	text, err := os.ReadFile(auditlog.PublicKeyFile(d.dir))
	if err != nil {
		t.Fatal(err)
	}
	if d.key, err = auditlog.ParsePublicKey(string(text)); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d node) verify(t *testing.T) *auditlog.LogReport {
	t.Helper()
	rep, err := auditlog.VerifyLog(d.dir, d.key)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// open anchors until the test says enough.
func (d node) open(t *testing.T, c anchor.Config) (said chan string) {
	t.Helper()
	said = make(chan string, 100)
	c.StateDir, c.Key, c.Every, c.Problem = d.dir, d.key, 5*time.Millisecond, func(text string) { said <- text }
	a, err := anchor.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return said
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain: ", what)
		}
	}
}

// witness follows C2SP tlog-witness.md for one log.
type witness struct {
	log     auditlog.PublicKey
	private ed25519.PrivateKey
	key     auditlog.WitnessKey

	mu   sync.Mutex
	size uint64
	root auditlog.Hash
	down bool
}

func newWitness(t *testing.T, log auditlog.PublicKey) (*witness, string) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{log: log, private: private, key: auditlog.WitnessKey{Name: "witness.example/w1", Key: public}, root: auditlog.EmptyRoot()}
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	return w, srv.URL
}

func (w *witness) set(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	head, note, _ := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	var old uint64
	_, err := fmt.Sscanf(lines[0], "old %d", &old)
	h, noteErr := auditlog.ParseTreeHead(note, w.log.ForTiles())
	var proof []auditlog.Hash
	for _, l := range lines[1:] {
		b, _ := base64.StdEncoding.DecodeString(l)
		proof = append(proof, auditlog.Hash(b))
	}
	switch {
	case w.down:
		http.Error(rw, "away", http.StatusServiceUnavailable)
	case r.URL.Path != "/add-checkpoint" || err != nil:
		http.Error(rw, "what?", http.StatusBadRequest)
	case noteErr != nil:
		http.Error(rw, noteErr.Error(), http.StatusForbidden)
	case old != w.size:
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(http.StatusConflict)
		fmt.Fprintf(rw, "%d\n", w.size)
	case auditlog.VerifyConsistency(old, h.Size, proof, w.root, h.Root) != nil:
		http.Error(rw, "no", http.StatusUnprocessableEntity)
	default:
		w.size, w.root = h.Size, h.Root
		at := uint64(time.Now().Unix())
		sig := ed25519.Sign(w.private, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, h.Text()))
		var id uint32
		fmt.Sscanf(strings.Split(w.key.String(), "+")[1], "%08x", &id)
		raw := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, id), at)
		fmt.Fprintf(rw, "— %s %s\n", w.key.Name, base64.StdEncoding.EncodeToString(append(raw, sig...)))
	}
}

// cosigned is the size of the last head that is kept with the witness's signature.
func (d node) cosigned(t *testing.T, k auditlog.WitnessKey) uint64 {
	t.Helper()
	size := uint64(0)
	for h, err := range auditlog.AnchoredHeads(d.dir, d.key) {
		if err != nil {
			t.Fatal(err)
		}
		if at, ok := h.Cosigned(k); ok && time.Since(at) < time.Hour {
			size = h.Size
		}
	}
	return size
}

func TestWitness(t *testing.T) {
	testkit.NoLeaks(t)
	d := newNode(t, 300)
	w, url := newWitness(t, d.key)
	if k, err := auditlog.ParseWitnessKey(w.key.String()); err != nil || k.String() != w.key.String() {
		t.Fatal(k, err)
	}
	conf := anchor.Config{Witnesses: []anchor.Witness{{URL: url, Key: w.key}}}
	said := d.open(t, conf)
	until(t, "300 are cosigned", func() bool { return d.cosigned(t, w.key) == 300 })
	w.set(true)
	d.grow(t, 500)
	if text := <-said; !strings.Contains(text, "witness.example/w1") || !strings.Contains(text, "503") {
		t.Error(text)
	}
	w.set(false)
	until(t, "800 are cosigned", func() bool { return d.cosigned(t, w.key) == 800 })
	if text := <-said; text != "" {
		t.Error(text)
	}
	rep := d.verify(t)
	if !rep.Intact() || rep.Sealed.Anchored != 2 {
		t.Errorf("%+v", rep.Sealed)
	}
	// A new agent, which does not know what the witness has seen.
	d.open(t, conf)
	d.grow(t, 10)
	until(t, "810 are cosigned", func() bool { return d.cosigned(t, w.key) == 810 })

	// Another key's signature is none.
	other, _ := newWitness(t, d.key)
	other.key.Name = w.key.Name
	if d.cosigned(t, other.key) != 0 {
		t.Error("another witness's key verifies")
	}
}

// TestFork: who has root writes the history anew; the witness has seen it.
func TestFork(t *testing.T) {
	d := newNode(t, 50)
	w, url := newWitness(t, d.key)
	conf := anchor.Config{Witnesses: []anchor.Witness{{URL: url, Key: w.key}}}
	d.open(t, conf)
	until(t, "50 are cosigned", func() bool { return d.cosigned(t, w.key) == 50 })

	forged := node{dir: t.TempDir(), key: d.key}
	if err := os.CopyFS(filepath.Join(forged.dir, "keys"), os.DirFS(filepath.Join(d.dir, "keys"))); err != nil {
		t.Fatal(err)
	}
	forged.grow(t, 60)
	said := forged.open(t, conf)
	if text := <-said; !strings.Contains(text, anchor.ErrForked.Error()) {
		t.Error(text)
	}
	// With the head that was anchored, the forged log does not pass either.
	b, err := os.ReadFile(auditlog.AnchorsFile(d.dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(auditlog.AnchorsFile(forged.dir), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if rep := forged.verify(t); rep.Intact() {
		t.Error("the forged log is intact")
	}
}

// authority is a time-stamping authority on openssl ts.
type authority struct {
	dir string
	mu  sync.Mutex
	bad bool // answers with the first answer again
	old []byte
}

func newAuthority(t *testing.T) (*authority, string, *x509.CertPool) {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	conf := `[req]
distinguished_name=dn
prompt=no
[dn]
CN=Stamps
[ext]
extendedKeyUsage=critical,timeStamping
keyUsage=critical,digitalSignature
[tsa]
default_tsa=t
[t]
serial=DIR/serial
signer_cert=DIR/tsa.pem
certs=DIR/ca.pem
signer_key=DIR/tsa.key
signer_digest=sha256
default_policy=1.2.3.4.1
digests=sha256
crypto_device=builtin
`
	if err := os.WriteFile(filepath.Join(a.dir, "conf"), []byte(strings.ReplaceAll(conf, "DIR", a.dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "serial"), []byte("01\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=Root -days 2",
		"req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -config conf",
		"x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tsa.pem -days 2 -extfile conf -extensions ext",
	} {
		cmd := exec.Command("openssl", strings.Fields(args)...)
		cmd.Dir = a.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", args, err, out)
		}
	}
	pem, err := os.ReadFile(filepath.Join(a.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	return a, srv.URL, pool
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q, _ := io.ReadAll(r.Body)
	os.WriteFile(filepath.Join(a.dir, "q"), q, 0o600)
	cmd := exec.Command("openssl", "ts", "-reply", "-config", "conf", "-section", "t", "-queryfile", "q", "-out", "r")
	cmd.Dir = a.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		http.Error(w, string(out), http.StatusInternalServerError)
		return
	}
	answer, _ := os.ReadFile(filepath.Join(a.dir, "r"))
	if a.bad {
		answer = a.old
	} else {
		a.old = answer
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.Write(answer)
}

func stamps(t *testing.T, d node) (lines []anchor.Line) {
	t.Helper()
	b, err := os.ReadFile(auditlog.AnchorsFile(d.dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		var line anchor.Line
		if err := json.Unmarshal([]byte(l), &line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestStamp(t *testing.T) {
	d := newNode(t, 20)
	a, url, roots := newAuthority(t)
	d.open(t, anchor.Config{Stamper: &anchor.Stamper{URL: url, Roots: roots}, StampEvery: time.Millisecond})
	until(t, "a head is stamped", func() bool { return len(stamps(t, d)) == 1 })
	// As an auditor checks it.
	line := stamps(t, d)[0]
	dir := t.TempDir()
	for name, b := range map[string][]byte{"head": []byte(line.Note), "stamp.tsr": line.Stamp} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("openssl", "ts", "-verify", "-data", filepath.Join(dir, "head"), "-in", filepath.Join(dir, "stamp.tsr"), "-CAfile", filepath.Join(a.dir, "ca.pem")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}

	// An answer to another question, and an authority that nobody trusts.
	a.mu.Lock()
	a.bad = true
	a.mu.Unlock()
	d.grow(t, 5)
	said := d.open(t, anchor.Config{Stamper: &anchor.Stamper{URL: url, Roots: roots}, StampEvery: time.Millisecond})
	if text := <-said; !strings.Contains(text, "about something else") {
		t.Error(text)
	}
	a.mu.Lock()
	a.bad = false
	a.mu.Unlock()
	d.grow(t, 5)
	said = d.open(t, anchor.Config{Stamper: &anchor.Stamper{URL: url, Roots: x509.NewCertPool()}, StampEvery: time.Millisecond})
	if text := <-said; !strings.Contains(text, "its signature") {
		t.Error(text)
	}
}

// gateway runs versitygw with a bucket under Object Lock.
func gateway(t *testing.T) (host string, c *minio.Client) {
	t.Helper()
	binary, err := filepath.Abs("../../bin/versitygw")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	l.Close()
	dir := t.TempDir()
	for _, d := range []string{"data", "versions", "iam"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary, "--port", host, "--access", "weir", "--secret", "not-a-secret", "posix", "--versioning-dir", filepath.Join(dir, "versions"), filepath.Join(dir, "data"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: `make versitygw` builds it", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if c, err = minio.New(host, &minio.Options{Creds: credentials.NewStaticV4("weir", "not-a-secret", "")}); err != nil {
		t.Fatal(err)
	}
	until(t, "the store answers", func() bool {
		err = c.MakeBucket(t.Context(), "evidence", minio.MakeBucketOptions{ObjectLocking: true})
		return err == nil
	})
	return host, c
}

// fetch takes the newest versions out of the store, into a state directory.
func fetch(t *testing.T, c *minio.Client, prefix string) string {
	t.Helper()
	dir := t.TempDir()
	for o := range c.ListObjects(t.Context(), "evidence", minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if err := c.FGetObject(t.Context(), "evidence", o.Key, filepath.Join(dir, strings.TrimPrefix(o.Key, prefix)), minio.GetObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestStore(t *testing.T) {
	host, c := gateway(t)
	d := newNode(t, 700)
	store := &anchor.Store{Endpoint: "http://" + host, Host: host, Bucket: "evidence", Prefix: "node-a", Retain: time.Hour,
		Keys: func(context.Context) (string, string, error) { return "weir", "not-a-secret", nil }}
	said := d.open(t, anchor.Config{Store: store})
	copied := func(size int) func() bool {
		return func() bool {
			select {
			case text := <-said:
				t.Fatal(text)
			default:
			}
			b, _ := os.ReadFile(filepath.Join(d.dir, "log", "uploaded"))
			return bytes.Contains(b, fmt.Appendf(nil, `"head":%d`, size))
		}
	}
	until(t, "700 are copied", copied(700))
	d.grow(t, 400)
	until(t, "1100 are copied", copied(1100))

	// Taken to another machine it verifies, with the key alone.
	dir := fetch(t, c, "node-a/")
	rep, err := auditlog.VerifyLog(dir, d.key)
	if err != nil || !rep.Intact() || rep.Sealed.Entries != 1100 {
		t.Fatalf("%v %+v", err, rep)
	}

	// And nobody takes it back.
	name := "node-a/log/tiles/" + auditlog.BundleFile(0, auditlog.TileWidth)
	st, err := c.StatObject(t.Context(), "evidence", name, minio.StatObjectOptions{})
	if err != nil || st.Metadata.Get("X-Amz-Object-Lock-Mode") != "COMPLIANCE" {
		t.Fatal(err, st.Metadata)
	}
	if err := c.RemoveObject(t.Context(), "evidence", name, minio.RemoveObjectOptions{VersionID: st.VersionID}); err == nil {
		t.Error("a locked object was removed")
	}
}
