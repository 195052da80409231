package approval

import (
	"sync"
	"time"
)

// clock is wall time that never goes back: neither when somebody sets the machine's
// clock back, which must not keep a request, a grant or a token alive, nor over a
// restart. It may go forward: that only ends things early.
type clock struct {
	wall func() time.Time

	mu    sync.Mutex
	base  time.Time // a reading of wall, with its monotonic part
	floor time.Time // the latest time ever given out
}

// newClock makes a clock that stands at floor or later.
func newClock(wall func() time.Time, floor time.Time) *clock {
	return &clock{wall: wall, base: wall(), floor: floor.Round(0).UTC()}
}

// now is the wall's time, or what has run by the monotonic clock since the start, or
// the latest time given out, whichever is later. It has no monotonic part.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wall()
	t := w.Round(0).UTC()
	if run := c.base.Round(0).UTC().Add(w.Sub(c.base)); run.After(t) {
		t = run
	}
	if t.After(c.floor) {
		c.floor = t
	}
	return c.floor
}
