package evidence

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// large writes a log with about that many events.
func large(t testing.TB, events int) *node {
	n := newNode(t)
	n.log(auditlog.Event{Kind: auditlog.AgentStart}, policyLoad(policyV1))
	for i := 0; len(n.leaves) < events; i++ {
		who := principal(fmt.Sprint("user", i%50), "developer")
		ev := auditlog.Event{Kind: auditlog.ActionEvent, Time: start.Add(time.Duration(len(n.leaves)) * time.Millisecond), Flow: fmt.Sprint("f", i%200), Session: fmt.Sprint("s", i%50), Principal: who,
			Backend: "orders", Protocol: "postgres", Destination: "10.0.0.5:5432", Database: "shop", Login: "app", Verdict: "allow", Rule: "developers read the shop",
			Action: &auditlog.Action{ID: fmt.Sprint("a", i), Phase: auditlog.PhaseIntent, Verbs: []string{"select"}, Resources: []string{"shop.customers"},
				Text: fmt.Sprintf("select name, card from shop.customers where id = %d and region = 'north'", i)}}
		out := ev
		out.Action = &auditlog.Action{ID: ev.Action.ID, Phase: auditlog.PhaseOutcome}
		out.Verdict, out.Rule, out.Time = "", "", ev.Time.Add(time.Millisecond)
		out.Result = &auditlog.Result{Status: "ok", Rows: 3, Bytes: 120, DurationUS: 900}
		out.Masks = []auditlog.Mask{{Column: "shop.customers.card", Method: "last4", Source: "origin", Count: 3}}
		n.log(ev, out)
	}
	n.seal(true)
	return n
}

// BenchmarkPack exports and verifies 100,000 events (WEIR_EVENTS: as many).
func BenchmarkPack(b *testing.B) {
	events := 100_000
	if text := os.Getenv("WEIR_EVENTS"); text != "" {
		_, _ = fmt.Sscan(text, &events)
	}
	n := large(b, events)
	n.events = nil
	c := n.config(start.Add(-time.Hour), start.Add(1000*time.Hour))
	c.Sample, c.Seed = 25, "x"
	for b.Loop() {
		began := time.Now()
		path := b.TempDir() + "/pack.zip"
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		m, _, err := Export(b.Context(), c, f)
		if err != nil {
			b.Fatal(err)
		}
		exported := time.Since(began)
		st, _ := f.Stat()
		peak := make(chan uint64)
		stop := make(chan struct{})
		go func() {
			high := uint64(0)
			for {
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				high = max(high, s.HeapInuse)
				select {
				case <-stop:
					peak <- high
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		}()
		began = time.Now()
		r, err := Verify(b.Context(), f, st.Size(), &n.key, "test")
		close(stop)
		high := <-peak
		if err != nil || !r.Intact {
			b.Fatal(err, r)
		}
		f.Close()
		b.ReportMetric(float64(m.Events)/exported.Seconds(), "exported/s")
		b.ReportMetric(float64(m.Events)/time.Since(began).Seconds(), "verified/s")
		b.ReportMetric(float64(st.Size())/float64(m.Events), "packbytes/event")
		b.ReportMetric(float64(high)/(1<<20), "heapMiB")
	}
}
