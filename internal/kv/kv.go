// Package kv is state that several parts, later several nodes, share: keys with
// compare-and-set, watch and a time to live, in NATS JetStream's key-value buckets. On
// one machine the server is embedded in the process and listens nowhere (Open); with an
// existing NATS cluster the same code runs on its JetStream (New).
package kv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What an operation found. Every other error means that it is not known whether a write
// was done: Get tells.
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
	Deleted  bool // Watch only: the key is gone, by Delete or at the end of its TTL
}

// Store is what a Bucket does; parts that keep state in one take this.
type Store interface {
	// Create adds a key; ErrExists when there is one. A deleted key can be made again.
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// Get returns a key; ErrNotFound when there is none. In a cluster it may lag a
	// little behind writes of others: let Update judge.
	Get(ctx context.Context, key string) (Entry, error)
	// Update replaces a key that is still at a revision; ErrConflict when it is not, or
	// has gone.
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	// Put sets a key whatever it was.
	Put(ctx context.Context, key string, value []byte) (uint64, error)
	// Delete takes a key away that is still at a revision, ErrConflict when it is not;
	// revision 0 takes it whatever it is, also when there is none.
	Delete(ctx context.Context, key string, revision uint64) error
	// List returns the keys that there are, oldest revision first. What changes
	// meanwhile is in it as it was or as it is.
	List(ctx context.Context) ([]Entry, error)
	// Watch yields the keys that there are, then every change, until Close or the end
	// of ctx. It must be closed in either case.
	Watch(ctx context.Context) (*Watch, error)
}

var _ Store = (*Bucket)(nil)

// maxKey bounds a key, bytes.
const maxKey = 256

// checkKey allows what every NATS server takes as a key (NATS ADR-8, without the slash).
func checkKey(key string) error {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_=.-"
	switch {
	case key == "":
		return errors.New("a key of the store must not be empty")
	case len(key) > maxKey:
		return fmt.Errorf("a key of %d bytes is longer than the store takes (%d)", len(key), maxKey)
	case strings.Trim(key, allowed) != "":
		return errors.New("a key of the store must consist of A-Z a-z 0-9 _ = . and - only")
	case strings.HasPrefix(key, "."), strings.HasSuffix(key, "."), strings.Contains(key, ".."):
		return errors.New("a key of the store must not begin or end with a dot, nor have two in a row")
	}
	return nil
}

// known turns errors of the client into those of this package.
func known(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return ErrNotFound
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant): // the latter from streams with replicas
		return ErrConflict
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrBadSubscription):
		return ErrClosed
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return fmt.Errorf("the store does not answer; it stops itself when its disk is full: free some space and start it again: %w", err)
	}
	return fmt.Errorf("store: %w", err)
}
