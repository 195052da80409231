package testkit

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is an identity provider inside the test, for tokens that Dex would
// never make: real HTTP, real signatures, any claims. It can change its keys and
// be taken down.
type Issuer struct {
	URL string // its "iss"

	t      testing.TB
	server *http.Server
	served chan struct{}

	mu       sync.Mutex
	key      *rsa.PrivateKey
	kid      string
	keys     []jose.JSONWebKey // what it publishes
	requests int               // for its keys
}

// IssuerAudience is the audience of tokens that name none.
const IssuerAudience = "weir"

// NewIssuer starts an issuer with one key.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{t: t}
	i.RotateKey()
	i.up("127.0.0.1:0")
	t.Cleanup(i.Down)
	return i
}

func (i *Issuer) up(address string) {
	i.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		i.t.Fatal(err)
	}
	i.URL = "http://" + l.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.answer(w, map[string]any{
			"issuer": i.URL, "jwks_uri": i.URL + "/keys",
			"authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		i.requests++
		set := jose.JSONWebKeySet{Keys: i.keys}
		i.mu.Unlock()
		i.answer(w, set)
	})
	i.server, i.served = &http.Server{Handler: mux, ReadHeaderTimeout: settle}, make(chan struct{})
	go func(server *http.Server, served chan struct{}) {
		defer close(served)
		_ = server.Serve(l) // until Down
	}(i.server, i.served)
}

func (i *Issuer) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		i.t.Logf("issuer: %v", err) // the client has gone
	}
}

// Down takes the issuer off the network; Up brings it back at the same address.
func (i *Issuer) Down() {
	if i.server == nil {
		return
	}
	i.server.Close()
	<-i.served
	i.server = nil
}

// Up brings the issuer back.
func (i *Issuer) Up() {
	i.t.Helper()
	i.up(i.URL[len("http://"):])
}

// RotateKey signs with a new key from now on and publishes only that one.
func (i *Issuer) RotateKey() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		i.t.Fatal(err)
	}
	i.SetKey(key, rand.Text())
}

// SetKey is RotateKey with a given key and key id.
func (i *Issuer) SetKey(key *rsa.PrivateKey, kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key, i.kid = key, kid
	i.keys = []jose.JSONWebKey{{Key: key.Public(), KeyID: kid, Algorithm: "RS256", Use: "sig"}}
}

// Publish adds a key to the published ones without signing with it.
func (i *Issuer) Publish(key jose.JSONWebKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, key)
}

// Key returns the signing key and its id.
func (i *Issuer) Key() (*rsa.PrivateKey, string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.key, i.kid
}

// KeyRequests counts how often the keys were asked for.
func (i *Issuer) KeyRequests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests
}

// Token signs claims. iss, sub, aud (IssuerAudience), iat and exp (in 5 minutes)
// are filled in where missing; a nil value leaves a claim out.
func (i *Issuer) Token(claims map[string]any) string {
	i.t.Helper()
	key, kid := i.Key()
	return i.Sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, "JWT", claims)
}

// Sign is Token with another key, algorithm and type.
func (i *Issuer) Sign(with jose.SigningKey, typ jose.ContentType, claims map[string]any) string {
	i.t.Helper()
	now := time.Now()
	all := map[string]any{
		"iss": i.URL, "sub": "subject-1", "aud": IssuerAudience,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	raw, err := signCompact(with, typ, all)
	if err != nil {
		i.t.Fatal(err)
	}
	return raw
}

func signCompact(with jose.SigningKey, typ jose.ContentType, claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	options := &jose.SignerOptions{}
	if typ != "" {
		options = options.WithType(typ)
	}
	signer, err := jose.NewSigner(with, options)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return jws.CompactSerialize()
}
