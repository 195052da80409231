package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Group commit in two stages, both led by one of those who wait, so that there is
// no writer goroutine to hand over to and back. First the queue: whoever finds no
// leader leads, takes all that is queued, writes it with one write(2), and hands
// the lead to the first that has queued meanwhile. Then, for those who asked for
// the disk, diskState: one runs fdatasync(2) for all that is written by then, the
// others wait for one that covers their bytes. Writes go on during a sync.

// maxBatch bounds the bytes of one write, if no single request is longer.
const maxBatch = 4 << 20

// headRoom is the most bytes that a record has besides an event's body: head,
// chain value, version, sequence number and time.
const headRoom = 128

// request is one Append in the queue.
type request struct {
	events []*auditlog.Event
	body   []byte // bodies of the events, one behind the other
	ends   []int  // where each body ends

	turn chan bool // true: lead the next batch; false: done. Capacity 1
	err  error
	at   place
}

// place is a place in the stream of bytes that the spool writes.
type place struct {
	mark  uint64 // bytes
	seq   uint64 // of the last event before it
	epoch uint64 // changes with every failed sync
}

func (s *Spool) encode(events []*auditlog.Event) (*request, error) {
	r := s.queue.pool.Get().(*request)
	for _, ev := range events {
		ev.V = auditlog.Version
		if ev.Node == "" {
			ev.Node = s.Node
		}
		start := len(r.body)
		body, err := auditlog.AppendEventBody(r.body, ev)
		r.body = body
		if n := len(body) - start; err == nil && n > auditlog.MaxPayload-headRoom {
			err = fmt.Errorf("%w: %d bytes, at most %d", auditlog.ErrTooLong, n, auditlog.MaxPayload-headRoom)
		}
		if err != nil {
			s.queue.release(r)
			return nil, fmt.Errorf("record an event of kind %s: %w", ev.Kind, err)
		}
		r.ends = append(r.ends, len(r.body))
	}
	r.events = append(r.events, events...)
	return r, nil
}

// requestQueue is the first stage.
type requestQueue struct {
	pool sync.Pool

	mu      sync.Mutex
	waiting []*request
	spare   []*request // the leader's
	leading bool
}

// keepBody bounds the memory that a pooled request holds on to, bytes.
const keepBody = 64 << 10

func (q *requestQueue) release(r *request) {
	clear(r.events)
	r.events, r.ends, r.body = r.events[:0], r.ends[:0], r.body[:0]
	if cap(r.body) > keepBody {
		r.body = nil
	}
	r.err, r.at = nil, place{}
	q.pool.Put(r)
}

// run returns when r was written, by this caller or another one's lead.
func (q *requestQueue) run(r *request, write func([]*request)) {
	q.mu.Lock()
	q.waiting = append(q.waiting, r)
	lead := !q.leading
	q.leading = true
	q.mu.Unlock()
	if !lead && !<-r.turn {
		return
	}
	batch := q.take()
	write(batch)
	next := q.pass(batch)
	// From here on the others own their requests again, and the batch is the next
	// leader's spare.
	if next != nil {
		next.turn <- true
	}
}

// take returns the batch to write; the leader's own request is its first.
func (q *requestQueue) take() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.waiting) && (n == 0 || size+len(q.waiting[n].body) <= maxBatch) {
		size += len(q.waiting[n].body)
		n++
	}
	batch := append(q.spare[:0], q.waiting[:n]...)
	rest := copy(q.waiting, q.waiting[n:])
	clear(q.waiting[rest:])
	q.waiting = q.waiting[:rest]
	return batch
}

// pass tells the batch that it is written and returns who leads next.
func (q *requestQueue) pass(batch []*request) *request {
	for _, r := range batch[1:] {
		r.turn <- false
	}
	clear(batch)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spare = batch
	if len(q.waiting) == 0 {
		q.leading = false
		return nil
	}
	return q.waiting[0]
}

// write gives a batch its place in the log and writes it. The result is in the
// requests.
func (s *Spool) write(batch []*request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.writeLocked(batch)
	at, now := s.placeLocked(), s.Now()
	for _, r := range batch {
		r.err, r.at = err, at
		if err != nil {
			s.lost.add(r.events, now)
		}
	}
}

func (s *Spool) writeLocked(batch []*request) error {
	if err := s.refusal(); err != nil {
		return err
	}
	size := 0
	for _, r := range batch {
		size += len(r.body) + len(r.events)*headRoom
	}
	if s.pos.Offset > s.carried && s.pos.Offset+int64(size) > s.SegmentBytes {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	buf := append(s.buf[:0], s.pos.Chain[:]...)
	end := s.pos
	for _, r := range batch {
		now := s.Now().UTC()
		start := 0
		for i, ev := range r.events {
			ev.Seq, ev.Time = end.Seq+1, now
			var mark int
			buf, mark = auditlog.BeginRecord(buf, auditlog.RecordEvent)
			buf = auditlog.AppendEventHead(buf, ev.Seq, now)
			buf = append(buf, r.body[start:r.ends[i]]...)
			start = r.ends[i]
			var err error
			if buf, end.Chain, err = auditlog.SealRecord(buf, mark); err != nil {
				return err
			}
			end.Seq++
		}
	}
	out := buf[len(end.Chain):]
	end.Offset += int64(len(out))
	if err := s.put(out, end); err != nil {
		return err
	}
	s.unsigned = true
	for _, r := range batch {
		for _, ev := range r.events {
			s.table.observe(ev)
		}
	}
	s.publish(batch, out)
	if cap(buf) <= maxBatch {
		s.buf = buf
	}
	return nil
}

// put writes whole records that lead to end. Called with mu held.
func (s *Spool) put(out []byte, end auditlog.Position) error {
	n, err := s.file.Write(out)
	if err == nil && n < len(out) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return s.fail(auditlog.GapWrite, fmt.Errorf("write: %w", err))
	}
	s.pos = end
	s.mark += uint64(n)
	s.disk.wrote(s.mark, s.pos.Seq)
	return nil
}

// placeLocked is the end of what is written. Called with mu held.
func (s *Spool) placeLocked() place {
	return place{mark: s.mark, seq: s.pos.Seq, epoch: s.disk.currentEpoch()}
}

// publish hands a batch to the subscribers. Called with mu held.
func (s *Spool) publish(batch []*request, out []byte) {
	if len(s.subs) == 0 {
		return
	}
	out = bytes.Clone(out)
	var items []Item
	pos := s.pos
	pos.Offset -= int64(len(out))
	for _, r := range batch {
		for _, ev := range r.events {
			raw, n, chain := auditlog.SplitRecord(out)
			out = out[n:]
			pos.Offset += int64(n)
			pos.Seq, pos.Chain = ev.Seq, chain
			items = append(items, Item{Event: ev, Raw: raw, End: pos})
		}
	}
	for _, sub := range s.subs {
		sub.publish(items, s.pos)
	}
}

// diskState is the second stage: what is on disk.
type diskState struct {
	mu      sync.Mutex
	cond    sync.Cond
	file    File // the one that a sync is for
	written place
	synced  place
	epoch   uint64
	err     error // of the sync that ended the last epoch, until the spool recovers
	busy    bool  // somebody syncs, or owns the file to replace it
}

// errSyncFailed is for those who come when the failure is repaired already.
var errSyncFailed = errors.New("sync: an error of the disk came in between")

func (d *diskState) currentEpoch() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.epoch
}

func (d *diskState) wrote(mark, seq uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written = place{mark: mark, seq: seq}
}

// own waits until nobody syncs and keeps others from it until replace.
func (d *diskState) own() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.busy {
		d.cond.Wait()
	}
	d.busy = true
}

// disown ends own without a change.
func (d *diskState) disown() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = false
	d.cond.Broadcast()
}

// replace ends own: all that was written so far is on disk, and file is the new
// file.
func (d *diskState) replace(file File, at place) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		d.err = nil
		d.epoch++ // nobody of the broken epoch may find their bytes on disk
	}
	d.file, d.written, d.synced = file, at, at
	d.busy = false
	d.cond.Broadcast()
}

// sync returns when everything before at is on disk.
func (s *Spool) sync(at place) error {
	d := &s.disk
	d.mu.Lock()
	for {
		switch {
		case d.epoch != at.epoch || d.err != nil:
			err := d.err
			d.mu.Unlock()
			if err == nil {
				err = errSyncFailed
			}
			return fmt.Errorf("%w: %w", ErrUnwritable, err)
		case d.synced.mark >= at.mark:
			d.mu.Unlock()
			return nil
		}
		if !d.busy {
			break
		}
		d.cond.Wait()
	}
	d.busy = true
	file, target := d.file, d.written
	d.mu.Unlock()

	err := file.Sync()

	if err == nil {
		d.reached(target)
		return nil
	}
	after, unsure := d.broke(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failSync(fmt.Errorf("sync: %w", err), after, unsure)
}

// reached ends a sync that brought everything before p to the disk.
func (d *diskState) reached(p place) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced = p
	d.busy = false
	d.cond.Broadcast()
}

// broke ends a sync that failed. After a failed fsync(2) a second one says nothing
// about the first one's bytes: they are unsure for good, and whoever waits for
// them waits in vain. It returns the last event on disk and how many written ones
// are behind it.
func (d *diskState) broke(err error) (after, unsure uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	d.epoch++
	d.busy = false
	d.cond.Broadcast()
	return d.synced.seq, d.written.seq - d.synced.seq
}
