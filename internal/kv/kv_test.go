package kv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/kv"
)

// patience bounds what a test waits for.
const patience = 30 * time.Second

func open(t testing.TB, dir string) *kv.Server {
	t.Helper()
	s, err := kv.Open(t.Context(), kv.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeServer(t, s) })
	return s
}

func closeServer(t testing.TB, s *kv.Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func bucket(t testing.TB, s *kv.Server, o kv.Options) *kv.Bucket {
	t.Helper()
	b, err := s.Bucket(t.Context(), "test", o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// must returns the revision of a write.
func must(t testing.TB) func(uint64, error) uint64 {
	return func(revision uint64, err error) uint64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func wantValue(t testing.TB, b *kv.Bucket, key, value string, revision uint64) {
	t.Helper()
	e, err := b.Get(t.Context(), key)
	if err != nil {
		t.Errorf("get %s: %v", key, err)
	} else if e.Key != key || string(e.Value) != value || e.Revision != revision || e.Deleted {
		t.Errorf("get %s: %+v, want %q at %d", key, e, value, revision)
	}
}

func next(t testing.TB, w *kv.Watch) kv.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	e, err := w.Next(ctx)
	if err != nil {
		t.Fatalf("next of the watch: %v", err)
	}
	return e
}

func TestCompareAndSet(t *testing.T) {
	b, ctx := bucket(t, open(t, t.TempDir()), kv.Options{}), t.Context()
	_, err := b.Get(ctx, "a")
	wantErr(t, "get of nothing", err, kv.ErrNotFound)
	_, err = b.Update(ctx, "a", []byte("x"), 7)
	wantErr(t, "update of nothing", err, kv.ErrConflict)
	_, err = b.Update(ctx, "a", []byte("x"), 0)
	wantErr(t, "update of nothing at no revision", err, kv.ErrConflict)
	wantErr(t, "delete of nothing at a revision", b.Delete(ctx, "a", 7), kv.ErrConflict)

	first := must(t)(b.Create(ctx, "a", []byte("1")))
	_, err = b.Create(ctx, "a", []byte("x"))
	wantErr(t, "create of what exists", err, kv.ErrExists)
	wantValue(t, b, "a", "1", first)

	second := must(t)(b.Update(ctx, "a", []byte("2"), first))
	_, err = b.Update(ctx, "a", []byte("x"), first)
	wantErr(t, "stale update", err, kv.ErrConflict)
	wantErr(t, "stale delete", b.Delete(ctx, "a", first), kv.ErrConflict)
	wantValue(t, b, "a", "2", second)

	if err := b.Delete(ctx, "a", second); err != nil {
		t.Fatal(err)
	}
	_, err = b.Get(ctx, "a")
	wantErr(t, "get of what is deleted", err, kv.ErrNotFound)
	_, err = b.Update(ctx, "a", []byte("x"), second)
	wantErr(t, "update of what is deleted", err, kv.ErrConflict)

	third := must(t)(b.Create(ctx, "a", nil))
	wantValue(t, b, "a", "", third)
	fourth := must(t)(b.Put(ctx, "a", []byte("4")))
	wantValue(t, b, "a", "4", fourth)
	if err := b.Delete(ctx, "a", 0); err != nil {
		t.Errorf("delete whatever it is: %v", err)
	}
	_, err = b.Get(ctx, "a")
	wantErr(t, "get of what is deleted", err, kv.ErrNotFound)
	if first >= second || second >= third || third >= fourth {
		t.Errorf("revisions do not grow: %d %d %d %d", first, second, third, fourth)
	}
}

// TestRace lets many create, update and delete the same key at the same time, again and
// again: one wins each time, all others learn so.
func TestRace(t *testing.T) {
	b, ctx := bucket(t, open(t, t.TempDir()), kv.Options{}), t.Context()
	const rivals, rounds = 8, 10
	// contest returns the revision of the one who won.
	contest := func(what string, lost error, try func(i int) (uint64, error)) uint64 {
		var won atomic.Uint64
		var winners atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range rivals {
			wg.Go(func() {
				<-start
				revision, err := try(i)
				if err == nil {
					winners.Add(1)
					won.Store(revision)
				} else if !errors.Is(err, lost) {
					t.Errorf("%s: %v, want %v", what, err, lost)
				}
			})
		}
		close(start)
		wg.Wait()
		if n := winners.Load(); n != 1 {
			t.Fatalf("%s: %d of %d won", what, n, rivals)
		}
		return won.Load()
	}
	for range rounds { // from the second one on over a deleted key
		revision := contest("create", kv.ErrExists, func(i int) (uint64, error) { return b.Create(ctx, "a", fmt.Append(nil, i)) })
		revision = contest("update", kv.ErrConflict, func(i int) (uint64, error) { return b.Update(ctx, "a", fmt.Append(nil, i), revision) })
		contest("delete", kv.ErrConflict, func(int) (uint64, error) { return 0, b.Delete(ctx, "a", revision) })
	}
}

func TestList(t *testing.T) {
	b, ctx := bucket(t, open(t, t.TempDir()), kv.Options{}), t.Context()
	if all, err := b.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("list of nothing: %v, %v", all, err)
	}
	var want []string
	for i := range 300 {
		must(t)(b.Create(ctx, fmt.Sprintf("k.%d", i), fmt.Append(nil, i)))
	}
	for i := range 300 {
		switch key := fmt.Sprintf("k.%d", i); i % 3 {
		case 0:
			if err := b.Delete(ctx, key, 0); err != nil {
				t.Fatal(err)
			}
		case 1:
			want = append(want, key+"="+fmt.Sprint(i))
		}
	}
	for i := 2; i < 300; i += 3 { // become the latest
		must(t)(b.Put(ctx, fmt.Sprintf("k.%d", i), []byte("new")))
		want = append(want, fmt.Sprintf("k.%d=new", i))
	}
	all, err := b.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range all {
		got = append(got, e.Key+"="+string(e.Value))
	}
	if g, w := strings.Join(got, " "), strings.Join(want, " "); g != w {
		t.Errorf("list:\n%s\nwant:\n%s", g, w)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = b.List(ended)
	wantErr(t, "list with a context that has ended", err, context.Canceled)
}

func TestWatch(t *testing.T) {
	b, ctx := bucket(t, open(t, t.TempDir()), kv.Options{}), t.Context()
	one := must(t)(b.Create(ctx, "one", []byte("1")))
	gone := must(t)(b.Create(ctx, "gone", nil))
	two := must(t)(b.Create(ctx, "two", []byte("2")))
	if err := b.Delete(ctx, "gone", gone); err != nil {
		t.Fatal(err)
	}
	w, err := b.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	want := func(key, value string, revision uint64, deleted bool) {
		t.Helper()
		e := next(t, w)
		if e.Key != key || string(e.Value) != value || e.Deleted != deleted || (revision != 0 && e.Revision != revision) {
			t.Fatalf("watch: %+v, want %s=%q at %d, deleted %v", e, key, value, revision, deleted)
		}
	}
	want("one", "1", one, false)
	want("two", "2", two, false)
	select {
	case <-w.Current():
		t.Error("current before all was read")
	default:
	}
	short, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { _, err := w.Next(short); done <- err }()
	<-w.Current()
	cancel()
	wantErr(t, "next without a change", <-done, context.Canceled)

	two = must(t)(b.Update(ctx, "two", []byte("22"), two))
	if err := b.Delete(ctx, "one", one); err != nil {
		t.Fatal(err)
	}
	three := must(t)(b.Create(ctx, "three", []byte("3")))
	one = must(t)(b.Create(ctx, "one", []byte("11")))
	want("two", "22", two, false)
	want("one", "", 0, true)
	want("three", "3", three, false)
	want("one", "11", one, false)

	go func() { _, err := w.Next(ctx); done <- err }()
	w.Close()
	wantErr(t, "next of a closed watch", <-done, kv.ErrClosed)
	w.Close()
}

// TestWatchBusy watches a bucket that changes all the while: whatever the watch yields
// adds up to what is there.
func TestWatchBusy(t *testing.T) {
	b, ctx := bucket(t, open(t, t.TempDir()), kv.Options{}), t.Context()
	var wg sync.WaitGroup
	for i := range 4 {
		key := fmt.Sprintf("k%d", i)
		wg.Go(func() {
			for n := range 50 {
				if revision, err := b.Create(ctx, key, fmt.Append(nil, n)); err != nil {
					t.Errorf("create: %v", err)
				} else if err := b.Delete(ctx, key, revision); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
			if _, err := b.Create(ctx, key, []byte("end")); err != nil {
				t.Error(err)
			}
		})
	}
	for range 5 {
		w, err := b.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		wg.Go(func() {
			state, last := map[string]string{}, uint64(0)
			for !(len(state) == 4 && state["k0"] == "end" && state["k1"] == "end" && state["k2"] == "end" && state["k3"] == "end") {
				e, err := w.Next(ctx)
				if err != nil || e.Revision <= last {
					t.Errorf("next: %+v after %d, %v", e, last, err)
					return
				}
				last = e.Revision
				if e.Deleted {
					delete(state, e.Key)
				} else {
					state[e.Key] = string(e.Value)
				}
			}
		})
	}
	wg.Wait()
}

func TestWatchEndsWithContext(t *testing.T) {
	b := bucket(t, open(t, t.TempDir()), kv.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	w, err := b.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cancel()
	_, err = w.Next(t.Context())
	wantErr(t, "next after the watch's context", err, kv.ErrClosed)
	_, err = b.Watch(ctx)
	wantErr(t, "watch with a context that has ended", err, context.Canceled)
}

// TestTTL: a key goes by itself, a watch says so, and it can be made again. A change of
// the bucket's TTL counts for what is there already.
func TestTTL(t *testing.T) {
	s, ctx := open(t, t.TempDir()), t.Context()
	b := bucket(t, s, kv.Options{})
	must(t)(b.Create(ctx, "a", []byte("1")))
	w, err := b.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if e := next(t, w); e.Key != "a" || e.Deleted {
		t.Fatalf("watch: %+v", e)
	}
	b = bucket(t, s, kv.Options{TTL: time.Second})
	if e := next(t, w); e.Key != "a" || !e.Deleted {
		t.Fatalf("watch: %+v", e)
	}
	_, err = b.Get(ctx, "a")
	wantErr(t, "get after the TTL", err, kv.ErrNotFound)
	again := must(t)(b.Create(ctx, "a", []byte("2")))
	if e := next(t, w); e.Key != "a" || e.Revision != again || e.Deleted {
		t.Fatalf("watch: %+v", e)
	}
	if e := next(t, w); e.Key != "a" || !e.Deleted {
		t.Fatalf("watch: %+v", e)
	}
}

func TestBounds(t *testing.T) {
	s, ctx := open(t, t.TempDir()), t.Context()
	const most = 100
	b := bucket(t, s, kv.Options{MaxValue: most})
	fits, over := bytes.Repeat([]byte("x"), most), bytes.Repeat([]byte("x"), most+1)
	longest := strings.Repeat("k", 256)
	revision := must(t)(b.Create(ctx, longest, fits))
	revision = must(t)(b.Update(ctx, longest, fits, revision))
	must(t)(b.Put(ctx, "p", fits))
	_, create := b.Create(ctx, "b", over)
	_, update := b.Update(ctx, longest, over, revision)
	_, put := b.Put(ctx, "p", over)
	for _, err := range []error{create, update, put} {
		if err == nil || !strings.Contains(err.Error(), "101 bytes is longer than bucket test takes (100)") {
			t.Errorf("too long a value: %v", err)
		}
	}
	wantValue(t, b, longest, string(fits), revision)
	if err := b.Delete(ctx, longest, revision); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"", ".", ".a", "a.", "a..b", "a b", "a*", ">", "a/b", "é", "a\x00", "a\r\nPUB x", longest + "k"} {
		_, create := b.Create(ctx, key, nil)
		_, update := b.Update(ctx, key, nil, 1)
		_, put := b.Put(ctx, key, nil)
		_, get := b.Get(ctx, key)
		for _, err := range []error{create, update, put, get, b.Delete(ctx, key, 0)} {
			if err == nil || !strings.Contains(err.Error(), "key") || errors.Is(err, kv.ErrNotFound) || errors.Is(err, kv.ErrConflict) {
				t.Errorf("key %q: %v", key, err)
			}
		}
	}
	for _, max := range []int32{-1, 8 << 20, 1<<31 - 1} {
		if _, err := s.Bucket(ctx, "long", kv.Options{MaxValue: max}); err == nil || !strings.Contains(err.Error(), "do not fit") {
			t.Errorf("a bucket for values of %d bytes: %v", max, err)
		}
	}
	b, err := s.Bucket(ctx, "long", kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("x"), 8<<20-1<<10)
	must(t)(b.Create(ctx, "a", long))
	if e, err := b.Get(ctx, "a"); err != nil || !bytes.Equal(e.Value, long) {
		t.Errorf("the longest value: %d bytes, %v", len(e.Value), err)
	}
	if _, err := b.Create(ctx, "b", append(long, 'x')); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("more than the longest value: %v", err)
	}
}

func TestBuckets(t *testing.T) {
	s, ctx := open(t, t.TempDir()), t.Context()
	b := bucket(t, s, kv.Options{MaxValue: 1})
	other, err := s.Bucket(ctx, "other", kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	revision := must(t)(b.Create(ctx, "a", []byte("1")))
	must(t)(other.Create(ctx, "a", []byte("other")))
	wantValue(t, b, "a", "1", revision)
	// The same bucket again, for longer values.
	b = bucket(t, s, kv.Options{MaxValue: 4000})
	must(t)(b.Update(ctx, "a", make([]byte, 4000), revision))
	if _, err := s.Bucket(ctx, "no name", kv.Options{}); err == nil {
		t.Error("a bucket with a space in its name")
	}
}
