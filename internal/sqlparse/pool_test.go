package sqlparse

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	ChildMain()
	os.Exit(m.Run())
}

func TestX(t *testing.T) {
	st := time.Now()
	p, err := New(Config{Log: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	t.Log(time.Since(st))
	for range 5 {
		st = time.Now()
		tr, err := p.Parse(context.Background(), "select a, b from t")
		t.Log(tr, err, time.Since(st))
	}
	_, err = p.Parse(context.Background(), "select 'ä', from t")
	t.Logf("%#v", err)
	child := <-p.idle
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(child.cmd.Process.Pid) + "/status")
	t.Log(string(b))
	es, _ := os.ReadDir("/proc/" + strconv.Itoa(child.cmd.Process.Pid) + "/fd")
	for _, e := range es {
		l, _ := os.Readlink("/proc/" + strconv.Itoa(child.cmd.Process.Pid) + "/fd/" + e.Name())
		t.Log(e.Name(), l)
	}
	p.idle <- child
}
