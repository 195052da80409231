package policystore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
)

func text(rule string) string {
	return fmt.Sprintf("policies:\n  - name: p\n    rules: [{name: %s, effect: allow}]\n", rule)
}

const broken = "policies:\n  - nam: p\n"

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace writes as editors do: a new file, renamed over the old one.
func replace(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// told collects what OnLoad is told.
type told struct {
	mu     sync.Mutex
	loads  int
	errors []string
}

func (l *told) onLoad(before, after *policy.Set, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if before != after {
			panic("a failure changes the set")
		}
		l.errors = append(l.errors, err.Error())
		return
	}
	l.loads++
}

func (l *told) counts() (loads, failures int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loads, len(l.errors)
}

func inForce(s *Store) string {
	d := s.Current().Decide(policy.Input{Flow: &flow.Flow{Backend: "b"}, Action: &flow.Action{Accesses: []flow.Access{{Verb: flow.Select, Resource: "a.b"}}}})
	return d.Rule
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	var l told
	s := New(Config{Paths: []string{path}, OnLoad: l.onLoad})
	if inForce(s) != "" || s.Current().Revision() != "" {
		t.Error("an empty store allows")
	}
	if _, err := s.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	write(t, path, text("one"))
	if changed, err := s.Load(); err != nil || !changed || inForce(s) != "one" {
		t.Fatalf("%v %v", changed, err)
	}
	if changed, err := s.Reload(); err != nil || changed {
		t.Errorf("an unchanged file: %v %v", changed, err)
	}
	write(t, path, broken)
	revision := s.Current().Revision()
	if _, err := s.Reload(); err == nil || !strings.Contains(err.Error(), path+":2: unknown key") {
		t.Errorf("a broken file: %v", err)
	}
	if inForce(s) != "one" || s.Current().Revision() != revision {
		t.Error("a broken file replaces a working one")
	}
	write(t, path, text("two"))
	if _, err := s.Reload(); err != nil || inForce(s) != "two" {
		t.Error(err)
	}
	if loads, failures := l.counts(); loads != 2 || failures != 2 {
		t.Errorf("%d loads and %d failures were told", loads, failures)
	}
	write(t, path, "# being written\n")
	if _, err := s.Reload(); err == nil || !strings.Contains(err.Error(), "empty") || inForce(s) != "two" {
		t.Errorf("an empty file: %v", err)
	}
	write(t, path, strings.Repeat("#", 5<<20))
	if _, err := s.Reload(); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge file: %v", err)
	}
}

// watch starts Watch and stops it with the test.
func watch(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, text("one"))
	var l told
	s := New(Config{Paths: []string{path}, OnLoad: l.onLoad})
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	watch(t, s)
	now := func(rule string) func() bool { return func() bool { return inForce(s) == rule } }

	replace(t, path, text("renamed"))
	waitFor(t, "a file replaced by rename", now("renamed"))
	replace(t, path, text("again"))
	waitFor(t, "a second rename", now("again"))
	write(t, path, text("inplace"))
	waitFor(t, "a file written in place", now("inplace"))

	replace(t, path, broken)
	waitFor(t, "the report of a broken file", func() bool { _, f := l.counts(); return f > 0 })
	if inForce(s) != "inplace" {
		t.Error("a broken file replaces a working one")
	}
	// Something else changes in the folder: the same failure is not told again.
	write(t, filepath.Join(filepath.Dir(path), "other"), "x")
	if _, err := s.load(true); err == nil {
		t.Error("the broken file loads")
	}
	if _, failures := l.counts(); failures != 1 {
		t.Errorf("%d failures were told for one", failures)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the report of a missing file", func() bool { _, f := l.counts(); return f > 1 })
	write(t, path, text("back"))
	waitFor(t, "a file that comes back", now("back"))
}

// Kubernetes mounts a ConfigMap as link -> ..data/policy.yaml, ..data -> a dated
// folder, and swaps ..data by rename.
func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	version := func(n int, content string) {
		t.Helper()
		name := fmt.Sprintf("..2026_%d", n)
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "policy.yaml"), content)
		if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		if n > 1 {
			if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2026_%d", n-1))); err != nil {
				t.Fatal(err)
			}
		}
	}
	version(1, text("v1"))
	path := filepath.Join(dir, "policy.yaml")
	if err := os.Symlink("..data/policy.yaml", path); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Paths: []string{path}})
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	watch(t, s)
	for n := 2; n < 5; n++ {
		rule := fmt.Sprintf("v%d", n)
		version(n, text(rule))
		waitFor(t, "version "+rule, func() bool { return inForce(s) == rule })
	}
}

// A link to a file elsewhere: the change is in the other folder.
func TestWatchLinkedFile(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "real.yaml")
	write(t, elsewhere, text("one"))
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Paths: []string{path}})
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	watch(t, s)
	replace(t, elsewhere, text("two"))
	waitFor(t, "the linked file's change", func() bool { return inForce(s) == "two" })
}

// Decisions go on while sets are swapped.
func TestSwapWhileDeciding(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, text("one"))
	s := New(Config{Paths: []string{path}})
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if inForce(s) == "" {
						t.Error("nothing is in force")
						return
					}
				}
			}
		})
	}
	for i := range 50 {
		replace(t, path, text(fmt.Sprintf("r%d", i)))
		if _, err := s.Reload(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}
