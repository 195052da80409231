package notify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"github.com/weirproxy/weir/internal/approval"
)

// Ids of what can be clicked and filled in.
const (
	actionApprove = "weir_approve"
	actionDeny    = "weir_deny"
	actionOpen    = "weir_open"
	formReason    = "weir_reason"
	blockReason   = "weir_reason_block"
	fieldReason   = "weir_reason_text"
)

const (
	maxActions   = 3   // actions of a request that are shown
	maxDecisions = 10  // decisions that are shown
	maxReason    = 500 // characters, which are at most 2000 bytes
)

// card is a request as a message shows it: bounded texts, and nothing of the rest, which
// may be large.
type card struct {
	id       string
	status   approval.Status
	over     bool
	decided  int // decisions
	until    time.Time
	title    string
	summary  string // for notifications and screen readers
	fields   []string
	sections []string
	footer   string
	open     string // URL; "" for none
	buttons  bool   // it can be decided here
	reason   bool   // an approval wants one
}

func newCard(r *approval.Request, console string) *card {
	c := &card{id: r.ID, status: r.Status, over: over(r), decided: len(r.Decisions), until: r.Expires, open: page(console, r.ID)}
	c.title = titleOf(r)
	c.summary = fmt.Sprintf("%s: %s at %s, rule %s", c.title, name(r.Requester), name(r.Backend), name(r.Rule))
	where := fmt.Sprintf("%s (%s)", name(r.Backend), name(r.Protocol))
	if r.Database != "" {
		where += ", database " + name(r.Database)
	}
	c.fields = []string{"*Who*\n" + whoOf(r), "*Where*\n" + where, "*Rule*\n" + name(r.Rule)}
	switch r.Status {
	case approval.Pending:
		c.fields = append(c.fields, "*Needed*\n"+neededOf(r.Needed), "*Until*\n"+when(r.Expires))
	case approval.Approved:
		if r.Grant != "once" && r.Grant != "session" {
			c.fields = append(c.fields, "*Good until*\n"+when(r.Expires))
		}
	}
	c.sections = append(c.sections, actionsIn(r)...)
	if list := decisionsIn(r); list != "" {
		c.sections = append(c.sections, list)
	}
	if r.Broke != nil {
		c.sections = append(c.sections, "*Let through by* "+name(r.Broke.By)+": "+quote(r.Broke.Reason))
	}
	if r.Ended != "" {
		c.sections = append(c.sections, "*Ended*: "+quote(r.Ended))
	}
	c.footer = fmt.Sprintf("request %s, %s", name(r.ID), name(r.Digest))
	if r.Status != approval.Pending {
		return c
	}
	c.reason = slices.ContainsFunc(r.Rules, func(x approval.Rule) bool { return x.RequireReason })
	c.buttons = len(r.Rules) > 0 && !slices.ContainsFunc(r.Rules, func(x approval.Rule) bool { return x.Proof != approval.ProofSession })
	if !c.buttons {
		c.sections = append(c.sections, "This approval needs a sign-in for this very action: "+elsewhere(c.open, r.ID))
	}
	return c
}

// elsewhere says where a request is decided when not here.
func elsewhere(open, id string) string {
	if open != "" {
		return "open it."
	}
	return "run " + name("weir approvals approve "+id)
}

func titleOf(r *approval.Request) string {
	switch {
	case r.Review == reviewOpen:
		return "Went through without approval: a review is needed"
	case r.Review == reviewDone:
		return "Went through without approval: reviewed"
	}
	switch r.Status {
	case approval.Pending:
		return "Approval needed"
	case approval.Approved:
		return "Approved"
	case approval.Used:
		return "Approved and used"
	case approval.Denied:
		return "Denied"
	case approval.Expired:
		return "Expired"
	case approval.Withdrawn:
		return "Withdrawn"
	}
	return "Approval request"
}

func whoOf(r *approval.Request) string {
	s := name(r.Requester)
	if a := r.Principal.Actor; a != nil {
		acting := a.User
		if acting == "" {
			acting = a.Subject
		}
		s += ", for whom " + name(acting) + " acts"
	}
	return s
}

func neededOf(list []approval.Needed) string {
	var b strings.Builder
	for i, n := range list {
		if b.Len() > 600 {
			fmt.Fprintf(&b, "\nand %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%d of %s", n.Count, names(n.Groups))
	}
	return b.String()
}

func actionsIn(r *approval.Request) []string {
	var out []string
	all := actionsOf(r)
	for i, a := range all {
		if i == maxActions {
			out = append(out, fmt.Sprintf("_and %d more actions_", len(all)-i))
			break
		}
		what := "*What*: " + names(a.Verbs)
		if len(a.Resources) > 0 {
			what += " on " + names(a.Resources)
		}
		if a.Unrestricted {
			what += ", *without WHERE*: every row"
		}
		out = append(out, what)
		if a.Text == "" {
			continue
		}
		block, rest := code(a.Text)
		if rest > 0 || a.Bytes > int64(len(a.Text)) {
			block += "\n_this is not all of it_"
		}
		out = append(out, block)
	}
	return out
}

func decisionsIn(r *approval.Request) string {
	var b strings.Builder
	for i, d := range r.Decisions {
		if i == maxDecisions || b.Len() > 2000 {
			fmt.Fprintf(&b, "\nand %d more", len(r.Decisions)-i)
			break
		}
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s by %s, %s, proof %s", d.Decided, name(d.User), when(d.At), name(d.Proof))
	}
	return b.String()
}

func mrkdwn(s string) *slack.TextBlockObject {
	return slack.NewTextBlockObject(slack.MarkdownType, s, false, true)
}

func plainText(s string) *slack.TextBlockObject {
	return slack.NewTextBlockObject(slack.PlainTextType, s, false, false)
}

// blocks are the message. The buttons carry the token.
func (c *card) blocks(token string) []slack.Block {
	var fields []*slack.TextBlockObject
	for _, f := range c.fields {
		fields = append(fields, mrkdwn(f))
	}
	out := []slack.Block{slack.NewHeaderBlock(plainText(c.title)), slack.NewSectionBlock(nil, fields, nil)}
	for _, s := range c.sections {
		out = append(out, slack.NewSectionBlock(mrkdwn(s), nil, nil))
	}
	out = append(out, slack.NewContextBlock("", mrkdwn(c.footer)))
	var buttons []slack.BlockElement
	if c.open != "" {
		b := slack.NewButtonBlockElement(actionOpen, "", plainText("Open"))
		b.URL = c.open
		buttons = append(buttons, b)
	}
	if c.buttons {
		value := c.id + "." + token
		approve := slack.NewButtonBlockElement(actionApprove, value, plainText("Approve")).WithStyle(slack.StylePrimary)
		deny := slack.NewButtonBlockElement(actionDeny, value, plainText("Deny")).WithStyle(slack.StyleDanger)
		buttons = append(buttons, approve, deny)
	}
	if len(buttons) > 0 {
		out = append(out, slack.NewActionBlock("", buttons...))
	}
	return out
}

// form asks for the reason of a decision.
func (c *card) form(approve bool, token string) slack.ModalViewRequest {
	title, button := "Deny", "Deny"
	if approve {
		title, button = "Approve", "Approve"
	}
	input := slack.NewPlainTextInputBlockElement(nil, fieldReason).WithMultiline(true).WithMaxLength(maxReason)
	reason := slack.NewInputBlock(blockReason, plainText("Reason"), plainText("It is kept in the audit log, and the requester reads it."), input)
	reason.Optional = !approve
	blocks := []slack.Block{slack.NewSectionBlock(mrkdwn(c.summary), nil, nil)}
	for _, s := range c.sections {
		blocks = append(blocks, slack.NewSectionBlock(mrkdwn(s), nil, nil))
	}
	return slack.ModalViewRequest{
		Type: slack.VTModal, CallbackID: formReason, PrivateMetadata: c.id + "." + token,
		Title: plainText(title), Submit: plainText(button), Close: plainText("Back"),
		Blocks: slack.Blocks{BlockSet: append(blocks, reason)},
	}
}
