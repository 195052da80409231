//go:build race

package sqlparse

// raceFactor is how much more memory the race detector makes of everything: 5 to
// 10 times (its manual).
const raceFactor = 10
