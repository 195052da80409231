package bypass

import "testing"

func TestSmoke(t *testing.T) {
	c := connect(t, "ann")
	all := c.query("SELECT id, card_number FROM shop.payments")
	t.Log(show(all))
	if l := leaks(c.seen); l != "" {
		t.Fatal(l)
	}
}
