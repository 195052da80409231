package auditlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// A run of leaves of the sealed log is proven in one go: the hashes of the full
// subtrees before it, the leaves themselves, and those of the subtrees behind it
// make up the root. Subtree, Subtrees and Builder are what that takes.

// Subtree names a full subtree: the 1<<Level leaves from Index<<Level on.
type Subtree struct {
	Level int
	Index uint64
}

// From is the index of its first leaf, To that behind its last one.
func (s Subtree) From() uint64 { return s.Index << s.Level }

// To is the index behind its last leaf.
func (s Subtree) To() uint64 { return (s.Index + 1) << s.Level }

// Subtrees covers the leaves with index from to before to with as few full
// subtrees as possible, in order.
func Subtrees(from, to uint64) []Subtree {
	var list []Subtree
	for at := from; at < to; {
		level := bits.Len64(to-at) - 1
		if at != 0 {
			level = min(level, bits.TrailingZeros64(at))
		}
		list = append(list, Subtree{level, at >> level})
		at += 1 << level
	}
	return list
}

// Node is the hash of a full subtree, by the tiles.
func (t *Tiles) Node(s Subtree) (Hash, error) {
	if s.Level < 0 || s.Level > 62 || s.Index > t.head.Size>>s.Level || s.To() > t.head.Size {
		return Hash{}, fmt.Errorf("the sealed log has %d leaves: it has no full subtree %d at level %d", t.head.Size, s.Index, s.Level)
	}
	return t.node(s.Level, s.Index)
}

// InclusionAt is the proof that the leaf at index is in the tree that the first
// size leaves make up.
func (t *Tiles) InclusionAt(index, size uint64) ([]Hash, error) {
	if index >= size || size > t.head.Size {
		return nil, fmt.Errorf("the sealed log has %d leaves: there is no proof of %d among the first %d", t.head.Size, index, size)
	}
	return nodes(t.node).inclusion(index, 0, size)
}

// Path is the subtrees whose hashes make up the proof that the leaf at index is
// in a tree of size leaves (RFC 9162 section 2.1.3.1), the lowest first. One at
// the right edge need not be full: it is then given as several.
func Path(index, size uint64) ([][]Subtree, error) {
	if index >= size {
		return nil, fmt.Errorf("%w: there is no index %d in a tree of %d", ErrProof, index, size)
	}
	var path [][]Subtree
	for lo, hi := uint64(0), size; hi-lo > 1; {
		k := lo + split(hi-lo)
		if index < k {
			path = append(path, Subtrees(k, hi))
			hi = k
		} else {
			path = append(path, Subtrees(lo, k))
			lo = k
		}
	}
	for i, j := 0, len(path)-1; i < j; i, j = i+1, j-1 {
		path[i], path[j] = path[j], path[i]
	}
	return path, nil
}

// Builder gathers a tree's root out of leaves and full subtrees that come in
// order. Its memory is that of one hash for each level.
type Builder struct {
	// Each is told of every full subtree as it is complete; nil: nobody is.
	Each  func(Subtree, Hash)
	size  uint64
	stack []Hash // of the full subtrees, the largest first
}

// Size is how many leaves have come.
func (b *Builder) Size() uint64 { return b.size }

// Add adds a leaf's hash.
func (b *Builder) Add(leaf Hash) { _ = b.AddTree(0, leaf) } // a leaf fits anywhere

// AddTree adds 1<<level leaves by the hash of their subtree, which must be full
// where it stands.
func (b *Builder) AddTree(level int, h Hash) error {
	if level < 0 || level > 62 || b.size&(1<<level-1) != 0 || b.size+1<<level < b.size {
		return errors.New("a subtree does not fit where it stands")
	}
	at := Subtree{level, b.size >> level}
	b.size += 1 << level
	for {
		if b.Each != nil {
			b.Each(at, h)
		}
		if at.Index&1 == 0 {
			break
		}
		last := len(b.stack) - 1
		h = NodeHash(b.stack[last], h)
		b.stack = b.stack[:last]
		at = Subtree{at.Level + 1, at.Index >> 1}
	}
	b.stack = append(b.stack, h)
	return nil
}

// Root is the root over what has come.
func (b *Builder) Root() Hash {
	t := TreeHash{size: b.size, stack: b.stack}
	return t.Root()
}

// evidenceName is the third name of a node's key, NODE before it: manifests of
// evidence packs are signed under it.
const evidenceName = "/weir-evidence"

// ForEvidence is the key under the name that evidence packs are signed with.
func (k PublicKey) ForEvidence() PublicKey {
	return PublicKey{Name: strings.TrimSuffix(k.Name, spoolName) + evidenceName, Key: k.Key}
}

// EventTime is the time of an event's JSON, without decoding the rest.
func EventTime(payload []byte) (time.Time, bool) { return timeOf(payload) }

// KindOf is the kind of an event's JSON as the log writes it, without decoding the
// rest; "" when it cannot be told that way.
func KindOf(payload []byte) Kind {
	// {"v":1,"seq":1,"time":"...","node":"...","kind":"...": a node's name may hold
	// anything, but no quote that is not escaped.
	_, rest, ok := bytes.Cut(payload, []byte(`,"node":"`))
	for i := 0; ok && i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case '"':
			rest, ok = bytes.CutPrefix(rest[i:], []byte(`","kind":"`))
			if end := bytes.IndexByte(rest, '"'); ok && end >= 0 {
				return Kind(rest[:end])
			}
			return ""
		}
	}
	return ""
}
