package completeness

import (
	"fmt"
	"strings"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Why says in words what an account does not explain; "" when it explains everything.
func Why(c *auditlog.Completeness) string {
	var parts []string
	for i := range c.Backends {
		if s := Gap(&c.Backends[i]); s != "" {
			parts = append(parts, s)
		}
	}
	if c.Problem != "" {
		parts = append(parts, c.Problem)
	}
	return strings.Join(parts, "; ")
}

// Gap says in words what is not explained of a backend.
func Gap(f *auditlog.FlowCount) string {
	switch {
	case f.Difference > 0:
		return fmt.Sprintf("backend %q: %d connections that the kernel handed over have no flow in the audit log", f.Backend, f.Difference)
	case f.Difference < 0:
		return fmt.Sprintf("backend %q: the audit log has %d flows more than the kernel handed over", f.Backend, -f.Difference)
	}
	return ""
}
