package mask

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

func testKey(t testing.TB) *Key {
	t.Helper()
	key, err := NewKey([]byte(strings.Repeat("k", KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestMethods(t *testing.T) {
	key := testKey(t)
	for _, c := range []struct {
		m        Method
		in, want string
	}{
		{Last4, "4111 1111 1111 1111", "**** **** **** 1111"},
		{Last4, "4111-1111-1111-1234", "****-****-****-1234"},
		{Last4, "378282246310005", "***********0005"},
		{Last4, "GB82 WEST 1234 5698 7654 32", "**** **** **** **** **54 32"},
		{Last4, "1234", "****"}, {Last4, "12345", "*2345"}, {Last4, "", ""},
		{Last4, "Zoé +49 30", "*** +** **"}, {Last4, "\xe9\x31", "**"},
		{Email, "ada.moreno@example.com", "a***@***.com"},
		{Email, "é@example.co.uk", "é***@***.uk"},
		{Email, "\"x\"@example.com", Redacted}, {Email, "_x@example.c-m", "***@***"},
		{Email, "ada", Redacted}, {Email, "@x.com", Redacted}, {Email, "a@b@c.com", Redacted}, {Email, "a b@c.com", Redacted}, {Email, "a@.com", Redacted},
		{Redact, "secret", Redacted}, {Redact, "", Redacted},
	} {
		if got := string(appendText(nil, c.m, []byte(c.in), key)); got != c.want {
			t.Errorf("%v %q: %q, want %q", c.m, c.in, got, c.want)
		}
	}
	if m, err := ParseMethod("last4"); err != nil || m != Last4 {
		t.Error(m, err)
	}
	for _, bad := range []string{"", "LAST4", "mask"} {
		if _, err := ParseMethod(bad); err == nil {
			t.Errorf("method %q was accepted", bad)
		}
	}
	if Strictest(Last4, Redact) != Redact || Strictest(Null, Hash) != Null || Strictest(0, Email) != Email {
		t.Error("the order of strictness is wrong")
	}
}

func TestKey(t *testing.T) {
	key, same := testKey(t), testKey(t)
	other, err := NewKey(bytes.Repeat([]byte{1}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	v := []byte("4111 1111 1111 1111")
	hash := string(key.appendHash(nil, v))
	if len(hash) != 32 || hash != string(same.appendHash(nil, v)) || hash == string(other.appendHash(nil, v)) {
		t.Errorf("hash %q", hash)
	}
	token := string(key.appendToken(nil, v))
	if token != string(same.appendToken(nil, v)) || token == string(other.appendToken(nil, v)) || !strings.HasPrefix(token, tokenPrefix) {
		t.Errorf("token %q", token)
	}
	if got, err := same.Reveal(token); err != nil || string(got) != string(v) {
		t.Errorf("Reveal: %q, %v", got, err)
	}
	for _, bad := range []string{token[1:], token[:len(token)-1] + "!", "tok_", "tok_AAAA"} {
		if got, err := key.Reveal(bad); err == nil {
			t.Errorf("Reveal(%q) gave %q", bad, got)
		}
	}
	if _, err := other.Reveal(token); err == nil || strings.Contains(err.Error(), token) {
		t.Errorf("another key: %v", err)
	}
	if _, err := NewKey(make([]byte, 32)); err == nil {
		t.Error("a key of 32 bytes was accepted")
	}
}

func TestColumn(t *testing.T) {
	key := testKey(t)
	const null = "\x00NULL"
	jsonb := func(s string) string { return "\x01" + s }
	for _, c := range []struct {
		class    Class
		format   int16
		m        Method
		in, want string
	}{
		{Text, 0, Last4, "4111111111111111", "************1111"},
		{Text, 1, Redact, "x", Redacted},
		{Text, 0, Null, "x", null},
		{Char, 0, Redact, "x", "*"}, {Char, 1, Hash, "x", null},
		{JSON, 0, Redact, `{"a":1}`, `"[masked]"`}, {JSON, 0, Last4, `{"a":4111}`, `"[masked]"`},
		{JSON, 0, Last4, ` "4111111111111111" `, `"************1111"`}, {JSON, 0, Last4, `4111111111111111`, `"************1111"`},
		{JSON, 0, Last4, `"a\"4111111111111111"`, `"[masked]"`}, {JSON, 0, Email, `"ada@example.com"`, `"a***@***.com"`},
		{JSONB, 0, Redact, `1`, `"[masked]"`}, {JSONB, 1, Redact, jsonb(`1`), jsonb(`"[masked]"`)}, {JSONB, 1, Redact, ``, jsonb(`"[masked]"`)}, {JSONB, 1, Last4, `1`, null}, {JSONB, 1, Hash, ``, null},
		{XML, 0, Last4, "<a>4111111111111111</a>", Redacted},
		{Opaque, 0, Redact, "42", null}, {Opaque, 1, Last4, "\x00\x00\x00\x2a", null},
		{TextArray, 0, Redact, "{a}", null}, {Record, 0, Hash, "(a)", null}, {Unknown, 0, Token, "x", null},
		{Text, 7, Redact, "x", null},
	} {
		col := NewColumn(c.class, c.format, c.m, key, nil)
		out, r := col.AppendMasked([]byte("#"), []byte(c.in))
		got := string(out[1:])
		if r == IsNull {
			got += null
		}
		if got != c.want || col.Masked != 1 || col.Idle() {
			t.Errorf("class %d format %d %v of %q: %q (%d), want %q", c.class, c.format, c.m, c.in, got, r, c.want)
		}
	}
	// Hash and Token give valid JSON too, and without a key nothing is shown.
	for _, m := range []Method{Hash, Token} {
		out, _ := NewColumn(JSON, 0, m, key, nil).AppendMasked(nil, []byte(`{"a":"b"}`))
		if !json.Valid(out) {
			t.Errorf("%v: %s is no JSON", m, out)
		}
		if out, _ := NewColumn(Text, 0, m, nil, nil).AppendMasked(nil, []byte("x")); string(out) != Redacted {
			t.Errorf("%v without a key: %q", m, out)
		}
	}
}

// TestNulls: in a computed column a NULL looks like every value, whatever the method
// is; elsewhere it stays.
func TestNulls(t *testing.T) {
	key := testKey(t)
	samples := map[Class]string{JSON: `"a"`, JSONB: `"a"`, Char: "x"}
	for class := range Class(255) {
		for _, format := range []int16{TextFormat, BinaryFormat, 7} {
			for m := Method(0); m <= Null; m++ {
				v := []byte(samples[class])
				if class == JSONB && format == BinaryFormat {
					v = append([]byte{jsonbVersion}, v...)
				}
				plain := NewColumn(class, format, m, key, nil)
				if out, r := plain.AppendNull([]byte("#")); r != Unchanged || string(out) != "#" || plain.Masked != 0 {
					t.Errorf("class %d, %v: a NULL became %q", class, m, out)
				}
				col := NewColumn(class, format, m, key, nil)
				col.HideNulls()
				masked, mr := col.AppendMasked([]byte("#"), v)
				null, nr := col.AppendNull([]byte("#"))
				if mr == IsNull {
					mr = Unchanged // both are NULL
				}
				if string(masked) != string(null) || mr != nr {
					t.Errorf("class %d, format %d, %v: a value becomes %q (%d), a NULL %q (%d)", class, format, m, masked, mr, null, nr)
				}
				if want := int64(1) + int64(nr); m != 0 && col.Masked != want {
					t.Errorf("class %d, format %d, %v: counted %d, want %d", class, format, m, col.Masked, want)
				}
			}
		}
	}
	for _, c := range []struct {
		class  Class
		format int16
		want   string
	}{{Text, 0, Redacted}, {Text, 1, Redacted}, {XML, 0, Redacted}, {Char, 1, "*"}, {JSON, 1, `"[masked]"`}, {JSONB, 0, `"[masked]"`}, {JSONB, 1, "\x01\"[masked]\""}} {
		col := NewColumn(c.class, c.format, Redact, nil, nil)
		col.HideNulls()
		if out, r := col.AppendNull(nil); string(out) != c.want || r != Changed {
			t.Errorf("class %d, format %d: %q (%d), want %q", c.class, c.format, out, r, c.want)
		}
	}
}

func TestDetectInColumn(t *testing.T) {
	const null = "\x00NULL"
	set := compile(t, Rule{PaymentCard, Last4}, Rule{EmailAddr, Email}, Rule{"anchored", Redact}, Rule{Secret, Null})
	for _, c := range []struct {
		name     string
		class    Class
		in, want string // want "" means unchanged
		hits     int64
	}{
		{"text", Text, "paid with 4111 1111 1111 1111 by ada@example.com", "paid with **** **** **** 1111 by a***@***.com", 2},
		{"nothing", Text, "kettle, lamp and notebook", "", 0},
		{"null method", Text, "key AKIAIOSFODNN7EXAMPLE", null, 1},
		{"xml", XML, "<c>4111111111111111</c>", "<c>************1111</c>", 1},
		{"json string", JSON, `{"card": "4111 1111 1111 1111", "n": 1}`, `{"card": "**** **** **** 1111", "n": 1}`, 1},
		{"json number", JSON, `{"card":4111111111111111}`, `{"card":"************1111"}`, 1},
		{"json escape", JSON, `{"m":"x\n\"ada\u0040example.com\""}`, `{"m":"x\u000a\"a***@***.com\""}`, 1},
		{"json surrogates", JSON, `"\ud83d\ude00 ada@example.com"`, `"😀 a***@***.com"`, 1},
		{"json key", JSON, `{"ada@example.com":true}`, `{"a***@***.com":true}`, 1},
		{"json anchored", JSON, `["ABC123", "xABC123"]`, `["[masked]", "xABC123"]`, 1},
		{"json clean escape", JSON, `{"a":"b\\c\u00e9"}`, "", 0},
		{"json broken", JSON, `{"a":"\u00`, null, 0},
		{"jsonb", JSONB, `{"card": "4111111111111111"}`, `{"card": "************1111"}`, 1},
		{"array", TextArray, `{"4111 1111 1111 1111",ada@example.com,NULL,"a\"b"}`, `{"**** **** **** 1111","a***@***.com",NULL,"a\"b"}`, 2},
		{"array escape", TextArray, `{"\"ada@example.com\\"}`, `{"\"a***@***.com\\"}`, 1},
		{"array anchored", TextArray, `[0:1]={ABC123,x}`, `[0:1]={"[masked]",x}`, 1},
		{"array clean", TextArray, `{{a,b},{"c d",NULL}}`, "", 0},
		{"record", Record, `(1,4111111111111111,"say ""ada@example.com""",)`, `(1,,"say \"a***@***.com\"",)`, 2},
		{"unknown", Unknown, `"a"=>"ada@example.com"`, null, 1},
		{"unknown clean", Unknown, `"a"=>"b"`, "", 0},
		{"opaque", Opaque, `4111111111111111`, "", 0},
	} {
		col := NewColumn(c.class, TextFormat, 0, nil, set)
		out, r := col.AppendMasked([]byte("#"), []byte(c.in))
		got, want := string(out[1:]), c.want
		switch r {
		case IsNull:
			got += null
		case Changed:
			if (c.class == JSON || c.class == JSONB) && !json.Valid(out[1:]) {
				t.Errorf("%s: %s is no JSON", c.name, got)
			}
		}
		if (r == Unchanged) != (want == "") || got != want {
			t.Errorf("%s: %q (%d), want %q", c.name, got, r, want)
		}
		var hits int64
		for _, n := range col.Hits {
			hits += n
		}
		if hits != c.hits {
			t.Errorf("%s: %d hits, want %d", c.name, hits, c.hits)
		}
	}
}

func TestBinaryStructures(t *testing.T) {
	set := compile(t, Rule{PaymentCard, Last4}, Rule{Secret, Null})
	elem := func(s string) string {
		if s == "NULL" {
			return "\xff\xff\xff\xff"
		}
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s
	}
	be := func(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }
	array := func(flags uint32, elems ...string) string {
		s := be(1) + be(flags) + be(25) + be(uint32(len(elems))) + be(1)
		for _, e := range elems {
			s += elem(e)
		}
		return s
	}
	run := func(class Class, in string) (string, Result) {
		out, r := NewColumn(class, BinaryFormat, 0, nil, set).AppendMasked(nil, []byte(in))
		return string(out), r
	}
	for _, c := range []struct{ in, want string }{
		{array(0, "4111111111111111", "x"), array(0, "************1111", "x")},
		{array(1, "NULL", "4111111111111111"), array(1, "NULL", "************1111")},
		{array(0, "AKIAIOSFODNN7EXAMPLE", "y"), array(1, "NULL", "y")},
	} {
		if got, r := run(TextArray, c.in); got != c.want || r != Changed {
			t.Errorf("%q: %q (%d), want %q", c.in, got, r, c.want)
		}
	}
	if _, r := run(TextArray, array(0, "x", "yy")); r != Unchanged {
		t.Error("a clean array was changed")
	}
	record := be(3) + be(25) + elem("4111111111111111") + be(23) + elem("\x00\x00\x00\x07") + be(2249) + elem(be(1)+be(25)+elem("4111111111111111"))
	want := be(3) + be(25) + elem("************1111") + be(23) + elem("\x00\x00\x00\x07") + be(2249) + elem(be(1)+be(25)+elem("************1111"))
	if got, r := run(Record, record); got != want || r != Changed {
		t.Errorf("record: %q (%d)", got, r)
	}
	if got, r := run(JSONB, "\x01{\"a\": 4111111111111111}"); got != "\x01{\"a\": \"************1111\"}" || r != Changed {
		t.Errorf("jsonb: %q (%d)", got, r)
	}
	if _, r := run(JSONB, "\x02{}4111111111111111"); r != IsNull {
		t.Error("jsonb of another version was let through")
	}
	// Every cut and a record that holds itself end in NULL or unchanged, never in
	// a value with the card in it.
	for n := range len(record) {
		if got, r := run(Record, record[:n]); r == Changed || r == Unchanged && strings.Contains(got, "4111") {
			t.Errorf("cut at %d: %q (%d)", n, got, r)
		}
	}
	nested := be(1) + be(25) + elem("4111111111111111")
	for range 2 * maxDepth {
		nested = be(1) + be(2249) + elem(nested)
	}
	if got, _ := run(Record, nested); strings.Contains(got, "4111111111111111") {
		t.Error("a deep record kept its card")
	}
}

// FuzzColumn feeds hostile values to every class: no panic, and what is changed
// holds no card any more.
func FuzzColumn(f *testing.F) {
	for _, s := range []string{`{"a":"4111111111111111"}`, `{"4111111111111111",x}`, "(4111111111111111,\"\"\"\")", "\x01{}", "\x00\x00\x00\x01", `"\u0040\ud83d`} {
		f.Add([]byte(s), uint8(3), true)
		f.Add([]byte(s), uint8(7), false)
	}
	set := compile(f, Rule{PaymentCard, Redact}, Rule{EmailAddr, Email}, Rule{Secret, Null}, Rule{"anchored", Hash})
	card := compile(f, Rule{PaymentCard, Redact})
	f.Fuzz(func(t *testing.T, v []byte, class uint8, bin bool) {
		format := TextFormat
		if bin {
			format = BinaryFormat
		}
		cls := Class(class)
		col := NewColumn(cls, format, 0, nil, set)
		before := bytes.Clone(v)
		out, r := col.AppendMasked([]byte("prefix"), v)
		if !bytes.Equal(before, v) || !bytes.HasPrefix(out, []byte("prefix")) {
			t.Fatal("the input or the destination was overwritten")
		}
		if r != Changed && len(out) != len("prefix") {
			t.Fatalf("result %d with output", r)
		}
		if cls == Text && r == Changed && len(card.Scan(nil, out[6:])) > 0 {
			// Masking may join what stood apart only where nothing was found before.
			if len(card.Scan(nil, v)) == 0 {
				t.Fatalf("a card came into being: %q", out)
			}
		}
		if (cls == JSON || cls == JSONB && !bin) && r == Changed && json.Valid(v) && !json.Valid(out[6:]) {
			t.Fatalf("%q became %q, which is no JSON", v, out[6:])
		}
		for m := Last4; m <= Null; m++ {
			whole := NewColumn(cls, format, m, nil, nil)
			if out, r := whole.AppendMasked(nil, v); r == Unchanged || cls == JSON && r == Changed && !json.Valid(out) {
				t.Fatalf("%v of %q: %q (%d)", m, v, out, r)
			}
		}
	})
}

func TestJSONStaysValid(t *testing.T) {
	set := compile(t, Rule{PaymentCard, Last4}, Rule{EmailAddr, Email}, Rule{Phone, Redact})
	r := rand.New(rand.NewPCG(7, 8))
	changed := 0
	for range 5000 {
		doc := map[string]any{randomValue(r): randomValue(r), "n": r.Int64(), "f": r.Float64(), "a": []any{randomValue(r), nil, true, 4111111111111111}}
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		out, res := NewColumn(JSON, 0, 0, nil, set).AppendMasked(nil, b)
		if res != Changed {
			continue
		}
		changed++
		if !json.Valid(out) {
			t.Fatalf("%s became %s", b, out)
		}
	}
	if changed != 5000 {
		t.Errorf("only %d of 5000 documents with a card were changed", changed)
	}
}

func TestMessages(t *testing.T) {
	for _, c := range []struct{ msg, sqlstate, object, want string }{
		{`invalid input syntax for type integer: "4111 1111 1111 1111"`, "22P02", "", Withheld + " (22P02 invalid_text_representation)"},
		{`operator does not exist: dhiciccegdbaaaf`, "42883", "", Withheld + " (42883 undefined_function)"},
		{`SECRET is not a valid encoding name`, "42704", "", Withheld + " (42704 undefined_object)"},
		{`duplicate key`, "23505", `constraint "x"`, Withheld + ` (23505 unique_violation, constraint "x")`},
		{`something of an extension`, "22ZZZ", "", Withheld + " (22ZZZ data exception)"},
		{`something of an extension`, "ZZ001", "", Withheld + " (ZZ001)"},
		{`a code that is none`, "4111-", "", Withheld},
		{`a code that is none`, "", `constraint "x"`, Withheld + ` (constraint "x")`},
		{`canceling statement due to statement timeout`, "57014", "", `canceling statement due to statement timeout`},
		{`division by zero`, "22012", "", `division by zero`},
		{`division by zero: 4111`, "22012", "", Withheld + " (22012 division_by_zero)"},
	} {
		if got := string(RedactMessage([]byte("x"), []byte(c.msg), c.sqlstate, c.object)); got != "x"+c.want {
			t.Errorf("%s: %s, want %s", c.msg, got, c.want)
		}
	}
	set := compile(t, Rule{PaymentCard, Null}, Rule{EmailAddr, Email})
	hits := make([]int64, 2)
	if got := string(set.AppendMessage(nil, []byte("card 4111111111111111 of ada@example.com"), hits)); got != "card [masked] of a***@***.com" || hits[0] != 1 || hits[1] != 1 {
		t.Error(got, hits)
	}
}

func TestSafeEncoding(t *testing.T) {
	for name, want := range map[string]bool{"UTF8": true, "utf-8": true, "LATIN1": true, "EUC_JP": true, "SQL_ASCII": true, "SJIS": false, "Shift_JIS": false, "gbk": false, "GB18030": false, "": false} {
		if SafeEncoding(name) != want {
			t.Errorf("%q: %v, want %v", name, !want, want)
		}
	}
}
