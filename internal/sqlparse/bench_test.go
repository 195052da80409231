package sqlparse

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

var benchSession = sqlmeta.Session{Database: "shop", Role: "weir_app", SearchPath: []string{"public"}, Certain: true, StandardConformingStrings: true}

const pointSelect = "SELECT abalance FROM pgbench_accounts WHERE aid = $1;"

func newAnalyzer(tb testing.TB) *Analyzer {
	p, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return &Analyzer{Pool: p, Cache: NewCache(0)}
}

func BenchmarkHit(b *testing.B) {
	a := newAnalyzer(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Analyze(context.Background(), pointSelect, benchSession, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMiss(b *testing.B) {
	a := newAnalyzer(b)
	a.Cache = nil
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Analyze(context.Background(), pointSelect, benchSession, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAnalyze(b *testing.B) {
	tree, err := pg_query.Parse(pointSelect)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		sqlmeta.Analyze(tree, pointSelect, benchSession, nil)
	}
}

// BenchmarkDecode measures what MaxTree rests on: memory of a decoded tree for
// each byte of it on the wire.
func BenchmarkDecode(b *testing.B) {
	for name, sql := range map[string]string{
		"columns": "select " + strings.Repeat("a,", 20000) + "a",
		"values":  "insert into t values " + strings.Repeat("(1,'some text',null),", 3000) + "(1,'a',null)",
		"params":  "insert into t values " + strings.Repeat("($1,$2,$3),", 5000) + "(1,'a',null)",
		"many":    strings.Repeat("select 1;", 4000),
		"or":      "select * from t where a = 1" + strings.Repeat(" or a = 1", 1500),
	} {
		raw, err := parser.ParseToProtobuf(sql)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			var before, after runtime.MemStats
			var keep *pg_query.ParseResult
			for b.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				keep = &pg_query.ParseResult{}
				if err := proto.Unmarshal(raw, keep); err != nil {
					b.Fatal(err)
				}
				runtime.ReadMemStats(&after)
			}
			runtime.KeepAlive(keep)
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(len(raw)), "heap/tree")
			b.ReportMetric(float64(len(raw))/float64(len(sql)), "tree/text")
		})
	}
}
