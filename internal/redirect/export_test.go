package redirect

import "github.com/weirproxy/weir/bpf"

func rawKeys(n int) []bpf.RedirectWeirHandoverKey {
	out := make([]bpf.RedirectWeirHandoverKey, n)
	for i := range out {
		out[i].Netns = uint64(1)<<60 + uint64(i) // no such namespace
	}
	return out
}

func rawRecord() bpf.RedirectWeirRecord { return bpf.RedirectWeirRecord{Time: ^uint64(0) >> 1} }
