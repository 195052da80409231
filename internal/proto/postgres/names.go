package postgres

import (
	"errors"
	"sync"

	"github.com/weirproxy/weir/internal/sqlmeta"

	"github.com/weirproxy/weir/internal/flow"
)

// prepared is a prepared statement, made by Parse or by SQL PREPARE. Its text never
// changes; the analysis is that of the last time it was looked at.
type prepared struct {
	text     string // "" when it was too long to keep
	head     string // then: its start, for the record
	bytes    int64
	analysis analysis
	reading  reading // how the server has read the text
	within   bool    // it stands within the text: PREPARE, DECLARE
	// types are those of parameters that its Parse declares; nil when weir did not look.
	types []uint32
}

// analysis is a statement as it was understood under one state of the session.
type analysis struct {
	stmt       *sqlmeta.Statement // nil: unreadable or never looked at
	catalog    *sqlmeta.Catalog
	generation uint64 // of settings
	named      bool   // it rests on other prepared statements or cursors
}

func (p *prepared) size() int64 { return int64(len(p.text)+len(p.head)) + namedOverhead }

// portal is a statement with its values bound, or a cursor.
type portal struct {
	prep      *prepared
	params    []string
	hidden    []flow.Hidden
	kinds     []byte // how each of params stands there; fewer when some were left out
	digest    []byte // over the Bind behind its names
	bytes     int64
	formats   []int16  // of results, as Bind gave them
	columns   []Column // of a Describe; nil when there was none yet
	described bool     // columns is what the server said (nil: no result)
	// describing is one more than the batch whose Describe of it is on its way, 0 for
	// none. Only an Execute of the same batch may count on it: where the server skips
	// the one it skips the other.
	describing uint64
	generation uint64 // of settings at Bind: the plan was made under it
	hold       bool   // a cursor that may outlive its transaction
	ran        bool   // an Execute of it was forwarded: another one goes on with its rows
}

func (p *portal) size() int64 {
	n := p.prep.size() + namedOverhead
	for _, s := range p.params {
		n += int64(len(s))
	}
	return n
}

// namedOverhead is what a prepared statement or portal costs besides its texts,
// roughly, bytes.
const namedOverhead = 256

var errTooMany = errors.New("too many prepared statements and portals")

// table holds the statements or the portals of a flow under their names. Changes
// are tentative until the server confirms them: if one of a batch (what stands
// between two Syncs) fails, the server skips the rest of the batch. So within one
// batch the latest change counts, whatever becomes of it; a name that an earlier
// batch still has in doubt has to be waited for.
//
// The mutex is there because a question is resolved while the server side goes on.
type table[T interface {
	comparable
	size() int64
}] struct {
	mu        sync.Mutex
	confirmed map[string]T
	tentative map[string]change[T]
	bytes     int64 // of the confirmed ones
	proposals uint64
}

type change[T any] struct {
	value T // zero: the name goes
	batch uint64
	id    uint64
}

func newTable[T interface {
	comparable
	size() int64
}]() *table[T] {
	return &table[T]{confirmed: make(map[string]T), tentative: make(map[string]change[T])}
}

// get is what a name stands for in the given batch; doubt is set when an earlier
// batch has not been answered yet.
func (t *table[T]) get(name string, batch uint64) (v T, doubt bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.tentative[name]; ok {
		return c.value, c.batch != batch
	}
	return t.confirmed[name], false
}

// unsettled reports whether an earlier batch still has a name in doubt that SQL can
// use: any but the unnamed one.
func (t *table[T]) unsettled(batch uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, c := range t.tentative {
		if name != "" && c.batch != batch {
			return true
		}
	}
	return false
}

// propose enters a change that the server has still to confirm, and returns the
// change's number for confirm.
func (t *table[T]) propose(name string, v T, batch uint64) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var none T
	if v != none && (len(t.confirmed)+len(t.tentative) >= maxNamed || t.bytes+v.size() > maxNamedBytes) {
		return 0, errTooMany
	}
	t.proposals++
	t.tentative[name] = change[T]{v, batch, t.proposals}
	return t.proposals, nil
}

// confirm makes a change final; id is its number, 0 for a change that was never
// proposed. A later proposal for the name stays.
func (t *table[T]) confirm(name string, v T, id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.tentative[name]; ok && c.id == id {
		delete(t.tentative, name)
	}
	t.drop(name)
	var none T
	if v != none {
		t.confirmed[name] = v
		t.bytes += v.size()
	}
}

// enter adds a value that SQL made. One that the table has no room for is unknown
// from then on, and so is what it replaces.
func (t *table[T]) enter(name string, v T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(name)
	if len(t.confirmed) < maxNamed && t.bytes+v.size() <= maxNamedBytes {
		t.confirmed[name] = v
		t.bytes += v.size()
	}
}

func (t *table[T]) drop(name string) {
	if old, ok := t.confirmed[name]; ok {
		t.bytes -= old.size()
		delete(t.confirmed, name)
	}
}

// revert drops what a failed batch had proposed.
func (t *table[T]) revert(batch uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, c := range t.tentative {
		if c.batch == batch {
			delete(t.tentative, name)
		}
	}
}

// retain keeps the confirmed values that keep says yes to.
func (t *table[T]) retain(keep func(v T) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, v := range t.confirmed {
		if !keep(v) {
			t.drop(name)
		}
	}
}
