package dex

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Request headers by which Dex's authproxy connector learns who is there.
const (
	headerUser   = "X-Remote-User"
	headerEmail  = "X-Remote-User-Email"
	headerGroups = "X-Remote-Group"
)

const (
	maxPage  = 1 << 20 // bytes of a page that is read
	maxSteps = 8       // pages of one sign-in
)

// redirectURI is where the answer to Token is sent. Nobody listens there: the
// browser stops before it.
const redirectURI = "http://127.0.0.1:1/callback"

// Browser walks a provider's pages as one person: it follows redirects, keeps
// cookies, and submits the device form.
type Browser struct {
	client *http.Client
	header http.Header
	// stop ends the walk before a redirect to this address; "" for never.
	stop string
	last *url.URL // where the walk stopped
}

// NewBrowser makes a browser in which a person sits.
func NewBrowser(p Person) *Browser {
	jar, _ := cookiejar.New(nil) // its error is always nil
	b := &Browser{header: http.Header{headerUser: {p.User}, headerEmail: {p.Email}}}
	if len(p.Groups) > 0 {
		b.header.Set(headerGroups, strings.Join(p.Groups, ","))
	}
	b.client = &http.Client{Jar: jar, Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxSteps {
				return errors.New("too many redirects")
			}
			if b.stop != "" && strings.HasPrefix(r.URL.String(), b.stop) {
				b.last = r.URL
				return http.ErrUseLastResponse
			}
			for name, values := range b.header {
				r.Header[name] = values
			}
			return nil
		}}
	return b
}

var (
	userCode = regexp.MustCompile(`name="user_code"[^>]*value="([^"]+)"`)
	action   = regexp.MustCompile(`<form[^>]*action="([^"]+)"`)
)

// Visit opens an address and goes through the sign-in that it leads to. It
// returns the last page.
func (b *Browser) Visit(ctx context.Context, address string) (page string, err error) {
	page, at, err := b.send(ctx, http.MethodGet, address, nil)
	for range maxSteps {
		code, form := userCode.FindStringSubmatch(page), action.FindStringSubmatch(page)
		if err != nil || code == nil || form == nil {
			break
		}
		target, parseErr := at.Parse(html.UnescapeString(form[1]))
		if parseErr != nil {
			return "", parseErr
		}
		page, at, err = b.send(ctx, http.MethodPost, target.String(), url.Values{"user_code": {html.UnescapeString(code[1])}})
	}
	return page, err
}

// Authorize follows an authorization request as Visit does, but stops before it is
// sent back to the relying party, and returns what it would bring there (code, state;
// or error). Visit delivers that itself, where somebody listens.
func (b *Browser) Authorize(ctx context.Context, address string) (url.Values, error) {
	request, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if b.stop = request.Query().Get("redirect_uri"); b.stop == "" {
		return nil, errors.New("it is no authorization request: it names no redirect_uri")
	}
	defer func() { b.stop, b.last = "", nil }()
	if _, err := b.Visit(ctx, address); err != nil {
		return nil, err
	}
	if b.last == nil {
		return nil, errors.New("the provider did not send the browser back")
	}
	return b.last.Query(), nil
}

func (b *Browser) send(ctx context.Context, method, address string, form url.Values) (string, *url.URL, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", nil, err
	}
	for name, values := range b.header {
		req.Header[name] = values
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return "", nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return string(body), resp.Request.URL, fmt.Errorf("%s answered %s", resp.Request.URL.Path, resp.Status)
	}
	return string(body), resp.Request.URL, nil
}

// TokenRequest says what ID token is wanted.
type TokenRequest struct {
	Person
	Client string // its audience; "": DefaultClient
	Nonce  string // "" for none
	Scopes []string
}

// Token signs a person in by the authorization code flow and returns the ID
// token for DefaultClient.
func (p *Provider) Token(ctx context.Context, user, email string, groups []string) (string, error) {
	return p.TokenFor(ctx, TokenRequest{Person: Person{User: user, Email: email, Groups: groups}})
}

// TokenWithNonce is Token for a nonce: the proof of an approver. Whoever is given
// other groups the next time has been put into or out of them meanwhile.
func (p *Provider) TokenWithNonce(ctx context.Context, user, email string, groups []string, nonce string) (string, error) {
	return p.TokenFor(ctx, TokenRequest{Person: Person{User: user, Email: email, Groups: groups}, Nonce: nonce})
}

// TokenFor is Token with all that can be asked for.
func (p *Provider) TokenFor(ctx context.Context, want TokenRequest) (string, error) {
	config := oauth2.Config{
		ClientID: want.Client, RedirectURL: redirectURI, Scopes: want.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: p.Issuer + "/auth", TokenURL: p.Issuer + "/token", AuthStyle: oauth2.AuthStyleInParams},
	}
	if config.ClientID == "" {
		config.ClientID = DefaultClient
	}
	for _, c := range p.cfg.Clients {
		if c.ID == config.ClientID {
			config.ClientSecret = c.Secret
			if len(c.RedirectURIs) > 0 {
				config.RedirectURL = c.RedirectURIs[0]
			}
		}
	}
	if len(config.Scopes) == 0 {
		config.Scopes = []string{"openid", "profile", "email", "groups"}
	}
	state, verifier := rand.Text(), oauth2.GenerateVerifier()
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("connector_id", connectorID)}
	if want.Nonce != "" {
		options = append(options, oauth2.SetAuthURLParam("nonce", want.Nonce))
	}
	answer, err := NewBrowser(want.Person).Authorize(ctx, config.AuthCodeURL(state, options...))
	if err != nil {
		return "", fmt.Errorf("dex: sign-in of %s: %w", want.User, err)
	}
	if answer.Get("state") != state || answer.Get("code") == "" {
		return "", fmt.Errorf("dex: sign-in of %s: no code came back: %s", want.User, answer.Get("error"))
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	token, err := config.Exchange(context.WithValue(ctx, oauth2.HTTPClient, client), answer.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return "", fmt.Errorf("dex: token of %s: %w", want.User, err)
	}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return "", fmt.Errorf("dex: token of %s: the answer holds no ID token", want.User)
	}
	return raw, nil
}
