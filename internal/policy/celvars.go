package policy

import (
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/weirproxy/weir/internal/flow"
)

// The object types of conditions and their fields (contract, section 3). Values
// are read field by field when a condition asks for them: nothing is converted
// ahead, and no reflection is involved outside of claims.

var (
	principalType = types.NewObjectType("weir.Principal")
	actorType     = types.NewObjectType("weir.Actor")
	processType   = types.NewObjectType("weir.Process")
	podType       = types.NewObjectType("weir.Pod")
	flowType      = types.NewObjectType("weir.Flow")
	actionType    = types.NewObjectType("weir.Action")

	variables = map[string]*types.Type{
		"principal": principalType, "process": processType, "flow": flowType, "action": actionType,
	}

	objectTypes = map[string]*types.Type{
		"weir.Principal": principalType, "weir.Actor": actorType, "weir.Process": processType,
		"weir.Pod": podType, "weir.Flow": flowType, "weir.Action": actionType,
	}

	stringList = types.NewListType(types.StringType)

	objectFields = map[string]map[string]*types.FieldType{
		"weir.Principal": {
			"user":    principalField(types.StringType, func(p *flow.Principal) any { return types.String(p.User) }),
			"subject": principalField(types.StringType, func(p *flow.Principal) any { return types.String(p.Subject) }),
			"issuer":  principalField(types.StringType, func(p *flow.Principal) any { return types.String(p.Issuer) }),
			"kind":    principalField(types.StringType, func(p *flow.Principal) any { return types.String(p.Kind) }),
			"groups":  principalField(stringList, func(p *flow.Principal) any { return p.Groups }),
			"claims": principalField(types.NewMapType(types.StringType, types.DynType), func(p *flow.Principal) any {
				if p.Claims == nil {
					return map[string]any{}
				}
				return p.Claims
			}),
			"actor": {Type: actorType,
				IsSet: func(v any) bool { p := principalOf(v); return p != nil && p.Actor != nil },
				GetFrom: func(v any) (any, error) {
					p := principalOf(v)
					if p == nil {
						return nil, errNobody
					}
					return &object{kind: actorType, actor: p.Actor}, nil
				}},
		},
		"weir.Actor": {
			"user":    actorField(types.StringType, func(a *flow.Actor) any { return types.String(a.User) }),
			"subject": actorField(types.StringType, func(a *flow.Actor) any { return types.String(a.Subject) }),
			"issuer":  actorField(types.StringType, func(a *flow.Actor) any { return types.String(a.Issuer) }),
			"actor": {Type: actorType,
				IsSet: func(v any) bool { a := v.(*object).actor; return a != nil && a.Actor != nil },
				GetFrom: func(v any) (any, error) {
					if a := v.(*object).actor; a != nil {
						return &object{kind: actorType, actor: a.Actor}, nil
					}
					return &object{kind: actorType}, nil
				}},
		},
		"weir.Process": {
			"exe":    knownField(func(e *evaluation) string { return e.in.Flow.Process.Exe }, errNoExe),
			"argv0":  knownField(func(e *evaluation) string { return e.in.Argv0 }, errNoArgv0),
			"cgroup": knownField(func(e *evaluation) string { return e.in.Flow.Process.Cgroup }, errNoCgroup),
			"uid":    field(types.IntType, func(e *evaluation) any { return types.Int(e.in.Flow.Process.UID) }),
			"pod": {Type: podType,
				IsSet: func(v any) bool { return v.(*object).ev.in.Flow.Process.Pod != nil },
				GetFrom: func(v any) (any, error) {
					return &object{kind: podType, pod: v.(*object).ev.in.Flow.Process.Pod}, nil
				}},
		},
		"weir.Pod": {
			"namespace": podField(func(p *flow.Pod) string { return p.Namespace }),
			"name":      podField(func(p *flow.Pod) string { return p.Name }),
			"uid":       podField(func(p *flow.Pod) string { return p.UID }),
			"container": podField(func(p *flow.Pod) string { return p.Container }),
		},
		"weir.Flow": {
			"backend":     field(types.StringType, func(e *evaluation) any { return types.String(e.in.Flow.Backend) }),
			"protocol":    field(types.StringType, func(e *evaluation) any { return types.String(e.in.Flow.Protocol) }),
			"destination": field(types.StringType, func(e *evaluation) any { return types.String(e.in.Flow.Destination.String()) }),
			"database":    field(types.StringType, func(e *evaluation) any { return types.String(e.in.Flow.Database) }),
			"login":       field(types.StringType, func(e *evaluation) any { return types.String(e.in.Flow.Login) }),
			"node":        field(types.StringType, func(e *evaluation) any { return types.String(e.in.Flow.Node) }),
			"start":       field(types.TimestampType, func(e *evaluation) any { return types.Timestamp{Time: e.in.Flow.Start} }),
		},
		"weir.Action": {
			"verb":     field(types.StringType, func(e *evaluation) any { return types.String(e.access.Verb) }),
			"resource": field(types.StringType, func(e *evaluation) any { return types.String(e.access.Resource) }),
			// has_where is false on an update or delete of everything only.
			"has_where": field(types.BoolType, func(e *evaluation) any { return types.Bool(!e.access.Unrestricted) }),
			"resources": field(stringList, func(e *evaluation) any { return resourcesOf(e.in.Action) }),
			"text": {Type: types.StringType, IsSet: always,
				GetFrom: func(v any) (any, error) {
					// The action holds the head of a long text. A cut may fall a
					// few bytes short, between two characters.
					text := v.(*object).ev.in.Action.Text
					if len(text) > flow.MaxRecordedText-4 {
						return nil, errLongText
					}
					return types.String(text), nil
				}},
			"params":           field(stringList, func(e *evaluation) any { return e.in.Action.Params }),
			"functions":        field(stringList, func(e *evaluation) any { return e.in.Action.Functions }),
			"columns_read":     field(stringList, func(e *evaluation) any { return e.in.Action.Columns.Read }),
			"columns_written":  field(stringList, func(e *evaluation) any { return e.in.Action.Columns.Written }),
			"columns_tested":   field(stringList, func(e *evaluation) any { return e.in.Action.Columns.Tested }),
			"languages":        field(stringList, func(e *evaluation) any { return e.in.Action.Languages }),
			"security_definer": field(types.BoolType, func(e *evaluation) any { return types.Bool(e.in.Action.SecurityDefiner) }),
			"size":             field(types.IntType, func(e *evaluation) any { return types.Int(e.in.Action.Bytes) }),
		},
	}
)

// missingError is a value that is not known. What is not known is no empty text:
// a condition that reads it fails, and the action is denied.
type missingError struct{ text string }

func (e *missingError) Error() string { return e.text }

var (
	errNobody   = &missingError{"nobody is signed in, so the principal is not known"}
	errNoExe    = &missingError{"process.exe is not known"}
	errNoArgv0  = &missingError{"process.argv0 is not known"}
	errNoCgroup = &missingError{"process.cgroup is not known"}
	errLongText = &missingError{"action.text is longer than the part that is kept"}
)

func always(any) bool { return true }

func field(t *types.Type, get func(*evaluation) any) *types.FieldType {
	return &types.FieldType{Type: t, IsSet: always,
		GetFrom: func(v any) (any, error) { return get(v.(*object).ev), nil }}
}

func knownField(get func(*evaluation) string, missing error) *types.FieldType {
	return &types.FieldType{Type: types.StringType,
		IsSet: func(v any) bool { return get(v.(*object).ev) != "" },
		GetFrom: func(v any) (any, error) {
			if s := get(v.(*object).ev); s != "" {
				return types.String(s), nil
			}
			return nil, missing
		}}
}

func principalOf(v any) *flow.Principal { return v.(*object).ev.in.Principal }

func principalField(t *types.Type, get func(*flow.Principal) any) *types.FieldType {
	return &types.FieldType{Type: t,
		IsSet: func(v any) bool { return principalOf(v) != nil },
		GetFrom: func(v any) (any, error) {
			if p := principalOf(v); p != nil {
				return get(p), nil
			}
			return nil, errNobody
		}}
}

// The fields of an actor or pod that is not there are empty.
func actorField(t *types.Type, get func(*flow.Actor) any) *types.FieldType {
	return &types.FieldType{Type: t,
		IsSet: func(v any) bool { return v.(*object).actor != nil },
		GetFrom: func(v any) (any, error) {
			if a := v.(*object).actor; a != nil {
				return get(a), nil
			}
			return get(&flow.Actor{}), nil
		}}
}

func podField(get func(*flow.Pod) string) *types.FieldType {
	return &types.FieldType{Type: types.StringType,
		IsSet: func(v any) bool { return v.(*object).pod != nil },
		GetFrom: func(v any) (any, error) {
			if p := v.(*object).pod; p != nil {
				return types.String(get(p)), nil
			}
			return types.String(""), nil
		}}
}

func resourcesOf(a *flow.Action) []string {
	list := make([]string, len(a.Accesses))
	for i := range a.Accesses {
		list[i] = a.Accesses[i].Resource
	}
	return list
}

// evaluation is the values of one decision as conditions see them. It is made
// when the first condition of a decision is evaluated.
type evaluation struct {
	in     Input
	access *flow.Access

	principal, process, flow, action object
}

func newEvaluation(in Input) *evaluation {
	e := &evaluation{in: in}
	e.principal = object{kind: principalType, ev: e}
	e.process = object{kind: processType, ev: e}
	e.flow = object{kind: flowType, ev: e}
	e.action = object{kind: actionType, ev: e}
	return e
}

// ResolveName meets interpreter.Activation.
func (e *evaluation) ResolveName(name string) (any, bool) {
	switch name {
	case "principal":
		return &e.principal, true
	case "process":
		return &e.process, true
	case "flow":
		return &e.flow, true
	case "action":
		return &e.action, true
	case "now":
		return types.Timestamp{Time: e.in.Now}, true
	}
	return nil, false
}

// Parent meets interpreter.Activation.
func (e *evaluation) Parent() cel.Activation { return nil }

// object is a value of one of our types.
type object struct {
	kind  *types.Type
	ev    *evaluation
	actor *flow.Actor
	pod   *flow.Pod
}

// ConvertToNative meets ref.Val: objects stay within conditions.
func (o *object) ConvertToNative(reflect.Type) (any, error) {
	return nil, &missingError{"an object cannot be converted"}
}

// ConvertToType meets ref.Val.
func (o *object) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return o.kind
	}
	return types.NewErr("an object cannot be converted")
}

// Equal meets ref.Val.
func (o *object) Equal(other ref.Val) ref.Val { return types.Bool(o == other) }

// Type meets ref.Val.
func (o *object) Type() ref.Type { return o.kind }

// Value meets ref.Val.
func (o *object) Value() any { return o }
