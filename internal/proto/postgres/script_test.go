package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// The tests of the engine are conversations in a small language: messages are
// separated by " | ", a message is its type and its fields separated by spaces, and
// the last field takes the rest. What the engine sends is written the same way.
//
//	client: Q text | P name text | B portal statement value,value | D S name | E portal | C P name | S | H | d data | c | X
//	server: 1 | 2 | 3 | T name:relation:attr:type:format,... | D value,value | C tag | Z I | E code text | N code text | ...

// clientBytes encodes client messages.
func clientBytes(script string) []byte {
	var out []byte
	for _, m := range strings.Split(script, " | ") {
		kind, rest, _ := strings.Cut(m, " ")
		first, tail, _ := strings.Cut(rest, " ")
		if first == "-" {
			first = ""
		}
		var err error
		add := func(m pgproto3.FrontendMessage) { out, err = m.Encode(out) }
		switch kind {
		case "Q":
			add(&pgproto3.Query{String: rest})
		case "P":
			add(&pgproto3.Parse{Name: first, Query: tail})
		case "B":
			b := &pgproto3.Bind{DestinationPortal: first}
			statement, values, _ := strings.Cut(tail, " ")
			b.PreparedStatement = strings.TrimPrefix(statement, "-")
			if values != "" {
				for _, v := range strings.Split(values, ",") {
					b.Parameters = append(b.Parameters, []byte(v))
				}
			}
			add(b)
		case "D":
			add(&pgproto3.Describe{ObjectType: first[0], Name: tail})
		case "C":
			add(&pgproto3.Close{ObjectType: first[0], Name: tail})
		case "E":
			n, _ := strconv.Atoi(tail)
			add(&pgproto3.Execute{Portal: first, MaxRows: uint32(n)})
		case "S":
			add(&pgproto3.Sync{})
		case "H":
			add(&pgproto3.Flush{})
		case "d":
			add(&pgproto3.CopyData{Data: []byte(rest)})
		case "c":
			add(&pgproto3.CopyDone{})
		case "f":
			add(&pgproto3.CopyFail{Message: rest})
		case "F":
			oid, _ := strconv.Atoi(first)
			add(&pgproto3.FunctionCall{Function: uint32(oid), Arguments: [][]byte{[]byte(tail)}})
		case "X":
			add(&pgproto3.Terminate{})
		default:
			panic("script: " + m)
		}
		if err != nil {
			panic(err)
		}
	}
	return out
}

// serverBytes encodes server messages.
func serverBytes(script string) []byte {
	var out []byte
	for _, m := range strings.Split(script, " | ") {
		kind, rest, _ := strings.Cut(m, " ")
		first, tail, _ := strings.Cut(rest, " ")
		switch kind {
		case "1", "2", "3", "I", "s", "n", "c":
			out = appendFrame(out, kind[0])
		case "T":
			f, mark := beginFrame(out, 'T')
			cols := strings.Split(rest, ",")
			f = binary.BigEndian.AppendUint16(f, uint16(len(cols)))
			for _, c := range cols {
				name, origin, _ := strings.Cut(c, ":")
				var n [4]int
				for i, p := range strings.Split(origin, ":") {
					n[i], _ = strconv.Atoi(p)
				}
				if n[2] == 0 {
					n[2] = 25
				}
				f = append(append(f, name...), 0)
				f = binary.BigEndian.AppendUint32(f, uint32(n[0]))
				f = binary.BigEndian.AppendUint16(f, uint16(n[1]))
				f = binary.BigEndian.AppendUint32(f, uint32(n[2]))
				f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
				f = binary.BigEndian.AppendUint16(f, uint16(n[3]))
			}
			out = endFrame(f, mark)
		case "D":
			row := &pgproto3.DataRow{}
			for _, v := range strings.Split(rest, ",") {
				if v == "NULL" {
					row.Values = append(row.Values, nil)
				} else {
					row.Values = append(row.Values, []byte(v))
				}
			}
			out, _ = row.Encode(out)
		case "C":
			out, _ = (&pgproto3.CommandComplete{CommandTag: []byte(rest)}).Encode(out)
		case "Z":
			out = appendReady(out, rest[0])
		case "E", "N":
			f, mark := beginFrame(out, kind[0])
			severity := "ERROR"
			if s, t, ok := strings.Cut(first, "!"); ok {
				severity, first = s, t
			}
			f = append(append(append(f, 'S'), severity...), 0)
			f = append(append(append(f, 'C'), first...), 0)
			for i, field := range strings.Split(tail, "~") {
				f = append(append(append(f, "MDHWq"[i]), field...), 0)
			}
			out = endFrame(append(f, 0), mark)
		case "S":
			out, _ = (&pgproto3.ParameterStatus{Name: first, Value: tail}).Encode(out)
		case "A":
			out, _ = (&pgproto3.NotificationResponse{PID: 1, Channel: first, Payload: tail}).Encode(out)
		case "G":
			out, _ = (&pgproto3.CopyInResponse{ColumnFormatCodes: []uint16{0}}).Encode(out)
		case "H":
			n, _ := strconv.Atoi(rest)
			out, _ = (&pgproto3.CopyOutResponse{ColumnFormatCodes: make([]uint16, n)}).Encode(out)
		case "d":
			out, _ = (&pgproto3.CopyData{Data: []byte(strings.ReplaceAll(strings.ReplaceAll(rest, `\t`, "\t"), `\n`, "\n"))}).Encode(out)
		case "t":
			out, _ = (&pgproto3.ParameterDescription{}).Encode(out)
		case "V":
			out = appendFrame(out, 'V', append([]byte{0, 0, 0, byte(len(rest))}, rest...)...)
		case "R", "W", "K":
			out = appendFrame(out, kind[0], 0, 0, 0, 0, 0, 0, 0, 0)
		default:
			panic("script: " + m)
		}
	}
	return out
}

// clientScript writes bytes for the server in the language of scripts.
func clientScript(b []byte) string { return renderAll(b, renderClient) }

// serverScript writes bytes for the client in the language of scripts.
func serverScript(b []byte) string { return renderAll(b, renderServer) }

func renderAll(b []byte, render func(kind byte, body []byte) string) string {
	var out []string
	for len(b) > 0 {
		if len(b) < 5 {
			out = append(out, fmt.Sprintf("torn %x", b))
			break
		}
		n := int(binary.BigEndian.Uint32(b[1:])) + 1
		if n > len(b) || n < 5 {
			out = append(out, fmt.Sprintf("torn %q", b))
			break
		}
		out = append(out, strings.TrimRight(render(b[0], b[5:n]), " "))
		b = b[n:]
	}
	return strings.Join(out, " | ")
}

func renderClient(kind byte, body []byte) string {
	s := strings.Split(string(body), "\x00")
	blank := func(v string) string {
		if v == "" {
			return "-"
		}
		return v
	}
	switch kind {
	case 'Q':
		return "Q " + s[0]
	case 'P':
		return "P " + blank(s[0]) + " " + s[1]
	case 'B':
		m := &pgproto3.Bind{}
		if err := m.Decode(body); err != nil {
			return "bad Bind"
		}
		return strings.TrimRight("B "+blank(m.DestinationPortal)+" "+blank(m.PreparedStatement)+" "+string(bytes.Join(m.Parameters, []byte(","))), " ")
	case 'D', 'C':
		return fmt.Sprintf("%c %c %s", kind, body[0], s[0][1:])
	case 'E':
		n := binary.BigEndian.Uint32(body[len(body)-4:])
		if n != 0 {
			return fmt.Sprintf("E %s %d", blank(s[0]), n)
		}
		return "E " + blank(s[0])
	case 'd':
		return "d " + string(body)
	case 'f':
		return "f " + s[0]
	case 'F':
		return fmt.Sprintf("F %d", binary.BigEndian.Uint32(body))
	}
	return string(kind)
}

func renderServer(kind byte, body []byte) string {
	switch kind {
	case 'E', 'N':
		code, fields, severity := "", []string{}, ""
		fieldsOf(body, func(k byte, v []byte) {
			switch k {
			case 'S':
				severity = string(v)
			case 'C':
				code = string(v)
			case 'M', 'D', 'H', 'W', 'q':
				fields = append(fields, string(v))
			}
		})
		if severity == "FATAL" {
			code = "FATAL!" + code
		}
		return string(kind) + " " + code + " " + strings.Join(fields, "~")
	case 'D':
		m := &pgproto3.DataRow{}
		if err := m.Decode(body); err != nil {
			return "bad DataRow"
		}
		v := make([]string, len(m.Values))
		for i := range m.Values {
			if v[i] = string(m.Values[i]); m.Values[i] == nil {
				v[i] = "NULL"
			}
		}
		return "D " + strings.Join(v, ",")
	case 'T':
		cols, err := rowColumns(body)
		if err != nil {
			return "bad RowDescription"
		}
		names := make([]string, len(cols))
		for i := range cols {
			names[i] = cols[i].Name
		}
		return "T " + strings.Join(names, ",")
	case 'C', 'Z':
		return string(kind) + " " + strings.TrimRight(string(body), "\x00")
	case 'S':
		n, v := twoStrings(body)
		return "S " + n + " " + v
	case 'A':
		n, v := twoStrings(body[4:])
		return "A " + n + " " + v
	case 'd':
		return "d " + strings.ReplaceAll(strings.ReplaceAll(string(body), "\t", `\t`), "\n", `\n`)
	case 'V':
		if int32(binary.BigEndian.Uint32(body)) < 0 {
			return "V NULL"
		}
		return "V " + string(body[4:])
	case 'H':
		return fmt.Sprintf("H %d", binary.BigEndian.Uint16(body[1:]))
	}
	return string(kind)
}

// driver drives an engine as a relay does, on one goroutine.
type driver struct {
	engine             *Engine
	gate               *session.Gate
	out                session.Output
	toServer, toClient []byte
	outcomes           []session.Outcome
	actions            []*flow.Action // of every question, allowed or not
	rest               []byte         // of the client, while the engine waits
	err                error
}

func (d *driver) take() {
	for _, r := range d.out.ToServer.Ranges() {
		d.toServer = append(d.toServer, r...)
	}
	for _, r := range d.out.ToClient.Ranges() {
		d.toClient = append(d.toClient, r...)
	}
	d.outcomes = append(d.outcomes, d.out.Outcomes...)
	d.out = session.Output{}
}

func (d *driver) client(b []byte) {
	d.rest = append(d.rest, b...)
	for d.err == nil {
		if q := d.engine.Pending(); q != nil {
			if q.Wait != nil {
				return
			}
			a := &session.Answered{}
			a.Actions, a.Extra = q.Resolve(context.Background())
			d.actions = append(d.actions, a.Actions...)
			a.Decision = d.gate.Decide(context.Background(), q.Mode, a.Actions)
			d.err = d.engine.Answer(a, &d.out)
			d.take()
			continue
		}
		if len(d.rest) == 0 {
			return
		}
		b := d.rest
		n, err := d.engine.Client(b, &d.out)
		if n == 0 && err == nil && d.engine.Pending() == nil {
			err = errors.New("the engine takes nothing and asks nothing")
		}
		d.take()
		d.rest, d.err = append([]byte(nil), b[n:]...), err
	}
}

func (d *driver) server(b []byte) {
	if d.err != nil {
		return
	}
	b = append([]byte(nil), b...)
	d.err = d.engine.Server(b, &d.out)
	d.take()
	clear(b) // whoever keeps a range of it shows
	d.client(nil)
}

// withGate runs f with a real gate, on a flow of its own.
func withGate(t testing.TB, w *world, f func(g *session.Gate, grant session.Grant)) {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	fl := &flow.Flow{ID: "01TEST", Protocol: flow.Postgres, Backend: "orders", Destination: netip.MustParseAddrPort("192.0.2.1:5432")}
	s := session.New(session.Config{Node: "test", Identify: w, Policy: func() session.Policy { return w }, Record: w,
		Login:    func(string, *flow.Principal) (string, bool) { return "postgres", true },
		Handlers: map[flow.Protocol]session.Handler{flow.Postgres: handlerFunc(f)}, Now: time.Now, Log: quiet()})
	s.Serve(context.Background(), &testConn{server, fl})
}

type handlerFunc func(g *session.Gate, grant session.Grant)

func (f handlerFunc) Serve(ctx context.Context, _ net.Conn, g *session.Gate) error {
	grant, err := g.Admit(ctx, "postgres", "database:postgres")
	if err != nil {
		return err
	}
	f(g, grant)
	return nil
}

// testCatalog is a small database: shop.payments has a card number, shop.v shows
// it, shop.part is a partition.
func testCatalog() *sqlmeta.Catalog {
	payments := &sqlmeta.Relation{OID: 20001, Schema: "shop", Name: "payments", Kind: 'r', Columns: []string{"id", "card", "note"}, Children: []uint32{20002}}
	part := &sqlmeta.Relation{OID: 20002, Schema: "shop", Name: "part", Kind: 'r', Columns: []string{"note", "id", "card"}, Parents: []uint32{20001}}
	view := &sqlmeta.Relation{OID: 20003, Schema: "shop", Name: "v", Kind: 'v', Columns: []string{"a", "b"}, BaseColumns: []sqlmeta.ColumnID{{Relation: 20001, Attr: 2}}}
	orders := &sqlmeta.Relation{OID: 20004, Schema: "shop", Name: "orders", Kind: 'r', Columns: []string{"id", "item"}}
	return sqlmeta.NewCatalog(7, []string{"public", "shop", "a", "b"}, []*sqlmeta.Relation{payments, part, view, orders},
		[]sqlmeta.Function{{OID: 1598, Schema: "pg_catalog", Name: "random", BuiltIn: true}, {OID: 20010, Schema: "shop", Name: "total"}})
}

// testEngine makes an engine behind a gate of w.
func testEngine(t testing.TB, w *world, g *session.Gate, grant session.Grant) *driver {
	key, err := mask.NewKey(make([]byte, mask.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{Analyze: fakeAnalyze, Catalog: func(context.Context, session.Grant) (*sqlmeta.Catalog, error) { return w.cat(), nil },
		Invalidate: func(session.Grant) {}, Masks: MaskConfig{Key: key}, Log: quiet()}
	e := NewEngine(EngineConfig{Config: c, Grant: grant, Database: "postgres", Defaults: Defaults{"public", "postgres"},
		Parameters: map[string]string{"client_encoding": "UTF8", "standard_conforming_strings": "on"}, Status: 'I'})
	return &driver{engine: e, gate: g}
}

// fakeWorld is a world without a backend.
func fakeWorld(t testing.TB) *world {
	return &world{t: t, catalog: testCatalog(), who: &flow.Principal{Issuer: "https://idp.test", Subject: "ann", User: "ann@example.com"}}
}
