package identity

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"

	"github.com/weirproxy/weir/internal/testkit"
	"github.com/weirproxy/weir/internal/testkit/dex"
)

const consolePage = "http://127.0.0.1:7443/callback"

func newTestWeb(t *testing.T, cfg WebConfig) *Web {
	t.Helper()
	if cfg.ClientID == "" {
		cfg.ClientID = "weir"
	}
	if cfg.RedirectURL == "" {
		cfg.RedirectURL = consolePage
	}
	w, err := NewWeb(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWebSignsInAtDex(t *testing.T) {
	p := testkit.StartDex(t, dex.Config{Clients: []dex.Client{{ID: "weir"}, {ID: "console", Secret: "s3", RedirectURIs: []string{consolePage}}}})
	ctx := context.Background()
	for _, client := range []dex.Client{{ID: "weir"}, {ID: "console", Secret: "s3"}} {
		w := newTestWeb(t, WebConfig{Issuer: p.Issuer, ClientID: client.ID, ClientSecret: client.Secret})
		v := newTestVerifier(t, "", nil, Issuer{Issuer: p.Issuer, ClientID: client.ID})
		for _, nonce := range []string{"", testNonce} {
			address, pending, err := w.Begin(ctx, WebRequest{Nonce: nonce, Prompt: "login"})
			if err != nil {
				t.Fatal(err)
			}
			answer, err := dex.NewBrowser(ann).Authorize(ctx, address)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := w.Answer(ctx, pending, answer)
			if err != nil {
				t.Fatal(err)
			}
			proof, err := v.VerifyProof(ctx, raw, Want{Nonce: pending.Nonce, After: time.Now()})
			if err != nil || proof.Principal.User != ann.Email || !cmp.Equal(proof.Principal.Groups, ann.Groups) {
				t.Errorf("got %+v, %v", proof, err)
			}
			if nonce != "" && pending.Nonce != nonce {
				t.Errorf("nonce %q, want %q", pending.Nonce, nonce)
			}
			if _, err := w.Answer(ctx, pending, answer); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("a code counts twice: %v", err)
			}
		}
		wrong := newTestWeb(t, WebConfig{Issuer: p.Issuer, ClientID: client.ID, ClientSecret: client.Secret + "x"})
		_, pending, err := wrong.Begin(ctx, WebRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wrong.Finish(ctx, pending, "no-code"); err == nil || strings.Contains(err.Error(), "s3") || strings.Contains(err.Error(), "no-code") {
			t.Errorf("got %v", err)
		}
	}
}

func TestWebAsksForWhatIsWanted(t *testing.T) {
	p := newProvider(t)
	w := newTestWeb(t, WebConfig{Issuer: p.url})
	address, pending, err := w.Begin(context.Background(), WebRequest{
		Nonce: testNonce, Prompt: "login consent", MaxAge: 90*time.Second + 900*time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	u := must(url.Parse(address))
	want := url.Values{
		"response_type": {"code"}, "client_id": {"weir"}, "redirect_uri": {consolePage}, "scope": {"openid profile email groups"},
		"state": {pending.State}, "nonce": {testNonce}, "prompt": {"login consent"}, "max_age": {"90"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(pending.Verifier)}, "code_challenge_method": {"S256"},
	}
	if diff := cmp.Diff(want, u.Query()); diff != "" || u.Host != p.url[len("http://"):] {
		t.Errorf("%s\n%s", address, diff)
	}
	seen := map[string]bool{}
	for range 3 {
		_, pending, err := w.Begin(context.Background(), WebRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{pending.State, pending.Verifier, pending.Nonce} {
			if len(s) < 32 || seen[s] {
				t.Errorf("%q can be guessed", s)
			}
			seen[s] = true
		}
	}
	if n := len(p.requests("/.well-known/openid-configuration")); n != 1 {
		t.Errorf("the metadata was asked for %d times", n)
	}
}

// How a client names itself: a secret must not go where the provider does not want it.
func TestWebNamesItself(t *testing.T) {
	for _, c := range []struct {
		name, secret string
		methods      []string
		header       bool
	}{
		{"public", "", []string{"client_secret_basic"}, false},
		{"nothing said", "s3", nil, true},
		{"both", "s3", []string{"client_secret_post", "client_secret_basic"}, true},
		{"post only", "s3", []string{"private_key_jwt", "client_secret_post"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProvider(t)
			if c.methods != nil {
				p.setMeta(map[string]any{"token_endpoint_auth_methods_supported": c.methods})
			}
			w := newTestWeb(t, WebConfig{Issuer: p.url, ClientSecret: c.secret})
			p.answers(map[string]any{"nonce": testNonce})
			if _, err := w.Finish(context.Background(), Pending{Verifier: "v-1", Nonce: testNonce}, "c-1"); err != nil {
				t.Fatal(err)
			}
			all := p.requests("/token")
			r := all[0]
			id, secret, header := r.BasicAuth()
			if !header {
				id, secret = r.Form.Get("client_id"), r.Form.Get("client_secret")
			}
			if len(all) != 1 || header != c.header || id != "weir" || secret != c.secret {
				t.Errorf("%d requests, header %v, %q %q", len(all), header, id, secret)
			}
			if f := r.PostForm; f.Get("code") != "c-1" || f.Get("code_verifier") != "v-1" || f.Get("redirect_uri") != consolePage {
				t.Errorf("form %v", f)
			}
		})
	}
}

func TestWebRefusesForeignAnswers(t *testing.T) {
	p := newProvider(t)
	w := newTestWeb(t, WebConfig{Issuer: p.url})
	ctx := context.Background()
	_, pending, err := w.Begin(ctx, WebRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		pending Pending
		q       url.Values
		say     string
	}{
		"nobody began":        {Pending{}, url.Values{"code": {"c"}, "state": {""}}, "does not belong"},
		"no state":            {pending, url.Values{"code": {"c"}}, "does not belong"},
		"another state":       {pending, url.Values{"code": {"c"}, "state": {pending.State[1:] + "A"}}, "does not belong"},
		"another provider":    {pending, url.Values{"code": {"c"}, "state": {pending.State}, "iss": {"https://evil.example.com"}}, "another identity provider"},
		"refused":             {pending, url.Values{"error": {"access_denied"}, "error_description": {"no\x1b[31m"}, "state": {pending.State}}, "access_denied"},
		"no code":             {pending, url.Values{"state": {pending.State}}, "no code"},
		"endless code":        {pending, url.Values{"state": {pending.State}, "code": {strings.Repeat("c", maxCode+1)}}, "no code"},
		"nothing but a state": {Pending{State: "s"}, url.Values{"state": {"s"}, "code": {"c"}}, "begin again"},
		// Its token endpoint hangs up.
		"provider says itself": {pending, url.Values{"state": {pending.State}, "code": {"c"}, "iss": {p.url}}, "unavailable"},
	} {
		raw, err := w.Answer(ctx, c.pending, c.q)
		if raw != "" || err == nil || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
	}
}

func TestWebRefusesOddTokens(t *testing.T) {
	p := newProvider(t)
	w := newTestWeb(t, WebConfig{Issuer: p.url})
	now := time.Now()
	for name, c := range map[string]struct {
		claims map[string]any
		say    string
	}{
		"no nonce":               {map[string]any{"nonce": nil}, "carries none"},
		"another nonce":          {map[string]any{"nonce": "x"}, "made for another"},
		"another issuer":         {map[string]any{"iss": p.URL}, "it is from issuer"},
		"another audience":       {map[string]any{"aud": "grafana"}, "audience"},
		"issued to another":      {map[string]any{"aud": []string{"grafana", "weir"}, "azp": "grafana"}, "(azp)"},
		"expired":                {map[string]any{"exp": now.Add(-time.Second).Unix()}, "expired"},
		"old sign-in":            {map[string]any{"auth_time": now.Add(-time.Hour).Unix()}, "ago"},
		"sign-in at no time":     {map[string]any{"auth_time": nil}, "does not say when"},
		"more than can be taken": {map[string]any{"junk": strings.Repeat("x", MaxToken)}, "longer"},
	} {
		claims := map[string]any{"nonce": testNonce, "auth_time": now.Unix()}
		for k, v := range c.claims {
			claims[k] = v
		}
		p.answers(claims)
		raw, err := w.Finish(context.Background(), Pending{Verifier: "v", Nonce: testNonce, MaxAge: time.Minute}, "c")
		if raw != "" || !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), testNonce) {
			t.Errorf("%s: got %q, %v", name, raw, err)
		}
	}
	for say, answer := range map[string]struct {
		status int
		body   map[string]any
	}{
		"sent no ID token": {http.StatusOK, map[string]any{"access_token": "secret-1"}},
		"not a JWT":        {http.StatusOK, map[string]any{"access_token": "secret-1", "id_token": "secret-2"}},
		`the identity provider refused: "bad_code"`:  {http.StatusBadRequest, map[string]any{"error": "bad_code", "secret": "secret-3"}},
		"the identity provider answered 502":         {http.StatusBadGateway, map[string]any{"secret": "secret-4"}},
		"cannot sign in: oauth2: server response mi": {http.StatusOK, map[string]any{"secret": "secret-5"}},
	} {
		p.setToken(func(url.Values) (int, map[string]any) { return answer.status, answer.body })
		raw, err := w.Finish(context.Background(), Pending{Verifier: "v", Nonce: testNonce}, "c")
		if raw != "" || err == nil || !strings.Contains(err.Error(), say) || strings.Contains(err.Error(), "secret-") {
			t.Errorf("got %q, %v, want %q", raw, err, say)
		}
	}
}

func TestWebWaitsForNoProvider(t *testing.T) {
	idp, c := testkit.NewIssuer(t), &clock{}
	w := newTestWeb(t, WebConfig{Issuer: idp.URL, Now: c.now})
	ctx := context.Background()
	begin := func() error {
		_, _, err := w.Begin(ctx, WebRequest{})
		return err
	}
	idp.Down()
	if err := begin(); !errors.Is(err, ErrProvider) || !strings.Contains(err.Error(), idp.URL) {
		t.Errorf("away: %v", err)
	}
	idp.Up()
	if err := begin(); !errors.Is(err, ErrProvider) {
		t.Errorf("asked again at once: %v", err)
	}
	c.offset += askAgain + time.Second
	if err := begin(); err != nil {
		t.Errorf("it is back: %v", err)
	}
	idp.Down()
	for _, later := range []time.Duration{refreshAfter / 2, refreshAfter, refreshAfter} {
		c.offset += later
		if err := begin(); err != nil {
			t.Errorf("known, and away: %v", err)
		}
	}
}

func TestWebLearnsOfMovedEndpoints(t *testing.T) {
	p, c := newProvider(t), &clock{}
	w := newTestWeb(t, WebConfig{Issuer: p.url, Now: c.now})
	address := func() string {
		t.Helper()
		address, _, err := w.Begin(context.Background(), WebRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return address
	}
	address()
	p.setMeta(map[string]any{"authorization_endpoint": p.url + "/moved"})
	c.offset = refreshAfter + time.Second
	if got := address(); !strings.HasPrefix(got, p.url+"/moved?") {
		t.Errorf("it still goes to %s", got)
	}
	// An endpoint in plain text elsewhere is none: what is known stays.
	p.setMeta(map[string]any{"authorization_endpoint": "http://idp.example.com/auth"})
	c.offset *= 2
	if got := address(); !strings.HasPrefix(got, p.url+"/moved?") {
		t.Errorf("it goes to %s", got)
	}
	fresh := newTestWeb(t, WebConfig{Issuer: p.url})
	if _, _, err := fresh.Begin(context.Background(), WebRequest{}); !errors.Is(err, ErrProvider) || !strings.Contains(err.Error(), "must be https") {
		t.Errorf("got %v", err)
	}
}

// A provider that does not answer holds up nobody for longer than they want to wait.
func TestWebIsGivenUp(t *testing.T) {
	testkit.NoLeaks(t)
	open, reached := make(chan struct{}), make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case reached <- struct{}{}:
		default:
		}
		<-open
	}))
	w := newTestWeb(t, WebConfig{Issuer: server.URL})
	var first sync.WaitGroup
	first.Go(func() {
		if _, _, err := w.Begin(context.Background(), WebRequest{}); !errors.Is(err, ErrProvider) {
			t.Errorf("the first: %v", err)
		}
	})
	<-reached
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := w.Begin(ctx, WebRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the second: %v", err)
	}
	close(open)
	first.Wait()
	server.Close()
}

func TestWebConfigurationIsChecked(t *testing.T) {
	for name, cfg := range map[string]WebConfig{
		"plain issuer": {Issuer: "http://idp.example.com", ClientID: "weir", RedirectURL: consolePage},
		"plain page":   {Issuer: "https://idp.example.com", ClientID: "weir", RedirectURL: "http://weir.example.com/callback"},
		"no page":      {Issuer: "https://idp.example.com", ClientID: "weir"},
		"no client":    {Issuer: "https://idp.example.com", RedirectURL: consolePage},
		"no CA file":   {Issuer: "https://idp.example.com", ClientID: "weir", RedirectURL: consolePage, CAFile: "/nonexistent"},
	} {
		if _, err := NewWeb(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
