package policy

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no string // parted by spaces
	}{
		{"shop.orders", "shop.orders", "shop.order shop.orders2 shopxorders shop.orders.x orders"},
		{"shop.*", "shop.orders shop.", "shop shop.a.b xshop.a"},
		{"*.orders", "shop.orders .orders", "a.b.orders orders"},
		{"shop.**", "shop.a shop.a.b shop.", "shop shopa"},
		{"**.tax_no", "a.b.tax_no b.tax_no", "tax_no a.b.tax_nos"},
		{"a*c*e.x", "abcde.x ace.x", "abcd.x ab.cde.x"},
		{"**a*b.c", "xaxb.c a.ab.c ab.c", "a.b.c"},
		{`"a.b".c`, `"a.b".c`, "a.b.c"},
		{`shop."Big*"`, `shop."Big*" shop.Big*`, `shop."Bigger" shop.Bigger`},
		{`shop.big\*`, "shop.big*", "shop.bigger"},
		{`"a""b".c`, `"a""b".c`, "ab.c"},
		{"*.*", `shop.orders "a.b".c`, "a a.b.c"},
		{"**", "a a.b", ""},
	} {
		g, err := NewGlob(c.pattern)
		if err != nil {
			t.Fatalf("%s: %v", c.pattern, err)
		}
		for _, n := range strings.Fields(c.yes) {
			if !g.Match(n) {
				t.Errorf("%s does not match %s", c.pattern, n)
			}
		}
		for _, n := range strings.Fields(c.no) {
			if g.Match(n) {
				t.Errorf("%s matches %s", c.pattern, n)
			}
		}
	}
	g, _ := NewGlob("shop.*.card_number")
	if !g.MatchParts("shop", "pay.ments", "card_number") || g.MatchParts("shop", "payments", "x", "card_number") || g.MatchParts("shop.x", "card_number") {
		t.Error("MatchParts is wrong")
	}
	for _, bad := range []string{"", `"a.b`, "a***", `a\b`, `a\`, "a\x00b", strings.Repeat("a", maxGlobBytes+1), strings.Repeat("*a", maxGlobStars+1)} {
		if _, err := NewGlob(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// slowMatch is the meaning of a pattern, written as it reads.
func slowMatch(ops []op, name string, ends *[256]bool) bool {
	if len(ops) == 0 {
		return name == ""
	}
	switch o := ops[0]; o.kind {
	case opStar, opStars:
		for i := 0; ; i++ {
			if slowMatch(ops[1:], name[i:], ends) {
				return true
			}
			if i == len(name) || o.kind == opStar && ends[name[i]] {
				return false
			}
		}
	case opSep:
		return name != "" && ends[name[0]] && (name[0] == o.b || name[0] == partSep) && slowMatch(ops[1:], name[1:], ends)
	default:
		return name != "" && name[0] == o.b && !ends[name[0]] && slowMatch(ops[1:], name[1:], ends)
	}
}

func compareGlob(t *testing.T, pattern, name string) {
	for _, ends := range []*[256]bool{dotEnds, pathEnds, plainEnds, commandEnds} {
		ops, err := compileGlob(pattern, ends, ends == dotEnds)
		if err != nil {
			return
		}
		want := slowMatch(ops, name, ends)
		if got := matchOps(ops, name, ends); got != want {
			t.Fatalf("%q on %q: %v, want %v", pattern, name, got, want)
		}
		if got := matchStates(ops, name, ends); got != want {
			t.Fatalf("states: %q on %q: %v, want %v", pattern, name, got, want)
		}
		if want && !coversOps(ops, ops) {
			t.Fatalf("%q does not cover itself", pattern)
		}
	}
}

func TestGlobAgainstReference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func(chars string, n int) string {
		var b strings.Builder
		for range r.IntN(n) {
			b.WriteByte(chars[r.IntN(len(chars))])
		}
		return b.String()
	}
	for range 200_000 {
		compareGlob(t, strings.ReplaceAll(word("ab.*S", 9), "S", "**"), word("ab.", 9))
	}
}

// What a pattern covers by coversOps it matches wherever the other does.
func TestGlobCovers(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	word := func(chars string, n int) string {
		var b strings.Builder
		for range 1 + r.IntN(n) {
			b.WriteByte(chars[r.IntN(len(chars))])
		}
		return b.String()
	}
	covered := 0
	for range 50_000 {
		wide, err1 := compileGlob(strings.ReplaceAll(word("a.*S", 5), "S", "**"), dotEnds, true)
		narrow, err2 := compileGlob(strings.ReplaceAll(word("ab.*", 5), "S", "**"), dotEnds, true)
		if err1 != nil || err2 != nil || !coversOps(wide, narrow) {
			continue
		}
		covered++
		for range 20 {
			if name := word("ab.", 6); matchOps(narrow, name, dotEnds) && !matchOps(wide, name, dotEnds) {
				t.Fatalf("%v covers %v and does not match %q", wide, narrow, name)
			}
		}
	}
	if covered < 100 {
		t.Fatal("too few cases")
	}
}

// Two patterns meet when a name is matched by both: all short names are tried.
func TestGlobMeets(t *testing.T) {
	names := []string{""}
	for i := 0; len(names[i]) < 5; i++ {
		for _, c := range "ab." {
			names = append(names, names[i]+string(c))
		}
	}
	r := rand.New(rand.NewPCG(7, 8))
	word := func() string {
		var b strings.Builder
		for range 1 + r.IntN(4) {
			b.WriteByte("ab.*S"[r.IntN(5)])
		}
		return strings.ReplaceAll(b.String(), "S", "**")
	}
	met := 0
	for range 3000 {
		x, y := word(), word()
		a, err1 := compileGlob(x, dotEnds, true)
		b, err2 := compileGlob(y, dotEnds, true)
		if err1 != nil || err2 != nil {
			continue
		}
		want := slices.ContainsFunc(names, func(n string) bool { return matchOps(a, n, dotEnds) && matchOps(b, n, dotEnds) })
		if got := meetOps(a, b); got != want {
			// A name in common may be longer than those that were tried.
			if !got || len(x)+len(y) <= 5 {
				t.Fatalf("%q and %q: %v, want %v", x, y, got, want)
			}
		}
		if want {
			met++
		}
	}
	if met < 300 {
		t.Fatal("too few cases")
	}
}

// A hostile name costs no more than its length times the pattern's.
func TestGlobHostileName(t *testing.T) {
	g, err := NewGlob("**a*b**a*b.c*d")
	if err != nil {
		t.Fatal(err)
	}
	if g.Match(strings.Repeat("a", maxResource)) || g.Match(strings.Repeat("ab.", maxResource/3)) {
		t.Error("it matches")
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("shop.*", "shop.orders")
	f.Add("**a*b.c", "aab.ab.c")
	f.Add(`"a.b".c*`, "a.b.c")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 12 || len(name) > 16 {
			return // the reference is exponential
		}
		compareGlob(t, pattern, name)
		if g, err := NewGlob(pattern); err == nil {
			g.Match(name)
		}
	})
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{"shop.*", "database:*", "/a/**", "ls -l *", "h:22", "[::1]:*", `function:"a.b".c`, "**", "login:"} {
		f.Add(s, "shop.orders", uint8(0))
	}
	f.Fuzz(func(t *testing.T, text, resource string, n uint8) {
		p, err := newPattern(text)
		if err != nil {
			return
		}
		verbs := []string{"connect", "select", "exec", "sftp_read", "forward_local", "get", "call", "drop", "unknown"}
		verb := verbs[int(n)%len(verbs)]
		for _, protocol := range append(allProtocols, "") {
			r := &rule{patterns: []*pattern{p}, speaks: p.forms}
			for _, r.effect = range []flow.Verdict{flow.Allow, flow.Deny} {
				target := newTarget(protocol, &flow.Access{Verb: flow.Verb(verb), Resource: resource})
				r.matchesResource(&target)
			}
		}
	})
}
