package mask

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// typeServer is a PostgreSQL with what the tests of types need.
type typeServer struct {
	t    *testing.T
	conn *pgconn.PgConn
}

const typeSchema = `
	CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree;
	CREATE DOMAIN d_text AS text; CREATE DOMAIN d_int8 AS int8; CREATE DOMAIN d_numeric AS numeric; CREATE DOMAIN d_float8 AS float8; CREATE DOMAIN d_jsonb AS jsonb; CREATE DOMAIN d_ints AS int8[];
	CREATE TYPE mood AS ENUM ('sad', 'ok');
	CREATE TYPE pair AS (a text, b int8);
	CREATE TYPE outer_pair AS (p pair, note text);
	CREATE TYPE wide AS (t text, i int8, n numeric, f float8, j jsonb, b bytea, ip inet, ts text[], ins int8[], ps pair[], dt d_text, di d_int8, dn d_numeric, df d_float8, h hstore, r int8range, x xml, v tsvector, m mood, d date);
	CREATE TYPE textrange AS RANGE (subtype = text);
	CREATE TABLE stat (a int, b int); INSERT INTO stat SELECT i % 5, i % 5 FROM generate_series(1, 200) i;
	CREATE STATISTICS stat_ext (ndistinct, dependencies, mcv) ON a, b FROM stat; ANALYZE stat;`

func newTypeServer(t *testing.T) *typeServer {
	srv := postgres.For(t, postgres.Config{})
	conn, err := pgconn.Connect(t.Context(), srv.URL(postgres.Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	s := &typeServer{t, conn}
	s.rows(typeSchema)
	return s
}

// rows runs statements and gives the rows of the last one as text.
func (s *typeServer) rows(sql string) [][]string {
	s.t.Helper()
	res, err := s.conn.Exec(s.t.Context(), sql).ReadAll()
	if err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	var out [][]string
	for _, row := range res[len(res)-1].Rows {
		var fields []string
		for _, f := range row {
			fields = append(fields, string(f))
		}
		out = append(out, fields)
	}
	return out
}

// value runs a query of one value and gives its type and bytes.
func (s *typeServer) value(sql string, format int16) (oid uint32, v []byte, err error) {
	res := s.conn.ExecParams(s.t.Context(), sql, nil, nil, nil, []int16{format}).Read()
	if res.Err != nil {
		return 0, nil, res.Err
	}
	if len(res.Rows) != 1 || res.Rows[0][0] == nil {
		return 0, nil, fmt.Errorf("%s gives no value", sql)
	}
	return res.FieldDescriptions[0].DataTypeOID, bytes.Clone(res.Rows[0][0]), nil
}

// back gives a value to the server as one of a type and reads its text form.
func (s *typeServer) back(oid uint32, format int16, v []byte) (string, error) {
	res := s.conn.ExecParams(s.t.Context(), "SELECT $1::text", [][]byte{v}, []uint32{oid}, []int16{format}, nil).Read()
	if res.Err != nil {
		return "", res.Err
	}
	return string(res.Rows[0][0]), nil
}

// class does what the engine does with the catalogue.
func (s *typeServer) class(oid uint32) Class {
	if BuiltIn(oid) {
		return ClassOf(oid)
	}
	row := s.rows(fmt.Sprintf("SELECT typtype, typelem, typsend IN ('textsend'::regproc, 'citextsend'::regproc) FROM pg_type WHERE oid = %d", oid))[0]
	if row[1] != "0" {
		element, err := strconv.ParseUint(row[1], 10, 32)
		if err != nil {
			s.t.Fatal(err)
		}
		return ArrayOf(s.class(uint32(element)))
	}
	return UserClass(row[0][0], row[2] == "t", false)
}

// samples are SQL expressions of a value of each built-in type; "" for types of
// which there are no values outside of an index.
var samples = map[string]string{
	"bool": "true", "bytea": `'\x3431'::bytea`, "char": `'x'::"char"`, "name": "'x'::name", "int8": "5::int8", "int2": "5::int2", "int2vector": "'1 2'::int2vector",
	"int4": "5", "regproc": "'now'::regproc", "text": "'x'::text", "oid": "5::oid", "tid": "'(0,1)'::tid", "xid": "'5'::xid", "cid": "'5'::cid", "oidvector": "'1 2'::oidvector",
	"json": "'{\"a\":1}'::json", "xml": "'<a>x</a>'::xml", "point": "'(1,2)'::point", "lseg": "'[(1,2),(3,4)]'::lseg", "path": "'[(1,2),(3,4)]'::path", "box": "'(1,2),(3,4)'::box",
	"polygon": "'((1,2),(3,4))'::polygon", "line": "'{1,2,3}'::line", "float4": "1.5::float4", "float8": "1.5::float8", "circle": "'<(1,2),3>'::circle", "money": "'$1.50'::money",
	"macaddr": "'08:00:2b:01:02:03'::macaddr", "macaddr8": "'08:00:2b:01:02:03:04:05'::macaddr8", "inet": "'192.0.2.1'::inet", "cidr": "'192.0.2.0/24'::cidr", "aclitem": "'postgres=r/postgres'::aclitem",
	"bpchar": "'x'::bpchar", "varchar": "'x'::varchar", "date": "'2026-01-01'::date", "time": "'10:00'::time", "timestamp": "'2026-01-01'::timestamp", "timestamptz": "'2026-01-01'::timestamptz",
	"interval": "'1 day'::interval", "timetz": "'10:00+00'::timetz", "bit": "B'1'::bit", "varbit": "B'101'::varbit", "numeric": "1.5::numeric", "refcursor": "'x'::refcursor",
	"regprocedure": "'now()'::regprocedure", "regoper": "'||/'::regoper", "regoperator": "'+(int4,int4)'::regoperator", "regclass": "'pg_class'::regclass", "regcollation": "'\"C\"'::regcollation", "regtype": "'text'::regtype",
	"regrole": "'postgres'::regrole", "regnamespace": "'public'::regnamespace", "uuid": "'550e8400-e29b-41d4-a716-446655440000'::uuid", "pg_lsn": "'0/1'::pg_lsn", "tsvector": "'fat cat'::tsvector",
	"tsquery": "'fat & cat'::tsquery", "gtsvector": "", "regconfig": "'english'::regconfig", "regdictionary": "'simple'::regdictionary", "jsonb": "'{\"a\":1}'::jsonb", "jsonpath": "'$.a'::jsonpath",
	"txid_snapshot": "'1:1:'::txid_snapshot", "pg_snapshot": "'1:1:'::pg_snapshot", "xid8": "'5'::xid8",
	"int4range": "'[1,5)'::int4range", "numrange": "'[1,5)'::numrange", "tsrange": "'[2026-01-01,2026-01-02)'::tsrange", "tstzrange": "'[2026-01-01,2026-01-02)'::tstzrange", "daterange": "'[2026-01-01,2026-01-02)'::daterange", "int8range": "'[1,5)'::int8range",
	"int4multirange": "'{[1,5)}'::int4multirange", "nummultirange": "'{[1,5)}'::nummultirange", "tsmultirange": "'{[2026-01-01,2026-01-02)}'::tsmultirange", "tstzmultirange": "'{[2026-01-01,2026-01-02)}'::tstzmultirange", "datemultirange": "'{[2026-01-01,2026-01-02)}'::datemultirange", "int8multirange": "'{[1,5)}'::int8multirange",
	"pg_node_tree": "(SELECT ev_action FROM pg_rewrite LIMIT 1)", "pg_ndistinct": "(SELECT stxdndistinct FROM pg_statistic_ext_data)", "pg_dependencies": "(SELECT stxddependencies FROM pg_statistic_ext_data)", "pg_mcv_list": "(SELECT stxdmcv FROM pg_statistic_ext_data)",
	"cstring": "", "pg_brin_bloom_summary": "", "pg_brin_minmax_multi_summary": "",
}

// TestMaskedValuesKeepTheirType masks a value of every built-in type, its arrays
// too, with every method in both formats: the server must read the result as a value
// of the type, and pgx must decode it.
func TestMaskedValuesKeepTheirType(t *testing.T) {
	s := newTypeServer(t)
	key := testKey(t)
	driver := pgtype.NewMap()
	types, accepted, null := 0, 0, 0
	for _, row := range s.rows(`SELECT t.typname, e.typname, t.oid, coalesce(e.typtype, 'x') FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
		WHERE t.typtype IN ('b', 'r', 'm') AND t.oid < 16384 ORDER BY t.oid`) {
		name, element := row[0], row[1]
		if strings.Contains("cd", row[3]) {
			continue // rows of the catalogues and information_schema's domains
		}
		expression, ok := samples[name]
		if element != "" {
			expression, ok = samples[element]
			if expression != "" {
				expression = "ARRAY[" + expression + "]"
			}
		}
		if !ok {
			t.Errorf("type %s of the server has no sample", name)
		}
		if expression == "" {
			continue
		}
		types++
		for _, format := range []int16{TextFormat, BinaryFormat} {
			oid, v, err := s.value("SELECT "+expression, format)
			if err != nil {
				if format == BinaryFormat && strings.Contains(err.Error(), "no binary output function") {
					continue
				}
				t.Errorf("%s: %v", name, err)
				continue
			}
			if strconv.Itoa(int(oid)) != row[2] {
				t.Errorf("%s: the value has type %d, want %s", name, oid, row[2])
			}
			for m := Last4; m <= Null; m++ {
				for _, hide := range []bool{false, true} {
					col := NewColumn(ClassOf(oid), format, m, key, nil)
					if hide {
						col.HideNulls()
					}
					out, r := col.AppendMasked(nil, v)
					switch r {
					case Unchanged:
						t.Errorf("%s, format %d, %v: a masked value came through", name, format, m)
						continue
					case IsNull:
						null++
						continue
					}
					if _, err := s.back(oid, format, out); err != nil {
						t.Errorf("%s, format %d, %v: the server does not take %q: %v", name, format, m, out, err)
					}
					if dt, ok := driver.TypeForOID(oid); ok {
						if _, err := dt.Codec.DecodeValue(driver, oid, format, out); err != nil {
							t.Errorf("%s, format %d, %v: pgx does not decode %q: %v", name, format, m, out, err)
						}
					}
					accepted++
				}
			}
		}
	}
	if types < 150 || accepted < 100 || null < 1000 {
		t.Errorf("only %d types, %d values accepted, %d NULL: the test is broken", types, accepted, null)
	}
}

const (
	plantedCard  = "4111111111111111"
	plantedMail  = "ada@example.com"
	plantedIP    = "192.0.2.17"
	plantedFloat = "4.111111111111111e+15"
)

// planted are expressions of values that detectors must see, in both formats. With
// null the whole value must become NULL.
var planted = []struct {
	sql  string
	null bool
}{
	{"'pay 4111 1111 1111 1111 by ada@example.com'::text", false}, {"'4111111111111111'::varchar(20)", false}, {"'4111111111111111'::char(30)", false}, {"'4111111111111111'::name", false},
	{"'ada@example.com'::citext", false}, {"'4111111111111111'::d_text", false},
	{"4111111111111111::int8", true}, {"-4111111111111111::int8", true}, {"4111111111111111::d_int8", true},
	{"4111111111111111::numeric", true}, {"4111111111111111.50::numeric(20,2)", true}, {"4111111111111111::d_numeric", true}, {"4000000000000000006::numeric", true},
	{"4111111111111111::float8", true}, {"4111111111111111::d_float8", true}, {"378282246310005::float8", true},
	{"4111111111111111::numeric::money", true},
	{"'4111111111111111'::bytea", true}, {"'pay 4111 1111 1111 1111'::bytea", true}, {`'\x00ff'::bytea || 'ada@example.com'::bytea || '\x00ff'::bytea`, true},
	{`'{"card": 4111111111111111}'::json`, false}, {`'{"card": 4.111111111111111e15}'::json`, false}, {`'{"card": "4111\u00201111 1111 1111"}'::json`, false}, {`'{"card": 4111111111111111, "m": ["ada@example.com"]}'::jsonb`, false}, {`'{"c": 4111111111111111}'::d_jsonb`, false},
	{"'<a>4111111111111111</a>'::xml", false}, {"'<a>&#52;11111&#x31;111111111 ada&#64;example.com</a>'::xml", false},
	{`hstore('card', '4111111111111111')`, true}, {`hstore('ada@example.com', NULL)`, true}, {`hstore(repeat('x', 49), '4111111111111111')`, true}, {`hstore('a', rpad('4111111111111111', 48))`, true},
	{"'4111111111111111.x'::ltree", true},
	{"'4111111111111111'::tsvector", true}, {"'0:49 4111111111111111:1'::tsvector", true}, {"'ada@example.com'::tsquery", true},
	{"int8range(4111111111111111, NULL)", true}, {"numrange(NULL, 4111111111111111)", true}, {"int8range(1, 4111111111111111)::int8multirange", true}, {"numrange(1, 4111111111111111)::nummultirange", true}, {"textrange('ada@example.com', NULL)", true}, {"textmultirange(textrange('4111111111111111', NULL))", true},
	{"ARRAY['x', '4111111111111111', NULL]", false}, {"ARRAY[['a', 'b'], ['ada@example.com', 'c']]", false}, {"ARRAY['4111111111111111']::citext[]", false}, {"ARRAY['4111111111111111']::name[]", false},
	{"ARRAY[1, 4111111111111111]", false}, {"'[0:1]={1,4111111111111111}'::int8[]", false}, {"ARRAY[1::numeric, 4111111111111111]", false}, {"ARRAY[1.5, 4111111111111111]::float8[]", false}, {"ARRAY[4111111111111111::numeric::money]", false}, {"ARRAY[4111111111111111]::d_ints", false}, {"ARRAY[4111111111111111]::d_int8[]", false},
	{`ARRAY['{"c":4111111111111111}'::json]`, false}, {`ARRAY['{"c":4111111111111111}'::jsonb, NULL]`, false}, {"ARRAY['4111111111111111'::bytea, 'x']", false}, {"ARRAY['<a>&#52;111111111111111</a>'::xml]", false}, {"ARRAY[hstore('card', '4111111111111111')]", false},
	{"ARRAY[int8range(1, 4111111111111111)]", false}, {"ARRAY['4111111111111111'::tsvector]", false},
	{"'192.0.2.17'::inet", true}, {"'192.0.2.17/28'::inet", true}, {"'192.0.2.16/28'::cidr", true}, {"'2001:db8::17'::inet", true}, {"ARRAY['192.0.2.17'::inet, NULL]", false},
	{"ROW('4111111111111111', 5)::pair", false}, {"ROW('x', 4111111111111111)::pair", false}, {"ROW('paid by ada@example.com', 5)::pair", false}, {"ROW(NULL, 4111111111111111)::pair", false},
	{"ROW(ROW('4111 1111 1111 1111', 1), 'x')::outer_pair", false}, {"ROW(ROW('x', 4111111111111111), 'ada@example.com')::outer_pair", false},
	{"ARRAY[ROW('4111 1111 1111 1111', 1)::pair, ROW('x', 4111111111111111)::pair]", false}, {"ARRAY[ROW(ROW('x', 4111111111111111), 'y')]::outer_pair[]", false},
	{"ROW('4111111111111111', 1)", false}, {"ROW(1, ROW(4111111111111111, 'ada@example.com'))", false}, {"ARRAY[ROW(4111111111111111)]", false},
}

// wideFields are values with a card or an address for each field of the type wide.
var wideFields = []string{"'pay 4111 1111 1111 1111'", plantedCard, plantedCard, plantedCard, `'{"a": 4111111111111111}'`, "'4111111111111111'", "'192.0.2.17'", "ARRAY['x','4111111111111111']", "ARRAY[1,4111111111111111]", "ARRAY[ROW('x',4111111111111111)::pair]",
	"'4111111111111111'", plantedCard, plantedCard, plantedCard, "hstore('a','4111111111111111')", "int8range(4111111111111111,NULL)", "'<a>&#52;111111111111111</a>'", "'4111111111111111'", "'ok'", "'2026-01-01'"}

// harmless are expressions in which there is nothing; they must come through.
var harmless = []string{"5::int8", "1700000000000::int8", "1700000000000000::int8", "-5::int4", "1.5::numeric", "123456789012345678901234567890.12345::numeric", "'NaN'::numeric", "'Infinity'::numeric", "0::numeric", "0.0001::numeric", "1e15::float8", "4.5e15::float8", "'-Infinity'::float8", "1.5::float4", "4.1e15::float4",
	"'$1,234,567.89'::money", `'\x00ff4111'::bytea`, "''::bytea", "'fat:1,49 cat:2'::tsvector", "int8range(1, 5)", "'empty'::int8range", "numrange(NULL, NULL)", "textrange('a', 'b')", "'{}'::int8[]", "ARRAY[1, NULL]::int8[]", "ARRAY['a', NULL, '']", "'08:00:2b:01:02:03'::macaddr",
	"'::1'::inet", "hstore('a', 'b')", "hstore('a', NULL)", "'<a>&lt;&amp;&#x41;&bogus;&#;</a>'::text", "'<a>&lt;&amp;&#x41;</a>'::xml", `'{"a": 1e5, "b": "\u0041"}'::json`, `'{"a": [1, null, true]}'::jsonb`,
	"ROW('x', 5)::pair", "ROW(ROW('a \"b\" \\c', NULL), '')::outer_pair", "ARRAY[ROW('x', 5)::pair, NULL]", "ROW(1, 'x', NULL, now()::date)", "'a.b.c'::ltree", "'2026-01-01'::timestamp", "'550e8400-e29b-41d4-a716-446655440000'::uuid", "'ok'::mood", "'4111111111111111'::xid8", "int4range(1,5)", "'{[1,5)}'::int4multirange", "'(1,2)'::point"}

// TestDetectorsSeeTypes plants values in every kind of type: detectors must find
// them in both formats, nothing of them may be in what the server reads back, and
// what it reads must be of the type.
func TestDetectorsSeeTypes(t *testing.T) {
	s := newTypeServer(t)
	set := compile(t, Rule{PaymentCard, Last4}, Rule{EmailAddr, Email}, Rule{IP, Redact})
	look := func(sql string, format int16) (oid uint32, v, out []byte, r Result, hits int64) {
		t.Helper()
		oid, v, err := s.value("SELECT "+sql, format)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		col := NewColumn(s.class(oid), format, 0, nil, set)
		out, r = col.AppendMasked(nil, v)
		for _, n := range col.Hits {
			hits += n
		}
		return oid, v, out, r, hits
	}
	check := func(sql string, format int16, null bool) {
		t.Helper()
		oid, v, out, r, hits := look(sql, format)
		if r == Unchanged || hits == 0 || null && r != IsNull {
			t.Errorf("%s, format %d: result %d with %d findings of %q: %q", sql, format, r, hits, v, out)
			return
		}
		if r == IsNull {
			if !null {
				t.Errorf("%s, format %d: the whole became NULL", sql, format)
			}
			return
		}
		text := string(out)
		if oid != oidRecord && oid != 2287 { // the server reads no anonymous records
			var err error
			if text, err = s.back(oid, format, out); err != nil {
				t.Errorf("%s, format %d: the server does not take %q: %v", sql, format, out, err)
			}
		}
		for _, p := range []string{plantedCard, plantedMail, plantedIP, plantedFloat, "4111 1111 1111 1111", "&#52;111", "34313131", "4111,1111,1111"} {
			if strings.Contains(text, p) {
				t.Errorf("%s, format %d: %q still holds %s", sql, format, text, p)
			}
		}
	}
	for _, format := range []int16{TextFormat, BinaryFormat} {
		for _, p := range planted {
			check(p.sql, format, p.null)
		}
		for i := range wideFields {
			fields := make([]string, len(wideFields))
			for k := range fields {
				fields[k] = "NULL"
			}
			fields[i] = wideFields[i]
			if i >= len(wideFields)-2 {
				continue
			}
			row := "ROW(" + strings.Join(fields, ",") + ")::wide"
			check(row, format, false)
			check("ARRAY["+row+", NULL]", format, false)
		}
		check("ROW("+strings.Join(wideFields, ",")+")::wide", format, false)
		for _, sql := range harmless {
			if _, v, out, r, hits := look(sql, format); r != Unchanged || hits != 0 {
				t.Errorf("%s, format %d: %q became %q (%d)", sql, format, v, out, r)
			}
		}
		s.rows("SET bytea_output = 'escape'") // the second time for binary, where it changes nothing
		check("'4111111111111111'::bytea", format, true)
		check(`'\x00ff5c'::bytea || 'ada@example.com'::bytea`, format, true)
		s.rows("RESET bytea_output")
	}
}

// TestDomainsArriveAsTheirBaseType: ClassOf relies on it.
func TestDomainsArriveAsTheirBaseType(t *testing.T) {
	s := newTypeServer(t)
	for sql, want := range map[string]uint32{"'x'::d_text": 25, "5::d_int8": 20, "'{}'::d_jsonb": oidJSONB, "'{}'::d_ints": 1016} {
		s.rows("DROP TABLE IF EXISTS domains; CREATE TABLE domains AS SELECT " + sql + " AS v")
		for _, query := range []string{"SELECT " + sql, "SELECT v FROM domains"} {
			if oid, _, err := s.value(query, BinaryFormat); err != nil || oid != want {
				t.Errorf("%s: type %d, %v, want %d", query, oid, err, want)
			}
		}
	}
}
