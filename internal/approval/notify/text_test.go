package notify

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/approval"
)

func TestName(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "-",
		"ann@example.com":       "`ann@example.com`",
		"<!channel> & <@U1>":    "`&lt;!channel&gt; &amp; &lt;@U1&gt;`",
		"a`*b*":                 "`a\\u{60}*b*`",
		"a\nb\x00\u202ec":       "`a\\u{a}b\\u{0}\\u{202e}c`",
		"\xff\ufffd":            "`\\x{ff}\ufffd`",
		strings.Repeat("é", 81): "`" + strings.Repeat("é", 80) + "…`",
	} {
		if got := name(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestCode(t *testing.T) {
	for in, want := range map[string]string{
		"DELETE FROM a\n\tWHERE b < 1 && c": "```\nDELETE FROM a\n\tWHERE b &lt; 1 &amp;&amp; c\n```",
		"a```b":                             "```\na``\\u{60}b\n```",
		"``````":                            "```\n``\\u{60}``\\u{60}\n```",
		"x\u200b\u2066y\r":                  "```\nx\\u{200b}\\u{2066}y\\u{d}\n```",
	} {
		if got, rest := code(in); got != want || rest != 0 {
			t.Errorf("%q: got %q, %d; want %q", in, got, rest, want)
		}
	}
	if got, rest := code(strings.Repeat("ü", 310)); rest != 10 || strings.Count(got, "ü") != maxCode {
		t.Errorf("got %q, %d", got, rest)
	}
}

// fits checks the bounds of Slack for every block (docs.slack.dev, Block Kit).
func fits(t *testing.T, c *card) {
	t.Helper()
	raw, err := json.Marshal(c.blocks(strings.Repeat("A", 26)))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []struct {
		Type   string
		Text   *struct{ Text string }
		Fields []struct{ Text string }
	}
	if err := json.Unmarshal(raw, &blocks); err != nil {
		t.Fatal(err)
	}
	limit := map[string]int{"header": 150, "section": 3000}
	if len(blocks) > 50 {
		t.Errorf("%d blocks", len(blocks))
	}
	for _, b := range blocks {
		if b.Text != nil && (b.Text.Text == "" || utf8.RuneCountInString(b.Text.Text) > limit[b.Type]) {
			t.Errorf("a %s of %d characters", b.Type, utf8.RuneCountInString(b.Text.Text))
		}
		if len(b.Fields) > 10 {
			t.Errorf("%d fields", len(b.Fields))
		}
		for _, f := range b.Fields {
			if n := utf8.RuneCountInString(f.Text); n > 2000 || n == 0 {
				t.Errorf("a field of %d characters", n)
			}
		}
	}
	if n := utf8.RuneCountInString(c.summary); n > 2000 {
		t.Errorf("a summary of %d characters", n)
	}
	if n := len(c.form(true, strings.Repeat("A", 26)).Blocks.BlockSet); n > 100 {
		t.Errorf("a form of %d blocks", n)
	}
}

// worst is a request in which everything is s, very often.
func worst(s string) approval.Request {
	r := testRequest()
	many := make([]string, 300)
	for i := range many {
		many[i] = s
	}
	r.Requester, r.Backend, r.Protocol, r.Database, r.Rule, r.Digest, r.Ended = s, s, s, s, s, s, s
	r.Principal.Actor = &approval.Person{User: s}
	r.Broke = &approval.Broke{By: s, Reason: s}
	r.Action = approval.Action{Verbs: many, Resources: many, Text: s, Unrestricted: true}
	for range 300 {
		r.Actions = append(r.Actions, r.Action)
		r.Needed = append(r.Needed, approval.Needed{Groups: many, Count: 1})
		r.Decisions = append(r.Decisions, approval.Decision{User: s, Proof: s, Decided: approval.DecidedApproved})
	}
	return r
}

func TestCardIsBounded(t *testing.T) {
	for _, s := range []string{"a", "&", "\u202e", "\U000e0001", "`", "```", "\xff",
		strings.Repeat("&", 5000), strings.Repeat("\U000e0001", 5000), strings.Repeat("`", 5000), ""} {
		r := worst(s)
		for _, st := range []approval.Status{approval.Pending, approval.Approved, approval.Denied} {
			r.Status = st
			fits(t, newCard(&r, "https://weir.example.com"))
		}
	}
}

func FuzzCard(f *testing.F) {
	f.Add("DELETE FROM t -- ```\u202e<!here>")
	f.Fuzz(func(t *testing.T, s string) {
		r := worst(s)
		c := newCard(&r, "")
		fits(t, c)
		for _, x := range append(c.fields, append(c.sections, c.summary, c.footer)...) {
			for _, bad := range []string{"<!h", "<@", "<#", "<http", "\u202e", "\x00"} {
				if strings.Contains(x, bad) {
					t.Errorf("%q is in %q", bad, x)
				}
			}
		}
	})
}
