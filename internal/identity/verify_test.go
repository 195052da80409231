package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/testkit"
)

// clock is a time that a test moves.
type clock struct{ offset time.Duration }

func (c *clock) now() time.Time { return time.Now().Add(c.offset) }

func newTestVerifier(t *testing.T, dir string, now func() time.Time, issuers ...Issuer) *Verifier {
	t.Helper()
	v, err := NewVerifier(VerifierConfig{Issuers: issuers, CacheDir: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerifyMakesAPrincipal(t *testing.T) {
	idp := testkit.NewIssuer(t)
	v := newTestVerifier(t, "", nil, Issuer{Issuer: idp.URL, ClientID: "weir", Kind: flow.Agent})
	expires := time.Now().Add(time.Minute).UTC().Truncate(time.Second)
	raw := idp.Token(map[string]any{
		"sub": "id-ann", "email": "ann@example.com", "email_verified": true, "exp": expires.Unix(),
		"groups": []string{"developer", "sre", "developer"}, "jti": "t-1", "aud": []string{"other", "weir"},
		"act": map[string]any{"sub": "agent-7", "iss": "https://agents.example.com", "act": map[string]any{"sub": "scheduler"}},
	})
	got, err := v.Verify(context.Background(), " "+raw+"\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Claims["sub"] != "id-ann" {
		t.Errorf("claims: %v", got.Claims)
	}
	got.Claims = nil
	want := &flow.Principal{
		Issuer: idp.URL, Subject: "id-ann", User: "ann@example.com", Groups: []string{"developer", "sre"},
		Kind: flow.Agent, TokenID: "t-1", Expires: expires,
		Actor: &flow.Actor{Issuer: "https://agents.example.com", Subject: "agent-7", User: "agent-7",
			Actor: &flow.Actor{Subject: "scheduler", User: "scheduler"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTokenWithoutJTIIsNamedByItsDigest(t *testing.T) {
	idp := testkit.NewIssuer(t)
	v := newTestVerifier(t, "", nil, Issuer{Issuer: idp.URL, ClientID: "weir"})
	raw := idp.Token(nil)
	p, err := v.Verify(context.Background(), raw)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(raw))
	if want := "sha256:" + hex.EncodeToString(sum[:]); p.TokenID != want {
		t.Errorf("token id %q, want %q", p.TokenID, want)
	}
}

// Every token here must be refused, and for its own reason. None of the errors
// may repeat the token.
func TestVerifyRefuses(t *testing.T) {
	idp, stranger := testkit.NewIssuer(t), testkit.NewIssuer(t)
	v := newTestVerifier(t, "", nil, Issuer{Issuer: idp.URL, ClientID: "weir"})
	key, kid := idp.Key()
	publicDER, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})
	otherRSA := must(rsa.GenerateKey(rand.Reader, 2048))
	otherEC := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	sign := func(alg jose.SignatureAlgorithm, with any, typ jose.ContentType) string {
		return idp.Sign(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: with, KeyID: kid}}, typ, nil)
	}
	part := func(v any) string {
		data, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(data)
	}
	good := idp.Token(nil)
	p := strings.Split(good, ".")
	now := time.Now()
	deep := map[string]any{"sub": "x"}
	for range maxActorDepth {
		deep = map[string]any{"sub": "x", "act": deep}
	}
	cases := []struct{ name, raw, want string }{
		{"empty", "", "empty"},
		{"no jwt", "secret-opaque-token", "not a JWT"},
		{"huge", strings.Repeat("a", MaxToken+1), "longer"},
		{"jwe", "a.b.c.d.e", "encrypted"},
		{"not base64", "ab!.cd!.ef!", "base64url"},
		{"alg none", part(map[string]string{"alg": "none"}) + "." + p[1] + ".", `signed with "none"`},
		{"alg None", part(map[string]string{"alg": "nOnE"}) + "." + p[1] + ".", "signed with"},
		{"hs256 with the public key as PEM", sign(jose.HS256, publicPEM, "JWT"), `signed with "HS256"`},
		{"hs256 with the public key as DER", sign(jose.HS256, publicDER, "JWT"), `signed with "HS256"`},
		{"another RSA key under the same id", sign(jose.RS256, otherRSA, "JWT"), "signature"},
		{"EC under an RSA key's id", sign(jose.ES256, otherEC, "JWT"), "key that signed it"},
		{"unknown key id", idp.Sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: otherRSA, KeyID: "no"}}, "JWT", nil), "key that signed it"},
		{"key that the token brings along", embedJWK(t, idp, otherRSA), "signature"},
		{"payload swapped", p[0] + "." + part(map[string]any{"iss": idp.URL, "sub": "root", "aud": "weir", "exp": now.Add(time.Hour).Unix()}) + "." + p[2], "signature"},
		{"signature cut", p[0] + "." + p[1] + "." + p[2][:20], "signature"},
		{"logout token", sign(jose.RS256, key, "logout+jwt"), "type"},
		{"another issuer", stranger.Token(nil), "not one of identity.issuers"},
		{"another issuer's key", stranger.Token(map[string]any{"iss": idp.URL}), "key that signed it"},
		{"no issuer", idp.Token(map[string]any{"iss": nil}), "not one of identity.issuers"},
		{"issuer in other letters", idp.Token(map[string]any{"iss": strings.ToUpper(idp.URL)}), "not one of identity.issuers"},
		{"wrong audience", idp.Token(map[string]any{"aud": "grafana"}), "audience"},
		{"audience list without us", idp.Token(map[string]any{"aud": []string{"a", "weir2"}}), "audience"},
		{"no audience", idp.Token(map[string]any{"aud": nil}), "audience"},
		{"expired", idp.Token(map[string]any{"exp": now.Add(-time.Second).Unix()}), "expired at"},
		{"no expiry", idp.Token(map[string]any{"exp": nil}), "exp"},
		{"expiry no number", idp.Token(map[string]any{"exp": "tomorrow"}), "ID token"},
		{"expiry beyond time", idp.Token(map[string]any{"exp": 1e17}), "exp"},
		{"not yet valid", idp.Token(map[string]any{"nbf": now.Add(time.Hour).Unix()}), "valid only from"},
		{"no subject", idp.Token(map[string]any{"sub": nil}), "sub"},
		{"subject with a newline", idp.Token(map[string]any{"sub": "a\nb"}), "printable"},
		{"group list of numbers", idp.Token(map[string]any{"groups": []int{1}}), "groups"},
		{"groups elsewhere", idp.Token(map[string]any{"_claim_names": map[string]string{"groups": "s"}, "_claim_sources": map[string]any{"s": map[string]string{"endpoint": "https://x"}}}), "left the groups out"},
		{"act no object", idp.Token(map[string]any{"act": "me"}), "act"},
		{"act without a subject", idp.Token(map[string]any{"act": map[string]any{}}), "act.sub"},
		{"act too deep", idp.Token(map[string]any{"act": deep}), "act"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p, err := v.Verify(context.Background(), c.raw)
			if !errors.Is(err, ErrToken) || p != nil {
				t.Fatalf("got %v, %v", p, err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
			for _, part := range strings.Split(c.raw, ".") {
				if len(part) > 10 && strings.Contains(err.Error(), part) {
					t.Errorf("error %q repeats the token", err)
				}
			}
		})
	}
	if _, err := v.Verify(context.Background(), good); err != nil {
		t.Errorf("the good token: %v", err)
	}
}

// embedJWK signs with a key whose public half stands in the header (RFC 7515, 4.1.3).
func embedJWK(t *testing.T, idp *testkit.Issuer, key *rsa.PrivateKey) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(map[string]any{"iss": idp.URL, "sub": "x", "aud": "weir", "exp": time.Now().Add(time.Hour).Unix()})
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return must(jws.CompactSerialize())
}

func TestSeveralSignaturesAreRefused(t *testing.T) {
	idp := testkit.NewIssuer(t)
	v := newTestVerifier(t, "", nil, Issuer{Issuer: idp.URL, ClientID: "weir"})
	key, kid := idp.Key()
	signer, err := jose.NewMultiSigner([]jose.SigningKey{
		{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: kid}},
		{Algorithm: jose.RS256, Key: must(rsa.GenerateKey(rand.Reader, 2048))},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(map[string]any{"iss": idp.URL, "sub": "x", "aud": "weir", "exp": time.Now().Add(time.Hour).Unix()})
	raw := must(signer.Sign(payload)).FullSerialize()
	if p, err := v.Verify(context.Background(), raw); !errors.Is(err, ErrToken) {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestIssuersAreKeptApart(t *testing.T) {
	people, ci := testkit.NewIssuer(t), testkit.NewIssuer(t)
	v := newTestVerifier(t, "", nil,
		Issuer{Issuer: people.URL, ClientID: "weir"},
		Issuer{Issuer: ci.URL, Audiences: []string{"weir-ci"}, UserClaim: "sub", GroupsClaim: "realm_access.roles", Kind: flow.CI})
	p, err := v.Verify(context.Background(), ci.Token(map[string]any{
		"sub": "repo:shop:main", "aud": "weir-ci", "email": "ann@example.com", "realm_access": map[string]any{"roles": "deploy"},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if p.User != "repo:shop:main" || p.Kind != flow.CI || !cmp.Equal(p.Groups, []string{"deploy"}) {
		t.Errorf("got %+v", p)
	}
	if _, err := v.Verify(context.Background(), ci.Token(map[string]any{"aud": "weir"})); !errors.Is(err, ErrToken) {
		t.Errorf("an audience of another issuer: %v", err)
	}
}

func TestRotatedKeyIsFetchedAndTheOldOneForgotten(t *testing.T) {
	idp := testkit.NewIssuer(t)
	v := newTestVerifier(t, t.TempDir(), nil, Issuer{Issuer: idp.URL, ClientID: "weir"})
	old := idp.Token(nil)
	if _, err := v.Verify(context.Background(), old); err != nil {
		t.Fatal(err)
	}
	idp.RotateKey()
	if _, err := v.Verify(context.Background(), idp.Token(nil)); err != nil {
		t.Errorf("signed with the new key: %v", err)
	}
	if _, err := v.Verify(context.Background(), old); !errors.Is(err, ErrToken) {
		t.Errorf("signed with a key that the provider withdrew: %v", err)
	}
}

func TestKnownKeysOutliveTheProviderAndARestart(t *testing.T) {
	idp := testkit.NewIssuer(t)
	dir, issuer := t.TempDir(), Issuer{Issuer: idp.URL, ClientID: "weir"}
	v := newTestVerifier(t, dir, nil, issuer)
	if _, err := v.Verify(context.Background(), idp.Token(nil)); err != nil {
		t.Fatal(err)
	}
	idp.Down()
	if _, err := v.Verify(context.Background(), idp.Token(nil)); err != nil {
		t.Errorf("provider down: %v", err)
	}
	v = newTestVerifier(t, dir, nil, issuer)
	if _, err := v.Verify(context.Background(), idp.Token(nil)); err != nil {
		t.Errorf("provider down, agent restarted: %v", err)
	}
	late := &clock{time.Hour} // keys are old enough to ask again, in vain
	v = newTestVerifier(t, dir, late.now, issuer)
	raw := idp.Token(map[string]any{"exp": late.now().Add(30 * 24 * time.Hour).Unix()})
	if _, err := v.Verify(context.Background(), raw); err != nil {
		t.Errorf("an hour later: %v", err)
	}
	late.offset = maxKeyAge + time.Hour
	if _, err := v.Verify(context.Background(), raw); !errors.Is(err, ErrProvider) {
		t.Errorf("keys older than %v: %v", maxKeyAge, err)
	}
	idp.Up()
	late.offset += fetchEvery
	if _, err := v.Verify(context.Background(), raw); err != nil {
		t.Errorf("provider back: %v", err)
	}
}

func TestUnknownProviderThatIsDownIsNotTheTokensFault(t *testing.T) {
	idp := testkit.NewIssuer(t)
	v := newTestVerifier(t, "", nil, Issuer{Issuer: idp.URL, ClientID: "weir"})
	raw := idp.Token(nil)
	idp.Down()
	if _, err := v.Verify(context.Background(), raw); !errors.Is(err, ErrProvider) || errors.Is(err, ErrToken) {
		t.Errorf("got %v", err)
	}
	idp.Up()
	if _, err := v.Verify(context.Background(), raw); err != nil {
		t.Errorf("provider up: %v", err)
	}
}

func TestOldKeysAreAskedForAgain(t *testing.T) {
	idp, c := testkit.NewIssuer(t), &clock{}
	v := newTestVerifier(t, "", c.now, Issuer{Issuer: idp.URL, ClientID: "weir"})
	raw := idp.Token(map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()})
	for range 3 {
		if _, err := v.Verify(context.Background(), raw); err != nil {
			t.Fatal(err)
		}
	}
	if n := idp.KeyRequests(); n != 1 {
		t.Errorf("%d requests for keys that are known, want 1", n)
	}
	idp.RotateKey()
	c.offset = refreshAfter + time.Second
	if _, err := v.Verify(context.Background(), raw); !errors.Is(err, ErrToken) {
		t.Errorf("a withdrawn key is still believed after %v: %v", c.offset, err)
	}
}

func TestUnknownKeyIDsDoNotFloodTheProvider(t *testing.T) {
	idp, c := testkit.NewIssuer(t), &clock{}
	v := newTestVerifier(t, "", c.now, Issuer{Issuer: idp.URL, ClientID: "weir"})
	junk := idp.Sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: must(rsa.GenerateKey(rand.Reader, 2048)), KeyID: "junk"}}, "JWT", nil)
	for range 50 {
		if _, err := v.Verify(context.Background(), junk); !errors.Is(err, ErrToken) {
			t.Fatal(err)
		}
	}
	if n := idp.KeyRequests(); n != fetchBurst {
		t.Errorf("50 tokens caused %d requests, want %d", n, fetchBurst)
	}
	idp.RotateKey()
	c.offset = fetchEvery
	if _, err := v.Verify(context.Background(), idp.Token(nil)); err != nil {
		t.Errorf("a new key after the flood: %v", err)
	}
}

func TestOnlySoundKeysAreKept(t *testing.T) {
	idp := testkit.NewIssuer(t)
	private := must(rsa.GenerateKey(rand.Reader, 2048))
	enc := must(rsa.GenerateKey(rand.Reader, 2048))
	idp.Publish(jose.JSONWebKey{Key: []byte("a shared secret of thirty-two by"), KeyID: "oct", Algorithm: "HS256", Use: "sig"})
	idp.Publish(jose.JSONWebKey{Key: private, KeyID: "private", Use: "sig"})
	idp.Publish(jose.JSONWebKey{Key: enc.Public(), KeyID: "enc", Use: "enc"})
	dir := t.TempDir()
	v := newTestVerifier(t, dir, nil, Issuer{Issuer: idp.URL, ClientID: "weir"})
	if _, err := v.Verify(context.Background(), idp.Token(nil)); err != nil {
		t.Fatal(err)
	}
	for kid, key := range map[string]*rsa.PrivateKey{"private": private, "enc": enc} {
		raw := idp.Sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, "JWT", nil)
		if _, err := v.Verify(context.Background(), raw); !errors.Is(err, ErrToken) {
			t.Errorf("key %s counts: %v", kid, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("cached: %v, %v", files, err)
	}
	st := must(os.Stat(files[0]))
	data := must(os.ReadFile(files[0]))
	if st.Mode().Perm() != 0o600 || strings.Contains(string(data), `"d":`) || strings.Contains(string(data), "oct") {
		t.Errorf("cache: mode %v\n%s", st.Mode(), data)
	}
}

func TestIssuerConfigurationIsChecked(t *testing.T) {
	cases := map[string]Issuer{
		"plain http":    {Issuer: "http://idp.example.com", ClientID: "weir"},
		"no URL":        {Issuer: "idp", ClientID: "weir"},
		"no audience":   {Issuer: "https://idp.example.com"},
		"empty one":     {Issuer: "https://idp.example.com", Audiences: []string{""}},
		"unknown kind":  {Issuer: "https://idp.example.com", ClientID: "weir", Kind: "robot"},
		"no CA file":    {Issuer: "https://idp.example.com", ClientID: "weir", CAFile: "/nonexistent"},
		"user in a URL": {Issuer: "https://a:b@idp.example.com", ClientID: "weir"},
	}
	for what, i := range cases {
		if _, err := NewVerifier(VerifierConfig{Issuers: []Issuer{i}}); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	twice := Issuer{Issuer: "https://idp.example.com", ClientID: "weir"}
	if _, err := NewVerifier(VerifierConfig{Issuers: []Issuer{twice, twice}}); err == nil {
		t.Error("one issuer twice: accepted")
	}
}

func FuzzPeek(f *testing.F) {
	f.Add("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln")
	f.Add("..")
	f.Add("a.b.c.d.e")
	f.Add("e30.bnVsbA.")
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := peek(raw); err != nil && !errors.Is(err, ErrToken) {
			t.Errorf("untyped error %v", err)
		}
	})
}

func TestProviderBehindAPrivateCA(t *testing.T) {
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	mux := http.NewServeMux()
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it reports clients that do not trust it
	server.StartTLS()
	defer server.Close()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{"issuer": server.URL, "jwks_uri": server.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k"}}})
	})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, data, 0o600); err != nil {
		t.Fatal(err)
	}
	idp := testkit.NewIssuer(t) // only to sign
	raw := idp.Sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, "JWT", map[string]any{"iss": server.URL})
	v := newTestVerifier(t, "", nil, Issuer{Issuer: server.URL, ClientID: "weir", CAFile: ca})
	if _, err := v.Verify(context.Background(), raw); err != nil {
		t.Errorf("with its CA: %v", err)
	}
	v = newTestVerifier(t, "", nil, Issuer{Issuer: server.URL, ClientID: "weir"})
	if _, err := v.Verify(context.Background(), raw); !errors.Is(err, ErrProvider) {
		t.Errorf("without its CA: %v", err)
	}
}

// A provider, or who answers in its place, may say anything: never a key.
func TestOddProviders(t *testing.T) {
	cases := map[string]http.HandlerFunc{
		"names another issuer: did not match": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"issuer":"https://other.example.com","jwks_uri":"https://other.example.com/keys"}`)
		},
		"keys in plain text elsewhere: must be https": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"issuer":"http://%s","jwks_uri":"http://idp.example.com/keys"}`, r.Host)
		},
		"redirects to plain text: must be https": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://idp.example.com/", http.StatusFound)
		},
		"endless redirects: more than": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String()+"x", http.StatusFound)
		},
		"endless answer: ": func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < 3*maxResponse; i += 1 << 10 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		},
		"an error page: 500": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, strings.Repeat("secret \x1b[31m", 1000))
		},
		"no keys: no usable signing key": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"issuer":"http://%s","jwks_uri":"http://%s/keys","keys":[]}`, r.Host, r.Host)
		},
	}
	for what, handler := range cases {
		name, want, _ := strings.Cut(what, ": ")
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			defer server.Close()
			idp := testkit.NewIssuer(t)
			v := newTestVerifier(t, "", nil, Issuer{Issuer: server.URL, ClientID: "weir"})
			_, err := v.Verify(context.Background(), idp.Token(map[string]any{"iss": server.URL}))
			if !errors.Is(err, ErrProvider) || len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\x1b\n") || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}
