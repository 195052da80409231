// Package redirect is the userspace owner of the kernel half: it loads, attaches,
// pins, upgrades, inspects and removes the programs of package bpf, owns every map
// of theirs, every listener in every network namespace, and every dial into one.
//
// What the kernel does is told in bpf/redirect.bpf.c. In short: a connect to a
// protected destination from an attached cgroup lands at this package's listener
// on loopback of the same network namespace, and Accept returns it together with
// the record of where it was meant to go and who asked.
//
// It must never fail open: hooks stay when the agent goes (Close leaves them, only
// Uninstall takes them out), a connection without a record is closed, and what
// cannot be known is an error. It decides nothing about policy and reads no byte
// of any connection. It is the only package that imports cilium/ebpf and
// vishvananda/netlink.
package redirect
