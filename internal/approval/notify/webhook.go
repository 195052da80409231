package notify

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

// maxAnswer bounds what is read of an answer, bytes, so that its connection can be used
// again; its headers too.
const maxAnswer = 64 << 10

// WebhookConfig is what a Webhook is made of.
type WebhookConfig struct {
	URL string // https, or http on a loopback address
	// Secret signs: "whsec_" and base64, or the bytes themselves, at least 24. It is
	// copied.
	Secret []byte
	// Details lets the statements' text out, which may hold data.
	Details bool
	// ConsoleURL is the console's base URL; empty: events have no link.
	ConsoleURL string
	Log        *slog.Logger
}

// Webhook tells of requests by signed POSTs (Standard Webhooks 1.0.0). It meets
// approval.Notifier.
type Webhook struct {
	cfg    WebhookConfig
	key    []byte
	client *http.Client
	out    *outbox

	mu      sync.Mutex // over history and the order in which events are put
	history history
}

// NewWebhook starts one. Its owner closes it.
func NewWebhook(c WebhookConfig) (*Webhook, error) {
	w, err := newWebhook(c)
	if err != nil {
		return nil, err
	}
	w.out.start()
	return w, nil
}

func newWebhook(c WebhookConfig) (*Webhook, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("the webhook's address is no URL; write https://HOST/PATH")
	}
	key, err := secretOf(c.Secret)
	if err != nil {
		return nil, err
	}
	c.Secret = nil
	c.Log = c.Log.With("webhook", u.Host)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxAnswer
	return &Webhook{cfg: c, key: key, out: newOutbox(c.Log), client: &http.Client{
		Transport: transport,
		// A redirect would take the event to an address that nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Notify implements approval.Notifier. It does not block; what changed nothing but a
// part of a quorum is no event.
func (w *Webhook) Notify(r approval.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kind := range w.history.changes(&r) {
		body, err := newEvent(kind, &r, time.Now(), page(w.cfg.ConsoleURL, r.ID), w.cfg.Details)
		if err != nil {
			w.cfg.Log.Error("an event could not be written", "id", r.ID, "type", kind, "error", err)
			continue
		}
		id := "msg_" + rand.Text()
		j := &job{key: r.ID + " " + kind, send: func(ctx context.Context) error { return w.post(ctx, id, body) }}
		switch kind {
		case eventRequested:
			j.until = r.Expires
		case eventReview: // open and done are two events
			j.key += " " + r.Review
		default: // nobody is to act on a request that has been decided
			w.out.outdate(r.ID + " " + eventRequested)
		}
		w.out.put(j)
	}
}

// post is one try. Its timestamp is that of the try, its id that of the event.
func (w *Webhook) post(ctx context.Context, id string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return cause(err)
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "weir")
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", now)
	req.Header.Set("webhook-signature", sign(w.key, id, now, body))
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusGone:
		return errGone
	case code >= 300 && code < 400:
		return fmt.Errorf("the receiver redirects (%d), which is not followed; configure the address that it redirects to", code)
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		if s, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
			return &throttled{time.Duration(s) * time.Second}
		}
		fallthrough
	default:
		return fmt.Errorf("the receiver answers %d", resp.StatusCode)
	}
}

// Dropped is how many events were not delivered, since the start.
func (w *Webhook) Dropped() uint64 { return w.out.count() }

// Close tries once more what is left, and waits for it until ctx ends. Nothing is taken
// after that.
func (w *Webhook) Close(ctx context.Context) error {
	err := w.out.close(ctx)
	w.client.CloseIdleConnections()
	return err
}

// page is a request's page in the console.
func page(console, id string) string {
	if console == "" {
		return ""
	}
	return strings.TrimSuffix(console, "/") + "/approvals/" + url.PathEscape(id)
}
