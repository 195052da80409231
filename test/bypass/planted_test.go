package bypass

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// plant is a value behind a mask.
type plant struct {
	name   string
	values [2]string // in vault_l and in vault_r
}

// sides are the two databases that differ in nothing but the planted values.
var sides = [2]string{"vault_l", "vault_r"}

func readPlants() ([]plant, error) {
	b, err := os.ReadFile(filepath.Join("corpus", "planted.txt"))
	if err != nil {
		return nil, err
	}
	var all []plant
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] != "#" {
			all = append(all, plant{f[0], [2]string{strings.ReplaceAll(f[1], "_", " "), strings.ReplaceAll(f[2], "_", " ")}})
		}
	}
	return all, nil
}

// fill puts the values of one side into a script.
func fill(script string, plants []plant, side int, more ...string) string {
	for _, p := range plants {
		more = append(more, "{"+p.name+"}", p.values[side])
	}
	return strings.NewReplacer(more...).Replace(script)
}

// run5 is how many characters of a planted value in a row are a leak.
const run5 = 5

// shownTail is how much of the end of a value its mask may show: the last four digits.
const shownTail = 4

// detector finds planted values in what a client was sent, in any of the forms that
// spies know.
type detector struct {
	runs   map[string]string // five characters -> what they are from
	base64 map[string]string // six characters of base64 -> what they are from
	raw    map[string]string // values as the binary format has them
	shapes map[string]string // which characters of a value are the same
	names  map[int]bool      // lengths of shapes
}

func newDetector(plants []plant) *detector {
	d := &detector{runs: map[string]string{}, base64: map[string]string{}, raw: map[string]string{}, shapes: map[string]string{}, names: map[int]bool{}}
	for _, p := range plants {
		for _, v := range p.values {
			d.add(p.name, v)
		}
	}
	return d
}

// add knows a value. Of the shop's own cards less than six digits are no sign: they
// are published and look like any number.
func (d *detector) add(name, v string) {
	source := name + " " + v
	v = strings.TrimSuffix(v, ".example") // which the mask of an address shows
	least := run5
	if strings.HasPrefix(name, "shop") {
		least++
	}
	plain := squeeze([]byte(v))
	for i := 0; i+least <= len(plain)-shownTail; i++ {
		d.runs[string(plain[i:i+least])] = source
	}
	if !strings.ContainsAny(v, "0123456789") || strings.ContainsAny(strings.ToLower(v), "ghijklmnopqrstuvwxyz") {
		for i := max(0, len(plain)-shownTail-least); i+least <= len(plain); i++ { // words have no tail that is shown
			d.runs[string(plain[i:i+least])] = source
		}
	}
	d.addBase64(v, least, source)
	d.addRaw(name, v, source)
	if s := shape(plain); s != "" {
		d.shapes[s], d.names[len(s)] = source, true
	}
}

// addBase64: where a run stands in a group of three bytes shifts its base64; the
// characters that depend on its neighbours are cut off.
func (d *detector) addBase64(v string, least int, source string) {
	forms := []string{v, strings.ToUpper(v), string(squeeze([]byte(v))), backwards(v)}
	for _, f := range forms {
		for i := 0; i+least <= len(f)-shownTail; i++ {
			for k := range 3 {
				e := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", k) + f[i:i+least]))
				from := (k*8 + 5) / 6
				if least*8+k*8-from*6 >= 36 {
					d.base64[e[from:from+6]] = source + " in base64"
				}
			}
		}
	}
}

// addRaw: numbers and times as the binary format sends them.
func (d *detector) addRaw(name, v, source string) {
	keep := func(b []byte) { d.raw[string(b)] = source + " in binary" }
	if n, err := strconv.ParseInt(v, 10, 64); err == nil && len(v) > 9 {
		keep(binary.BigEndian.AppendUint64(nil, uint64(n)))
		keep(binary.BigEndian.AppendUint64(nil, math.Float64bits(float64(n))))
		var groups []byte // numeric: digits in groups of four
		for s := strings.Repeat("0", (4-len(v)%4)%4) + v; s != ""; s = s[4:] {
			g, _ := strconv.Atoi(s[:4])
			groups = binary.BigEndian.AppendUint16(groups, uint16(g))
		}
		keep(groups[:6])
	}
	if name == "bytes" || name == "mac" || name == "uuid" || name == "ip" {
		if b, err := hex.DecodeString(v); err == nil {
			keep(b[:5])
			keep(b[len(b)-5:])
		}
	}
	if day, err := time.Parse("2006-01-02", v); err == nil {
		const epoch = 946684800 // 2000-01-01, as the server counts
		keep(binary.BigEndian.AppendUint64(nil, uint64((day.Unix()-epoch+4*3600+5*60+6)*1e6)))
	}
}

// shape is the pattern of equal characters: whatever letter or digit stands for
// whatever, it stays. "" when it says too little.
func shape(v []byte) string {
	const longest, repeats = 14, 6
	if len(v) < longest {
		return ""
	}
	v = v[:longest]
	var seen [256]byte
	next := byte('a')
	out := make([]byte, len(v))
	again := 0
	for i, c := range v {
		if seen[c] == 0 {
			seen[c] = next
			next++
		} else {
			again++
		}
		out[i] = seen[c]
	}
	if again < repeats {
		return ""
	}
	return string(out)
}

// squeeze leaves letters and digits, in lower case.
func squeeze(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			out = append(out, c)
		}
	}
	return out
}

func backwards(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// find says what shows in what a client was sent, "" when nothing does. It looks at
// all bytes as they came, and at the values of rows one behind the other, by row and
// by column, so that a value in pieces is found.
func (d *detector) find(seen []byte) string {
	if s := d.inBytes(seen); s != "" {
		return s
	}
	texts := valuesOf(seen)
	for _, text := range texts {
		if s := d.inText(text); s != "" {
			return s
		}
	}
	return ""
}

func (d *detector) inBytes(b []byte) string {
	for raw, source := range d.raw {
		if bytes.Contains(b, []byte(raw)) {
			return source
		}
	}
	lower := bytes.ToLower(b)
	return firstOf(d.inRuns(lower, ""), d.inRuns([]byte(backwards(string(lower))), " reversed"))
}

// masked is what the mask of a card shows, whose last digits and what stands behind
// them would make runs of their own.
var masked = regexp.MustCompile(`\*[* -]{8,}[0-9]{4}`)

// inText looks through the forms of a text that may be in pieces.
func (d *detector) inText(text []byte) string {
	text = masked.ReplaceAll(text, nil)
	plain := squeeze(text)
	back := []byte(backwards(string(plain)))
	for _, found := range []func() string{
		func() string { return d.inRuns(plain, "") },
		func() string { return d.inRuns(back, " reversed") },
		func() string { return d.inHex(plain) },
		func() string { return d.inHex(back) },
		func() string { return d.inBits(text) },
		func() string { return d.inCodes(text) },
		func() string { return d.inBase64(text) },
		func() string { return d.inShapes(text) },
	} {
		if s := found(); s != "" {
			return s
		}
	}
	return ""
}

func firstOf(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

func (d *detector) inRuns(b []byte, form string) string {
	for i := 0; i+run5 <= len(b); i++ {
		if s, ok := d.runs[string(b[i:i+run5])]; ok {
			return s + form
		}
		if i+run5 < len(b) {
			if s, ok := d.runs[string(b[i:i+run5+1])]; ok {
				return s + form
			}
		}
	}
	return ""
}

// inHex reads every run of hexadecimal digits as bytes, from either digit.
func (d *detector) inHex(plain []byte) string {
	isHex := func(c byte) bool { return c <= '9' || c >= 'a' && c <= 'f' }
	for i := 0; i < len(plain); {
		j := i
		for j < len(plain) && isHex(plain[j]) {
			j++
		}
		for k := range 2 {
			if n := (j - i - k) &^ 1; n >= 2*run5 {
				b, err := hex.DecodeString(string(plain[i+k : i+k+n]))
				if err != nil {
					continue
				}
				lower := bytes.ToLower(b)
				if s := firstOf(d.inRuns(squeeze(lower), " in hex"), d.inRuns([]byte(backwards(string(squeeze(lower)))), " reversed in hex")); s != "" {
					return s
				}
			}
		}
		i = j + 1
	}
	return ""
}

// inBits reads runs of 0 and 1 as bytes, from any bit.
func (d *detector) inBits(text []byte) string {
	for i := 0; i < len(text); {
		j := i
		for j < len(text) && (text[j] == '0' || text[j] == '1') {
			j++
		}
		for k := 0; k < 8 && j-i-k >= 8*run5; k++ {
			var out []byte
			for p := i + k; p+8 <= j; p += 8 {
				n, _ := strconv.ParseUint(string(text[p:p+8]), 2, 8)
				out = append(out, byte(n))
			}
			if s := d.inRuns(bytes.ToLower(out), " in bits"); s != "" {
				return s
			}
		}
		i = j + 1
	}
	return ""
}

// inCodes reads numbers as characters' codes.
func (d *detector) inCodes(text []byte) string {
	var out []byte
	for i := 0; i < len(text); {
		j := i
		for j < len(text) && text[j] >= '0' && text[j] <= '9' {
			j++
		}
		if n, err := strconv.Atoi(string(text[i:j])); err == nil && n >= ' ' && n < 127 {
			out = append(out, byte(n))
		}
		i = j + 1
	}
	if plain := squeeze(out); len(plain) >= run5 {
		return firstOf(d.inRuns(plain, " in codes"), d.inRuns([]byte(backwards(string(plain))), " in codes, reversed"))
	}
	return ""
}

func (d *detector) inBase64(text []byte) string {
	flat := make([]byte, 0, len(text))
	for _, c := range text {
		switch {
		case c == '-':
			c = '+'
		case c == '_':
			c = '/'
		case c == '\n' || c == ' ' || c == '\r':
			continue
		}
		flat = append(flat, c)
	}
	for i := 0; i+6 <= len(flat); i++ {
		if s, ok := d.base64[string(flat[i:i+6])]; ok {
			return s
		}
	}
	return ""
}

// inShapes looks for values whose characters stand for others.
func (d *detector) inShapes(text []byte) string {
	plain := squeeze(text)
	for n := range d.names {
		for i := 0; i+n <= len(plain); i++ {
			if s := shape(plain[i : i+n]); s != "" {
				if source, ok := d.shapes[s]; ok {
					return source + " in other letters"
				}
			}
		}
	}
	return ""
}

// valuesOf are the texts in what a client was sent: each row, each column over all
// rows, each message of COPY, of the server and of NOTIFY.
func valuesOf(seen []byte) [][]byte {
	var out [][]byte
	columns := map[int][]byte{}
	var types []uint32
	var formats []int16
	var copied, said []byte
	for _, m := range split(seen) {
		switch m.kind {
		case 'T':
			types, formats = rowTypes(m.body)
		case 'D':
			var row []byte
			for i, v := range rowValues(m.body) {
				if i < len(formats) && formats[i] == 1 {
					v = readable(types[i], v)
				}
				row = append(append(row, v...), ' ')
				columns[i] = append(append(columns[i], v...), ' ')
			}
			out = append(out, row)
		case 'd':
			copied = append(copied, m.body...)
		case 'E', 'N', 'A', 'C', 'S':
			said = append(append(said, m.body...), ' ')
			out = append(out, m.body)
		}
	}
	for _, c := range columns {
		out = append(out, c)
	}
	return append(out, copied, said)
}

// split cuts what a client was sent into messages.
func split(b []byte) (all []message) {
	for len(b) >= 5 {
		n := int(binary.BigEndian.Uint32(b[1:]))
		if n < 4 || n+1 > len(b) {
			break
		}
		all = append(all, message{b[0], b[5 : n+1]})
		b = b[n+1:]
	}
	return all
}

func rowTypes(body []byte) (types []uint32, formats []int16) {
	if len(body) < 2 {
		return nil, nil
	}
	body = body[2:]
	for len(body) > 0 {
		i := bytes.IndexByte(body, 0)
		if i < 0 || len(body) < i+19 {
			break
		}
		f := body[i+1:]
		types = append(types, binary.BigEndian.Uint32(f[6:]))
		formats = append(formats, int16(binary.BigEndian.Uint16(f[16:])))
		body = f[18:]
	}
	return types, formats
}

func rowValues(body []byte) (all [][]byte) {
	if len(body) < 2 {
		return nil
	}
	body = body[2:]
	for len(body) >= 4 {
		n := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if n < 0 {
			all = append(all, nil)
			continue
		}
		if int(n) > len(body) {
			break
		}
		all = append(all, body[:n])
		body = body[n:]
	}
	return all
}

// readable writes a binary value as people would: numbers, dates, bytes.
func readable(oid uint32, v []byte) []byte {
	switch {
	case oid == 20 && len(v) == 8:
		return strconv.AppendInt(nil, int64(binary.BigEndian.Uint64(v)), 10)
	case (oid == 23 || oid == 26) && len(v) == 4:
		return strconv.AppendInt(nil, int64(int32(binary.BigEndian.Uint32(v))), 10)
	case oid == 21 && len(v) == 2:
		return strconv.AppendInt(nil, int64(int16(binary.BigEndian.Uint16(v))), 10)
	case oid == 701 && len(v) == 8:
		return strconv.AppendFloat(nil, math.Float64frombits(binary.BigEndian.Uint64(v)), 'f', -1, 64)
	case oid == 700 && len(v) == 4:
		return strconv.AppendFloat(nil, float64(math.Float32frombits(binary.BigEndian.Uint32(v))), 'f', -1, 32)
	case oid == 1082 && len(v) == 4:
		return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, int(int32(binary.BigEndian.Uint32(v)))).AppendFormat(nil, "2006-01-02")
	case oid == 1700 && len(v) >= 8:
		var b []byte
		for g := v[8:]; len(g) >= 2; g = g[2:] {
			s := strconv.Itoa(int(binary.BigEndian.Uint16(g)))
			b = append(append(b, "0000"[min(4, len(s)):]...), s...)
		}
		return b
	case oid == 17 || oid == 2950 || oid == 829 || oid == 869:
		return hex.AppendEncode(append([]byte(nil), v...), v)
	}
	return v
}

// TestPlantedAreUnique: no run of a planted value is anywhere else, so that a run
// that a client sees is a leak.
func TestPlantedAreUnique(t *testing.T) {
	plants := w.plants
	owner := map[string]string{}
	for _, p := range plants {
		if len(p.values[0]) != len(p.values[1]) && p.name != "sizes" && !strings.HasPrefix(p.name, "shopiban") {
			t.Errorf("%s has two lengths", p.name)
		}
		for side, v := range p.values {
			plain := squeeze([]byte(strings.TrimSuffix(v, ".example")))
			for i := 0; i+run5 <= len(plain)-shownTail; i++ {
				run := string(plain[i : i+run5])
				source := p.name + sides[side]
				if other, ok := owner[run]; ok && !strings.HasPrefix(p.name, "shop") {
					t.Errorf("%q is in %s and in %s", run, source, other)
				}
				owner[run] = source
			}
		}
	}
	for _, folder := range []string{".", "attacks", "harmless", "differential"} {
		files, _ := filepath.Glob(filepath.Join("corpus", folder, "*.sql"))
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if s := w.detector.inRuns(squeeze(b), ""); s != "" {
				t.Errorf("%s itself has %s", f, s)
			}
		}
	}
	// What an attacker may see in the fixture. The server's own catalogue is left out: its
	// columns of numbers, one behind the other, hold any five digits somewhere.
	for _, db := range sides {
		c := direct(t, "weir_app", db)
		for _, sql := range []string{`SELECT id, owner, level FROM vault.cards`, `TABLE vault.notes`, `SELECT id, label FROM vault.wide`, `TABLE shop.orders`,
			`SELECT oid, relname FROM pg_class WHERE oid > 16383`, `SELECT oid, proname, prosrc FROM pg_proc WHERE oid > 16383`,
			`SELECT attname FROM pg_attribute WHERE attrelid > 16383`, `SELECT oid, typname FROM pg_type WHERE oid > 16383`,
			`SELECT id, customer_id, amount, note FROM shop.payments`} {
			c.seen = nil
			c.query(sql)
			if s := w.detector.find(c.seen); s != "" {
				t.Errorf("%s: %s can be seen with %s", db, s, sql)
			}
		}
	}
}

// TestDetectorSees: each form in which a spy could bring a value out, so that a
// corpus without leaks means something.
func TestDetectorSees(t *testing.T) {
	const sql = `SELECT %s FROM vault.cards WHERE id = 3`
	for _, db := range sides {
		for form, expr := range map[string]string{
			"itself": `card`, "part": `substr(card, 4, 5)`, "reversed": `reverse(card)`, "reversed part": `substr(reverse(card), 7, 5)`, "bytea": `card::bytea`,
			"hex": `upper(encode(card::bytea, 'hex'))`, "hex part": `encode(substr(card, 4, 5)::bytea, 'hex')`,
			"base64": `encode(card::bytea, 'base64')`, "base64 1": `encode(('a' || card)::bytea, 'base64')`, "base64 2": `encode(('ab' || card)::bytea, 'base64')`,
			"base64 url": `translate(encode(('ab' || card)::bytea, 'base64'), '+/', '-_')`,
			"spaced":     `regexp_replace(card, '(.)', '\1 ', 'g')`, "dashed": `regexp_replace(card, '(.)', '\1--', 'g')`, "array": `string_to_array(card, NULL)`,
			"codes": `(SELECT string_agg(ascii(c)::text, ' ') FROM regexp_split_to_table(card, '') c)`, "code rows": `ascii(regexp_split_to_table(card, ''))`,
			"hex codes": `(SELECT string_agg(to_hex(ascii(c)), ',') FROM regexp_split_to_table(card, '') c)`, "character rows": `regexp_split_to_table(card, '')`,
			"letters": `translate(card, '0456789', 'qwertyu')`, "number": `card::numeric`, "bigint": `card::bigint`, "bigints": `ARRAY[card::bigint]`, "float": `card::float8`,
			"bits": `(SELECT string_agg(ascii(c)::bit(8)::text, '') FROM regexp_split_to_table(card, '') c)`, "escaped": `encode(reverse(card)::bytea, 'escape')`,
			"numeric part": `substr(card, 4, 7)::numeric`, "date": `'2000-01-01'::date + substr(card, 4, 6)::int`,
		} {
			if form == "date" {
				continue // only two databases side by side show that: see attacks_test.go
			}
			for _, format := range []int16{0, 1} {
				c := direct(t, "weir_app", db)
				c.extended("SELECT 1")
				c.seen = nil
				c.send(describedRun(strings.Replace(sql, "%s", expr, 1), format)...)
				if all := c.until('Z'); failure(all) != "" {
					t.Fatalf("%s: %s", form, failure(all))
				}
				if w.detector.find(c.seen) == "" {
					t.Errorf("%s: %s in format %d is not seen: %q", db, form, format, c.seen)
				}
			}
		}
	}
}
