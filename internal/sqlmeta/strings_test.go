package sqlmeta

import (
	"strings"
	"testing"
)

// TestBoolean holds the reading of switches against parse_bool's.
func TestBoolean(t *testing.T) {
	for _, v := range strings.Fields("on ON 1 t tr tru true y ye yes TRUE") {
		if got, ok := boolean(v); !ok || !got {
			t.Errorf("%q: %v, %v", v, got, ok)
		}
	}
	for _, v := range strings.Fields("of off 0 f fa fal fals false n no OFF") {
		if got, ok := boolean(v); !ok || got {
			t.Errorf("%q: %v, %v", v, got, ok)
		}
	}
	for _, v := range []string{"", "o", " on", "on ", "2", "10", "1.0", "truely", "yes!", "offf", "nope", "x"} {
		if got, ok := boolean(v); ok {
			t.Errorf("%q: %v", v, got)
		}
	}
}

func TestStringsProblem(t *testing.T) {
	for _, sql := range []string{"set standard_conforming_strings = off", "select set_config('standard_conforming_strings', 'off', false)",
		"alter system set standard_conforming_strings = off"} {
		if st := analyzeOne(t, sql); st.Problem != stringsProblem {
			t.Errorf("%s: %q", sql, st.Problem)
		}
	}
}
