package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// Issuer is one identity provider that is trusted, and what its tokens stand
// for (contract section 2, identity.issuers).
type Issuer struct {
	Issuer      string    // the exact "iss" of its tokens; https, or http on loopback
	ClientID    string    // the client that people sign in with
	Audiences   []string  // accepted "aud" values; empty: ClientID
	UserClaim   string    // claim that names the user; empty: email, else sub
	GroupsClaim string    // claim that lists the groups; empty: groups; a.b looks inside objects
	Kind        flow.Kind // empty: human
	CAFile      string    // PEM bundle that signs the provider's certificate; empty: the system's
}

const (
	// maxResponse bounds what a provider may answer: discovery documents and key
	// sets are a few KiB.
	maxResponse = 1 << 20
	// httpTimeout bounds one request to a provider, connect to last byte.
	httpTimeout  = 10 * time.Second
	maxRedirects = 3
)

// withDefaults checks an issuer and fills in what was left out.
func (i Issuer) withDefaults() (Issuer, error) {
	if err := checkURL(i.Issuer); err != nil {
		return i, fmt.Errorf("issuer %s: %w", quote(i.Issuer), err)
	}
	if i.ClientID == "" && len(i.Audiences) == 0 {
		return i, fmt.Errorf("issuer %s: client_id or audiences is needed: without one every token of the provider would do", quote(i.Issuer))
	}
	if len(i.Audiences) == 0 {
		i.Audiences = []string{i.ClientID}
	}
	for _, a := range i.Audiences {
		if a == "" {
			return i, fmt.Errorf("issuer %s: an audience is empty", quote(i.Issuer))
		}
	}
	if i.GroupsClaim == "" {
		i.GroupsClaim = "groups"
	}
	switch i.Kind {
	case "":
		i.Kind = flow.Human
	case flow.Human, flow.CI, flow.Workload, flow.Agent:
	default:
		return i, fmt.Errorf("issuer %s: kind %s is none of human, ci, workload, agent", quote(i.Issuer), quote(string(i.Kind)))
	}
	return i, nil
}

// checkURL accepts https, and http where the traffic stays on this machine: who
// can change a key set on the way can be anybody.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%s is not a URL with a host", quote(s))
	}
	switch {
	case u.User != nil || u.Fragment != "":
		return fmt.Errorf("%s must not hold a user or a fragment", quote(s))
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%s must be https (http is accepted on loopback only)", quote(s))
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// newHTTPClient returns a client for one provider: bounded answers, bounded
// time, no redirect to plain text, and only caFile's certificates if there is one.
func newHTTPClient(caFile string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // calls are minutes apart
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no PEM certificate", caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Transport: boundedTransport{transport},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			return checkURL(r.URL.String())
		},
	}, nil
}

// boundedTransport cuts answers off at maxResponse bytes and httpTimeout. It is
// used instead of http.Client.Timeout, which keeps a goroutine for every answer
// that nobody closes (x/oauth2 leaves that of the device flow open).
type boundedTransport struct{ next http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(r.Context(), httpTimeout)
	resp, err := t.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &boundedBody{io.LimitReader(resp.Body, maxResponse), resp.Body, cancel}
	return resp, nil
}

type boundedBody struct {
	reader io.Reader
	body   io.Closer
	cancel context.CancelFunc
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.reader.Read(p)
	if err != nil {
		_ = b.Close() // all is read, or the reader learns err
	}
	return n, err
}

func (b *boundedBody) Close() error {
	defer b.cancel()
	return b.body.Close()
}
