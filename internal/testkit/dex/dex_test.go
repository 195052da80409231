package dex

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMissingBinaryIsSaid(t *testing.T) {
	t.Setenv("WEIR_DEX", filepath.Join(t.TempDir(), "dex"))
	if _, err := Start(t.Context(), Config{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "make dex") {
		t.Errorf("got %v", err)
	}
}

func TestBrokenDexIsSaid(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "dex")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(binary+"-web/templates", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Binary: binary}); err == nil || !strings.Contains(err.Error(), "dex.log") {
		t.Errorf("got %v", err)
	}
}

func TestStopLeavesNoProcess(t *testing.T) {
	for _, people := range [][]Person{nil, {{User: "ann"}}} {
		p, err := Start(t.Context(), Config{Dir: t.TempDir(), TokenLifetime: 3 * time.Second, People: people})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Token(t.Context(), "ann", "ann@example.com", nil); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		}
		if err := syscall.Kill(p.PID, 0); err != syscall.ESRCH {
			t.Errorf("process %d: %v", p.PID, err)
		}
		if _, err := p.Token(context.Background(), "ann", "ann@example.com", nil); err == nil {
			t.Error("a token from a provider that is not there")
		}
	}
}

// A browser stops before a relying party that nobody serves, and delivers the answer
// to one that somebody does.
func TestBrowserFollowsAnAuthorizationRequest(t *testing.T) {
	p, err := Start(t.Context(), Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	delivered := make(chan url.Values, 1)
	party := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { delivered <- r.URL.Query() }))
	t.Cleanup(party.Close)
	request := url.Values{"client_id": {DefaultClient}, "response_type": {"code"}, "scope": {"openid"}, "state": {"s-1"}, "redirect_uri": {party.URL + "/callback"}}
	address := p.Issuer + "/auth?" + request.Encode()
	browser := NewBrowser(Person{User: "ann", Email: "ann@example.com"})
	answer, err := browser.Authorize(t.Context(), address)
	if err != nil || answer.Get("code") == "" || answer.Get("state") != "s-1" || len(delivered) != 0 {
		t.Errorf("got %v, %v", answer, err)
	}
	if _, err := browser.Visit(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	if answer := <-delivered; answer.Get("code") == "" || answer.Get("state") != "s-1" {
		t.Errorf("delivered %v", answer)
	}
	if _, err := browser.Authorize(t.Context(), p.Issuer+"/auth"); err == nil {
		t.Error("an address that asks for nothing is followed")
	}
}
