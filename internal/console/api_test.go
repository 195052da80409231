package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/approval"
)

// call sends a call of a program.
func (w *world) call(method, path, token, body string, header ...string) answer {
	w.t.Helper()
	b := w.browser()
	r := b.request(method, path, body)
	r.Header.Del("Content-Type")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return b.send(r)
}

// refused checks that an answer is a problem (RFC 9457).
func (a answer) refused(t *testing.T, code int, detail string) {
	t.Helper()
	var p map[string]any
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Errorf("%v: %s", err, a.body)
		return
	}
	text, _ := p["detail"].(string)
	if a.StatusCode != code || a.Header.Get("Content-Type") != "application/problem+json" || p["status"] != float64(code) || p["title"] != http.StatusText(code) ||
		p["type"] != "about:blank" || !strings.HasPrefix(text, "weir: ") || strings.HasPrefix(text, "weir: weir") || !strings.Contains(text, detail) {
		t.Errorf("%d, not %d %q: %s %s", a.StatusCode, code, detail, a.Header.Get("Content-Type"), a.body)
	}
}

const apiBase = "/api/v1/approvals"

func TestAPI(t *testing.T) {
	ended := deletion("req0", "idp")
	ended.Status = approval.Denied
	w := newWorld(t, "", deletion("req1", "idp"), ended)
	var list []approval.Request
	for path, want := range map[string]int{"": 1, "?all=1": 2} {
		a := w.call("GET", apiBase+path, "bob", "")
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.StatusCode != 200 || len(list) != want || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s", path, a.StatusCode, err, a.body)
		}
	}
	var one approval.Request
	a := w.call("GET", apiBase+"/req1", "bob", "")
	if err := json.Unmarshal([]byte(a.body), &one); err != nil || one.Nonce != "nonce-of-req1" || strings.Join(one.May, " ") != "approve deny" {
		t.Errorf("%v %s", err, a.body)
	}
	for verb, status := range map[string]approval.Status{"approve": "approved", "deny": "denied", "withdraw": "withdrawn", "break-glass": "approved", "review": "pending"} {
		a := w.call("POST", apiBase+"/req1/"+verb, "bob", `{"token": "t", "reason": "r"}`)
		if err := json.Unmarshal([]byte(a.body), &one); err != nil || a.StatusCode != 200 || one.Status != status {
			t.Errorf("%s: %d %s", verb, a.StatusCode, a.body)
		}
		if got := w.service.last(t); got.verb != verb || got.id != "req1" || got.a.Token != "t" || got.a.Reason != "r" || got.a.Viewer.Root || got.a.Viewer.Who.User != "Bob@Example.com" {
			t.Errorf("tried %+v", got)
		}
	}
	if a := w.call("POST", apiBase+"/req1/withdraw", "ann", ""); a.StatusCode != 200 {
		t.Errorf("without a body: %d %s", a.StatusCode, a.body)
	}
	w.service.last(t)
	w.service.requests = nil
	if a := w.call("GET", apiBase, "bob", ""); strings.TrimSpace(a.body) != "[]" {
		t.Errorf("none is %s", a.body)
	}
}

func TestAPIRefuses(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	a := w.call("GET", apiBase, "", "")
	a.refused(t, 401, "Authorization: Bearer")
	if a.Header.Get("WWW-Authenticate") != `Bearer realm="weir"` {
		t.Error(a.Header.Get("WWW-Authenticate"))
	}
	a = w.call("GET", apiBase, "mallory", "")
	a.refused(t, 401, "it is nobody's")
	if a.Header.Get("WWW-Authenticate") != `Bearer realm="weir", error="invalid_token"` {
		t.Error(a.Header.Get("WWW-Authenticate"))
	}
	w.call("GET", apiBase, strings.Repeat("a", maxToken+1), "").refused(t, 401, "too long")
	w.call("GET", apiBase, "", "", "Authorization", "Basic Ym9iOmI=").refused(t, 401, "")
	w.call("GET", apiBase, "away", "").refused(t, 503, "does not answer")
	w.call("GET", apiBase+"/other", "bob", "").refused(t, 404, "no request other")
	w.call("GET", "/api/v2", "bob", "").refused(t, 404, apiBase)
	a = w.call("DELETE", apiBase+"/req1", "bob", "")
	a.refused(t, 405, "GET")
	if a.Header.Get("Allow") != "GET" {
		t.Error(a.Header.Get("Allow"))
	}
	w.call("GET", apiBase+"/req1/approve", "bob", "").refused(t, 405, "POST")
	post := func(body string, header ...string) answer {
		return w.call("POST", apiBase+"/req1/deny", "bob", body, header...)
	}
	post("form=x", "Content-Type", "application/x-www-form-urlencoded").refused(t, 415, "application/json")
	post(`{"reason": "`+strings.Repeat("a", maxBody)+`"}`).refused(t, 413, "longer")
	for _, body := range []string{"{", "[]", `"x"`, `{"reason": 1}`, `{"approve": true}`, `{} {}`} {
		post(body).refused(t, 400, "JSON")
	}
	w.service.none(t, "what does not read")
	for err, code := range map[error]int{&approval.NotAllowed{Why: "weir: not you"}: 403, &approval.Conflict{Why: "weir: too late"}: 409, errors.New("inside"): 500} {
		w.service.err = err
		a := post(`{}`)
		a.refused(t, code, "")
		if strings.Contains(a.body, "inside") {
			t.Error("an error from inside is told")
		}
		w.service.last(t)
	}
	w.service = nil
	w.call("GET", apiBase, "bob", "").refused(t, 503, "weir status")
}

// TestAPITakesNoCookie: a browser's session is no program's.
func TestAPITakesNoCookie(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "session"))
	b := w.signedIn("bob")
	b.get(apiBase).refused(t, 401, "")
	r := b.request(http.MethodPost, apiBase+"/req1/approve", "{}")
	r.Header.Set("Content-Type", "application/json")
	b.send(r).refused(t, 401, "")
	w.service.none(t, "a cookie")
}

func TestWatch(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	open := func(ctx context.Context) *http.Response {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+apiBase+"/watch", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer bob")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	resp := open(t.Context())
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/jsonl" {
		t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(resp.Body)
	for range 3 {
		w.service.news <- struct{}{}
		var r approval.Request
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &r) != nil || r.ID != "req1" {
			t.Fatalf("got %q %v", lines.Text(), lines.Err())
		}
	}
	for range maxOwnWatches - 1 {
		open(t.Context())
	}
	w.call("GET", apiBase+"/watch", "bob", "").refused(t, 429, "too many")
	w.call("GET", apiBase+"/watch", "", "").refused(t, 401, "")
	w.console.Close() // ends them and waits
	if lines.Scan() {
		t.Errorf("got %q after the end", lines.Text())
	}
	if w.console.watches.all != 0 || len(w.console.watches.own) != 0 {
		t.Errorf("%d watches are left", w.console.watches.all)
	}
}
