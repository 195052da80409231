package audit_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// benchIntent is an intent as a psql session makes them: about 600 bytes of JSON.
func benchIntent() *auditlog.Event {
	ev := intent("01JD8M3K9QZ4V5W6X7Y8Z9A0B1", "01JD8M3K9QZ4V5W6X7Y8Z9A0B2")
	ev.Session, ev.Backend, ev.Protocol, ev.Destination, ev.Database, ev.Login = "01JD8M3K9QZ4V5W6X7Y8Z9A0B3", "orders", "postgres", "127.0.0.1:5432", "shop", "weir_app"
	ev.Principal = &auditlog.Principal{Issuer: "https://idp.example.com", Subject: "CgNhbm4SBGxkYXA", User: "ann@example.com", Groups: []string{"developer"}, Kind: "human", TokenID: "sha256:0123456789abcdef"}
	ev.Action.Resources = []string{"shop.orders"}
	ev.Action.Text = "SELECT id, total FROM shop.orders WHERE customer_id = $1 AND created > $2 ORDER BY created DESC LIMIT 20"
	ev.Action.Digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	return ev
}

func BenchmarkAppend(b *testing.B) {
	for _, durability := range []audit.Durability{audit.Process, audit.Disk} {
		for _, appenders := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", durability, appenders), func(b *testing.B) {
				s := open(b, audit.Config{StateDir: b.TempDir(), Durability: durability, CheckpointEvery: audit.DefaultCheckpointEvery})
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for a := range appenders {
					n := b.N / appenders
					if a < b.N%appenders {
						n++
					}
					wg.Go(func() {
						for range n {
							in := benchIntent()
							out := outcome(in.Flow, in.Action.ID)
							if err := s.Append(context.Background(), false, in); err != nil {
								b.Error(err)
								return
							}
							if err := s.Append(context.Background(), false, out); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds(), "events/s")
				closeSpool(b, s)
			})
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	s := open(b, audit.Config{StateDir: dir})
	for range 20000 {
		in := benchIntent()
		add(b, s, in, outcome(in.Flow, in.Action.ID))
	}
	closeSpool(b, s)
	b.ResetTimer()
	var rep *auditlog.Report
	for range b.N {
		rep = wantIntact(b, dir)
	}
	b.SetBytes(rep.Bytes)
	b.ReportMetric(float64(b.N)*float64(rep.Events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(rep.Bytes)/float64(rep.Events), "B/event")
}

// BenchmarkReplay is what a start costs after a crash with a full segment.
func BenchmarkReplay(b *testing.B) {
	dir := b.TempDir()
	s := open(b, audit.Config{StateDir: dir, SegmentBytes: 1 << 30})
	for range 65000 {
		in := benchIntent()
		add(b, s, in, outcome(in.Flow, in.Action.ID))
	}
	for b.Loop() {
		b.StopTimer()
		copied := clone(b, dir)
		b.StartTimer()
		closeSpool(b, open(b, audit.Config{StateDir: copied}))
	}
	closeSpool(b, s)
}
