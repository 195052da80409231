package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/proto/postgres"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/internal/sqlparse"
)

// openSQL makes an analyser of SQL for a command, with what SQL DDL in files tells
// about tables and views. warn is told what the files hold that is not understood.
// close ends the parser processes.
type openSQL func(ctx context.Context, schemas []string, warn func(string)) (analyse policy.Analyser, close func(), err error)

// offlineSQL analyses SQL where no database can be asked: names without a schema are
// taken to be in public. Text that cannot be read is an unknown action, as on the wire.
func offlineSQL(ctx context.Context, schemas []string, warn func(string)) (policy.Analyser, func(), error) {
	o := &offline{ctx: ctx, session: sqlmeta.Session{Database: "postgres", SearchPath: []string{"public"}, Certain: true,
		StandardConformingStrings: true, Offline: len(schemas) == 0}}
	if len(schemas) > 0 {
		if err := o.readSchemas(schemas, warn); err != nil {
			o.close()
			return nil, nil, err
		}
	}
	return o.analyse, o.close, nil
}

type offline struct {
	ctx     context.Context
	session sqlmeta.Session
	pool    *sqlparse.Pool   // made when it is first needed
	catalog *sqlmeta.Catalog // nil without a schema
}

func (o *offline) parser() (pool *sqlparse.Pool, err error) {
	if o.pool == nil {
		o.pool, err = sqlparse.New(sqlparse.Config{Size: 1, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	}
	return o.pool, err
}

func (o *offline) close() {
	if o.pool != nil {
		o.pool.Close()
	}
}

// maxSchema bounds a file of DDL, bytes: pg_dump --schema-only of 10,000 tables has
// some 20 MB.
const maxSchema = 64 << 20

func (o *offline) readSchemas(paths []string, warn func(string)) error {
	var text strings.Builder
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("the schema cannot be read: %w", err)
		}
		n, err := io.Copy(&text, io.LimitReader(f, maxSchema+1))
		f.Close()
		if err != nil {
			return fmt.Errorf("the schema cannot be read: %w", err)
		}
		if n > maxSchema {
			return fmt.Errorf("the schema in %s is longer than %d bytes; name files with the tables that matter", path, maxSchema)
		}
		text.WriteByte('\n')
	}
	pool, err := o.parser()
	if err != nil {
		return err
	}
	catalog, warnings, err := catalogFromDDL(o.ctx, pool, text.String())
	if err != nil {
		return fmt.Errorf("the schema cannot be understood: %w", err)
	}
	for _, w := range warnings {
		warn(w)
	}
	o.catalog = catalog
	return nil
}

// offlineNote says what an analysis without a schema cannot tell.
const offlineNote = "without --schema FILE (SQL DDL, such as pg_dump --schema-only writes) it cannot be told which columns * stands for, " +
	"whose column a name is that stands alone among several tables, and what views and functions read"

func (o *offline) analyse(_, sql string) ([]policy.Analysed, error) {
	pool, err := o.parser()
	if err != nil {
		return nil, err
	}
	a := &sqlparse.Analyzer{Pool: pool}
	statements, err := a.Analyze(o.ctx, sql, o.session, o.catalog)
	if len(statements) == 0 && err != nil {
		return nil, err
	}
	list := make([]policy.Analysed, len(statements))
	for i, action := range sqlmeta.Actions(statements) {
		st := statements[i]
		action.Columns, action.Languages, action.SecurityDefiner = st.Uses, st.Languages, st.SecurityDefiner
		list[i] = policy.Analysed{Action: action, Masked: func(masks []*policy.Mask) (policy.Masked, error) { return o.masked(st, masks) }}
	}
	return list, nil
}

// masked puts what masks do to a statement into the words of package policy.
func (o *offline) masked(st *sqlmeta.Statement, masks []*policy.Mask) (policy.Masked, error) {
	p, err := postgres.PreviewMasks(masks, o.catalog, st)
	if err != nil {
		return policy.Masked{}, err
	}
	m := policy.Masked{Refused: p.Refused, RefusedBy: namedMask(p.Refused, masks)}
	touches := len(st.Tests)+len(st.Stored) > 0
	for i, c := range p.Columns {
		column := policy.MaskedColumn{Position: i + 1, Name: c.Name, Carries: c.Carries, Mask: c.Mask, Method: c.Method, Source: c.Source}
		carried := &st.All
		if st.Output == nil { // one that stands for all
			column.Position = 0
		} else {
			carried = &st.Output[i].Lineage
		}
		touches = touches || !carried.Empty()
		if o.session.Offline && c.Method == "" && slices.ContainsFunc(carried.Columns, func(c sqlmeta.Column) bool { return c.Name == "" }) {
			column.Source = policy.SourceUnknown
		}
		m.Columns = append(m.Columns, column)
	}
	for _, t := range st.Tests {
		column := t.Column.String()
		if t.Unknown != "" {
			column = "what weir cannot follow (" + t.Unknown + ")"
		}
		m.Tests = append(m.Tests, policy.TestedColumn{Column: column, Kind: t.Kind.String(), Values: t.Count, Where: t.Where})
	}
	m.Spend(p.Spends)
	if o.session.Offline && touches {
		m.Notes = append(m.Notes, offlineNote)
	}
	return m, nil
}

// namedMask is the mask that a refusal names first.
func namedMask(refused string, masks []*policy.Mask) string {
	name, first := "", len(refused)
	for _, m := range masks {
		if i := strings.Index(refused, "mask "+strconv.Quote(m.Name)); i >= 0 && i < first {
			name, first = m.Name, i
		}
	}
	return name
}
