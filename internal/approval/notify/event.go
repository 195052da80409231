package notify

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

// Types of events. Review comes besides the others: after a break-glass somebody has to
// look (review: open), and somebody has (review: done).
const (
	eventRequested = "approval.requested"
	eventApproved  = "approval.approved"
	eventDenied    = "approval.denied"
	eventExpired   = "approval.expired"
	eventWithdrawn = "approval.withdrawn"
	eventUsed      = "approval.used"
	eventReview    = "approval.review"
)

// typeOf is the type of event by which a request gets a status.
var typeOf = map[approval.Status]string{
	approval.Pending: eventRequested, approval.Approved: eventApproved, approval.Denied: eventDenied,
	approval.Expired: eventExpired, approval.Withdrawn: eventWithdrawn, approval.Used: eventUsed,
}

// Values of approval.Request.Review.
const (
	reviewOpen = "open"
	reviewDone = "done"
)

// Bounds of an event: receivers want less than 20 kB (Standard Webhooks, "Payload size").
const (
	maxResources = 50
	maxListed    = 200  // bytes of one name
	maxTexts     = 10   // statements
	maxText      = 4000 // bytes of all of them
)

// event is the body of a webhook.
type event struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"` // when it happened
	Data      eventData `json:"data"`
}

// eventData is the request. It holds no text that people or programs chose freely (the
// statement, its parameters, reasons) and no preview, which may all hold data: Texts is
// there when the configuration wants it.
type eventData struct {
	ID        string            `json:"id"`
	Status    approval.Status   `json:"status"`
	Review    string            `json:"review,omitempty"`
	Digest    string            `json:"digest"`
	Node      string            `json:"node"`
	Requester string            `json:"requester"`
	Backend   string            `json:"backend"`
	Protocol  string            `json:"protocol"`
	Database  string            `json:"database,omitempty"`
	Rule      string            `json:"rule"`
	Verbs     []string          `json:"verbs"`
	Resources []string          `json:"resources"`
	Texts     []string          `json:"texts,omitempty"`
	Truncated bool              `json:"truncated,omitempty"` // a list or text is not whole
	Created   time.Time         `json:"created"`
	Expires   time.Time         `json:"expires"`
	Needed    []approval.Needed `json:"needed"`
	Decisions []decision        `json:"decisions"`
	URL       string            `json:"url,omitempty"` // of the console's page
}

type decision struct {
	User    string           `json:"user"`
	Decided approval.Decided `json:"decided"`
	At      time.Time        `json:"at"`
	Proof   string           `json:"proof"`
}

// actionsOf are all actions of a request.
func actionsOf(r *approval.Request) []approval.Action {
	if len(r.Actions) > 0 {
		return r.Actions
	}
	return []approval.Action{r.Action}
}

func newEvent(kind string, r *approval.Request, at time.Time, page string, details bool) ([]byte, error) {
	d := eventData{ID: r.ID, Status: r.Status, Review: r.Review, Digest: r.Digest, Node: r.Node, Requester: r.Requester, Backend: r.Backend,
		Protocol: r.Protocol, Database: r.Database, Rule: r.Rule, Verbs: []string{}, Resources: []string{}, Created: r.Created.UTC(),
		Expires: r.Expires.UTC(), Needed: r.Needed, Decisions: []decision{}, URL: page}
	if d.Needed == nil {
		d.Needed = []approval.Needed{}
	}
	room := maxText
	for _, a := range actionsOf(r) {
		d.Truncated = add(&d.Verbs, a.Verbs) || d.Truncated
		d.Truncated = add(&d.Resources, a.Resources) || d.Truncated
		if !details {
			continue
		}
		text := clip(a.Text, room)
		if len(d.Texts) == maxTexts || len(text) < len(a.Text) {
			d.Truncated = true
		}
		if len(d.Texts) < maxTexts && text != "" {
			d.Texts = append(d.Texts, text)
			room -= len(text)
		}
	}
	for _, x := range r.Decisions {
		if len(d.Decisions) == maxResources {
			d.Truncated = true
			break
		}
		d.Decisions = append(d.Decisions, decision{User: x.User, Decided: x.Decided, At: x.At.UTC(), Proof: x.Proof})
	}
	return json.Marshal(event{Type: kind, Timestamp: at.UTC(), Data: d})
}

// add puts names into a list, each once, and reports whether it had to leave something
// out.
func add(list *[]string, names []string) (cut bool) {
	for _, n := range names {
		short := clip(n, maxListed)
		switch {
		case slices.Contains(*list, short):
		case len(*list) == maxResources:
			return true
		default:
			*list = append(*list, short)
		}
		cut = cut || len(short) < len(n)
	}
	return cut
}

// clip is the beginning of s, of whole characters, with at most n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	end := 0
	for i := range s {
		if i > n {
			break
		}
		end = i
	}
	return s[:end]
}

// history remembers how far each request was told, so that each change is told once.
type history struct {
	told  map[string]told
	order []string // oldest first
}

type told struct {
	status approval.Status
	review string
}

// maxHistory is above what can wait at one node.
const maxHistory = 20000

// changes are the types of the events that have happened to a request since.
func (h *history) changes(r *approval.Request) []string {
	was, known := h.told[r.ID]
	if !known {
		if h.told == nil {
			h.told = map[string]told{}
		}
		h.order = append(h.order, r.ID)
		if len(h.order) > maxHistory {
			delete(h.told, h.order[0])
			h.order = h.order[1:]
		}
		if r.Review == reviewDone { // of before the last start: only the review is new
			was.status = r.Status
		}
	}
	h.told[r.ID] = told{r.Status, r.Review}
	var kinds []string
	if kind := typeOf[r.Status]; kind != "" && r.Status != was.status {
		kinds = append(kinds, kind)
	}
	if r.Review != "" && r.Review != was.review {
		kinds = append(kinds, eventReview)
	}
	return kinds
}
