package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/weirproxy/weir/internal/flow"
)

// MaxToken bounds a token, bytes: header, some hundred groups, signature.
const MaxToken = 64 << 10

// tokenTypes are the accepted values of "typ" (RFC 8725, 3.11): ID tokens and
// JWT access tokens (RFC 9068). A logout token, signed by the same key for the
// same client, must not sign anybody in.
var tokenTypes = []string{"", "jwt", "at+jwt", "application/at+jwt"}

// VerifierConfig is what a Verifier needs.
type VerifierConfig struct {
	Issuers  []Issuer
	CacheDir string           // where public keys outlive a restart; "" for nowhere
	Now      func() time.Time // nil: time.Now
	Log      *slog.Logger     // nil: silent
}

// Verifier turns tokens into principals.
type Verifier struct {
	issuers map[string]Issuer
	keys    map[string]*keySet
	now     func() time.Time
}

// NewVerifier checks the issuers and reads cached keys. It asks no provider: an
// absent one must not keep the agent from starting.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CacheDir != "" {
		if err := os.MkdirAll(cfg.CacheDir, 0o700); err != nil {
			return nil, fmt.Errorf("identity: cannot make the folder for providers' keys: %w", err)
		}
	}
	v := &Verifier{issuers: map[string]Issuer{}, keys: map[string]*keySet{}, now: cfg.Now}
	for _, i := range cfg.Issuers {
		i, err := i.withDefaults()
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		if _, twice := v.issuers[i.Issuer]; twice {
			return nil, fmt.Errorf("identity: issuer %s is configured twice", quote(i.Issuer))
		}
		client, err := newHTTPClient(i.CAFile)
		if err != nil {
			return nil, fmt.Errorf("identity: issuer %s: %w", quote(i.Issuer), err)
		}
		v.issuers[i.Issuer] = i
		v.keys[i.Issuer] = newKeySet(i.Issuer, client, cfg.CacheDir, cfg.Now, cfg.Log)
	}
	return v, nil
}

// Verify checks a token's form, algorithm, signature, issuer, audience and times
// and returns whom it stands for. Errors are ErrToken or ErrProvider; none holds
// any part of the token but its issuer, audience and times.
func (v *Verifier) Verify(ctx context.Context, raw string) (*flow.Principal, error) {
	t, err := peek(raw)
	if err != nil {
		return nil, err
	}
	issuer, err := v.issuer(t.iss)
	if err != nil {
		return nil, err
	}
	if err := t.verify(ctx, v.keys[t.iss]); err != nil {
		return nil, err
	}
	return issuer.principal(t.claims, t.id(), v.now())
}

func (v *Verifier) issuer(iss string) (Issuer, error) {
	issuer, ok := v.issuers[iss]
	if !ok {
		return Issuer{}, fmt.Errorf("%w: its issuer %s is not one of identity.issuers", ErrToken, quote(iss))
	}
	return issuer, nil
}

// restore judges the claims of a token that was verified before a restart.
func (v *Verifier) restore(iss string, claims map[string]any, tokenID string, at time.Time) (*flow.Principal, error) {
	issuer, ok := v.issuers[iss]
	if !ok {
		return nil, fmt.Errorf("%w: its issuer %s is not one of identity.issuers any more", ErrToken, quote(iss))
	}
	return issuer.principal(claims, tokenID, at)
}

// Issuers returns the trusted issuers in no particular order, defaults filled in.
func (v *Verifier) Issuers() []Issuer {
	list := make([]Issuer, 0, len(v.issuers))
	for _, i := range v.issuers {
		list = append(list, i)
	}
	return list
}

// token is a token on its way to be believed.
type token struct {
	raw    string
	iss    string         // what it says, verified or not: enough to choose the keys
	typ    string         // of the header, in lower case
	claims map[string]any // nil until its signature is verified
}

// peek reads the unverified header and issuer: enough to choose the key set and
// to say what is wrong with the form.
func peek(raw string) (*token, error) {
	raw = strings.TrimSpace(raw)
	parts := strings.Split(raw, ".")
	switch {
	case raw == "":
		return nil, fmt.Errorf("%w: it is empty", ErrToken)
	case len(raw) > MaxToken:
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrToken, MaxToken)
	case len(parts) == 5:
		return nil, fmt.Errorf("%w: it is encrypted (JWE): have the provider send signed tokens", ErrToken)
	case len(parts) != 3:
		return nil, fmt.Errorf("%w: it is not a JWT: three parts with dots between them are expected", ErrToken)
	}
	var header struct {
		Alg string `json:"alg"`
		Typ string `json:"typ"`
	}
	var payload struct {
		Iss string `json:"iss"`
	}
	if decodePart(parts[0], &header) != nil || decodePart(parts[1], &payload) != nil {
		return nil, fmt.Errorf("%w: it is not a JWT: its parts are not base64url JSON", ErrToken)
	}
	if !slices.Contains(algorithmNames(), header.Alg) {
		return nil, fmt.Errorf("%w: it is signed with %s: only %s count", ErrToken, quote(header.Alg), strings.Join(algorithmNames(), ", "))
	}
	typ := strings.ToLower(header.Typ)
	if !slices.Contains(tokenTypes, typ) {
		return nil, fmt.Errorf("%w: its type %s is no identity", ErrToken, quote(header.Typ))
	}
	return &token{raw: raw, iss: payload.Iss, typ: typ}, nil
}

// verify checks the signature and reads the claims, which are still to be judged.
func (t *token) verify(ctx context.Context, keys oidc.KeySet) error {
	kept := &keptError{KeySet: keys}
	idToken, err := oidc.NewVerifier(t.iss, kept, &oidc.Config{
		SkipClientIDCheck: true, // several audiences may count: Issuer.checkAudience
		SkipExpiryCheck:   true, // checkTimes, with words for people
		// go-oidc parses before it asks the key set, by this same list.
		SupportedSigningAlgs: algorithmNames(),
	}).Verify(ctx, t.raw)
	if kept.err != nil {
		return kept.err
	}
	if err != nil {
		return fmt.Errorf("%w: it does not read as an ID token of %s", ErrToken, quote(t.iss))
	}
	var claims map[string]any
	if err := idToken.Claims(&claims); err != nil || claims == nil {
		return fmt.Errorf("%w: its payload is not a JSON object", ErrToken)
	}
	t.claims = claims
	return nil
}

// id names a verified token without repeating it: its jti, else its digest.
func (t *token) id() string {
	if jti, err := name(t.claims["jti"], "jti"); err == nil {
		return jti
	}
	sum := sha256.Sum256([]byte(t.raw))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// keptError keeps the key set's error, which go-oidc would flatten into text.
type keptError struct {
	oidc.KeySet
	err error
}

func (k *keptError) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, raw)
	k.err = err
	return payload, err
}

func decodePart(part string, into any) error {
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return errors.New("not base64url")
	}
	return json.Unmarshal(data, into)
}

func algorithmNames() []string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = string(a)
	}
	return names
}
