package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/testkit"
	"github.com/weirproxy/weir/internal/testkit/dex"
)

var ann = dex.Person{User: "ann", Email: "ann@example.com", Groups: []string{"developer", "sre"}}

// screen collects what a person would read while a sign-in waits.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) find(re *regexp.Regexp) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return re.FindString(s.text.String())
}

func TestDexTokens(t *testing.T) {
	p := testkit.StartDex(t, dex.Config{Clients: []dex.Client{{ID: "weir"}, {ID: "grafana", Secret: "s", RedirectURIs: []string{"http://127.0.0.1:1/grafana"}}}})
	v := newTestVerifier(t, t.TempDir(), nil, Issuer{Issuer: p.Issuer, ClientID: "weir"})
	ctx := context.Background()

	raw, err := p.Token(ctx, ann.User, ann.Email, ann.Groups)
	if err != nil {
		t.Fatal(err)
	}
	who, err := v.Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	if who.User != ann.Email || !cmp.Equal(who.Groups, ann.Groups) || who.Subject == "" || time.Until(who.Expires) > 5*time.Minute {
		t.Errorf("got %+v", who)
	}

	raw, err = p.TokenFor(ctx, dex.TokenRequest{Person: ann, Nonce: "n-1"})
	if err != nil {
		t.Fatal(err)
	}
	if who, err = v.Verify(ctx, raw); err != nil || who.Claims["nonce"] != "n-1" {
		t.Errorf("nonce %v, %v", who, err)
	}

	raw, err = p.TokenFor(ctx, dex.TokenRequest{Person: ann, Client: "grafana"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = v.Verify(ctx, raw); !errors.Is(err, ErrToken) {
		t.Errorf("a token for another client: %v", err)
	}

	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	raw = raw[:len(raw)-4]
	if _, err = v.Verify(ctx, raw); !errors.Is(err, ErrToken) {
		t.Errorf("a cut token without the provider: %v", err)
	}
}

func TestLoginByCode(t *testing.T) {
	p := testkit.StartDex(t, dex.Config{})
	v := newTestVerifier(t, "", nil, Issuer{Issuer: p.Issuer, ClientID: "weir"})
	for _, nonce := range []string{"", "the-digest-of-a-request"} {
		var out screen
		page := make(chan string, 1)
		raw, err := Login(context.Background(), LoginConfig{
			Issuer: p.Issuer, ClientID: "weir", Nonce: nonce, Out: &out,
			Open: func(address string) error {
				go func() {
					text, err := dex.NewBrowser(ann).Visit(context.Background(), address)
					page <- fmt.Sprint(text, err)
				}()
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if text := <-page; !strings.Contains(text, "You are signed in") {
			t.Errorf("the browser shows %s", text)
		}
		who, err := v.Verify(context.Background(), raw)
		if err != nil || who.User != ann.Email || !cmp.Equal(who.Groups, ann.Groups) {
			t.Errorf("got %+v, %v", who, err)
		}
		if got := who.Claims["nonce"]; got == "" || nonce != "" && got != nonce {
			t.Errorf("nonce %q, want %q", got, nonce)
		}
		if out.find(regexp.MustCompile(`http://127\.0\.0\.1:\S+code_challenge_method=S256`)) == "" {
			t.Errorf("the person reads %q", out.text.String())
		}
	}
}

// Anybody on the machine can call the loopback page; only the provider's own
// answer may end the sign-in.
func TestLoginIgnoresForeignAnswers(t *testing.T) {
	testkit.NoLeaks(t)
	idp := testkit.NewIssuer(t)
	get := func(address string) int {
		resp, err := http.Get(address)
		if err != nil {
			t.Error(err)
			return 0
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	_, err := Login(context.Background(), LoginConfig{
		Issuer: idp.URL, ClientID: "weir",
		Open: func(address string) error {
			q := must(url.Parse(address)).Query()
			back := q.Get("redirect_uri")
			if !strings.HasPrefix(back, "http://127.0.0.1:") || q.Get("code_challenge") == "" || len(q.Get("state")) < 32 || len(q.Get("nonce")) < 32 {
				t.Errorf("request %v", q)
			}
			for path, want := range map[string]int{
				"?code=x&state=guess":                       http.StatusBadRequest,
				"?code=x":                                   http.StatusBadRequest,
				"?error=access_denied":                      http.StatusBadRequest,
				"/../favicon.ico":                           http.StatusNotFound,
				"x?code=x&state=" + q.Get("state"):          http.StatusNotFound,
				"?code=x&state=" + q.Get("state")[1:] + "A": http.StatusBadRequest,
			} {
				if got := get(back + path); got != want {
					t.Errorf("%s answered %d, want %d", path, got, want)
				}
			}
			go get(back + "?error=access_denied&error_description=%1b%5b31mno&state=" + q.Get("state"))
			return nil
		},
	})
	if err == nil || !strings.Contains(err.Error(), "access_denied") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("got %q", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestLoginRefusesAMixedUpIssuer(t *testing.T) {
	idp := testkit.NewIssuer(t)
	_, err := Login(context.Background(), LoginConfig{
		Issuer: idp.URL, ClientID: "weir",
		Open: func(address string) error {
			q := must(url.Parse(address)).Query()
			go func() {
				if resp, err := http.Get(q.Get("redirect_uri") + "?code=x&iss=https://evil.example.com&state=" + q.Get("state")); err == nil {
					resp.Body.Close()
				}
			}()
			return nil
		},
	})
	if err == nil || !strings.Contains(err.Error(), "another identity provider") {
		t.Errorf("got %v", err)
	}
}

func TestLoginByDevice(t *testing.T) {
	p := testkit.StartDex(t, dex.Config{})
	v := newTestVerifier(t, "", nil, Issuer{Issuer: p.Issuer, ClientID: "weir"})
	var out screen
	type answer struct {
		raw string
		err error
	}
	done := make(chan answer, 1)
	go func() {
		raw, err := Login(context.Background(), LoginConfig{Issuer: p.Issuer, ClientID: "weir", Device: true, Out: &out})
		done <- answer{raw, err}
	}()
	var address string
	testkit.Eventually(t, "the code is shown", func() bool {
		address = out.find(regexp.MustCompile(`http://\S+user_code=\S+`))
		return address != ""
	})
	page, err := dex.NewBrowser(ann).Visit(context.Background(), address)
	if err != nil || !strings.Contains(page, "Login Successful") {
		t.Fatalf("the provider's pages end with %v\n%s", err, page)
	}
	got := <-done // the first question comes after the provider's interval, 5 s
	if got.err != nil {
		t.Fatal(got.err)
	}
	if who, err := v.Verify(context.Background(), got.raw); err != nil || who.User != ann.Email || !cmp.Equal(who.Groups, ann.Groups) {
		t.Errorf("got %+v, %v", who, err)
	}
}

func TestLoginIsGivenUpCleanly(t *testing.T) {
	testkit.NoLeaks(t)
	p := testkit.StartDex(t, dex.Config{})
	for _, device := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		var out screen
		done := make(chan error, 1)
		go func() {
			_, err := Login(ctx, LoginConfig{Issuer: p.Issuer, ClientID: "weir", Device: device, Out: &out, Open: func(string) error { return errNoBrowser }})
			done <- err
		}()
		testkit.Eventually(t, "the sign-in waits", func() bool { return out.find(regexp.MustCompile("Waiting")) != "" })
		if !device && out.find(regexp.MustCompile("--device")) == "" {
			t.Error("without a browser nobody learns of --device")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("device %v: got %v", device, err)
		}
	}
}

// The sign-in of an approver: the request's nonce is in the token, and the provider
// is asked for a fresh sign-in.
func TestLoginForARequest(t *testing.T) {
	p := testkit.StartDex(t, dex.Config{})
	v := newTestVerifier(t, "", nil, Issuer{Issuer: p.Issuer, ClientID: "weir"})
	login := func(maxAge time.Duration) (string, url.Values, error) {
		var asked url.Values
		var browser sync.WaitGroup
		defer browser.Wait()
		raw, err := Login(context.Background(), LoginConfig{
			Issuer: p.Issuer, ClientID: "weir", Nonce: testNonce, Prompt: "login", MaxAge: maxAge,
			Open: func(address string) error {
				asked = must(url.Parse(address)).Query()
				// What the page says is another test's; here the refused sign-in ends in 403.
				browser.Go(func() { _, _ = dex.NewBrowser(ann).Visit(context.Background(), address) })
				return nil
			},
		})
		return raw, asked, err
	}
	raw, asked, err := login(0)
	if err != nil {
		t.Fatal(err)
	}
	if asked.Get("nonce") != testNonce || asked.Get("prompt") != "login" || asked.Has("max_age") {
		t.Errorf("asked %v", asked)
	}
	proof, err := v.VerifyProof(context.Background(), raw, Want{Nonce: testNonce, After: time.Now()})
	if err != nil || proof.Principal.User != ann.Email || !cmp.Equal(proof.Principal.Groups, ann.Groups) {
		t.Errorf("got %+v, %v", proof, err)
	}
	if _, err := v.VerifyProof(context.Background(), raw, Want{Nonce: "another"}); !errors.Is(err, ErrToken) {
		t.Errorf("for another request: %v", err)
	}
	// Dex knows no auth_time: it cannot say how fresh a sign-in is.
	_, asked, err = login(5 * time.Minute)
	if asked.Get("max_age") != "300" || !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "auth_time") {
		t.Errorf("asked %v, got %v", asked, err)
	}
}

func TestLoginByDeviceSaysThatTheNonceWasLost(t *testing.T) {
	p := newProvider(t)
	p.answers(map[string]any{"auth_time": time.Now().Unix()})
	var out screen
	cfg := LoginConfig{Issuer: p.url, ClientID: "weir", Device: true, Nonce: testNonce, Prompt: "login", MaxAge: time.Minute, Out: &out}
	_, err := Login(context.Background(), cfg)
	if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "console's page") || out.find(regexp.MustCompile("console's page")) == "" {
		t.Errorf("got %v; the person reads %q", err, out.text.String())
	}
	if q := p.requests("/device")[0].Form; q.Get("nonce") != testNonce || q.Get("prompt") != "login" || q.Get("max_age") != "60" {
		t.Errorf("asked %v", q)
	}
	p.answers(map[string]any{"auth_time": time.Now().Unix(), "nonce": testNonce}) // a provider that keeps it
	if _, err := Login(context.Background(), cfg); err != nil {
		t.Error(err)
	}
}

// The page for people with a browser (weir demo --keep).
func TestPeopleChooseWhoTheyAre(t *testing.T) {
	p := testkit.StartDex(t, dex.Config{People: []dex.Person{{User: "dana", Email: "dana@example.com", Groups: []string{"dba"}}, ann}})
	v := newTestVerifier(t, "", nil, Issuer{Issuer: p.Issuer, ClientID: "weir"})
	raw, err := Login(context.Background(), LoginConfig{
		Issuer: p.Issuer, ClientID: "weir",
		Open: func(address string) error {
			go func() {
				client := &http.Client{Timeout: 10 * time.Second}
				resp, err := client.Get(address)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				page, _ := io.ReadAll(resp.Body)
				link := regexp.MustCompile(`href="([^"]+)">ann<`).FindSubmatch(page)
				if link == nil {
					t.Errorf("nobody to choose on %s\n%s", resp.Request.URL, page)
					return
				}
				next := must(resp.Request.URL.Parse(strings.ReplaceAll(string(link[1]), "&amp;", "&")))
				if resp, err := client.Get(next.String()); err != nil {
					t.Error(err)
				} else {
					resp.Body.Close()
				}
			}()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if who, err := v.Verify(context.Background(), raw); err != nil || who.User != ann.Email || !cmp.Equal(who.Groups, ann.Groups) {
		t.Errorf("got %+v, %v", who, err)
	}
}
