package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Item is one event of the log as it was written.
type Item struct {
	Event *auditlog.Event // must not be changed
	Raw   []byte          // its JSON; must not be changed
	End   auditlog.Position
}

// Subscription yields the events of the log in order, each once, as soon as they
// are written. It never holds up an append: up to its buffer it is fed from
// memory; when it falls behind it reads from the segments until it has caught up.
// Next is for one goroutine.
type Subscription struct {
	spool *Spool
	size  int
	ping  chan struct{} // capacity 1: something has changed

	mu     sync.Mutex
	queue  []Item            // follows next without a hole
	limit  auditlog.Position // end of what is written
	behind bool              // events between the queue and limit are on disk only
	ended  bool
	needed auditlog.Position // from there on segments must stay

	// Owned by the caller of Next.
	next   auditlog.Position // behind the last record that was read
	reader *auditlog.Reader
	readTo auditlog.Position // what reader may be used for
}

// Subscribe starts at from, a position that an Item or the log gave, or with nil
// behind the last event. buffer is how many events may wait in memory.
func (s *Spool) Subscribe(from *auditlog.Position, buffer int) *Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &Subscription{spool: s, size: max(buffer, 1), ping: make(chan struct{}, 1), limit: s.pos, next: s.pos, needed: s.pos, ended: s.closed}
	if from != nil {
		b.next, b.needed = *from, *from
		b.behind = from.Before(s.pos)
	}
	if !s.closed {
		s.subs = append(s.subs, b)
	}
	return b
}

// Close ends the subscription.
func (b *Subscription) Close() {
	s := b.spool
	s.mu.Lock()
	for i, x := range s.subs {
		if x == b {
			s.subs = append(s.subs[:i:i], s.subs[i+1:]...)
			break
		}
	}
	s.mu.Unlock()
	b.end()
}

func (b *Subscription) end() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.wake()
}

func (b *Subscription) wake() {
	select {
	case b.ping <- struct{}{}:
	default:
	}
}

// publish adds events that end at limit. Without items the subscription reads
// them from the log.
func (b *Subscription) publish(items []Item, limit auditlog.Position) {
	b.mu.Lock()
	b.limit = limit
	if !b.behind && len(items) > 0 && len(b.queue)+len(items) <= b.size {
		b.queue = append(b.queue, items...)
	} else {
		b.behind = true
	}
	b.mu.Unlock()
	b.wake()
}

// Next returns the next event. When the spool is closed and everything was
// returned, the error is ErrClosed.
func (b *Subscription) Next(ctx context.Context) (Item, error) {
	for {
		item, limit, state := b.take()
		switch state {
		case taken:
			b.next = item.End
			return item, nil
		case onDisk:
			item, ok, err := b.read(limit)
			if err != nil || ok {
				return item, err
			}
			continue
		case over:
			b.closeReader()
			return Item{}, ErrClosed
		}
		select {
		case <-b.ping:
		case <-ctx.Done():
			return Item{}, context.Cause(ctx)
		}
	}
}

// What take found.
const (
	taken = iota
	onDisk
	nothing
	over
)

func (b *Subscription) take() (Item, auditlog.Position, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.needed = b.next
	if len(b.queue) > 0 {
		item := b.queue[0]
		b.queue[0] = Item{}
		b.queue = b.queue[1:]
		return item, b.limit, taken
	}
	if b.behind && b.next.Before(b.limit) {
		return Item{}, b.limit, onDisk
	}
	// Caught up: under the lock, so that nothing is published in between.
	b.behind = false
	b.queue = nil
	b.closeReader()
	if b.ended {
		return Item{}, b.limit, over
	}
	return Item{}, b.limit, nothing
}

// read reads one record from the log, in front of limit; false when it was no
// event. A reader reads ahead, and behind limit there may be bytes that the spool
// takes back: so a reader is good for what was written when it was opened only.
func (b *Subscription) read(limit auditlog.Position) (Item, bool, error) {
	if b.reader != nil && !b.next.Before(b.readTo) {
		b.closeReader()
	}
	if b.reader == nil {
		r, err := auditlog.OpenDirAt(b.spool.dir, b.next)
		if err != nil {
			return Item{}, false, err
		}
		b.reader, b.readTo = r, limit
	}
	rec, err := b.reader.Next()
	if err != nil {
		return Item{}, false, fmt.Errorf("read the audit log: %w", err)
	}
	b.next = rec.End
	if rec.Kind != auditlog.RecordEvent {
		return Item{}, false, nil
	}
	item := Item{Event: new(auditlog.Event), Raw: append([]byte(nil), rec.Payload...), End: rec.End}
	if err := json.Unmarshal(item.Raw, item.Event); err != nil {
		return Item{}, false, fmt.Errorf("read the audit log: event %d: %w", rec.Seq, err)
	}
	return item, true, nil
}

func (b *Subscription) closeReader() {
	if b.reader != nil {
		b.reader.Close()
		b.reader = nil
	}
}
