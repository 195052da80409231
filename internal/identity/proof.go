package identity

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/weirproxy/weir/internal/flow"
)

const (
	// proofLeeway is how far the clocks of a provider and a node may be apart.
	proofLeeway = time.Minute
	// maxKeySet bounds an archived key set, bytes; that of Microsoft Entra ID, with
	// certificates, has some 20 KiB.
	maxKeySet = 64 << 10
)

// errNonce is part of the ErrToken of a token that was made for something else.
var errNonce = errors.New("it is not the answer to this request (nonce)")

// Want is what an approver's token has to prove besides who they are.
type Want struct {
	// Nonce is what the token must carry: it ties the token to one request. It must
	// not be empty.
	Nonce string
	// After is when the request was made: the token must not be older. Zero for any.
	After time.Time
	// MaxAge bounds the age of the sign-in itself (auth_time, OpenID Connect Core,
	// 2); 0 for any.
	MaxAge time.Duration
}

// Proof is an approver's verified token.
type Proof struct {
	Principal *flow.Principal
	Token     string // as it was verified: a secret until it has expired
	// Keys is a JWK Set (RFC 7517, 5), at most 64 KiB: the public keys of the issuer
	// that were believed when the token was verified. If they are more than that, it
	// is only the one that verified it.
	Keys json.RawMessage
}

// VerifyProof verifies that a person signed in for want.Nonce: all that Verify
// checks, and that the token is an ID token of an issuer of people, with that nonce,
// issued after want.After, for this client, and that nobody acts for somebody by it.
// A minute of skew between the clocks of provider and node is forgiven, but not at
// the end of its validity. Errors are ErrToken or ErrProvider, for people, and hold
// nothing of the token but its issuer, audience, client and times; any other is a
// mistake in want.
func (v *Verifier) VerifyProof(ctx context.Context, raw string, want Want) (*Proof, error) {
	t, issuer, err := v.peekProof(raw, want)
	if err != nil {
		return nil, err
	}
	keys := &keepingKeys{keySet: v.keys[t.iss]}
	if err := t.verify(ctx, keys); err != nil {
		return nil, err
	}
	principal, err := issuer.approver(t, want, v.now())
	if err != nil {
		return nil, err
	}
	archive, err := keys.archive()
	if err != nil {
		return nil, fmt.Errorf("%w: the keys of %s cannot be archived: %w", ErrProvider, quote(t.iss), err)
	}
	return &Proof{Principal: principal, Token: t.raw, Keys: archive}, nil
}

// RecheckProof is VerifyProof as of a moment and against an archived key set
// (Proof.Keys), without a network. Times are judged as of at, the issuer, its
// audiences, kind and the claims that name users and groups by the configuration of
// today. The keys are taken at their word: that they were the issuer's is for whoever
// kept them. Errors are ErrToken, or a mistake in want.
func (v *Verifier) RecheckProof(raw string, keys json.RawMessage, want Want, at time.Time) (*flow.Principal, error) {
	t, issuer, err := v.peekProof(raw, want)
	if err != nil {
		return nil, err
	}
	archived, err := readArchive(t.iss, keys)
	if err != nil {
		return nil, err
	}
	if err := t.verify(context.Background(), archived); err != nil {
		return nil, err
	}
	return issuer.approver(t, want, at)
}

// VerifyProof is that of the Manager's Verifier.
func (m *Manager) VerifyProof(ctx context.Context, raw string, want Want) (*Proof, error) {
	return m.verifier.VerifyProof(ctx, raw, want)
}

// RecheckProof is that of the Manager's Verifier.
func (m *Manager) RecheckProof(raw string, keys json.RawMessage, want Want, at time.Time) (*flow.Principal, error) {
	return m.verifier.RecheckProof(raw, keys, want, at)
}

// peekProof is what can be said before the signature is checked.
func (v *Verifier) peekProof(raw string, want Want) (*token, Issuer, error) {
	if want.Nonce == "" || want.MaxAge < 0 {
		return nil, Issuer{}, errors.New("identity: a token proves an approval only by its nonce, and no age is negative: give Want.Nonce and Want.MaxAge")
	}
	t, err := peek(raw)
	if err != nil {
		return nil, Issuer{}, err
	}
	issuer, err := v.issuer(t.iss)
	if err != nil {
		return nil, Issuer{}, err
	}
	if issuer.Kind != flow.Human {
		return nil, Issuer{}, fmt.Errorf("%w: tokens of issuer %s stand for kind %s, and only people approve: sign in at an identity provider of people",
			ErrToken, quote(t.iss), issuer.Kind)
	}
	if strings.HasSuffix(t.typ, "at+jwt") {
		return nil, Issuer{}, errAccessToken()
	}
	return t, issuer, nil
}

func errAccessToken() error {
	return fmt.Errorf("%w: it is an access token, and only an ID token says that a person signed in: give the ID token", ErrToken)
}

// approver judges the claims of a token whose signature holds.
func (i Issuer) approver(t *token, want Want, now time.Time) (*flow.Principal, error) {
	principal, err := i.principal(t.claims, t.id(), now)
	if err != nil {
		return nil, err
	}
	// Keycloak says in the payload, not in the header, what its tokens are.
	if typ, _ := t.claims["typ"].(string); strings.EqualFold(typ, "Bearer") || strings.EqualFold(typ, "DPoP") {
		return nil, errAccessToken()
	}
	if _, acts := t.claims["act"]; acts {
		return nil, fmt.Errorf("%w: somebody acts for somebody else by it (act), and nobody approves through another: sign in yourself", ErrToken)
	}
	if err := i.checkParty(t.claims["azp"]); err != nil {
		return nil, err
	}
	if err := checkNonce(t.claims["nonce"], want.Nonce); err != nil {
		return nil, err
	}
	if err := checkIssued(t.claims["iat"], want.After, now); err != nil {
		return nil, err
	}
	if err := checkAuthTime(t.claims["auth_time"], want.MaxAge, now); err != nil {
		return nil, err
	}
	return principal, nil
}

// checkParty checks azp, the client that a token was issued to (OpenID Connect Core,
// 3.1.3.7): another application's sign-in proves nothing here.
func (i Issuer) checkParty(azp any) error {
	if azp == nil {
		return nil
	}
	party, _ := azp.(string)
	if party != "" && (party == i.ClientID || slices.Contains(i.Audiences, party)) {
		return nil
	}
	return fmt.Errorf("%w: it was issued to client %s (azp), not to Weir: sign in for this", ErrToken, quote(party))
}

func checkNonce(claim any, want string) error {
	got, _ := claim.(string)
	if got == "" {
		return fmt.Errorf("%w: %w: it carries none: sign in for this request, by a way that keeps the nonce", ErrToken, errNonce)
	}
	if subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return fmt.Errorf("%w: %w: it was made for another one: sign in for this one", ErrToken, errNonce)
	}
	return nil
}

// checkIssued checks iat, which an ID token must have (OpenID Connect Core, 2).
func checkIssued(claim any, after, now time.Time) error {
	issued, err := numericDate(claim, "iat")
	if err != nil {
		return err
	}
	if issued.After(now.Add(proofLeeway)) {
		return fmt.Errorf("%w: it was issued at %s, which is still to come: check the clocks of this machine and of the provider",
			ErrToken, issued.Format(time.RFC3339))
	}
	if issued.Before(after.Add(-proofLeeway)) {
		return fmt.Errorf("%w: it was issued at %s, before the request was made at %s: sign in for this request",
			ErrToken, issued.Format(time.RFC3339), after.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkAuthTime checks when the person proved who they are (auth_time, OpenID Connect
// Core, 2 and 3.1.2.1); without maxAge nobody asked.
func checkAuthTime(claim any, maxAge time.Duration, now time.Time) error {
	if maxAge <= 0 {
		return nil
	}
	if claim == nil {
		return fmt.Errorf("%w: a sign-in of the last %s is wanted, and the identity provider does not say when it was (auth_time): "+
			"have it answer max_age, or let the rule do without", ErrToken, maxAge)
	}
	signedIn, err := numericDate(claim, "auth_time")
	if err != nil {
		return err
	}
	age := now.Sub(signedIn)
	if age < -proofLeeway {
		return fmt.Errorf("%w: its sign-in was at %s, which is still to come: check the clocks of this machine and of the provider",
			ErrToken, signedIn.Format(time.RFC3339))
	}
	if age-proofLeeway > maxAge {
		return fmt.Errorf("%w: its sign-in was at %s, longer than %s ago: sign in again, with your credentials",
			ErrToken, signedIn.Format(time.RFC3339), maxAge)
	}
	return nil
}

// keepingKeys is a key set that keeps what it verified a token with.
type keepingKeys struct {
	*keySet
	by verifiedBy
}

func (k *keepingKeys) VerifySignature(ctx context.Context, raw string) (payload []byte, err error) {
	payload, k.by, err = k.keySet.verifySignature(ctx, raw)
	return payload, err
}

// archive returns what Proof.Keys holds.
func (k *keepingKeys) archive() (json.RawMessage, error) {
	data, err := json.Marshal(struct {
		Keys []json.RawMessage `json:"keys"`
	}{k.by.set})
	if err != nil || len(data) <= maxKeySet {
		return data, err
	}
	// The bare key: what it came with (certificates) may be any length.
	bare := jose.JSONWebKey{Key: k.by.key.Key, KeyID: k.by.key.KeyID, Algorithm: k.by.key.Algorithm, Use: k.by.key.Use}
	if data, err = json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{bare}}); err == nil && len(data) > maxKeySet {
		err = fmt.Errorf("one of them is longer than %d bytes", maxKeySet)
	}
	return data, err
}

// archivedKeys are the keys of an issuer as they once were. It is go-oidc's KeySet.
type archivedKeys struct {
	issuer string
	keys   []jose.JSONWebKey
}

func readArchive(issuer string, data json.RawMessage) (*archivedKeys, error) {
	if len(data) > maxKeySet {
		return nil, fmt.Errorf("%w: the key set kept with it is longer than %d bytes", ErrToken, maxKeySet)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(data, &set) != nil {
		return nil, fmt.Errorf("%w: the key set kept with it is no JWK Set", ErrToken)
	}
	keys := parseKeys(set.Keys)
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: the key set kept with it holds no usable key", ErrToken)
	}
	return &archivedKeys{issuer: issuer, keys: keys}, nil
}

func (a *archivedKeys) VerifySignature(_ context.Context, raw string) ([]byte, error) {
	jws, err := parseJWS(raw)
	if err != nil {
		return nil, err
	}
	payload, _, err := verifyWith(a.keys, a.issuer, jws)
	return payload, err
}
