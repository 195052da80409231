package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/identity"
)

// inboxLog remembers what an inbox wanted done.
type inboxLog struct{ done []string }

func (l *inboxLog) Approve(r *approval.Request, reason string) tea.Cmd {
	l.done = append(l.done, strings.TrimSpace("approve "+r.ID+" "+reason))
	return nil
}

func (l *inboxLog) GiveUp() { l.done = append(l.done, "give up") }

func (l *inboxLog) Look(string) tea.Cmd { return nil }

func (l *inboxLog) Decide(verb, id, reason string) tea.Cmd {
	l.done = append(l.done, strings.TrimSpace(verb+" "+id+" "+reason))
	return nil
}

// screenTest drives an inbox without a terminal.
type screenTest struct {
	t *testing.T
	*inbox
	log *inboxLog
}

func newScreen(t *testing.T, requests ...approval.Request) *screenTest {
	t.Helper()
	log := &inboxLog{}
	s := &screenTest{t: t, inbox: newInbox(log, testTime()), log: log}
	s.send(feedUp{})
	for _, r := range requests {
		s.send(feedNews{request: r})
	}
	return s
}

func (s *screenTest) send(m tea.Msg) tea.Cmd {
	s.t.Helper()
	_, cmd := s.Update(m)
	s.check()
	return cmd
}

// keys presses keys: names, or text behind a quote.
func (s *screenTest) keys(keys ...string) (last tea.Cmd) {
	s.t.Helper()
	special := map[string]tea.Key{"up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown}, "enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape},
		"backspace": {Code: tea.KeyBackspace}, "pgdown": {Code: tea.KeyPgDown}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "ctrl+u": {Code: 'u', Mod: tea.ModCtrl}}
	for _, k := range keys {
		if key, ok := special[k]; ok {
			last = s.send(tea.KeyPressMsg(key))
			continue
		}
		for _, r := range strings.TrimPrefix(k, "'") {
			last = s.send(tea.KeyPressMsg{Code: r, Text: string(r)})
		}
	}
	return last
}

// check holds what is true of every screen: as many lines as the terminal has, none
// wider, and nothing in them but text and styles.
func (s *screenTest) check() {
	s.t.Helper()
	w, h := s.size()
	lines := s.screen()
	if len(lines) != h {
		s.t.Errorf("%d lines on a screen of %d:\n%s", len(lines), h, s.text())
	}
	for _, l := range lines {
		if ansi.StringWidth(l) > w {
			s.t.Fatalf("%d cells on a screen of %d: %q", ansi.StringWidth(l), w, l)
		}
		harmless(s.t, "screen", ansi.Strip(l))
	}
}

func (s *screenTest) text() string { return ansi.Strip(strings.Join(s.screen(), "\n")) }

func (s *screenTest) shows(want ...string) {
	s.t.Helper()
	text := s.text()
	for _, w := range want {
		if !strings.Contains(text, w) {
			s.t.Errorf("the screen does not show %q:\n%s", w, text)
		}
	}
}

func (s *screenTest) hides(not ...string) {
	s.t.Helper()
	text := s.text()
	for _, n := range not {
		if strings.Contains(text, n) {
			s.t.Errorf("the screen shows %q:\n%s", n, text)
		}
	}
}

func (s *screenTest) did(want ...string) {
	s.t.Helper()
	if strings.Join(s.log.done, "; ") != strings.Join(want, "; ") {
		s.t.Errorf("done: %q, want %q", s.log.done, want)
	}
	s.log.done = nil
}

func (s *screenTest) after(d time.Duration) { s.t.Helper(); s.send(inboxTick(s.now.Add(d))) }

func TestInboxEmpty(t *testing.T) {
	s := &screenTest{t: t, inbox: newInbox(&inboxLog{}, testTime())}
	s.shows("not connected", "Asking the agent", "q quit")
	s.send(feedUp{})
	s.shows("nothing waits", "Nothing waits for a decision.", "as soon as an action is held", "q quit")
	s.keys("up", "down", "enter", "a", "d", "pgdown", "esc")
	s.shows("there is nothing to decide yet")
	s.send(feedDown{errors.New("gone\x1b")})
	s.shows("No news from the agent", "not connected")
	s.send(feedUp{})
	s.shows("the agent answers again")
}

func TestInboxListsTheNewestFirst(t *testing.T) {
	old, fresh := testRequest(-3600), testRequest(1, func(r *approval.Request) { r.Requester = "carl@example.com" })
	s := newScreen(t, old)
	s.hides("NEW")
	s.send(feedNews{request: fresh})
	s.shows("2 requests wait", "NEW carl@example.com", "new: carl@example.com, delete shop.orders", "▸     ann@example.com", "10m00s", "DELETE FROM shop.orders", "1 of dba")
	if text := s.text(); strings.Index(text, "carl@") > strings.Index(text, "ann@") {
		t.Errorf("the newest is not first:\n%s", text)
	}
	s.keys("up")
	s.shows("▸     carl@example.com")
	s.hides("NEW")
	s.keys("up", "down", "down")
	s.shows("▸     ann@example.com")
	s.after(9*time.Minute + 30*time.Second)
	s.shows("0m30s")
}

func TestInboxShowsWhatBecameOfARequest(t *testing.T) {
	a, b := testRequest(1), testRequest(2)
	s := newScreen(t, a, b)
	a.Status, a.Ended = approval.Denied, "denied by carl@example.com"
	s.send(feedNews{request: a})
	s.shows("1 request waits", "denied by carl@example.com", "▸")
	s.keys("a", "d")
	s.did()
	s.shows("it has ended: denied by carl@example.com")
	s.after(endedStays - time.Second)
	s.shows("denied by carl@example.com")
	s.after(2 * time.Second)
	if s.row(a.ID) != nil || s.selected != b.ID {
		t.Errorf("still there, or the other one is not chosen: %s", s.text())
	}
	s.send(feedGone{b.ID})
	s.shows("you may not see it any more")
	s.after(endedStays)
	s.shows("Nothing waits")
	s.send(feedNews{request: a}) // an end of what was not here is no news
	s.shows("Nothing waits")
}

func TestInboxApprovesByASignIn(t *testing.T) {
	r := testRequest(1)
	s := newScreen(t, r)
	s.keys("a")
	s.did("approve " + r.ID)
	s.shows("Approving for ann@example.com", "delete shop.orders", "One moment")
	url := "https://idp.example.com/auth?nonce=" + strings.Repeat("0123456789", 40)
	s.send(signInText{"To sign in, open this address in a browser on this machine:\n\n    " + url + "\n\n"})
	s.send(signInText{"Waiting for the sign-in (Ctrl-C gives up) ...\n"})
	s.shows("open this address", "Esc gives up", "c copy")
	s.hides("Ctrl-C")
	if text := strings.ReplaceAll(s.text(), "\n", ""); !strings.Contains(text, url) {
		t.Errorf("the address is not there whole:\n%s", s.text())
	}
	if s.keys("c") == nil {
		t.Error("c copies nothing")
	}
	s.keys("d", "w", "down") // nothing else meanwhile
	s.did()
	s.keys("esc")
	s.did("give up")
	s.send(inboxDecided{verb: "approve", id: r.ID, err: errors.New("sign-in given up"), gaveUp: true})
	s.shows("given up; nothing was decided", "a approve")
	s.keys("a")
	r.Status = approval.Approved
	s.send(inboxDecided{verb: "approve", id: r.ID, request: &r})
	s.shows("approved "+r.ID, "granted")
}

func TestInboxSignInByACode(t *testing.T) {
	s := newScreen(t, testRequest(1))
	s.keys("a")
	s.send(signInText{"To sign in, open https://idp.example.com/device and enter the code\n\n    ABCD-EFGH\x1b[2J\n\nor open https://idp.example.com/d?c=1\n"})
	s.shows("https://idp.example.com/device", "ABCD-EFGH", "Esc gives up")
}

func TestInboxGivesUpASignInForWhatHasEnded(t *testing.T) {
	r := testRequest(1)
	s := newScreen(t, r)
	s.keys("a")
	s.log.done = nil
	r.Status, r.Ended = approval.Withdrawn, "the client has gone"
	s.send(feedNews{request: r})
	s.did("give up")
	s.send(inboxDecided{verb: "approve", id: r.ID, err: context.Canceled, gaveUp: true})
	s.shows("it has ended meanwhile: the client has gone")
}

// TestInboxSecondThought: where no sign-in follows, a key alone approves nothing.
func TestInboxSecondThought(t *testing.T) {
	r := testRequest(1, bySession)
	s := newScreen(t, r)
	s.keys("a")
	s.did()
	s.shows("Reason to approve", "enter approve", "esc back")
	s.keys("esc")
	s.did()
	s.shows("nothing was decided")
	s.keys("a", "'all fine", "enter")
	s.did("approve " + r.ID + " all fine")
}

func TestInboxAsksForReasons(t *testing.T) {
	r := testRequest(1, func(r *approval.Request) {
		r.Rules[0].RequireReason = true
		r.May = []string{"deny", "withdraw", "break-glass", "review"}
	})
	s := newScreen(t, r)
	s.keys("d", "'not noq", "backspace", "'w", "enter")
	s.did("deny " + r.ID + " not now")
	s.shows("deny " + r.ID + " ...")
	s.keys("w")
	s.shows("deny " + r.ID) // one thing at a time
	s.did()
	s.send(inboxDecided{verb: "deny", id: r.ID, err: errors.New("weir: nobody\x1b[2J decides twice")})
	s.shows("nobody<U+001B>[2J decides twice")
	for _, verb := range []string{"break-glass", "approve"} {
		s.keys(verb[:1], "enter")
		s.did()
		s.shows("(required)")
		s.keys("'fire", "enter")
		s.did(verb + " " + r.ID + " fire")
		s.send(inboxDecided{verb: verb, id: r.ID, err: errors.New("no")})
	}
	s.keys("w", "enter")
	s.did("withdraw " + r.ID)
	s.send(inboxDecided{verb: "withdraw", id: r.ID, err: errors.New("no")})
	s.keys("r")
	s.send(tea.PasteMsg{Content: "two\nlines\x1b[2J " + strings.Repeat("é", maxReasonInput)})
	if len(s.asking.text) > maxReasonInput || !strings.HasPrefix(s.asking.text, "two lines[2J é") {
		t.Errorf("pasted: %d bytes, %.30q", len(s.asking.text), s.asking.text)
	}
	s.keys("ctrl+u", "'seen", "enter")
	s.did("review " + r.ID + " seen")
}

func TestInboxSaysWhatOneMayNot(t *testing.T) {
	own := testRequest(1, func(r *approval.Request) { r.May = []string{"withdraw"} })
	s := newScreen(t, own)
	s.keys("d")
	s.shows("only another person, signed in (weir login) and in dba, may deny it")
	s.keys("b")
	s.shows("only its requester may break the glass")
	s.keys("r")
	s.shows("no review")
	s.did()
	s.keys("a") // somebody else may sign in
	s.did("approve " + own.ID)
}

func TestInboxDropsAQuestionAboutWhatHasEnded(t *testing.T) {
	r := testRequest(1)
	s := newScreen(t, r)
	s.keys("d", "'becau")
	r.Status, r.Ended = approval.Expired, "nobody decided in time"
	s.send(feedNews{request: r})
	s.shows("it has ended meanwhile: nobody decided in time")
	s.keys("enter")
	s.did()
}

func TestInboxFitsEveryScreen(t *testing.T) {
	var many []approval.Request
	for n := range 50 {
		many = append(many, testRequest(n, func(r *approval.Request) {
			r.Requester = strings.Repeat("名", n)
			r.Action.Text = strings.Repeat("SELECT 'x' -- "+hostile+"\n", n)
		}))
	}
	many = append(many, testRequest(60, hostileRequest))
	s := newScreen(t, many...)
	for _, size := range [][2]int{{80, 24}, {200, 60}, {120, 24}, {40, 10}, {10, 3}, {1, 1}, {80, 24}} {
		s.send(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		for range 60 {
			s.keys("up")
		}
		s.keys("enter", "down", "pgdown", "pgdown", "pgdown", "enter", "a", "esc")
		s.send(inboxDecided{verb: "approve", id: s.selected, err: errors.New(strings.Repeat("long ", 100))})
		s.keys("d", "'"+strings.Repeat("reason ", 100), "esc")
		for range 60 {
			s.keys("down")
		}
	}
	s.shows("▸")
}

func TestInboxDetailsScroll(t *testing.T) {
	r := testRequest(1, func(r *approval.Request) { r.Action.Text = strings.Repeat("-- filler\n", 100) + "DROP TABLE hidden" })
	s := newScreen(t, r)
	s.hides("hidden", "Nonce")
	s.shows("lines more, enter shows all")
	s.keys("enter")
	for range 20 {
		s.keys("pgdown")
	}
	s.shows("hidden", r.Nonce)
	s.keys("esc")
	s.shows("lines more, enter shows all")
}

func TestInboxQuits(t *testing.T) {
	for _, before := range [][]string{nil, {"enter"}} {
		s := newScreen(t, testRequest(1))
		s.keys(before...)
		if cmd := s.keys("q"); cmd == nil {
			t.Error("q does not quit")
		} else if _, ok := cmd().(tea.QuitMsg); !ok {
			t.Error("q does not quit")
		}
	}
	s := newScreen(t, testRequest(1))
	s.keys("d")
	if cmd := s.keys("'q"); cmd != nil || s.asking.text != "q" {
		t.Error("a q in a reason is more than a letter")
	}
	if cmd := s.keys("ctrl+c"); cmd == nil {
		t.Error("ctrl+c does not quit")
	}
}

// screenBuffer takes what a program draws.
type screenBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	drawn chan struct{} // holds one token after something was drawn
}

func (s *screenBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.drawn <- struct{}{}:
	default:
	}
	return s.b.Write(p)
}

// wait waits until something has been drawn.
func (s *screenBuffer) wait(t *testing.T, text string) {
	t.Helper()
	for {
		s.mu.Lock()
		found := strings.Contains(ansi.Strip(s.b.String()), text)
		s.mu.Unlock()
		if found {
			return
		}
		select {
		case <-s.drawn:
		case <-t.Context().Done():
			t.Fatalf("%q was not drawn", text)
		}
	}
}

// TestInboxRuns: the whole of it against an agent, a sign-in that is left open included:
// quitting ends that too.
func TestInboxRuns(t *testing.T) {
	r := testRequest(1, inTime)
	agent := startFakeAgent(t, r)
	begun := make(chan identity.LoginConfig, 1)
	ended := make(chan struct{})
	a := &approver{agent: agent.client(), login: func(ctx context.Context, c identity.LoginConfig) (string, error) {
		begun <- c
		_, _ = io.WriteString(c.Out, "    https://idp.example.com/sign-in-here\n")
		<-ctx.Done()
		close(ended)
		return "", ctx.Err()
	}}
	in, keys := io.Pipe()
	screen := &screenBuffer{drawn: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() {
		done <- showInbox(t.Context(), a, &feed{agent: agent.client(), retry: time.Millisecond}, tea.WithInput(in), tea.WithOutput(screen), tea.WithWindowSize(80, 24))
	}()
	screen.wait(t, "1 request waits")
	screen.wait(t, "DELETE FROM shop.orders")
	if _, err := keys.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if c := <-begun; c.Nonce != r.Nonce {
		t.Errorf("signed in with %+v", c)
	}
	screen.wait(t, "sign-in-here")
	if _, err := keys.Write([]byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-ended
	keys.Close()
	<-agent.service.closed
}
