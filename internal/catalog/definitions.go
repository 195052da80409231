package catalog

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Texts of views and functions are read so that lineage can be followed through them.
// They are only carried here; package sqlparse reads those that statements ask for.

// Bounds of what is carried.
const (
	// maxDefinition is the longest text, bytes; a longer one stays unread, so that what
	// comes out of it is masked as if it could be anything.
	maxDefinition = 256 << 10
	// maxDefinitions bounds all of them together, bytes.
	maxDefinitions = 32 << 20
)

const (
	// unlocked is false for what depends on a relation that somebody has locked for
	// themselves, or waits to: to write out its text the server waits for that lock
	// (AcquireRewriteLocks), and who holds it may be the client that waits for this
	// picture. It wants the class of the object and its OID.
	unlocked = `NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_locks AS k ON k.relation OPERATOR(pg_catalog.=) d.refobjid
		WHERE d.classid OPERATOR(pg_catalog.=) %s AND d.objid OPERATOR(pg_catalog.=) %s AND d.refclassid OPERATOR(pg_catalog.=) 1259
		AND k.locktype OPERATOR(pg_catalog.=) 'relation' AND k.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock'
		AND k.database OPERATOR(pg_catalog.=) (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))`

	// textLockTimeout is for a lock that comes in between all the same.
	textLockTimeout = "200ms"

	// viewTextsSQL: under an empty search path the server names everything that is not
	// its own with its schema (ruleutils.c).
	viewTextsSQL = `SELECT c.oid, CASE WHEN %s THEN pg_catalog.pg_get_viewdef(c.oid) END FROM pg_catalog.pg_class AS c
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}') AND c.oid OPERATOR(pg_catalog.>=) ` + firstUser + ` AND ` + lasting

	// functionTextsSQL wants the expression for the body of BEGIN ATOMIC and RETURN, which
	// came with version 14.
	functionTextsSQL = `SELECT p.oid, l.lanname,
		CASE WHEN l.lanname OPERATOR(pg_catalog.=) 'sql' THEN %s
			WHEN l.lanname OPERATOR(pg_catalog.=) 'plpgsql' THEN pg_catalog.pg_get_functiondef(p.oid) ELSE '' END,
		coalesce(pg_catalog.array_to_string(p.proargnames, pg_catalog.chr(1)), ''),
		(SELECT pg_catalog.substr(s, 13) FROM pg_catalog.unnest(p.proconfig) AS s WHERE s OPERATOR(pg_catalog.~~) 'search_path=%%'),
		coalesce(pg_catalog.pg_get_expr(p.proargdefaults, 0), '')
		FROM pg_catalog.pg_proc AS p
		JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
		JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
		WHERE p.oid OPERATOR(pg_catalog.>=) ` + firstUser + ` AND l.lanname OPERATOR(pg_catalog.=) ANY ('{sql,plpgsql}')
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_aggregate AS g WHERE g.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) p.oid) AND ` + lasting

	// generatedSQL: the expression of a generated column depends on what it reads. A
	// dependency on no column is one on the whole row, or on nothing of the table's.
	generatedSQL = `SELECT a.adrelid, a.adnum, d.refobjsubid FROM pg_catalog.pg_attrdef AS a
		JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) 2604 AND d.objid OPERATOR(pg_catalog.=) a.oid
			AND d.refclassid OPERATOR(pg_catalog.=) 1259 AND d.refobjid OPERATOR(pg_catalog.=) a.adrelid
		JOIN pg_catalog.pg_attribute AS c ON c.attrelid OPERATOR(pg_catalog.=) a.adrelid AND c.attnum OPERATOR(pg_catalog.=) a.adnum
		WHERE c.attgenerated OPERATOR(pg_catalog.<>) '' AND d.refobjsubid OPERATOR(pg_catalog.<>) a.adnum`

	// rulesSQL: what a rule makes of a statement its text does not show (RuleStmt; the
	// type '1' is the SELECT of a view).
	rulesSQL = `SELECT DISTINCT ev_class FROM pg_catalog.pg_rewrite WHERE ev_type OPERATOR(pg_catalog.<>) '1'
		AND ev_class OPERATOR(pg_catalog.>=) ` + firstUser

	// castsSQL: a cast whose function is a user's runs it without naming it.
	castsSQL = `SELECT tn.nspname, t.typname, fn.nspname, p.proname FROM pg_catalog.pg_cast AS c
		JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) c.casttarget
		JOIN pg_catalog.pg_namespace AS tn ON tn.oid OPERATOR(pg_catalog.=) t.typnamespace
		JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) c.castfunc
		JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) p.pronamespace
		WHERE c.castfunc OPERATOR(pg_catalog.>=) ` + firstUser + ` ORDER BY c.oid USING OPERATOR(pg_catalog.<)`

	// containedSQL lists the functions of extensions that read no data of tables by
	// themselves: compiled, of an extension that a superuser installed, and immutable
	// or on the list of those that are known; and aggregates whose parts all are or came
	// with the server.
	containedSQL = `WITH contained AS (SELECT p.oid, e.extname, p.proname, p.provolatile FROM pg_catalog.pg_proc AS p
		JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
		JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) 1255 AND d.objid OPERATOR(pg_catalog.=) p.oid
			AND d.refclassid OPERATOR(pg_catalog.=) 3079 AND d.deptype OPERATOR(pg_catalog.=) 'e'
		JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
		JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) p.proowner
		WHERE r.rolsuper AND l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}')
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_aggregate AS g WHERE g.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) p.oid))
		SELECT c.oid, c.extname, c.proname, c.provolatile FROM contained AS c
		UNION ALL SELECT g.aggfnoid::pg_catalog.oid, '', '', 'i' FROM pg_catalog.pg_aggregate AS g
		WHERE g.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.>=) ` + firstUser + ` AND NOT EXISTS (
			SELECT FROM pg_catalog.unnest(ARRAY[g.aggtransfn::pg_catalog.oid, g.aggfinalfn::pg_catalog.oid, g.aggcombinefn::pg_catalog.oid,
				g.aggserialfn::pg_catalog.oid, g.aggdeserialfn::pg_catalog.oid, g.aggmtransfn::pg_catalog.oid, g.aggminvtransfn::pg_catalog.oid, g.aggmfinalfn::pg_catalog.oid]) AS f
			WHERE f OPERATOR(pg_catalog.>=) ` + firstUser + ` AND NOT EXISTS (SELECT FROM contained AS c WHERE c.oid OPERATOR(pg_catalog.=) f AND c.provolatile OPERATOR(pg_catalog.=) 'i'))`
)

// major is the server's major version, 0 when it does not say.
func (l *loader) major() int {
	n := 0
	for _, c := range l.conn.ParameterStatus("server_version") { // 15.18 (Debian ...), 19beta1
		if c < '0' || c > '9' || n > 999 {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// loadDefinitions reads the texts of views and functions, as far as nobody has locked
// what they stand on. partial is set when somebody has.
func (l *loader) loadDefinitions() (all []sqlmeta.Definition, partial bool) {
	if l.err != nil {
		return nil, false
	}
	if _, l.err = query(l.ctx, l.conn, savepointSQL); l.err != nil {
		return nil, false
	}
	all, partial = l.texts()
	var refused *pgconn.PgError
	if errors.As(l.err, &refused) && refused.Code == lockNotAvailable {
		_, l.err = query(l.ctx, l.conn, giveUpSQL)
		return nil, true
	}
	return all, partial
}

// lockNotAvailable is the SQLSTATE of a lock_timeout (manual, appendix A).
const lockNotAvailable = "55P03"

func (l *loader) texts() (all []sqlmeta.Definition, partial bool) {
	total := 0
	fits := func(text []byte) bool {
		if len(text) > maxDefinition || total+len(text) > maxDefinitions {
			return false
		}
		total += len(text)
		return true
	}
	l.each(viewTexts(), 2, func(row [][]byte) {
		if row[1] == nil {
			partial = true
		} else if fits(row[1]) {
			all = append(all, sqlmeta.Definition{OID: l.oid(row[0]), Kind: sqlmeta.ViewDefinition, Text: string(row[1])})
		}
	})
	l.each(functionTexts(l.major()), 6, func(row [][]byte) {
		d := sqlmeta.Definition{OID: l.oid(row[0]), Kind: sqlmeta.SQLFunction}
		if string(row[1]) == "plpgsql" {
			d.Kind = sqlmeta.PLpgSQLFunction
		}
		if len(row[3]) > 0 {
			d.Arguments = strings.Split(string(row[3]), "\x01")
		}
		if row[4] != nil {
			path, ok := sqlmeta.SplitSearchPath(string(row[4]))
			if !ok || strings.Contains(string(row[4]), "$user") {
				d.Kind = sqlmeta.UnreadFunction // of whoever calls it: not known here
			}
			d.SearchPath = path
		}
		partial = partial || row[2] == nil
		d.Defaults = string(row[5])
		if d.Kind != sqlmeta.UnreadFunction && row[2] != nil && fits(row[2]) && fits(row[5]) {
			d.Text = statementsOf(string(row[2]), d.Kind)
		} else {
			d.Kind = sqlmeta.UnreadFunction
		}
		all = append(all, d)
	})
	return all, partial
}

// statementsOf makes statements of the bodies that the server writes as RETURN
// expression or BEGIN ATOMIC ... END (print_function_sqlbody in ruleutils.c).
func statementsOf(body string, kind sqlmeta.DefinitionKind) string {
	text := strings.TrimSpace(body)
	if kind != sqlmeta.SQLFunction {
		return body
	}
	if expression, ok := strings.CutPrefix(text, "RETURN "); ok {
		return "SELECT " + expression
	}
	if list, ok := strings.CutPrefix(text, "BEGIN ATOMIC"); ok {
		if list, ok := strings.CutSuffix(list, "END"); ok {
			return list
		}
	}
	return body
}

func (l *loader) loadGenerated() {
	if l.major() < 12 && l.major() > 0 {
		return
	}
	l.each(generatedSQL, 3, func(row [][]byte) {
		r, attr, from := l.relations[l.oid(row[0])], l.attr(row[1], 1), l.attr(row[2], 0)
		if r == nil || l.err != nil {
			return
		}
		for len(r.GeneratedFrom) < attr {
			r.GeneratedFrom = append(r.GeneratedFrom, nil)
		}
		r.GeneratedFrom[attr-1] = append(r.GeneratedFrom[attr-1], int16(from))
	})
}

func (l *loader) loadRules() {
	l.each(rulesSQL, 1, func(row [][]byte) {
		if r := l.relations[l.oid(row[0])]; r != nil {
			r.Rewritten = true
		}
	})
}

func (l *loader) loadCasts() []sqlmeta.Cast {
	var all []sqlmeta.Cast
	l.each(castsSQL, 4, func(row [][]byte) {
		all = append(all, sqlmeta.Cast{TargetSchema: l.name(row[0]), Target: l.name(row[1]), FunctionSchema: l.name(row[2]), Function: l.name(row[3])})
	})
	return all
}

// loadContained marks the functions that read nothing by themselves.
func (l *loader) loadContained(functions []sqlmeta.Function) {
	known := make(map[uint32]bool)
	l.each(containedSQL, 4, func(row [][]byte) {
		if first(row[3]) == 'i' || sqlmeta.ReadsNothing(string(row[1]), string(row[2])) {
			known[l.oid(row[0])] = true
		}
	})
	for i := range functions {
		functions[i].Contained = known[functions[i].OID]
	}
}
