package credential

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Bao says where OpenBao or Vault is and how to sign in there. Empty fields come
// from the environment as the tools' own clients read it: BAO_ADDR or
// VAULT_ADDR, BAO_TOKEN or VAULT_TOKEN, else the file ~/.vault-token, BAO_CACERT
// or VAULT_CACERT, BAO_NAMESPACE or VAULT_NAMESPACE.
type Bao struct {
	Address   string
	TokenFile string // read at every fetch: an agent renews it
	CAFile    string
	Namespace string
}

// maxBaoAnswer bounds an answer, bytes: the server's own limit on a KV entry is
// 1 MiB (max_entry_size).
const maxBaoAnswer = 1<<20 + 64<<10

type baoClient struct {
	conf   Bao
	getenv func(string) (string, bool)

	mu     sync.Mutex
	client *http.Client
}

func newBaoClient(c Bao, getenv func(string) (string, bool)) *baoClient {
	return &baoClient{conf: c, getenv: getenv}
}

func (b *baoClient) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != nil {
		b.client.CloseIdleConnections()
	}
}

// setting is the configured value, else BAO_name, else VAULT_name.
func (b *baoClient) setting(configured, name string) string {
	if configured != "" {
		return configured
	}
	for _, prefix := range []string{"BAO_", "VAULT_"} {
		if v, ok := b.getenv(prefix + name); ok && v != "" {
			return v
		}
	}
	return ""
}

// get reads PATH#FIELD.
func (b *baoClient) get(ctx context.Context, ref string, now time.Time) (Secret, time.Time, error) {
	path, field, ok := strings.Cut(ref, "#")
	path = strings.Trim(path, "/")
	if !ok || path == "" || field == "" {
		return Secret{}, time.Time{}, errors.New("bao: write bao:PATH#FIELD, for example bao:secret/orders#password")
	}
	fail := func(err error) (Secret, time.Time, error) {
		return Secret{}, time.Time{}, fmt.Errorf("bao:%s#%s: %w", path, field, err)
	}
	at, v2, err := b.locate(ctx, path)
	if err != nil {
		return fail(err)
	}
	var answer struct {
		LeaseDuration int64                      `json:"lease_duration"` // seconds
		LeaseID       string                     `json:"lease_id"`
		Data          map[string]json.RawMessage `json:"data"`
	}
	if err := b.read(ctx, at, &answer); err != nil {
		return fail(err)
	}
	data := answer.Data
	if v2 {
		data = nil
		if err := json.Unmarshal(answer.Data["data"], &data); err != nil || data == nil {
			return fail(errors.New("this version of the secret is deleted or the answer is not a KV v2 one"))
		}
	}
	var value string
	raw, ok := data[field]
	if !ok {
		return fail(errors.New("the secret has no such field"))
	}
	if json.Unmarshal(raw, &value) != nil || value == "" {
		return fail(errors.New("the field is empty or not a string"))
	}
	if len(value) > maxSecret {
		return fail(fmt.Errorf("longer than %d bytes", maxSecret))
	}
	// KV v1 answers carry a lease_duration too, but it is advice to re-read, not
	// an end: only a lease has an id.
	var expires time.Time
	if answer.LeaseID != "" && answer.LeaseDuration > 0 {
		expires = now.Add(time.Duration(answer.LeaseDuration) * time.Second)
	}
	return Secret{[]byte(value)}, expires, nil
}

// locate finds the API path of a secret: on a KV v2 mount "data/" belongs
// between the mount and the rest. It asks the same end point as `bao kv get`; a
// server that does not tell us is taken at the configured path's word.
func (b *baoClient) locate(ctx context.Context, path string) (apiPath string, v2 bool, err error) {
	var mount struct {
		Data struct {
			Path    string            `json:"path"`
			Type    string            `json:"type"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	err = b.read(ctx, "sys/internal/ui/mounts/"+path, &mount)
	var status *baoStatus
	if errors.As(err, &status) && (status.code == http.StatusForbidden || status.code == http.StatusNotFound) {
		return path, strings.Contains(path, "/data/"), nil
	}
	if err != nil {
		return "", false, err
	}
	rest, ok := strings.CutPrefix(path, mount.Data.Path)
	if mount.Data.Options["version"] != "2" || !ok {
		return path, false, nil
	}
	if strings.HasPrefix(rest, "data/") {
		return path, true, nil
	}
	return mount.Data.Path + "data/" + rest, true, nil
}

type baoStatus struct{ code int }

func (e *baoStatus) Error() string {
	hint := ""
	switch e.code {
	case http.StatusForbidden:
		hint = ": the agent's token is not good for this path, or has expired"
	case http.StatusNotFound:
		hint = ": there is no such secret"
	case http.StatusServiceUnavailable:
		hint = ": it is sealed"
	}
	return "the secret server answered " + strconv.Itoa(e.code) + " " + http.StatusText(e.code) + hint
}

func (b *baoClient) read(ctx context.Context, path string, into any) error {
	base, err := url.Parse(b.setting(b.conf.Address, "ADDR"))
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return errors.New("no address of the secret server: set BAO_ADDR or VAULT_ADDR to its URL")
	}
	token, err := b.token()
	if err != nil {
		return err
	}
	client, err := b.http()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("v1", path).String(), nil)
	if err != nil {
		return errors.New("the path does not make a URL")
	}
	req.Header.Set("X-Vault-Token", token)
	req.Header.Set("X-Vault-Request", "true")
	if ns := b.setting(b.conf.Namespace, "NAMESPACE"); ns != "" {
		req.Header.Set("X-Vault-Namespace", ns)
	}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("the secret server at %s cannot be asked: %w", base.Host, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBaoAnswer))
	defer clear(body)
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer of %s: %w", base.Host, err)
	case resp.StatusCode != http.StatusOK:
		return &baoStatus{resp.StatusCode}
	case json.Unmarshal(body, into) != nil:
		return fmt.Errorf("the answer of %s is not what OpenBao or Vault sends", base.Host)
	}
	return nil
}

func (b *baoClient) token() (string, error) {
	file := b.conf.TokenFile
	if file == "" {
		if t := b.setting("", "TOKEN"); t != "" {
			return t, nil
		}
		home, _ := b.getenv("HOME")
		file = filepath.Join(home, ".vault-token")
	}
	t, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("no token for the secret server: set BAO_TOKEN or VAULT_TOKEN, or put one into %s (%w)", file, reasonOf(err))
	}
	return strings.TrimSpace(string(t)), nil
}

func (b *baoClient) http() (*http.Client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != nil {
		return b.client, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := b.setting(b.conf.CAFile, "CACERT"); ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("CA file %s: %w", ca, reasonOf(err))
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no certificate", ca)
		}
	}
	b.client = &http.Client{
		Transport: &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, MaxIdleConns: 2},
		// Following would hand the token to whoever the answer names.
		CheckRedirect: func(req *http.Request, _ []*http.Request) error {
			return fmt.Errorf("it redirects to %s: set the address to the active node", req.URL.Host)
		},
	}
	return b.client, nil
}
