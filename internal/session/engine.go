package session

import (
	"context"

	"github.com/weirproxy/weir/internal/flow"
)

// Engine is the state machine of one flow behind its greeting. It does no I/O
// and starts no goroutine: bytes of either side go in, bytes for either side,
// questions for the gate and outcomes come out. A driver moves the bytes and
// never calls it from two goroutines at once.
type Engine interface {
	// Client takes bytes that the client sent and returns how many it consumed:
	// all of them, unless a question is pending. Output may alias b. An error
	// ends the flow after the output is written; io.EOF says that the client has
	// taken its leave, and what the server still has is relayed.
	Client(b []byte, out *Output) (int, error)
	// Server takes bytes that the server sent; it consumes all of them.
	Server(b []byte, out *Output) error
	// Pending is the question that must be answered before Client is called
	// again, nil when there is none. While its Wait is set and open it cannot be
	// asked yet; afterwards Pending returns what to ask, if anything.
	Pending() *Question
	// Answer gives the answer to the pending question.
	Answer(a *Answered, out *Output) error
	// Held tells the client that the pending question waits for other people, where its
	// stream permits. It may be called again as the request comes along.
	Held(n Notice, out *Output)
	// Idle reports whether the flow could end now without anybody losing work.
	Idle() bool
	// Goodbye puts the reason of a cut into the client's stream, where the
	// stream's state permits, and reports open actions as lost.
	Goodbye(r *Refusal, out *Output)
	// End reports open actions as lost: one of the two sides is gone.
	End(out *Output)
}

// Question is what an engine must know before it goes on.
type Question struct {
	// Wait is set when the question depends on answers that the server still owes:
	// the engine closes it when they are in (in Server), or when the flow ends.
	// The other fields are then unset.
	Wait <-chan struct{}
	Mode Mode
	// Resolve finds out what the client asks for. It may block and runs outside
	// of the engine, so it works on a snapshot. Extra goes back to the engine.
	Resolve func(ctx context.Context) (actions []*flow.Action, extra any)
	// Describe fills in what the actions mean (flow.Action.Meaning), before they are
	// brought before other people; nil when that goes without saying.
	Describe func(actions []*flow.Action, extra any)
	// Preview finds out for approvers what the resolved actions would do (Ask.Preview);
	// nil when the engine has nothing to show.
	Preview func(ctx context.Context, extra any) []Preview
}

// Answered is a question's answer.
type Answered struct {
	Actions  []*flow.Action
	Extra    any
	Decision *Decision
}

// Output collects what an engine has for either side, in order. It is reused;
// ranges of input stay valid until the driver has written them.
type Output struct {
	ToClient Bytes
	ToServer Bytes
	Outcomes []Outcome
}

func (o *Output) reset() {
	o.ToClient.reset()
	o.ToServer.reset()
	o.Outcomes = o.Outcomes[:0]
}

// Bytes is a list of byte ranges: of the input, forwarded without a copy, and of
// the engine's own making.
type Bytes struct {
	ranges [][]byte
	own    []byte
	tail   bool // the last range is the end of own
}

// Forward adds a range of the input. A range that follows the last one in the
// same array is merged with it, so that unchanged input stays one write.
func (w *Bytes) Forward(b []byte) {
	if len(b) == 0 {
		return
	}
	if n := len(w.ranges); n > 0 && !w.tail {
		last := w.ranges[n-1]
		if cap(last) >= len(last)+len(b) && &last[:len(last)+1][len(last)] == &b[0] {
			w.ranges[n-1] = last[:len(last)+len(b)]
			return
		}
	}
	w.ranges = append(w.ranges, b)
	w.tail = false
}

// Append copies b.
func (w *Bytes) Append(b []byte) {
	w.Build(func(dst []byte) []byte { return append(dst, b...) })
}

// Build lets f append to the engine's own bytes. f must only append.
func (w *Bytes) Build(f func(dst []byte) []byte) {
	start := len(w.own)
	grown := f(w.own)
	if len(grown) == start {
		return
	}
	moved := start > 0 && &grown[0] != &w.own[0]
	w.own = grown
	if n := len(w.ranges); n > 0 && w.tail && !moved {
		last := w.ranges[n-1]
		w.ranges[n-1] = grown[start-len(last):]
		return
	}
	w.ranges = append(w.ranges, grown[start:])
	w.tail = true
}

// Len is the number of bytes collected.
func (w *Bytes) Len() int {
	n := 0
	for _, r := range w.ranges {
		n += len(r)
	}
	return n
}

// Ranges are the collected ranges in order. They are valid until the next call
// of the engine.
func (w *Bytes) Ranges() [][]byte { return w.ranges }

// keepOwn bounds the scratch memory that an idle flow holds on to, bytes.
const keepOwn = 16 << 10

func (w *Bytes) reset() {
	clear(w.ranges)
	w.ranges = w.ranges[:0]
	w.tail = false
	if cap(w.own) > keepOwn {
		w.own = nil
	}
	w.own = w.own[:0]
}
