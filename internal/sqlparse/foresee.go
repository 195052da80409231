package sqlparse

import (
	"context"
	"errors"
	"fmt"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Bounds of the statements of which a count is made. To write a tree as SQL takes the
// parser's process several times the stack that it takes to read it; one that overflows
// it dies, and that may not be had for the asking (TestForeseeDeep).
const (
	maxCountText  = 64 << 10 // bytes
	maxCountDepth = 500
)

// Foresee says what can be asked of the server about one statement before it runs, and
// makes the text of a count of the rows that it would touch. That text is read and
// analysed like one of a client's: it counts only if it comes out as nothing but a read
// of what the statement names itself. The error is that of Analyze; a text of no or of
// several statements is one too.
func (a *Analyzer) Foresee(ctx context.Context, sql string, s sqlmeta.Session, c *sqlmeta.Catalog) (*sqlmeta.Forecast, error) {
	list, err := a.Analyze(ctx, sql, s, c)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("%d statements where one is looked at", len(list))
	}
	var f *sqlmeta.Forecast
	var counts []byte
	var marshal error
	err = a.Pool.with(ctx, sql, func(tree *pg_query.ParseResult) {
		f = sqlmeta.Foresee(tree, list[0], &s, c)
		if t, why := sqlmeta.CountTree(tree); t != nil {
			counts, marshal = proto.Marshal(t)
		} else {
			f.Uncounted = why
		}
	})
	if err = errors.Join(err, marshal); err != nil {
		return nil, err
	}
	if counts == nil {
		return f, nil
	}
	if len(sql) > maxCountText || sqlmeta.Deeper(sql, maxCountDepth) {
		f.Uncounted = "it is too long or nested too deeply for weir to make a count of it"
		return f, nil
	}
	text, err := a.Pool.deparse(ctx, counts)
	if err == nil {
		err = a.counts(ctx, f, text, s, c)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil, errors.Is(err, ErrBusy), errors.Is(err, ErrClosed):
		return nil, err
	default:
		f.Uncounted = "weir could not make a count of it"
	}
	return f, nil
}

// counts looks at the text of a count as if a client had sent it.
func (a *Analyzer) counts(ctx context.Context, f *sqlmeta.Forecast, text string, s sqlmeta.Session, c *sqlmeta.Catalog) error {
	list, err := a.analyze(ctx, text, s, c)
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return errors.New("a count that is not one statement")
	}
	return a.Pool.with(ctx, text, func(tree *pg_query.ParseResult) { f.Counts(text, tree, list[0], &s, c) })
}

// deparse writes a tree, in protobuf, as SQL.
func (p *Pool) deparse(ctx context.Context, tree []byte) (string, error) {
	if len(tree) > MaxTree {
		return "", ErrTooLarge
	}
	a, err := p.request(ctx, string(tree), deparseRequest)
	if err != nil {
		return "", err
	}
	defer p.decoding.Release(a.weight)
	return string(a.payload), nil
}
