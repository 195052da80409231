package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Temporary relations are left out everywhere: they belong to one session, and a
// busy one would make every picture stale.

// probeSQL is cheap and its answer changes whenever a row does that load reads:
// every change of a row gives it a new xmin.
const probeSQL = `SELECT pg_catalog.concat_ws(',',
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(n.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_namespace AS n WHERE ` + lasting + `),
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_class WHERE relpersistence OPERATOR(pg_catalog.<>) 't'),
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(a.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_attribute AS a
		JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) a.attrelid WHERE c.relpersistence OPERATOR(pg_catalog.<>) 't'),
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_proc),
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_operator
		WHERE oid OPERATOR(pg_catalog.>=) ` + firstUser + `),
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_cast
		WHERE castfunc OPERATOR(pg_catalog.>=) ` + firstUser + `),
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_extension),
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(r.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_rewrite AS r
		JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) r.ev_class WHERE c.relpersistence OPERATOR(pg_catalog.<>) 't'),
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(i.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_inherits AS i
		JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid WHERE c.relpersistence OPERATOR(pg_catalog.<>) 't'),
	(SELECT pg_catalog.concat(pg_catalog.count(*), '.', pg_catalog.sum(t.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_type AS t
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
		WHERE t.oid OPERATOR(pg_catalog.>=) ` + firstUser + ` AND ` + lasting + `))`

func probe(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	rows, err := query(ctx, conn, probeSQL)
	if err != nil {
		return "", fmt.Errorf("ask whether the catalogue has changed: %w", err)
	}
	if len(rows) != 1 || len(rows[0]) != 1 || rows[0][0] == "" {
		return "", errors.New("the server did not say whether its catalogue has changed")
	}
	return rows[0][0], nil
}

const (
	// lasting leaves out temporary and TOAST schemas.
	lasting = `n.nspname OPERATOR(pg_catalog.!~) '^pg_(toast|temp)'`
	// firstUser is FirstNormalObjectId (access/transam.h): OIDs of users' objects
	// begin there.
	firstUser         = `16384`
	firstNormalObject = 16384

	schemasSQL = `SELECT n.nspname FROM pg_catalog.pg_namespace AS n WHERE ` + lasting

	relationsSQL = `SELECT c.oid, n.nspname, c.relname, c.relkind FROM pg_catalog.pg_class AS c
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,m,f,S,p,c,i,I}') AND ` + lasting

	// columnsSQL wants the expression for attgenerated, which came with version 12.
	columnsSQL = `SELECT a.attrelid, a.attnum, CASE WHEN a.attisdropped THEN '' ELSE a.attname::pg_catalog.text END, %s
		FROM pg_catalog.pg_attribute AS a
		JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) a.attrelid
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,m,f,p,c}') AND ` + lasting

	// A whole-row reference leaves no dependency on columns, so its mark in the
	// rule's tree (varattno 0) makes every dependency one on the whole row. Without
	// that mark a dependency on no column is on none: count(*).
	viewsSQL = `SELECT DISTINCT r.ev_class, d.refobjid,
		CASE WHEN pg_catalog.strpos(r.ev_action::pg_catalog.text, ':varattno 0 ') OPERATOR(pg_catalog.>) 0 THEN 0
		WHEN d.refobjsubid OPERATOR(pg_catalog.=) 0 THEN -7 ELSE d.refobjsubid END
		FROM pg_catalog.pg_rewrite AS r
		JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
		JOIN pg_catalog.pg_depend AS d ON d.objid OPERATOR(pg_catalog.=) r.oid
		WHERE d.classid OPERATOR(pg_catalog.=) 2618 AND d.refclassid OPERATOR(pg_catalog.=) 1259
		AND c.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}') AND d.refobjid OPERATOR(pg_catalog.<>) r.ev_class`

	// opaqueSQL finds users' views whose rule calls what may read anything: a
	// function of users or extensions (directly, or behind an operator or an
	// aggregate) unless it is compiled and immutable, or a function of the server
	// that runs SQL text or reads files.
	opaqueSQL = `SELECT DISTINCT r.ev_class FROM pg_catalog.pg_rewrite AS r
		JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) 2618 AND d.objid OPERATOR(pg_catalog.=) r.oid
		LEFT JOIN pg_catalog.pg_operator AS o ON d.refclassid OPERATOR(pg_catalog.=) 2617 AND o.oid OPERATOR(pg_catalog.=) d.refobjid
		JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) CASE WHEN d.refclassid OPERATOR(pg_catalog.=) 1255 THEN d.refobjid ELSE o.oprcode::pg_catalog.oid END
		JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
		LEFT JOIN pg_catalog.pg_aggregate AS g ON g.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) p.oid
		WHERE p.oid OPERATOR(pg_catalog.>=) ` + firstUser + ` AND (g.aggfnoid IS NOT NULL OR p.provolatile OPERATOR(pg_catalog.<>) 'i'
			OR l.lanname OPERATOR(pg_catalog.<>) ALL ('{c,internal}'))
		UNION SELECT r.ev_class FROM pg_catalog.pg_rewrite AS r, (SELECT ':funcid (' OPERATOR(pg_catalog.||) pg_catalog.string_agg(p.oid::pg_catalog.text, '|') OPERATOR(pg_catalog.||) ') ' AS calls
			FROM pg_catalog.pg_proc AS p WHERE p.oid OPERATOR(pg_catalog.<) ` + firstUser + ` AND (p.proname OPERATOR(pg_catalog.~) '(^|_)to_xml(schema|_and_xmlschema)?$'
			OR p.proname OPERATOR(pg_catalog.~) '^(pg_read_|pg_ls_|pg_logical_slot_|lo_|loread$|ts_stat$|ts_rewrite$|currtid)')) AS x
		WHERE r.ev_class OPERATOR(pg_catalog.>=) ` + firstUser + ` AND r.ev_action::pg_catalog.text OPERATOR(pg_catalog.~) x.calls`

	inheritsSQL = `SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits`

	functionsSQL = `SELECT p.oid, n.nspname, p.proname, l.lanname, p.provolatile, p.prosecdef FROM pg_catalog.pg_proc AS p
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
		JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
		WHERE ` + lasting

	// operatorsSQL says of each operator whether it is harmless: see
	// sqlmeta.Operator.
	operatorsSQL = `SELECT n.nspname, o.oprname, f.nspname, p.proname, p.oid,
		l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}') AND (p.oid OPERATOR(pg_catalog.<) ` + firstUser + ` OR (
			EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) p.proowner AND r.rolsuper)
			AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid OPERATOR(pg_catalog.=) 1255
				AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e')))
		AND (p.provolatile OPERATOR(pg_catalog.=) 'i' OR (p.provolatile OPERATOR(pg_catalog.=) 's' AND p.oid OPERATOR(pg_catalog.>=) ` + firstUser + `
			AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid OPERATOR(pg_catalog.=) 2617
				AND d.objid OPERATOR(pg_catalog.=) o.oid AND d.deptype OPERATOR(pg_catalog.=) 'e')))
		FROM pg_catalog.pg_operator AS o
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
		JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid
		JOIN pg_catalog.pg_namespace AS f ON f.oid OPERATOR(pg_catalog.=) p.pronamespace
		JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
		WHERE o.oid OPERATOR(pg_catalog.>=) ` + firstUser + ` AND ` + lasting + `
		ORDER BY o.oid USING OPERATOR(pg_catalog.<)`

	// Types that came with the server are known by their OID (package mask). A type
	// is text on the wire when the server's own functions for text write both forms.
	typesSQL = `SELECT t.oid, t.typtype, t.typelem,
		o.prosrc OPERATOR(pg_catalog.=) ANY ('{textout,varcharout,bpcharout,nameout}') AND s.prosrc OPERATOR(pg_catalog.=) ANY ('{textsend,varcharsend,bpcharsend,namesend}')
		FROM pg_catalog.pg_type AS t
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
		LEFT JOIN pg_catalog.pg_proc AS o ON o.oid OPERATOR(pg_catalog.=) t.typoutput
		LEFT JOIN pg_catalog.pg_proc AS s ON s.oid OPERATOR(pg_catalog.=) t.typsend
		WHERE t.oid OPERATOR(pg_catalog.>=) ` + firstUser + ` AND ` + lasting
)

// load reads the whole picture in one snapshot, one query for each class of
// objects. partial is set when it lacks texts that can be read later.
func load(ctx context.Context, conn *pgconn.PgConn, version uint64) (_ *sqlmeta.Catalog, partial bool, err error) {
	if _, err := query(ctx, conn, beginSQL); err != nil {
		return nil, false, err
	}
	defer func() {
		if _, e := query(ctx, conn, rollbackSQL); err == nil {
			err = e
		}
	}()
	l := &loader{ctx: ctx, conn: conn, relations: make(map[uint32]*sqlmeta.Relation), names: make(map[string]string)}
	schemas := l.schemas()
	l.loadRelations()
	l.loadColumns()
	l.loadViews()
	l.loadInheritance()
	l.loadGenerated()
	l.loadRules()
	functions := l.loadFunctions()
	l.loadContained(functions)
	operators := l.loadOperators()
	types := l.loadTypes()
	casts := l.loadCasts()
	definitions, partial := l.loadDefinitions()
	if l.err != nil {
		return nil, false, fmt.Errorf("read the system catalogue: %w", l.err)
	}
	relations := make([]*sqlmeta.Relation, 0, len(l.relations))
	for _, r := range l.relations {
		relations = append(relations, r)
	}
	slices.SortFunc(relations, func(a, b *sqlmeta.Relation) int { return compare(a.OID, b.OID) })
	return sqlmeta.NewCatalog(version, schemas, relations, functions).
		WithOperators(operators).WithTypes(types).WithCasts(casts).WithDefinitions(definitions), partial, nil
}

func compare(a, b uint32) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// loader reads one class of objects after the other; the first error stays.
type loader struct {
	ctx       context.Context
	conn      *pgconn.PgConn
	relations map[uint32]*sqlmeta.Relation
	names     map[string]string // one string for each name: many columns are called id
	err       error
}

// each runs sql and hands the rows to f; all of them have the given number of
// columns.
func (l *loader) each(sql string, columns int, f func(row [][]byte)) {
	if l.err != nil {
		return
	}
	err := stream(l.ctx, l.conn, sql, func(row [][]byte) error {
		if len(row) != columns {
			return errors.New("the server answered with other columns than were asked for")
		}
		f(row)
		return l.err
	})
	if l.err == nil {
		l.err = err
	}
}

func (l *loader) oid(b []byte) uint32 {
	n, err := strconv.ParseUint(string(b), 10, 32)
	if err != nil && l.err == nil {
		l.err = errors.New("the server sent an object id that is none")
	}
	return uint32(n)
}

// attr reads an attribute number of at least low.
func (l *loader) attr(b []byte, low int) int {
	n, err := strconv.ParseInt(string(b), 10, 16)
	if (err != nil || int(n) < low) && l.err == nil {
		l.err = errors.New("the server sent an attribute number that is none")
	}
	return int(n)
}

func (l *loader) name(b []byte) string {
	if s, ok := l.names[string(b)]; ok {
		return s
	}
	s := string(b)
	l.names[s] = s
	return s
}

func first(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func (l *loader) schemas() []string {
	var names []string
	l.each(schemasSQL, 1, func(row [][]byte) { names = append(names, l.name(row[0])) })
	slices.Sort(names)
	return names
}

func (l *loader) loadRelations() {
	l.each(relationsSQL, 4, func(row [][]byte) {
		r := &sqlmeta.Relation{OID: l.oid(row[0]), Schema: l.name(row[1]), Name: l.name(row[2]), Kind: first(row[3])}
		l.relations[r.OID] = r
	})
}

func (l *loader) loadColumns() {
	l.each(columns(l.major()), 4, func(row [][]byte) {
		r := l.relations[l.oid(row[0])]
		attr := l.attr(row[1], 1)
		if r == nil || l.err != nil {
			return
		}
		for len(r.Columns) < attr {
			r.Columns = append(r.Columns, "")
		}
		r.Columns[attr-1] = l.name(row[2])
		if first(row[3]) == 's' {
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
	l.each(viewsSQL, 3, func(row [][]byte) {
		view := l.oid(row[0])
		direct[view] = append(direct[view], sqlmeta.ColumnID{Relation: l.oid(row[1]), Attr: int16(l.attr(row[2], int(sqlmeta.NoColumn)))})
	})
	opaque := map[uint32]bool{}
	l.each(opaqueSQL, 1, func(row [][]byte) { opaque[l.oid(row[0])] = true })
	for _, r := range l.relations {
		if direct[r.OID] == nil && !opaque[r.OID] {
			continue
		}
		found, visited := map[sqlmeta.ColumnID]bool{}, map[uint32]bool{}
		for queue := []uint32{r.OID}; len(queue) > 0; {
			v := queue[0]
			queue = queue[1:]
			if visited[v] {
				continue
			}
			visited[v] = true
			r.Opaque = r.Opaque || opaque[v]
			for _, c := range direct[v] {
				found[c] = true
				queue = append(queue, c.Relation)
			}
		}
		for c := range found {
			r.BaseColumns = append(r.BaseColumns, c)
		}
		slices.SortFunc(r.BaseColumns, func(a, b sqlmeta.ColumnID) int {
			if a.Relation != b.Relation {
				return compare(a.Relation, b.Relation)
			}
			return int(a.Attr) - int(b.Attr)
		})
	}
}

func (l *loader) loadInheritance() {
	l.each(inheritsSQL, 2, func(row [][]byte) {
		child, parent := l.oid(row[0]), l.oid(row[1])
		if c, p := l.relations[child], l.relations[parent]; c != nil && p != nil {
			p.Children = append(p.Children, child)
			c.Parents = append(c.Parents, parent)
		}
	})
}

func (l *loader) loadFunctions() []sqlmeta.Function {
	var all []sqlmeta.Function
	l.each(functionsSQL, 6, func(row [][]byte) {
		f := sqlmeta.Function{OID: l.oid(row[0]), Schema: l.name(row[1]), Name: l.name(row[2]), Language: l.name(row[3]),
			Volatility: first(row[4]), SecurityDefiner: first(row[5]) == 't'}
		f.BuiltIn = f.OID < firstNormalObject
		all = append(all, f)
	})
	return all
}

func (l *loader) loadOperators() []sqlmeta.Operator {
	var all []sqlmeta.Operator
	l.each(operatorsSQL, 6, func(row [][]byte) {
		all = append(all, sqlmeta.Operator{Schema: l.name(row[0]), Name: l.name(row[1]), FunctionSchema: l.name(row[2]), Function: l.name(row[3]),
			BuiltIn: l.oid(row[4]) < firstNormalObject, Harmless: first(row[5]) == 't'})
	})
	return all
}

func (l *loader) loadTypes() map[uint32]sqlmeta.Type {
	all := map[uint32]sqlmeta.Type{}
	l.each(typesSQL, 4, func(row [][]byte) {
		all[l.oid(row[0])] = sqlmeta.Type{Kind: first(row[1]), Element: l.oid(row[2]), TextWire: first(row[3]) == 't'}
	})
	return all
}
