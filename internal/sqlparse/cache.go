package sqlparse

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Bounds of the cache.
const (
	// DefaultCache is the memory that cached analyses may take, bytes, estimated.
	DefaultCache = 8 << 20
	// statementCost is what an analysis takes besides its text, bytes: measured for
	// point selects, rounded up.
	statementCost = 2 << 10
	// maxShare is the part of a shard that one text may take.
	maxShare = 4
	shards   = 8
	// deadFor is how long a text that a child died of is not tried again.
	deadFor = time.Minute
)

// Cache keeps analyses by the exact bytes of the text and everything else that
// they depend on. Fingerprints would not do: different statements share one
// (research: libs.md, section 0). It is safe for concurrent use.
type Cache struct {
	shards [shards]shard
}

type cacheKey [sha256.Size]byte

// shard is a least-recently-used list.
type shard struct {
	mu      sync.Mutex
	entries map[cacheKey]*entry
	newest  *entry
	oldest  *entry
	cost    int
	max     int
}

type entry struct {
	key          cacheKey
	statements   []*sqlmeta.Statement
	err          error
	expires      time.Time // zero: never
	cost         int
	newer, older *entry
}

// NewCache makes a cache of about maxBytes; 0 means DefaultCache.
func NewCache(maxBytes int) *Cache {
	if maxBytes <= 0 {
		maxBytes = DefaultCache
	}
	c := &Cache{}
	for i := range c.shards {
		c.shards[i].entries = make(map[cacheKey]*entry)
		c.shards[i].max = maxBytes / shards
	}
	return c
}

// Len is the number of texts in the cache, for metrics.
func (c *Cache) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.entries)
		s.mu.Unlock()
	}
	return n
}

// keyOf digests the text with what else the analysis depends on. It does not
// allocate for a text of usual length.
func keyOf(sql string, s *sqlmeta.Session, c *sqlmeta.Catalog) cacheKey {
	var buf [2048]byte
	b := s.AppendKey(append(buf[:0], 'k'), c)
	if len(b)+len(sql) <= len(buf) {
		return sha256.Sum256(append(b, sql...))
	}
	b[0] = 'h'
	text := sha256.Sum256([]byte(sql))
	return sha256.Sum256(append(b, text[:]...))
}

func (c *Cache) get(k cacheKey) (*entry, bool) {
	s := &c.shards[k[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[k]
	if !ok {
		return nil, false
	}
	if !e.expires.IsZero() && time.Now().After(e.expires) {
		s.remove(e)
		return nil, false
	}
	if s.newest != e {
		s.unlink(e)
		s.push(e)
	}
	return e, true
}

func (c *Cache) put(e *entry, sql string) {
	s := &c.shards[e.key[0]%shards]
	e.cost = len(sql) + statementCost*max(1, len(e.statements))
	if e.cost > s.max/maxShare {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.entries[e.key]; ok {
		s.remove(old)
	}
	s.entries[e.key] = e
	s.push(e)
	s.cost += e.cost
	for s.cost > s.max {
		s.remove(s.oldest)
	}
}

func (s *shard) remove(e *entry) {
	delete(s.entries, e.key)
	s.unlink(e)
	s.cost -= e.cost
}

func (s *shard) push(e *entry) {
	e.older, e.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = e
	}
	s.newest = e
	if s.oldest == nil {
		s.oldest = e
	}
}

func (s *shard) unlink(e *entry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
	e.newer, e.older = nil, nil
}
