package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/weirproxy/weir/internal/flow"
)

// paramRecorder keeps bind parameters as the audit log shows them: text as it is,
// binary values as \x and hex, NULL as NULL. Values over maxParam, and all that
// follow once maxParams is used up, stand as their length and digest.
type paramRecorder struct {
	params []string
	kinds  []byte // how each stands there: paramText, ...
	// hide replaces a value that must not stand in the log in the clear; nil or ""
	// for nothing to hide.
	hide func(value []byte) string
	// hidden are the values that hide has replaced.
	hidden []flow.Hidden

	used   int
	length int64
	format int16
	value  []byte
	sum    hash.Hash // of a value that is too long
	rest   hash.Hash // of all values after maxParams
	more   int
	bytes  int64
}

// How a value stands in the record.
const (
	paramText   byte = 't' // as it is
	paramBinary byte = 'b' // all of it, as \x and hex
	paramNull   byte = 'n'
	paramCut    byte = 'x' // not, or not all of it
)

// begin starts a value of n bytes, -1 for NULL.
func (r *paramRecorder) begin(n int64, format int16) {
	r.length, r.format, r.value, r.sum = n, format, r.value[:0], nil
	switch {
	case r.rest != nil || r.used > maxParams:
		if r.rest == nil {
			r.rest = sha256.New()
		}
		r.more++
		r.bytes += max(n, 0)
		r.sum = r.rest
	case n > maxParam:
		r.sum = sha256.New()
	}
}

func (r *paramRecorder) write(b []byte) {
	if r.sum != nil {
		r.sum.Write(b)
		return
	}
	r.value = append(r.value, b...)
}

func (r *paramRecorder) end() {
	if r.rest != nil {
		return
	}
	var s string
	kind := paramCut
	switch {
	case r.length < 0:
		s, kind = "NULL", paramNull
	case r.sum != nil:
		s = fmt.Sprintf("[%d bytes, sha256:%x]", r.length, r.sum.Sum(nil))
	case r.format == 0:
		if r.hide != nil {
			if s = r.hide(r.value); s != "" {
				r.hidden = append(r.hidden, flow.Hidden{Param: len(r.params), Value: string(r.value)})
			}
		}
		if s == "" {
			s, kind = string(r.value), paramText
		}
	default:
		s, kind = `\x`+hex.EncodeToString(r.value), paramBinary
	}
	r.used += len(s) + 16
	r.params = append(r.params, s)
	r.kinds = append(r.kinds, kind)
}

// done adds what stands for the values that were left out.
func (r *paramRecorder) done() []string {
	if r.rest != nil {
		r.params = append(r.params, fmt.Sprintf("[%d more values, %d bytes, sha256:%x]", r.more, r.bytes, r.rest.Sum(nil)))
		r.rest = nil
	}
	return r.params
}
