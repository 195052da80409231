package session

import (
	"hash/maphash"
	"slices"
	"sync"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
)

// Bounds of a memo. Decisions are keyed by what a statement touches and not by its
// text, so that few make up what an application does over one connection.
const (
	memoEntries  = 64
	memoAccesses = 32      // of an action that is kept
	memoBytes    = 2 << 10 // of what a decision is keyed by; so 64 of them 128 KiB and the decisions
)

// passing is what differs from one action to the next even if it is the same: what
// rests on it is decided every time.
const passing = policy.FactNow | policy.FactParams | policy.FactSize

// memo keeps the decisions of one flow, whose backend, database and process do not
// change. It is the half of the decision cache behind the analysis (sqlparse.Cache),
// which is keyed by the exact bytes of a statement, database, role, search path and
// catalogue: what comes out of there is compared here, along with the revision of
// the policy and the principal. Anything else that a decision rests on (policy.Facts)
// is compared too, or keeps it from being kept. It is safe for concurrent use.
//
// It pays from the first rule on, so no policy is too small for it: with all 64 kept
// 0.10 us against 0.22 us for ten rules by group and name, 0.53 us for 1,000, 2.1 us
// for ten with a condition and 42 us for 1,000 (BenchmarkDecision, 2 cores of an EPYC).
type memo struct {
	seed maphash.Seed

	mu       sync.Mutex
	revision string
	who      *flow.Principal // a renewed sign-in is another one
	hashes   []uint64        // of entries
	entries  []remembered    // made as they come
	hand     int             // of the clock that finds which to replace
}

// remembered is a decision and what it rests on.
type remembered struct {
	decision policy.Decision
	action   flow.Action // as far as decision.Rests says
	used     bool
}

// find returns the decision on an action, if it is known under the revision for the
// principal.
func (m *memo) find(revision string, who *flow.Principal, a *flow.Action) (policy.Decision, bool) {
	hash, ok := m.hash(a.Accesses)
	if !ok {
		return policy.Decision{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revision != revision || m.who != who {
		return policy.Decision{}, false
	}
	for i, h := range m.hashes {
		if e := &m.entries[i]; h == hash && sameFacts(e.decision.Rests, &e.action, a) {
			e.used = true
			return e.decision, true
		}
	}
	return policy.Decision{}, false
}

// keep remembers a decision that find did not know.
func (m *memo) keep(revision string, who *flow.Principal, a *flow.Action, d policy.Decision) {
	hash, ok := m.hash(a.Accesses)
	if !ok || d.Rests&policy.FactAccesses == 0 || d.Rests&passing != 0 {
		return
	}
	kept := flow.Action{Accesses: a.Accesses}
	size := 0
	if d.Rests&policy.FactText != 0 {
		kept.Text = a.Text
		size += len(a.Text)
	}
	if d.Rests&policy.FactFunctions != 0 {
		kept.Functions, kept.Languages, kept.SecurityDefiner = a.Functions, a.Languages, a.SecurityDefiner
		size += bytesOf(a.Functions) + bytesOf(a.Languages)
	}
	if d.Rests&policy.FactColumns != 0 {
		kept.Columns = a.Columns
		size += bytesOf(a.Columns.Read) + bytesOf(a.Columns.Written) + bytesOf(a.Columns.Tested)
	}
	if size > memoBytes {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revision != revision || m.who != who {
		clear(m.entries) // nothing of them is kept alive
		m.revision, m.who, m.hashes, m.entries, m.hand = revision, who, m.hashes[:0], m.entries[:0], 0
	}
	e := remembered{decision: d, action: kept}
	if len(m.entries) < memoEntries {
		m.hashes, m.entries = append(m.hashes, hash), append(m.entries, e)
		return
	}
	for m.entries[m.hand].used {
		m.entries[m.hand].used = false
		m.hand = (m.hand + 1) % memoEntries
	}
	m.hashes[m.hand], m.entries[m.hand] = hash, e
	m.hand = (m.hand + 1) % memoEntries
}

// hash is of the accesses; false when they are too many or too long to be kept.
func (m *memo) hash(list []flow.Access) (uint64, bool) {
	if len(list) > memoAccesses {
		return 0, false
	}
	const prime = 0x100000001b3 // FNV's: the order of accesses counts
	sum, size := uint64(len(list)), 0
	for i := range list {
		a := &list[i]
		size += len(a.Resource)
		sum = sum*prime ^ maphash.String(m.seed, string(a.Verb))
		sum = sum*prime ^ maphash.String(m.seed, a.Resource)
		if a.Unrestricted {
			sum++
		}
	}
	return sum, size <= memoBytes
}

// sameFacts reports whether two actions are the same in all that a decision rests on.
func sameFacts(rests policy.Facts, a, b *flow.Action) bool {
	if !slices.Equal(a.Accesses, b.Accesses) {
		return false
	}
	if rests&policy.FactText != 0 && a.Text != b.Text {
		return false
	}
	if rests&policy.FactFunctions != 0 && (a.SecurityDefiner != b.SecurityDefiner || !slices.Equal(a.Functions, b.Functions) || !slices.Equal(a.Languages, b.Languages)) {
		return false
	}
	return rests&policy.FactColumns == 0 || slices.Equal(a.Columns.Read, b.Columns.Read) &&
		slices.Equal(a.Columns.Written, b.Columns.Written) && slices.Equal(a.Columns.Tested, b.Columns.Tested)
}

func bytesOf(list []string) int {
	n := len(list) * 16
	for _, s := range list {
		n += len(s)
	}
	return n
}
