package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/strictyaml"
)

// Set is a compiled policy: all files of one revision. It is immutable and safe
// for concurrent use. The zero value denies everything.
type Set struct {
	revision  string
	policies  []*policyInfo
	rules     []*rule // sorted by policy and name; a rule's ordinal is its index
	detectors map[string]string
	tests     []Test
	warnings  []Warning

	// views is what applies at one backend, made when a backend is first asked
	// for and published whole.
	views   atomic.Pointer[map[string]*view]
	viewsMu sync.Mutex
}

// maxViews bounds the backends that are remembered; a configuration has fewer.
const maxViews = 4096

type policyInfo struct {
	name     string
	file     string
	line     int
	backends []Glob // nil: all
	texts    []string
	masks    []*Mask
}

func (p *policyInfo) appliesTo(backend string) bool {
	if p.backends == nil {
		return true
	}
	for i := range p.backends {
		if matchOps(p.backends[i].ops, backend, plainEnds) {
			return true
		}
	}
	return false
}

type rule struct {
	ordinal  int
	name     string
	policy   *policyInfo
	line     int
	effect   flow.Verdict
	groups   []string // nil: not asked for
	users    []string // folded by foldUser
	kinds    []flow.Kind
	verbs    map[flow.Verb]bool // nil: every known verb
	patterns []*pattern
	speaks   form // the union of the patterns' forms
	when     *condition
	approve  *Approve
	record   string

	allowed string // the reason of an allowed action
}

// Options is what Compile may know besides the files.
type Options struct {
	// Protocols of the configured backends. With it, an action that none of a
	// policy's backends knows is an error, and a backend that is not configured
	// a warning. nil: not known.
	Protocols map[string]flow.Protocol
}

// Warning is something in a policy that is likely not meant.
type Warning struct {
	File string `json:"file"`
	Line int    `json:"line"`
	What string `json:"what"`
	Fix  string `json:"fix,omitempty"`
}

func (w Warning) String() string {
	return w.File + ":" + strictyaml.Problem{Line: w.Line, What: w.What, Fix: w.Fix}.String()
}

// Compile makes one set of several files; their order does not matter. The error
// holds a *strictyaml.Error for each file with all of its problems.
func Compile(files []File, opts Options) (*Set, error) {
	c := &compiler{opts: opts, set: &Set{detectors: make(map[string]string)},
		policyNames: make(map[string]string)}
	if len(files) == 0 {
		return nil, errors.New("there are no policy files; name at least one")
	}
	var errs []error
	for _, f := range files {
		c.decode(f)
	}
	for _, f := range c.files {
		c.detectors(f)
	}
	for _, f := range c.files {
		c.policies(f)
		errs = append(errs, f.doc.Err(f.name))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.set.order()
	c.set.revision = Revision(files)
	c.set.warnings = append(c.warnings, c.set.review(opts)...)
	return c.set, nil
}

// Revision is the digest that names a set of files in the audit log: "sha256:"
// and hex over the line "weir-policy-v1" and then, sorted, the hex SHA-256 of
// each file on a line of its own. Files are taken with LF line ends and without
// a byte order mark; their names and order do not count.
func Revision(files []File) string {
	sums := make([]string, len(files))
	for i, f := range files {
		data := bytes.TrimPrefix(f.Data, []byte("\xef\xbb\xbf"))
		sum := sha256.Sum256(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
		sums[i] = hex.EncodeToString(sum[:])
	}
	slices.Sort(sums)
	sum := sha256.Sum256([]byte("weir-policy-v1\n" + strings.Join(sums, "\n") + "\n"))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// order gives the rules an order of their own, by policy and name, so that no
// answer depends on the order in the files.
func (s *Set) order() {
	slices.SortFunc(s.rules, func(a, b *rule) int {
		if c := strings.Compare(a.policy.name, b.policy.name); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	for i, r := range s.rules {
		r.ordinal = i
	}
	slices.SortFunc(s.policies, func(a, b *policyInfo) int { return strings.Compare(a.name, b.name) })
}

// Revision is the digest of the files; see the function Revision.
func (s *Set) Revision() string { return s.revision }

// Detectors are the user's own detectors: name to RE2 pattern.
func (s *Set) Detectors() map[string]string { return maps.Clone(s.detectors) }

// Warnings are what is likely not meant, in the order of files and lines.
func (s *Set) Warnings() []Warning { return slices.Clone(s.warnings) }

// Counts are the numbers of policies, rules, masks and tests.
func (s *Set) Counts() (policies, rules, masks, tests int) {
	for _, p := range s.policies {
		masks += len(p.masks)
	}
	return len(s.policies), len(s.rules), masks, len(s.tests)
}

// view is what applies at one backend.
type view struct {
	verbs map[flow.Verb]*bucket // verbs that a rule names, with the rules for all known verbs
	rest  *bucket               // rules for all known verbs
	masks []*Mask

	recorded []*rule // those that let something pass and want it recorded
}

// bucket is the rules for one verb at one backend. A short one is walked, a long
// one is entered through the groups and user of the principal.
type bucket struct {
	rules   []*rule
	anybody []*rule // neither groups nor users
	byUser  map[string][]*rule
	byGroup map[string][]*rule
}

// indexFrom is the number of rules from which entering by group is cheaper than
// a walk; found with BenchmarkDecide.
const indexFrom = 16

func (v *view) bucket(verb flow.Verb) *bucket {
	if b := v.verbs[verb]; b != nil {
		return b
	}
	if knownVerbs[verb] {
		return v.rest
	}
	return nil
}

func (s *Set) viewOf(backend string) *view {
	if m := s.views.Load(); m != nil {
		if v := (*m)[backend]; v != nil {
			return v
		}
	}
	v := s.newView(backend)
	s.viewsMu.Lock()
	defer s.viewsMu.Unlock()
	next := make(map[string]*view)
	if m := s.views.Load(); m != nil {
		if len(*m) >= maxViews {
			return v
		}
		maps.Copy(next, *m)
	}
	next[backend] = v
	s.views.Store(&next)
	return v
}

func (s *Set) newView(backend string) *view {
	applies := make(map[*policyInfo]bool, len(s.policies))
	v := &view{verbs: make(map[flow.Verb]*bucket), rest: &bucket{}}
	for _, p := range s.policies {
		if applies[p] = p.appliesTo(backend); applies[p] {
			v.masks = append(v.masks, p.masks...)
		}
	}
	var rules []*rule
	for _, r := range s.rules {
		if !applies[r.policy] {
			continue
		}
		rules = append(rules, r)
		if r.record != "" && r.effect != flow.Deny {
			v.recorded = append(v.recorded, r)
		}
		for verb := range r.verbs {
			v.verbs[verb] = &bucket{}
		}
	}
	for _, r := range rules {
		if r.verbs == nil {
			v.rest.add(r)
		}
		for verb, b := range v.verbs {
			if r.isAbout(verb) {
				b.add(r)
			}
		}
	}
	return v
}

func (b *bucket) add(r *rule) {
	b.rules = append(b.rules, r)
	if b.byUser == nil {
		b.byUser, b.byGroup = make(map[string][]*rule), make(map[string][]*rule)
	}
	switch {
	case r.groups != nil:
		for _, g := range r.groups {
			b.byGroup[g] = append(b.byGroup[g], r)
		}
	case r.users != nil:
		for _, u := range r.users {
			b.byUser[u] = append(b.byUser[u], r)
		}
	default:
		b.anybody = append(b.anybody, r)
	}
}

// isAbout reports whether the rule is about the verb.
func (r *rule) isAbout(verb flow.Verb) bool {
	if r.verbs == nil {
		return knownVerbs[verb]
	}
	return r.verbs[verb]
}

// Masks are those that are in force for a principal at a backend: all of the
// backend's but those with a group of the principal under unless_groups. The
// list is shared and must not be changed.
func (s *Set) Masks(p *flow.Principal, backend string) []*Mask {
	all := s.viewOf(backend).masks
	spared := 0
	for _, m := range all {
		if m.spares(p) {
			spared++
		}
	}
	switch spared {
	case 0:
		return all
	case len(all):
		return nil
	}
	masks := make([]*Mask, 0, len(all)-spared)
	for _, m := range all {
		if !m.spares(p) {
			masks = append(masks, m)
		}
	}
	return masks
}

// Recording is the strictest recording that any rule but a denial asks for of a
// principal at a backend, whatever they do there; "" for none.
func (s *Set) Recording(p *flow.Principal, backend string) string {
	strict := ""
	q := query{in: Input{Principal: p}}
	if p != nil {
		q.user = foldUser(p.User)
	}
	for _, r := range s.viewOf(backend).recorded {
		if r.matchesPrincipal(&q, "") {
			strict = Stricter(strict, r.record)
		}
	}
	return strict
}

func (m *Mask) spares(p *flow.Principal) bool {
	return p != nil && shareOne(m.unlessGroups, p.Groups)
}

func shareOne(a, b []string) bool {
	for _, x := range a {
		if slices.Contains(b, x) {
			return true
		}
	}
	return false
}

// foldUser makes user names comparable: those with an @ without regard to the
// case of ASCII letters. Other letters are left alone, since Unicode folds
// several of them to ASCII (the Kelvin sign to k) and would make one person of
// two.
func foldUser(user string) string {
	if strings.IndexByte(user, '@') < 0 {
		return user
	}
	for i := range len(user) {
		if c := user[i]; 'A' <= c && c <= 'Z' {
			b := []byte(user)
			for j, c := range b {
				if 'A' <= c && c <= 'Z' {
					b[j] = c + 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return user
}
