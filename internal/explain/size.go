package explain

import (
	"context"
	"encoding/json"
	"strings"
)

// sizesSQL says how many rows tables have by the server's statistics, with their
// partitions and inheritance children: a line each, "name number" with -1 for unknown.
const sizesSQL = `WITH RECURSIVE
named AS (SELECT r.name, r.oid FROM pg_catalog.jsonb_to_recordset($1::pg_catalog.jsonb) AS r(name pg_catalog.text, oid pg_catalog.oid)
	WHERE COALESCE(pg_catalog.to_regclass(r.name)::pg_catalog.oid OPERATOR(pg_catalog.=) r.oid, false)),
tree(name, oid) AS (SELECT name, oid FROM named UNION
	SELECT tree.name, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) tree.oid)
SELECT CASE WHEN pg_catalog.min(c.reltuples) OPERATOR(pg_catalog.<) 0::pg_catalog.float4 THEN 'an unknown number of rows in '
	ELSE pg_catalog.concat('about ', pg_catalog.sum(c.reltuples)::pg_catalog.int8, ' rows in ') END OPERATOR(pg_catalog.||) tree.name
FROM tree JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) tree.oid AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m}')
GROUP BY tree.name`

// maxSizes bounds the sizes that are told, bytes.
const maxSizes = 2 << 10

// sizes tells of the tables that would be emptied how large they are.
func (q *asking) sizes(ctx context.Context) error {
	var list []relation
	for _, r := range q.request.Forecast.Emptied {
		list = append(list, relation(r))
	}
	question, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if len(question) > maxQuestion {
		return refusal("it names too many tables")
	}
	found, err := q.rows(ctx, sizesSQL, [][]byte{question}, maxSizes)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		q.out.Notes = append(q.out.Notes, "by the server's statistics: "+strings.ToValidUTF8(strings.Join(found, ", "), "\uFFFD"))
	}
	return nil
}
