package sqlmeta

import (
	"slices"
	"sync"
)

// memo keeps what was found out about a catalogue's views and functions. It follows
// from the catalogue alone (and for functions the search path), so it is never wrong,
// only missing.
type memo struct {
	mu      sync.RWMutex
	views   map[uint32]row
	effects map[effectKey]functionEffect
}

// effectKey is a function under a search path; "" when it sets its own.
type effectKey struct {
	oid  uint32
	path string
}

// maxEffects bounds the functions kept: search paths are the sessions' to choose.
const maxEffects = 8192

func newMemo() *memo {
	return &memo{views: make(map[uint32]row), effects: make(map[effectKey]functionEffect)}
}

func (c *Catalog) viewRow(oid uint32) (row, bool) {
	c.memo.mu.RLock()
	defer c.memo.mu.RUnlock()
	r, ok := c.memo.views[oid]
	return r, ok
}

func (c *Catalog) keepView(oid uint32, r row) {
	c.memo.mu.Lock()
	defer c.memo.mu.Unlock()
	c.memo.views[oid] = r
}

func (c *Catalog) effect(k effectKey) (functionEffect, bool) {
	c.memo.mu.RLock()
	defer c.memo.mu.RUnlock()
	e, ok := c.memo.effects[k]
	return e, ok
}

func (c *Catalog) keepEffect(k effectKey, e functionEffect) {
	c.memo.mu.Lock()
	defer c.memo.mu.Unlock()
	if len(c.memo.effects) < maxEffects {
		c.memo.effects[k] = e
	}
}

// overloads are the functions of a name.
func (c *Catalog) overloads(schema, name string) []Function {
	if c == nil {
		return nil
	}
	return c.Functions[schema+"."+name]
}

// contained reports whether every function of a name reads nothing by itself.
func (c *Catalog) contained(f callee) bool {
	list := c.overloads(f.schema, f.name)
	return len(list) > 0 && !slices.ContainsFunc(list, func(f Function) bool { return !f.Contained })
}
