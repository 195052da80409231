package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// maxAnswer bounds the data of one answer, bytes: a catalogue of some hundred
// thousand columns is far below it, and a hostile server must not fill our memory.
const maxAnswer = 256 << 20

// stream runs a string of statements in the simple protocol and hands every row
// to f. The row's bytes are f's only until it returns.
func stream(ctx context.Context, conn *pgconn.PgConn, sql string, f func(row [][]byte) error) error {
	results := conn.Exec(ctx, sql)
	total := 0
	var failed error
	for results.NextResult() {
		rows := results.ResultReader()
		for rows.NextRow() {
			if failed != nil {
				continue // read on: the connection must stay in step
			}
			values := rows.Values()
			for _, v := range values {
				total += len(v)
			}
			if total > maxAnswer {
				failed = fmt.Errorf("the server's answer is longer than %d MiB", maxAnswer>>20)
				continue
			}
			failed = f(values)
		}
	}
	if err := results.Close(); err != nil {
		return err
	}
	return failed
}

// query is stream for small answers; NULL is "".
func query(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	var all [][]string
	err := stream(ctx, conn, sql, func(row [][]byte) error {
		out := make([]string, len(row))
		for i, v := range row {
			out[i] = string(v)
		}
		all = append(all, out)
		return nil
	})
	return all, err
}
