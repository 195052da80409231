package identity

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/weirproxy/weir/internal/testkit"
)

// provider is an identity provider whose answers a test writes. It signs with the
// keys of a testkit.Issuer.
type provider struct {
	*testkit.Issuer
	url string

	mu    sync.Mutex
	meta  map[string]any             // added to its metadata
	asked map[string][]*http.Request // by path, forms parsed
	token func(form url.Values) (int, map[string]any)
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{Issuer: testkit.NewIssuer(t), asked: map[string][]*http.Request{}}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	p.mu.Lock()
	p.asked[r.URL.Path] = append(p.asked[r.URL.Path], r)
	token, meta := p.token, p.meta
	p.mu.Unlock()
	status, answer := http.StatusOK, map[string]any{}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		answer = map[string]any{
			"issuer": p.url, "jwks_uri": p.URL + "/keys", "authorization_endpoint": p.url + "/auth", "token_endpoint": p.url + "/token",
			"device_authorization_endpoint": p.url + "/device", "scopes_supported": []string{"openid", "groups"},
		}
		maps.Copy(answer, meta)
	case "/device":
		answer = map[string]any{"device_code": "d", "user_code": "ABCD", "verification_uri": p.url, "expires_in": 60, "interval": 1}
	case "/token":
		if token == nil {
			panic(http.ErrAbortHandler) // hangs up
		}
		status, answer = token(r.Form)
	default:
		status = http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the client may have gone
}

// answers makes its token endpoint send an ID token with these claims.
func (p *provider) answers(claims map[string]any) {
	all := map[string]any{"iss": p.url}
	maps.Copy(all, claims)
	raw := p.Token(all)
	p.setToken(func(url.Values) (int, map[string]any) {
		return http.StatusOK, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": raw}
	})
}

func (p *provider) setToken(f func(url.Values) (int, map[string]any)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = f
}

func (p *provider) setMeta(m map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.meta = m
}

// requests returns what came to a path so far.
func (p *provider) requests(path string) []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}
