package budget

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// maxCounts bounds how many budgets are kept: people times masks that they tested a
// column of in the last Per. A count takes about 250 bytes, so all of them 16 MiB.
// When it is full, budgets that are not known yet are refused: whoever could push a
// count out by making others would have its tests back.
const maxCounts = 1 << 16

// ErrFull says that no further budget can be kept.
var ErrFull = errors.New("weir keeps count of as many budgets as it can; tell whoever runs weir on this node")

// key is who and which mask, as a digest: of one length whatever the names, and the
// file says of nobody what they tested.
type key [16]byte

// keyOf is of the issuer and subject: who acts for a person spends theirs, or a
// person would have one more budget with each agent that acts for them.
func keyOf(who *flow.Principal, policy, mask string) key {
	h := sha256.New()
	part := func(s string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	if who != nil {
		part(who.Issuer)
		part(who.Subject)
	}
	part(policy)
	part(mask)
	return key(h.Sum(nil)[:len(key{})])
}

// count is one budget.
type count struct {
	window
	asked uint32 // by the list at hand
}

// Config is what a Book is made of.
type Config struct {
	File string // where the counts are kept; its folder must be there
	Now  func() time.Time
	Log  *slog.Logger
}

// Book holds the counts of a node. It is safe for concurrent use.
type Book struct {
	cfg Config

	mu     sync.Mutex
	counts map[key]*count
	clock  int64     // ns since 1970, as far as this book has seen time pass
	read   time.Time // Now when the clock was last moved on
	swept  int64     // the clock when counts of nothing were last dropped
	dirty  bool
	most   int // maxCounts; less in tests

	wake   chan struct{}
	closed chan struct{}
	done   chan struct{}
}

// Take takes all spends out of the budgets of a principal, or none. left is what is
// left of the budget of each afterwards. short is the first for which there is not
// enough left, -1 when all were taken. An error says why the budget of short cannot
// be counted at all.
func (b *Book) Take(who *flow.Principal, spends []flow.Spend) (left []int, short int, err error) {
	return b.ask(who, spends, true)
}

// Look is Take without taking.
func (b *Book) Look(who *flow.Principal, spends []flow.Spend) (left []int, short int, err error) {
	return b.ask(who, spends, false)
}

func (b *Book) ask(who *flow.Principal, spends []flow.Spend, take bool) (left []int, short int, err error) {
	counts := make([]*count, len(spends))
	left, short = make([]int, len(spends)), -1
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.tick()
	var fresh []key
	for i := range spends {
		s := &spends[i]
		k := keyOf(who, s.Policy, s.Mask)
		c := b.counts[k]
		if c == nil {
			if len(b.counts) >= b.most && now-b.swept >= int64(saveEvery) {
				b.sweep(now)
			}
			if len(b.counts) >= b.most {
				if short < 0 {
					short, err = i, ErrFull
				}
				continue
			}
			c = &count{}
			b.counts[k] = c
			fresh = append(fresh, k)
		}
		counts[i] = c
		c.at(now, max(s.Per, 1))
		if !fits(c, s) {
			if short < 0 {
				short = i
			}
			continue
		}
		c.asked += uint32(max(s.Tests, 0))
	}
	for i, c := range counts {
		if c == nil {
			continue
		}
		if take && short < 0 {
			c.spend(c.asked)
		}
		c.asked = 0
		left[i] = max(spends[i].Limit-int(c.spent(now)), 0)
	}
	if take && short < 0 && len(spends) > 0 {
		b.changed()
		return left, short, nil
	}
	for _, k := range fresh {
		delete(b.counts, k)
	}
	return left, short, err
}

// fits reports whether a budget has room for a spend besides what the list has asked
// for already. Windows are at the moment.
func fits(c *count, s *flow.Spend) bool {
	total := uint64(c.asked)
	for _, n := range c.counts {
		total += uint64(n)
	}
	return s.Limit > 0 && s.Tests <= s.Limit && total+uint64(max(s.Tests, 0)) <= uint64(s.Limit)
}

// tick moves the clock on and returns it. It moves by what the clock of the node has
// moved since it was last read, and never back: with a clock that is set back no time
// has passed, and from there on it passes again. (Readings of one run of the agent
// are monotonic, so that setting the clock does nothing at all there.)
func (b *Book) tick() int64 {
	now := b.cfg.Now()
	if d := now.Sub(b.read); d > 0 {
		b.clock += int64(d)
	}
	b.read = now
	return b.clock
}

// sweep drops counts of which nothing counts any more.
func (b *Book) sweep(now int64) {
	b.swept = now
	for k, c := range b.counts {
		if c.asked == 0 && c.spent(now) == 0 {
			delete(b.counts, k)
		}
	}
}

// changed wakes the writer.
func (b *Book) changed() {
	if b.dirty {
		return
	}
	b.dirty = true
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
