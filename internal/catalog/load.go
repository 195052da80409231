package catalog

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// query runs a string of statements in the simple protocol and returns the rows
// of the last that has any, NULL as "".
func query(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, r := range results {
		if r.Err != nil {
			return nil, r.Err
		}
		if len(r.Rows) == 0 {
			continue
		}
		rows = make([][]string, len(r.Rows))
		for i, row := range r.Rows {
			rows[i] = make([]string, len(row))
			for j, v := range row {
				rows[i][j] = string(v)
			}
		}
	}
	return rows, nil
}

// Temporary relations are left out everywhere: they belong to one session, and a
// busy one would make every picture stale.

// probe is cheap and changes whenever a catalogue row that load reads does:
// every change of a row gives it a new xmin.
func probe(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	rows, err := query(ctx, conn, `SELECT pg_catalog.concat_ws(',',
		(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_namespace),
		(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_class WHERE relpersistence OPERATOR(pg_catalog.<>) 't'),
		(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(a.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_attribute a
			JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid WHERE c.relpersistence OPERATOR(pg_catalog.<>) 't'),
		(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_proc),
		(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_rewrite),
		(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_inherits),
		(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_type WHERE oid OPERATOR(pg_catalog.>=) 16384))`)
	if err != nil {
		return "", fmt.Errorf("ask whether the catalogue has changed: %w", err)
	}
	if len(rows) != 1 || rows[0][0] == "" {
		return "", fmt.Errorf("the server did not say whether its catalogue has changed")
	}
	return rows[0][0], nil
}

// The queries of load. notMine leaves out temporary and TOAST schemas.
const (
	notMine = `n.nspname OPERATOR(pg_catalog.!~) '^pg_(toast|temp)'`

	schemasSQL = `SELECT n.nspname FROM pg_catalog.pg_namespace AS n WHERE ` + notMine

	relationsSQL = `SELECT c.oid, n.nspname, c.relname, c.relkind FROM pg_catalog.pg_class AS c
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,m,f,S,p,c,i,I}') AND ` + notMine

	columnsSQL = `SELECT a.attrelid, a.attnum, CASE WHEN a.attisdropped THEN '' ELSE a.attname::pg_catalog.text END, a.attgenerated
		FROM pg_catalog.pg_attribute AS a
		JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) a.attrelid
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,m,f,p,c}') AND ` + notMine + `
		ORDER BY a.attrelid, a.attnum`

	// A whole-row reference leaves no dependency on columns, so its mark in the
	// rule's tree (varattno 0) makes every dependency one on the whole row.
	viewsSQL = `SELECT DISTINCT r.ev_class, d.refobjid,
		CASE WHEN pg_catalog.strpos(r.ev_action::pg_catalog.text, ':varattno 0 ') OPERATOR(pg_catalog.>) 0 THEN 0 ELSE d.refobjsubid END
		FROM pg_catalog.pg_rewrite AS r
		JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
		JOIN pg_catalog.pg_depend AS d ON d.objid OPERATOR(pg_catalog.=) r.oid
		WHERE d.classid OPERATOR(pg_catalog.=) 2618 AND d.refclassid OPERATOR(pg_catalog.=) 1259
		AND c.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}') AND d.refobjid OPERATOR(pg_catalog.<>) r.ev_class`

	inheritsSQL = `SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits`

	functionsSQL = `SELECT p.oid, n.nspname, p.proname, l.lanname, p.provolatile, p.prosecdef FROM pg_catalog.pg_proc AS p
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
		JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang`

	// Types that came with the server are known by their OID (package mask).
	typesSQL = `SELECT t.oid, t.typtype, t.typelem, p.prosrc OPERATOR(pg_catalog.=) ANY ('{textout,varcharout,bpcharout,nameout}')
		FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.typoutput
		WHERE t.oid OPERATOR(pg_catalog.>=) 16384`
)

// firstNormalObjectID is where OIDs of users' objects begin
// (FirstNormalObjectId, access/transam.h).
const firstNormalObjectID = 16384

// load reads the whole picture in one snapshot.
func load(ctx context.Context, conn *pgconn.PgConn, version uint64) (_ *sqlmeta.Catalog, err error) {
	if _, err := query(ctx, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return nil, err
	}
	defer func() {
		if _, e := query(ctx, conn, "COMMIT"); err == nil {
			err = e
		}
	}()
	l := &loader{ctx: ctx, conn: conn, relations: make(map[uint32]*sqlmeta.Relation)}
	schemas := l.schemas()
	l.loadRelations()
	l.loadColumns()
	l.loadViews()
	l.loadInheritance()
	functions := l.loadFunctions()
	types := l.loadTypes()
	if l.err != nil {
		return nil, fmt.Errorf("read the system catalogue: %w", l.err)
	}
	relations := make([]*sqlmeta.Relation, 0, len(l.relations))
	for _, r := range l.relations {
		relations = append(relations, r)
	}
	return sqlmeta.NewCatalog(version, schemas, relations, functions).WithTypes(types), nil
}

// loader reads one class of objects after the other; the first error stays.
type loader struct {
	ctx       context.Context
	conn      *pgconn.PgConn
	relations map[uint32]*sqlmeta.Relation
	err       error
}

func (l *loader) each(sql string, f func(row []string)) {
	if l.err != nil {
		return
	}
	var rows [][]string
	if rows, l.err = query(l.ctx, l.conn, sql); l.err != nil {
		return
	}
	for _, row := range rows {
		f(row)
	}
}

func (l *loader) oid(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("an object id that is none")
	}
	return uint32(n)
}

func (l *loader) number(s string) int {
	n, err := strconv.ParseInt(s, 10, 16)
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("an attribute number that is none")
	}
	return int(n)
}

func (l *loader) schemas() []string {
	var names []string
	l.each(schemasSQL, func(row []string) { names = append(names, row[0]) })
	return names
}

func (l *loader) loadRelations() {
	l.each(relationsSQL, func(row []string) {
		r := &sqlmeta.Relation{OID: l.oid(row[0]), Schema: row[1], Name: row[2]}
		if row[3] != "" {
			r.Kind = row[3][0]
		}
		l.relations[r.OID] = r
	})
}

func (l *loader) loadColumns() {
	l.each(columnsSQL, func(row []string) {
		r := l.relations[l.oid(row[0])]
		if r == nil {
			return
		}
		attr := l.number(row[1])
		for len(r.Columns) < attr {
			r.Columns = append(r.Columns, "")
		}
		if attr > 0 {
			r.Columns[attr-1] = row[2]
		}
		if row[3] == "s" {
			for len(r.Generated) < attr {
				r.Generated = append(r.Generated, false)
			}
			r.Generated[attr-1] = true
		}
	})
}

// loadViews gives every view the columns that it reads, those of views below it
// included.
func (l *loader) loadViews() {
	direct := map[uint32][]sqlmeta.ColumnID{}
	l.each(viewsSQL, func(row []string) {
		view := l.oid(row[0])
		direct[view] = append(direct[view], sqlmeta.ColumnID{Relation: l.oid(row[1]), Attr: int16(l.number(row[2]))})
	})
	for view := range direct {
		r := l.relations[view]
		if r == nil {
			continue
		}
		found := map[sqlmeta.ColumnID]bool{}
		visited := map[uint32]bool{}
		var walk func(v uint32)
		walk = func(v uint32) {
			if visited[v] {
				return
			}
			visited[v] = true
			for _, c := range direct[v] {
				found[c] = true
				walk(c.Relation)
			}
		}
		walk(view)
		for c := range found {
			r.BaseColumns = append(r.BaseColumns, c)
		}
	}
}

func (l *loader) loadInheritance() {
	l.each(inheritsSQL, func(row []string) {
		child, parent := l.oid(row[0]), l.oid(row[1])
		if c, p := l.relations[child], l.relations[parent]; c != nil && p != nil {
			p.Children = append(p.Children, child)
			c.Parents = append(c.Parents, parent)
		}
	})
}

func (l *loader) loadFunctions() []sqlmeta.Function {
	var all []sqlmeta.Function
	l.each(functionsSQL, func(row []string) {
		f := sqlmeta.Function{OID: l.oid(row[0]), Schema: row[1], Name: row[2], Language: row[3], SecurityDefiner: row[5] == "t"}
		if row[4] != "" {
			f.Volatility = row[4][0]
		}
		f.BuiltIn = f.OID < firstNormalObjectID
		all = append(all, f)
	})
	return all
}

func (l *loader) loadTypes() map[uint32]sqlmeta.Type {
	all := map[uint32]sqlmeta.Type{}
	elements := map[uint32]uint32{}
	l.each(typesSQL, func(row []string) {
		t := sqlmeta.Type{TextWire: row[3] == "t"}
		if row[1] != "" {
			t.Kind = row[1][0]
		}
		oid := l.oid(row[0])
		elements[oid] = l.oid(row[2])
		all[oid] = t
	})
	for oid, element := range elements {
		t := all[oid]
		t.Element = element
		all[oid] = t
	}
	return all
}

// quotePath writes a search path for SET.
func quotePath(path []string) string {
	if len(path) == 0 {
		return "''"
	}
	quoted := make([]string, len(path))
	for i, s := range path {
		quoted[i] = `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return strings.Join(quoted, ", ")
}
