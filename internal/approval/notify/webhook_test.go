package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/approval"
)

// The vector of the reference implementations' own tests (standard-webhooks,
// libraries/*/test: msg_p5jXN8AQM9LWM0D4loKWxJek).
func TestSignatureVector(t *testing.T) {
	key, err := secretOf([]byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
	if err != nil {
		t.Fatal(err)
	}
	got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSecret(t *testing.T) {
	raw := "0123456789abcdef01234567"
	for configured, want := range map[string]string{
		raw: raw,
		"whsec_" + base64.StdEncoding.EncodeToString([]byte(raw)):      raw,
		"whsec_" + base64.StdEncoding.EncodeToString([]byte(raw[:23])): "",
		raw[:23]:                   "",
		"":                         "",
		"whsec_":                   "",
		"whsec_" + raw + "!":       "",
		strings.Repeat("x", 1<<11): "",
	} {
		key, err := secretOf([]byte(configured))
		if string(key) != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", configured, key, err)
		}
		if err != nil && configured != "" && strings.Contains(err.Error(), strings.TrimPrefix(configured, "whsec_")+"x") {
			t.Errorf("the error holds the secret: %v", err)
		}
	}
}

// verify is a receiver's half of Standard Webhooks, written against the specification.
func verify(key []byte, h http.Header, body []byte, now time.Time) error {
	id, ts := h.Get("webhook-id"), h.Get("webhook-timestamp")
	at, err := strconv.ParseInt(ts, 10, 64)
	if err != nil || now.Sub(time.Unix(at, 0)).Abs() > 5*time.Minute {
		return fmt.Errorf("timestamp %q", ts)
	}
	if id == "" || strings.Contains(id, ".") {
		return fmt.Errorf("id %q", id)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, ts, body)
	for _, s := range strings.Fields(h.Get("webhook-signature")) {
		version, value, _ := strings.Cut(s, ",")
		given, err := base64.StdEncoding.DecodeString(value)
		if version == "v1" && err == nil && hmac.Equal(given, mac.Sum(nil)) {
			return nil
		}
	}
	return errors.New("no signature that is good")
}

var hookKey = []byte("a secret of thirty-two bytes !!!")

type hook struct {
	id   string
	path string
	body []byte
}

// receiver takes webhooks, and answers each as the test says.
type receiver struct {
	*httptest.Server
	hooks  chan hook
	mu     sync.Mutex
	answer http.HandlerFunc
}

func newReceiver(t *testing.T, answer http.HandlerFunc) *receiver {
	r := &receiver{hooks: make(chan hook, 4096), answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err == nil {
			err = verify(hookKey, req.Header, body, time.Now())
		}
		if err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %v", req.Method, req.URL, err)
		}
		r.mu.Lock()
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			answer(w, req)
		}
		r.hooks <- hook{req.Header.Get("webhook-id"), req.URL.Path, body}
	}))
	t.Cleanup(r.Close)
	return r
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func (r *receiver) become(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (h hook) event(t *testing.T) event {
	t.Helper()
	var e event
	if err := json.Unmarshal(h.body, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// testWebhook is one whose worker does not run yet.
func testWebhook(t *testing.T, url string, change func(*WebhookConfig)) (*Webhook, *journal) {
	t.Helper()
	log := new(journal)
	c := WebhookConfig{URL: url, Secret: hookKey, ConsoleURL: "https://weir.example.com/", Log: log.log()}
	if change != nil {
		change(&c)
	}
	w, err := newWebhook(c)
	if err != nil {
		t.Fatal(err)
	}
	w.out.delay = soon
	return w, log
}

func TestWebhookTellsEveryChangeOnce(t *testing.T) {
	rec := newReceiver(t, nil)
	w, _ := testWebhook(t, rec.URL+"/hook", nil)
	w.out.start()
	r := testRequest()
	one := after(r, approval.Pending, approvedBy("bob@example.com"))
	two := after(r, approval.Approved, approvedBy("bob@example.com"), approvedBy("eve@example.com"))
	for _, x := range []approval.Request{r, r, one, two, two, after(two, approval.Used, two.Decisions...)} {
		w.Notify(x)
	}
	ids := map[string]bool{}
	var kinds []string
	for range 3 {
		h := receive(t, rec.hooks, "an event")
		e := h.event(t)
		ids[h.id] = true
		kinds = append(kinds, e.Type)
		d := e.Data
		if d.ID != r.ID || d.URL != "https://weir.example.com/approvals/"+r.ID || d.Digest != r.Digest || d.Requester != r.Requester || d.Rule != r.Rule ||
			!slices.Equal(d.Verbs, r.Action.Verbs) || !slices.Equal(d.Resources, r.Action.Resources) || !d.Expires.Equal(r.Expires) || e.Timestamp.IsZero() {
			t.Errorf("%+v", e)
		}
		if strings.Contains(string(h.body), testSecret) {
			t.Errorf("what may hold data got out: %s", h.body)
		}
		if e.Type == eventApproved && (len(d.Decisions) != 2 || d.Decisions[1].User != "eve@example.com" || d.Decisions[1].Proof != "slack") {
			t.Errorf("decisions: %+v", d.Decisions)
		}
	}
	closeNow(t, w)
	if diff := cmp.Diff([]string{eventRequested, eventApproved, eventUsed}, kinds); diff != "" || len(ids) != 3 || len(rec.hooks) != 0 {
		t.Errorf("%s\nids %v, %d left", diff, ids, len(rec.hooks))
	}
	w.Notify(after(r, approval.Withdrawn)) // after Close: taken by nobody, and no harm
	if w.Dropped() != 1 {
		t.Errorf("dropped: %d", w.Dropped())
	}
}

func TestWebhookDetails(t *testing.T) {
	r := testRequest()
	long := r.Action
	long.Text = strings.Repeat("é", maxText)
	many := long
	for i := range 2 * maxResources {
		many.Resources = append(many.Resources, fmt.Sprint("t", i))
	}
	r.Actions = []approval.Action{r.Action, long, many}
	body, err := newEvent(eventRequested, &r, time.Now(), "", true)
	if err != nil {
		t.Fatal(err)
	}
	d := hook{body: body}.event(t).Data
	if len(d.Texts) != 2 || d.Texts[0] != r.Action.Text || !strings.HasPrefix(long.Text, d.Texts[1]) || !d.Truncated || len(d.Resources) != maxResources {
		t.Errorf("%+v", d)
	}
	if n := len(body); n > 20000 {
		t.Errorf("the event has %d bytes", n)
	}
	if n := strings.Count(string(body), testSecret); n != 1 { // in the text, as wanted
		t.Errorf("%d times what may hold data: %s", n, body)
	}
}

func TestHistory(t *testing.T) {
	var h history
	r := testRequest()
	step := func(id string, s approval.Status, review string, want ...string) {
		t.Helper()
		r.ID, r.Status, r.Review = id, s, review
		if got := h.changes(&r); !slices.Equal(got, want) {
			t.Errorf("%s %s %q: got %v, want %v", id, s, review, got, want)
		}
	}
	step("a", approval.Pending, "", eventRequested)
	step("a", approval.Approved, "open", eventApproved, eventReview)
	step("a", approval.Used, "open", eventUsed)
	step("a", approval.Used, "done", eventReview)
	step("a", approval.Withdrawn, "done", eventWithdrawn)
	step("old", approval.Used, "done", eventReview)
	step("b", approval.Denied, "", eventDenied)
	step("c", approval.Expired, "", eventExpired)
	for i := range maxHistory {
		h.changes(&approval.Request{ID: strconv.Itoa(i), Status: approval.Pending})
	}
	if len(h.told) != maxHistory || len(h.order) != maxHistory {
		t.Errorf("the history holds %d, %d", len(h.told), len(h.order))
	}
}

func TestWebhookRetriesTheSameEvent(t *testing.T) {
	var tries atomic.Int32
	rec := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		switch tries.Add(1) {
		case 1:
			w.WriteHeader(500)
		case 2:
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case 3:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
		case 4:
			w.WriteHeader(404)
		}
	})
	w, log := testWebhook(t, rec.URL+"/hidden-path", nil)
	w.out.start()
	w.Notify(testRequest())
	first := receive(t, rec.hooks, "the first try")
	for range 4 {
		h := receive(t, rec.hooks, "another try")
		if h.id != first.id || string(h.body) != string(first.body) || h.path != "/hidden-path" {
			t.Errorf("another event: %+v", h)
		}
	}
	closeNow(t, w)
	if len(rec.hooks) != 0 || w.Dropped() != 0 {
		t.Errorf("%d left, %d dropped", len(rec.hooks), w.Dropped())
	}
	if s := log.String(); strings.Contains(s, "hidden-path") || !strings.Contains(s, "500") {
		t.Errorf("the log: %s", s)
	}
}

func TestWebhookGivesUp(t *testing.T) {
	rec := newReceiver(t, status(500))
	w, log := testWebhook(t, rec.URL, nil)
	w.out.start()
	w.Notify(testRequest())
	for range maxTries {
		receive(t, rec.hooks, "a try")
	}
	closeNow(t, w)
	if len(rec.hooks) != 0 || w.Dropped() != 1 || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("%d tries too many, %d dropped\n%s", len(rec.hooks), w.Dropped(), log)
	}
}

func TestWebhookGone(t *testing.T) {
	rec := newReceiver(t, status(http.StatusGone))
	w, log := testWebhook(t, rec.URL, nil)
	r := testRequest()
	w.Notify(r)
	w.Notify(after(r, approval.Denied))
	w.out.start()
	receive(t, rec.hooks, "the first try")
	closeNow(t, w)
	w.Notify(after(r, approval.Withdrawn))
	if len(rec.hooks) != 0 || w.Dropped() != 3 || !strings.Contains(log.String(), "410") {
		t.Errorf("%d after a 410, %d dropped\n%s", len(rec.hooks), w.Dropped(), log)
	}
}

func TestWebhookVerifiesTLS(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	srv.Config.ErrorLog = discard()
	srv.StartTLS()
	defer srv.Close()
	w, log := testWebhook(t, srv.URL, nil)
	w.out.start()
	w.Notify(testRequest())
	closeNow(t, w)
	if asked.Load() != 0 || w.Dropped() != 1 || !strings.Contains(log.String(), "certificate") {
		t.Errorf("asked %d times, %d dropped\n%s", asked.Load(), w.Dropped(), log)
	}
}

func TestWebhookReadsNoEndlessAnswer(t *testing.T) {
	cut := make(chan struct{})
	rec := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(cut)
		for buf := make([]byte, 1<<16); ; {
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
	})
	w, _ := testWebhook(t, rec.URL, nil)
	w.out.start()
	w.Notify(testRequest())
	receive(t, cut, "the end of an endless answer")
	closeNow(t, w)
	if w.Dropped() != 0 {
		t.Error("a 200 with a long body is no delivery")
	}
}

func TestWebhookQueueIsBounded(t *testing.T) {
	rec := newReceiver(t, nil)
	w, log := testWebhook(t, rec.URL, nil)
	const more = 9
	for i := range maxJobs + more {
		r := testRequest()
		r.ID = fmt.Sprintf("R%05d", i)
		w.Notify(r)
	}
	if w.Dropped() != more || !strings.Contains(log.String(), "dropped") {
		t.Errorf("%d dropped\n%s", w.Dropped(), log)
	}
	w.out.start()
	if got := receive(t, rec.hooks, "the oldest that is left").event(t).Data.ID; got != fmt.Sprintf("R%05d", more) {
		t.Errorf("the oldest that is left is %s", got)
	}
	closeNow(t, w)
	if n := len(rec.hooks); n != maxJobs-1 {
		t.Errorf("%d delivered besides", n)
	}
}

func TestWebhookRequestThatHasEnded(t *testing.T) {
	rec := newReceiver(t, status(500))
	w, _ := testWebhook(t, rec.URL, nil)
	waits := make(chan struct{}, 10)
	w.out.delay = func(int) time.Duration { waits <- struct{}{}; return time.Minute }
	w.out.start()
	r := testRequest()
	w.Notify(r)
	receive(t, rec.hooks, "the first try")
	receive(t, waits, "the wait for the next")
	rec.become(nil)
	w.Notify(after(r, approval.Denied)) // so nobody needs to hear any more that it began
	if e := receive(t, rec.hooks, "the denial").event(t); e.Type != eventDenied {
		t.Errorf("got %s", e.Type)
	}
	past := testRequest()
	past.ID, past.Expires = "PAST", time.Now().Add(-time.Second)
	w.Notify(past)
	closeNow(t, w)
	if len(rec.hooks) != 0 || w.Dropped() != 2 {
		t.Errorf("%d delivered, %d dropped", len(rec.hooks), w.Dropped())
	}
}

func TestWebhookCloseWhileRetrying(t *testing.T) {
	rec := newReceiver(t, status(500))
	w, _ := testWebhook(t, rec.URL, nil)
	waits := make(chan struct{}, 10)
	w.out.delay = func(int) time.Duration { waits <- struct{}{}; return time.Minute }
	w.out.start()
	w.Notify(testRequest())
	receive(t, rec.hooks, "the first try")
	receive(t, waits, "the wait for the next")
	rec.become(nil)
	closeNow(t, w) // tries once more, without the wait
	receive(t, rec.hooks, "the last try")
	if w.Dropped() != 0 {
		t.Errorf("%d dropped", w.Dropped())
	}
	closeNow(t, w) // again: no harm
}

func TestWebhookCloseIsCutShort(t *testing.T) {
	held, in := make(chan struct{}), make(chan struct{}, 10)
	rec := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		in <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-held:
		}
	})
	defer close(held)
	w, _ := testWebhook(t, rec.URL, nil)
	r := testRequest()
	w.Notify(r)
	w.Notify(after(r, approval.Denied))
	w.out.start()
	receive(t, in, "a try that hangs")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	if w.Dropped() != 2 {
		t.Errorf("%d dropped", w.Dropped())
	}
}

func TestBackoff(t *testing.T) {
	var all time.Duration
	for try := 1; try < maxTries; try++ {
		d := backoff(try)
		all += d
		if try > 1 && d < 5*time.Second {
			t.Errorf("try %d after %s", try, d)
		}
	}
	if all < 15*time.Minute || all > 40*time.Minute {
		t.Errorf("all tries in %s", all)
	}
}

func TestWebhookConfig(t *testing.T) {
	for _, u := range []string{"", "hooks.example.com", "ftp://x/y", "https:///p", "://"} {
		if _, err := NewWebhook(WebhookConfig{URL: u, Secret: hookKey, Log: new(journal).log()}); err == nil {
			t.Errorf("%q is taken", u)
		}
	}
}
