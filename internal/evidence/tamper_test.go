package evidence

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/weirproxy/weir/pkg/auditlog"
)

func intact(t testing.TB, pack []byte, key *auditlog.PublicKey) bool {
	r, err := Verify(t.Context(), bytes.NewReader(pack), int64(len(pack)), key, "test")
	return err == nil && r.Intact
}

// TestBytes changes single bytes: 200 at random, and each byte of the file's end
// and of what surrounds the members.
func TestBytes(t *testing.T) {
	n := world(t)
	pack := n.export(morning(n))
	if !intact(t, pack, &n.key) {
		t.Fatal("the pack is not intact as it is")
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	places := make([]int, 0, 600)
	for range 200 {
		places = append(places, rnd.IntN(len(pack)))
	}
	for i := range 60 { // a header, and the end
		places = append(places, i, len(pack)-1-i)
	}
	a, err := openArchive(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	note := a.list[len(a.list)-1]
	for i := note.data(); i < note.end(); i++ {
		places = append(places, int(i))
	}
	for _, i := range places {
		bad := bytes.Clone(pack)
		bad[i] ^= byte(1 + rnd.IntN(255))
		if intact(t, bad, &n.key) {
			t.Errorf("byte %d was changed, and nobody sees it", i)
		}
		if intact(t, bad, nil) {
			t.Errorf("byte %d was changed, and nobody sees it without the key", i)
		}
	}
	for range 30 {
		if cut := rnd.IntN(len(pack)); intact(t, pack[:cut], &n.key) {
			t.Errorf("cut at %d, and nobody sees it", cut)
		}
	}
	for _, more := range []string{"\x00", "x", string(pack[len(pack)-22:]), string(pack)} {
		if intact(t, append(bytes.Clone(pack), more...), &n.key) || intact(t, append([]byte(more), pack...), &n.key) {
			t.Errorf("%d bytes more, and nobody sees them", len(more))
		}
	}
}

// file is a member that a forger handles.
type forged struct {
	name string
	data []byte
}

func unpack(t testing.TB, pack []byte) []forged {
	z, err := zip.NewReader(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	var list []forged
	for _, f := range z.File {
		list = append(list, forged{f.Name, memberOf(t, pack, f.Name)})
	}
	return list
}

// forge packs members in the form that packs have. With sign it makes a manifest
// that fits, as somebody with the node's key but without its log could.
func (n *node) forge(list []forged, sign func([]byte) ([]byte, error)) []byte {
	var b bytes.Buffer
	p := newPacker(&b)
	var m Manifest
	for i, f := range list {
		if sign != nil && (f.name == manifestFile || f.name == noteFile) {
			if f.name == manifestFile {
				if err := json.Unmarshal(f.data, &m); err != nil {
					n.t.Fatal(err)
				}
			}
			continue
		}
		if f.name == manifestFile || f.name == noteFile {
			if err := p.store(f.name, f.data); err != nil {
				n.t.Fatal(err)
			}
			continue
		}
		var packed bytes.Buffer
		w, _ := flate.NewWriter(&packed, flate.DefaultCompression)
		_, _ = w.Write(f.data)
		_ = w.Close()
		if err := p.add(entry{name: list[i].name, method: methodDeflate, crc: crc32.ChecksumIEEE(f.data), packed: uint32(packed.Len()), size: uint32(len(f.data))}, &packed); err != nil {
			n.t.Fatal(err)
		}
	}
	if sign != nil {
		abouts := map[string]string{}
		for _, x := range m.Members {
			abouts[x.Name] = x.About
		}
		m.Members = nil
		for _, f := range list {
			if f.name == manifestFile || f.name == noteFile {
				continue
			}
			sum := sha256.Sum256(f.data)
			m.Members = append(m.Members, Member{f.name, int64(len(f.data)), hexOf(sum[:]), abouts[f.name]})
			if f.name == eventsFile {
				m.Events = uint64(bytes.Count(f.data, []byte("\n")))
			}
		}
		m.Before = Before{p.at, hexOf(p.sum.Sum(nil))}
		text, _ := m.encode()
		note, err := sealManifest(n.key, sign, text)
		if err != nil {
			n.t.Fatal(err)
		}
		_ = p.store(manifestFile, text)
		_ = p.store(noteFile, note)
	}
	if err := p.close(); err != nil {
		n.t.Fatal(err)
	}
	return b.Bytes()
}

// structural changes to a list of members.
func changes(rnd *rand.Rand) map[string]func([]forged) []forged {
	of := func(list []forged, name string) *forged {
		for i := range list {
			if list[i].name == name {
				return &list[i]
			}
		}
		return nil
	}
	all := map[string]func([]forged) []forged{}
	lineChange := func(name string, f func(lines [][]byte) [][]byte) func([]forged) []forged {
		return func(list []forged) []forged {
			m := of(list, name)
			lines := bytes.SplitAfter(m.data, []byte("\n"))
			m.data = bytes.Join(f(lines[:len(lines)-1]), nil)
			return list
		}
	}
	for _, name := range []string{eventsFile, proofsFile, sampleFile, contextFile, headsFile, "ocsf.jsonl", "tables/events.csv", "tables/limits.csv"} {
		all["swap lines of "+name] = lineChange(name, func(l [][]byte) [][]byte {
			i := rnd.IntN(len(l) - 1)
			l[i], l[i+1] = l[i+1], l[i]
			return l
		})
		all["remove a line of "+name] = lineChange(name, func(l [][]byte) [][]byte { return slices.Delete(l, len(l)/2, len(l)/2+1) })
		all["remove the last line of "+name] = lineChange(name, func(l [][]byte) [][]byte { return l[:len(l)-1] })
		all["double a line of "+name] = lineChange(name, func(l [][]byte) [][]byte {
			i := rnd.IntN(len(l))
			return slices.Insert(l, i, l[i])
		})
		all["cut the last newline of "+name] = lineChange(name, func(l [][]byte) [][]byte {
			l[len(l)-1] = bytes.TrimRight(l[len(l)-1], "\r\n")
			return l
		})
	}
	all["rename a user"] = func(list []forged) []forged {
		m := of(list, eventsFile)
		m.data = bytes.Replace(m.data, []byte("ana@example.com"), []byte("eve@example.com"), 1)
		return list
	}
	all["add an event"] = func(list []forged) []forged {
		m := of(list, eventsFile)
		m.data = append(m.data, `{"v":1,"seq":82,"time":"2026-11-26T11:00:01Z","node":"node-a","kind":"agent.stop"}`+"\n"...)
		return list
	}
	all["remove a member"] = func(list []forged) []forged { return list[1:] }
	all["remove the events"] = func(list []forged) []forged {
		return slices.DeleteFunc(list, func(f forged) bool { return f.name == eventsFile })
	}
	all["remove the context"] = func(list []forged) []forged {
		return slices.DeleteFunc(list, func(f forged) bool { return f.name == contextFile })
	}
	all["add a member"] = func(list []forged) []forged { return append([]forged{{"note.txt", []byte("all is well\n")}}, list...) }
	all["add a table"] = func(list []forged) []forged { return append([]forged{{"tables/zz.csv", []byte("a\r\n")}}, list...) }
	all["swap two members"] = func(list []forged) []forged {
		list[0].data, list[1].data = list[1].data, list[0].data
		return list
	}
	all["swap the order"] = func(list []forged) []forged {
		list[0], list[1] = list[1], list[0]
		return list
	}
	all["rename a member"] = func(list []forged) []forged {
		list[0].name = "readme2.txt"
		return list
	}
	all["say there are no limits"] = func(list []forged) []forged {
		m := of(list, "tables/limits.csv")
		m.data = m.data[:bytes.IndexByte(m.data, '\n')+1]
		return list
	}
	all["another report"] = func(list []forged) []forged {
		m := of(list, "index.html")
		m.data = bytes.Replace(m.data, []byte("warnings"), []byte("warnlngs"), 1)
		return list
	}
	all["another range"] = func(list []forged) []forged {
		m := of(list, rangeFile)
		m.data = bytes.Replace(m.data, []byte(`"from_index": 4`), []byte(`"from_index": 5`), 1)
		return list
	}
	all["another key"] = func(list []forged) []forged {
		other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
		of(list, keyFile).data = []byte(auditlog.PublicKey{Name: "node-a/weir-spool", Key: other.Public().(ed25519.PublicKey)}.String() + "\n")
		return list
	}
	return all
}

// TestStructure changes packs as a whole; and again with a manifest that somebody
// with the key signed for the changed pack: then the log's own tree head speaks
// against it.
func TestStructure(t *testing.T) {
	n := world(t)
	pack := n.export(morning(n))
	if !intact(t, n.forge(unpack(t, pack), nil), &n.key) {
		t.Fatal("the forger's own form is not that of packs, so the test proves nothing")
	}
	sign := func(text []byte) ([]byte, error) { return ed25519.Sign(n.private, text), nil }
	if !intact(t, n.forge(unpack(t, pack), sign), &n.key) {
		t.Fatal("the forger's manifest is none, so the test proves nothing")
	}
	all := changes(rand.New(rand.NewPCG(1, 2)))
	if len(all) < 50 {
		t.Errorf("only %d changes", len(all))
	}
	for name, change := range all {
		before := unpack(t, pack)
		list := change(unpack(t, pack))
		if slices.EqualFunc(before, list, func(a, b forged) bool { return a.name == b.name && bytes.Equal(a.data, b.data) }) {
			t.Errorf("%s: nothing was changed", name)
		}
		if intact(t, n.forge(list, nil), &n.key) {
			t.Errorf("%s: nobody sees it", name)
		}
		if intact(t, n.forge(list, sign), &n.key) {
			t.Errorf("%s, signed anew: nobody sees it", name)
		}
	}
}

// TestHostileZip: zip files that say two things.
func TestHostileZip(t *testing.T) {
	n := world(t)
	pack := n.export(morning(n))
	list := unpack(t, pack)
	standard := func(change func(h *zip.FileHeader), comment string, extra ...forged) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for _, f := range append(slices.Clone(list), extra...) {
			h := &zip.FileHeader{Name: f.name, Method: zip.Deflate}
			if f.name == manifestFile || f.name == noteFile {
				h.Method = zip.Store
			}
			change(h)
			w, err := z.CreateHeader(h)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(f.data)
		}
		_ = z.SetComment(comment)
		_ = z.Close()
		return b.Bytes()
	}
	same := func(*zip.FileHeader) {}
	hostile := map[string][]byte{
		"another writer's form": standard(same, ""),
		"comment":               standard(same, "hello"),
		"twice the same name":   standard(same, "", list[0]),
		"absolute":              standard(same, "", forged{"/etc/passwd", []byte("x")}),
		"upwards":               standard(same, "", forged{"../../x", []byte("x")}),
		"backslash":             standard(same, "", forged{"a\\b", []byte("x")}),
		"folder":                standard(same, "", forged{"a/", nil}),
		"extra field":           standard(func(h *zip.FileHeader) { h.Extra = []byte{1, 2, 0, 0} }, ""),
		"encrypted":             standard(func(h *zip.FileHeader) { h.Flags |= 1 }, ""),
		"empty":                 {},
		"end alone":             pack[len(pack)-22:],
		"no zip":                []byte(strings.Repeat("x", 100)),
	}
	end := len(pack) - 22
	directory := int(binary.LittleEndian.Uint32(pack[end+16:]))
	patch := func(at int, b ...byte) []byte {
		c := bytes.Clone(pack)
		copy(c[at:], b)
		return c
	}
	hostile["bytes before the directory"] = func() []byte {
		c := slices.Insert(bytes.Clone(pack), directory, 'x')
		binary.LittleEndian.PutUint32(c[end+1+16:], uint32(directory+1))
		return c
	}()
	hostile["a bomb's size"] = patch(directory+24, 0xff, 0xff, 0xff, 0xfe)
	hostile["zip64 sizes"] = patch(directory+20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	hostile["an offset far away"] = patch(directory+42, 0xff, 0xff, 0xff, 0x7f)
	hostile["a name without end"] = patch(directory+28, 0xff, 0xff)
	hostile["a count of members"] = patch(end+8, 0xff, 0xff, 0xff, 0xff)
	hostile["a directory without end"] = patch(end+12, 0xff, 0xff, 0xff, 0x7f)
	for name, b := range hostile {
		if intact(t, b, &n.key) || intact(t, b, nil) {
			t.Errorf("%s: it passes for a pack", name)
		}
		if _, err := openArchive(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: its structure passes", name)
		}
	}
	// A member that is longer than it says, and one that unpacks to more.
	var packed bytes.Buffer
	w, _ := flate.NewWriter(&packed, flate.BestCompression)
	_, _ = w.Write(make([]byte, 1<<20))
	_ = w.Close()
	for _, size := range []uint32{10, 1<<20 - 1, 1<<20 + 1, 1 << 31} {
		e := &entry{name: "x", method: methodDeflate, packed: uint32(packed.Len()), size: size, crc: crc32.ChecksumIEEE(make([]byte, 1<<20))}
		if _, err := io.Copy(io.Discard, openPacked(bytes.NewReader(packed.Bytes()), e)); err == nil {
			t.Errorf("a member of 1 MiB passes for %d bytes", size)
		}
	}
	e := &entry{name: "x", method: methodDeflate, packed: uint32(packed.Len()) + 3, size: 1 << 20, crc: crc32.ChecksumIEEE(make([]byte, 1<<20))}
	if _, err := io.Copy(io.Discard, openPacked(bytes.NewReader(append(packed.Bytes(), 1, 2, 3)), e)); err == nil {
		t.Error("bytes behind the end of what is packed pass")
	}
}

func FuzzOpenArchive(f *testing.F) {
	n := world(f)
	f.Add(n.export(morning(n)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := openArchive(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		end := int64(0)
		for i := range a.list {
			if int64(a.list[i].offset) != end {
				t.Fatal("bytes between members")
			}
			end = a.list[i].end()
		}
	})
}

// TestCells: nothing that others wrote is a formula, in CSV and in the workbook.
func TestCells(t *testing.T) {
	for _, bad := range []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "\u200b=1", "\ufeff=1", "\x00=1", "＝1", "＋1", "－1", "＠a", "−1", "|cmd",
		"%x", "\"=1", "'=1", "\u202e=1", "\u3000=1", "﹢1", "\\\\host\\x", "'\"=1"} {
		got := cell(bad)
		if !strings.HasPrefix(got, "'") {
			t.Errorf("%q becomes %q", bad, got)
		}
	}
	for _, good := range []string{"", "select 1", "a=b", "10.0.0.5:5432", "ana@example.com", "2026-11-26T08:00:00Z", "é", "語"} {
		if got := cell(good); got != good {
			t.Errorf("%q becomes %q", good, got)
		}
	}
	if got := cell(strings.Repeat("é", maxCell)); len(got) > maxCell+60 || !strings.Contains(got, "cut") {
		t.Error("a long cell is not cut")
	}
}

func TestDraw(t *testing.T) {
	// As the readme says it, by hand: SHA-256("weir-sample-v1\nauditor 17\n0\n").
	sum := sha256.Sum256([]byte("weir-sample-v1\nauditor 17\n0\n"))
	want := binary.BigEndian.Uint64(sum[:8]) % 35
	if got := drawAt("auditor 17", 0, 35); got != want {
		t.Error(got, want)
	}
	n := world(t)
	c := morning(n)
	c.Sample = 1000 // more than there are: all of them
	rows := rowsOf(t, n.export(c), "sample")
	seen := map[string]bool{}
	for _, r := range rows {
		seen[r[2]] = true
	}
	if len(rows) != 34 || len(seen) != len(rows) {
		t.Errorf("%d cases, %d different ones", len(rows), len(seen))
	}
	if got := fmt.Sprint(rows[0][2]); got != fmt.Sprint(drawAt("auditor 17", 0, 34)) {
		t.Error("the first case is", got)
	}
}
