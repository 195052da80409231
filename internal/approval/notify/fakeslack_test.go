package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
)

const (
	testAppToken = "xapp-1-test-app-token"
	testBotToken = "xoxb-test-bot-token"
	testTeam     = "T0HOME"
	testChannel  = "C0ACCESS"
)

// call is one call of a method of the Web API.
type call struct {
	method string
	form   url.Values
	view   map[string]any // of views.open
}

// fakeSlack speaks Slack's Web API and the socket, over real HTTP and WebSocket.
type fakeSlack struct {
	*httptest.Server
	t     *testing.T
	calls map[string]chan call
	acks  chan string
	conns chan *websocket.Conn

	mu    sync.Mutex
	users map[string]map[string]any
	fail  map[string][]http.HandlerFunc // the next answers of a method
	ts    int
	seq   int
}

func newFakeSlack(t *testing.T) *fakeSlack {
	f := &fakeSlack{t: t, calls: map[string]chan call{}, acks: make(chan string, 64), conns: make(chan *websocket.Conn, 16),
		users: map[string]map[string]any{}, fail: map[string][]http.HandlerFunc{}}
	mux := http.NewServeMux()
	for _, m := range []string{"apps.connections.open", "auth.test", "chat.postMessage", "chat.update", "chat.postEphemeral", "users.info", "views.open"} {
		f.calls[m] = make(chan call, 256)
		mux.HandleFunc("POST /api/"+m, func(w http.ResponseWriter, r *http.Request) { f.serve(m, w, r) })
	}
	mux.HandleFunc("GET /link", f.link)
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	for id, email := range map[string]string{"U0BOB": "Bob@Example.com", "U0EVE": "eve@example.com"} {
		f.users[id] = member(id, email)
	}
	return f
}

func member(id, email string) map[string]any {
	return map[string]any{"id": id, "team_id": testTeam, "is_email_confirmed": true, "profile": map[string]any{"email": email}}
}

// next answers of a method fail so.
func (f *fakeSlack) failNext(method string, answers ...http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[method] = append(f.fail[method], answers...)
}

func (f *fakeSlack) serve(method string, w http.ResponseWriter, r *http.Request) {
	c := call{method: method}
	body, _ := io.ReadAll(r.Body)
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		if len(body) > 0 && json.Unmarshal(body, &c.view) != nil {
			f.t.Errorf("%s: no JSON", method)
		}
	} else {
		c.form, _ = url.ParseQuery(string(body))
		if token == "" {
			token = c.form.Get("token")
		}
	}
	want := testBotToken
	if method == "apps.connections.open" {
		want = testAppToken
	}
	if token != want {
		f.t.Errorf("%s is called with another token", method)
	}
	f.mu.Lock()
	var fail http.HandlerFunc
	if list := f.fail[method]; len(list) > 0 {
		fail, f.fail[method] = list[0], list[1:]
	}
	f.mu.Unlock()
	if fail != nil {
		fail(w, r)
	} else {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(f.answer(c))
	}
	f.calls[method] <- c
}

func (f *fakeSlack) answer(c call) map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch c.method {
	case "apps.connections.open":
		return map[string]any{"ok": true, "url": "ws" + strings.TrimPrefix(f.URL, "http") + "/link?ticket=secret"}
	case "auth.test":
		return map[string]any{"ok": true, "team_id": testTeam, "user_id": "U0WEIR", "bot_id": "B0WEIR"}
	case "chat.postMessage":
		f.ts++
		return map[string]any{"ok": true, "channel": testChannel, "ts": fmt.Sprintf("1700000000.%06d", f.ts)}
	case "users.info":
		if u := f.users[c.form.Get("user")]; u != nil {
			return map[string]any{"ok": true, "user": u}
		}
		return map[string]any{"ok": false, "error": "user_not_found"}
	}
	return map[string]any{"ok": true, "channel": c.form.Get("channel"), "ts": c.form.Get("ts")}
}

// link is the socket.
func (f *fakeSlack) link(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		f.t.Errorf("the socket: %v", err)
		return
	}
	defer conn.Close()
	_ = conn.WriteJSON(map[string]any{"type": "hello", "num_connections": 1, "connection_info": map[string]any{"app_id": "A0"}})
	f.conns <- conn
	for {
		var ack struct {
			EnvelopeID string `json:"envelope_id"`
		}
		if conn.ReadJSON(&ack) != nil {
			return
		}
		f.acks <- ack.EnvelopeID
	}
}

// send puts an interaction onto the socket, and waits until it is acknowledged.
func (f *fakeSlack) send(conn *websocket.Conn, payload map[string]any) {
	f.t.Helper()
	f.seq++
	id := fmt.Sprintf("envelope-%d", f.seq)
	if err := conn.WriteJSON(map[string]any{"type": "interactive", "envelope_id": id, "payload": payload}); err != nil {
		f.t.Fatal(err)
	}
	if got := receive(f.t, f.acks, "the acknowledgement"); got != id {
		f.t.Fatalf("%s was acknowledged, not %s", got, id)
	}
}

// press is the payload of a click.
func press(user, action, value, channel, ts string) map[string]any {
	return map[string]any{"type": "block_actions", "user": map[string]any{"id": user}, "trigger_id": "trigger." + user,
		"channel": map[string]any{"id": channel}, "container": map[string]any{"type": "message", "message_ts": ts, "channel_id": channel},
		"actions": []map[string]any{{"type": "button", "action_id": action, "block_id": "b", "value": value}}}
}

// submit is the payload of a form.
func submit(user, metadata, reason string) map[string]any {
	return map[string]any{"type": "view_submission", "user": map[string]any{"id": user}, "view": map[string]any{"callback_id": formReason,
		"private_metadata": metadata, "state": map[string]any{"values": map[string]any{blockReason: map[string]any{
			fieldReason: map[string]any{"type": "plain_text_input", "value": reason}}}}}}
}

// block is what the tests look at of a block.
type block struct {
	Type     string
	Text     struct{ Type, Text string }
	Fields   []struct{ Type, Text string }
	Elements []json.RawMessage
}

type button struct {
	ActionID string `json:"action_id"`
	Value    string
	URL      string
}

func blocksIn(t *testing.T, c call) []block {
	t.Helper()
	var blocks []block
	if err := json.Unmarshal([]byte(c.form.Get("blocks")), &blocks); err != nil {
		t.Fatalf("%s: %v", c.method, err)
	}
	return blocks
}

// buttons of a message, by action.
func buttonsIn(t *testing.T, c call) map[string]button {
	t.Helper()
	out := map[string]button{}
	for _, b := range blocksIn(t, c) {
		for _, raw := range b.Elements {
			var x button
			if b.Type == "actions" && json.Unmarshal(raw, &x) == nil {
				out[x.ActionID] = x
			}
		}
	}
	return out
}

// fakeService answers decisions as the test says.
type fakeService struct {
	approval.Service
	attempts chan attempt
	answer   func(attempt) (*approval.Request, error)
}

type attempt struct {
	id      string
	approve bool
	approval.Attempt
}

func (s *fakeService) decide(a attempt) (*approval.Request, error) {
	s.attempts <- a
	return s.answer(a)
}

func (s *fakeService) Approve(_ context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return s.decide(attempt{id, true, a})
}

func (s *fakeService) Deny(_ context.Context, id string, a approval.Attempt) (*approval.Request, error) {
	return s.decide(attempt{id, false, a})
}

// rig is a Slack with all that it speaks to.
type rig struct {
	*Slack
	t       *testing.T
	fake    *fakeSlack
	conn    *websocket.Conn
	service *fakeService
	log     *journal
}

// newRig starts one; bob and eve are signed in.
func newRig(t *testing.T, change func(*SlackConfig)) *rig {
	r := &rig{t: t, fake: newFakeSlack(t), log: new(journal), service: &fakeService{attempts: make(chan attempt, 64)}}
	c := SlackConfig{AppToken: testAppToken, BotToken: testBotToken, Channel: "#access", APIURL: r.fake.URL + "/api", ConsoleURL: "https://weir.example.com",
		Service: func() approval.Service { return r.service }, Log: r.log.log(),
		Principal: func(email string) (*flow.Principal, bool) {
			user := strings.ToLower(email)
			return &flow.Principal{Issuer: "https://idp", Subject: user, User: user}, user == "bob@example.com" || user == "eve@example.com"
		}}
	if change != nil {
		change(&c)
	}
	s, err := newSlack(c)
	if err != nil {
		t.Fatal(err)
	}
	s.out.delay, s.redial = soon, soon(0)
	r.Slack = s
	s.start()
	t.Cleanup(func() { closeNow(t, s) })
	return r
}

func (r *rig) connected() { r.conn = receive(r.t, r.fake.conns, "the socket") }

func (r *rig) next(method string) call {
	r.t.Helper()
	return receive(r.t, r.fake.calls[method], method)
}

// told is what somebody was told about their click.
func (r *rig) told(user string) string {
	r.t.Helper()
	c := r.next("chat.postEphemeral")
	if c.form.Get("user") != user || c.form.Get("channel") != testChannel {
		r.t.Errorf("%s was told in %s, not %s", c.form.Get("user"), c.form.Get("channel"), user)
	}
	return c.form.Get("text")
}

// posted waits until the answer to the request's message has been read: before
// that, only its channel's name is known.
func (r *rig) posted(id string) {
	r.t.Helper()
	known := func() bool {
		r.Slack.mu.Lock()
		defer r.Slack.mu.Unlock()
		m := r.messages[id]
		return m != nil && m.ts != ""
	}
	for end := time.Now().Add(10 * time.Second); !known(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatal("the message has no timestamp")
		}
	}
}

func (r *rig) count() int {
	r.Slack.mu.Lock()
	defer r.Slack.mu.Unlock()
	return len(r.messages)
}
