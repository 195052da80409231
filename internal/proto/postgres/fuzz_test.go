package postgres

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/jackc/pgproto3/v2"

	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// FuzzDecode: whatever the validators let through, pgproto3 v2 decodes without a
// panic and with memory in proportion.
func FuzzDecode(f *testing.F) {
	f.Add(byte('Q'), []byte("select 1\x00"))
	f.Add(byte('Q'), []byte{})
	f.Add(byte('P'), []byte("a\x00b\x00\x00\x01\x00\x00\x00\x17"))
	f.Add(byte('P'), []byte("a\x00b\x00\xff\xff"))
	f.Add(byte('T'), []byte{0xff, 0xff})
	f.Add(byte('T'), serverBytes("T a:1:2,b:3:4")[5:])
	f.Add(byte('E'), serverBytes("E 22012 x~y~z")[5:])
	f.Add(byte('G'), []byte{0, 0xff, 0xff})
	f.Add(byte('A'), []byte{0, 0, 0, 1, 'x'})
	f.Add(byte('S'), []byte("a\x00"))
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		client := map[byte]pgproto3.FrontendMessage{'Q': &pgproto3.Query{}, 'P': &pgproto3.Parse{}, 'D': &pgproto3.Describe{},
			'C': &pgproto3.Close{}, 'E': &pgproto3.Execute{}, 'f': &pgproto3.CopyFail{}}
		server := map[byte]pgproto3.BackendMessage{'T': &pgproto3.RowDescription{}, 'E': &pgproto3.ErrorResponse{}, 'N': &pgproto3.NoticeResponse{},
			'C': &pgproto3.CommandComplete{}, 'S': &pgproto3.ParameterStatus{}, 'A': &pgproto3.NotificationResponse{}, 'Z': &pgproto3.ReadyForQuery{},
			'G': &pgproto3.CopyInResponse{}, 'H': &pgproto3.CopyOutResponse{}}
		if m := client[kind]; m != nil && validateClient(kind, body) {
			if err := m.Decode(body); err != nil {
				t.Errorf("client %q: a valid body is not decoded: %v", kind, err)
			}
		}
		if m := server[kind]; m != nil && validateServer(kind, body) {
			if err := m.Decode(body); err != nil {
				t.Errorf("server %q: a valid body is not decoded: %v", kind, err)
			}
		}
		scanCall(body, nil)
		if validateServer('E', body) {
			errorCode(body)
		}
	})
}

func FuzzStartup(f *testing.F) {
	for _, seed := range [][]byte{startupPacket(version30, "user", "x", "options", `-c a=b --c=d\ e -c`), startupPacket(version30+5, "user", "x", "_pq_.y", ""),
		startupPacket(version30), startupPacket(2 << 16), {0, 3, 0, 0, 0, 0}} {
		f.Add(seed[min(4, len(seed)):])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStartup(b)
		if err != nil {
			return
		}
		if s.database == "" || len(s.database) > maxIdentifier {
			t.Errorf("database %q", s.database)
		}
		for name := range s.params {
			if !allowedParameters[name] {
				t.Errorf("parameter %q came through", name)
			}
		}
	})
}

// FuzzBind: the scanner takes what v2's encoder makes, in any pieces, and its answer
// does not depend on the pieces.
func FuzzBind(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1, 0, 1, 0, 0, 0, 2, 'a', 'b', 0, 1, 0, 0}, uint8(3))
	f.Add([]byte{0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0}, uint8(1))
	f.Add([]byte{0xff, 0xff, 0xff}, uint8(1))
	f.Add([]byte{0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff}, uint8(2))
	f.Fuzz(func(t *testing.T, body []byte, piece uint8) {
		whole := newBindScanner(int64(len(body)))
		errWhole := whole.feed(body)
		cut := newBindScanner(int64(len(body)))
		var errCut error
		for rest := body; len(rest) > 0 && errCut == nil; {
			k := min(len(rest), int(piece%7)+1)
			errCut = cut.feed(rest[:k])
			rest = rest[k:]
		}
		if errWhole == nil && (errCut != nil || whole.whole() != cut.whole()) {
			t.Fatalf("whole %v cut %v", errWhole, errCut)
		}
		if errWhole == nil && whole.whole() {
			a, b := whole.rec.done(), cut.rec.done()
			if len(a) != len(b) {
				t.Fatalf("params %d and %d", len(a), len(b))
			}
			for i := range a {
				if a[i] != b[i] {
					t.Errorf("param %d: %q and %q", i, a[i], b[i])
				}
			}
			var m pgproto3.Bind
			if err := decode(&m, append([]byte{0, 0}, body...)); err != nil && len(whole.codes) < 4 {
				t.Errorf("v2 does not read what the scanner takes: %v", err)
			}
		}
	})
}

// FuzzRow: a row comes out whole, with as many values, whatever is masked.
func FuzzRow(f *testing.F) {
	f.Add(serverBytes("D 4111 1111 1111 1111,x,NULL")[5:])
	f.Add([]byte{0, 3, 0, 0, 0, 1})
	f.Add([]byte{0, 3, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0})
	set, err := newMaskSet(&MaskConfig{}, []*policy.Mask{cards[0], detect[0]}, testCatalog())
	if err != nil {
		f.Fatal(err)
	}
	st := &sqlmeta.Statement{}
	columns := []Column{{Name: "card", Relation: 20001, Attr: 2, Type: 25}, {Name: "note", Type: 25}, {Name: "n", Relation: 20001, Attr: 2, Type: 23}}
	f.Fuzz(func(t *testing.T, body []byte) {
		p := set.newPlan(columns, st)
		prefix := []byte("prefix")
		out, changed, err := p.appendRow(prefix, body)
		if err != nil {
			return
		}
		if !changed {
			if !bytes.Equal(out, prefix) {
				t.Error("an unchanged row left something behind")
			}
			return
		}
		frame := out[len(prefix):]
		if int(binary.BigEndian.Uint32(frame[1:])) != len(frame)-1 {
			t.Fatal("the length does not fit")
		}
		var a, b pgproto3.DataRow
		if decode(&a, frame[headerLen:]) != nil || decode(&b, body) != nil || len(a.Values) != len(b.Values) {
			t.Fatal("the row is not one any more")
		}
		if a.Values[2] != nil {
			t.Error("an integer was masked to a text")
		}
	})
}

// FuzzEngine feeds both sides with bytes in pieces: no panic, no memory without
// bounds, and whatever comes out is whole messages.
func FuzzEngine(f *testing.F) {
	for _, c := range conversations {
		var all []byte
		for _, s := range c.steps {
			b := serverBytesOf(s)
			side := byte(0)
			if s.client == "" {
				side = 1
			}
			for len(b) > 0 {
				k := min(len(b), 0x3fff)
				all = binary.BigEndian.AppendUint16(append(all, side), uint16(k))
				all = append(all, b[:k]...)
				b = b[k:]
			}
		}
		f.Add(all)
	}
	w := fakeWorld(f)
	w.masks = append(append([]*policy.Mask(nil), cards...), detect...)
	f.Fuzz(func(t *testing.T, script []byte) {
		w.mu.Lock()
		w.events = nil
		w.mu.Unlock()
		withGate(t, w, func(g *session.Gate, grant session.Grant) {
			d := testEngine(t, w, g, grant)
			for len(script) >= 3 && d.err == nil {
				side, n := script[0], int(binary.BigEndian.Uint16(script[1:]))
				script = script[3:]
				n = min(n, len(script))
				if side&1 == 0 {
					d.client(script[:n])
				} else {
					d.server(script[:n])
				}
				script = script[n:]
			}
			d.engine.End(&d.out)
			d.take()
			tickets := map[session.Ticket]bool{}
			for _, o := range d.outcomes {
				if tickets[o.Ticket] {
					t.Error("one action ended twice")
				}
				tickets[o.Ticket] = true
			}
			checkFrames(t, d.toServer)
			if len(d.engine.held) > maxStatement+maxHead || len(d.engine.sheld) > maxRow+headerLen {
				t.Error("too much is held")
			}
		})
	})
}

// checkFrames fails unless b is whole frames, the last one perhaps begun.
func checkFrames(t *testing.T, b []byte) {
	t.Helper()
	for len(b) >= headerLen {
		n := int64(binary.BigEndian.Uint32(b[1:])) + 1
		if n < headerLen {
			t.Fatalf("the engine sent a frame of length %d", n)
		}
		if n > int64(len(b)) {
			return
		}
		b = b[n:]
	}
}
