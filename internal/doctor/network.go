package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// maxDiscovery bounds a provider's answer, bytes; real ones have about 4 KiB.
const maxDiscovery = 1 << 20

func checkIssuers(ctx context.Context, o *Options) []Check {
	if len(o.Issuers) == 0 {
		return []Check{{Name: "identity providers", Status: Warn, Detail: "none is configured", Cost: "nobody can sign in, so every connection to a backend is refused", Fix: "add one under identity.issuers"}}
	}
	var out []Check
	for _, i := range o.Issuers {
		name := "identity provider " + i.URL
		if err := discover(ctx, i); err != nil {
			out = append(out, Check{Name: name, Status: Warn, Detail: oneLine(err), Cost: "nobody new can sign in; who is signed in stays so while its keys are known", Fix: "look at the provider, its address, and issuer and ca_file in the configuration"})
			continue
		}
		out = append(out, ok(name, "answers"))
	}
	return out
}

// discover reads the provider's metadata (OpenID Connect Discovery 1.0, 4).
func discover(ctx context.Context, i Issuer) error {
	ctx, cancel := context.WithTimeout(ctx, netTimeout)
	defer cancel()
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if i.CAFile != "" {
		b, err := os.ReadFile(i.CAFile)
		if err != nil {
			return err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(b) {
			return fmt.Errorf("%s holds no certificate", i.CAFile)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(i.URL, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	var meta struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDiscovery)).Decode(&meta); err != nil {
		return errors.New("its answer is no OpenID Connect discovery document")
	}
	if meta.Issuer != i.URL {
		return fmt.Errorf("it calls itself %q; the issuer must be written exactly so", meta.Issuer)
	}
	if meta.JWKS == "" {
		return errors.New("it names no keys (jwks_uri)")
	}
	return nil
}

func checkBackends(ctx context.Context, o *Options) []Check {
	var out []Check
	for _, b := range o.Backends {
		name := "backend " + b.Name
		var unknown []string
		names := 0
		for _, h := range b.Hosts {
			if isAddress(h) {
				continue
			}
			names++
			if err := resolve(ctx, o, h); err != nil {
				unknown = append(unknown, h)
			}
		}
		switch {
		case len(unknown) > 0:
			out = append(out, Check{Name: name, Status: Warn, Detail: "cannot be resolved: " + strings.Join(unknown, ", "),
				Cost: "connections to that name are not captured, since its addresses are not known", Fix: "correct the name, or look at this machine's resolver"})
		case names > 0:
			out = append(out, ok(name, "%s resolved", count(names, "name", "names")))
		default:
			out = append(out, ok(name, "addresses only"))
		}
	}
	return out
}

func isAddress(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	_, err := netip.ParsePrefix(h)
	return err == nil
}

func resolve(ctx context.Context, o *Options, host string) error {
	ctx, cancel := context.WithTimeout(ctx, netTimeout)
	defer cancel()
	addresses, err := o.LookupHost(ctx, host)
	if err == nil && len(addresses) == 0 {
		err = errors.New("no address")
	}
	return err
}
