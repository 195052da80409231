package bpf

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// The Go form of every shared struct has the size that the compiler gave the C
// form: encoding/binary knows no padding, so a difference is a hole somebody forgot.
func TestGoStructsHaveTheSizeOfTheCStructs(t *testing.T) {
	spec, err := LoadRedirect()
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{
		"weir_config":          RedirectWeirConfig{},
		"weir_destination_key": RedirectWeirDestinationKey{},
		"weir_destination":     RedirectWeirDestination{},
		"weir_handover_key":    RedirectWeirHandoverKey{},
		"weir_record":          RedirectWeirRecord{},
		"weir_flows_key":       RedirectWeirFlowsKey{},
		"weir_flows":           RedirectWeirFlows{},
	} {
		var c *btf.Struct
		if err := spec.Types.TypeByName(name, &c); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := binary.Size(v); got != int(c.Size) {
			t.Errorf("%s: %d bytes in Go, %d in C", name, got, c.Size)
		}
		end := uint32(0)
		for _, m := range c.Members {
			if at := m.Offset.Bytes(); at != end {
				t.Errorf("%s: a hole of %d bytes before %s", name, at-end, m.Name)
			}
			size, err := btf.Sizeof(m.Type)
			if err != nil {
				t.Fatal(err)
			}
			end = m.Offset.Bytes() + uint32(size)
		}
		if end != c.Size {
			t.Errorf("%s: a hole of %d bytes at the end", name, c.Size-end)
		}
	}
}

// A plain hash refuses when it is full; an LRU would drop somebody's record.
func TestNoMapForgets(t *testing.T) {
	spec, err := LoadRedirect()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range spec.Maps {
		switch m.Type.String() {
		case "LRUHash", "LRUCPUHash":
			t.Errorf("map %s is a %s", name, m.Type)
		}
	}
}
