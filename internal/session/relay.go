package session

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// Buffer sizes of the goroutine driver, bytes. 64 KiB towards the client: larger
// ones gained nothing measurable (bulk results); requests are small.
const (
	clientBuffer = 16 << 10
	serverBuffer = 64 << 10
)

// goodbyeTimeout bounds the last write to a client that is being cut.
const goodbyeTimeout = time.Second

// Relay drives an engine on two goroutines until either side is done, and
// returns when both have ended. It closes server; the client's connection stays
// its owner's. A nil error means that the client ended the flow.
func Relay(ctx context.Context, g *Gate, e Engine, client, server net.Conn) error {
	r := &relay{gate: g, engine: e, client: client, server: server, gone: make(chan struct{})}
	r.record()
	g.entry.setIdle(r.idle)
	defer g.entry.setIdle(nil)

	cutDone := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(cutDone); r.cut(context.Cause(ctx)) })

	fromClient := make(chan error, 1)
	go func() {
		err := r.pumpClient(ctx)
		if err == nil {
			err = closeWrite(server) // the server finishes what it has and closes
		}
		if err != nil {
			server.Close()
		}
		fromClient <- err
	}()
	serverErr := r.pumpServer()
	close(r.gone)
	server.Close()
	_ = client.SetReadDeadline(time.Unix(1, 0)) // nothing more can be answered
	clientErr := <-fromClient
	// The client is still open: the last words of a cut are said before this returns,
	// also when its reader was stopped first.
	if !stop() {
		<-cutDone
	} else if ctx.Err() != nil {
		r.cut(context.Cause(ctx))
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	endErr := r.endStep()
	if err := g.Complete(r.last.Outcomes); err != nil {
		return err
	}
	if endErr != nil {
		return endErr
	}
	return firstEnd(r.clientDone, clientErr, serverErr)
}

// firstEnd picks the error that ended the flow: the client's own end comes
// first, then a refusal or a protocol error, then the loss of the server.
func firstEnd(clientDone bool, clientErr, serverErr error) error {
	var end *End
	var refusal *Refusal
	for _, err := range []error{clientErr, serverErr} {
		if errors.As(err, &end) || errors.As(err, &refusal) {
			return err
		}
	}
	if clientDone {
		return nil
	}
	return &End{Reason: flow.ReasonServerClosed, Err: serverErr}
}

type relay struct {
	gate           *Gate
	client, server net.Conn

	// mu guards the engine. Whoever has output for a side takes that side's lock
	// before letting go of mu, so that output is written in the engine's order,
	// and a slow reader on one side does not hold up the other.
	mu         sync.Mutex
	engine     Engine
	over       bool // its last words are said: it is not asked any more
	taped      Recording
	clientDone bool
	last       Output
	toClient   sync.Mutex
	toServer   sync.Mutex

	gone chan struct{} // closed when the server has no more to say
}

func (r *relay) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over || r.engine.Idle()
}

// pumpClient moves the client's bytes until it has no more; nil at its end. After
// the client's goodbye its remaining bytes are not read: the deadline that follows
// the server's end stands for its own.
func (r *relay) pumpClient(ctx context.Context) error {
	buf := make([]byte, clientBuffer)
	var out Output
	for {
		n, err := r.client.Read(buf)
		if n > 0 {
			r.gate.entry.up.Add(int64(n))
			if e := r.fromClient(ctx, buf[:n], &out); e == io.EOF {
				r.setClientDone()
				return nil
			} else if e != nil {
				return e
			}
		}
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return err // not the client's doing: the server is gone or the flow is cut
		}
		r.setClientDone()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

func (r *relay) setClientDone() {
	r.mu.Lock()
	r.clientDone = true
	r.mu.Unlock()
}

func (r *relay) fromClient(ctx context.Context, b []byte, out *Output) error {
	for len(b) > 0 {
		r.mu.Lock()
		n, q, err := r.clientStep(b, out)
		if e := r.flush(out, err); e != nil {
			return e
		}
		b = b[n:]
		for q != nil {
			if q, err = r.question(ctx, q, out); err != nil {
				return err
			}
		}
	}
	return nil
}

// question answers q, or waits until it can be asked, and returns the next one.
func (r *relay) question(ctx context.Context, q *Question, out *Output) (*Question, error) {
	if q.Wait != nil {
		select {
		case <-q.Wait:
		case <-r.gone:
			return nil, os.ErrDeadlineExceeded
		case <-ctx.Done():
			return nil, os.ErrDeadlineExceeded
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.over {
			return nil, os.ErrDeadlineExceeded
		}
		return r.engine.Pending(), nil
	}
	a := &Answered{}
	if err := r.resolve(ctx, q, a); err != nil {
		return nil, err
	}
	ask := &asking{question: q, actions: a.Actions, extra: a.Extra}
	a.Decision = r.gate.decideFor(ctx, ask)
	if a.Decision.held != nil {
		if err := r.held(ctx, q, a, ask, out); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	r.record()
	q, err := r.answerStep(a, out)
	return q, r.flush(out, err)
}

// record makes the engine tell what passes, from the step that follows on, when a
// recording has begun. It is called with mu held.
func (r *relay) record() {
	rec := r.gate.Recording()
	e, ok := r.engine.(RecordedEngine)
	if !ok || rec == r.taped || r.over {
		return
	}
	if r.taped = rec; rec == nil {
		e.StopRecording()
		return
	}
	e.StartRecording(rec.Originals())
}

// keep passes what a step put into out to the recording.
func (r *relay) keep(out *Output) (err error) {
	if r.taped == nil || r.over {
		return nil
	}
	defer r.guard(out, &err)
	return r.engine.(RecordedEngine).Record(out, r.gate.keep)
}

// held lets the client wait for other people; then everything is found out and decided
// anew, since the catalogue, the policy and the sign-in may have changed meanwhile.
func (r *relay) held(ctx context.Context, q *Question, a *Answered, ask *asking, out *Output) error {
	hold := a.Decision.held
	cancelled := false
	err := r.gate.await(ctx, hold, r.client, r.gone, func(n Notice) error {
		r.mu.Lock()
		return r.flush(out, r.heldStep(n, out))
	}, &cancelled)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case err != nil:
		r.setClientDone()
		return io.EOF
	}
	before := a.Actions
	if err := r.resolve(ctx, q, a); err != nil {
		hold.Withdraw("it could not be looked at again")
		return err
	}
	if len(a.Actions) == len(before) {
		for i := range before { // it is the same action to the record
			a.Actions[i].ID = before[i].ID
		}
	}
	ask.actions, ask.extra, ask.hold = a.Actions, a.Extra, hold
	a.Decision = r.gate.decideFor(ctx, ask)
	if cancelled && a.Decision.Refusal != nil {
		a.Decision.Refusal = cancelledRefusal(hold.Notice())
	}
	return nil
}

// The steps call the engine, with mu held (resolve without). After its last words
// the engine is not asked any more: what it held for open actions is gone. A panic
// in an engine ends its flow, not the agent.

func (r *relay) clientStep(b []byte, out *Output) (n int, q *Question, err error) {
	if r.over {
		return 0, nil, os.ErrDeadlineExceeded
	}
	defer r.guard(out, &err)
	n, err = r.engine.Client(b, out)
	return n, r.engine.Pending(), err
}

func (r *relay) serverStep(b []byte, out *Output) (err error) {
	if r.over {
		return os.ErrDeadlineExceeded
	}
	defer r.guard(out, &err)
	return r.engine.Server(b, out)
}

func (r *relay) answerStep(a *Answered, out *Output) (q *Question, err error) {
	if r.over {
		return nil, os.ErrDeadlineExceeded
	}
	defer r.guard(out, &err)
	err = r.engine.Answer(a, out)
	return r.engine.Pending(), err
}

func (r *relay) heldStep(n Notice, out *Output) (err error) {
	if r.over {
		return os.ErrDeadlineExceeded
	}
	defer r.guard(out, &err)
	r.engine.Held(n, out)
	return nil
}

func (r *relay) resolve(ctx context.Context, q *Question, a *Answered) (err error) {
	defer r.gate.server.recovered(r.gate.flow.ID, &err)
	a.Actions, a.Extra = q.Resolve(ctx)
	return nil
}

func (r *relay) goodbyeStep(cause error, out *Output) (err error) {
	if r.over {
		return nil
	}
	defer r.guard(out, &err)
	r.engine.Goodbye(refusalFor(cause), out)
	r.over = true
	return nil
}

func (r *relay) endStep() (err error) {
	defer r.guard(&r.last, &err)
	r.over = true
	r.engine.End(&r.last)
	return nil
}

// guard is deferred around a step. What a step that failed wanted to write is
// not written.
func (r *relay) guard(out *Output, err *error) {
	if p := recover(); p != nil {
		r.over = true
		out.ToClient.reset()
		out.ToServer.reset()
		r.gate.server.panicked(r.gate.flow.ID, p, err)
	}
}

func (r *relay) pumpServer() error {
	buf := make([]byte, serverBuffer)
	var out Output
	for {
		n, err := r.server.Read(buf)
		if n > 0 {
			r.mu.Lock()
			e := r.serverStep(buf[:n], &out)
			if e := r.flush(&out, e); e != nil {
				return e
			}
		}
		if err != nil {
			return err
		}
	}
}

// flush is called with mu held and lets go of it. Outcomes are recorded first: a
// client that has seen the end of its statement finds it in the log. engineErr
// is returned when everything is written.
func (r *relay) flush(out *Output, engineErr error) error {
	defer out.reset()
	err := r.keep(out)
	// What is in no log or, where it has to be, in no recording is not written: the
	// flow ends without another word, since nobody knows where in its stream the
	// client stands then.
	if err = firstError(err, r.gate.Complete(out.Outcomes)); err != nil {
		r.over = true
	}
	toServer, toClient := out.ToServer.Ranges(), out.ToClient.Ranges()
	if len(toServer) > 0 {
		r.toServer.Lock()
		defer r.toServer.Unlock()
	}
	if len(toClient) > 0 {
		r.toClient.Lock()
		defer r.toClient.Unlock()
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if e := writeAll(r.server, toServer); e != nil && engineErr == nil {
		engineErr = e
	}
	if len(toClient) > 0 {
		r.gate.entry.down.Add(int64(out.ToClient.Len()))
		if e := writeAll(r.client, toClient); e != nil && engineErr == nil {
			engineErr = e
		}
	}
	return engineErr
}

// cut ends a live flow: the client is told why where its stream permits, then
// both sides are closed, which ends the pumps.
func (r *relay) cut(cause error) {
	_ = r.client.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	_ = r.server.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	r.mu.Lock()
	busy := !r.over && !r.engine.Idle()
	var out Output
	_ = r.goodbyeStep(cause, &out) // logged; the flow ends anyway
	_ = r.flush(&out, nil)
	r.server.Close()
	r.gate.mu.Lock()
	onCut := r.gate.onCut
	r.gate.mu.Unlock()
	if busy && onCut != nil {
		onCut()
	}
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func writeAll(c net.Conn, ranges [][]byte) error {
	switch len(ranges) {
	case 0:
		return nil
	case 1:
		_, err := c.Write(ranges[0])
		return err
	}
	if _, ok := c.(*net.TCPConn); ok {
		bufs := net.Buffers(ranges)
		_, err := bufs.WriteTo(c)
		return err
	}
	// TLS: one record instead of one for each range.
	n := 0
	for _, b := range ranges {
		n += len(b)
	}
	joined := make([]byte, 0, n)
	for _, b := range ranges {
		joined = append(joined, b...)
	}
	_, err := c.Write(joined)
	return err
}

func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return c.Close()
}
