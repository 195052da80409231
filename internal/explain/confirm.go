package explain

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// What sqlmeta foresaw rests on a picture of the catalogue that is some seconds old and
// does not hold everything. So the server is asked, after it has parsed the statement:
// the locks that parsing took hold until the end of the transaction, and what names stand
// for stays in the parsed statement, so what is true then stays true while it is planned
// or counted. The answer has one row for each thing that might run something of a user's.

// trusted says of a function p that it came with the server, or is a compiled one of
// an extension's that changes nothing: no user can make such a one.
const trusted = `(p.oid OPERATOR(pg_catalog.<) 16384 OR (p.provolatile OPERATOR(pg_catalog.<>) 'v'
		AND EXISTS (SELECT FROM pg_catalog.pg_language AS l WHERE l.oid OPERATOR(pg_catalog.=) p.prolang AND l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}'))
		AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid OPERATOR(pg_catalog.=) 1255 AND d.objid OPERATOR(pg_catalog.=) p.oid
			AND d.deptype OPERATOR(pg_catalog.=) 'e')))`

// confirmSQL finds what stands against asking about a statement. $1 is a mentioned in
// JSON. Everything is named with its schema and no construct is used that looks for an
// operator on the path, which is the client's (CVE-2025-12819). Numbers in pg_depend are
// the OIDs of pg_class (1259), pg_proc (1255), pg_operator (2617), pg_opclass (2616),
// pg_type (1247), pg_constraint (2606), pg_attrdef (2604) and pg_statistic_ext (3381).
const confirmSQL = `WITH RECURSIVE
q AS (SELECT $1::pg_catalog.jsonb AS q),
named AS (SELECT r.name, r.oid FROM q, pg_catalog.jsonb_to_recordset(q.q OPERATOR(pg_catalog.->) 'relations') AS r(name pg_catalog.text, oid pg_catalog.oid)),
path AS (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(true))),
-- the tables, their partitions and their inheritance children
tree(oid) AS (SELECT oid FROM named UNION
	SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) tree.oid),
kin AS (SELECT c.* FROM tree JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) tree.oid),
unsteady AS MATERIALIZED (SELECT p.oid, p.proname FROM pg_catalog.pg_proc AS p WHERE NOT ` + trusted + `),
-- the types that values can have
play(oid) AS (
	(SELECT a.atttypid FROM tree JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) tree.oid
		WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
	UNION SELECT pg_catalog.to_regtype(x.name)::pg_catalog.oid FROM q, pg_catalog.jsonb_array_elements_text(q.q OPERATOR(pg_catalog.->) 'types') AS x(name)
	UNION SELECT x.oid::pg_catalog.oid FROM q, pg_catalog.jsonb_array_elements_text(q.q OPERATOR(pg_catalog.->) 'params') AS x(oid))
	UNION
	SELECT CASE WHEN t.typtype OPERATOR(pg_catalog.=) 'd' THEN t.typbasetype ELSE t.typelem END
		FROM play JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) play.oid
		WHERE t.typtype OPERATOR(pg_catalog.=) 'd' OR (t.typelem OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND t.typlen OPERATOR(pg_catalog.=) (-1)::pg_catalog.int2)),
casting(oid) AS (SELECT oid FROM play UNION SELECT reltype FROM kin),
-- what expressions of tables, indexes, partition keys, statistics, domains and defaults stand on
parts(class, oid) AS (
	SELECT 1259::pg_catalog.oid, oid FROM tree
	UNION ALL SELECT 1259::pg_catalog.oid, i.indexrelid FROM tree JOIN pg_catalog.pg_index AS i ON i.indrelid OPERATOR(pg_catalog.=) tree.oid
	UNION ALL SELECT 3381::pg_catalog.oid, s.oid FROM tree JOIN pg_catalog.pg_statistic_ext AS s ON s.stxrelid OPERATOR(pg_catalog.=) tree.oid
	UNION ALL SELECT 2606::pg_catalog.oid, k.oid FROM play JOIN pg_catalog.pg_constraint AS k ON k.contypid OPERATOR(pg_catalog.=) play.oid
	UNION ALL SELECT 2604::pg_catalog.oid, a.oid FROM tree JOIN pg_catalog.pg_attrdef AS a ON a.adrelid OPERATOR(pg_catalog.=) tree.oid, q
		WHERE (q.q OPERATOR(pg_catalog.->>) 'defaults')::pg_catalog.bool)

SELECT 'a name stands for another table now' FROM named WHERE NOT COALESCE(pg_catalog.to_regclass(name)::pg_catalog.oid OPERATOR(pg_catalog.=) oid, false)
UNION ALL SELECT 'it reads what is not a plain table' FROM kin
	WHERE relkind OPERATOR(pg_catalog.<>) ALL ('{r,p,m}') OR relpersistence OPERATOR(pg_catalog.=) 't'
UNION ALL SELECT 'row-level security applies to a table, and its policies may call functions' FROM named WHERE pg_catalog.row_security_active(oid)
UNION ALL SELECT 'rules make other statements of it' FROM named JOIN pg_catalog.pg_rewrite AS r ON r.ev_class OPERATOR(pg_catalog.=) named.oid
	JOIN kin ON kin.oid OPERATOR(pg_catalog.=) named.oid WHERE kin.relkind OPERATOR(pg_catalog.<>) 'm'
UNION ALL SELECT 'a function that it names is a user''s' FROM q, pg_catalog.pg_proc AS p JOIN path ON path.oid OPERATOR(pg_catalog.=) p.pronamespace
	WHERE p.oid OPERATOR(pg_catalog.>=) 16384
	AND (q.q OPERATOR(pg_catalog.->) 'functions' OPERATOR(pg_catalog.?) p.proname::pg_catalog.text
	OR q.q OPERATOR(pg_catalog.->) 'columns' OPERATOR(pg_catalog.?) p.proname::pg_catalog.text AND p.pronargs OPERATOR(pg_catalog.>) 0::pg_catalog.int2
		AND EXISTS (SELECT FROM pg_catalog.pg_type AS t WHERE t.oid OPERATOR(pg_catalog.=) p.proargtypes[0] AND t.typtype OPERATOR(pg_catalog.=) ANY ('{c,p}')))
UNION ALL SELECT 'an operator that it uses may be a user''s' FROM q, pg_catalog.pg_operator AS o
	WHERE q.q OPERATOR(pg_catalog.->) 'operators' OPERATOR(pg_catalog.?) o.oprname::pg_catalog.text
	AND EXISTS (SELECT FROM unsteady AS u WHERE u.oid OPERATOR(pg_catalog.=) ANY (ARRAY[o.oprcode::pg_catalog.oid, o.oprrest::pg_catalog.oid, o.oprjoin::pg_catalog.oid]))
UNION ALL SELECT 'a type in it is a user''s' FROM play LEFT JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) play.oid
	WHERE t.oid IS NULL OR NOT (t.oid OPERATOR(pg_catalog.<) 16384 OR t.typtype OPERATOR(pg_catalog.=) ANY ('{e,d}')
	OR t.typtype OPERATOR(pg_catalog.=) 'b' AND (t.typcategory OPERATOR(pg_catalog.=) 'A' OR EXISTS (SELECT FROM pg_catalog.pg_depend AS d
		WHERE d.classid OPERATOR(pg_catalog.=) 1247 AND d.objid OPERATOR(pg_catalog.=) t.oid AND d.deptype OPERATOR(pg_catalog.=) 'e')))
UNION ALL SELECT 'a cast between types in it is a user''s function' FROM pg_catalog.pg_cast AS k JOIN unsteady AS u ON u.oid OPERATOR(pg_catalog.=) k.castfunc
	WHERE (k.castsource OPERATOR(pg_catalog.<) 16384 OR EXISTS (SELECT FROM casting WHERE casting.oid OPERATOR(pg_catalog.=) k.castsource))
	AND (k.casttarget OPERATOR(pg_catalog.<) 16384 OR EXISTS (SELECT FROM casting WHERE casting.oid OPERATOR(pg_catalog.=) k.casttarget))
UNION ALL SELECT 'an index, a partition key, a default or a domain of its tables calls a user''s function'
	FROM parts JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) parts.class AND d.objid OPERATOR(pg_catalog.=) parts.oid
	WHERE d.refclassid OPERATOR(pg_catalog.=) 1255 AND EXISTS (SELECT FROM unsteady AS u WHERE u.oid OPERATOR(pg_catalog.=) d.refobjid)
	OR d.refclassid OPERATOR(pg_catalog.=) 2617 AND EXISTS (SELECT FROM pg_catalog.pg_operator AS o JOIN unsteady AS u ON u.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid
		WHERE o.oid OPERATOR(pg_catalog.=) d.refobjid)
	OR d.refclassid OPERATOR(pg_catalog.=) 2616 AND d.refobjid OPERATOR(pg_catalog.>=) 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
		WHERE e.classid OPERATOR(pg_catalog.=) 2616 AND e.objid OPERATOR(pg_catalog.=) d.refobjid AND e.deptype OPERATOR(pg_catalog.=) 'e')`

// mentioned is what confirmSQL is asked about.
type mentioned struct {
	Relations []relation `json:"relations"`
	Functions []string   `json:"functions"`
	Columns   []string   `json:"columns"`
	Operators []string   `json:"operators"`
	Types     []string   `json:"types"`
	Params    []uint32   `json:"params"`
	Defaults  bool       `json:"defaults"`
}

type relation struct {
	Name string `json:"name"`
	OID  uint32 `json:"oid"`
}

// byConstructs are the operators that constructs of the language look for by name:
// IN, CASE, BETWEEN, NULLIF, IS DISTINCT FROM, DISTINCT, ORDER BY.
var byConstructs = []string{"=", "<>", "<", "<=", ">", ">="}

// obstacleLength is more than an answer is long, bytes.
const obstacleLength = 200

// maxQuestion bounds what the server is asked about a statement, bytes.
const maxQuestion = 1 << 20

// confirm makes sure that a statement that has just been parsed uses nothing of a
// user's but tables. params are the types of its parameters; defaults says that it may
// write the defaults of columns. The error says what stands against it.
func (q *asking) confirm(ctx context.Context, m *sqlmeta.Mentions, params []uint32, defaults bool) error {
	in := mentioned{Functions: m.Functions, Columns: m.Columns, Operators: append(slices.Clone(m.Operators), byConstructs...), Types: m.Types, Params: params, Defaults: defaults}
	for _, r := range m.Relations {
		in.Relations = append(in.Relations, relation(r))
	}
	question, err := json.Marshal(in.filled())
	if err != nil {
		return err
	}
	if len(question) > maxQuestion {
		return refusal("it names too many things")
	}
	found, err := q.rows(ctx, confirmSQL, [][]byte{question}, obstacleLength)
	if err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	if len(found) > 0 {
		return refusal(found[0])
	}
	return nil
}

// filled has empty lists for none: JSON's null has no elements that could be asked for.
func (m mentioned) filled() mentioned {
	if m.Relations == nil {
		m.Relations = []relation{}
	}
	if m.Params == nil {
		m.Params = []uint32{}
	}
	for _, list := range []*[]string{&m.Functions, &m.Columns, &m.Types} {
		if *list == nil {
			*list = []string{}
		}
	}
	return m
}
