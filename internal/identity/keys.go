package identity

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// algorithms are the signatures that count: asymmetric ones only. With HMAC in
// the list, whoever holds a provider's public key could sign (RFC 8725, 2.1).
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

const (
	// refreshAfter is how old keys may be before the provider is asked again;
	// a key that it withdrew is believed no longer than this while it answers.
	refreshAfter = 10 * time.Minute
	// retryAfter is the pause after a failed refresh of keys that still serve.
	retryAfter = time.Minute
	// maxKeyAge ends the belief in keys of a provider that never answers: who
	// can cut it off must not keep a withdrawn key alive for ever.
	maxKeyAge = 7 * 24 * time.Hour
	// fetchBurst and fetchEvery bound the requests that unknown key ids cause.
	fetchBurst = 5
	fetchEvery = 10 * time.Second
	// minRSABits: RFC 7518, 3.3. maxRSABits is OpenSSL's bound
	// (OPENSSL_RSA_MAX_MODULUS_BITS): beyond it a signature costs too much to check.
	minRSABits = 2048
	maxRSABits = 16384
)

// keySet holds one provider's public keys, in memory and on disk, and fetches
// them when they are old or a key id is new.
type keySet struct {
	issuer string
	client *http.Client
	file   string // "" for none
	now    func() time.Time
	log    *slog.Logger

	mu      sync.Mutex // held while fetching: one request at a time
	cached  keyFile
	parsed  []jose.JSONWebKey
	failed  time.Time // last failed fetch
	tokens  float64   // bucket of fetches: fetchBurst, one more each fetchEvery
	counted time.Time
}

// keyFile is the form on disk. It holds public keys only.
type keyFile struct {
	Issuer  string            `json:"issuer"`
	JWKSURI string            `json:"jwks_uri"`
	Fetched time.Time         `json:"fetched"`
	Keys    []json.RawMessage `json:"keys"`
}

// newKeySet reads what is cached; it asks nobody.
func newKeySet(issuer string, client *http.Client, dir string, now func() time.Time, log *slog.Logger) *keySet {
	k := &keySet{issuer: issuer, client: client, now: now, log: log, tokens: fetchBurst, counted: now()}
	if dir == "" {
		return k
	}
	sum := sha256.Sum256([]byte(issuer))
	k.file = filepath.Join(dir, hex.EncodeToString(sum[:16])+".json")
	data, err := os.ReadFile(k.file)
	if err != nil {
		return k // nothing cached
	}
	var f keyFile
	if json.Unmarshal(data, &f) == nil && f.Issuer == issuer && !f.Fetched.After(now()) {
		if parsed := parseKeys(f.Keys); len(parsed) > 0 {
			k.cached, k.parsed = f, parsed
		}
	}
	return k
}

// VerifySignature checks a compact JWS and returns its payload. It is go-oidc's
// KeySet.
func (k *keySet) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	payload, _, err := k.verifySignature(ctx, raw)
	return payload, err
}

// verifiedBy is what a signature was verified with.
type verifiedBy struct {
	key jose.JSONWebKey
	set []json.RawMessage // all keys that were believed then
}

func (k *keySet) verifySignature(ctx context.Context, raw string) ([]byte, verifiedBy, error) {
	jws, err := parseJWS(raw)
	if err != nil {
		return nil, verifiedBy{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var fetchErr error
	if k.wantsRefresh() {
		fetchErr = k.fetch(ctx)
	}
	if payload, key, err := verifyWith(k.believed(), k.issuer, jws); err == nil {
		return payload, verifiedBy{key, k.cached.Keys}, nil
	}
	// A key that is new, or replaced under its old id: ask, within bounds.
	if fetchErr == nil {
		if k.take() {
			fetchErr = k.fetch(ctx)
		} else {
			fetchErr = fmt.Errorf("it was asked too often: try again in %s", fetchEvery)
		}
	}
	payload, key, err := verifyWith(k.believed(), k.issuer, jws)
	switch {
	case err == nil:
		return payload, verifiedBy{key, k.cached.Keys}, nil
	case len(k.believed()) == 0 && fetchErr != nil:
		return nil, verifiedBy{}, fmt.Errorf("%w: %s: its signing keys are not known here: %w", ErrProvider, k.issuer, fetchErr)
	case fetchErr != nil:
		return nil, verifiedBy{}, fmt.Errorf("%w (newer keys of the provider were not to be had: %w)", err, fetchErr)
	}
	return nil, verifiedBy{}, err
}

func parseJWS(raw string) (*jose.JSONWebSignature, error) {
	jws, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, fmt.Errorf("%w: it is no JWT with one signature by an accepted algorithm", ErrToken)
	}
	return jws, nil
}

// verifyWith tries the keys that fit the token's key id and algorithm, and returns
// the one that verified it.
func verifyWith(keys []jose.JSONWebKey, issuer string, jws *jose.JSONWebSignature) ([]byte, jose.JSONWebKey, error) {
	header := jws.Signatures[0].Protected
	fits := 0
	for _, key := range keys {
		if header.KeyID != "" && key.KeyID != "" && key.KeyID != header.KeyID {
			continue
		}
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		fits++
		if payload, err := jws.Verify(key.Key); err == nil {
			return payload, key, nil
		}
	}
	if fits == 0 {
		return nil, jose.JSONWebKey{}, fmt.Errorf("%w: the key that signed it is none of issuer %s", ErrToken, issuer)
	}
	return nil, jose.JSONWebKey{}, fmt.Errorf("%w: its signature is not one of issuer %s", ErrToken, issuer)
}

func (k *keySet) believed() []jose.JSONWebKey {
	if k.now().Sub(k.cached.Fetched) > maxKeyAge {
		return nil
	}
	return k.parsed
}

// wantsRefresh: the keys serve but are old, and the last failure is some time ago.
func (k *keySet) wantsRefresh() bool {
	return len(k.parsed) > 0 && k.now().Sub(k.cached.Fetched) > refreshAfter && k.now().Sub(k.failed) > retryAfter
}

// take asks the bucket for one fetch.
func (k *keySet) take() bool {
	now := k.now()
	k.tokens = min(fetchBurst, k.tokens+float64(now.Sub(k.counted))/float64(fetchEvery))
	k.counted = now
	if k.tokens < 1 {
		return false
	}
	k.tokens--
	return true
}

// fetch asks the provider for its keys and keeps them, also on disk.
// It takes its own time: a caller that hangs up must not spoil it for the next.
func (k *keySet) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpTimeout)
	defer cancel()
	f, parsed, err := k.download(ctx)
	if err != nil {
		k.failed = k.now()
		k.log.Warn("identity provider did not give its keys", "issuer", k.issuer, "error", err, "known_keys", len(k.believed()))
		return err
	}
	k.cached, k.parsed, k.failed = f, parsed, time.Time{}
	if k.file == "" {
		return nil
	}
	data, err := json.Marshal(f)
	if err == nil {
		err = writeFile(k.file, data)
	}
	if err != nil { // the keys serve; only a restart without the provider would miss them
		k.log.Error("cannot keep the identity provider's keys on disk", "file", k.file, "error", err)
	}
	return nil
}

func (k *keySet) download(ctx context.Context) (keyFile, []jose.JSONWebKey, error) {
	uri, err := k.discover(ctx)
	if err != nil {
		// A provider may serve its keys while its front page is broken.
		if uri = k.cached.JWKSURI; uri == "" {
			return keyFile{}, nil, err
		}
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := getJSON(ctx, k.client, uri, &set); err != nil {
		return keyFile{}, nil, err
	}
	public := slices.DeleteFunc(set.Keys, func(raw json.RawMessage) bool { return len(parseKeys([]json.RawMessage{raw})) == 0 })
	if len(public) == 0 {
		return keyFile{}, nil, fmt.Errorf("%s holds no usable signing key", uri)
	}
	return keyFile{Issuer: k.issuer, JWKSURI: uri, Fetched: k.now().UTC(), Keys: public}, parseKeys(public), nil
}

// discover reads the provider's metadata (OpenID Connect Discovery 1.0, 4);
// go-oidc checks that it names this very issuer.
func (k *keySet) discover(ctx context.Context) (string, error) {
	p, err := oidc.NewProvider(oidc.ClientContext(ctx, k.client), k.issuer)
	if err != nil {
		return "", brief(err)
	}
	var meta struct {
		JWKSURI string `json:"jwks_uri"`
	}
	if err := p.Claims(&meta); err != nil {
		return "", brief(err)
	}
	return meta.JWKSURI, checkURL(meta.JWKSURI)
}

// parseKeys keeps the keys that can verify signatures: public, strong enough,
// and not meant for encryption. One bad key does not spoil the others.
func parseKeys(raw []json.RawMessage) []jose.JSONWebKey {
	var keys []jose.JSONWebKey
	for _, r := range raw {
		var key jose.JSONWebKey
		if json.Unmarshal(r, &key) != nil || !key.Valid() || !key.IsPublic() {
			continue
		}
		if key.Use != "" && key.Use != "sig" {
			continue
		}
		if pub, ok := key.Key.(*rsa.PublicKey); ok && (pub.N.BitLen() < minRSABits || pub.N.BitLen() > maxRSABits) {
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

func getJSON(ctx context.Context, client *http.Client, uri string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return brief(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", uri, resp.Status)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return brief(err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("GET %s: the answer is not the expected JSON", uri)
	}
	return nil
}

// brief keeps an error of the HTTP client to one bounded line: go-oidc puts the
// body of an answer into its errors.
func brief(err error) error {
	const limit = 300
	text := err.Error()
	if len(text) <= limit {
		return errors.New(oneLine(text))
	}
	return errors.New(oneLine(text[:limit]) + "...")
}
