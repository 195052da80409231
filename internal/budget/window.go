package budget

import "time"

// slots is into how many parts a window is cut. A test is given back when its whole
// slot lies a window back: up to a part of 24 late (an hour of a day), never early.
const slots = 24

// window is how many tests were made in each slot of the last Per. Slot i of time is
// that from i times Per/slots on; it is kept at i modulo the length, one more than
// slots: the slot at hand and those that a window can reach back into.
type window struct {
	per    time.Duration
	newest int64 // the latest slot that is kept
	counts [slots + 1]uint32
}

// width is the length of a slot.
func (w *window) width() int64 { return max(int64(w.per)/slots, 1) }

// at brings the window to a moment (ns of the book's clock) for a time of per. A
// window of another length starts anew with all that was spent as if it was now:
// a policy that changes gives nothing back.
func (w *window) at(now int64, per time.Duration) {
	if w.per != per {
		spent := w.spent(now)
		*w = window{per: per}
		w.newest = now / w.width()
		w.counts[w.newest%int64(len(w.counts))] = spent
		return
	}
	w.forget(now)
}

// forget drops the slots that lie further back than the window reaches.
func (w *window) forget(now int64) {
	slot := now / w.width()
	for i := w.newest + 1; i <= min(slot, w.newest+int64(len(w.counts))); i++ {
		w.counts[i%int64(len(w.counts))] = 0
	}
	w.newest = max(w.newest, slot)
}

// spent is how many tests count at a moment.
func (w *window) spent(now int64) uint32 {
	if w.per == 0 {
		return 0
	}
	w.forget(now)
	total := uint32(0)
	for _, n := range w.counts {
		total = add(total, n)
	}
	return total
}

// spend adds tests to the slot at hand.
func (w *window) spend(n uint32) {
	c := &w.counts[w.newest%int64(len(w.counts))]
	*c = add(*c, n)
}

// add stops at the highest number: a sum that wrapped would give tests back.
func add(a, b uint32) uint32 {
	if sum := a + b; sum >= a {
		return sum
	}
	return ^uint32(0)
}
