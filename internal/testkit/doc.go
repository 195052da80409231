// Package testkit gives tests the real things: cgroups, network namespaces, bpffs
// mounts, identity providers, and checks that nothing stays behind. Packages below
// it (dex, postgres, node) do without testing, so that `weir demo` can use them.
// It must never be imported by the product otherwise.
package testkit
