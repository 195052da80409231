package postgres

import (
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// entryKind is what a forwarded message has the server answer.
type entryKind byte

const (
	expectQuery    entryKind = iota // results of each statement, then Z
	expectParse                     // 1
	expectBind                      // 2
	expectDescribe                  // [t] then T or n
	expectExecute                   // results, or s
	expectClose                     // 3
	expectSync                      // Z
	expectCall                      // V, then Z
)

// entry is one answer that the server owes.
type entry struct {
	kind  entryKind
	batch uint64
	bytes int64 // memory that it holds on to, roughly

	hidden bool // made by the engine: the answer is not for the client
	// refusal is set when the message stands in for a refused one and must fail:
	// the ErrorResponse that the client gets instead of the server's.
	refusal []byte

	matters   bool // later texts wait for it
	maybeCopy bool // it may put the session in copy-in mode

	name      string
	change    uint64 // number of the change to the table of statements or portals
	statement bool   // Describe and Close: of a statement, not of a portal
	prep      *prepared
	portal    *portal
	answered  bool  // Describe: t came; FunctionCall: V came
	builtIn   bool  // FunctionCall: of a function of the server's own
	format    int16 // FunctionCall: of the result

	// acts are the actions whose outcomes are owed; the first ones first.
	acts  []act
	loose bool // it is not known how many statements there are: acts has one
	masks *maskSet
	err   bool // an ErrorResponse came for it
}

// act is one allowed action on its way.
type act struct {
	ticket session.Ticket
	stmt   *sqlmeta.Statement
	// reading is how the server has read the statement's text.
	reading reading
	open    bool
	rows    int64 // counted by the tags of statements that nobody could read
}

// current is the statement that runs just now, nil when there is none.
func (e *entry) current() *act {
	if e == nil {
		return nil
	}
	for i := range e.acts {
		if e.acts[i].open {
			return &e.acts[i]
		}
	}
	return nil
}

// queue is what the server owes, in order.
type queue struct {
	entries []*entry
	first   int
	bytes   int64
	waits   int // entries that matter
	copies  int // entries that may copy in
}

func (q *queue) len() int { return len(q.entries) - q.first }

func (q *queue) head() *entry {
	if q.len() == 0 {
		return nil
	}
	return q.entries[q.first]
}

func (q *queue) push(e *entry) {
	if q.first > 64 && q.first > len(q.entries)/2 {
		n := copy(q.entries, q.entries[q.first:])
		clear(q.entries[n:])
		q.entries, q.first = q.entries[:n], 0
	}
	q.entries = append(q.entries, e)
	q.count(e, 1)
}

func (q *queue) pop() {
	q.count(q.entries[q.first], -1)
	q.entries[q.first] = nil
	if q.first++; q.first == len(q.entries) {
		q.entries, q.first = q.entries[:0], 0
	}
}

func (q *queue) count(e *entry, n int) {
	q.bytes += int64(n) * e.bytes
	if e.matters {
		q.waits += n
	}
	if e.maybeCopy {
		q.copies += n
	}
}

// behind are the entries after the head.
func (q *queue) behind() []*entry { return q.entries[q.first+1:] }

// dropBehind removes n entries right after the head.
func (q *queue) dropBehind(n int) {
	from := q.first + 1
	for _, e := range q.entries[from : from+n] {
		q.count(e, -1)
	}
	q.entries = append(q.entries[:from], q.entries[from+n:]...)
}
