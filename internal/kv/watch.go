package kv

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	watchTimeout = 10 * time.Second // to begin a watch
	listTimeout  = 30 * time.Second // to read a bucket
)

// errSilent: the server did not begin a watch in time.
var errSilent = errors.New("the store did not begin a watch in time; is its server there?")

// Watch yields what is in a bucket, then every change. One goroutine may call Next.
type Watch struct {
	w       jetstream.KeyWatcher
	cancel  context.CancelFunc
	cluster *Cluster
	current chan struct{}
	live    map[string]struct{} // keys yielded before current; nil afterwards
	once    sync.Once
}

// Watch begins to watch the bucket. The watch lasts until Close or the end of ctx, and
// must be closed in either case.
func (b *Bucket) Watch(ctx context.Context) (*Watch, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(watchTimeout, func() { cancel(errSilent) })
	kw, err := b.kv.WatchAll(ctx)
	if !timer.Stop() && err == nil {
		err = errSilent
	}
	w := &Watch{w: kw, cancel: func() { cancel(nil) }, cluster: b.cluster, current: make(chan struct{}), live: make(map[string]struct{})}
	if err != nil {
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
		if kw == nil {
			cancel(nil)
		} else {
			w.Close()
		}
		return nil, known(err)
	}
	b.cluster.mu.Lock()
	closed := b.cluster.closed
	if !closed {
		b.cluster.watches[w] = struct{}{}
	}
	b.cluster.mu.Unlock()
	if closed {
		w.Close()
		return nil, ErrClosed
	}
	return w, nil
}

// Next waits for the next entry: first those that there are, then each as it changes or
// goes. Of changes that follow each other faster than they are read, the last one is sure
// to come. The error is ctx's, or ErrClosed when the watch has ended.
func (w *Watch) Next(ctx context.Context) (Entry, error) {
	for {
		e, ok, err := w.receive(ctx)
		if err != nil {
			return Entry{}, err
		}
		if !ok {
			continue
		}
		if w.live != nil {
			if _, known := w.live[e.Key]; e.Deleted && !known {
				continue // gone before the watch began
			}
			w.live[e.Key] = struct{}{}
		}
		return e, nil
	}
}

// receive takes what the server sent; ok is false for the sign that all that there was has
// come.
func (w *Watch) receive(ctx context.Context) (e Entry, ok bool, err error) {
	select {
	case <-ctx.Done():
		return Entry{}, false, ctx.Err()
	case e, open := <-w.w.Updates():
		if !open {
			return Entry{}, false, ErrClosed
		}
		if e != nil {
			return entryOf(e), true, nil
		}
		w.live = nil
		close(w.current)
		return Entry{}, false, nil
	}
}

// Current is closed when Next has yielded all that there was in the beginning. Next finds
// that out when it is called again.
func (w *Watch) Current() <-chan struct{} { return w.current }

// Close ends the watch and waits until it has. It may be called more than once.
func (w *Watch) Close() {
	w.once.Do(func() {
		_ = w.w.Stop() // fails only when it has ended already
		w.cancel()
		for range w.w.Updates() { // the client blocks on what is not read
		}
		w.cluster.mu.Lock()
		delete(w.cluster.watches, w)
		w.cluster.mu.Unlock()
	})
}

// List returns the keys that there are, oldest revision first.
func (b *Bucket) List(ctx context.Context) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	w, err := b.Watch(ctx)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	latest := make(map[string]Entry) // what changes meanwhile comes twice
	for {
		e, ok, err := w.receive(ctx)
		switch {
		case err != nil && ctx.Err() != nil: // which ends the watch, too
			return nil, ctx.Err()
		case err != nil:
			return nil, err
		case !ok:
			return slices.SortedFunc(maps.Values(latest), func(a, b Entry) int { return cmp.Compare(a.Revision, b.Revision) }), nil
		case e.Deleted:
			delete(latest, e.Key)
		default:
			latest[e.Key] = e
		}
	}
}
