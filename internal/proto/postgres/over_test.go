package postgres

import (
	"testing"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
)

// TestRowsBehindTheEnd: a flow is cut in the middle of a row that is held for
// masking; the rest of the row, which is on its way, does no harm.
func TestRowsBehindTheEnd(t *testing.T) {
	w := fakeWorld(t)
	w.setMasks(cards...)
	script := serverBytes("T card:20001:2 | D 4111 1111 1111 1111 | C SELECT 1 | Z I")
	for at := range script {
		withGate(t, w, func(g *session.Gate, grant session.Grant) {
			d := testEngine(t, w, g, grant)
			d.client(clientBytes("Q select card from shop.payments"))
			d.server(script[:at])
			d.engine.Goodbye(&session.Refusal{Reason: flow.ReasonRevoked, Message: "weir: over"}, &d.out)
			d.take()
			told := len(d.toClient)
			d.server(script[at:])
			if d.err != nil || len(d.toClient) != told {
				t.Errorf("cut at %d: %v, and %q behind the goodbye", at, d.err, d.toClient[told:])
			}
		})
	}
}
