package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
)

// Bounds of watches.
const (
	maxWatches    = 256
	maxOwnWatches = 8 // of one person
	// watchBeat is how often an empty line shows that a watch is alive, both ways.
	watchBeat  = 15 * time.Second
	watchWrite = 10 * time.Second // in which a line has to be taken
)

// watches counts the open ones by who holds them.
type watches struct {
	mu  sync.Mutex
	all int
	own map[string]int
}

func newWatches() *watches { return &watches{own: map[string]int{}} }

func (n *watches) enter(who string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all >= maxWatches || n.own[who] >= maxOwnWatches {
		return false
	}
	n.all++
	n.own[who]++
	return true
}

func (n *watches) leave(who string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all--
	if n.own[who]--; n.own[who] <= 0 {
		delete(n.own, who)
	}
}

// apiWatch sends requests as JSON lines until the caller hangs up or the token expires.
func (c *Console) apiWatch(w http.ResponseWriter, r *http.Request, who *flow.Principal, s approval.Service) {
	name := who.Issuer + "\x00" + who.Subject
	if !c.watches.enter(name) {
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusTooManyRequests, "too many watches are open; end one of yours")
		return
	}
	defer c.watches.leave(name)
	ctx := r.Context()
	if !who.Expires.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, who.Expires.Sub(c.cfg.Now()))
		defer cancel()
	}
	watch := s.Watch(ctx, approval.Viewer{Who: who})
	defer watch.Close()
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("X-Accel-Buffering", "no") // reverse proxies would hold lines back
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})                                   // that nothing comes means nothing; a hang-up is seen
	defer func() { _ = rc.SetReadDeadline(time.Now().Add(watchWrite)) }() // what is left of the request
	enc := json.NewEncoder(w)
	for {
		_ = rc.SetWriteDeadline(time.Now().Add(watchWrite))
		if rc.Flush() != nil {
			return
		}
		turn, cancel := context.WithTimeout(ctx, watchBeat)
		next, err := watch.Next(turn)
		cancel()
		_ = rc.SetWriteDeadline(time.Now().Add(watchWrite))
		switch {
		case err == nil:
			err = enc.Encode(next)
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			_, err = w.Write([]byte("\n"))
		}
		if err != nil {
			return
		}
	}
}
