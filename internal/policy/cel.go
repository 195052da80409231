package policy

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"

	"github.com/weirproxy/weir/internal/strictyaml"
)

const (
	// maxConditionCost bounds a condition twice: its worst case over the sizes
	// of sizeHints when the file is loaded, and what it really costs when it
	// runs. In CEL's units; one is some tens of nanoseconds.
	maxConditionCost = 200_000

	maxConditionBytes = 8 << 10
	maxRegexProgram   = 2000 // instructions of a compiled regular expression
)

// conditions compiles `when` expressions. It is used while a Set is compiled and
// not afterwards.
type conditions struct {
	env  *cel.Env
	seen map[string]*condition
}

// condition is a compiled `when`. It is safe for concurrent use.
type condition struct {
	text    string
	program cel.Program
	reads   Facts
}

func newConditions() (*conditions, error) {
	reg, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	opts := []cel.EnvOption{
		cel.CustomTypeProvider(&provider{reg}),
		cel.CustomTypeAdapter(reg),
		ext.Strings(),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxConditionBytes),
		cel.RegexProgramSizeLimit(maxRegexProgram),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals()),
		cel.Variable("now", cel.TimestampType),
	}
	for name, t := range variables {
		opts = append(opts, cel.Variable(name, t))
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, err
	}
	return &conditions{env: env, seen: make(map[string]*condition)}, nil
}

// conditionProblem is one thing that is wrong with a condition; line counts from
// 0 within its text.
type conditionProblem struct {
	line      int
	what, fix string
}

func (c *conditions) compile(text string) (*condition, []conditionProblem) {
	if done := c.seen[text]; done != nil {
		return done, nil
	}
	ast, issues := c.env.Compile(text)
	if issues.Err() != nil {
		var ps []conditionProblem
		for _, e := range issues.Errors() {
			ps = append(ps, conditionProblem{e.Location.Line() - 1, fmt.Sprintf("column %d: %s", e.Location.Column()+1, e.Message), fieldFix(e.Message)})
		}
		return nil, ps
	}
	one := func(what, fix string) []conditionProblem { return []conditionProblem{{0, what, fix}} }
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, one("the condition is not true or false but of type "+cel.FormatCELType(ast.OutputType()), "compare it with something")
	}
	bound, err := c.env.EstimateCost(ast, sizeHints{})
	if err != nil {
		return nil, one("its cost cannot be estimated: "+err.Error(), "")
	}
	if bound.Max > maxConditionCost {
		return nil, one(fmt.Sprintf("the condition could cost %s units, the limit is %d", costText(bound.Max), maxConditionCost),
			"take out loops within loops and matches() on long texts")
	}
	program, err := c.env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxConditionCost))
	if err != nil {
		return nil, one(err.Error(), "")
	}
	done := &condition{text: text, program: program, reads: factsOf(ast)}
	c.seen[text] = done
	return done, nil
}

func costText(n uint64) string {
	if n == math.MaxUint64 {
		return "any number of"
	}
	return fmt.Sprint(n)
}

var undefinedField = regexp.MustCompile(`undefined field '([^']*)'`)

func fieldFix(message string) string {
	m := undefinedField.FindStringSubmatch(message)
	if m == nil {
		return ""
	}
	var names []string
	for _, fields := range objectFields {
		for name := range fields {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return strictyaml.Suggest(m[1], names)
}

// holds evaluates the condition. problem says why it could not be evaluated, in
// words that hold no data: CEL's own texts may quote values.
func (c *condition) holds(ev *evaluation) (ok bool, problem string) {
	out, _, err := c.program.Eval(ev)
	if err == nil {
		b, isBool := out.(types.Bool)
		if !isBool {
			return false, "its result is not true or false"
		}
		return bool(b), ""
	}
	return false, evalProblem(err)
}

var plainProblems = []string{"division by zero", "modulus by zero", "integer overflow", "no such overload"}

func evalProblem(err error) string {
	var missing *missingError
	var cancelled interpreter.EvalCancelledError
	if errors.As(err, &missing) {
		return missing.text
	}
	if errors.As(err, &cancelled) {
		return "it costs more than its limit"
	}
	text := err.Error()
	if i := slices.Index(plainProblems, text); i >= 0 {
		return plainProblems[i]
	}
	if noKey.MatchString(text) {
		return "it asks for a key that is not there (test with has() first)"
	}
	return "it could not be evaluated on these values"
}

var noKey = regexp.MustCompile(`^no such (key|attribute)`)

// sizeHints are the sizes that the worst case of a condition is computed with.
// Nothing enforces them; the limit at run time holds whatever they are.
type sizeHints struct{}

var sizes = map[string]uint64{
	"action.text":            64 << 10, // flow.MaxRecordedText
	"action.params":          1000,
	"action.functions":       1000,
	"action.resources":       1000,
	"action.columns_read":    1000,
	"action.columns_written": 1000,
	"action.columns_tested":  1000,
	"action.languages":       16,
	"principal.groups":       1000,
}

const (
	textHint    = 256 // names
	paramHint   = 1 << 10
	unknownHint = 1 << 10 // claims and whatever is computed
)

// EstimateSize meets cost.Estimator.
func (sizeHints) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	size := uint64(unknownHint)
	if path := node.Path(); len(path) == 2 {
		if n, ok := sizes[path[0]+"."+path[1]]; ok {
			size = n
		} else if path[0] != "principal" || path[1] != "claims" {
			size = textHint
		}
	} else if len(path) == 3 && path[2] == "@items" {
		size = textHint
		if path[1] == "params" {
			size = paramHint
		}
	}
	return &cost.SizeEstimate{Min: 0, Max: size}
}

// EstimateCallCost meets cost.Estimator: the library's own costs hold.
func (sizeHints) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// provider adds our object types to CEL's own.
type provider struct{ *types.Registry }

// FindStructType meets types.Provider.
func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if t, ok := objectTypes[name]; ok {
		return types.NewTypeTypeWithParam(t), true
	}
	return p.Registry.FindStructType(name)
}

// FindStructFieldNames meets types.Provider.
func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	fields, ok := objectFields[name]
	if !ok {
		return p.Registry.FindStructFieldNames(name)
	}
	names := make([]string, 0, len(fields))
	for n := range fields {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, true
}

// FindStructFieldType meets types.Provider.
func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	fields, ok := objectFields[name]
	if !ok {
		return p.Registry.FindStructFieldType(name, field)
	}
	f, ok := fields[field]
	return f, ok
}

// NewValue meets types.Provider. Conditions read objects and make none.
func (p *provider) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if _, ok := objectTypes[name]; ok {
		return types.NewErr("%s cannot be made", name)
	}
	return p.Registry.NewValue(name, fields)
}
