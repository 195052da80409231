package notify

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
)

const (
	// maxMessages bounds the requests that messages are kept for, above what can wait.
	maxMessages = 20000
	// maxForms bounds the open forms of one message.
	maxForms = 32
	// maxClicks wait to be handled; more are dropped.
	maxClicks = 128
	// clickers handle clicks at the same time.
	clickers = 4
	// maxEnvelope bounds what comes over the socket at once, bytes; a click with its
	// message is some ten thousand.
	maxEnvelope = 1 << 20
	// maxReply bounds an answer of the API, bytes.
	maxReply = 4 << 20
	// redialAfter is the wait after the socket could not be opened for a reason that
	// does not go away by itself.
	redialAfter = time.Minute
)

// SlackConfig is what a Slack is made of. APIURL and ConsoleURL may be empty.
type SlackConfig struct {
	AppToken string // xapp-..., with connections:write
	BotToken string // xoxb-..., with chat:write, users:read and users:read.email
	Channel  string // name or id; the app is a member of it
	// APIURL is the base of the API's methods, for proxies: https, or http on a
	// loopback address. Empty: Slack's.
	APIURL     string
	ConsoleURL string // the console's base URL; empty: messages have no link
	// Service decides; nil as long as it is not there yet.
	Service func() approval.Service
	// Principal finds the valid sign-in, at this node or its console, of the person
	// with this e-mail address.
	Principal func(email string) (*flow.Principal, bool)
	Log       *slog.Logger
}

// Slack tells of requests in a channel of Slack and takes decisions from buttons there,
// over a socket that it opens itself (Socket Mode). It meets approval.Notifier.
//
// A click proves an account in Slack and no more. So it counts only where every rule is
// content with a session, for somebody whose address there belongs to a person that is
// signed in here, and with a token that was made for the button.
type Slack struct {
	cfg    SlackConfig
	api    *slack.Client
	socket *socketmode.Client
	client *http.Client
	out    *outbox
	redial time.Duration
	clicks chan click

	mu       sync.Mutex
	messages map[string]*message // by request
	closed   bool
	home     home // the workspace; zero until it is known

	ctx    context.Context // of the socket and the clicks
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// message is what the channel shows of one request. Guarded by Slack's mutex.
type message struct {
	card        *card
	channel, ts string // "" until it is posted
	token       string // of its buttons; "" when there is none that is good
	busy        bool   // a click is being handled
	forms       []form // oldest first
}

// form is one that is open at somebody's.
type form struct {
	token   string
	user    string // of Slack
	approve bool
}

// NewSlack starts one; it connects in the background, again and again. Its owner closes
// it.
func NewSlack(c SlackConfig) (*Slack, error) {
	s, err := newSlack(c)
	if err != nil {
		return nil, err
	}
	s.start()
	return s, nil
}

func newSlack(c SlackConfig) (*Slack, error) {
	if strings.HasPrefix(c.AppToken, "xox") || strings.HasPrefix(c.BotToken, "xapp-") {
		return nil, errors.New("the tokens for Slack stand in each other's place: app_token begins with xapp-, bot_token with xoxb-")
	}
	if c.AppToken == "" || c.BotToken == "" || c.Channel == "" {
		return nil, errors.New("Slack wants an app token, a bot token and a channel")
	}
	if c.APIURL == "" {
		c.APIURL = slack.APIURL
	}
	u, err := url.Parse(c.APIURL)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("api_url of Slack is no URL; write https://HOST/PATH")
	}
	c.APIURL = strings.TrimSuffix(c.APIURL, "/") + "/"
	c.Log = c.Log.With("slack", c.Channel)
	s := &Slack{cfg: c, out: newOutbox(c.Log), redial: redialAfter, clicks: make(chan click, maxClicks), messages: map[string]*message{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxAnswer
	s.client = &http.Client{Transport: bounded{transport}, Timeout: tryTimeout,
		// The requests carry a token in their bodies.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.api = slack.New(c.BotToken, slack.OptionAppLevelToken(c.AppToken), slack.OptionAPIURL(c.APIURL), slack.OptionHTTPClient(s.client))
	s.socket = socketmode.New(s.api, socketmode.OptionReadLimit(maxEnvelope), socketmode.OptionDialer(&websocket.Dialer{
		Proxy: http.ProxyFromEnvironment, HandshakeTimeout: tryTimeout,
		WriteBufferSize: 32 << 10, // Slack does not put continuation frames together
	}))
	return s, nil
}

func (s *Slack) start() {
	s.out.start()
	s.work.Go(s.connect)
	s.work.Go(s.listen)
	for range clickers {
		s.work.Go(s.handleClicks)
	}
}

// bounded bounds what is read of an answer.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(r)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxReply), resp.Body}
	}
	return resp, err
}

// Notify implements approval.Notifier. It does not block.
func (s *Slack) Notify(r approval.Request) {
	c := newCard(&r, s.cfg.ConsoleURL)
	s.mu.Lock()
	m := s.messages[c.id]
	switch {
	case s.closed, m == nil && c.over: // nobody was told that it began
		s.mu.Unlock()
		return
	case m == nil && len(s.messages) >= maxMessages:
		s.mu.Unlock()
		s.cfg.Log.Error("an approval request is not told in Slack: there are too many messages", "id", c.id, "limit", maxMessages)
		return
	case m == nil:
		m = &message{}
		s.messages[c.id] = m
	}
	m.set(c)
	s.mu.Unlock()
	s.tell(c)
}

// set shows another state of the request.
func (m *message) set(c *card) {
	m.card = c
	if c.status != approval.Pending {
		m.token, m.forms = "", nil
	}
}

// progress shows what a decision made here has changed, if nothing newer was told since.
func (s *Slack) progress(r *approval.Request) {
	c := newCard(r, s.cfg.ConsoleURL)
	s.mu.Lock()
	m := s.messages[c.id]
	newer := m != nil && c.status == approval.Pending && m.card.status == approval.Pending && c.decided >= m.card.decided
	if newer {
		m.set(c)
	}
	s.mu.Unlock()
	if newer {
		s.tell(c)
	}
}

func (s *Slack) tell(c *card) {
	j := &job{key: c.id, send: func(ctx context.Context) error { return s.show(ctx, c.id) }, lost: func() { s.forget(c.id) }}
	if c.status == approval.Pending {
		j.until = c.until
	}
	s.out.put(j)
}

// show posts or changes the message of a request.
func (s *Slack) show(ctx context.Context, id string) error {
	s.mu.Lock()
	m := s.messages[id]
	if m == nil || m.ts == "" && m.card.over {
		delete(s.messages, id)
		s.mu.Unlock()
		return nil
	}
	c := m.card
	if c.buttons && m.token == "" {
		m.token = rand.Text()
	}
	channel, ts, token := m.channel, m.ts, m.token
	s.mu.Unlock()

	options := []slack.MsgOption{slack.MsgOptionText(c.summary, false), slack.MsgOptionBlocks(c.blocks(token)...),
		slack.MsgOptionDisableLinkUnfurl(), slack.MsgOptionDisableMediaUnfurl()}
	var err error
	if ts == "" {
		channel, ts, err = s.api.PostMessageContext(ctx, s.cfg.Channel, options...)
	} else {
		_, _, _, err = s.api.UpdateMessageContext(ctx, channel, ts, options...)
	}
	if err != nil {
		return explain(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.channel, m.ts = channel, ts; c.over && m.card == c {
		delete(s.messages, id)
	}
	return nil
}

// forget drops a message of which nothing more is to be told.
func (s *Slack) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.messages[id]; m != nil && (m.card.over || m.ts == "") {
		delete(s.messages, id)
	}
}

// hints say what to do about errors of Slack that do not go away by themselves.
var hints = map[string]string{
	"invalid_auth":           "check bot_token and app_token",
	"not_authed":             "check bot_token and app_token",
	"account_inactive":       "the app was taken out of the workspace: install it again",
	"token_revoked":          "the token was revoked: install the app again",
	"channel_not_found":      "check the channel, and invite the app to it",
	"not_in_channel":         "invite the app to the channel",
	"is_archived":            "the channel is archived: take another one",
	"missing_scope":          "the app wants chat:write, users:read, users:read.email, and connections:write for its app token",
	"not_allowed_token_type": "app_token is an app-level token (xapp-), bot_token that of the bot (xoxb-)",
}

// explain turns an error of the API into one for the operator, or into a pause.
func explain(err error) error {
	var limited *slack.RateLimitedError
	if errors.As(err, &limited) {
		return &throttled{limited.RetryAfter}
	}
	err = cause(err)
	if hint := hints[err.Error()]; hint != "" {
		return errors.New(err.Error() + ": " + hint)
	}
	return err
}

// connect keeps the socket open.
func (s *Slack) connect() {
	for {
		err := s.socket.RunContext(s.ctx)
		if s.ctx.Err() != nil {
			return
		}
		s.cfg.Log.Error("there is no connection to Slack, so its buttons do nothing; it is tried again", "after", s.redial, "error", explain(err))
		select {
		case <-time.After(s.redial):
		case <-s.ctx.Done():
			return
		}
	}
}

// listen takes what comes over the socket. It acknowledges at once and does nothing
// that takes time.
func (s *Slack) listen() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case ev := <-s.socket.Events:
			switch ev.Type {
			case socketmode.EventTypeHello:
				s.cfg.Log.Info("connected to Slack")
			case socketmode.EventTypeConnectionError:
				if e, ok := ev.Data.(*slack.ConnectionErrorEvent); ok {
					s.cfg.Log.Warn("there is no connection to Slack; it is tried again", "after", e.Backoff, "error", explain(e.ErrorObj))
				}
			case socketmode.EventTypeInteractive, socketmode.EventTypeEventsAPI, socketmode.EventTypeSlashCommand:
				s.ack(ev.Request)
				s.take(ev)
			}
		}
	}
}

func (s *Slack) ack(r *socketmode.Request) {
	ctx, cancel := context.WithTimeout(s.ctx, tryTimeout)
	defer cancel()
	if r == nil || r.EnvelopeID == "" {
		return
	}
	if err := s.socket.AckCtx(ctx, r.EnvelopeID, nil); err != nil && s.ctx.Err() == nil {
		s.cfg.Log.Warn("a click in Slack could not be acknowledged", "error", cause(err))
	}
}

func (s *Slack) take(ev socketmode.Event) {
	callback, ok := ev.Data.(slack.InteractionCallback)
	if !ok {
		return
	}
	c, ok := clickOf(&callback)
	if !ok {
		return
	}
	select {
	case s.clicks <- c:
	default:
		s.cfg.Log.Warn("too many clicks in Slack at once, so one is dropped", "user", c.user)
	}
}

// same compares tokens in constant time; an empty one is like none.
func same(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// Dropped is how many states of requests were not shown, since the start.
func (s *Slack) Dropped() uint64 { return s.out.count() }

// Close stops listening, tries once more what is left to tell, and waits for it until
// ctx ends. Nothing is taken after that.
func (s *Slack) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
	err := s.out.close(ctx)
	s.client.CloseIdleConnections()
	return err
}
