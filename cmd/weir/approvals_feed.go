package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/control"
)

// feedRetry is how long an inbox waits before it calls an agent that went away again.
const feedRetry = time.Second

// What a feed says.
type (
	// feedUp: the agent answers; from here on nothing is missed.
	feedUp struct{}
	// feedDown: the agent does not answer, or ended the connection (nil). The feed tries
	// again.
	feedDown struct{ err error }
	// feedGone: a request that was open cannot be seen any more.
	feedGone struct{ id string }
	// feedNews: a request is new or has changed. raw is the agent's JSON.
	feedNews struct {
		request approval.Request
		raw     json.RawMessage
	}
)

// feed follows the requests that the caller may see, over restarts of the agent. Each
// change is told once.
type feed struct {
	agent *control.Client
	retry time.Duration

	known map[string][sha256.Size]byte // open requests, as they were last told
}

// run calls each for what happens until ctx ends (nil) or each fails. When not even the
// first connection works out, that is the error.
func (f *feed) run(ctx context.Context, each func(any) error) error {
	f.known = map[string][sha256.Size]byte{}
	connected := false
	for {
		var failed error // of each, not of the agent
		tell := func(m any) error { failed = each(m); return failed }
		err := f.agent.Follow(ctx, "/v1/approvals/watch", func(line json.RawMessage) error {
			var news struct {
				Request json.RawMessage `json:"request"`
			}
			if err := json.Unmarshal(line, &news); err != nil {
				return fmt.Errorf("read the agent's answer: %w", err)
			}
			if news.Request != nil {
				return f.tell(news.Request, tell)
			}
			again := connected
			connected = true
			if err := tell(feedUp{}); err != nil || !again {
				return err
			}
			return f.catchUp(ctx, tell)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case failed != nil:
			return failed
		case !connected:
			return err
		}
		if err := each(feedDown{err}); err != nil {
			return err
		}
		wait := time.NewTimer(f.retry)
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
	}
}

// tell passes a request on unless it is as it was.
func (f *feed) tell(raw json.RawMessage, each func(any) error) error {
	var r approval.Request
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	sum := sha256.Sum256(raw)
	if was, ok := f.known[r.ID]; ok && was == sum {
		return nil
	}
	if open(&r) {
		f.known[r.ID] = sum
	} else {
		delete(f.known, r.ID)
	}
	return each(feedNews{r, raw})
}

// catchUp asks for what was open before the agent went away: what ended meanwhile is not
// told otherwise.
func (f *feed) catchUp(ctx context.Context, each func(any) error) error {
	for id := range f.known {
		var raw json.RawMessage
		err := f.agent.Call(ctx, http.MethodGet, "/v1/approvals/"+url.PathEscape(id), nil, &raw)
		var refusal *control.Error
		switch {
		case err == nil:
			err = f.tell(raw, each)
		case errors.As(err, &refusal) && refusal.Status == http.StatusNotFound:
			delete(f.known, id)
			err = each(feedGone{id})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// downText says why there is no news.
func downText(err error) string {
	var refusal *control.Error
	switch {
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF):
		return "the agent ended the connection: it is stopping, or your sign-in has ended or changed"
	case errors.As(err, &refusal):
		return clean(strings.TrimPrefix(refusal.Message, "weir: "))
	}
	return clean(err.Error())
}

// interactive reports whether there is a terminal for an inbox.
func interactive() bool {
	t := os.Getenv("TERM")
	return t != "" && t != "dumb" && term.IsTerminal(os.Stdin.Fd()) && term.IsTerminal(os.Stdout.Fd())
}

// jsonLines prints each request as the agent tells it.
func jsonLines(out, errs io.Writer) func(any) error {
	said := ""
	return func(m any) error {
		switch m := m.(type) {
		case feedNews:
			_, err := fmt.Fprintf(out, "%s\n", m.raw)
			return err
		case feedUp:
			if said != "" {
				fmt.Fprintln(errs, "weir: the agent answers again")
			}
			said = ""
		case feedDown:
			if text := downText(m.err); text != said {
				fmt.Fprintf(errs, "weir: %s; trying again\n", text)
				said = text
			}
		}
		return nil
	}
}

// plainInbox prints what happens as lines.
type plainInbox struct {
	out, errs io.Writer
	now       func() time.Time

	open map[string]*approval.Request
	said string // why there is no news
}

func (p *plainInbox) take(m any) error {
	if p.open == nil {
		p.open = map[string]*approval.Request{}
	}
	switch m := m.(type) {
	case feedUp:
		if p.said != "" {
			fmt.Fprintln(p.errs, "weir: the agent answers again")
		} else if len(p.open) == 0 {
			fmt.Fprintln(p.errs, "weir: waiting for requests that you may see (Ctrl-C ends this)")
		}
		p.said = ""
	case feedDown:
		if text := downText(m.err); text != p.said {
			fmt.Fprintf(p.errs, "weir: %s; trying again\n", text)
			p.said = text
		}
	case feedGone:
		if r := p.open[m.id]; r != nil {
			delete(p.open, m.id)
			return p.line("END", r, "you may not see it any more")
		}
	case feedNews:
		return p.news(&m.request)
	}
	return nil
}

func (p *plainInbox) news(r *approval.Request) error {
	was := p.open[r.ID]
	if !open(r) {
		delete(p.open, r.ID)
		if was == nil {
			return nil
		}
		return p.line("END", r, outcome(r))
	}
	p.open[r.ID] = r
	switch {
	case was == nil && r.Status == approval.Pending:
		return p.block(r)
	case was == nil || was.Status != r.Status || was.Review != r.Review:
		return p.line("NOW", r, statusLine(r, p.now()))
	case len(was.Decisions) != len(r.Decisions):
		return p.line("NOW", r, "needs "+needsNow(r)+": "+strings.Join(approvers(r), ", "))
	}
	return nil
}

func (p *plainInbox) line(word string, r *approval.Request, text string) error {
	_, err := fmt.Fprintf(p.out, "%s  %s  %s  %s: %s\n", p.now().Local().Format(time.TimeOnly), word, oneLine(r.ID), requesterName(r), text)
	return err
}

func (p *plainInbox) block(r *approval.Request) error {
	lines := []string{fmt.Sprintf("%s  NEW  %s  %s: %s", p.now().Local().Format(time.TimeOnly), oneLine(r.ID), requesterName(r), summary(r))}
	f := []field{}
	for _, a := range actionsOf(r) {
		f = append(f, field{lines: textLines(a.Text), text: true})
	}
	for i := range r.Preview {
		f = append(f, field{label: "Preview", lines: previewLines(&r.Preview[i])})
	}
	f = append(f, field{label: "Where", lines: []string{where(r)}},
		field{label: "Needs", lines: needLines(r)},
		field{label: "Expires", lines: []string{fmt.Sprintf("in %s (%s)", left(r, p.now()), clock(r.Expires, p.now()))}},
		field{label: "Decide", lines: []string{"weir approvals approve " + oneLine(r.ID), "weir approvals deny " + oneLine(r.ID) + ` --reason "..."`}})
	for _, l := range lay(f, 0) {
		lines = append(lines, strings.TrimRight("    "+l, " "))
	}
	_, err := fmt.Fprintln(p.out, strings.Join(lines, "\n")+"\n")
	return err
}
