package notify

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/approval"
)

const firstTS = "1700000000.000001"

func TestSlackFromRequestToEnd(t *testing.T) {
	r := newRig(t, nil)
	r.connected()
	req := testRequest()
	r.Notify(req)
	post := r.next("chat.postMessage")
	if post.form.Get("channel") != "#access" || post.form.Get("text") == "" {
		t.Errorf("posted: %v", post.form)
	}
	all := post.form.Get("blocks")
	for _, want := range []string{"ann@example.com", "orders", "shop", "delete", "shop.orders", "DELETE FROM shop.orders", "without WHERE",
		"destructive", "2 of `dba`",
		fmt.Sprintf("!date^%d^", req.Expires.Unix()), req.ID, req.Digest} {
		if !strings.Contains(strings.ReplaceAll(all, `\u003c`, "<"), want) {
			t.Errorf("the message lacks %q: %s", want, all)
		}
	}
	first := buttonsIn(t, post)
	if len(first) != 3 || first[actionOpen].URL != "https://weir.example.com/approvals/"+req.ID || !strings.HasPrefix(first[actionApprove].Value, req.ID+".") {
		t.Fatalf("buttons: %v", first)
	}

	// Bob approves, which is one of two.
	one := after(req, approval.Pending, approvedBy("bob@example.com"))
	r.service.answer = func(attempt) (*approval.Request, error) { return &one, nil }
	r.fake.send(r.conn, press("U0BOB", actionApprove, first[actionApprove].Value, testChannel, firstTS))
	if a := receive(t, r.service.attempts, "the attempt"); a.id != req.ID || !a.approve || a.Via != "slack" || a.Token != "" || a.Viewer.Root ||
		a.Viewer.Who.User != "bob@example.com" || a.Reason != "" {
		t.Errorf("%+v", a)
	}
	if s := r.told("U0BOB"); !strings.Contains(s, "you have approved") || !strings.Contains(s, "other people") {
		t.Errorf("bob is told %q", s)
	}
	update := r.next("chat.update")
	if update.form.Get("ts") != firstTS || update.form.Get("channel") != testChannel || !strings.Contains(update.form.Get("blocks"), "approved by `bob@example.com`") {
		t.Errorf("updated: %v", update.form)
	}
	second := buttonsIn(t, update)
	if second[actionApprove].Value == first[actionApprove].Value || second[actionApprove].Value != second[actionDeny].Value {
		t.Errorf("buttons: %v, then %v", first, second)
	}

	r.progress(&req) // an older state, which comes late

	// The button that was used up is no longer good for anybody, the new one is.
	r.fake.send(r.conn, press("U0EVE", actionApprove, first[actionApprove].Value, testChannel, firstTS))
	if s := r.told("U0EVE"); s != saysGone {
		t.Errorf("eve is told %q", s)
	}
	two := after(req, approval.Approved, approvedBy("bob@example.com"), approvedBy("eve@example.com"))
	r.service.answer = func(attempt) (*approval.Request, error) {
		r.Notify(two) // as the manager does, in the same call
		return &two, nil
	}
	r.fake.send(r.conn, press("U0EVE", actionApprove, second[actionApprove].Value, testChannel, firstTS))
	if a := receive(t, r.service.attempts, "the attempt"); a.Viewer.Who.User != "eve@example.com" {
		t.Errorf("%+v", a)
	}
	if s := r.told("U0EVE"); !strings.Contains(s, "you have approved") || strings.Contains(s, "other people") {
		t.Errorf("eve is told %q", s)
	}
	if b := buttonsIn(t, r.next("chat.update")); len(b) != 1 || b[actionOpen].URL == "" {
		t.Errorf("buttons of an approved request: %v", b)
	}

	// The end; nothing is kept after it, and late states change nothing.
	r.Notify(after(two, approval.Used, two.Decisions...))
	if c := r.next("chat.update"); !strings.Contains(c.form.Get("blocks"), "Approved and used") {
		t.Errorf("updated: %v", c.form)
	}
	r.progress(&one)
	r.fake.send(r.conn, press("U0EVE", actionDeny, second[actionDeny].Value, testChannel, firstTS))
	if s := r.told("U0EVE"); s != saysGone {
		t.Errorf("eve is told %q", s)
	}
	closeNow(t, r.Slack)
	if r.count() != 0 || len(r.service.attempts) != 0 || len(r.fake.calls["chat.postMessage"])+len(r.fake.calls["chat.update"]) != 0 {
		t.Errorf("%d messages are kept, %d attempts", r.count(), len(r.service.attempts))
	}
}

func TestSlackDenies(t *testing.T) {
	r := newRig(t, nil)
	r.connected()
	req := testRequest()
	r.Notify(req)
	b := buttonsIn(t, r.next("chat.postMessage"))
	denied := after(req, approval.Denied)
	r.service.answer = func(attempt) (*approval.Request, error) { return &denied, nil }
	r.fake.send(r.conn, press("U0BOB", actionDeny, b[actionDeny].Value, testChannel, firstTS))
	if a := receive(t, r.service.attempts, "the attempt"); a.approve {
		t.Errorf("%+v", a)
	}
	if s := r.told("U0BOB"); !strings.Contains(s, "you have denied") {
		t.Errorf("bob is told %q", s)
	}
}

// Where a rule wants a sign-in for the very action there is nothing to press, and
// nothing that somebody makes up counts.
func TestSlackStrongProof(t *testing.T) {
	for console, want := range map[string]string{"https://weir.example.com": "open it.", "": "weir approvals approve " + testID} {
		r := newRig(t, func(c *SlackConfig) { c.ConsoleURL = console })
		r.connected()
		req := testRequest()
		req.Rules = append(req.Rules, approval.Rule{Rule: "other", Proof: approval.ProofIDP})
		r.Notify(req)
		post := r.next("chat.postMessage")
		b := buttonsIn(t, post)
		if (console != "") != (len(b) == 1 && b[actionOpen].URL != "") || console == "" && len(b) != 0 {
			t.Errorf("buttons: %v", b)
		}
		if s := post.form.Get("blocks"); !strings.Contains(s, "sign-in for this very action") || !strings.Contains(s, want) {
			t.Errorf("the message: %s", s)
		}
		for _, token := range []string{strings.Repeat("A", 26), "", "x"} {
			value := testID + "." + token
			r.fake.send(r.conn, press("U0BOB", actionApprove, value, testChannel, firstTS))
			if len(token) == 26 {
				if s := r.told("U0BOB"); s != saysGone {
					t.Errorf("bob is told %q", s)
				}
			}
		}
		closeNow(t, r.Slack)
		if len(r.service.attempts) != 0 {
			t.Error("a made-up button counts")
		}
	}
	none := testRequest()
	none.Rules = nil
	if newCard(&none, "").buttons {
		t.Error("a request without rules has buttons")
	}
}

func TestSlackButtonOfElsewhere(t *testing.T) {
	r := newRig(t, nil)
	r.connected()
	req, other := testRequest(), testRequest()
	other.ID = "01OTHER"
	r.Notify(req)
	value := buttonsIn(t, r.next("chat.postMessage"))[actionApprove].Value
	r.Notify(other)
	otherValue := buttonsIn(t, r.next("chat.postMessage"))[actionApprove].Value
	_, token, _ := strings.Cut(otherValue, ".")
	for _, p := range []map[string]any{
		press("U0BOB", actionApprove, req.ID+"."+token, testChannel, firstTS),            // another request's token
		press("U0BOB", actionApprove, value, testChannel, "1700000000.000002"),           // on another message
		press("U0BOB", actionApprove, "01NOWHERE."+token, testChannel, firstTS),          // of no request
		press("U0BOB", actionApprove, value[:len(value)-1]+"7", testChannel, "1.000001"), // guessed
	} {
		r.fake.send(r.conn, p)
		if s := r.told("U0BOB"); s != saysGone {
			t.Errorf("bob is told %q", s)
		}
	}
	r.fake.send(r.conn, press("U0BOB", actionApprove, value, "C0OTHER", firstTS)) // in another channel
	if c := r.next("chat.postEphemeral"); c.form.Get("channel") != "C0OTHER" || c.form.Get("text") != saysGone {
		t.Errorf("told: %v", c.form)
	}
	for _, p := range []map[string]any{ // nothing of ours: no answer
		press("U0BOB", "other_app", value, testChannel, firstTS),
		press("U0BOB", actionApprove, strings.Repeat("A", 1<<16), testChannel, firstTS),
		press("<!channel>", actionApprove, value, testChannel, firstTS),
		press("U0BOB", actionApprove, value, "../x", firstTS),
		{"type": "block_actions"}, {"type": "view_submission"}, {"type": "shortcut"}, {},
	} {
		r.fake.send(r.conn, p)
	}
	closeNow(t, r.Slack)
	if len(r.service.attempts) != 0 || len(r.fake.calls["chat.postEphemeral"]) != 0 {
		t.Errorf("%d attempts, %d answers", len(r.service.attempts), len(r.fake.calls["chat.postEphemeral"]))
	}
}

func TestSlackWhoCounts(t *testing.T) {
	r := newRig(t, nil)
	r.connected()
	r.Notify(testRequest())
	value := buttonsIn(t, r.next("chat.postMessage"))[actionApprove].Value
	for what, c := range map[string]struct {
		change map[string]any
		says   string
	}{
		"deleted":         {map[string]any{"deleted": true}, "only people"},
		"bot":             {map[string]any{"is_bot": true}, "only people"},
		"app":             {map[string]any{"is_app_user": true}, "only people"},
		"workflow":        {map[string]any{"is_workflow_bot": true}, "only people"},
		"connector":       {map[string]any{"is_connector_bot": true}, "only people"},
		"invited":         {map[string]any{"is_invited_user": true}, "only people"},
		"guest":           {map[string]any{"is_restricted": true}, "guests"},
		"channel guest":   {map[string]any{"is_ultra_restricted": true}, "guests"},
		"stranger":        {map[string]any{"is_stranger": true}, "guests"},
		"other workspace": {map[string]any{"team_id": "T0OTHER"}, "guests"},
		"unconfirmed":     {map[string]any{"is_email_confirmed": false}, "not confirmed"},
		"no e-mail":       {map[string]any{"profile": map[string]any{}}, "e-mail"},
		"not signed in":   {map[string]any{"profile": map[string]any{"email": "joe@example.com"}}, "weir login"},
		"somebody else":   {map[string]any{"id": "U0EVE"}, saysNobody},
	} {
		u := member("U0X", "bob@example.com")
		for k, v := range c.change {
			u[k] = v
		}
		r.fake.mu.Lock()
		r.fake.users["U0X"] = u
		r.fake.mu.Unlock()
		r.fake.send(r.conn, press("U0X", actionApprove, value, testChannel, firstTS))
		if s := r.told("U0X"); !strings.Contains(s, c.says) || strings.Contains(s, "you have") {
			t.Errorf("%s: told %q", what, s)
		}
	}
	r.fake.send(r.conn, press("U0UNKNOWN", actionApprove, value, testChannel, firstTS))
	if s := r.told("U0UNKNOWN"); s != saysNobody {
		t.Errorf("told %q", s)
	}
	r.fake.failNext("users.info", status(500))
	r.fake.send(r.conn, press("U0BOB", actionApprove, value, testChannel, firstTS))
	if s := r.told("U0BOB"); s != saysNobody {
		t.Errorf("told %q", s)
	}
	if len(r.service.attempts) != 0 {
		t.Error("somebody of them counts")
	}
	// A member of an enterprise whose home is another workspace is one of this, too.
	u := member("U0X", "eve@example.com")
	u["team_id"], u["enterprise_user"] = "T0OTHER", map[string]any{"teams": []string{testTeam}}
	r.fake.mu.Lock()
	r.fake.users["U0X"] = u
	r.fake.mu.Unlock()
	done := after(testRequest(), approval.Approved)
	r.service.answer = func(attempt) (*approval.Request, error) { return &done, nil }
	r.fake.send(r.conn, press("U0X", actionApprove, value, testChannel, firstTS))
	if s := r.told("U0X"); !strings.Contains(s, "you have approved") {
		t.Errorf("told %q", s)
	}
}

func TestSlackRefusals(t *testing.T) {
	missing := true
	var r *rig
	r = newRig(t, func(c *SlackConfig) {
		c.Service = func() approval.Service {
			if missing {
				return nil
			}
			return r.service
		}
	})
	r.connected()
	r.Notify(testRequest())
	value := buttonsIn(t, r.next("chat.postMessage"))[actionApprove].Value
	try := func(want string) {
		t.Helper()
		r.fake.send(r.conn, press("U0BOB", actionApprove, value, testChannel, firstTS))
		if s := r.told("U0BOB"); s != want {
			t.Errorf("told %q, want %q", s, want)
		}
	}
	try(saysStarts)
	missing = false
	for _, c := range []struct {
		err  error
		want string
	}{
		{&approval.NotAllowed{Why: "weir: <!channel> & `no`"}, "weir: &lt;!channel&gt; &amp; `no`"},
		{&approval.Conflict{Why: "weir: it is denied"}, "weir: it is denied"},
		{fmt.Errorf("x: %w", &approval.NotFound{ID: "1"}), "x: there is no request 1 that you may see; `weir approvals list` shows those that there are"},
		{errors.New("the disk at /secret is full"), saysBroken},
	} {
		r.service.answer = func(attempt) (*approval.Request, error) { return nil, c.err }
		try(c.want)
	}
	// What did not count has not used the button up.
	done := after(testRequest(), approval.Approved)
	r.service.answer = func(attempt) (*approval.Request, error) { return &done, nil }
	r.fake.send(r.conn, press("U0BOB", actionApprove, value, testChannel, firstTS))
	if s := r.told("U0BOB"); !strings.Contains(s, "you have approved") {
		t.Errorf("told %q", s)
	}
	if s := r.log.String(); !strings.Contains(s, "the disk at /secret is full") || strings.Contains(s, testBotToken) || strings.Contains(s, testAppToken) {
		t.Errorf("the log: %s", s)
	}
}

// One button, one decision: while a click is being handled another one waits for
// nothing.
func TestSlackTwoClicksAtOnce(t *testing.T) {
	r := newRig(t, nil)
	r.connected()
	r.Notify(testRequest())
	value := buttonsIn(t, r.next("chat.postMessage"))[actionApprove].Value
	done := after(testRequest(), approval.Pending, approvedBy("bob@example.com"))
	held := make(chan struct{})
	r.service.answer = func(attempt) (*approval.Request, error) { <-held; return &done, nil }
	r.fake.send(r.conn, press("U0BOB", actionApprove, value, testChannel, firstTS))
	receive(t, r.service.attempts, "the attempt")
	r.fake.send(r.conn, press("U0EVE", actionDeny, value, testChannel, firstTS))
	if s := r.told("U0EVE"); s != saysBusy {
		t.Errorf("told %q", s)
	}
	close(held)
	if s := r.told("U0BOB"); !strings.Contains(s, "you have approved") {
		t.Errorf("told %q", s)
	}
	if len(r.service.attempts) != 0 {
		t.Error("both count")
	}
}

func TestSlackReason(t *testing.T) {
	r := newRig(t, nil)
	r.connected()
	req := testRequest()
	req.Rules[0].RequireReason = true
	r.Notify(req)
	value := buttonsIn(t, r.next("chat.postMessage"))[actionApprove].Value
	r.posted(req.ID)
	open := func(user, action string) string {
		t.Helper()
		r.fake.send(r.conn, press(user, action, value, testChannel, firstTS))
		c := r.next("views.open")
		if c.view["trigger_id"] != "trigger."+user {
			t.Errorf("opened: %v", c.view)
		}
		view := c.view["view"].(map[string]any)
		blocks := view["blocks"].([]any)
		last := blocks[len(blocks)-1].(map[string]any)
		if optional, _ := last["optional"].(bool); last["type"] != "input" || optional != (action == actionDeny) {
			t.Errorf("the form asks %v", last)
		}
		return view["private_metadata"].(string)
	}
	form := open("U0BOB", actionApprove)
	if form == value {
		t.Error("the form's token is the button's")
	}
	done := after(req, approval.Pending, approvedBy("bob@example.com"))
	r.service.answer = func(attempt) (*approval.Request, error) { return &done, nil }
	r.fake.send(r.conn, submit("U0EVE", form, "mine")) // not hers
	if s := r.told("U0EVE"); s != saysForm {
		t.Errorf("told %q", s)
	}
	r.fake.send(r.conn, submit("U0BOB", form, "the shop is closed"))
	if a := receive(t, r.service.attempts, "the attempt"); !a.approve || a.Reason != "the shop is closed" || a.Viewer.Who.User != "bob@example.com" {
		t.Errorf("%+v", a)
	}
	if s := r.told("U0BOB"); !strings.Contains(s, "you have approved") {
		t.Errorf("told %q", s)
	}
	value = buttonsIn(t, r.next("chat.update"))[actionApprove].Value
	r.fake.send(r.conn, submit("U0BOB", form, "again"))
	if s := r.told("U0BOB"); s != saysForm {
		t.Errorf("told %q", s)
	}
	late := open("U0EVE", actionApprove)
	form = open("U0EVE", actionDeny)
	r.fake.send(r.conn, submit("U0EVE", form, ""))
	if a := receive(t, r.service.attempts, "the attempt"); a.approve || a.Reason != "" {
		t.Errorf("%+v", a)
	}
	r.told("U0EVE")
	r.next("chat.update")
	r.Notify(after(req, approval.Expired))
	r.next("chat.update")
	r.fake.send(r.conn, submit("U0EVE", late, "late")) // the request has ended, and its forms with it
	if c := r.next("chat.postEphemeral"); c.form.Get("user") != "U0EVE" || c.form.Get("text") != saysForm {
		t.Errorf("told: %v", c.form)
	}
	closeNow(t, r.Slack)
	if len(r.service.attempts) != 0 {
		t.Error("a form counts after the end")
	}
}

func TestSlackFormThatDoesNotOpen(t *testing.T) {
	r := newRig(t, nil)
	r.connected()
	req := testRequest()
	req.Rules[0].RequireReason = true
	r.Notify(req)
	value := buttonsIn(t, r.next("chat.postMessage"))[actionApprove].Value
	r.fake.failNext("views.open", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"ok":false,"error":"expired_trigger_id"}`)
	})
	r.fake.send(r.conn, press("U0BOB", actionApprove, value, testChannel, firstTS))
	if s := r.told("U0BOB"); s != saysSlow {
		t.Errorf("told %q", s)
	}
	for range maxForms + 5 {
		r.fake.send(r.conn, press("U0BOB", actionApprove, value, testChannel, firstTS))
		r.next("views.open")
	}
	r.Slack.mu.Lock()
	defer r.Slack.mu.Unlock()
	if n := len(r.messages[testID].forms); n != maxForms {
		t.Errorf("%d forms are kept", n)
	}
}

// Slack closes sockets now and then, with a word before or without.
func TestSlackReconnects(t *testing.T) {
	r := newRig(t, nil)
	r.fake.failNext("apps.connections.open", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"ok":false,"error":"invalid_auth"}`) })
	r.connected()
	r.Notify(testRequest())
	value := buttonsIn(t, r.next("chat.postMessage"))[actionApprove].Value
	r.conn.Close()
	r.connected()
	if err := r.conn.WriteJSON(map[string]any{"type": "disconnect", "reason": "refresh_requested"}); err != nil {
		t.Fatal(err)
	}
	r.connected()
	r.service.answer = func(attempt) (*approval.Request, error) { return nil, &approval.NotAllowed{Why: "weir: no"} }
	r.fake.send(r.conn, press("U0BOB", actionApprove, value, testChannel, firstTS))
	if s := r.told("U0BOB"); s != "weir: no" {
		t.Errorf("told %q", s)
	}
	if s := r.log.String(); strings.Contains(s, "ticket") || strings.Contains(s, testAppToken) {
		t.Errorf("the log holds a secret: %s", s)
	}
}

func TestSlackOutage(t *testing.T) {
	r := newRig(t, nil)
	r.connected()
	r.fake.failNext("chat.postMessage", status(503), func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"ok":false,"error":"not_in_channel"}`) },
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
		}, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		})
	req := testRequest()
	r.Notify(req)
	for range 5 {
		r.next("chat.postMessage")
	}
	r.fake.failNext("chat.update", status(500), status(500))
	r.Notify(after(req, approval.Denied))
	for range 3 {
		r.next("chat.update")
	}
	closeNow(t, r.Slack)
	if r.count() != 0 || r.Dropped() != 0 {
		t.Errorf("%d messages are kept, %d dropped", r.count(), r.Dropped())
	}
	if s := r.log.String(); strings.Contains(s, testBotToken) {
		t.Errorf("the log holds a token: %s", s)
	}
}

// What cannot be posted while it is of use is given up, and nothing of it is kept.
func TestSlackGivesUp(t *testing.T) {
	r := newRig(t, nil)
	for range maxTries {
		r.fake.failNext("chat.postMessage", status(500))
	}
	r.Notify(testRequest())
	for range maxTries {
		r.next("chat.postMessage")
	}
	r.Notify(after(testRequest(), approval.Expired)) // nobody was told of it, so nobody is told
	closeNow(t, r.Slack)
	if r.count() != 0 || len(r.fake.calls["chat.postMessage"]) != 0 {
		t.Errorf("%d messages are kept, %d posted", r.count(), len(r.fake.calls["chat.postMessage"]))
	}
	r.Notify(testRequest())
	if r.count() != 0 {
		t.Error("a request is taken after Close")
	}
}

func TestSlackQueueIsBounded(t *testing.T) {
	c := SlackConfig{AppToken: testAppToken, BotToken: testBotToken, Channel: "c", APIURL: "http://127.0.0.1:1/", Log: new(journal).log()}
	s, err := newSlack(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxJobs + 9 {
		r := testRequest()
		r.ID = fmt.Sprint("R", i)
		s.Notify(r)
	}
	if s.Dropped() != 9 || len(s.messages) != maxJobs {
		t.Errorf("%d dropped, %d kept", s.Dropped(), len(s.messages))
	}
	s.out.start()
	closeNow(t, s) // one try each, at a port where nobody listens
	if len(s.messages) != 0 {
		t.Errorf("%d kept", len(s.messages))
	}
}

func TestSlackBreakGlass(t *testing.T) {
	r := newRig(t, nil)
	req := testRequest()
	req.Status, req.Review, req.Broke = approval.Approved, reviewOpen, &approval.Broke{By: "ann@example.com", Reason: "the shop *burns*"}
	r.Notify(req)
	if c := r.next("chat.postMessage"); !strings.Contains(c.form.Get("blocks"), "a review is needed") ||
		!strings.Contains(c.form.Get("blocks"), "`the shop *burns*`") {
		t.Errorf("posted: %v", c.form)
	}
	req.Status = approval.Used
	r.Notify(req)
	r.next("chat.update")
	if r.count() != 1 {
		t.Error("an open review is forgotten")
	}
	req.Review = reviewDone
	r.Notify(req)
	if c := r.next("chat.update"); !strings.Contains(c.form.Get("blocks"), "reviewed") {
		t.Errorf("updated: %v", c.form)
	}
	closeNow(t, r.Slack)
	if r.count() != 0 {
		t.Error("a review that is done is kept")
	}
}

// Tokens go when the request ends, not when Slack has shown it.
func TestSlackTokensEnd(t *testing.T) {
	r := testRequest()
	for _, s := range []approval.Status{approval.Approved, approval.Used, approval.Denied, approval.Expired, approval.Withdrawn} {
		m := &message{token: "T", forms: []form{{"F", "U0BOB", true}}}
		ended := after(r, s)
		if m.set(newCard(&ended, "")); m.token != "" || m.forms != nil {
			t.Errorf("%s: %+v", s, m)
		}
	}
}

func TestSlackConfig(t *testing.T) {
	good := SlackConfig{AppToken: testAppToken, BotToken: testBotToken, Channel: "c", Log: new(journal).log()}
	for what, change := range map[string]func(*SlackConfig){
		"swapped":    func(c *SlackConfig) { c.AppToken, c.BotToken = c.BotToken, c.AppToken },
		"no token":   func(c *SlackConfig) { c.BotToken = "" },
		"no channel": func(c *SlackConfig) { c.Channel = "" },
		"no URL":     func(c *SlackConfig) { c.APIURL = "slack.com" },
		"a query":    func(c *SlackConfig) { c.APIURL = "https://slack.com/api?x=" },
	} {
		c := good
		change(&c)
		if _, err := newSlack(c); err == nil || strings.Contains(err.Error(), testBotToken) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s, err := newSlack(good)
	if err != nil || s.cfg.APIURL != "https://slack.com/api/" {
		t.Errorf("%v, %v", s, err)
	}
}
