package auditlog

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"testing"
)

// TestProofs: every proof of every tree up to 70 leaves holds, and with any part
// changed it does not. The root is made by the definition, RFC 9162 section 2.1.1.
func TestProofs(t *testing.T) {
	var leaves []Hash
	for i := range 70 {
		leaves = append(leaves, LeafHash(fmt.Appendf(nil, "leaf %d", i)))
	}
	var mth func([]Hash) Hash
	mth = func(l []Hash) Hash {
		switch len(l) {
		case 0:
			return EmptyRoot()
		case 1:
			return l[0]
		}
		k := 1 << (bits.Len(uint(len(l)-1)) - 1)
		return NodeHash(mth(l[:k]), mth(l[k:]))
	}
	node := nodes(func(level int, index uint64) (Hash, error) {
		return mth(leaves[index<<level : (index+1)<<level]), nil
	})
	wrong := Hash{1}
	var sum TreeHash
	for size := uint64(0); size <= uint64(len(leaves)); size++ {
		root := mth(leaves[:size])
		if sum.Root() != root || sum.Size() != size {
			t.Fatalf("the root of %d leaves is wrong", size)
		}
		f, err := node.frontier(size)
		if err != nil {
			t.Fatal(err)
		}
		again, err := NewTreeHash(size, f)
		if err != nil || again.Root() != root || fmt.Sprint(f) != fmt.Sprint(sum.Frontier()) {
			t.Fatalf("the frontier of %d leaves: %v", size, err)
		}
		if _, err := NewTreeHash(size, append(f, wrong)); err == nil {
			t.Error("a hash too many is no frontier")
		}
		for i := range size {
			p, err := node.inclusion(i, 0, size)
			if err != nil || VerifyInclusion(i, size, leaves[i], p, root) != nil {
				t.Fatalf("leaf %d of %d is not proved: %v", i, size, err)
			}
			refused(t, VerifyInclusion(i, size, wrong, p, root), VerifyInclusion(i, size, leaves[i], p, wrong),
				VerifyInclusion(i, size, leaves[i], append(p, wrong), root), VerifyInclusion(size, size, leaves[i], p, root))
			if len(p) > 0 {
				refused(t, VerifyInclusion(i, size, leaves[i], p[1:], root))
				p[len(p)-1][3] ^= 1
				refused(t, VerifyInclusion(i, size, leaves[i], p, root))
			}
		}
		for m := range size + 1 {
			var p []Hash
			if m != 0 && m != size {
				p, err = node.consistency(m, 0, size, true)
			}
			old := mth(leaves[:m])
			if err != nil || VerifyConsistency(m, size, p, old, root) != nil {
				t.Fatalf("%d to %d is not consistent: %v", m, size, err)
			}
			refused(t, VerifyConsistency(m, size, p, wrong, root), VerifyConsistency(m, size, append(p, wrong), old, root), VerifyConsistency(size+1, size, p, old, root))
			if m > 0 {
				refused(t, VerifyConsistency(m, size, p, old, wrong))
			}
			if len(p) > 0 {
				refused(t, VerifyConsistency(m, size, p[1:], old, root))
			}
		}
		if size < uint64(len(leaves)) {
			sum.Add(leaves[size])
		}
	}
}

func refused(t *testing.T, all ...error) {
	t.Helper()
	for i, err := range all {
		if !errors.Is(err, ErrProof) {
			t.Fatalf("case %d: %v", i, err)
		}
	}
}

func TestLongLeaf(t *testing.T) {
	payload := []byte(`{"v":1,"seq":7,"time":"` + strings.Repeat("x", MaxLeaf) + `"}`)
	leaf, err := Leaf(payload)
	if err != nil {
		t.Fatal(err)
	}
	if n, _, ok := longLeaf(leaf); !ok || n != len(payload) {
		t.Errorf("%s", leaf)
	}
	if seq, ok := seqOf(leaf); !ok || seq != 7 {
		t.Errorf("%s", leaf)
	}
	for i := range leaf {
		changed := append([]byte(nil), leaf...)
		changed[i] = 'X'
		if _, _, ok := longLeaf(changed); ok {
			t.Errorf("%s passes", changed)
		}
	}
	short := payload[:MaxLeaf]
	if same, err := Leaf(short); err != nil || &same[0] != &short[0] {
		t.Error("a short one is its own leaf")
	}
	if _, err := Leaf(make([]byte, MaxLeaf+1)); err == nil {
		t.Error("a long one needs a number")
	}
}
