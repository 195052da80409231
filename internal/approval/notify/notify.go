// Package notify tells people about approval requests where they are: by signed
// webhooks, and by messages in Slack whose buttons decide. It only brings words there
// and back: package approval alone says what counts. An outage of a receiver blocks
// nothing, every queue and text has a bound, and nothing that others wrote is shown
// other than escaped.
package notify

import "github.com/weirproxy/weir/internal/approval"

var (
	_ approval.Notifier = (*Webhook)(nil)
	_ approval.Notifier = (*Slack)(nil)
)

// over reports whether a request has ended, and whatever review it wanted has too.
func over(r *approval.Request) bool {
	return r.Status != approval.Pending && r.Status != approval.Approved && r.Review != reviewOpen
}
