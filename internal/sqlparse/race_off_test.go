//go:build !race

package sqlparse

// raceFactor is how much more memory the race detector makes of everything.
const raceFactor = 1
