// Package budget keeps count of how often principals test masked columns, so that
// no more is found out by guessing than a policy lets them. It knows no policy and
// no SQL: who, which mask, how many of how many in which time come with every
// question. It never gives back what was spent, not to a restart of the agent and
// not to a clock that is set back, and its counts go to one small file.
package budget
