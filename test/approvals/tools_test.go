package approvals

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/kv"
)

// postConsole posts to the console with a bearer token.
func postConsole(t *testing.T, path, bearer, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+console+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(bearer))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// forge opens the store of an agent that is down and marks a request as approved.
func forge(t *testing.T, dir, id string) {
	t.Helper()
	s, err := kv.Open(t.Context(), kv.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, err := s.Bucket(t.Context(), "approvals", kv.Options{TTL: 30 * 24 * 3600e9, MaxValue: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	e, err := b.Get(t.Context(), "request."+id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Update(t.Context(), e.Key, []byte(strings.Replace(string(e.Value), `"seal":"`, `"seal":"AA`, 1)), e.Revision); err != nil {
		t.Fatal(err)
	}
}
