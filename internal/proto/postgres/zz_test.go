package postgres
import ("testing";"fmt";"net/url";"math/rand/v2")
func TestZZ(t *testing.T) {
	u,_ := url.Parse(startBackend(t))
	w := newWorld(t, backendURL, nil)
	s := "Q savepoint s | P - savepoint s | B - - | E - | Q rollback to s | S | E - 1 | S | D S  | S | X"
	seen := map[string]int{}
	for i := range 40 {
		r := rand.New(rand.NewPCG(uint64(i),2))
		seen["D "+fmt.Sprint(converse(t, u.Host, s, r))]++; dbg=""; o := "W "+fmt.Sprint(converse(t, w.listener.Addr().String(), s, r)); if seen[o]==0 {fmt.Println(o, dbg)}; seen[o]++
	}
	for k, n := range seen { fmt.Println(n, k) }
}
func zz(l string) string { return l }
