package testkit

import (
	"context"
	"testing"

	"github.com/weirproxy/weir/internal/testkit/dex"
)

// StartDex runs a real identity provider for the test. Dir may be left empty.
func StartDex(t testing.TB, cfg dex.Config) *dex.Provider {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	p, err := dex.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}
