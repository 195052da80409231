package mask

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// words for text without findings.
var words = strings.Fields(`the shop sends every order on the day that it was paid and tells the buyer when the parcel has left the house
	kettle lamp notebook umbrella teapot blanket clock invoice delivery address street city country please leave parcel neighbour thanks`)

// cleanText is more than the branch predictor can learn, of values of about 60
// bytes as a table of orders has them: words, small numbers, dates.
func cleanText(size int) [][]byte {
	r := rand.New(rand.NewPCG(5, 6))
	var values [][]byte
	for total := 0; total < size; {
		var b strings.Builder
		switch r.IntN(4) {
		case 0:
			fmt.Fprintf(&b, "2026-%02d-%02d %02d:%02d:%02d+00", 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60))
		case 1:
			fmt.Fprintf(&b, "%d", r.IntN(100000))
		default:
			for b.Len() < 90 {
				b.WriteString(words[r.IntN(len(words))])
				b.WriteByte(' ')
			}
		}
		values = append(values, []byte(b.String()))
		total += b.Len()
	}
	return values
}

func benchmarkScan(b *testing.B, values [][]byte, rules ...Rule) {
	s := compile(b, rules...)
	total := 0
	for _, v := range values {
		total += len(v)
	}
	b.SetBytes(int64(total))
	b.ReportAllocs()
	var buf [16]Span
	for b.Loop() {
		for _, v := range values {
			if len(s.Scan(buf[:0], v)) > 0 {
				b.Fatalf("found something in clean text: %q", v)
			}
		}
	}
}

func BenchmarkScanClean(b *testing.B) {
	values := cleanText(8 << 20)
	var all []Rule
	for _, d := range BuiltIns {
		all = append(all, Rule{d, Redact})
		b.Run(d, func(b *testing.B) { benchmarkScan(b, values, Rule{d, Redact}) })
	}
	b.Run("cards and mail", func(b *testing.B) { benchmarkScan(b, values, Rule{PaymentCard, Last4}, Rule{EmailAddr, Email}) })
	b.Run("contract", func(b *testing.B) { benchmarkScan(b, values, all[:6]...) })
	b.Run("all", func(b *testing.B) { benchmarkScan(b, values, all...) })
	b.Run("pattern", func(b *testing.B) { benchmarkScan(b, values, Rule{"employee", Redact}) })
	prose := make([][]byte, 0, len(values))
	for _, v := range values {
		if !isDigit(v[0]) {
			prose = append(prose, v)
		}
	}
	b.Run("all, prose", func(b *testing.B) { benchmarkScan(b, prose, all...) })
}

func BenchmarkColumn(b *testing.B) {
	key, err := NewKey(make([]byte, KeySize))
	if err != nil {
		b.Fatal(err)
	}
	card := []byte("4111 1111 1111 1111")
	for m := Last4; m <= Null; m++ {
		b.Run(m.String(), func(b *testing.B) {
			c := NewColumn(Text, TextFormat, m, key, nil)
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf, _ = c.AppendMasked(buf[:0], card)
			}
		})
	}
	s := compile(b, Rule{PaymentCard, Last4}, Rule{EmailAddr, Email})
	for name, v := range map[string]string{"hit": "paid with 4111 1111 1111 1111 by phone", "short": "kettle"} {
		b.Run("detect "+name, func(b *testing.B) {
			c := NewColumn(Text, TextFormat, 0, nil, s)
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf, _ = c.AppendMasked(buf[:0], []byte(v))
			}
		})
	}
}

func BenchmarkCopyText(b *testing.B) {
	s := compile(b, Rule{PaymentCard, Last4})
	var cols []*Column
	for range 4 {
		cols = append(cols, NewColumn(Text, TextFormat, 0, nil, s))
	}
	row := []byte("12345\tkettle and lamp, please leave with the neighbour\t2026-01-05 09:00:00+00\t19.90\n")
	c, err := NewCopy(CopyFormat{}, cols)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	for b.Loop() {
		if _, changed, err := c.Append(nil, row); changed || err != nil {
			b.Fatal(changed, err)
		}
	}
}
