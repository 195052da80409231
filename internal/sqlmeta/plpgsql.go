package sqlmeta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// PL/pgSQL (manual, chapter 43) is a language around SQL: the parser of the language
// gives its statements as JSON in which every expression and query is SQL text. What
// a function reads and stores stands in these texts alone, unless it makes SQL out of
// strings.

// PLpgSQL is what a function's body holds.
type PLpgSQL struct {
	Texts     []string // SQL, each a statement of its own
	Variables map[string]struct{}
	Problem   string // why the texts are not all that it can run; "" when they are
}

// knownPLpgSQL are the nodes that the parser makes (pg_query's pg_query_json_plpgsql.c).
// One that is not here may run what is not looked into.
var knownPLpgSQL = set(`
	function var row rec recfield type diag_item condition exception exception_block
	expr raise_option case_when if_elsif promise nsitem
	stmt_block stmt_assign stmt_if stmt_case stmt_loop stmt_while stmt_fori stmt_fors stmt_forc
	stmt_foreach_a stmt_exit stmt_return stmt_return_next stmt_return_query stmt_raise stmt_assert
	stmt_execsql stmt_dynexecute stmt_dynfors stmt_getdiag stmt_open stmt_fetch stmt_close
	stmt_perform stmt_call stmt_commit stmt_rollback
`)

const dynamicSQL = "dynamic SQL (EXECUTE)"

// maxPLpgSQL bounds the texts of one body.
const maxPLpgSQL = 2048

// ReadPLpgSQL reads the parser's JSON of one function.
func ReadPLpgSQL(text []byte) (*PLpgSQL, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var root any
	if err := d.Decode(&root); err != nil {
		return nil, fmt.Errorf("the parser's answer is no JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the parser's answer goes on behind its JSON")
	}
	p := &PLpgSQL{Variables: make(map[string]struct{})}
	for _, v := range []string{"found", "sqlstate", "sqlerrm", "new", "old", "tg_name", "tg_when", "tg_level", "tg_op", "tg_relid",
		"tg_relname", "tg_table_name", "tg_table_schema", "tg_nargs", "tg_argv", "tg_event", "tg_tag"} {
		p.Variables[v] = struct{}{}
	}
	p.visit(root)
	return p, nil
}

func (p *PLpgSQL) visit(v any) {
	switch x := v.(type) {
	case []any:
		for _, e := range x {
			p.visit(e)
		}
	case map[string]any:
		for key, e := range x {
			p.member(key, e)
		}
	}
}

func (p *PLpgSQL) member(key string, v any) {
	if kind, ok := strings.CutPrefix(key, "PLpgSQL_"); ok {
		switch {
		case !knownPLpgSQL[kind]:
			p.problem("a statement of PL/pgSQL that weir does not know")
		case kind == "stmt_dynexecute" || kind == "stmt_dynfors":
			p.problem(dynamicSQL)
		case kind == "expr":
			p.expression(v)
			return
		}
	}
	switch key {
	case "dynquery":
		p.problem(dynamicSQL)
	case "refname", "label", "name", "fieldname":
		if name, ok := v.(string); ok {
			p.Variables[strings.ToLower(name)] = struct{}{}
		}
	}
	p.visit(v)
}

func (p *PLpgSQL) problem(s string) {
	if p.Problem == "" {
		p.Problem = s
	}
}

// Parse modes of an expression (raw_parser.h).
const (
	parseStatement  = "0"
	parseExpression = "2"
	parseAssign1    = "3"
	parseAssign3    = "5"
)

func (p *PLpgSQL) expression(v any) {
	m, _ := v.(map[string]any)
	query, ok := m["query"].(string)
	mode, _ := m["parseMode"].(json.Number)
	switch {
	case !ok:
		p.problem("an expression of PL/pgSQL without its text")
	case len(p.Texts) >= maxPLpgSQL:
		p.problem(fmt.Sprintf("more than %d statements and expressions", maxPLpgSQL))
	case mode == parseStatement:
		p.Texts = append(p.Texts, query)
	case mode == parseExpression:
		p.Texts = append(p.Texts, "SELECT "+query)
	case mode >= parseAssign1 && mode <= parseAssign3:
		target, value, ok := assignment(query)
		if !ok {
			p.problem("an assignment of PL/pgSQL that weir cannot read")
			return
		}
		p.Texts = append(p.Texts, "SELECT "+value)
		if strings.Contains(target, "[") {
			p.Texts = append(p.Texts, "SELECT "+target)
		}
	default:
		p.problem("an expression of PL/pgSQL of a kind that weir does not know")
	}
}

// assignment cuts "target := value" or "target = value".
func assignment(text string) (target, value string, ok bool) {
	l := lexer{text: text}
	depth := 0
	for {
		t := l.next()
		switch token := text[t.start:t.end]; {
		case t.kind == tokEnd:
			return "", "", false
		case token == "[" || token == "(":
			depth++
		case token == "]" || token == ")":
			depth--
		case depth > 0:
		case t.kind == tokOperator && (token == ":=" || token == "="):
			return text[:t.start], text[t.end:], true
		case t.kind == tokOperator && (strings.HasPrefix(token, ":=") || strings.HasPrefix(token, "=")):
			// "x :=-1" is one token to the lexer: the sign belongs to the value.
			n := 1
			if token[0] == ':' {
				n = 2
			}
			return text[:t.start], text[t.start+n:], true
		}
	}
}

// Strings lists what stands in dollar-quoted strings of a text: the body of a CREATE
// FUNCTION.
func Strings(text string) []string {
	var out []string
	l := lexer{text: text}
	for {
		t := l.next()
		if t.kind == tokEnd {
			return out
		}
		if s := text[t.start:t.end]; t.kind == tokString && s[0] == '$' {
			if i := strings.IndexByte(s[1:], '$') + 2; i > 1 && len(s) >= 2*i {
				out = append(out, s[i:len(s)-i])
			}
		}
	}
}
