package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/testkit"
	"github.com/weirproxy/weir/internal/testkit/dex"
)

const testNonce = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA"

// hearing is an approver's token before a verifier whose clock stands still.
type hearing struct {
	t    *testing.T
	idp  *testkit.Issuer
	v    *Verifier
	now  time.Time
	want Want
}

func newHearing(t *testing.T, more ...Issuer) *hearing {
	t.Helper()
	h := &hearing{t: t, idp: testkit.NewIssuer(t), now: time.Now().Truncate(time.Second)}
	h.v = newTestVerifier(t, "", func() time.Time { return h.now }, append(more, Issuer{Issuer: h.idp.URL, ClientID: "weir"})...)
	h.want = Want{Nonce: testNonce, After: h.now.Add(-time.Minute)}
	return h
}

// claims are those of a good token, changed.
func (h *hearing) claims(change map[string]any) map[string]any {
	all := map[string]any{
		"sub": "id-dana", "email": "dana@example.com", "groups": []string{"dba"}, "nonce": testNonce,
		"iat": h.now.Unix(), "exp": h.now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(all, change)
	return all
}

func (h *hearing) token(change map[string]any) string { return h.idp.Token(h.claims(change)) }

func (h *hearing) prove(raw string) (*Proof, error) {
	return h.v.VerifyProof(context.Background(), raw, h.want)
}

// archived are the issuer's keys of now as a proof keeps them.
func (h *hearing) archived() json.RawMessage {
	h.t.Helper()
	p, err := h.v.VerifyProof(context.Background(), h.token(nil), Want{Nonce: testNonce})
	if err != nil {
		h.t.Fatal(err)
	}
	return p.Keys
}

func TestProofOfAnApprover(t *testing.T) {
	h := newHearing(t)
	raw := h.token(map[string]any{"jti": "t-1", "azp": "weir", "auth_time": h.now.Unix(), "typ": "ID"})
	h.want.MaxAge = time.Minute
	p, err := h.prove(" " + raw + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if p.Token != raw {
		t.Error("the token is kept otherwise than it was sent")
	}
	again, err := h.v.RecheckProof(p.Token, p.Keys, h.want, h.now)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []*flow.Principal{p.Principal, again} {
		claims := got.Claims
		got.Claims = nil
		want := &flow.Principal{Issuer: h.idp.URL, Subject: "id-dana", User: "dana@example.com", Groups: []string{"dba"},
			Kind: flow.Human, TokenID: "t-1", Expires: h.now.Add(5 * time.Minute).UTC()}
		if diff := cmp.Diff(want, got); diff != "" || claims["nonce"] != testNonce {
			t.Errorf("claims %v\n%s", claims, diff)
		}
	}
	var set jose.JSONWebKeySet
	_, kid := h.idp.Key()
	if err := json.Unmarshal(p.Keys, &set); err != nil || len(set.Key(kid)) != 1 || !set.Key(kid)[0].IsPublic() {
		t.Errorf("keys: %v\n%s", err, p.Keys)
	}
}

// Every token here must be refused, at once and when it is checked again later, for
// its own reason; no error may repeat the token or the nonce.
func TestProofRefuses(t *testing.T) {
	stranger, ci, agents := testkit.NewIssuer(t), testkit.NewIssuer(t), testkit.NewIssuer(t)
	h := newHearing(t, Issuer{Issuer: ci.URL, ClientID: "weir", Kind: flow.CI}, Issuer{Issuer: agents.URL, ClientID: "weir", Kind: flow.Agent})
	key, kid := h.idp.Key()
	sign := func(typ jose.ContentType) string {
		return h.idp.Sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, typ, h.claims(nil))
	}
	at := func(d time.Duration) int64 { return h.now.Add(d).Unix() }
	good := strings.Split(h.token(nil), ".")
	evil := strings.Split(h.token(map[string]any{"groups": []string{"root"}}), ".")
	cases := []struct {
		name, raw string
		maxAge    time.Duration
		say       string
	}{
		{"no token", "", 0, "empty"},
		{"no JWT", "opaque-secret", 0, "not a JWT"},
		{"unknown issuer", stranger.Token(h.claims(nil)), 0, "not one of identity.issuers"},
		{"unknown issuer under a known name", stranger.Token(h.claims(map[string]any{"iss": h.idp.URL})), 0, "key that signed it"},
		{"payload of another token", good[0] + "." + evil[1] + "." + good[2], 0, "signature"},
		{"kind ci", ci.Token(h.claims(nil)), 0, "kind ci"},
		{"kind agent", agents.Token(h.claims(nil)), 0, "kind agent"},
		{"access token", sign("at+jwt"), 0, "access token"},
		{"access token, in full", sign("application/AT+JWT"), 0, "access token"},
		{"access token of Keycloak", h.token(map[string]any{"typ": "Bearer"}), 0, "access token"},
		{"logout token", sign("logout+jwt"), 0, "type"},
		{"no nonce", h.token(map[string]any{"nonce": nil}), 0, "carries none"},
		{"empty nonce", h.token(map[string]any{"nonce": ""}), 0, "carries none"},
		{"nonce no text", h.token(map[string]any{"nonce": []string{testNonce}}), 0, "ID token"},
		{"nonce of another request", h.token(map[string]any{"nonce": strings.ToLower(testNonce)}), 0, "made for another"},
		{"beginning of the nonce", h.token(map[string]any{"nonce": testNonce[:20]}), 0, "made for another"},
		{"padded nonce", h.token(map[string]any{"nonce": testNonce + "="}), 0, "made for another"},
		{"expired", h.token(map[string]any{"exp": at(0)}), 0, "expired at"},
		{"no expiry", h.token(map[string]any{"exp": nil}), 0, "exp"},
		{"not yet valid", h.token(map[string]any{"nbf": at(2 * time.Minute)}), 0, "valid only from"},
		{"no issue time", h.token(map[string]any{"iat": nil}), 0, "iat"},
		{"issued before the request", h.token(map[string]any{"iat": at(-time.Minute - proofLeeway - time.Second)}), 0, "before the request"},
		{"issued in the future", h.token(map[string]any{"iat": at(proofLeeway + time.Second)}), 0, "still to come"},
		{"no sign-in time", h.token(nil), time.Hour, "does not say when"},
		{"sign-in time no time", h.token(map[string]any{"auth_time": "now"}), time.Hour, "auth_time"},
		{"sign-in too old", h.token(map[string]any{"auth_time": at(-time.Hour - proofLeeway - time.Second)}), time.Hour, "longer than 1h0m0s ago"},
		{"sign-in in the future", h.token(map[string]any{"auth_time": at(proofLeeway + time.Second)}), time.Hour, "still to come"},
		{"wrong audience", h.token(map[string]any{"aud": "grafana"}), 0, "audience"},
		{"no audience", h.token(map[string]any{"aud": nil}), 0, "audience"},
		{"issued to another client", h.token(map[string]any{"aud": []string{"grafana", "weir"}, "azp": "grafana"}), 0, `"grafana" (azp)`},
		{"issued to nobody", h.token(map[string]any{"azp": ""}), 0, "(azp)"},
		{"issued to a list", h.token(map[string]any{"azp": []string{"weir"}}), 0, "(azp)"},
		{"an agent acts", h.token(map[string]any{"act": map[string]any{"sub": "agent-7"}}), 0, "nobody approves through another"},
		{"nobody acts", h.token(map[string]any{"act": nil, "azp": nil}), 0, ""},
		{"groups left out", h.token(map[string]any{"groups": nil, "_claim_names": map[string]string{"groups": "s"},
			"_claim_sources": map[string]any{"s": map[string]string{"endpoint": "https://x"}}}), 0, "left the groups out"},
	}
	keys := h.archived()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			want := h.want
			want.MaxAge = c.maxAge
			proof, err := h.v.VerifyProof(context.Background(), c.raw, want)
			who, later := h.v.RecheckProof(c.raw, keys, want, h.now)
			if c.say == "" {
				if err != nil || later != nil {
					t.Fatalf("refused: %v, %v", err, later)
				}
				return
			}
			if proof != nil || who != nil {
				t.Fatal("it counts")
			}
			for _, err := range []error{err, later} {
				if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), c.say) {
					t.Fatalf("got %v, want %q", err, c.say)
				}
				for _, part := range append(strings.Split(c.raw, "."), testNonce[:16]) {
					if len(part) > 10 && strings.Contains(strings.ToLower(err.Error()), strings.ToLower(part)) {
						t.Errorf("error %q repeats the token", err)
					}
				}
			}
		})
	}
	if _, err := h.prove(strings.Join(good, ".")); err != nil {
		t.Errorf("the good token: %v", err)
	}
}

// A null "act" is somebody's mistake, not nobody.
func TestProofRefusesAnEmptyActor(t *testing.T) {
	h := newHearing(t)
	key, kid := h.idp.Key()
	payload, err := json.Marshal(h.claims(map[string]any{"iss": h.idp.URL, "aud": "weir", "act": nil}))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.prove(must(must(signer.Sign(payload)).CompactSerialize())); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "(act)") {
		t.Errorf("got %v", err)
	}
}

func TestProofForgivesAMinuteOfSkew(t *testing.T) {
	h := newHearing(t)
	h.want.MaxAge = time.Hour
	for what, change := range map[string]map[string]any{
		"provider behind": {"iat": h.want.After.Add(-proofLeeway).Unix(), "auth_time": h.now.Add(-time.Hour - proofLeeway).Unix()},
		"provider ahead":  {"iat": h.now.Add(proofLeeway).Unix(), "auth_time": h.now.Add(proofLeeway).Unix(), "nbf": h.now.Add(proofLeeway).Unix()},
	} {
		if _, err := h.prove(h.token(change)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestProofWithoutANonceIsTheCallersMistake(t *testing.T) {
	h := newHearing(t)
	raw, keys := h.token(map[string]any{"nonce": nil}), h.archived()
	for _, want := range []Want{{}, {Nonce: testNonce, MaxAge: -time.Second}} {
		p, err := h.v.VerifyProof(context.Background(), raw, want)
		who, later := h.v.RecheckProof(raw, keys, want, h.now)
		if p != nil || who != nil || err == nil || later == nil || errors.Is(err, ErrToken) || errors.Is(later, ErrToken) {
			t.Errorf("%+v: %v, %v", want, err, later)
		}
	}
}

func TestProofOfAProviderThatIsAway(t *testing.T) {
	h := newHearing(t)
	raw := h.token(nil)
	h.idp.Down()
	if p, err := h.prove(raw); p != nil || !errors.Is(err, ErrProvider) || errors.Is(err, ErrToken) {
		t.Errorf("got %v, %v", p, err)
	}
}

// A key that the provider withdrew proves nothing new; what was proved stays proved.
func TestProofOutlivesItsKey(t *testing.T) {
	h := newHearing(t)
	raw := h.token(nil)
	p, err := h.prove(raw)
	if err != nil {
		t.Fatal(err)
	}
	h.idp.RotateKey()
	next, err := h.prove(h.token(nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.prove(raw); !errors.Is(err, ErrToken) {
		t.Errorf("signed with a key that the provider withdrew: %v", err)
	}
	h.idp.Down() // no network is needed from here on
	at := h.now
	h.now = h.now.Add(10 * 365 * 24 * time.Hour)
	who, err := h.v.RecheckProof(p.Token, p.Keys, h.want, at)
	if err != nil || who.User != "dana@example.com" {
		t.Errorf("years later: %+v, %v", who, err)
	}
	for name, c := range map[string]struct {
		raw  string
		keys json.RawMessage
		at   time.Time
	}{
		"keys of after the change":  {p.Token, next.Keys, at},
		"as of now":                 {p.Token, p.Keys, h.now},
		"as of its expiry":          {p.Token, p.Keys, at.Add(5 * time.Minute)},
		"as of before it was made":  {p.Token, p.Keys, at.Add(-proofLeeway - time.Second)},
		"another token":             {next.Token, p.Keys, at},
		"a token that was changed":  {strings.Replace(p.Token, ".", ".e", 1), p.Keys, at},
		"a token cut off":           {p.Token[:len(p.Token)-4], p.Keys, at},
		"a key that was changed":    {p.Token, swapKey(t, p.Keys), at},
		"no keys":                   {p.Token, json.RawMessage(`{"keys":[]}`), at},
		"keys that are none":        {p.Token, json.RawMessage(`[]`), at},
		"nothing for keys":          {p.Token, nil, at},
		"a shared secret":           {p.Token, json.RawMessage(`{"keys":[{"kty":"oct","k":"AAAA"}]}`), at},
		"more keys than were given": {p.Token, append(json.RawMessage(strings.Repeat(" ", maxKeySet)), p.Keys...), at},
	} {
		if who, err := h.v.RecheckProof(c.raw, c.keys, h.want, c.at); who != nil || !errors.Is(err, ErrToken) {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
}

// swapKey puts another key in under the id of the one that is there.
func swapKey(t *testing.T, keys json.RawMessage) json.RawMessage {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(keys, &set); err != nil {
		t.Fatal(err)
	}
	for i := range set.Keys {
		set.Keys[i].Key = must(rsa.GenerateKey(rand.Reader, 2048)).Public()
	}
	return must(json.Marshal(set))
}

func TestProofIsRecheckedByTheConfigurationOfTheDay(t *testing.T) {
	h := newHearing(t)
	p, err := h.prove(h.token(map[string]any{"roles": []string{"owner"}}))
	if err != nil {
		t.Fatal(err)
	}
	recheck := func(issuers ...Issuer) (*flow.Principal, error) {
		return newTestVerifier(t, "", nil, issuers...).RecheckProof(p.Token, p.Keys, h.want, h.now)
	}
	if who, err := recheck(Issuer{Issuer: h.idp.URL, ClientID: "weir", GroupsClaim: "roles"}); err != nil || !cmp.Equal(who.Groups, []string{"owner"}) {
		t.Errorf("groups elsewhere: %+v, %v", who, err)
	}
	for what, issuers := range map[string][]Issuer{
		"issuer gone":        nil,
		"audience gone":      {{Issuer: h.idp.URL, ClientID: "weir2"}},
		"no people any more": {{Issuer: h.idp.URL, ClientID: "weir", Kind: flow.Workload}},
	} {
		if who, err := recheck(issuers...); who != nil || !errors.Is(err, ErrToken) {
			t.Errorf("%s: %+v, %v", what, who, err)
		}
	}
}

// A provider may publish megabytes beside its keys; a proof must not keep them.
func TestProofKeepsBoundedKeys(t *testing.T) {
	h := newHearing(t)
	h.archived()
	key, _ := h.idp.Key()
	template := &x509.Certificate{SerialNumber: big.NewInt(1),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, maxKeySet)}}}
	cert := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))))
	h.idp.Publish(jose.JSONWebKey{Key: key.Public(), KeyID: "with-certificate", Certificates: []*x509.Certificate{cert}})
	h.now = h.now.Add(refreshAfter + time.Second)
	h.want.After = h.now
	signed := h.idp.Sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "with-certificate"}}, "JWT", h.claims(nil))
	p, err := h.prove(signed)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Keys) > maxKeySet || !strings.Contains(string(p.Keys), "with-certificate") {
		t.Errorf("%d bytes are kept", len(p.Keys))
	}
	if _, err := h.v.RecheckProof(p.Token, p.Keys, h.want, h.now); err != nil {
		t.Error(err)
	}
}

func TestManagerProves(t *testing.T) {
	w := newWorld(t)
	raw := w.token("dana", map[string]any{"nonce": testNonce})
	want := Want{Nonce: testNonce}
	p, err := w.m.VerifyProof(context.Background(), raw, want)
	if err != nil || p.Principal.User != "dana" {
		t.Fatalf("got %+v, %v", p, err)
	}
	if who, err := w.m.RecheckProof(p.Token, p.Keys, want, time.Now()); err != nil || who.User != "dana" {
		t.Errorf("got %+v, %v", who, err)
	}
	if len(w.m.List()) != 0 {
		t.Error("an approval bound somebody")
	}
}

// With a real provider: a token is for one request, and says what groups its person
// is in at that moment.
func TestDexProofs(t *testing.T) {
	p := testkit.StartDex(t, dex.Config{})
	v := newTestVerifier(t, "", nil, Issuer{Issuer: p.Issuer, ClientID: "weir"})
	ctx := context.Background()
	prove := func(nonce string, groups ...string) *Proof {
		t.Helper()
		raw, err := p.TokenWithNonce(ctx, "dana", "dana@example.com", groups, nonce)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := v.VerifyProof(ctx, raw, Want{Nonce: nonce, After: time.Now().Add(-time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		return proof
	}
	first := prove("request-1", "dba", "sre")
	if _, err := v.VerifyProof(ctx, first.Token, Want{Nonce: "request-2"}); !errors.Is(err, ErrToken) {
		t.Errorf("a token for another request: %v", err)
	}
	second := prove("request-2", "sre")
	if !cmp.Equal(first.Principal.Groups, []string{"dba", "sre"}) || !cmp.Equal(second.Principal.Groups, []string{"sre"}) ||
		first.Principal.Subject != second.Principal.Subject {
		t.Errorf("got %+v, then %+v", first.Principal, second.Principal)
	}
}
