package mask

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConditionNames holds the table against the list that the servers of this
// machine come with.
func TestConditionNames(t *testing.T) {
	lists, err := filepath.Glob("/usr/share/postgresql/*/errcodes.txt")
	if err != nil {
		t.Fatal(err)
	}
	if len(lists) == 0 {
		t.Skip("no PostgreSQL on this machine")
	}
	for _, path := range lists {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		n := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			if w := strings.Fields(s.Text()); len(w) == 4 && isSQLState(w[0]) {
				n++
				if got := conditionName(w[0]); got != w[3] {
					t.Errorf("%s: %s is %q here, and %q", path, w[0], got, w[3])
				}
			}
		}
		if n < 200 {
			t.Errorf("%s: only %d names", path, n)
		}
	}
}
