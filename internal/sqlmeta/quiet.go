package sqlmeta

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Whether a statement fails is seen by who sends it, whatever its results show. So a
// calculation over a masked column is a test of it, unless it succeeds for every
// value. Here stands which ones do; what is not here may fail.

// quietFunctions succeed for every value of every argument, apart from the limits of
// memory.
var quietFunctions = set(`
	concat concat_ws lower upper initcap casefold reverse
	length char_length character_length octet_length bit_length
	btrim ltrim rtrim md5 sha224 sha256 sha384 sha512 quote_literal quote_nullable quote_ident
	num_nulls num_nonnulls pg_typeof pg_column_size
	row_to_json to_json to_jsonb json_build_array jsonb_build_array array_to_json
	array_append array_prepend array_cat array_length array_ndims cardinality array_upper array_lower
	count min max sum avg any_value string_agg array_agg json_agg jsonb_agg xmlagg bool_and bool_or every
	row_number rank dense_rank percent_rank cume_dist lag lead first_value last_value
	json_typeof jsonb_typeof hash_record hashtext starts_with strpos
	mode percentile_disc percentile_cont stddev stddev_pop stddev_samp variance var_pop var_samp ascii position
`)

// quietFirst succeed for every value of their first argument when the others stand in
// the statement.
var quietFirst = set(`
	left right substr substring lpad rpad split_part replace translate overlay
	regexp_replace regexp_count regexp_like regexp_instr regexp_substr regexp_match
	to_char round trunc ceil ceiling floor sign encode nth_value
	string_to_array array_to_string array_position array_remove array_replace normalize
	json_extract_path jsonb_extract_path json_extract_path_text jsonb_extract_path_text
	like notlike age isfinite
`)

// quietLast succeed for every value of their last argument when the others stand in
// the statement.
var quietLast = set(`date_trunc date_part extract to_tsvector`)

// rowFunctions of the server return any number of rows, and how many depends on their
// arguments.
var rowFunctions = set(`
	generate_series generate_subscripts unnest regexp_matches regexp_split_to_table string_to_table
	json_array_elements json_array_elements_text jsonb_array_elements jsonb_array_elements_text
	json_each json_each_text jsonb_each jsonb_each_text json_object_keys jsonb_object_keys
	json_populate_recordset jsonb_populate_recordset json_to_recordset jsonb_to_recordset
	jsonb_path_query jsonb_path_query_tz ts_parse ts_token_type ts_debug xpath_table aclexplode
	pg_options_to_table pg_partition_tree pg_partition_ancestors pg_get_keywords
`)

// quietOperators succeed for every value on both sides; those of JSON and arrays give
// NULL where there is nothing.
var quietOperators = set(`
	= <> != < <= > >= || -> ->> #> #>> @> <@ ? ?| ?& && ~<~ ~<=~ ~>~ ~>=~ ^@
`)

// patternOperators succeed for every text when the pattern stands in the statement.
var patternOperators = set(`~~ ~~* !~~ !~~* ~ ~* !~ !~*`)

// operation is an operator at work.
func (t *tracer) operation(x *pg.A_Expr, s *scope) value {
	name, _ := lastText(x.GetName())
	quiet := quietOperators[name]
	if x.GetKind() == pg.A_Expr_Kind_AEXPR_OP && !quiet && !patternOperators[name] {
		// One that may fail, and all in it, is one test.
		out := t.quietly(func() value { return computed(t.value(x.GetLexpr(), s), t.value(x.GetRexpr(), s)) })
		t.mayFail(out)
		return out
	}
	left, right := t.value(x.GetLexpr(), s), t.value(x.GetRexpr(), s)
	out := computed(left, right)
	if out.Empty() {
		return out
	}
	switch x.GetKind() {
	case pg.A_Expr_Kind_AEXPR_NULLIF, pg.A_Expr_Kind_AEXPR_DISTINCT, pg.A_Expr_Kind_AEXPR_NOT_DISTINCT,
		pg.A_Expr_Kind_AEXPR_IN, pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN,
		pg.A_Expr_Kind_AEXPR_BETWEEN_SYM, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		quiet = true
	case pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE, pg.A_Expr_Kind_AEXPR_SIMILAR:
		quiet = right.Empty()
	default:
		quiet = quiet || patternOperators[name] && right.Empty()
	}
	if !quiet {
		t.mayFail(out)
	}
	return out
}

// call is a function, an aggregate or a window function.
func (t *tracer) call(f *pg.FuncCall, s *scope) value {
	if len(f.GetArgs()) > maxColumns {
		v := t.fold(f.GetArgs(), s)
		v.join(unknownValue("a call with more arguments than any function has").Lineage)
		return v
	}
	args := t.values(f.GetArgs(), s)
	for i, n := range f.GetArgs() {
		if named := n.GetNamedArgExpr(); named != nil {
			args[i] = t.value(named.GetArg(), s)
		}
	}
	out := computed(args...)
	for _, n := range f.GetAggOrder() {
		v := t.order(n, s, row{}, "ORDER BY of an aggregate")
		if f.GetAggWithinGroup() {
			out.join(v.Lineage)
		}
	}
	if filter := f.GetAggFilter(); filter != nil {
		out.join(t.condition(filter, s, "FILTER").Lineage)
	}
	if over := f.GetOver(); over != nil {
		out.join(t.window(over, s).Lineage)
	}
	schema, name, _ := t.w.functionName(f.GetFuncname())
	callees, _ := t.w.s.callees(t.w.c, schema, name)
	single := len(callees) == 1 && callees[0].builtIn
	switch {
	case single && name == "count" && len(args) == 1 && !f.GetAggDistinct() && args[0].Plain && f.GetAggFilter() == nil:
		out = value{Lineage: constant().Lineage} // how many are not NULL, which masks show too
		if f.GetOver() != nil {
			out = computed(t.window(f.GetOver(), s))
		}
	case single && (name == "min" || name == "max" || name == "any_value") && f.GetOver() == nil && f.GetAggFilter() == nil && len(args) == 1:
		out.Plain = args[0].Plain
	default:
		t.checkQuiet(f, name, args, out)
	}
	given := computed(args...)
	for _, c := range callees {
		reads, keeps := t.effectOf(c)
		out.join(reads.Lineage)
		if keeps && !given.Empty() { // and what it keeps no mask follows
			t.found.stored = append(t.found.stored, Stored{Column{Schema: "function " + c.schema, Table: c.name}, given.Lineage})
		}
	}
	if out.Unknown != "" {
		out.Plain = false
	}
	return out
}

// checkQuiet notes a call that can fail, or give more or fewer rows, for some values.
func (t *tracer) checkQuiet(f *pg.FuncCall, name string, args []value, all value) {
	if all.Empty() {
		return
	}
	if rowFunctions[name] {
		t.test(all, Free, 1, "the number of rows of "+name)
		return
	}
	if quietFunctions[name] {
		return
	}
	if n := len(args); quietFirst[name] && nothing(args[min(1, n):]) || quietLast[name] && nothing(args[:max(n-1, 0)]) {
		return
	}
	if strings.HasPrefix(name, "json_build_object") || strings.HasPrefix(name, "jsonb_build_object") ||
		name == "json_object_agg" || name == "jsonb_object_agg" {
		keys := make([]value, 0, len(args)/2+1) // none may be NULL
		for i := 0; i < len(args); i += 2 {
			keys = append(keys, args[i])
		}
		if nothing(keys) {
			return
		}
	}
	t.mayFail(all)
}

func nothing(list []value) bool {
	v := either(list...)
	return v.Empty()
}
