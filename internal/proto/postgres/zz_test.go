package postgres
import ("testing";"os/exec";"fmt";"strings")
func TestZZ(t *testing.T) {
	startBackend(t); initPgbench(t)
	w := newRealWorld(t)
	w.set(func(){ w.decide = allowAll; w.masks=nil })
	host, port := w.addr()
	for range 2 {
	for _, mode := range []string{"simple","prepared"} {
		for _, target := range []string{"direct","weir"} {
			args := []string{"-n","-S","-M",mode,"-c","4","-j","1","-T","4"}
			if target=="direct" { args=append(args, backendURL) } else { args=append(args, "-h",host,"-p",port,"-U","x","postgres") }
			cmd := exec.Command("pgbench", args...)
			cmd.Env = append(cmd.Environ(), "PGSSLMODE=disable")
			out, _ := cmd.CombinedOutput()
			for _, l := range strings.Split(string(out),"\n") { if strings.HasPrefix(l,"tps")||strings.HasPrefix(l,"latency average")||strings.Contains(l,"failed:")||strings.Contains(l,"rror") { fmt.Println(mode,target,l) } }
			w.mu.Lock(); w.events=nil; w.mu.Unlock()
		}
	}}
}
