package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
)

// BenchmarkStatement is one simple query and one extended execution through engine
// and gate, with the analyser and the recorder in memory.
func BenchmarkStatement(b *testing.B) {
	w := fakeWorld(b)
	query, answer := clientBytes("Q select 1"), serverBytes("T a | D 1 | C SELECT 1 | Z I")
	execute, result := clientBytes("B - s 1 | E - | S"), serverBytes("2 | D 1 | C SELECT 1 | Z I")
	run := func(name string, client, server []byte) {
		b.Run(name, func(b *testing.B) {
			withGate(b, w, func(g *session.Gate, grant session.Grant) {
				d := testEngine(b, w, g, grant)
				d.client(clientBytes("P s select 1 | S"))
				d.server(serverBytes("1 | Z I"))
				var out session.Output
				b.ReportAllocs()
				for b.Loop() {
					for rest := client; len(rest) > 0; {
						n, err := d.engine.Client(rest, &out)
						if err != nil {
							b.Fatal(err)
						}
						rest = rest[n:]
						if q := d.engine.Pending(); q != nil {
							a := &session.Answered{}
							a.Actions, a.Extra = q.Resolve(context.Background())
							a.Decision = g.Decide(context.Background(), q.Mode, a.Actions)
							if err := d.engine.Answer(a, &out); err != nil {
								b.Fatal(err)
							}
						}
					}
					if err := d.engine.Server(server, &out); err != nil {
						b.Fatal(err)
					}
					out = session.Output{}
					w.events = w.events[:0]
				}
			})
		})
	}
	run("simple", query, answer)
	run("extended", execute, result)
}

// BenchmarkRows is the server's side of a result, in reads of 64 KiB.
func BenchmarkRows(b *testing.B) {
	row := serverBytes("D 1234567," + strings.Repeat("some plain text ", 11) + ",2026-11-23 10:00:00")
	rows := []byte(strings.Repeat(string(row), (64<<10)/len(row)))
	for _, test := range []struct {
		name  string
		masks []*policy.Mask
	}{{"plain", nil}, {"columns", cards}, {"detectors", detect}} {
		b.Run(test.name, func(b *testing.B) {
			w := fakeWorld(b)
			w.masks = test.masks
			withGate(b, w, func(g *session.Gate, grant session.Grant) {
				d := testEngine(b, w, g, grant)
				d.client(clientBytes("Q select id, item from shop.orders"))
				d.server(serverBytes("T id:20004:1:23,item:20004:2:25,at:0:0:1114"))
				if d.err != nil {
					b.Fatal(d.err)
				}
				b.SetBytes(int64(len(rows)))
				b.ReportAllocs()
				var out session.Output
				for b.Loop() {
					if err := d.engine.Server(rows, &out); err != nil {
						b.Fatal(err)
					}
					if n := out.ToClient.Len(); n != len(rows) {
						b.Fatal(fmt.Sprint(n, " bytes"))
					}
					out = session.Output{}
				}
			})
		})
	}
}
