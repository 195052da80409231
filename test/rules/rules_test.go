// Package rules holds the tests of rules that the whole tree keeps: who may
// import whom, package comments, no package-level state.
package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/weirproxy/weir"

// file is one parsed Go file of the tree.
type file struct {
	path string // relative to the root
	pkg  string // its folder, relative to the root
	test bool
	ast  *ast.File
}

func (f *file) imports() []string {
	var all []string
	for _, spec := range f.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			all = append(all, p)
		}
	}
	return all
}

func tree(t *testing.T) []*file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*file
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "node_modules" || nested(p)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		files = append(files, &file{path: rel, pkg: path.Dir(rel), test: strings.HasSuffix(p, "_test.go"), ast: parsed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d Go files found: the walk is broken", len(files))
	}
	return files
}

// nested reports whether a folder is a module of its own.
func nested(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// only lists modules that one package alone may import, with the reason.
var only = []struct {
	prefix  string
	allowed []string
	why     string
}{
	{"github.com/cilium/ebpf", []string{"internal/redirect", "bpf"}, "redirect owns every map, program and link"},
	{"github.com/vishvananda/netlink", []string{"internal/redirect", "internal/testkit"}, "redirect owns interfaces, namespaces and sock_diag; testkit makes them"},
	{"github.com/vishvananda/netns", []string{"internal/redirect", "internal/testkit"}, "as netlink"},
	{"github.com/coreos/go-oidc", []string{"internal/identity"}, "identity alone turns a token into a principal"},
	{"github.com/pganalyze/pg_query_go", []string{"internal/sqlparse", "internal/sqlmeta"}, "the parser runs in child processes only"},
	{"github.com/urfave/cli", []string{"cmd/weir"}, "packages know nothing of the command line"},
	{"github.com/jackc/pgproto3", []string{"internal/proto/postgres"}, "v2 decodes only what our framer has validated"},
	{"github.com/jackc/pgx", []string{"internal/upstream", "internal/catalog", "internal/explain"}, "upstream dials; catalog and explain ask on what it was handed"},
	{"github.com/nats-io", []string{"internal/kv"}, "kv is the store; the others know buckets"},
	{"github.com/slack-go/slack", []string{"internal/approval/notify"}, "messengers are the notifiers' business"},
	{"github.com/xuri/excelize", []string{"internal/evidence"}, "reports are evidence's business"},
	{"codeberg.org/go-pdf/fpdf", []string{"internal/evidence"}, "as excelize"},
	{"github.com/defenseunicorns/go-oscal", []string{"internal/evidence"}, "as excelize"},
	{"github.com/minio/minio-go", []string{"internal/anchor"}, "copies of the log are anchor's business"},
	{"github.com/digitorus", []string{"internal/anchor"}, "time stamps are anchor's business"},
	{"charm.land", []string{"cmd/weir"}, "terminals are the command line's business"},
	{module + "/bpf", []string{"internal/redirect"}, "redirect owns the kernel half"},
}

func TestOnly(t *testing.T) {
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		for _, imp := range f.imports() {
			for _, rule := range only {
				if imp != rule.prefix && !strings.HasPrefix(imp, rule.prefix+"/") {
					continue
				}
				if !under(f.pkg, rule.allowed) {
					t.Errorf("%s imports %s: %s", f.path, imp, rule.why)
				}
			}
		}
	}
}

func under(pkg string, folders []string) bool {
	for _, a := range folders {
		if pkg == a || strings.HasPrefix(pkg, a+"/") {
			return true
		}
	}
	return false
}

// directions lists, for each package of ours, which packages of ours it may
// import. A package that is not listed may be imported by cmd only and may
// import flow only.
var directions = map[string][]string{
	"internal/flow":   {},
	"pkg/auditlog":    {},
	"bpf":             {},
	"internal/policy": {"internal/flow", "internal/strictyaml"},
	// policystore reads files, so that policy itself opens none.
	"internal/policy/policystore": {"internal/flow", "internal/policy", "internal/strictyaml"},
	// replay feeds the record to the policy again: it has to know both.
	"internal/replay":         {"internal/flow", "internal/policy", "pkg/auditlog"},
	"internal/sqlmeta":        {"internal/flow"},
	"internal/mask":           {"internal/flow"},
	"internal/sqlparse":       {"internal/flow", "internal/sqlmeta"},
	"internal/session":        {"internal/flow", "internal/policy", "pkg/auditlog"},
	"internal/proto/postgres": {"internal/flow", "internal/policy", "internal/sqlmeta", "internal/mask", "internal/session", "pkg/auditlog"},
	"internal/proto/tcp":      {"internal/flow", "internal/session", "pkg/auditlog"},
	"internal/upstream":       {"internal/flow", "internal/session", "internal/credential"},
	"internal/catalog":        {"internal/flow", "internal/sqlmeta"},
	// approval keeps requests in the store and answers to the gate; what brings them
	// before people knows approval, and approval none of it.
	"internal/explain":         {"internal/flow", "internal/session", "internal/sqlmeta"},
	"internal/kv":              {},
	"internal/approval":        {"internal/flow", "internal/policy", "internal/session", "internal/kv", "pkg/auditlog"},
	"internal/approval/notify": {"internal/flow", "internal/approval"},
	"internal/console":         {"internal/flow", "internal/approval"},
	"internal/redirect":        {"bpf", "internal/flow"},
	"internal/accept":          {"internal/flow"},
	"internal/identity":        {"internal/flow"},
	"internal/credential":      {"internal/flow"},
	"internal/ca":              {"internal/flow"},
	"internal/audit":           {"internal/flow", "pkg/auditlog"},
	"internal/seal":            {"internal/audit", "pkg/auditlog"},
	"internal/anchor":          {"internal/audit", "pkg/auditlog"},
	"internal/telemetry":       {"pkg/auditlog"},
	"internal/record":          {"internal/flow", "internal/session", "pkg/auditlog"},
	// evidence reads the log and lists the policies whose text it finds there.
	"internal/evidence":     {"internal/policy", "pkg/auditlog"},
	"internal/completeness": {"pkg/auditlog"},
	"internal/pglog":        {"pkg/auditlog"},
	"internal/config":       {"internal/flow", "internal/strictyaml"},
	"internal/control":      {"internal/session"},
	"internal/doctor":       {"internal/flow"},
}

func TestDirections(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || under(f.pkg, []string{"cmd", "test", "internal/testkit", "bench"}) {
			continue
		}
		allowed, listed := directions[f.pkg]
		if !listed {
			allowed = []string{"internal/flow"}
		}
		for _, imp := range f.imports() {
			ours, ok := strings.CutPrefix(imp, module+"/")
			if !ok {
				continue
			}
			found := false
			for _, a := range allowed {
				found = found || ours == a
			}
			if !found {
				t.Errorf("%s imports %s, which its place in the tree does not allow (test/rules)", f.path, ours)
			}
		}
	}
}

// TestStandardLibraryOnly holds packages that must be usable with nothing else.
func TestStandardLibraryOnly(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || !under(f.pkg, []string{"internal/flow", "pkg/auditlog"}) {
			continue
		}
		for _, imp := range f.imports() {
			if strings.Contains(strings.Split(imp, "/")[0], ".") && !strings.HasPrefix(imp, module+"/") {
				t.Errorf("%s imports %s: flow and pkg/auditlog use the standard library only", f.path, imp)
			}
		}
	}
}

// TestDialling: connections on behalf of flows are made in two places.
func TestDialling(t *testing.T) {
	pure := []string{"internal/session", "internal/policy", "internal/sqlmeta", "internal/mask", "internal/proto", "internal/flow"}
	for _, f := range tree(t) {
		if f.test || !under(f.pkg, pure) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "net" && (strings.HasPrefix(sel.Sel.Name, "Dial") || strings.HasPrefix(sel.Sel.Name, "Listen")) {
				t.Errorf("%s uses net.%s: only upstream dials for a flow", f.path, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestPackageComments(t *testing.T) {
	has := map[string]bool{}
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		has[f.pkg] = has[f.pkg] || (f.ast.Doc != nil && len(strings.Fields(f.ast.Doc.Text())) > 8)
	}
	for pkg, ok := range has {
		if !ok {
			t.Errorf("%s has no package comment that says what it is and what it must never do", pkg)
		}
	}
}

// TestNoAmbientState: no init and no mutable package variable. Tables and
// sentinels are fine: they are composite literals, errors.New, compiled patterns
// and embedded files.
func TestNoAmbientState(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || f.pkg == "bpf" {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function", f.path)
			}
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				v := spec.(*ast.ValueSpec)
				if len(v.Values) == 0 && gen.Doc != nil && strings.Contains(gen.Doc.Text()+commentText(gen.Doc), "go:embed") {
					continue
				}
				for i, name := range v.Names {
					if name.Name == "_" || (i < len(v.Values) && constantLike(v.Values[i])) {
						continue
					}
					if embedded(v) || embeddedGroup(gen) {
						continue
					}
					t.Errorf("%s: package variable %s is neither a table nor a sentinel", f.path, name.Name)
				}
			}
		}
	}
}

func commentText(g *ast.CommentGroup) string {
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text)
	}
	return b.String()
}

func embedded(v *ast.ValueSpec) bool {
	return v.Doc != nil && strings.Contains(commentText(v.Doc), "go:embed")
}

func embeddedGroup(g *ast.GenDecl) bool {
	return g.Doc != nil && strings.Contains(commentText(g.Doc), "go:embed")
}

func constantLike(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.CompositeLit, *ast.BasicLit, *ast.BinaryExpr, *ast.FuncLit:
		return true
	case *ast.UnaryExpr:
		return constantLike(x.X)
	case *ast.Ident:
		return true
	case *ast.CallExpr:
		return true // errors.New, regexp.MustCompile, table builders: evaluated once
	case *ast.SelectorExpr:
		return true
	}
	return false
}
