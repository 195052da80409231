package console

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNothingIsHidden(t *testing.T) {
	for text, want := range map[string][]piece{
		"":                                  nil,
		"SELECT 1\n\tFROM a":                {{"", "SELECT 1\n\tFROM a"}},
		"a\r\nb":                            {{"", "a\nb"}},
		"a\rb":                              {{"", "a"}, {"hidden", "U+000D"}, {"", "b"}},
		"a\u202eb":                          {{"", "a"}, {"hidden", "U+202E"}, {"", "b"}},
		"a\u200b\u200b\u200bb":              {{"", "a"}, {"hidden", "U+200B × 3"}, {"", "b"}},
		"\x00\xffx\ufffd":                   {{"hidden", "U+0000"}, {"hidden", "byte FF"}, {"", "x\ufffd"}},
		"a\u00a0b\u3000":                    {{"", "a"}, {"hidden", "U+00A0"}, {"", "b"}, {"hidden", "U+3000"}},
		"\u3164\u115f\u2800\ufe0f":          {{"hidden", "U+3164"}, {"hidden", "U+115F"}, {"hidden", "U+2800"}, {"hidden", "U+FE0F"}},
		"\U000e0041\ue000":                  {{"hidden", "U+E0041"}, {"hidden", "U+E000"}},
		"e\u0301\u0301\u0301\u0301":         {{"", "e\u0301\u0301\u0301"}, {"hidden", "U+0301"}},
		"Zoë Žižek größer":                  {{"", "Zoë Žižek größer"}},
		"shop.оrders":                       {{"", "shop."}, {"odd", "о"}, {"", "rders"}},
		"заказы = 'Ελλάδα' аb":              {{"", "заказы = 'Ελλάδα' "}, {"odd", "а"}, {"", "b"}},
		"id\uff21":                          {{"", "id"}, {"odd", "\uff21"}},
		"a" + strings.Repeat(" ", 41) + "b": {{"", "a"}, {"folded", "41 blanks"}, {"", "b"}},
		"a" + strings.Repeat(" ", 40) + "b": {{"", "a" + strings.Repeat(" ", 40) + "b"}},
		"a\n\n\n\nb":                        {{"", "a\n\n\n\nb"}},
		"a\n \n\t\n\n\n  b":                 {{"", "a"}, {"folded", "4 empty lines"}, {"", "\n  b"}},
		"a" + strings.Repeat("\n", 5000) + "DROP":      {{"", "a"}, {"folded", "4999 empty lines"}, {"", "\nDROP"}},
		"a\n" + strings.Repeat(" ", 9000) + "; DROP x": {{"", "a\n"}, {"folded", "9000 blanks"}, {"", "; DROP x"}},
	} {
		if diff := cmp.Diff(want, code(text)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
	if diff := cmp.Diff([]piece{{"", "a"}, {"hidden", "U+000A"}, {"hidden", "U+0009"}, {"", "b"}}, line("a\n\tb")); diff != "" {
		t.Error(diff)
	}
}

// FuzzCode: whatever the text is, what is shown holds nothing that does not show, and all
// of what does.
func FuzzCode(f *testing.F) {
	f.Add("DELETE FROM a -- \u202e\n\n\n\n\n\n'x'\xc3(")
	f.Fuzz(func(t *testing.T, s string) {
		shown := ""
		for _, p := range code(s) {
			for _, r := range p.Text {
				if hides(r) && r != '\n' && r != '\t' {
					t.Fatalf("%q shows %U", s, r)
				}
			}
			if p.Kind == plainPiece || p.Kind == oddPiece {
				shown += p.Text
			}
		}
		letters := func(s string) string {
			return strings.Map(func(r rune) rune {
				if r < '!' || r > '~' {
					return -1
				}
				return r
			}, s)
		}
		if letters(s) != letters(shown) {
			t.Fatalf("%q is shown as %q", s, shown)
		}
	})
}

func TestWords(t *testing.T) {
	if s := short("  a\n b   c", 3); s != "a b…" {
		t.Errorf("%q", s)
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1\u202f000", 1204331: "1\u202f204\u202f331", -1234: "-1\u202f234"} {
		if s := grouped(n); s != want {
			t.Errorf("%d: %q", n, s)
		}
	}
	for s, want := range map[string]string{"5m0s": "5 min", "1h0m5s": "1 h", "26h30m0s": "1 d 2 h", "0s": "0 s", "9m12s": "9 min 12 s"} {
		if got := spoken(mustDuration(t, s)); got != want {
			t.Errorf("%s: %q", s, got)
		}
	}
	if s := sentence("weir: nobody decides"); s != "Nobody decides." {
		t.Errorf("%q", s)
	}
}
