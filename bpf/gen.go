// Package bpf holds the kernel half: the C programs, their shared headers, the
// compiled object and the generated bindings to it. There is no logic in Go
// here; internal/redirect owns every program, map and link that comes from it.
//
// Only who changes the C needs clang 14, llvm-strip 14, libbpf-dev and
// linux-libc-dev: `go generate ./bpf`. The object is the same whatever folder it
// is built in.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cc clang -strip llvm-strip -type weir_config -type weir_destination_key -type weir_destination -type weir_handover_key -type weir_record -type weir_counter -type weir_flow_counter -type weir_flows_key -type weir_flows -type weir_role Redirect redirect.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Ilib
