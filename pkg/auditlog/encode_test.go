package auditlog

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// encode is the whole JSON of an event by this package's encoder.
func encode(t testing.TB, ev *Event) ([]byte, error) {
	t.Helper()
	return AppendEventBody(AppendEventHead(nil, ev.Seq, ev.Time), ev)
}

// FuzzEncode fills events from the fuzzer's choices: the encoder writes what
// encoding/json writes, and fails when it fails.
func FuzzEncode(f *testing.F) {
	f.Add(uint64(1), uint64(0), "select 1", int64(0))
	f.Add(uint64(2), uint64(3), "<&>\"\\\u2028\u2029\b\f\n\r\t\x00\x1f\x7f\xff\xe2\x80", int64(1795417654123456789))
	f.Add(uint64(3), uint64(5), "\xed\xa0\x80 é 語 \U0001F600", int64(-1))
	f.Add(uint64(4), uint64(7), "", int64(1795417654000000000))
	f.Fuzz(func(t *testing.T, seed1, seed2 uint64, text string, nanos int64) {
		rnd := rand.New(rand.NewPCG(seed1, seed2))
		ev := new(Event)
		fill(rnd, reflect.ValueOf(ev).Elem(), text, nanos, 0)
		ev.V, ev.Time = Version, time.Unix(0, nanos).UTC()
		want, wantErr := json.Marshal(ev)
		got, err := encode(t, ev)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("error %v, encoding/json says %v", err, wantErr)
		}
		if err == nil && string(got) != string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
		if seq, ok := seqOf(got); err == nil && (!ok || seq != ev.Seq) {
			t.Fatalf("seq %d %v, want %d", seq, ok, ev.Seq)
		}
		if at, ok := timeOf(got); err == nil && (!ok || !at.Equal(ev.Time)) {
			t.Fatalf("time %v %v, want %v", at, ok, ev.Time)
		}
	})
}

// fill gives every field, found by reflection so that a new one is not forgotten,
// a value or leaves it empty.
func fill(rnd *rand.Rand, v reflect.Value, text string, nanos int64, depth int) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		at := time.Unix(0, nanos).UTC()
		if rnd.IntN(20) == 0 {
			at = at.AddDate(9000, 0, 0) // beyond RFC 3339
		} else if rnd.IntN(2) == 0 {
			at = at.In(time.FixedZone("x", 3600))
		}
		v.Set(reflect.ValueOf(at))
		return
	}
	if v.Kind() != reflect.Struct && rnd.IntN(4) == 0 {
		return
	}
	if v.Type() == reflect.TypeFor[json.RawMessage]() {
		v.SetBytes([]byte(`{"a":"b"}`))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(rnd, v.Field(i), text, nanos, depth+1)
		}
	case reflect.Pointer:
		if depth > 6 {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(rnd, v.Elem(), text, nanos, depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rnd.IntN(3), 3))
		for i := range v.Len() {
			fill(rnd, v.Index(i), text, nanos, depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(text).Convert(v.Type().Key()), reflect.ValueOf(rnd.Uint64()))
	case reflect.String:
		if n := len(text); n > 0 {
			v.SetString(text[rnd.IntN(n):])
		}
	case reflect.Bool:
		v.SetBool(rnd.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(rnd.Int64() >> rnd.IntN(64))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(uint32(rnd.Uint64())))
	default:
		panic("fill: no values for " + v.Type().String())
	}
}

func TestEncodeMany(t *testing.T) {
	for i := range uint64(5000) {
		rnd := rand.New(rand.NewPCG(i, 1))
		ev := new(Event)
		fill(rnd, reflect.ValueOf(ev).Elem(), "a<\"\xff\u2028é\n\x01", int64(i)*1e15+int64(i%7), 0)
		ev.V = Version
		ev.Time = time.Unix(int64(i), int64(i%3)*1000).UTC()
		want, wantErr := json.Marshal(ev)
		got, err := encode(t, ev)
		if (err != nil) != (wantErr != nil) || (err == nil && string(got) != string(want)) {
			t.Fatalf("got  %s %v\nwant %s %v", got, err, want, wantErr)
		}
	}
}

// TestEncodeAllocatesNothing: it is on the path of every action.
func TestEncodeAllocatesNothing(t *testing.T) {
	ev := fullEvent()
	buf := make([]byte, 0, 4<<10)
	if n := testing.AllocsPerRun(100, func() {
		buf, _ = AppendEventBody(AppendEventHead(buf[:0], ev.Seq, ev.Time), ev)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// fullEvent is an intent with all that an SQL statement can have.
func fullEvent() *Event {
	ev, left := sampleEvent(1), int64(19)
	ev.Action.Verbs, ev.Action.Resources = []string{"select", "call"}, []string{"shop.orders", "function:shop.f"}
	ev.Action.Accesses = []Access{{Verb: "select", Resource: "shop.orders"}, {Verb: "call", Resource: "function:shop.f"}}
	ev.Action.Functions, ev.Action.Languages, ev.Action.SecurityDefiner = []string{"shop.f"}, []string{"plpgsql"}, true
	ev.Action.Columns = &Columns{Read: []string{"shop.orders.id"}, Tested: []string{"shop.orders.email"}}
	ev.Action.Tests = []Test{{Policy: "shop", Mask: "mail", Column: "shop.orders.email", Tests: 1, Left: &left}}
	return ev
}

func BenchmarkEncode(b *testing.B) {
	ev := sampleEvent(1)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = AppendEventBody(AppendEventHead(buf[:0], ev.Seq, ev.Time), ev)
	}
	b.SetBytes(int64(len(buf)))
}
