package evidence

import (
	"testing"

	"github.com/defenseunicorns/go-oscal/src/pkg/validation"
)

// TestOSCAL holds the results to NIST's own JSON schema.
func TestOSCAL(t *testing.T) {
	n := world(t)
	for _, f := range Frameworks() {
		c := morning(n)
		c.Framework = f
		v, err := validation.NewValidatorDesiredVersion(memberOf(t, n.export(c), "oscal/assessment-results.json"), oscalVersion)
		if err != nil {
			t.Fatal(err)
		}
		if v.GetModelType() != "assessment-results" {
			t.Error(v.GetModelType())
		}
		if err := v.Validate(); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}
