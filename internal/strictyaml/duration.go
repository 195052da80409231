package strictyaml

import (
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time as people write it: Go's units, and d and w for
// 24 hours and 7 days ("400d", "1d12h", "15m"). It is never negative.
type Duration time.Duration

// ParseScalar reads a duration.
func (d *Duration) ParseScalar(text string) error {
	v, ok := ParseDuration(text)
	if !ok {
		return &FixError{"this is no length of time", "write a number and a unit: 30s, 15m, 12h, 400d, 4w"}
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string {
	const day = 24 * time.Hour
	if v := time.Duration(d); v >= day && v%day == 0 {
		return strconv.FormatInt(int64(v/day), 10) + "d"
	}
	return time.Duration(d).String()
}

// MarshalYAML writes it as it is read.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// MarshalText does the same for JSON.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// maxDuration keeps sums of days far away from overflow: about 290 years fit.
const maxDuration = 100 * 365 * 24 * time.Hour

// ParseDuration reads a duration; false when text is none, is negative or is
// longer than 100 years.
func ParseDuration(text string) (time.Duration, bool) {
	var total time.Duration
	rest := text
	for _, unit := range []struct {
		letter string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		n, after, ok := strings.Cut(rest, unit.letter)
		if !ok {
			continue
		}
		count, err := strconv.ParseUint(n, 10, 32)
		if err != nil || time.Duration(count) > maxDuration/unit.length {
			return 0, false
		}
		if total += time.Duration(count) * unit.length; total > maxDuration {
			return 0, false
		}
		rest = after
	}
	if rest == "" {
		return total, text != ""
	}
	v, err := time.ParseDuration(rest)
	if err != nil || v < 0 || v > maxDuration-total {
		return 0, false
	}
	return total + v, true
}
