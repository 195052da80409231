package bypass

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
)

// logins are the server's roles behind people; weir_app for whoever is not in it.
var logins = map[string]string{"max": "weir_dba", "mig": "weir_app"}

func loginOf(who string) string {
	if l := logins[who]; l != "" {
		return l
	}
	return "weir_app"
}

// makeVaults makes the two databases of the attack corpus.
func (w *party) makeVaults() error {
	var err error
	if w.plants, err = readPlants(); err != nil {
		return err
	}
	w.detector = newDetector(w.plants)
	if _, err := w.psql("postgres", "ALTER ROLE weir_dba SUPERUSER; ALTER SYSTEM SET autovacuum = off; SELECT pg_reload_conf(); CREATE DATABASE "+sides[0]); err != nil {
		return err
	}
	if err := w.script(sides[0], "schema.sql", nil); err != nil {
		return err
	}
	if _, err := w.psql("postgres", "CREATE DATABASE "+sides[1]+" TEMPLATE "+sides[0]); err != nil {
		return err
	}
	// What waits for somebody else's lock would wait for ever.
	if _, err := w.psql("postgres", "ALTER DATABASE vault_l SET lock_timeout = '2s'; ALTER DATABASE vault_r SET lock_timeout = '2s'"); err != nil {
		return err
	}
	last, err := w.psql(sides[0], "SELECT max(oid::bigint) FROM (SELECT oid FROM pg_class UNION ALL SELECT oid FROM pg_type UNION ALL SELECT oid FROM pg_proc) x")
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(last, &w.lastOID); err != nil {
		return err
	}
	for side, db := range sides {
		file := filepath.Join(w.Dir, "out", "cards-"+db+".csv")
		for _, p := range w.plants {
			if p.name == "filecard" {
				if err := os.WriteFile(file, []byte("1,"+p.values[side]+",one\n"), 0o644); err != nil {
					return err
				}
			}
		}
		err := w.script(db, "values.sql", func(text string) string {
			return fill(text, w.plants, side, "{file}", file, "{socket}", w.DB.Socket, "{port}", fmt.Sprint(w.DB.Port), "{database}", db)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// script runs a file of the corpus as the superuser.
func (w *party) script(db, file string, change func(string) string) error {
	b, err := os.ReadFile(filepath.Join("corpus", file))
	if err != nil {
		return err
	}
	text := string(b)
	if change != nil {
		text = change(text)
	}
	if _, err := w.psql(db, text); err != nil {
		return fmt.Errorf("%s in %s: %w", file, db, err)
	}
	return nil
}

func (w *party) psql(db, sql string) (string, error) {
	f := filepath.Join(w.Dir, "script.sql")
	if err := os.WriteFile(f, []byte(sql), 0o600); err != nil {
		return "", err
	}
	return w.DB.Psql(w.ctx, "-At", "-d", db, "-f", f)
}

// direct is a session with the server itself, round Weir, over its private socket.
func direct(t *testing.T, login, db string, params ...string) *client {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(w.DB.Socket, fmt.Sprintf(".s.PGSQL.%d", w.DB.Port)))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn}
	t.Cleanup(func() { _ = conn.Close() })
	c.greet(append([]string{"user", login, "database", db}, params...)...)
	return c
}

// through is a session of somebody's through Weir.
func through(t *testing.T, who, db string, params ...string) *client {
	t.Helper()
	c := dialAs(t, who)
	c.greet(append([]string{"user", loginOf(who), "database", db}, params...)...)
	return c
}

func (c *client) greet(params ...string) {
	c.t.Helper()
	m := map[string]string{}
	for i := 0; i+1 < len(params); i += 2 {
		m[params[i]] = params[i+1]
	}
	c.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: m})
	if all := c.until('Z'); status(all) == 0 {
		c.t.Fatalf("no session for %v: %s\nagent: %s", params, show(all), w.Node.LogTail())
	}
	c.seen = nil
}

// close leaves the session as clients do; the server has let go of it afterwards.
func (c *client) close() {
	c.send(&pgproto3.Terminate{})
	_ = c.conn.SetReadDeadline(time.Now().Add(answerTimeout))
	var b [512]byte
	for {
		if _, err := c.conn.Read(b[:]); err != nil {
			break
		}
	}
	_ = c.conn.Close()
}

// describedRun is Parse, Bind, Describe, Execute and Sync of the unnamed statement.
func describedRun(sql string, format int16, values ...string) sent {
	m := run(sql)
	b := m[1].(*pgproto3.Bind)
	b.ResultFormatCodes = []int16{format}
	for _, v := range values {
		if v == `\N` {
			b.Parameters = append(b.Parameters, nil)
		} else {
			b.Parameters = append(b.Parameters, []byte(v))
		}
	}
	return sent{m[0], m[1], &pgproto3.Describe{ObjectType: 'P'}, m[2], &pgproto3.Sync{}}
}

// answer reads up to n ReadyForQuery. What the server asks for it gets: rows, or the
// end of COPY.
func (c *client) answer(n int, rows string) (all []message) {
	for n > 0 {
		m, ok := c.next()
		if !ok {
			return all
		}
		all = append(all, m)
		switch m.kind {
		case 'Z':
			n--
		case 'G':
			if rows != "" {
				c.send(&pgproto3.CopyData{Data: []byte(rows)}, &pgproto3.CopyDone{})
			} else {
				c.send(&pgproto3.CopyDone{})
			}
		}
	}
	return all
}

// refusedBy is the first refusal of Weir's, "" when there is none.
func refusedBy(all []message) string {
	for _, m := range all {
		if m.kind != 'E' {
			continue
		}
		var e pgproto3.ErrorResponse
		if e.Decode(m.body) == nil && strings.HasPrefix(e.Message, "weir:") && (e.Code == "42501" || e.Code == "42601" || e.Code == "54001") {
			return e.Message
		}
	}
	return ""
}
