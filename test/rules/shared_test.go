package rules

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNothingOutside: a stranger has no folder beside the project.
func TestNothingOutside(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command("git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Fatalf("list the tracked files: %v", err)
	}
	words := []string{"../" + "shared", "/work/" + "shared"}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		f, err := os.Open(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted in the working tree
		}
		if err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(f)
		sc.Buffer(nil, 16<<20)
		for line := 1; sc.Scan(); line++ {
			for _, w := range words {
				if strings.Contains(sc.Text(), w) {
					t.Errorf("%s:%d names %s", name, line, w)
				}
			}
		}
		f.Close()
	}
}
