package mask

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// collect is an io.Writer that hands every Write on; pgconn writes the payload
// of each CopyData message in one.
type collect struct{ frames [][]byte }

func (c *collect) Write(p []byte) (int, error) {
	c.frames = append(c.frames, bytes.Clone(p))
	return len(p), nil
}

// feed sends frames through a masker the way that an engine does.
func feed(c *Copy, frames [][]byte) ([]byte, error) {
	var all []byte
	for _, f := range frames {
		out, changed, err := c.Append(nil, f)
		if err != nil {
			return all, err
		}
		if !changed {
			out = f
		}
		all = append(all, out...)
	}
	return c.Close(all)
}

// recut joins frames and cuts them anew, at random or at every byte.
func recut(frames [][]byte, r *rand.Rand, most int) [][]byte {
	all := bytes.Join(frames, nil)
	var out [][]byte
	for len(all) > 0 {
		n := min(len(all), 1+r.IntN(most))
		out, all = append(out, all[:n]), all[n:]
	}
	return out
}

// TestCopyFromServer takes a table that is hard to read through COPY in every
// format with many options, masked on the way, and loads the result into another
// table: the server must read there what the mask was to make of the original.
func TestCopyFromServer(t *testing.T) {
	srv := postgres.For(t, postgres.Config{})
	conn, err := pgconn.Connect(t.Context(), srv.URL(postgres.Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	exec := func(sql string) string {
		t.Helper()
		res, err := conn.Exec(t.Context(), sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		var b strings.Builder
		for _, row := range res[len(res)-1].Rows {
			fmt.Fprintf(&b, "%s\n", bytes.Join(row, []byte("|")))
		}
		return b.String()
	}
	exec(`CREATE TABLE src (id int, card text, note text, tags text[], doc jsonb, n bigint);
		INSERT INTO src VALUES
		(1, '4111 1111 1111 1111', E'tab\there, comma, "quote", \'apostrophe\', back\\slash\nnewline 5555555555554444', '{"a,b","4111111111111111",NULL}', '{"c": "4111111111111111", "d": [1, "x\"y"]}', 1),
		(2, NULL, NULL, NULL, NULL, NULL),
		(3, '', '\N', '{}', '[]', -1),
		(4, '378282246310005', '\.', '{"\\\\","\""}', '"ada@example.com"', 9223372036854775807),
		(5, E'\\.', '"', '{x}', '5555555555554444', 0),
		(6, E'\r\n\b\f\v', 'ada@example.com;|~', '{ada@example.com}', 'null', 0);
		INSERT INTO src SELECT 100 + i, 'c' || i, repeat('text ', i % 50), NULL, NULL, i FROM generate_series(1, 300) i;
		INSERT INTO src VALUES (7, '4222222222222', repeat('long ', 100000) || '4111111111111111', NULL, NULL, 0);
		CREATE TABLE dst (LIKE src);
		CREATE TABLE want (LIKE src);
		INSERT INTO want SELECT id, '[masked]', note, tags, doc, NULL FROM src WHERE card IS NOT NULL;
		INSERT INTO want SELECT * FROM src WHERE card IS NULL;
		UPDATE want SET note = replace(replace(replace(note, '5555555555554444', '************4444'), '4111111111111111', '************1111'), 'ada@example.com', 'a***@***.com'),
		  tags = replace(replace(tags::text, '4111111111111111', '************1111'), 'ada@example.com', 'a***@***.com')::text[],
		  doc = replace(replace(replace(doc::text, '4111111111111111', '************1111'), '5555555555554444', '"************4444"'), 'ada@example.com', 'a***@***.com')::jsonb;`)

	set := compile(t, Rule{PaymentCard, Last4}, Rule{EmailAddr, Email})
	columns := func(format int16) []*Column {
		return []*Column{
			NewColumn(Opaque, format, 0, nil, set), NewColumn(Text, format, Redact, nil, set), NewColumn(Text, format, 0, nil, set),
			NewColumn(TextArray, format, 0, nil, set), NewColumn(JSONB, format, 0, nil, set), NewColumn(Opaque, format, Null, nil, set),
		}
	}
	str := func(s string) *string { return &s }
	r := rand.New(rand.NewPCG(9, 10))
	for _, c := range []struct {
		options string
		f       CopyFormat
	}{
		{"", CopyFormat{}},
		{"DELIMITER '|', NULL '\\NONE', HEADER", CopyFormat{Delimiter: '|', Null: str(`\NONE`), Header: true}},
		{"DELIMITER 'M', NULL '\\Nix'", CopyFormat{Delimiter: 'M', Null: str(`\Nix`)}},
		{"FORMAT csv", CopyFormat{Format: "csv"}},
		{"FORMAT csv, HEADER, DELIMITER ';', NULL 'none'", CopyFormat{Format: "csv", Delimiter: ';', Null: str("none"), Header: true}},
		{`FORMAT csv, QUOTE '~', ESCAPE '\', FORCE_QUOTE *`, CopyFormat{Format: "csv", Quote: '~', Escape: '\\'}},
		{`FORMAT csv, ESCAPE '\', DELIMITER '*'`, CopyFormat{Format: "csv", Escape: '\\', Delimiter: '*'}},
		{"FORMAT binary", CopyFormat{Format: "binary"}},
	} {
		var w collect
		options := "(" + c.options + ")"
		if c.options == "" {
			options = ""
		}
		if _, err := conn.CopyTo(t.Context(), &w, "COPY src TO STDOUT "+options); err != nil {
			t.Fatal(err)
		}
		format := TextFormat
		if c.f.Format == "binary" {
			format = BinaryFormat
		}
		run := func(frames [][]byte) string {
			m, err := NewCopy(c.f, columns(format))
			if err != nil {
				t.Fatal(err)
			}
			out, err := feed(m, frames)
			if err != nil {
				t.Errorf("%s: %v", c.options, err)
			}
			return string(out)
		}
		if some := w.frames[:40]; run(some) != run(recut(some, r, 1)) {
			t.Errorf("%s: one byte a message gives another result", c.options)
		}
		for name, frames := range map[string][][]byte{
			"as sent": w.frames, "in pieces": recut(w.frames, r, 5000), "in one": {bytes.Join(w.frames, nil)},
		} {
			cols := columns(format)
			m, err := NewCopy(c.f, cols)
			if err != nil {
				t.Fatal(err)
			}
			masked, err := feed(m, frames)
			if err != nil {
				t.Errorf("%s, %s: %v", c.options, name, err)
				continue
			}
			if bytes.Contains(masked, []byte("4111111111111111")) || bytes.Contains(masked, []byte("ada@example.com")) || bytes.Contains(masked, []byte("378282246310005")) {
				t.Errorf("%s, %s: a value came through", c.options, name)
			}
			exec("TRUNCATE dst")
			if _, err := conn.CopyFrom(t.Context(), bytes.NewReader(masked), "COPY dst FROM STDIN "+options); err != nil {
				// FORCE_QUOTE is for TO only.
				from := strings.Replace(options, ", FORCE_QUOTE *", "", 1)
				if _, err = conn.CopyFrom(t.Context(), bytes.NewReader(masked), "COPY dst FROM STDIN "+from); err != nil {
					t.Errorf("%s, %s: the server does not read the result: %v", c.options, name, err)
					continue
				}
			}
			diff := exec("(SELECT 'missing', left(w::text, 300) FROM want w EXCEPT SELECT 'missing', left(d::text, 300) FROM dst d) UNION ALL (SELECT 'extra', left(d::text, 300) FROM dst d EXCEPT SELECT 'extra', left(w::text, 300) FROM want w)")
			if diff != "" {
				t.Errorf("%s, %s:\n%s", c.options, name, diff)
			}
			if got := exec("SELECT count(*), right((SELECT note FROM dst WHERE id = 7), 16) FROM dst"); got != "307|************1111\n" {
				t.Errorf("%s, %s: %s", c.options, name, got)
			}
			if cols[1].Masked != 306 || cols[5].Masked != 306 {
				t.Errorf("%s, %s: counted %d and %d", c.options, name, cols[1].Masked, cols[5].Masked)
			}
		}
	}
}

// TestCertainNull: whatever the server writes for a value may be the null marker of
// the next COPY, so that it must not be taken for a NULL.
func TestCertainNull(t *testing.T) {
	srv := postgres.For(t, postgres.Config{})
	conn, err := pgconn.Connect(t.Context(), srv.URL(postgres.Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, v := range []string{"", "x", "4111111111111111", `\N`, `\`, `\\`, "a\tb", "a\nb", "\b\f\r\v", "a|b", "|", "é", "N", "NULL", `"`, `\x`, "\x7f"} {
		for _, delimiter := range []string{"\t", "|", "N"} {
			var w collect
			sql := fmt.Sprintf("COPY (SELECT $weir$%s$weir$) TO STDOUT (DELIMITER $weir$%s$weir$, NULL 'weir')", v, delimiter)
			if _, err := conn.CopyTo(t.Context(), &w, sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			raw := bytes.TrimSuffix(bytes.Join(w.frames, nil), []byte("\n"))
			if certainNull(raw, delimiter[0]) {
				t.Errorf("the value %q is written as %q, which counts as a marker that no value has", v, raw)
			}
		}
	}
	for _, marker := range []string{`\N`, `\NONE`, "a\\", "a\tb", `\"`} {
		if !certainNull([]byte(marker), '|') {
			t.Errorf("marker %q: no value is written like it", marker)
		}
	}
}

func TestCopyErrors(t *testing.T) {
	set := compile(t, Rule{PaymentCard, Last4})
	text := func(n int) (cols []*Column) {
		for range n {
			cols = append(cols, NewColumn(Text, TextFormat, 0, nil, set))
		}
		return cols
	}
	bin := []*Column{NewColumn(Text, BinaryFormat, 0, nil, set)}
	long := strings.Repeat("x", MaxCopyRow/2+1)
	signature := copySignature + "\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		name   string
		f      CopyFormat
		cols   []*Column
		frames []string
		want   error
	}{
		{"too few fields", CopyFormat{}, text(2), []string{"a\n"}, ErrCopyData},
		{"too many fields", CopyFormat{}, text(1), []string{"a\tb\n"}, ErrCopyData},
		{"backslash at the end", CopyFormat{}, text(1), []string{"a\\\n"}, ErrCopyData},
		{"csv few", CopyFormat{Format: "csv"}, text(2), []string{"a\n"}, ErrCopyData},
		{"csv half quoted", CopyFormat{Format: "csv"}, text(1), []string{"a\"b\"\n"}, ErrCopyData},
		{"csv text after quotes", CopyFormat{Format: "csv"}, text(1), []string{"\"a\"b\n"}, ErrCopyData},
		{"csv open quote", CopyFormat{Format: "csv"}, text(1), []string{"\"a"}, ErrCopyData},
		{"long row", CopyFormat{}, text(1), []string{long, long}, ErrRowTooLong},
		{"no signature", CopyFormat{Format: "binary"}, bin, []string{strings.Repeat("x", 30)}, ErrCopyData},
		{"wrong number", CopyFormat{Format: "binary"}, bin, []string{signature + "\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00"}, ErrCopyData},
		{"bad length", CopyFormat{Format: "binary"}, bin, []string{signature + "\x00\x01\xff\xff\xff\xf0"}, ErrCopyData},
		{"cut", CopyFormat{Format: "binary"}, bin, []string{signature + "\x00\x01\x00\x00\x00\x09x"}, ErrCopyData},
		{"after the end", CopyFormat{Format: "binary"}, bin, []string{signature + "\xff\xff", "x"}, ErrCopyData},
	} {
		m, err := NewCopy(c.f, c.cols)
		if err != nil {
			t.Fatal(err)
		}
		var frames [][]byte
		for _, f := range c.frames {
			frames = append(frames, []byte(f))
		}
		if _, err := feed(m, frames); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := NewCopy(CopyFormat{Format: "parquet"}, nil); err == nil {
		t.Error("an unknown format was accepted")
	}
	if _, err := NewCopy(CopyFormat{}, bin); err == nil {
		t.Error("columns for another wire format were accepted")
	}
	// Nothing to mask: whatever it is, it passes untouched.
	m, err := NewCopy(CopyFormat{}, []*Column{NewColumn(Text, TextFormat, 0, nil, nil)})
	if err != nil {
		t.Fatal(err)
	}
	if _, changed, err := m.Append(nil, []byte("a\tb\\")); changed || err != nil {
		t.Error(changed, err)
	}
}

// TestCopyNulls: NULLs of a computed column, and null markers that a value may look
// like.
func TestCopyNulls(t *testing.T) {
	key := testKey(t)
	str := func(s string) *string { return &s }
	signature := copySignature + "\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		name     string
		f        CopyFormat
		class    Class
		m        Method
		hide     bool
		in, want string
		masked   int64
	}{
		{"text", CopyFormat{}, Text, Redact, false, "\\N\nx\n", "\\N\n[masked]\n", 1},
		{"text, hidden", CopyFormat{}, Text, Redact, true, "\\N\nx\n", "[masked]\n[masked]\n", 2},
		{"text, hidden last4", CopyFormat{}, Text, Last4, true, "\\N\n4111111111111111\n", "[masked]\n[masked]\n", 2},
		{"text, hidden, other delimiter", CopyFormat{Delimiter: 'm'}, Text, Redact, true, "\\N\n", "[\\masked]\n", 1},
		{"text, hidden json", CopyFormat{}, JSON, Redact, true, "\\N\n", "\"[masked]\"\n", 1},
		{"text, hidden number", CopyFormat{}, Opaque, Redact, true, "\\N\n5\n", "\\N\n\\N\n", 1},
		{"text, hidden null", CopyFormat{}, Text, Null, true, "\\N\nx\n", "\\N\n\\N\n", 1},
		{"text, a guess as marker", CopyFormat{Null: str("4111111111111111")}, Text, Redact, false, "4111111111111111\nx\n", "[masked]\n[masked]\n", 2},
		{"text, a guess as marker, last4", CopyFormat{Null: str("4111111111111111")}, Text, Last4, false, "4111111111111111\n", "************1111\n", 1},
		{"text, a guess as marker, hash", CopyFormat{Null: str("4111111111111111")}, Text, Hash, false, "4111111111111111\nx\n", "[masked]\n[masked]\n", 2},
		{"text, a guess as marker, token", CopyFormat{Null: str("guess")}, Text, Token, false, "guess\nx\n", "[masked]\n[masked]\n", 2},
		{"text, the empty text as marker", CopyFormat{Null: str("")}, Text, Redact, false, "\nx\n", "[masked]\n[masked]\n", 2},
		{"text, an escaped guess as marker", CopyFormat{Null: str(`a\\b`)}, Text, Redact, false, "a\\\\b\n", "[masked]\n", 1},
		{"text, a tab as marker", CopyFormat{Null: str(`a\t`)}, Text, Redact, false, "a\\t\n", "[masked]\n", 1},
		{"text, a marker that no value has", CopyFormat{Null: str(`\NULL`)}, Text, Redact, false, "\\NULL\nx\n", "\\NULL\n[masked]\n", 1},
		{"text, a guess as marker, null", CopyFormat{Null: str("guess")}, Text, Null, false, "guess\nx\n", "guess\nguess\n", 2},
		{"csv", CopyFormat{Format: "csv"}, Text, Redact, false, "\n\"\"\n", "\n\"[masked]\"\n", 1},
		{"csv, hidden", CopyFormat{Format: "csv"}, Text, Redact, true, "\nx\n", "\"[masked]\"\n\"[masked]\"\n", 2},
		{"csv, hidden, marker", CopyFormat{Format: "csv", Null: str("nix")}, Text, Redact, true, "nix\n\"nix\"\n", "\"[masked]\"\n\"[masked]\"\n", 2},
		{"csv, marker quoted is a value", CopyFormat{Format: "csv", Null: str("nix")}, Text, Hash, false, "nix\n", "nix\n", 0},
		{"binary", CopyFormat{Format: "binary"}, Text, Redact, false, signature + "\x00\x01\xff\xff\xff\xff\xff\xff", signature + "\x00\x01\xff\xff\xff\xff\xff\xff", 0},
		{"binary, hidden", CopyFormat{Format: "binary"}, Text, Redact, true, signature + "\x00\x01\xff\xff\xff\xff\xff\xff", signature + "\x00\x01\x00\x00\x00\x08[masked]\xff\xff", 1},
		{"binary, hidden jsonb", CopyFormat{Format: "binary"}, JSONB, Redact, true, signature + "\x00\x01\xff\xff\xff\xff\xff\xff", signature + "\x00\x01\x00\x00\x00\x0b\x01\"[masked]\"\xff\xff", 1},
	} {
		format := TextFormat
		if c.f.Format == "binary" {
			format = BinaryFormat
		}
		col := NewColumn(c.class, format, c.m, key, nil)
		if c.hide {
			col.HideNulls()
		}
		m, err := NewCopy(c.f, []*Column{col})
		if err != nil {
			t.Fatal(err)
		}
		got, err := feed(m, [][]byte{[]byte(c.in)})
		if err != nil || string(got) != c.want || col.Masked != c.masked {
			t.Errorf("%s: %q (%d), %v, want %q (%d)", c.name, got, col.Masked, err, c.want, c.masked)
		}
	}
}

// FuzzCopy: however the bytes are cut into messages, the result is the same.
func FuzzCopy(f *testing.F) {
	for _, s := range []string{"a\t4111111111111111\n\\N\tx\n", "a,\"4111 1111 1111 1111\"\n\"x\"\"y\",\n", copySignature + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01a\xff\xff\xff\xff\xff\xff"} {
		for format := range uint8(3) {
			f.Add([]byte(s), format, uint8(3))
		}
	}
	set := compile(f, Rule{PaymentCard, Last4})
	f.Fuzz(func(t *testing.T, data []byte, format, cut uint8) {
		name := []string{"text", "csv", "binary"}[format%3]
		run := func(frames [][]byte) ([]byte, error) {
			var cols []*Column
			for range 2 {
				wire := TextFormat
				if name == "binary" {
					wire = BinaryFormat
				}
				cols = append(cols, NewColumn(Text, wire, 0, nil, set))
			}
			m, err := NewCopy(CopyFormat{Format: name, Header: cut%2 == 0}, cols)
			if err != nil {
				t.Fatal(err)
			}
			return feed(m, frames)
		}
		var pieces [][]byte
		for i := 0; i < len(data); i += 1 + int(cut) {
			pieces = append(pieces, bytes.Clone(data[i:min(len(data), i+1+int(cut))]))
		}
		whole, errWhole := run([][]byte{data})
		parts, errParts := run(pieces)
		if (errWhole == nil) != (errParts == nil) || errWhole == nil && !bytes.Equal(whole, parts) {
			t.Fatalf("in one: %q, %v; in pieces: %q, %v", whole, errWhole, parts, errParts)
		}
	})
}
