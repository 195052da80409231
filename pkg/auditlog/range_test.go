package auditlog

import (
	"fmt"
	"testing"
)

// TestRange proves every run of small trees, and every leaf by what the builder
// has seen.
func TestRange(t *testing.T) {
	for size := uint64(1); size <= 40; size++ {
		leaves := make([]Hash, size)
		seen := map[Subtree]Hash{}
		all := Builder{Each: func(s Subtree, h Hash) { seen[s] = h }}
		var want TreeHash
		for i := range leaves {
			leaves[i] = LeafHash(fmt.Append(nil, "leaf ", i))
			all.Add(leaves[i])
			want.Add(leaves[i])
		}
		root := want.Root()
		if all.Root() != root || all.Size() != size {
			t.Fatalf("size %d: the builder's root is another", size)
		}
		for lo := uint64(0); lo < size; lo++ {
			for hi := lo; hi <= size; hi++ {
				var b Builder
				for _, s := range Subtrees(0, lo) {
					if err := b.AddTree(s.Level, seen[s]); err != nil {
						t.Fatal(err)
					}
				}
				for _, l := range leaves[lo:hi] {
					b.Add(l)
				}
				for _, s := range Subtrees(hi, size) {
					if err := b.AddTree(s.Level, seen[s]); err != nil {
						t.Fatal(err)
					}
				}
				if b.Root() != root {
					t.Fatalf("size %d: the run %d to %d does not lead to the root", size, lo, hi)
				}
			}
			path, err := Path(lo, size)
			if err != nil {
				t.Fatal(err)
			}
			var proof []Hash
			for _, part := range path {
				h := seen[part[len(part)-1]]
				for i := len(part) - 2; i >= 0; i-- {
					h = NodeHash(seen[part[i]], h)
				}
				proof = append(proof, h)
			}
			if err := VerifyInclusion(lo, size, leaves[lo], proof, root); err != nil {
				t.Fatalf("size %d, leaf %d: %v", size, lo, err)
			}
		}
	}
	var b Builder
	b.Add(Hash{})
	if b.AddTree(1, Hash{}) == nil || b.AddTree(-1, Hash{}) == nil || b.AddTree(63, Hash{}) == nil {
		t.Error("a subtree is taken where it does not fit")
	}
}
