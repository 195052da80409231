package kv

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// What an operation found.
var (
	ErrNotFound = errors.New("there is no such key")
	ErrExists   = errors.New("the key exists already")
	ErrConflict = errors.New("the key was changed meanwhile")
	ErrClosed   = errors.New("the store is closed")
)

// Entry is a key with its value at a revision. Revisions grow over the whole bucket.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
	Deleted  bool // Watch only: the key has gone
}

// Bucket is a set of keys, each with its latest value. It works the same on a NATS
// cluster. It is safe for concurrent use.
type Bucket struct {
	kv  jetstream.KeyValue
	max int
}

// known turns errors of the client into those of this package.
func known(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return ErrNotFound
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return ErrConflict
	}
	return fmt.Errorf("store: %w", err)
}

func (b *Bucket) fits(value []byte) error {
	if b.max > 0 && len(value) > b.max {
		return fmt.Errorf("a value of %d bytes is longer than the store takes (%d)", len(value), b.max)
	}
	return nil
}

// Create adds a key; ErrExists when there is one.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := b.fits(value); err != nil {
		return 0, err
	}
	rev, err := b.kv.Create(ctx, key, value)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return 0, ErrExists
	}
	return rev, known(err)
}

// Get returns a key; ErrNotFound when there is none.
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	e, err := b.kv.Get(ctx, key)
	if err != nil {
		return Entry{}, known(err)
	}
	return entryOf(e), nil
}

// Update replaces a key that is still at a revision; ErrConflict when it is not.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if err := b.fits(value); err != nil {
		return 0, err
	}
	rev, err := b.kv.Update(ctx, key, value, revision)
	return rev, known(err)
}

// Put sets a key whatever it was.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := b.fits(value); err != nil {
		return 0, err
	}
	rev, err := b.kv.Put(ctx, key, value)
	return rev, known(err)
}

// Delete takes a key away that is still at a revision; 0 stands for any.
func (b *Bucket) Delete(ctx context.Context, key string, revision uint64) error {
	var options []jetstream.KVDeleteOpt
	if revision > 0 {
		options = append(options, jetstream.LastRevision(revision))
	}
	return known(b.kv.Delete(ctx, key, options...))
}

// List returns all keys, oldest revision first.
func (b *Bucket) List(ctx context.Context) ([]Entry, error) {
	w, err := b.kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, known(err)
	}
	defer w.Stop()
	var all []Entry
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case e, ok := <-w.Updates():
			if !ok {
				return nil, ErrClosed
			}
			if e == nil { // all that there was
				slices.SortFunc(all, func(a, b Entry) int { return int(int64(a.Revision) - int64(b.Revision)) })
				return all, nil
			}
			all = append(all, entryOf(e))
		}
	}
}

func entryOf(e jetstream.KeyValueEntry) Entry {
	return Entry{Key: e.Key(), Value: e.Value(), Revision: e.Revision(), Deleted: e.Operation() != jetstream.KeyValuePut}
}

// Watch yields what is there, then every change.
type Watch struct {
	w       jetstream.KeyWatcher
	current bool
}

// Watch begins to watch the bucket.
func (b *Bucket) Watch(ctx context.Context) (*Watch, error) {
	w, err := b.kv.WatchAll(ctx)
	if err != nil {
		return nil, known(err)
	}
	return &Watch{w: w}, nil
}

// Next waits for the next entry.
func (w *Watch) Next(ctx context.Context) (Entry, error) {
	for {
		select {
		case <-ctx.Done():
			return Entry{}, ctx.Err()
		case e, ok := <-w.w.Updates():
			if !ok {
				return Entry{}, ErrClosed
			}
			if e != nil {
				return entryOf(e), nil
			}
			w.current = true
		}
	}
}

// Close ends the watch.
func (w *Watch) Close() { _ = w.w.Stop() }
