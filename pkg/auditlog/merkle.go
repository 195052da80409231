package auditlog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
)

// Hash is a hash of the sealed log's Merkle tree (RFC 9162 section 2.1, SHA-256).
type Hash [sha256.Size]byte

// LeafHash is the hash of a leaf.
func LeafHash(leaf []byte) Hash {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(leaf)
	return Hash(h.Sum(nil))
}

// NodeHash is the hash of two subtrees.
func NodeHash(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// EmptyRoot is the root of a tree without leaves.
func EmptyRoot() Hash { return sha256.Sum256(nil) }

// MaxLeaf is the length of the longest leaf, bytes: what an entry bundle has room
// for (C2SP tlog-tiles.md).
const MaxLeaf = 1<<16 - 1

// Leaf is the leaf that stands for an event: its JSON, or if that is longer than
// MaxLeaf, what names it:
//
//	{"v":1,"seq":7,"bytes":70000,"sha256":"HEX"}
//
// The JSON itself is then in a file of its own (Tiles.Long).
func Leaf(payload []byte) ([]byte, error) {
	if len(payload) <= MaxLeaf {
		return payload, nil
	}
	seq, ok := seqOf(payload)
	if !ok {
		return nil, errors.New("the event has no sequence number")
	}
	sum := sha256.Sum256(payload)
	return fmt.Appendf(nil, `{"v":%d,"seq":%d,"bytes":%d,"sha256":"%x"}`, Version, seq, len(payload), sum), nil
}

// longLeaf reads a leaf that only names its event.
func longLeaf(leaf []byte) (size int, sum Hash, ok bool) {
	seq, ok := seqOf(leaf)
	if !ok || len(leaf) > 200 {
		return 0, Hash{}, false
	}
	head := fmt.Appendf(nil, `{"v":%d,"seq":%d,"bytes":`, Version, seq)
	if len(leaf) < len(head) || string(leaf[:len(head)]) != string(head) {
		return 0, Hash{}, false
	}
	rest := leaf[len(head):]
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	size, err := strconv.Atoi(string(rest[:end]))
	const before, after = `,"sha256":"`, `"}`
	digest := rest[end:]
	if err != nil || size <= MaxLeaf || size > MaxPayload || len(digest) != len(before)+2*len(sum)+len(after) {
		return 0, Hash{}, false
	}
	if _, err := hex.Decode(sum[:], digest[len(before):len(before)+2*len(sum)]); err != nil {
		return 0, Hash{}, false
	}
	want := fmt.Appendf(head, `%d,"sha256":"%x"}`, size, sum)
	return size, sum, string(want) == string(leaf)
}

// A TreeHash gathers the root of a tree whose leaves come one by one. Its memory
// is that of one hash for each level.
type TreeHash struct {
	size  uint64
	stack []Hash // of the full subtrees, the largest first
}

// Add adds the next leaf's hash.
func (t *TreeHash) Add(leaf Hash) {
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(t.stack) - 1
		leaf = NodeHash(t.stack[last], leaf)
		t.stack = t.stack[:last]
	}
	t.stack = append(t.stack, leaf)
	t.size++
}

// Size is how many leaves were added.
func (t *TreeHash) Size() uint64 { return t.size }

// Root is the root over the leaves so far.
func (t *TreeHash) Root() Hash {
	if t.size == 0 {
		return EmptyRoot()
	}
	root := t.stack[len(t.stack)-1]
	for i := len(t.stack) - 2; i >= 0; i-- {
		root = NodeHash(t.stack[i], root)
	}
	return root
}

// Frontier is the hashes of the full subtrees that the leaves so far make up, the
// largest first; NewTreeHash goes on from them.
func (t *TreeHash) Frontier() []Hash { return append([]Hash(nil), t.stack...) }

// NewTreeHash goes on behind size leaves whose full subtrees have these hashes.
func NewTreeHash(size uint64, frontier []Hash) (*TreeHash, error) {
	if bits.OnesCount64(size) != len(frontier) {
		return nil, fmt.Errorf("%d leaves make up %d full subtrees, not %d", size, bits.OnesCount64(size), len(frontier))
	}
	return &TreeHash{size: size, stack: append([]Hash(nil), frontier...)}, nil
}

// ErrProof is the error of a proof that does not prove what it should.
var ErrProof = errors.New("the proof does not lead to the root")

// VerifyInclusion checks that a leaf stands at index in the tree of that size and
// root (RFC 9162 section 2.1.3.2).
func VerifyInclusion(index, size uint64, leaf Hash, proof []Hash, root Hash) error {
	if index >= size {
		return fmt.Errorf("%w: there is no index %d in a tree of %d", ErrProof, index, size)
	}
	fn, sn, r := index, size-1, leaf
	for _, p := range proof {
		if sn == 0 {
			return ErrProof
		}
		if fn&1 == 1 || fn == sn {
			r = NodeHash(p, r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = NodeHash(r, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 || r != root {
		return ErrProof
	}
	return nil
}

// VerifyConsistency checks that the tree of size to and root b begins with the
// one of size from and root a (RFC 9162 section 2.1.4.2).
func VerifyConsistency(from, to uint64, proof []Hash, a, b Hash) error {
	switch {
	case from > to:
		return fmt.Errorf("%w: a tree does not shrink from %d to %d", ErrProof, from, to)
	case from == to:
		if a != b || len(proof) != 0 {
			return ErrProof
		}
		return nil
	case from == 0:
		if a != EmptyRoot() || len(proof) != 0 {
			return ErrProof
		}
		return nil
	}
	if from&(from-1) == 0 {
		proof = append([]Hash{a}, proof...)
	}
	if len(proof) == 0 {
		return ErrProof
	}
	fn, sn := from-1, to-1
	for fn&1 == 1 {
		fn, sn = fn>>1, sn>>1
	}
	fr, sr := proof[0], proof[0]
	for _, p := range proof[1:] {
		if sn == 0 {
			return ErrProof
		}
		if fn&1 == 1 || fn == sn {
			fr, sr = NodeHash(p, fr), NodeHash(p, sr)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			sr = NodeHash(sr, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 || fr != a || sr != b {
		return ErrProof
	}
	return nil
}

// nodes gives the hash of the full subtree of 1<<level leaves that begins with
// leaf index<<level.
type nodes func(level int, index uint64) (Hash, error)

// rangeHash is the Merkle tree hash over the leaves from lo to before hi.
func (n nodes) rangeHash(lo, hi uint64) (Hash, error) {
	size := hi - lo
	if size&(size-1) == 0 {
		level := bits.TrailingZeros64(size)
		return n(level, lo>>level)
	}
	k := split(size)
	left, err := n.rangeHash(lo, lo+k)
	if err != nil {
		return Hash{}, err
	}
	right, err := n.rangeHash(lo+k, hi)
	return NodeHash(left, right), err
}

// split is the largest power of two below n, n > 1.
func split(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }

// inclusion is PATH of RFC 9162 section 2.1.3.1.
func (n nodes) inclusion(index, lo, hi uint64) ([]Hash, error) {
	if hi-lo == 1 {
		return nil, nil
	}
	k := split(hi - lo)
	sides := [2][2]uint64{{lo, lo + k}, {lo + k, hi}}
	if index >= lo+k {
		sides[0], sides[1] = sides[1], sides[0]
	}
	proof, err := n.inclusion(index, sides[0][0], sides[0][1])
	if err != nil {
		return nil, err
	}
	h, err := n.rangeHash(sides[1][0], sides[1][1])
	return append(proof, h), err
}

// consistency is SUBPROOF of RFC 9162 section 2.1.4.1; m counts from lo.
func (n nodes) consistency(m, lo, hi uint64, whole bool) ([]Hash, error) {
	if m == hi-lo {
		if whole {
			return nil, nil
		}
		h, err := n.rangeHash(lo, hi)
		return []Hash{h}, err
	}
	k := split(hi - lo)
	if m <= k {
		proof, err := n.consistency(m, lo, lo+k, whole)
		if err != nil {
			return nil, err
		}
		h, err := n.rangeHash(lo+k, hi)
		return append(proof, h), err
	}
	proof, err := n.consistency(m-k, lo+k, hi, false)
	if err != nil {
		return nil, err
	}
	h, err := n.rangeHash(lo, lo+k)
	return append(proof, h), err
}

// frontier is the hashes of the full subtrees that size leaves make up, the
// largest first.
func (n nodes) frontier(size uint64) ([]Hash, error) {
	var all []Hash
	for lo := uint64(0); lo < size; {
		level := bits.Len64(size-lo) - 1
		h, err := n(level, lo>>level)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
		lo += 1 << level
	}
	return all, nil
}
