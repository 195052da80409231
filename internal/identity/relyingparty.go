package identity

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// maxCode bounds an authorization code, bytes; those of Microsoft Entra ID, the
// longest known, stay below 2 KiB.
const maxCode = 8 << 10

// relyingParty is Weir as a client of one identity provider: what weir login and the
// console have in common.
type relyingParty struct {
	keys     *keySet
	provider *oidc.Provider
	oauth    oauth2.Config
}

// asked is what a sign-in asked the provider for; its answer is held against it.
type asked struct {
	nonce  string // "": none
	prompt string
	maxAge time.Duration // 0: any
}

// options are the request's parameters (OpenID Connect Core, 3.1.2.1).
func (a asked) options() []oauth2.AuthCodeOption {
	var list []oauth2.AuthCodeOption
	if a.nonce != "" {
		list = append(list, oidc.Nonce(a.nonce))
	}
	if a.prompt != "" {
		list = append(list, oauth2.SetAuthURLParam("prompt", a.prompt))
	}
	if a.maxAge > 0 {
		list = append(list, oauth2.SetAuthURLParam("max_age", strconv.FormatInt(int64(a.maxAge/time.Second), 10)))
	}
	return list
}

// clientConfig is what a provider knows this client by.
type clientConfig struct {
	id, secret string
	redirect   string
	scopes     []string // empty: those of scopes
}

// newRelyingParty asks the provider whose keys are given for its metadata (OpenID
// Connect Discovery 1.0, 4).
func newRelyingParty(ctx context.Context, keys *keySet, cfg clientConfig) (*relyingParty, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, keys.client), keys.issuer)
	if err != nil {
		return nil, fmt.Errorf("the identity provider %s does not answer as one: %w", keys.issuer, brief(err))
	}
	endpoint := provider.Endpoint()
	for _, address := range []string{endpoint.AuthURL, endpoint.TokenURL, endpoint.DeviceAuthURL} {
		if address == "" && address == endpoint.DeviceAuthURL { // it need not have a device flow
			continue
		}
		if err := checkURL(address); err != nil { // codes and secrets go there
			return nil, fmt.Errorf("the metadata of the identity provider %s is of no use: endpoint %w", keys.issuer, err)
		}
	}
	endpoint.AuthStyle = authStyle(provider, cfg.secret)
	return &relyingParty{keys: keys, provider: provider, oauth: oauth2.Config{
		ClientID: cfg.id, ClientSecret: cfg.secret, RedirectURL: cfg.redirect, Endpoint: endpoint, Scopes: scopes(provider, cfg.scopes),
	}}, nil
}

// authStyle says how the client names itself at the token endpoint: without a secret
// by a parameter (RFC 6749, 4.1.3), else as the metadata wants it, where saying
// nothing means HTTP Basic (OpenID Connect Discovery 1.0, 3). Trying both, as
// x/oauth2 would, spends the code at some providers.
func authStyle(p *oidc.Provider, secret string) oauth2.AuthStyle {
	if secret == "" {
		return oauth2.AuthStyleInParams
	}
	var meta struct {
		Methods []string `json:"token_endpoint_auth_methods_supported"`
	}
	if p.Claims(&meta) == nil && slices.Contains(meta.Methods, "client_secret_post") && !slices.Contains(meta.Methods, "client_secret_basic") {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}

func scopes(p *oidc.Provider, wanted []string) []string {
	if len(wanted) > 0 {
		return wanted
	}
	list := []string{oidc.ScopeOpenID, "profile", "email"}
	var meta struct {
		Scopes []string `json:"scopes_supported"`
	}
	// Asking for a scope that a provider does not know is an error at some.
	if p.Claims(&meta) == nil && slices.Contains(meta.Scopes, "groups") {
		list = append(list, "groups")
	}
	return list
}

// httpContext makes x/oauth2 use the bounded client.
func (r *relyingParty) httpContext(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, r.keys.client)
}

// address is the page of the provider where the sign-in starts: authorization code
// grant with PKCE (RFC 7636, S256).
func (r *relyingParty) address(state, verifier string, want asked) string {
	return r.oauth.AuthCodeURL(state, append(want.options(), oauth2.S256ChallengeOption(verifier))...)
}

// answerCode takes the code out of the parameters with which the provider sent the
// browser back. The caller has checked the state.
func (r *relyingParty) answerCode(q url.Values) (string, error) {
	if iss := q.Get("iss"); iss != "" && iss != r.keys.issuer { // RFC 9207: mix-up
		return "", fmt.Errorf("the answer came from %s, another identity provider", quote(iss))
	}
	if code := q.Get("error"); code != "" {
		return "", fmt.Errorf("the identity provider refused: %s %s", quote(code), quote(q.Get("error_description")))
	}
	return q.Get("code"), nil
}

// redeem trades a code for the ID token.
func (r *relyingParty) redeem(ctx context.Context, code, verifier string, want asked) (string, error) {
	if code == "" || len(code) > maxCode {
		return "", errors.New("the identity provider's answer holds no code: try again")
	}
	token, err := r.oauth.Exchange(r.httpContext(ctx), code, oauth2.VerifierOption(verifier))
	if err != nil {
		return "", err
	}
	return r.idToken(ctx, token, want)
}

// idToken takes the ID token out of an answer and checks it as the client must
// (OpenID Connect Core, 3.1.3.7). The agent checks it again, on its own.
func (r *relyingParty) idToken(ctx context.Context, answer *oauth2.Token, want asked) (string, error) {
	raw, _ := answer.Extra("id_token").(string)
	if raw == "" {
		return "", errors.New("the identity provider sent no ID token: the client needs the scope openid")
	}
	t, err := peek(raw)
	if err == nil && t.iss != r.keys.issuer {
		err = fmt.Errorf("%w: it is from issuer %s, not %s", ErrToken, quote(t.iss), quote(r.keys.issuer))
	}
	if err == nil {
		err = t.verify(ctx, r.keys)
	}
	if err == nil {
		err = r.checkClaims(t.claims, want)
	}
	if err != nil {
		return "", fmt.Errorf("the identity provider sent an ID token that does not verify: %w", err)
	}
	return t.raw, nil
}

func (r *relyingParty) checkClaims(claims map[string]any, want asked) error {
	me := Issuer{Issuer: r.keys.issuer, ClientID: r.oauth.ClientID, Audiences: []string{r.oauth.ClientID}}
	now := r.keys.now()
	if err := me.checkAudience(claims["aud"]); err != nil {
		return err
	}
	if err := me.checkParty(claims["azp"]); err != nil {
		return err
	}
	if _, err := checkTimes(claims, now); err != nil {
		return err
	}
	if want.nonce != "" {
		if err := checkNonce(claims["nonce"], want.nonce); err != nil {
			return err
		}
	}
	return checkAuthTime(claims["auth_time"], want.maxAge, now)
}

// explain turns what went wrong into one sentence, without what the provider's
// answer may hold besides its error code.
func explain(err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.ErrorCode == "expired_token":
		return errors.New("cannot sign in: the code was not entered in time: try again")
	case errors.As(err, &refused) && refused.ErrorCode != "":
		return fmt.Errorf("cannot sign in: the identity provider refused: %s %s", quote(refused.ErrorCode), quote(refused.ErrorDescription))
	case errors.As(err, &refused):
		return fmt.Errorf("cannot sign in: the identity provider answered %s", refused.Response.Status)
	}
	return fmt.Errorf("cannot sign in: %w", err)
}
