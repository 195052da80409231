package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// headroom is what a message has besides its value, at most, bytes: JetStream
	// counts headers as well.
	headroom = 1 << 10
	// markerTTL is how long it stays known that a key has gone. A watch that was cut off
	// from its cluster for longer must begin anew.
	markerTTL = time.Hour
)

// Options are those of a bucket.
type Options struct {
	// TTL is how long a key stays from its last change; 0: for ever. It clears up and is
	// no deadline: a key can be seen somewhat longer, most of all after a restart.
	TTL      time.Duration
	MaxValue int32 // bytes; 0: what a message takes, which is the most
	Replicas int   // in a cluster: on how many servers; 0: one
}

// Cluster is JetStream wherever it runs.
type Cluster struct {
	js jetstream.JetStream

	mu      sync.Mutex
	closed  bool
	watches map[*Watch]struct{}
}

// New keeps buckets in JetStream of a NATS server or cluster, 2.11 or later. The
// connection stays the caller's, to be closed after the Cluster.
func New(js jetstream.JetStream) *Cluster {
	return &Cluster{js: js, watches: make(map[*Watch]struct{})}
}

// Bucket opens a bucket, which is made when it is missing; it gets the options when it
// has others.
func (c *Cluster) Bucket(ctx context.Context, name string, o Options) (*Bucket, error) {
	most := c.js.Conn().MaxPayload() - headroom
	if o.MaxValue < 0 || int64(o.MaxValue) > most {
		return nil, fmt.Errorf("bucket %s: values of %d bytes do not fit in a message of the store: 0 to %d do", name, o.MaxValue, most)
	}
	if o.MaxValue > 0 {
		most = int64(o.MaxValue)
	}
	b, err := c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, TTL: o.TTL, MaxValueSize: int32(most + headroom),
		Replicas: o.Replicas, History: 1, Storage: jetstream.FileStorage, LimitMarkerTTL: markerTTL})
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, known(err))
	}
	return &Bucket{kv: b, max: int(most), cluster: c}, nil
}

// Close ends all watches.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.closed = true
	open := make([]*Watch, 0, len(c.watches))
	for w := range c.watches {
		open = append(open, w)
	}
	c.mu.Unlock()
	for _, w := range open {
		w.Close()
	}
}

// Bucket is a set of keys, each with its latest value. It is safe for concurrent use. See
// Store for what its methods do. A call without a deadline gets one of some seconds.
type Bucket struct {
	kv      jetstream.KeyValue
	max     int // bytes of a value
	cluster *Cluster
}

func (b *Bucket) check(key string, value []byte) error {
	if len(value) > b.max {
		return fmt.Errorf("a value of %d bytes is longer than bucket %s takes (%d)", len(value), b.kv.Bucket(), b.max)
	}
	return checkKey(key)
}

// Create adds a key; ErrExists when there is one.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := b.check(key, value); err != nil {
		return 0, err
	}
	revision, err := b.kv.Create(ctx, key, value)
	if err = known(err); errors.Is(err, ErrConflict) {
		return 0, ErrExists
	}
	return revision, err
}

// Get returns a key; ErrNotFound when there is none.
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	if err := checkKey(key); err != nil {
		return Entry{}, err
	}
	e, err := b.kv.Get(ctx, key)
	if err != nil {
		return Entry{}, known(err)
	}
	return entryOf(e), nil
}

// Update replaces a key that is still at a revision; ErrConflict when it is not.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if err := b.check(key, value); err != nil {
		return 0, err
	}
	if revision == 0 { // would create
		return 0, ErrConflict
	}
	revision, err := b.kv.Update(ctx, key, value, revision)
	return revision, known(err)
}

// Put sets a key whatever it was.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := b.check(key, value); err != nil {
		return 0, err
	}
	revision, err := b.kv.Put(ctx, key, value)
	return revision, known(err)
}

// Delete takes a key away that is still at a revision; 0 stands for any.
func (b *Bucket) Delete(ctx context.Context, key string, revision uint64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	// A purge, unlike a delete, may have its marker expire. Else one would stay for each
	// key that ever was.
	options := []jetstream.KVDeleteOpt{jetstream.PurgeTTL(markerTTL)}
	if revision > 0 {
		options = append(options, jetstream.LastRevision(revision))
	}
	return known(b.kv.Purge(ctx, key, options...))
}

func entryOf(e jetstream.KeyValueEntry) Entry {
	return Entry{Key: e.Key(), Value: e.Value(), Revision: e.Revision(), Deleted: e.Operation() != jetstream.KeyValuePut}
}
