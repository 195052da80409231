package bypass

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/jackc/pgproto3/v2"
)

type sent = []pgproto3.FrontendMessage

// run is Parse, Bind and Execute without names.
func run(sql string) sent {
	return sent{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Execute{}}
}

func parse(name, sql string) sent { return sent{&pgproto3.Parse{Name: name, Query: sql}} }
func bind(portal, stmt string) sent {
	return sent{&pgproto3.Bind{DestinationPortal: portal, PreparedStatement: stmt}}
}
func query(sql string) sent           { return sent{&pgproto3.Query{String: sql}} }
func execute(p string, n uint32) sent { return sent{&pgproto3.Execute{Portal: p, MaxRows: n}} }
func describe(kind byte, n string) sent {
	return sent{&pgproto3.Describe{ObjectType: kind, Name: n}}
}
func closing(kind byte, n string) sent { return sent{&pgproto3.Close{ObjectType: kind, Name: n}} }

func all(parts ...sent) (out sent) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

var (
	end   = sent{&pgproto3.Sync{}}
	flush = sent{&pgproto3.Flush{}}
)

const (
	evil    = "DELETE FROM shop.orders"
	masking = "SELECT card_number || '' FROM shop.payments"
)

// TestStaysInStep: orders of messages that no driver sends. The types that come
// back are those of a real server, with weir's errors in it; afterwards the
// session works.
func TestStaysInStep(t *testing.T) {
	rows := strings.Repeat("D", 10)
	for _, c := range []struct {
		name, want string
		send       sent
	}{
		{"bind after a refused parse", "1ZEZEZ", all(parse("", "SELECT 1"), end, parse("", evil), end, bind("", ""), execute("", 0), end)},
		{"refused in a pipeline", "12DCEZ12DCZ", all(run("SELECT 1"), run(evil), run("SELECT 2"), end, run("SELECT 3"), end)},
		{"execute without a portal", "EZ12DCZ", all(execute("nope", 0), end, run("SELECT 1"), end)},
		{"bind without a statement", "EZ12DCZ", all(bind("", "nope"), execute("", 0), end, run("SELECT 1"), end)},
		{"one name twice", "1EZ2DCZ", all(parse("s", "SELECT 1"), parse("s", masking), end, bind("", "s"), execute("", 0), end)},
		{"closed and parsed anew", "1231DC2" + rows + "CZ", all(parse("s", "SELECT 1"), bind("p", "s"), closing('S', "s"), parse("s", masking), execute("p", 0), bind("q", "s"), execute("q", 0), end)},
		{"execute a closed portal", "123EZ", all(parse("s", masking), bind("p", "s"), closing('P', "p"), execute("p", 0), end)},
		{"row limits", "1tT2DDsDDDsTDDDDDCZ", all(parse("s", masking), describe('S', "s"), bind("p", "s"), execute("p", 2), execute("p", 3), describe('P', "p"), execute("p", 0), end)},
		{"a portal as a cursor", "CZ12ZDDsZTDDCZCZ", all(query("BEGIN"), parse("s", masking), bind("p", "s"), end, execute("p", 2), end, query("FETCH 2 FROM p"), query("COMMIT"))},
		{"a cursor as a portal", "CZCZDCZCCZ" + rows + "CZCZ", all(query("BEGIN"), query("DECLARE c CURSOR FOR SELECT 1"), execute("c", 0), end, query("CLOSE c; DECLARE c CURSOR FOR "+masking), execute("c", 0), end, query("COMMIT"))},
		{"copy messages without COPY", "12DCZ", all(sent{&pgproto3.CopyDone{}, &pgproto3.CopyData{Data: []byte("x")}, &pgproto3.CopyFail{Message: "a"}}, run("SELECT 1"), end)},
		{"a refused COPY's data", "EZTDCZ", all(query("COPY shop.orders FROM STDIN"), sent{&pgproto3.CopyData{Data: []byte("x")}, &pgproto3.CopyDone{}}, query("SELECT 1"))},
		{"a failed transaction", "CZEZEZCZ", all(query("BEGIN"), query(evil), query("SELECT 1"), query("COMMIT"))},
		{"a failed transaction, extended", "CZEZEZ12CZ", all(query("BEGIN"), run(evil), end, run("SELECT 1"), end, run("ROLLBACK"), end)},
		{"one refused among others", "EZ", query("SELECT 1; " + evil + "; SELECT 2")},
		{"empty statements", "IZIZTDCTDCZ12IZ12IZ", all(query(""), query(";;"), query("; SELECT 1;;"+masking+" WHERE id = 3;"), run(""), end, run("-- x"), end)},
		{"prepared anew by SQL", "1ZCCZ2" + rows + "CZ", all(parse("s", "SELECT note FROM shop.payments"), end, query("DEALLOCATE s; PREPARE s AS "+masking), bind("", "s"), execute("", 0), end)},
		{"prepared in a failing string", "CEZT" + rows + "CZ2" + rows + "CZ", all(query("PREPARE s AS "+masking+"; SELECT 1/0; DEALLOCATE s; PREPARE s AS SELECT 1"), query("EXECUTE s"), bind("", "s"), execute("", 0), end)},
		{"flushes", "12" + rows + "CZZZ", all(flush, run(masking), flush, flush, end, end, flush, end)},
		{"function call", "EZTDCZ", all(sent{&pgproto3.FunctionCall{Function: 2168}}, query("SELECT 1"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := connect(t, "ann")
			s.send(c.send...)
			var got []message
			for range strings.Count(c.want, "Z") {
				got = append(got, s.until('Z')...)
			}
			if kinds(got) != c.want {
				t.Errorf("got %s, want %s:\n%s", kinds(got), c.want, show(got))
			}
			if l := leaks(s.seen); l != "" {
				t.Errorf("%s shows:\n%s", l, show(got))
			}
			s.seen = nil
			if after := s.query("ROLLBACK; SELECT 'in step'"); !bytes.Contains(s.seen, []byte("in step")) {
				t.Errorf("out of step: %s", show(after))
			}
		})
	}
	if n := ask(t, "SELECT count(*) FROM shop.orders"); n != "100" {
		t.Errorf("%s orders are left", n)
	}
}

func frame(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	return append(b, body...)
}

// TestBytes: messages and texts that no client makes. Weir ends the connection or
// answers; what it does not understand does not reach the server.
func TestBytes(t *testing.T) {
	const orders = "DELETE FROM shop.orders"
	for name, b := range map[string][]byte{
		"NUL in Query":          frame('Q', "SELECT 1\x00; "+orders+"\x00"),
		"Query without its NUL": frame('Q', orders),
		"NUL in Parse":          frame('P', "\x00SELECT 1\x00"+orders+"\x00\x00\x00"),
		"types beyond Parse":    frame('P', "\x00SELECT 1\x00\xff\xff"),
		"unknown type":          frame('y', "x"),
		"late password":         frame('p', "x\x00"),
		"late SSLRequest":       []byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"),
		"length too short":      {'Q', 0, 0, 0, 3},
		"length negative":       {'Q', 0xff, 0xff, 0xff, 0xff},
		"2 GiB Query":           {'Q', 0x7f, 0xff, 0xff, 0xff},
		"2 GiB CopyData":        {'d', 0x7f, 0xff, 0xff, 0xff},
		"describe nothing":      frame('D', "Xa\x00"),
		"close nothing":         frame('C', "Xa\x00"),
		"junk after Execute":    frame('E', "\x00\x00\x00\x00\x00junk"),
		"junk in Sync":          frame('S', "junk"),
		"formats beyond Bind":   frame('B', "\x00\x00\xff\xff"),
		"values beyond Bind":    frame('B', "\x00\x00\x00\x00\xff\xff\x00\x00"),
		"length -2 in Bind":     frame('B', "\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00"),
		"short FunctionCall":    frame('F', "\x00\x00"),
		"not UTF-8":             frame('Q', "SELECT '\xff\xfe'\x00"),
		"overlong quote":        frame('Q', "SELECT \xc0\xa7 ; "+orders+" --\xc0\xa7\x00"),
		"homoglyph":             frame('Q', "SELECT card_numb\u0435r FROM shop.payments\x00"),
		"letter case":           frame('Q', "SELECT CARD_NUMBER||'', Card_Number FROM SHOP.PAYMENTS\x00"),
		"dot in a name":         frame('Q', "SELECT * FROM \"shop.payments\"\x00"),
		"escaped names":         frame('Q', "SELECT U&\"card\\005fnumber\"||'' FROM U&\"sh\\006fp\".U&\"p!0061yments\" UESCAPE '!'\x00"),
		"nested comments":       frame('Q', "SELECT /* /* */ id, */ card_number||'' /* -- */ FROM -- x\n shop.payments\x00"),
		"dollar quotes":         frame('Q', "SELECT $a$ $b$ $a$ || card_number || $$'$$ FROM shop.payments\x00"),
		"joined behind comment": frame('Q', "SELECT 'a' -- '\n 'b', card_number||'' FROM shop.payments\x00"),
		"1 MiB":                 frame('Q', "SELECT card_number||'' /*"+strings.Repeat("x", 1<<20)+"*/ FROM shop.payments\x00"),
		"less than 1 MiB":       frame('Q', "SELECT card_number||'' /*"+strings.Repeat("x", 1<<20-100)+"*/ FROM shop.payments\x00"),
		"parentheses":           frame('Q', "SELECT "+strings.Repeat("(", 100000)+"1"+strings.Repeat(")", 100000)+"\x00"),
		"nots":                  frame('Q', "SELECT "+strings.Repeat("not ", 100000)+"true\x00"),
		"minuses":               frame('Q', "SELECT "+strings.Repeat("- ", 100000)+"1\x00"),
		"unions":                frame('Q', strings.Repeat("SELECT 1 UNION ", 20000)+"SELECT 1\x00"),
		"subqueries":            frame('Q', "SELECT * FROM "+strings.Repeat("(SELECT * FROM ", 4000)+"shop.payments"+strings.Repeat(") a", 4000)+"\x00"),
		"cases":                 frame('Q', "SELECT "+strings.Repeat("CASE WHEN true THEN ", 9000)+"1"+strings.Repeat(" END", 9000)+"\x00"),
		"casts":                 frame('Q', "SELECT 1"+strings.Repeat("::int", 100000)+"\x00"),
		"fields":                frame('Q', "SELECT (a)"+strings.Repeat(".a", 100000)+"\x00"),
		"subscripts":            frame('Q', "SELECT a"+strings.Repeat("[1]", 100000)+"\x00"),
		"many statements":       frame('Q', strings.Repeat("SELECT 1;", 4000)+"\x00"),
		"too many statements":   frame('Q', strings.Repeat("SELECT 1;", 5000)+"\x00"),
		"too many columns":      frame('Q', "SELECT 1"+strings.Repeat(",1", 1700)+"\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, "ann")
			c.raw(b)
			c.send(&pgproto3.Sync{}, &pgproto3.Terminate{})
			got := c.rest()
			if l := leaks(c.seen); l != "" {
				t.Errorf("%s shows: %s", l, show(got))
			}
			if len(got) == 0 {
				t.Error("no answer")
			}
		})
	}
	if n := ask(t, "SELECT count(*) FROM shop.orders"); n != "100" {
		t.Errorf("%s orders are left", n)
	}
}

// TestSkippedDescribe: a Describe that the server skips leaves its portal usable.
func TestSkippedDescribe(t *testing.T) {
	c := connect(t, "ann")
	c.send(all(query("BEGIN"), parse("s", masking), bind("p", "s"), end, query("SAVEPOINT a"), run("SELECT 1/(SELECT 0 FROM pg_sleep(0.3))"), describe('P', "p"), end,
		query("ROLLBACK TO a"), execute("p", 2), end, query("COMMIT"))...)
	var got []message
	for range 7 {
		got = append(got, c.until('Z')...)
	}
	if f := failure(got[len(got)-1:]); f != "" || kinds(got) != "CZ12ZCZ12EZCZDDsZCZ" {
		t.Errorf("%s:\n%s", kinds(got), show(got))
	}
	if l := leaks(c.seen); l != "" {
		t.Error(l)
	}
}

// TestApplicationName: who is at work stays in the server's own log.
func TestApplicationName(t *testing.T) {
	c := connect(t, "ann")
	c.query(`SET application_name = 'weir:catalogue'`)
	c.query(`SELECT set_config('application_name', 'weir:catalogue', false)`)
	c.query(`SELECT 'as somebody else'`)
	for line := range strings.Lines(serverLog(t)) {
		if strings.Contains(line, "|weir:catalogue|") && strings.Contains(line, "as somebody else") {
			t.Errorf("logged as weir's own: %s", line)
		}
	}
}
