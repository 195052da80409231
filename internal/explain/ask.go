package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Everything goes by the extended protocol, which takes one statement in a text only
// (PostgreSQL manual, 55.2.3). The client's own text is only ever parsed by itself; what
// is executed is an EXPLAIN EXECUTE of it by name, so that nothing in the text can become
// part of another statement.

// Names of prepared statements on the connection.
const (
	original = "weir_original"
	typing   = "weir_types" // the original once more, for the types of its parameters
	counting = "weir_count"
)

// asking is one look ahead on one connection.
type asking struct {
	conn    *pgconn.PgConn
	request *Request
	timeout string
	out     Explained
}

// part finds out one thing in a transaction of its own; what goes wrong is a note.
func (q *asking) part(ctx context.Context, missing string, find func(context.Context) error) {
	err := q.within(ctx, find)
	if err != nil {
		q.out.Notes = append(q.out.Notes, missing+": "+inWords(ctx, err))
	}
}

// within runs find in a transaction that only reads and is never committed.
func (q *asking) within(ctx context.Context, find func(context.Context) error) error {
	if q.conn.IsClosed() {
		return refusal("the connection to the server broke")
	}
	if _, err := q.rows(ctx, beginSQL, nil, 0); err != nil {
		return err
	}
	err := q.settings(ctx)
	if err == nil {
		err = find(ctx)
	}
	if !q.conn.IsClosed() { // else the server rolls back by itself
		if _, end := q.rows(ctx, rollbackSQL, nil, 0); err == nil {
			err = end
		}
	}
	return err
}

// settings makes the transaction like one of the client's session, with bounds. Those
// of ours come last.
func (q *asking) settings(ctx context.Context) error {
	all := append(slices.Clone(q.request.Settings),
		Setting{"statement_timeout", q.timeout},
		Setting{"lock_timeout", strconv.Itoa(lockTimeout)},
		Setting{"idle_in_transaction_session_timeout", strconv.Itoa(idleTimeout)},
		// A plan that holds for all values shows none.
		Setting{"plan_cache_mode", "force_generic_plan"},
		// The planner would look at CHECK constraints, which may call anything.
		Setting{"constraint_exclusion", "off"},
		Setting{"jit", "off"})
	var sql strings.Builder
	values := make([][]byte, 0, 2*len(all))
	for i, s := range all {
		sep := ", "
		if i == 0 {
			sep = "SELECT "
		}
		fmt.Fprintf(&sql, "%spg_catalog.set_config($%d, $%d, true)", sep, 2*i+1, 2*i+2)
		values = append(values, []byte(s.Name), []byte(s.Value))
	}
	_, err := q.rows(ctx, sql.String(), values, 0)
	return err
}

// plan has the server plan the statement, without values for its parameters.
func (q *asking) plan(ctx context.Context) error {
	params, err := q.parse(ctx, original, q.request.Text, q.request.Types, &q.request.Forecast.Named, writesDefaults(q.request.Forecast.Statement))
	if err != nil {
		return err
	}
	sql := "EXPLAIN (FORMAT TEXT, COSTS OFF) EXECUTE " + original
	if len(params) > 0 {
		sql += "(NULL" + strings.Repeat(", NULL", len(params)-1) + ")"
	}
	plan, err := q.rows(ctx, sql, nil, MaxPlan)
	if err != nil {
		return err
	}
	q.out.Plan = shortened(plan)
	return nil
}

// writesDefaults reports whether a statement's plan holds defaults of columns.
func writesDefaults(st *sqlmeta.Statement) bool { return st.Tag != "SELECT" && st.Tag != "DELETE" }

// shortened joins the lines of a plan as far as there is room for them.
func shortened(lines []string) string {
	plan := strings.ToValidUTF8(strings.Join(lines, "\n"), "\uFFFD")
	if len(plan) <= MaxPlan {
		return plan
	}
	const more = "\n... (cut)"
	plan = plan[:MaxPlan-len(more)]
	if i := strings.LastIndexByte(plan, '\n'); i > 0 {
		plan = plan[:i]
	}
	return strings.ToValidUTF8(plan, "") + more
}

// count counts the rows that the statement would touch now.
func (q *asking) count(ctx context.Context) error {
	r := q.request
	types := r.Types
	if len(r.Forecast.Named.Params) > 0 {
		if !r.Kept {
			return refusal("the bound values are too long for weir to keep")
		}
		// The statement as a whole decides the types of its parameters; the count has
		// a part of it.
		var err error
		if types, err = q.parse(ctx, typing, r.Text, r.Types, &r.Forecast.Named, false); err != nil {
			return err
		}
		if len(types) != len(r.Values) {
			return refusal("the values do not go with the parameters")
		}
	}
	params, err := q.parse(ctx, counting, r.Forecast.Count, types, &r.Forecast.Counted, false)
	if err != nil {
		return err
	}
	if len(params) != len(r.Values) && len(params) > 0 {
		return refusal("the values do not go with the parameters")
	}
	values, formats := r.Values, r.Formats
	if len(params) == 0 {
		values, formats = nil, nil
	}
	found, err := collect(q.conn.ExecPrepared(ctx, counting, values, formats, nil), countLength)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return refusal("the server's answer is no count")
	}
	n, err := strconv.ParseInt(found[0], 10, 64)
	if err != nil || n < 0 {
		return refusal("the server's answer is no count")
	}
	q.out.Rows = &n
	return nil
}

// countLength is more than a count is long, bytes.
const countLength = 64

// parse has the server parse a statement, under the settings of the transaction, and
// returns the types of its parameters. Parsing reads literals, which an array of a domain
// does with the domain's checks: so what the statement uses is confirmed before, and
// after, when locks keep it so.
func (q *asking) parse(ctx context.Context, name, sql string, types []uint32, m *sqlmeta.Mentions, defaults bool) ([]uint32, error) {
	declared := slices.DeleteFunc(slices.Clone(types), func(t uint32) bool { return t == 0 })
	if err := q.confirm(ctx, m, declared, defaults); err != nil {
		return nil, err
	}
	d, err := q.conn.Prepare(ctx, name, sql, types)
	if err != nil {
		return nil, err
	}
	return d.ParamOIDs, q.confirm(ctx, m, d.ParamOIDs, defaults)
}

// rows executes one statement, with values in text, and returns the first column of
// its rows, up to limit bytes.
func (q *asking) rows(ctx context.Context, sql string, values [][]byte, limit int) ([]string, error) {
	return collect(q.conn.ExecParams(ctx, sql, values, nil, nil, nil), limit)
}

// collect reads an answer to its end and keeps the first column of its first rows; the
// last one kept goes beyond limit bytes.
func collect(answer *pgconn.ResultReader, limit int) ([]string, error) {
	var out []string
	kept := 0
	for answer.NextRow() {
		values := answer.Values()
		if len(values) == 0 || kept > limit {
			continue // read on: the connection must stay in step
		}
		v := values[0]
		v = v[:min(len(v), limit+1)]
		kept += len(v) + 1
		out = append(out, string(v))
	}
	_, err := answer.Close()
	return out, err
}

// refusal is why something was not asked or found out, for approvers.
type refusal string

func (r refusal) Error() string { return string(r) }

// inWords is an error as approvers see it. The server's own words may quote data.
func inWords(ctx context.Context, err error) string {
	var pg *pgconn.PgError
	var own refusal
	switch {
	case errors.As(err, &pg):
	case ctx.Err() != nil:
		return "the time for it was up"
	case errors.As(err, &own):
		return string(own)
	default:
		return "the connection to the server failed"
	}
	switch pg.Code {
	case "57014": // query_canceled
		return fmt.Sprintf("it takes the server longer than %d s", statementTimeout/1000)
	case "55P03": // lock_not_available
		return "another session holds a lock that it needs"
	case "42501": // insufficient_privilege
		return "the database account may not do what it needs (SQLSTATE 42501)"
	}
	code := pg.Code
	if !isState(code) {
		code = "none"
	}
	return "the server refused it (SQLSTATE " + code + ")"
}

// isState reports whether s looks like an SQLSTATE: five digits or capitals.
func isState(s string) bool {
	return len(s) == 5 && strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
