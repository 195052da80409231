package kv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/kv"
)

func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	ctx := t.Context()
	s := open(t, dir)
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the folder is %v, %v", fi.Mode(), err)
	}
	b := bucket(t, s, kv.Options{})
	kept := must(t)(b.Create(ctx, "kept", []byte("1")))
	kept = must(t)(b.Update(ctx, "kept", []byte("2"), kept))
	if err := b.Delete(ctx, "gone", must(t)(b.Create(ctx, "gone", []byte("x")))); err != nil {
		t.Fatal(err)
	}
	closeServer(t, s)
	closeServer(t, s) // twice is fine

	b = bucket(t, open(t, dir), kv.Options{})
	wantValue(t, b, "kept", "2", kept)
	_, err := b.Get(ctx, "gone")
	wantErr(t, "get of what was deleted", err, kv.ErrNotFound)
	_, err = b.Create(ctx, "kept", nil)
	wantErr(t, "create of what was there", err, kv.ErrExists)
	if again := must(t)(b.Update(ctx, "kept", []byte("3"), kept)); again <= kept {
		t.Errorf("revision %d after %d", again, kept)
	}
}

func TestClosed(t *testing.T) {
	s, ctx := open(t, t.TempDir()), t.Context()
	b := bucket(t, s, kv.Options{})
	must(t)(b.Create(ctx, "a", []byte("1")))
	w, err := b.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	next(t, w)
	ended := make(chan error)
	go func() { _, err := w.Next(ctx); ended <- err }()
	closeServer(t, s)
	wantErr(t, "next", <-ended, kv.ErrClosed)
	_, create := b.Create(ctx, "b", nil)
	_, get := b.Get(ctx, "a")
	_, update := b.Update(ctx, "a", nil, 1)
	_, put := b.Put(ctx, "a", nil)
	_, list := b.List(ctx)
	_, watch := b.Watch(ctx)
	_, again := s.Bucket(ctx, "test", kv.Options{})
	for i, err := range []error{create, get, update, put, b.Delete(ctx, "a", 0), list, watch, again} {
		wantErr(t, fmt.Sprintf("call %d after Close", i), err, kv.ErrClosed)
	}
	w.Close()
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := kv.Open(t.Context(), kv.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process uses the store") {
		t.Errorf("a folder that is in use: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Open(t.Context(), kv.Config{Dir: file}); err == nil {
		t.Error("a file for a folder")
	}
	// What the server itself cannot use: it says why, at once, and lets go of the folder.
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := kv.Open(t.Context(), kv.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "JetStream") {
			t.Errorf("a folder of something else: %v", err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := kv.Open(ended, kv.Config{Dir: t.TempDir()})
	wantErr(t, "open with a context that has ended", err, context.Canceled)
}

// TestLog: nothing of what is stored gets into the log, and what works leaves no line.
func TestLog(t *testing.T) {
	var log bytes.Buffer // read after Close
	dir, ctx := t.TempDir(), t.Context()
	const secret = "hunter2-payload"
	for range 2 {
		s, err := kv.Open(ctx, kv.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		b := bucket(t, s, kv.Options{MaxValue: 100})
		if _, err := b.Create(ctx, "a", []byte(secret)); err != nil && !errors.Is(err, kv.ErrExists) {
			t.Error(err)
		}
		if _, err := b.Update(ctx, "a", []byte(secret), 999); err == nil || strings.Contains(err.Error(), secret) {
			t.Error(err)
		}
		if _, err := b.Put(ctx, "a", []byte(strings.Repeat(secret, 100))); err == nil || strings.Contains(err.Error(), secret) {
			t.Error(err)
		}
		closeServer(t, s)
	}
	if log.Len() > 0 {
		t.Errorf("the log has:\n%s", log.String())
	}
}

// BenchmarkCreateUpdate is what a decision costs: two writes that reach the disk.
func BenchmarkCreateUpdate(b *testing.B) {
	bk := bucket(b, open(b, b.TempDir()), kv.Options{})
	value, i := bytes.Repeat([]byte("x"), 2<<10), 0
	for b.Loop() {
		i++
		key := fmt.Sprintf("k%d", i)
		must(b)(bk.Update(b.Context(), key, value, must(b)(bk.Create(b.Context(), key, value))))
	}
}
