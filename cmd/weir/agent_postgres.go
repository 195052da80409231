package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/catalog"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/explain"
	"github.com/weirproxy/weir/internal/proto/postgres"
	"github.com/weirproxy/weir/internal/redirect"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/internal/sqlparse"
	"github.com/weirproxy/weir/internal/upstream"
)

// fixedDestinations are the configured prefixes; names come from the resolver.
func (a *agent) fixedDestinations() []redirect.Destination {
	var all []redirect.Destination
	for i, b := range a.cfg.Backends {
		for _, addr := range b.Addresses {
			if addr.Host == "" {
				all = append(all, redirect.Destination{Prefix: addr.Prefix, Port: addr.Port, Backend: i})
			}
		}
	}
	return all
}

// resolve looks the configured names up and returns all that is to be protected
// now; no resolver when there are no names.
func (a *agent) resolve(ctx context.Context) (*redirect.Resolver, []redirect.Destination, error) {
	var names []redirect.Name
	for i, b := range a.cfg.Backends {
		for _, addr := range b.Addresses {
			if addr.Host != "" {
				names = append(names, redirect.Name{Host: addr.Host, Port: addr.Port, Backend: i})
			}
		}
	}
	if len(names) == 0 {
		return nil, a.fixedDestinations(), nil
	}
	r, err := redirect.NewResolver(redirect.ResolverConfig{Static: a.fixedDestinations(), Names: names, Log: a.log})
	if err != nil {
		return nil, nil, err
	}
	found, err := r.Resolve(ctx)
	if err != nil {
		a.log.Warn("not every backend's name resolves; those are not protected until it does", "error", err)
	}
	return r, found, nil
}

func (a *agent) backend(name string) *config.Backend {
	for i := range a.cfg.Backends {
		if a.cfg.Backends[i].Name == name {
			return &a.cfg.Backends[i]
		}
	}
	return &config.Backend{}
}

func (a *agent) upstreamBackends() map[string]upstream.Backend {
	all := map[string]upstream.Backend{}
	for _, b := range a.cfg.Backends {
		all[b.Name] = upstream.Backend{Dial: b.Dial, Names: b.Names(),
			TLS: upstream.TLS{Mode: b.TLS.Mode, CAFile: b.TLS.CAFile, ServerName: b.TLS.ServerName}}
	}
	return all
}

// maxGrants bounds the databases that catalogues can be asked about at once; pods
// come and go with their namespaces.
const maxGrants = 4096

// catalogues gives the PostgreSQL engine its pictures of databases. A picture
// belongs to a backend as one network namespace sees it, and a database there.
type catalogues struct {
	cache  *catalog.Cache
	dialer *upstream.Dialer

	mu     sync.Mutex
	grants map[catalog.Key]session.Grant // the latest admission, to look things up with
}

func (c *catalogues) key(g session.Grant) catalog.Key {
	f := g.Flow()
	k := catalog.Key{Backend: f.Backend, Address: f.Destination.String(), Namespace: f.Process.NetNS, Database: f.Database, Login: f.Login}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.grants[k]; !known && len(c.grants) >= maxGrants {
		for old := range c.grants { // whoever still needs it puts it back with their next statement
			delete(c.grants, old)
			break
		}
	}
	c.grants[k] = g
	return k
}

func (c *catalogues) connect(ctx context.Context, k catalog.Key) (*catalog.Conn, error) {
	c.mu.Lock()
	g, ok := c.grants[k]
	c.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("no flow has been admitted to database %q of backend %q", k.Database, k.Backend)
	}
	return c.dialer.ConnectCatalogue(ctx, g)
}

func (a *agent) postgresHandler(dialer *upstream.Dialer) (session.Handler, error) {
	key, err := a.maskKey()
	if err != nil {
		return nil, fmt.Errorf("the key for hashes and tokens: %w", err)
	}
	cats := &catalogues{dialer: dialer, grants: map[catalog.Key]session.Grant{}}
	cats.cache = catalog.New(catalog.Config{Connect: cats.connect, Log: a.log})
	a.catalogs = cats.cache
	a.onStop("catalogues", func() error { cats.cache.Close(); return nil })
	analyzer := &sqlparse.Analyzer{Pool: a.parser, Cache: sqlparse.NewCache(0)}
	return postgres.New(postgres.Config{
		Analyze:        analyzer.Analyze,
		Foresee:        analyzer.Foresee,
		Explain:        explainer(dialer),
		Catalog:        cats.get,
		Invalidate:     func(g session.Grant) { cats.cache.Invalidate(cats.key(g)) },
		Defaults:       cats.defaults,
		SignIn:         signIn(dialer),
		CancelUpstream: dialer.CancelPostgres,
		TLS: func(g *session.Gate, _ string) (*tls.Config, error) {
			return a.tlsFor(g, a.backend(g.Flow().Backend).Names()), nil
		},
		Masks: postgres.MaskConfig{Key: key, Custom: func() map[string]string { return a.policy.Current().Detectors() }},
		Log:   a.log, Now: time.Now,
	})
}

// explainer asks backends about statements that wait for approval, a few at a time at
// each.
func explainer(d *upstream.Dialer) func(context.Context, session.Grant, postgres.ExplainRequest) (postgres.Explained, error) {
	e := explain.New(d.ConnectCatalogue)
	return func(ctx context.Context, g session.Grant, r postgres.ExplainRequest) (postgres.Explained, error) {
		in := explain.Request{Forecast: r.Forecast, Text: r.Text, Types: r.Types, Values: r.Values, Formats: r.Formats, Kept: r.Kept}
		for _, s := range r.Settings {
			in.Settings = append(in.Settings, explain.Setting(s))
		}
		a, err := e.Explain(ctx, g, in)
		return postgres.Explained(a), err
	}
}

func signIn(d *upstream.Dialer) func(context.Context, session.Grant, map[string]string) (*postgres.Upstream, error) {
	return func(ctx context.Context, g session.Grant, params map[string]string) (*postgres.Upstream, error) {
		s, err := d.SignInPostgres(ctx, g, params)
		if err != nil {
			return nil, err
		}
		return &postgres.Upstream{Conn: s.Conn, PID: s.PID, Secret: s.Secret, Parameters: s.Parameters, TxStatus: s.TxStatus, Address: s.Address}, nil
	}
}

func (c *catalogues) get(ctx context.Context, g session.Grant) (*sqlmeta.Catalog, error) {
	return c.cache.Get(ctx, c.key(g))
}

func (c *catalogues) defaults(ctx context.Context, g session.Grant) (postgres.Defaults, error) {
	d, err := c.cache.Defaults(ctx, c.key(g))
	if err != nil {
		return postgres.Defaults{}, err
	}
	return postgres.Defaults{SearchPath: d.SearchPath, Role: d.Role}, nil
}
