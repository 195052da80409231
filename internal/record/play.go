package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/weirproxy/weir/internal/session"
)

// Line is a line of a recording: of its header the Header, of what follows the time
// since the beginning and an entry.
type Line struct {
	At     time.Duration
	Header bool
	Entry  session.Entry
}

var errLine = errors.New("a line of the recording cannot be read")

// Lines takes a chunk apart. terminal says which format it is of.
func Lines(chunk []byte, terminal bool, take func(Line) error) error {
	for len(chunk) > 0 {
		i := bytes.IndexByte(chunk, '\n')
		if i < 0 {
			return errLine
		}
		l, err := parseLine(chunk[:i], terminal)
		if err == nil {
			err = take(l)
		}
		if err != nil {
			return err
		}
		chunk = chunk[i+1:]
	}
	return nil
}

func parseLine(b []byte, terminal bool) (Line, error) {
	if !terminal {
		var in line
		if json.Unmarshal(b, &in) != nil {
			return Line{}, errLine
		}
		e := session.Entry{Kind: session.EntryKind(in.Kind), Action: in.Action, Status: in.Status, Code: in.Code, Text: in.Text, Params: in.Params, N: in.N}
		if in.Column != nil {
			e.Column = *in.Column
		}
		for _, v := range in.Values {
			e.Values = append(e.Values, session.Value(v))
		}
		if in.Data != nil {
			e.Data = session.Value(*in.Data)
		}
		return Line{At: duration(in.T), Entry: e}, nil
	}
	if len(b) > 0 && b[0] == '{' {
		var h castHeader
		if json.Unmarshal(b, &h) != nil {
			return Line{}, errLine
		}
		return Line{Header: true}, nil
	}
	var at json.Number
	var kind, text string
	if json.Unmarshal(b, &[]any{&at, &kind, &text}) != nil {
		return Line{}, errLine
	}
	return Line{At: duration(at), Entry: session.Entry{Kind: session.EntryKind(kind), Text: text}}, nil
}

func duration(n json.Number) time.Duration {
	f, _ := n.Float64()
	return time.Duration(f * float64(time.Second))
}
