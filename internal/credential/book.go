package credential

import (
	"context"
	"errors"
	"fmt"

	"github.com/weirproxy/weir/internal/flow"
)

// ErrNoEntry means that no credentials entry of the backend is meant for the
// principal.
var ErrNoEntry = errors.New("no credentials entry of the backend is meant for this principal; add one to its `credentials`")

// Book holds the credentials entries of every backend, by the backend's name.
type Book struct {
	store   *Store
	entries map[string][]Entry
}

// NewBook makes a book whose secrets come from store.
func NewBook(store *Store, entries map[string][]Entry) *Book {
	return &Book{store: store, entries: entries}
}

// Login names the account that p uses at a backend; false when no entry is meant
// for them. It touches no secret.
func (b *Book) Login(backend string, p *flow.Principal) (string, bool) {
	e, ok := Pick(b.entries[backend], p)
	if !ok {
		return "", false
	}
	return e.Username, true
}

// Password is the account that p uses at a backend and its password, nil when
// the entry has none. The bytes are the caller's: it clears them when done.
func (b *Book) Password(ctx context.Context, backend string, p *flow.Principal) (username string, password []byte, err error) {
	e, ok := Pick(b.entries[backend], p)
	if !ok {
		return "", nil, fmt.Errorf("backend %q: %w", backend, ErrNoEntry)
	}
	if e.Password == "" {
		return e.Username, nil, nil
	}
	s, _, err := b.store.Get(ctx, e.Password)
	if err != nil {
		return "", nil, fmt.Errorf("backend %q, account %q: %w", backend, e.Username, err)
	}
	return e.Username, s.b, nil
}

// Rejected is told that the backend did not take p's password, so that the next
// flow fetches it anew: it may have been rotated.
func (b *Book) Rejected(backend string, p *flow.Principal) {
	if e, ok := Pick(b.entries[backend], p); ok && e.Password != "" {
		b.store.Forget(e.Password)
	}
}
