package console

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

// verbs are what can be done with a request, and how the service is asked for it.
var verbs = map[string]func(approval.Service, context.Context, string, approval.Attempt) (*approval.Request, error){
	"approve":     approval.Service.Approve,
	"deny":        approval.Service.Deny,
	"withdraw":    approval.Service.Withdraw,
	"break-glass": approval.Service.BreakGlass,
	"review":      approval.Service.Review,
}

// result is what has come of somebody's decision, in words.
type result struct {
	key    string
	ID     string // of the request
	Tone   string
	Title  string
	What   string // the request in short
	Text   string
	As     string // who decided, "" when that is not known
	Proof  string
	Other  string // who is signed in here, when that is somebody else
	Next   string // what to do
	Listed bool   // there is a page of the request to go back to
}

// decide takes the buttons of a request's page.
func (c *Console) decide(verb string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		x := c.session(r)
		if x == nil {
			c.signInFirst(w, r, "/approvals/"+id)
			return
		}
		if !c.readForm(w, r) || !c.ownForm(w, r, x) {
			return
		}
		s, err := c.service()
		if err != nil {
			c.failed(w, r, err)
			return
		}
		seen, err := s.Show(r.Context(), x.viewer(), id)
		if err != nil {
			c.failed(w, r, err)
			return
		}
		v := newRequest(seen, x.who, c.cfg.Now())
		reason := strings.TrimSpace(strings.ReplaceAll(r.PostForm.Get("reason"), "\r\n", "\n"))
		if len(reason) > maxReason {
			c.fail(w, r, http.StatusRequestEntityTooLarge, "The reason is too long",
				fmt.Sprintf("It may have %d bytes and has %d. Nothing was decided. Go back and make it shorter.", maxReason, len(reason)))
			return
		}
		if verb == "approve" && v.Signed && v.Can("approve") {
			if v.Reason && reason == "" {
				c.done(w, r, x, &result{ID: id, Tone: loud, Title: "Not approved yet", What: v.Title, Text: "The rule wants a reason.",
					Next: "Go back to the request, write why you approve it, and approve again."})
				return
			}
			c.begin(w, r, &started{browser: hashed(c.browser(w, r)), issuer: x.issuer, approve: &approving{id: id, reason: reason, session: x.key}},
				SignInRequest{Nonce: seen.Nonce, Prompt: seen.Prompt, MaxAge: time.Duration(seen.MaxAge) * time.Second})
			return
		}
		// What was recorded is answered as it was recorded, also when the browser hangs up.
		patient(w, patience)
		after, err := verbs[verb](s, context.WithoutCancel(r.Context()), id, approval.Attempt{Viewer: x.viewer(), Reason: reason})
		res := c.result(verb, v, after, err)
		res.As, res.Proof = x.who.User, approval.ProofSession
		c.done(w, r, x, res)
	}
}

// signed decides with the token of a sign-in that was made for a request.
func (c *Console) signed(w http.ResponseWriter, r *http.Request, s *started, token string, err error) {
	x := c.sessions.byKey(s.approve.session, c.cfg.Now(), true)
	res := &result{ID: s.approve.id, Tone: loud, Title: "Not approved"}
	if err != nil {
		res.Text, res.Next = sentence(err.Error()), "Nothing was decided, and the request waits on. Go back to it and approve again."
		c.done(w, r, x, res)
		return
	}
	service, err := c.service()
	if err != nil {
		c.failed(w, r, err)
		return
	}
	a := approval.Attempt{Token: token, Reason: s.approve.reason}
	who := ""
	if p, err := c.cfg.Verify(r.Context(), token); err == nil {
		who = p.User
	}
	var seen *request
	if x != nil {
		a.Viewer = x.viewer()
		if before, err := service.Show(r.Context(), x.viewer(), s.approve.id); err == nil {
			seen = newRequest(before, x.who, c.cfg.Now())
		}
	}
	after, err := service.Approve(context.WithoutCancel(r.Context()), s.approve.id, a)
	res = c.result("approve", seen, after, err)
	res.ID, res.As, res.Proof = s.approve.id, who, approval.ProofIDP
	if x != nil && who != "" && !strings.EqualFold(who, x.who.User) {
		res.Other = x.who.User
	}
	c.done(w, r, x, res)
}

// done shows a result on a page of its own, which can be loaded again; without a session
// there is no such page.
func (c *Console) done(w http.ResponseWriter, r *http.Request, x *webSession, res *result) {
	if x == nil {
		c.page(w, r, http.StatusOK, "result", res.Title, res)
		return
	}
	res.Listed = true
	res.key = rand.Text()
	c.sessions.keep(x, res)
	http.Redirect(w, r, "/results/"+res.key, http.StatusSeeOther)
}

func (c *Console) showResult(w http.ResponseWriter, r *http.Request) {
	x := c.session(r)
	if x == nil {
		c.signInFirst(w, r, "/approvals")
		return
	}
	res := c.sessions.result(x, r.PathValue("result"))
	if res == nil {
		c.fail(w, r, http.StatusNotFound, "This result is gone", "What was decided is with the request.")
		return
	}
	c.page(w, r, http.StatusOK, "result", res.Title, res)
}

// undone are the titles of what did not happen.
var undone = map[string]string{
	"approve": "Not approved", "deny": "Not denied", "withdraw": "Not withdrawn", "break-glass": "Not let through", "review": "Not reviewed",
}

// result says what has come of an attempt; before may be nil.
func (c *Console) result(verb string, before *request, after *approval.Request, err error) *result {
	res := &result{Tone: loud, Title: undone[verb]}
	if before != nil {
		res.ID, res.What = before.ID, before.Title
	}
	if err == nil {
		res.Tone = "good"
		res.ID, res.What = after.ID, title(actionList(after))
		res.Title, res.Text = doneWords(verb, after)
		return res
	}
	_, text := c.explain(err)
	res.Text = sentence(text)
	var (
		notFound   *approval.NotFound
		notAllowed *approval.NotAllowed
		conflict   *approval.Conflict
	)
	switch {
	case errors.As(err, &notFound):
		res.Text, res.Next = "There is no such request, or none that you may see.", "It may have been removed since. Look at the list."
	case errors.As(err, &notAllowed):
		res.Next = "The attempt is on record and has changed nothing. If you are somebody else, sign out here and at the identity provider, and sign in again."
	case errors.As(err, &conflict):
		res.Next = "Look at the request to see how it stands."
	default:
		res.Next = "Look at the request to see whether it counted, and try again."
	}
	return res
}

func actionList(r *approval.Request) []action {
	list := actionsOf(r)
	out := make([]action, len(list))
	for i := range list {
		out[i] = newAction(&list[i])
	}
	return out
}

func doneWords(verb string, r *approval.Request) (title, text string) {
	switch verb {
	case "approve":
		if r.Status == approval.Pending {
			return "Your approval counts", "The request waits on: it still needs " + groupWords(r.Lacking()) + "."
		}
		return "Approved", "It may run now, " + grantWords(r) + "."
	case "deny":
		return "Denied", "It does not run. Whoever asked is told so, and by whom."
	case "withdraw":
		return "Withdrawn", "The request has ended. What hung on it and still ran is cut off."
	case "break-glass":
		return "You may go through", "It may go on now without an approval. Your reason is on record, and another person will review it."
	}
	return "Reviewed", "The review is closed and on record under your name."
}
