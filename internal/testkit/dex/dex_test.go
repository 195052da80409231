package dex

import (
	"context"
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
