package console

import (
	"context"
	"net/url"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/identity"
	"github.com/weirproxy/weir/internal/testkit"
	"github.com/weirproxy/weir/internal/testkit/dex"
)

// realSignIn is identity's, as cmd/weir wires it.
type realSignIn struct{ web *identity.Web }

func (s realSignIn) Begin(ctx context.Context, req SignInRequest) (string, Pending, error) {
	address, pending, err := s.web.Begin(ctx, identity.WebRequest(req))
	return address, Pending(pending), err
}

func (s realSignIn) Answer(ctx context.Context, pending Pending, q url.Values) (string, error) {
	return s.web.Answer(ctx, identity.Pending(pending), q)
}

// TestRealProvider: somebody signs in and approves at a real provider, and the token that
// reaches the service proves it.
func TestRealProvider(t *testing.T) {
	w := newWorld(t, "", deletion("req1", "idp"))
	w.service.requests["req1"].MaxAge = 0 // Dex does not say when somebody signed in
	p := testkit.StartDex(t, dex.Config{})
	verifier, err := identity.NewVerifier(identity.VerifierConfig{Issuers: []identity.Issuer{{Issuer: p.Issuer, ClientID: dex.DefaultClient, Kind: flow.Human}}})
	if err != nil {
		t.Fatal(err)
	}
	web, err := identity.NewWeb(identity.WebConfig{Issuer: p.Issuer, ClientID: dex.DefaultClient, RedirectURL: w.server.URL + "/callback"})
	if err != nil {
		t.Fatal(err)
	}
	// The clock of the sessions is that of the tokens.
	c, err := New(Config{URL: w.server.URL, Issuers: []Issuer{{"dex", realSignIn{web}}}, Verify: verifier.Verify, Approvals: w.console.cfg.Approvals})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	w.handler = c.Handler()
	b := w.browser()
	atProvider := func(a answer) answer {
		t.Helper()
		to := b.get(a.Header.Get("Location")).Header.Get("Refresh")
		q, err := dex.NewBrowser(dex.Person{User: "bob", Email: "bob@example.com", Groups: []string{"dba"}}).Authorize(t.Context(), to[len("0; url="):])
		if err != nil {
			t.Fatal(err)
		}
		return b.get("/callback?" + q.Encode())
	}
	if a := atProvider(b.post("/signin", url.Values{"form": {b.form("/signin")}, "issuer": {"0"}, "next": {"/approvals/req1"}})); a.Header.Get("Location") != "/approvals/req1" {
		t.Fatalf("signing in gave %d: %s", a.StatusCode, a.body)
	}
	a := atProvider(b.post("/approvals/req1/approve", url.Values{"form": {b.form("/approvals/req1")}}))
	b.result(a).wants(t, 200, "Approved", "bob@example.com", "signed in at the identity provider for this request")
	got := w.service.last(t)
	proof, err := verifier.VerifyProof(t.Context(), got.a.Token, identity.Want{Nonce: "nonce-of-req1"})
	if err != nil || proof.Principal.User != "bob@example.com" {
		t.Errorf("the token proves %+v: %v", proof, err)
	}
	if _, err := verifier.VerifyProof(t.Context(), got.a.Token, identity.Want{Nonce: "nonce-of-req2"}); err == nil {
		t.Error("it proves another decision too")
	}
}
