package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/weirproxy/weir/internal/anchor"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// startAnchors takes the sealed log's heads to witnesses, a time-stamping authority
// and an object store, as far as they are configured.
func (a *agent) startAnchors(context.Context) error {
	audit := a.cfg.Audit
	c := anchor.Config{StateDir: a.cfg.StateDir, Key: a.audit.PublicKey(), Log: a.log, Problem: func(text string) { a.setProblem("anchors", text) }}
	for i, w := range audit.Witnesses {
		key, err := auditlog.ParseWitnessKey(w.Key)
		if err != nil {
			return fmt.Errorf("audit.witnesses, entry %d: %w", i+1, err)
		}
		c.Witnesses = append(c.Witnesses, anchor.Witness{URL: w.URL, Key: key})
	}
	if audit.Timestamp.URL != "" {
		roots, err := rootsIn(audit.Timestamp.CAFile)
		if err != nil {
			return fmt.Errorf("audit.timestamp: %w", err)
		}
		c.Stamper = &anchor.Stamper{URL: audit.Timestamp.URL, Roots: roots}
	}
	if audit.Copy.Endpoint != "" {
		store, err := a.copyStore(audit.Copy)
		if err != nil {
			return fmt.Errorf("audit.copy: %w", err)
		}
		c.Store = store
	}
	if len(c.Witnesses) == 0 && c.Stamper == nil && c.Store == nil {
		return nil
	}
	anchors, err := anchor.Open(c)
	if err != nil {
		return err
	}
	a.onStop("anchors", anchors.Close)
	return nil
}

func (a *agent) copyStore(c config.Copy) (*anchor.Store, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, err
	}
	roots, err := rootsIn(c.CAFile)
	if err != nil {
		return nil, err
	}
	return &anchor.Store{Endpoint: c.Endpoint, Host: u.Host, Secure: u.Scheme == "https", Region: c.Region, Bucket: c.Bucket, Prefix: c.Prefix,
		Retain: time.Duration(c.Lock), Roots: roots, Keys: func(ctx context.Context) (string, string, error) {
			access, _, err := a.secrets.Get(ctx, c.AccessKey)
			if err != nil {
				return "", "", err
			}
			secret, _, err := a.secrets.Get(ctx, c.SecretKey)
			return access.Reveal(), secret.Reveal(), err
		}}, nil
}

// rootsIn reads certificates; nil, the system's roots, without a file.
func rootsIn(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}
