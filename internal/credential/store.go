package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// cacheFor is how long what is costly to fetch (exec, age, bao) is kept. Short:
// a rotated secret must be seen soon; a burst of connections costs one fetch.
const cacheFor = 30 * time.Second

// fetchTimeout bounds one fetch, whoever waits for it.
const fetchTimeout = 15 * time.Second

// Config is what a Store is made of. The zero value works.
type Config struct {
	// AgeIdentities are files of age identities. Default: the file that the
	// environment variable WEIR_AGE_IDENTITY names.
	AgeIdentities []string
	Bao           Bao
	Log           *slog.Logger
	Now           func() time.Time
	// Getenv reads the agent's environment. Default: os.LookupEnv.
	Getenv func(string) (string, bool)
}

// Store resolves references. It is safe for concurrent use.
type Store struct {
	Config
	bao   *baoClient
	group singleflight.Group

	mu     sync.Mutex
	cache  map[string]*cached
	warned map[string]bool // files whose mode was complained about
	closed bool
}

type cached struct {
	secret  Secret
	expires time.Time
	timer   *time.Timer
}

// Open makes a store. It contacts nobody; age identities that are configured are
// read once to see that they can be.
func Open(c Config) (*Store, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Getenv == nil {
		c.Getenv = os.LookupEnv
	}
	s := &Store{Config: c, bao: newBaoClient(c.Bao, c.Getenv), cache: map[string]*cached{}, warned: map[string]bool{}}
	if len(c.AgeIdentities) > 0 {
		if _, err := s.ageIdentities(); err != nil {
			return nil, fmt.Errorf("age identities: %w", err)
		}
	}
	return s, nil
}

// Close wipes what is cached. Get fails from then on.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for ref := range s.cache {
		s.drop(ref)
	}
	s.bao.close()
}

// ErrClosed is returned by a store that was closed.
var ErrClosed = errors.New("the secret store is closed: weir is stopping")

// Get resolves a reference. Expiry is when the secret stops being good, zero
// when its source does not say. The Secret is the caller's own copy.
func (s *Store) Get(ctx context.Context, ref string) (Secret, time.Time, error) {
	scheme, rest, _ := strings.Cut(ref, ":")
	switch scheme {
	case "env":
		b, err := s.fromEnv(rest)
		return b, time.Time{}, err
	case "file":
		b, err := s.fromFile(rest)
		return b, time.Time{}, err
	case "exec", "age", "bao":
		return s.getCached(ctx, scheme, rest, ref)
	}
	// The text may be a password that somebody wrote in place of a reference.
	return Secret{}, time.Time{}, errors.New("a secret reference must start with one of file: env: exec: age: bao: (see the configuration)")
}

// Forget drops a reference from the cache.
func (s *Store) Forget(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(ref)
}

// drop wants mu held.
func (s *Store) drop(ref string) {
	if c := s.cache[ref]; c != nil {
		c.timer.Stop()
		c.secret.Wipe()
		delete(s.cache, ref)
	}
}

func (s *Store) getCached(ctx context.Context, scheme, rest, ref string) (Secret, time.Time, error) {
	const attempts = 3 // a fetched secret may be forgotten again before its waiter took a copy
	for range attempts {
		secret, expires, ok, err := s.lookup(ref)
		if ok || err != nil {
			return secret, expires, err
		}
		// One fetch for all who wait; it is nobody's own, so it outlives a caller.
		done := s.group.DoChan(ref, func() (any, error) {
			fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
			defer cancel()
			b, expires, err := s.fetch(fctx, scheme, rest)
			if err != nil {
				return nil, err
			}
			return nil, s.keep(ref, b, expires)
		})
		select {
		case r := <-done:
			if r.Err != nil {
				return Secret{}, time.Time{}, r.Err
			}
		case <-ctx.Done():
			return Secret{}, time.Time{}, fmt.Errorf("waiting for a secret from %s: %w", scheme, ctx.Err())
		}
	}
	return Secret{}, time.Time{}, fmt.Errorf("the secret from %s expires as soon as it is fetched; give it a longer life", scheme)
}

func (s *Store) fetch(ctx context.Context, scheme, rest string) (Secret, time.Time, error) {
	switch scheme {
	case "exec":
		b, err := s.fromExec(ctx, rest)
		return b, time.Time{}, err
	case "age":
		b, err := s.fromAge(rest)
		return b, time.Time{}, err
	}
	return s.bao.get(ctx, rest, s.Now())
}

func (s *Store) lookup(ref string) (Secret, time.Time, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Secret{}, time.Time{}, false, ErrClosed
	}
	c := s.cache[ref]
	if c == nil || (!c.expires.IsZero() && !s.Now().Before(c.expires)) {
		return Secret{}, time.Time{}, false, nil
	}
	return NewSecret(c.secret.b), c.expires, true, nil
}

// keep enters a fetched secret in the cache, which owns it from here on.
func (s *Store) keep(ref string, b Secret, expires time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		b.Wipe()
		return ErrClosed
	}
	s.drop(ref)
	life := cacheFor
	if !expires.IsZero() {
		life = max(0, min(life, expires.Sub(s.Now())))
	}
	c := &cached{secret: b, expires: expires}
	c.timer = time.AfterFunc(life, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.cache[ref] == c {
			s.drop(ref)
		}
	})
	s.cache[ref] = c
	return nil
}

// trim cuts the one line break that editors and `echo` put at the end.
func trim(b []byte) []byte {
	b = bytes.TrimSuffix(b, []byte("\n"))
	return bytes.TrimSuffix(b, []byte("\r"))
}
