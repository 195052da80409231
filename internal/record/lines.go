package record

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/session"
)

// line is an entry as it stands in a recording of events, one JSON object a line.
// T is seconds since the recording began.
type line struct {
	T      json.Number `json:"t"`
	Kind   string      `json:"kind"`
	Action string      `json:"action,omitempty"`
	Status string      `json:"status,omitempty"`
	Code   string      `json:"code,omitempty"`
	Text   string      `json:"text,omitempty"`
	Params []string    `json:"params,omitempty"`
	N      int64       `json:"n,omitempty"`
	Column *int        `json:"column,omitempty"`
	Values []value     `json:"values,omitempty"`
	Data   *value      `json:"data,omitempty"`
}

// value is a string; {"base64": ...} where it is no UTF-8; null; and with "cut", the
// number of bytes left out at its end, {"text" or "base64": ..., "cut": n}.
type value session.Value

// MarshalJSON implements json.Marshaler.
func (v value) MarshalJSON() ([]byte, error) {
	if v.Null {
		return []byte("null"), nil
	}
	b, text := v.Bytes, true
	if !utf8.Valid(b) {
		// A character that the cut went through is left out rather than the text
		// made unreadable.
		end := len(b)
		if v.Cut > 0 {
			for i := 1; i < utf8.UTFMax && end-i >= 0; i++ {
				if utf8.RuneStart(b[end-i]) {
					end -= i
					break
				}
			}
		}
		if text = v.Cut > 0 && utf8.Valid(b[:end]); text {
			v.Cut += int64(len(b) - end)
			b = b[:end]
		}
	}
	if text && v.Cut == 0 {
		return json.Marshal(string(b))
	}
	var out struct {
		Text   *string `json:"text,omitempty"`
		Base64 *string `json:"base64,omitempty"`
		Cut    int64   `json:"cut,omitempty"`
	}
	out.Cut = v.Cut
	if text {
		s := string(b)
		out.Text = &s
	} else {
		s := base64.StdEncoding.EncodeToString(b)
		out.Base64 = &s
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *value) UnmarshalJSON(b []byte) error {
	*v = value{}
	switch {
	case string(b) == "null":
		v.Null = true
		return nil
	case len(b) > 0 && b[0] == '"':
		var s string
		err := json.Unmarshal(b, &s)
		v.Bytes = []byte(s)
		return err
	}
	var in struct {
		Text   *string `json:"text"`
		Base64 []byte  `json:"base64"`
		Cut    int64   `json:"cut"`
	}
	err := json.Unmarshal(b, &in)
	v.Bytes, v.Cut = in.Base64, in.Cut
	if in.Text != nil {
		v.Bytes = []byte(*in.Text)
	}
	return err
}

// seconds is a time since the beginning with microseconds, as asciicast has it.
func seconds(d time.Duration) json.Number {
	return json.Number(strconv.FormatFloat(max(d, 0).Seconds(), 'f', 6, 64))
}

// appendEvent appends an entry as a line of a recording of events.
func appendEvent(dst []byte, at time.Duration, e *session.Entry) ([]byte, error) {
	l := line{T: seconds(at), Kind: string(e.Kind), Action: e.Action, Status: e.Status, Code: e.Code, Text: e.Text, Params: e.Params, N: e.N}
	if e.Kind == session.EntryOriginal {
		l.Column = &e.Column
	}
	if len(e.Values) > 0 {
		l.Values = make([]value, len(e.Values))
		for i, v := range e.Values {
			l.Values[i] = value(v)
		}
	}
	if e.Data.Bytes != nil {
		d := value(e.Data)
		l.Data = &d
	}
	b, err := json.Marshal(l)
	return append(append(dst, b...), '\n'), err
}

// castHeader is the first line of a terminal's recording (asciicast v2).
type castHeader struct {
	Version   int    `json:"version"`
	Width     int    `json:"width"`
	Height    int    `json:"height"`
	Timestamp int64  `json:"timestamp"`
	Title     string `json:"title,omitempty"`
}

// appendCast appends an entry of a terminal as asciicast v2 does. What is no UTF-8
// stands there as U+FFFD.
func appendCast(dst []byte, at time.Duration, kind session.EntryKind, text string) ([]byte, error) {
	t, err := json.Marshal(text)
	if err != nil {
		return dst, err
	}
	dst = append(append(dst, '['), seconds(at)...)
	dst = append(append(dst, `, "`...), kind...)
	dst = append(append(dst, `", `...), t...)
	return append(dst, ']', '\n'), nil
}

// splitRune is the length of b without a character at its end that is not whole.
func splitRune(b []byte) int {
	for i := 1; i <= utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return len(b) - i
			}
			break
		}
	}
	return len(b)
}
