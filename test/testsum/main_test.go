package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const (
	passes  = `{"Action":"output","Package":"p","Test":"TestA","Output":"quiet\n"}` + "\n" + `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
	skips   = `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: not supported: no kernel\n"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestB"}` + "\n"
	fails   = `{"Action":"output","Package":"p","Test":"TestC","Output":"loud\n"}` + "\n" + `{"Action":"fail","Package":"p","Test":"TestC"}` + "\n"
	crashes = `{"Action":"output","Package":"p","Test":"TestD","Output":"panic: ouch\n"}` + "\n"
	pkgOK   = `{"Action":"pass","Package":"p","Elapsed":1.5}` + "\n"
	pkgFail = `{"Action":"output","Package":"p","Output":"FAIL\tp\n"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n"
)

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		name, in string
		ok       bool
		holds    []string
		lacks    string
	}{
		{"passes", passes + pkgOK, true, []string{"ok   p 1.5s\n", "1 passed, 0 failed, 0 skipped\n"}, "quiet"},
		{"skips", passes + skips + pkgOK, true, []string{"SKIP p TestB: b_test.go:7: not supported: no kernel\n", "1 passed, 0 failed, 1 skipped\n"}, "quiet"},
		{"fails", passes + fails + pkgFail, false, []string{"FAIL p TestC\nloud\n", "1 passed, 1 failed, 0 skipped\n"}, "quiet"},
		{"crashes", passes + crashes + pkgFail, false, []string{"FAIL (no result) p TestD\npanic: ouch\n", "FAIL\tp\n", "1 passed, 1 failed"}, "quiet"},
		{"fails outside of tests", passes + pkgFail, false, []string{"FAIL p \nFAIL\tp\n", "1 passed, 0 failed"}, "quiet"},
		{"does not build", `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: what\n"}` + "\n" + pkgFail, false, []string{"p.go:1: what\n"}, "ok "},
		{"not JSON, no line feed", passes + pkgOK + "exit status 3", true, []string{"exit status 3\n"}, "quiet"},
		{"nothing ran", "", false, []string{"0 passed, 0 failed, 0 skipped\n"}, "ok "},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := summarize(strings.NewReader(c.in), &out)
			if ok != c.ok || err != nil {
				t.Errorf("ok %v, error %v, want %v", ok, err, c.ok)
			}
			for _, want := range c.holds {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in:\n%s", want, out.String())
				}
			}
			if strings.Contains(out.String(), c.lacks) {
				t.Errorf("%q in:\n%s", c.lacks, out.String())
			}
		})
	}
}

func TestSummarizeCut(t *testing.T) {
	cut := errors.New("cut")
	if ok, err := summarize(io.MultiReader(strings.NewReader(passes+pkgOK), iotest.ErrReader(cut)), io.Discard); ok || !errors.Is(err, cut) {
		t.Errorf("ok %v, error %v", ok, err)
	}
}
