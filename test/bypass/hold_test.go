package bypass

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestHold keeps the world for hand work (never committed).
func TestHold(t *testing.T) {
	f := "/tmp/harmless-hold"
	if os.Getenv("HOLD") == "" {
		t.Skip("by hand only")
	}
	_ = os.WriteFile(f, []byte(fmt.Sprintf("DIR=%s\nWEIR=%s\nCONF=%s\nPORT=%d\nSOCK=%s\n", w.Dir, w.Weir, w.Node.ConfigFile(), w.DB.Port, w.DB.Socket)), 0o600)
	for end := time.Now().Add(40 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
		if _, err := os.Stat(f); err != nil {
			return
		}
	}
}
