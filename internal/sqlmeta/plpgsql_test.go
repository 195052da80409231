package sqlmeta

import (
	"fmt"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// everywhere has an expression at every place of PL/pgSQL that takes one (manual,
// chapter 43), each a call of its own.
const everywhere = `CREATE FUNCTION f(a int, OUT b text) RETURNS text LANGUAGE plpgsql AS $$
<<outer>>
DECLARE x int := m1(); r record; c2 refcursor; c CURSOR (k int) FOR SELECT m2();
BEGIN
  FOR r IN SELECT m3() LOOP PERFORM m4(); END LOOP;
  FOR i IN REVERSE m5()..m6() BY m7() LOOP PERFORM m8(); END LOOP;
  FOREACH x SLICE 1 IN ARRAY m9() LOOP PERFORM m10(); END LOOP;
  IF m11() THEN PERFORM m12(); ELSIF m13() THEN PERFORM m14(); ELSE PERFORM m15(); END IF;
  CASE m16() WHEN m17() THEN PERFORM m18(); ELSE PERFORM m19(); END CASE;
  CASE WHEN m20() THEN PERFORM m21(); END CASE;
  WHILE m22() LOOP EXIT outer WHEN m23(); PERFORM m24(); END LOOP;
  LOOP PERFORM m25(); EXIT; END LOOP;
  FOR r IN c(m26()) LOOP PERFORM m27(); END LOOP;
  RAISE EXCEPTION '% x', m28() USING MESSAGE = m29();
  OPEN c(m30()); OPEN c2 FOR SELECT m31();
  MOVE FORWARD m32() FROM c;
  ASSERT m33(), m34();
  BEGIN PERFORM m35(); EXCEPTION WHEN division_by_zero THEN PERFORM m36(); WHEN others THEN GET STACKED DIAGNOSTICS b = MESSAGE_TEXT; PERFORM m37(); END;
  r.f[m38()] := m39();
  x :=-m40();
  SELECT m41() INTO STRICT x, b FROM t;
  INSERT INTO t VALUES (m42()) RETURNING y INTO x;
  CALL m43();
  b = 'a' || m44();
  RETURN m45();
END $$`

func TestPLpgSQLEverywhere(t *testing.T) {
	text, err := pg.ParsePlPgSqlToJSON(everywhere)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ReadPLpgSQL([]byte(text))
	if err != nil || p.Problem != "" {
		t.Fatalf("%v, %q", err, p.Problem)
	}
	all := ""
	for _, s := range p.Texts {
		if _, err := pg.Parse(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		all += s + ";"
	}
	for i := 1; i <= 45; i++ {
		if !strings.Contains(all, fmt.Sprintf("m%d()", i)) {
			t.Errorf("m%d() is not in the texts", i)
		}
	}
	for _, v := range []string{"x", "r", "c", "k", "a", "b", "i", "found", "sqlstate", "new"} {
		if _, ok := p.Variables[v]; !ok {
			t.Errorf("%s is no variable", v)
		}
	}
	for _, dynamic := range []string{"EXECUTE m1()", "FOR x IN EXECUTE m1() LOOP NULL; END LOOP", "OPEN c FOR EXECUTE m1()"} {
		text, err := pg.ParsePlPgSqlToJSON("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ DECLARE x record; c refcursor; BEGIN " + dynamic + "; RETURN 1; END $$")
		if err != nil {
			t.Fatal(err)
		}
		if p, err := ReadPLpgSQL([]byte(text)); err != nil || p.Problem != dynamicSQL {
			t.Errorf("%s: %v %q", dynamic, err, p.Problem)
		}
	}
	if p, err := ReadPLpgSQL([]byte(`[{"PLpgSQL_stmt_new":{"expr":{"PLpgSQL_expr":{"query":"1","parseMode":2}}}}]`)); err != nil || p.Problem == "" {
		t.Errorf("a new kind of statement passes: %v %+v", err, p)
	}
}

// FuzzPLpgSQL: whatever a child sends, reading it ends, and either says what the texts
// are or that they are not all.
func FuzzPLpgSQL(f *testing.F) {
	if text, err := pg.ParsePlPgSqlToJSON(everywhere); err == nil {
		f.Add([]byte(text))
	}
	f.Add([]byte(`[{"PLpgSQL_expr":{"query":"x := 1","parseMode":3}}]`))
	f.Add([]byte(`{"PLpgSQL_expr":{"query":"x[","parseMode":4}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadPLpgSQL(b)
		if err == nil && p.Problem == "" && len(p.Texts) > maxPLpgSQL {
			t.Errorf("%d texts", len(p.Texts))
		}
	})
}
