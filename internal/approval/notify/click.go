package notify

import (
	"context"
	"crypto/rand"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/slack-go/slack"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
)

// click is a button that somebody pressed, or a form that they sent.
type click struct {
	user    string
	form    bool
	approve bool // of a button
	channel string
	ts      string
	trigger string // lets a form be opened for three seconds
	id      string // the request
	token   string
	reason  string
}

// Bounds of what Slack sends, bytes.
const (
	maxTyped   = 4 * maxReason
	maxTrigger = 512
)

var (
	slackID = regexp.MustCompile(`^[A-Z0-9]{2,32}$`)
	slackTS = regexp.MustCompile(`^[0-9]{1,16}\.[0-9]{1,16}$`)
	bearing = regexp.MustCompile(`^([0-9A-Za-z_-]{1,64})\.([A-Z2-7]{26})$`) // "id.token", see rand.Text
)

// clickOf reads what Slack sent; false when it is nothing of ours.
func clickOf(cb *slack.InteractionCallback) (click, bool) {
	c := click{user: cb.User.ID, channel: cb.Channel.ID, ts: cb.Container.MessageTs, trigger: cb.TriggerID}
	var value string
	switch {
	case cb.Type == slack.InteractionTypeBlockActions && len(cb.ActionCallback.BlockActions) == 1 && cb.ActionCallback.BlockActions[0] != nil:
		a := cb.ActionCallback.BlockActions[0]
		if a.ActionID != actionApprove && a.ActionID != actionDeny || !slackID.MatchString(c.channel) || !slackTS.MatchString(c.ts) {
			return c, false
		}
		c.approve, value = a.ActionID == actionApprove, a.Value
	case cb.Type == slack.InteractionTypeViewSubmission && cb.View.CallbackID == formReason:
		c.form, value = true, cb.View.PrivateMetadata
		if cb.View.State != nil {
			c.reason = cb.View.State.Values[blockReason][fieldReason].Value
		}
	default:
		return c, false
	}
	part := bearing.FindStringSubmatch(value)
	if part == nil || !slackID.MatchString(c.user) || len(c.reason) > maxTyped || len(c.trigger) > maxTrigger {
		return c, false
	}
	c.id, c.token = part[1], part[2]
	return c, true
}

func (s *Slack) handleClicks() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case c := <-s.clicks:
			s.handle(c)
		}
	}
}

// What people are told about their clicks.
const (
	saysGone   = "weir: this button is no longer good: the request has ended or its message is an old one. Nothing was decided."
	saysBusy   = "weir: another click on this request is being handled; look at the message, and click again if it is still needed."
	saysForm   = "weir: this form is no longer good: the request has ended, or the form was sent before. Nothing was decided."
	saysSlow   = "weir: Slack did not open the form in time; click again."
	saysStarts = "weir: weir is still starting; click again in a moment."
	saysNobody = "weir: Slack could not say who you are; click again, or decide with `weir approvals`."
	saysBroken = "weir: the decision could not be made, for a reason that whoever runs weir on this node finds in its log."
)

func (s *Slack) handle(c click) {
	ctx, cancel := context.WithTimeout(s.ctx, 3*tryTimeout)
	defer cancel()
	if c.form {
		s.sent(ctx, c)
	} else {
		s.pressed(ctx, c)
	}
}

// pressed handles a button.
func (s *Slack) pressed(ctx context.Context, c click) {
	s.mu.Lock()
	m := s.messages[c.id]
	good := m != nil && m.card.status == approval.Pending && m.card.buttons && same(m.token, c.token)
	if good && m.ts != "" { // else Slack has shown the message and not answered yet
		good = m.ts == c.ts && m.channel == c.channel
	}
	if !good {
		s.mu.Unlock()
		s.say(ctx, c.channel, c.user, saysGone)
		return
	}
	if m.card.reason {
		token, card := rand.Text(), m.card
		if m.forms = append(m.forms, form{token, c.user, c.approve}); len(m.forms) > maxForms {
			m.forms = slices.Delete(m.forms, 0, 1)
		}
		s.mu.Unlock()
		if _, err := s.api.OpenViewContext(ctx, c.trigger, card.form(c.approve, token)); err != nil {
			s.cfg.Log.Warn("a form could not be opened in Slack", "id", c.id, "error", explain(err))
			s.say(ctx, c.channel, c.user, saysSlow)
		}
		return
	}
	if m.busy {
		s.mu.Unlock()
		s.say(ctx, c.channel, c.user, saysBusy)
		return
	}
	m.busy = true
	s.mu.Unlock()
	answer := s.decide(ctx, c)
	s.mu.Lock()
	m.busy = false
	s.mu.Unlock()
	s.say(ctx, c.channel, c.user, answer)
}

// sent handles a form. It is good once, for the one who was given it.
func (s *Slack) sent(ctx context.Context, c click) {
	s.mu.Lock()
	i, m := -1, s.messages[c.id]
	c.channel = s.cfg.Channel // a form does not say where its button was
	if m != nil && m.channel != "" {
		c.channel = m.channel
	}
	if m != nil && m.card.status == approval.Pending {
		i = slices.IndexFunc(m.forms, func(f form) bool { return same(f.token, c.token) && f.user == c.user })
	}
	if i >= 0 {
		c.approve = m.forms[i].approve
		m.forms = slices.Delete(m.forms, i, i+1)
	}
	s.mu.Unlock()
	answer := saysForm
	if i >= 0 {
		answer = s.decide(ctx, c)
	}
	s.say(ctx, c.channel, c.user, answer)
}

// decide brings a decision before the service; the answer is for the one who clicked.
func (s *Slack) decide(ctx context.Context, c click) string {
	who, refusal := s.person(ctx, c.user)
	if refusal != "" {
		return refusal
	}
	service := s.cfg.Service()
	if service == nil {
		return saysStarts
	}
	call, done := service.Deny, "denied"
	if c.approve {
		call, done = service.Approve, "approved"
	}
	r, err := call(ctx, c.id, approval.Attempt{Viewer: approval.Viewer{Who: who}, Reason: c.reason, Via: approval.ProofSlack})
	if err != nil {
		return s.refused(c, err)
	}
	s.mu.Lock()
	if m := s.messages[c.id]; m != nil { // one button, one decision; the next state brings another
		m.token = ""
	}
	s.mu.Unlock()
	s.progress(r)
	answer := "weir: you have " + done + " request " + name(c.id) + "."
	if r.Status == approval.Pending {
		answer += " It needs other people too."
	}
	return answer
}

func (s *Slack) refused(c click, err error) string {
	var (
		none     *approval.NotFound
		not      *approval.NotAllowed
		conflict *approval.Conflict
	)
	if errors.As(err, &none) || errors.As(err, &not) || errors.As(err, &conflict) {
		return words(err.Error())
	}
	s.cfg.Log.Error("a decision in Slack could not be made", "id", c.id, "error", err)
	return saysBroken
}

// home is the workspace that the app is installed in.
type home struct{ team, enterprise string }

func (s *Slack) workspace(ctx context.Context) (home, error) {
	s.mu.Lock()
	h := s.home
	s.mu.Unlock()
	if h.team != "" {
		return h, nil
	}
	a, err := s.api.AuthTestContext(ctx)
	if err != nil {
		return h, err
	}
	if a.TeamID == "" {
		return h, errors.New("Slack does not say which workspace the app is in")
	}
	h = home{a.TeamID, a.EnterpriseID}
	s.mu.Lock()
	s.home = h
	s.mu.Unlock()
	return h, nil
}

// has reports whether somebody is a member: people of other workspaces take part in
// shared channels (Slack Connect). An app may be installed for a whole enterprise.
func (h home) has(u *slack.User) bool {
	return u.TeamID == h.team || slices.Contains(u.Enterprise.Teams, h.team) ||
		h.enterprise != "" && h.team == h.enterprise && u.Enterprise.EnterpriseID == h.enterprise
}

// person finds out who has clicked; refusal is for them.
func (s *Slack) person(ctx context.Context, id string) (who *flow.Principal, refusal string) {
	h, err := s.workspace(ctx)
	if err != nil {
		s.cfg.Log.Error("Slack does not say which workspace this is, so its buttons do nothing", "error", explain(err))
		return nil, saysNobody
	}
	u, err := s.api.GetUserInfoContext(ctx, id)
	if err != nil {
		s.cfg.Log.Error("Slack does not say who has clicked", "user", id, "error", explain(err))
		return nil, saysNobody
	}
	email := strings.TrimSpace(u.Profile.Email)
	switch {
	case u.ID != id:
		return nil, saysNobody
	case u.Deleted || u.IsBot || u.IsAppUser || u.IsConnectorBot || u.IsWorkflowBot || u.IsInvitedUser:
		return nil, "weir: only people who are members of this workspace decide, not apps."
	case !h.has(u) || u.IsStranger || u.IsRestricted || u.IsUltraRestricted:
		return nil, "weir: only members of this workspace decide here, not guests or people of other workspaces; decide with `weir approvals`."
	case email == "":
		s.cfg.Log.Error("Slack does not give e-mail addresses, so its buttons do nothing; give the app the scope users:read.email")
		return nil, "weir: Slack does not say what your e-mail address is, so weir cannot tell who you are; decide with `weir approvals`."
	case !u.IsEmailConfirmed:
		return nil, "weir: your e-mail address is not confirmed in Slack; confirm it there, or decide with `weir approvals`."
	}
	who, ok := s.cfg.Principal(email)
	if !ok || who == nil {
		where := "with `weir login` on this node"
		if s.cfg.ConsoleURL != "" {
			where += ", or at " + words(s.cfg.ConsoleURL)
		}
		return nil, "weir: you are not signed in to weir, and a click in Slack alone proves too little. Sign in " + where + ", then click again."
	}
	return who, ""
}

// say tells somebody something that nobody else in the channel sees.
func (s *Slack) say(ctx context.Context, channel, user, text string) {
	if _, err := s.api.PostEphemeralContext(ctx, channel, user, slack.MsgOptionText(text, false)); err != nil && s.ctx.Err() == nil {
		s.cfg.Log.Warn("somebody could not be told in Slack what came of their click", "user", user, "error", explain(err))
	}
}
