package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	// tryTimeout bounds one try.
	tryTimeout = 10 * time.Second
	// maxTries, over about half an hour with backoff, and never more than maxAge.
	maxTries = 8
	maxAge   = time.Hour
	// maxPause bounds how long a receiver can ask for a pause.
	maxPause = 5 * time.Minute
	// maxError bounds what an error says in the log, bytes.
	maxError = 300
	// maxJobs bounds an outbox; the oldest goes first.
	maxJobs = 1024
)

// job is one thing to tell. Its outbox owns it.
type job struct {
	key   string    // a later job with the same key takes its place
	until time.Time // it is of no use after that; zero: maxAge
	send  func(context.Context) error
	lost  func() // it is given up; nil: nothing to do

	tries int
	first time.Time
	due   time.Time
}

// throttled is the error of a receiver that wants a pause before anything else.
type throttled struct{ after time.Duration }

func (e *throttled) Error() string {
	return fmt.Sprintf("the receiver asks for a pause of %s", e.after)
}

// errGone is the error of a receiver that wants nothing any more.
var errGone = errors.New("the receiver wants no more of it")

// outbox delivers jobs one at a time on a goroutine of its own, and the same one again
// after a failure. It is bounded, and putting something in never blocks.
type outbox struct {
	log   *slog.Logger
	limit int
	delay func(try int) time.Duration // before the next try, after so many

	mu      sync.Mutex
	jobs    []*job // oldest first
	current *job   // it is being sent
	pause   time.Time
	dropped uint64
	closed  bool // each job gets one more try, and none is taken
	gone    bool // nothing is sent any more

	news   chan struct{} // holds one token while there may be something to do
	ctx    context.Context
	cancel context.CancelFunc
	worker sync.WaitGroup
}

func newOutbox(log *slog.Logger) *outbox {
	o := &outbox{log: log, limit: maxJobs, delay: backoff, news: make(chan struct{}, 1)}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o
}

func (o *outbox) start() { o.worker.Go(o.run) }

// backoff is 4 s, 10 s, 25 s, ... give or take a quarter.
func backoff(try int) time.Duration {
	d := 4 * time.Second.Seconds() * math.Pow(2.5, float64(min(try, maxTries)-1))
	return time.Duration(d * (0.75 + rand.Float64()/2) * float64(time.Second))
}

// put takes a job, in place of one with the same key that is not being sent.
func (o *outbox) put(j *job) {
	now := time.Now()
	j.first, j.due = now, now
	var lost []*job
	o.mu.Lock()
	switch i := slices.IndexFunc(o.jobs, func(x *job) bool { return x.key == j.key }); {
	case o.closed || o.gone:
		lost = append(lost, j)
		o.dropped++
	case i >= 0:
		o.jobs[i] = j
	default:
		o.jobs = append(o.jobs, j)
		for len(o.jobs) > o.limit {
			lost = append(lost, o.jobs[0])
			o.jobs = slices.Delete(o.jobs, 0, 1)
			o.dropped++
			if n := o.dropped; n&(n-1) == 0 { // 1, 2, 4, ...: a flood is not to flood the log too
				o.log.Error("too much waits to be told, so the oldest is dropped; see why the receiver does not take it", "dropped", n, "limit", o.limit)
			}
		}
	}
	o.mu.Unlock()
	o.wake()
	giveUp(lost)
}

func giveUp(jobs []*job) {
	for _, j := range jobs {
		if j.lost != nil {
			j.lost()
		}
	}
}

// outdate makes a job that has failed already not be tried again.
func (o *outbox) outdate(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.current; c != nil && c.key == key {
		c.until = time.Now()
	}
	for _, j := range o.jobs {
		if j.key == key && j.tries > 0 {
			j.until = time.Now()
		}
	}
}

func (o *outbox) wake() {
	select {
	case o.news <- struct{}{}:
	default:
	}
}

func (o *outbox) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		j, wait := o.next()
		if j != nil {
			o.try(j)
			continue
		}
		if wait == 0 {
			return
		}
		timer.Reset(wait)
		select {
		case <-o.news:
		case <-timer.C:
		case <-o.ctx.Done():
		}
	}
}

// next takes the job that is due, or says how long there is none; 0 means for ever. What
// has become of no use goes.
func (o *outbox) next() (*job, time.Duration) {
	now := time.Now()
	var late []*job
	defer func() { giveUp(late) }()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.jobs = slices.DeleteFunc(o.jobs, func(j *job) bool {
		is := !j.until.IsZero() && j.until.Before(now)
		if is {
			late = append(late, j)
		}
		return is
	})
	o.dropped += uint64(len(late))
	if o.ctx.Err() != nil || o.closed && len(o.jobs) == 0 {
		return nil, 0
	}
	wait, best := time.Duration(math.MaxInt64), -1
	for i, j := range o.jobs {
		w := max(j.due.Sub(now), o.pause.Sub(now), 0)
		if o.closed {
			w = 0
		}
		if w < wait {
			wait, best = w, i
		}
	}
	if wait > 0 {
		return nil, wait
	}
	o.current = o.jobs[best]
	o.jobs = slices.Delete(o.jobs, best, best+1)
	return o.current, 0
}

func (o *outbox) try(j *job) {
	ctx, cancel := context.WithTimeout(o.ctx, tryTimeout)
	err := j.send(ctx)
	cancel()
	o.mu.Lock()
	o.current = nil
	var lost []*job
	if err != nil {
		lost = o.failed(j, err)
	}
	o.mu.Unlock()
	giveUp(lost)
}

// failed puts a job back, or returns what is lost. The mutex is held.
func (o *outbox) failed(j *job, err error) (lost []*job) {
	now := time.Now()
	pause := new(throttled)
	switch {
	case errors.Is(err, errGone):
		o.log.Error("the receiver wants no more of it (410), so nothing is sent there until weir starts again; take it out of approvals.notify, or mend it")
		lost = append(o.jobs, j)
		o.gone, o.jobs = true, nil
		o.dropped += uint64(len(lost))
		return lost
	case slices.ContainsFunc(o.jobs, func(x *job) bool { return x.key == j.key }):
		return nil // something newer says all of it
	case errors.As(err, &pause):
		o.pause = now.Add(min(max(pause.after, o.delay(1)), maxPause))
	default:
		j.tries++
		j.due = now.Add(o.delay(j.tries))
	}
	late := j.first.Add(maxAge)
	if !j.until.IsZero() && j.until.Before(late) {
		late = j.until
	}
	if o.closed || o.ctx.Err() != nil || j.tries >= maxTries || j.due.After(late) || o.pause.After(late) {
		o.dropped++
		o.log.Error("something about an approval request could not be told", "key", j.key, "tries", j.tries, "error", cause(err))
		return []*job{j}
	}
	if j.tries == 1 {
		o.log.Warn("something about an approval request could not be told; it is tried again", "key", j.key, "error", cause(err))
	}
	o.jobs = slices.Insert(o.jobs, 0, j)
	return nil
}

// close tries everything once more, waits for it, and ends the goroutine; ctx cuts that
// short.
func (o *outbox) close(ctx context.Context) error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.wake()
	stop := context.AfterFunc(ctx, o.cancel)
	defer stop()
	o.worker.Wait()
	o.cancel()
	o.mu.Lock()
	lost := o.jobs
	o.dropped += uint64(len(lost))
	o.jobs = nil
	o.mu.Unlock()
	giveUp(lost)
	if len(lost) > 0 {
		return fmt.Errorf("%d notices about approval requests were not delivered: %w", len(lost), context.Cause(ctx))
	}
	return nil
}

// count is how many jobs were dropped or given up.
func (o *outbox) count() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

// cause is an error without the URL that it is about: the path of a webhook, or the
// query of a socket, is often its secret. A receiver chose some of its text, so it is
// short.
func cause(err error) error {
	var u *url.Error
	for errors.As(err, &u) && u.Err != nil {
		err = u.Err
	}
	if text := err.Error(); len(text) > maxError {
		return errors.New(clip(text, maxError))
	}
	return err
}
