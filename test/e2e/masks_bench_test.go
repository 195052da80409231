package e2e

import (
	"regexp"
	"slices"
	"strconv"
	"testing"
)

var rate = regexp.MustCompile(`tps = ([0-9.]+)`)

// BenchmarkMasks compares pgbench -S of three people in one run, in turn: one for whom
// nothing is masked, one for whom another table's column is (and every text is
// searched by a detector), and one for whom the column is that it reads. The medians
// are metrics; ratios are against the first.
func BenchmarkMasks(b *testing.B) {
	initBench(b)
	people := []string{"plain", "bench", "masked"}
	for _, mode := range []string{"simple", "prepared"} {
		b.Run(mode, func(b *testing.B) {
			const rounds, seconds = 7, "4"
			tps := map[string][]float64{}
			for range rounds {
				for _, who := range people {
					out, err := pgbenchAs(b, who, "-n", "-S", "-c", "8", "-j", "2", "-T", seconds, "-M", mode)
					m := rate.FindStringSubmatch(out)
					if err != nil || m == nil {
						b.Fatalf("%v: %s", err, out)
					}
					n, _ := strconv.ParseFloat(m[1], 64)
					tps[who] = append(tps[who], n)
				}
			}
			median := func(who string) float64 {
				list := slices.Sorted(slices.Values(tps[who]))
				return list[len(list)/2]
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median("plain"), "tps")
			b.ReportMetric(median("bench")/median("plain"), "elsewhere-ratio")
			b.ReportMetric(median("masked")/median("plain"), "read-ratio")
		})
	}
}
