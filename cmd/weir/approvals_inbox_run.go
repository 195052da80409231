package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/weirproxy/weir/internal/approval"
)

// runInbox shows an inbox until the person quits.
func runInbox(ctx context.Context, a *approver, f *feed) error {
	// Without an agent, or without a sign-in, words are better than an empty screen.
	if err := a.agent.Call(ctx, http.MethodGet, "/v1/approvals", nil, nil); err != nil {
		return err
	}
	return showInbox(ctx, a, f, tea.WithInput(os.Stdin), tea.WithOutput(os.Stdout))
}

// showInbox runs an inbox on a terminal, and waits for everything that it started.
func showInbox(ctx context.Context, a *approver, f *feed, options ...tea.ProgramOption) error {
	ctx, cancel := context.WithCancel(ctx)
	do := &inboxWork{ctx: ctx, approver: a}
	p := tea.NewProgram(newInbox(do, time.Now()), append(options, tea.WithContext(ctx), tea.WithoutSignalHandler())...)
	do.send = p.Send
	fed := make(chan error, 1)
	go func() {
		err := f.run(ctx, func(m any) error { p.Send(m); return nil })
		if err != nil {
			p.Quit() // it could not even begin
		}
		fed <- err
	}()
	_, err := p.Run()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		err = nil // a signal ends it as q does
	}
	cancel()
	do.close()
	return errors.Join(err, <-fed)
}

// inboxWork does what an inbox wants done. It meets inboxDo.
type inboxWork struct {
	ctx      context.Context // of the inbox
	approver *approver
	send     func(tea.Msg)
	work     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	giveUp context.CancelFunc // of the sign-in under way
}

// begin counts a piece of work, unless the inbox has been closed: then it is not to be
// done.
func (w *inboxWork) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.work.Add(1)
	}
	return !w.closed
}

// close waits for what is being done. The context has ended.
func (w *inboxWork) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.work.Wait()
}

// Write passes on what a sign-in has to say.
func (w *inboxWork) Write(b []byte) (int, error) {
	w.send(signInText{string(b)})
	return len(b), nil
}

// Approve implements inboxDo.
func (w *inboxWork) Approve(r *approval.Request, reason string) tea.Cmd {
	request := *r // what was shown is what is approved
	ctx, cancel := context.WithCancel(w.ctx)
	w.mu.Lock()
	w.giveUp = cancel
	w.mu.Unlock()
	return func() tea.Msg {
		defer cancel()
		if !w.begin() {
			return nil
		}
		defer w.work.Done()
		done, err := w.approver.approve(ctx, &request, reason, w)
		return inboxDecided{verb: "approve", id: request.ID, request: done, err: err, gaveUp: err != nil && ctx.Err() != nil}
	}
}

// GiveUp implements inboxDo.
func (w *inboxWork) GiveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.giveUp != nil {
		w.giveUp()
	}
}

// Look implements inboxDo.
func (w *inboxWork) Look(id string) tea.Cmd {
	return func() tea.Msg {
		if !w.begin() {
			return nil
		}
		defer w.work.Done()
		// What it finds comes with the feed; so does the reason why there is none.
		_ = w.approver.agent.Call(w.ctx, http.MethodGet, "/v1/approvals/"+url.PathEscape(id), nil, nil)
		return nil
	}
}

// Decide implements inboxDo.
func (w *inboxWork) Decide(verb, id, reason string) tea.Cmd {
	return func() tea.Msg {
		if !w.begin() {
			return nil
		}
		defer w.work.Done()
		done, err := w.approver.decide(w.ctx, verb, id, "", reason)
		return inboxDecided{verb: verb, id: id, request: done, err: err}
	}
}
