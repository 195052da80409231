package seal_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/weirproxy/weir/internal/seal"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// benchEvent is an outcome as a psql session makes them: about 600 bytes of JSON.
func benchEvent() *auditlog.Event {
	ev := event("SELECT id, total FROM shop.orders WHERE customer_id = $1 AND created > $2 ORDER BY created DESC LIMIT 20")
	ev.Session, ev.Backend, ev.Protocol, ev.Destination, ev.Database, ev.Login = "01JD8M3K9QZ4V5W6X7Y8Z9A0B3", "orders", "postgres", "127.0.0.1:5432", "shop", "weir_app"
	ev.Principal = &auditlog.Principal{Issuer: "https://idp.example.com", Subject: "CgNhbm4SBGxkYXA", User: "ann@example.com", Groups: []string{"developer"}, Kind: "human", TokenID: "sha256:0123456789abcdef"}
	ev.Action.Digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	return ev
}

const benchEvents = 200_000

func benchSpool(b *testing.B) string {
	dir := b.TempDir()
	spool := openSpool(b, dir, 64<<20)
	for range benchEvents / 100 {
		batch := make([]*auditlog.Event, 100)
		for i := range batch {
			batch[i] = benchEvent()
		}
		if err := spool.Append(context.Background(), false, batch...); err != nil {
			b.Fatal(err)
		}
	}
	if err := spool.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkSeal seals what is in a spool.
func BenchmarkSeal(b *testing.B) {
	dir := benchSpool(b)
	for b.Loop() {
		b.StopTimer()
		if err := os.RemoveAll(auditlog.TilesDir(dir)); err != nil {
			b.Fatal(err)
		}
		if err := os.RemoveAll(auditlog.HeadsFile(dir)); err != nil {
			b.Fatal(err)
		}
		spool := openSpool(b, dir, 64<<20)
		b.StartTimer()
		sealer, err := seal.Open(seal.Config{StateDir: dir, Spool: spool})
		if err == nil {
			err = sealer.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		spool.Close()
		b.StartTimer()
	}
	var bytes int64
	err := filepath.WalkDir(auditlog.TilesDir(dir), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			info, e := d.Info()
			if e != nil {
				return e
			}
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(benchEvents*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(bytes)/benchEvents, "B/event")
}

// BenchmarkVerify verifies a sealed log and the spool beside it.
func BenchmarkVerify(b *testing.B) {
	dir := benchSpool(b)
	spool := openSpool(b, dir, 64<<20)
	closeAll(b, spool, openSealer(b, seal.Config{StateDir: dir, Spool: spool}))
	for b.Loop() {
		wantIntact(b, dir)
	}
	b.ReportMetric(benchEvents*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	if err := os.RemoveAll(auditlog.SpoolDir(dir)); err != nil {
		b.Fatal(err)
	}
}
