package postgres

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestInStep sends random pipelines to the server and to weir in front of it: what
// comes back must be the same, but for the words of errors. A denied statement is
// one that fails on the server by itself (there is no table "secret"), so denials
// are part of it.
func TestInStep(t *testing.T) {
	direct, err := url.Parse(startBackend(t))
	if err != nil {
		t.Fatal(err)
	}
	plain, masked := newWorld(t, backendURL, nil), newWorld(t, backendURL, nil)
	masked.setMasks(detect...) // nothing to find, but everything is looked at
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 7))
		script := pipeline(r)
		want := converse(t, direct.Host, script, r)
		for _, w := range []*world{plain, masked} {
			if diff := cmp.Diff(want, converse(t, w.listener.Addr().String(), script, r)); diff != "" {
				t.Fatalf("seed %d: %s\n-direct +weir\n%s", seed, script, diff)
			}
		}
	}
}

// pipeline makes a random conversation, all of it sent without waiting.
func pipeline(r *rand.Rand) string {
	// What the server refuses at Parse is refused there by weir too. Names that are
	// not known are refused at Parse by weir and later by the server: not in these.
	texts := []string{"select 1", "select 1", "select generate_series(1, 5)", "select 1/(random()*0)::int", "begin", "commit", "rollback", "select * from secret",
		"savepoint s", "rollback to s", "prepare px AS select 2", "deallocate px", "declare cu cursor FOR select 3",
		"set search_path = a", "set local search_path = public", "weird words", "",
		"insert into tmp values (1)", "select count(*) from tmp", "copy tmp to stdout", "set statement_timeout = 0"}
	simple := append([]string{"execute px", "prepare py AS select * from secret", "fetch 2 from cu"}, texts...)
	pick := func() string { return texts[r.IntN(len(texts))] }
	name := func() string { return []string{"-", "-", "s1", "s2", "px"}[r.IntN(5)] }
	portal := func() string { return []string{"-", "-", "p1", "cu"}[r.IntN(4)] }
	out := []string{"Q create temp table tmp(a int)"}
	for range 5 + r.IntN(30) {
		switch r.IntN(16) {
		case 0, 1:
			out = append(out, "Q "+simple[r.IntN(len(simple))])
		case 2:
			out = append(out, "Q copy tmp FROM STDIN", "d 7\n", "c")
		case 3:
			out = append(out, "P - copy tmp FROM STDIN", "B - -", "E -", "S", "d 8\n", "c", "S", "P - select 1")
		case 4, 5, 6:
			out = append(out, "P - "+pick(), "B - -", "D P ", "E -")
		case 7:
			text := pick()
			if strings.HasSuffix(text, " s") { // EXECUTE of SAVEPOINT is a FATAL error of the server
				text = "select 1"
			}
			out = append(out, "P "+name()+" "+text)
		case 8:
			out = append(out, "B "+portal()+" "+name())
		case 9:
			out = append(out, fmt.Sprintf("E %s %d", portal(), r.IntN(3)))
		case 10:
			out = append(out, "D S "+strings.TrimPrefix(name(), "-"))
		case 11:
			out = append(out, "C "+[]string{"S ", "P "}[r.IntN(2)]+strings.TrimPrefix(name(), "-"))
		case 12:
			out = append(out, "H")
		default:
			out = append(out, "S")
		}
	}
	return strings.Join(append(out, "S", "X"), " | ")
}

// converse sends a conversation in random pieces and returns everything that comes
// back after the login, one message a line.
func converse(t *testing.T, addr, script string, r *rand.Rand) []string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = c.Write(startupPacket(version30, "user", "postgres", "database", "postgres", "client_min_messages", "error"))
	readUntil(t, c, 'Z')
	b := clientBytes(script)
	var pieces [][]byte
	for len(b) > 0 {
		k := min(len(b), 1+r.IntN(200))
		pieces, b = append(pieces, b[:k]), b[k:]
	}
	go func() {
		for _, p := range pieces {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%s: %v after %s", script, err, serverScript(got))
	}
	lines := strings.Split(serverScript(got), " | ")
	for i, l := range lines {
		if strings.HasPrefix(l, "E ") {
			lines[i] = "E"
		}
	}
	return lines
}
