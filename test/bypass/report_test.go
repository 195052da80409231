package bypass

import "sync"

// count is what a run of a corpus came to, by class.
type count struct {
	cases, runs, refused, answered, leaks, passed int
}

// tally is what all runs of this test binary came to.
type tally struct {
	mu sync.Mutex
	by map[string]map[string]count // corpus -> class
}

var results = &tally{by: map[string]map[string]count{}}

func (r *tally) add(corpus, class string, n count) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by[corpus] == nil {
		r.by[corpus] = map[string]count{}
	}
	c := r.by[corpus][class]
	c.cases += n.cases
	c.runs += n.runs
	c.refused += n.refused
	c.answered += n.answered
	c.leaks += n.leaks
	c.passed += n.passed
	r.by[corpus][class] = c
}
