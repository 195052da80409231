package auditlog

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"
)

// The encoder writes what encoding/json would write for an Event, byte for byte
// (FuzzEncode holds it to that), without reflection: it is on the path of every
// action. The head of an event is apart from its body because only the log, in
// its own order, knows the head; the body can be made before.

// AppendEventHead appends the JSON of v, seq and time, up to a comma.
func AppendEventHead(dst []byte, seq uint64, at time.Time) []byte {
	dst = append(dst, `{"v":`...)
	dst = strconv.AppendInt(dst, Version, 10)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, `,"time":"`...)
	dst = at.AppendFormat(dst, time.RFC3339Nano)
	return append(dst, `",`...)
}

// AppendEventBody appends the rest of the event's JSON behind its head.
func AppendEventBody(dst []byte, ev *Event) ([]byte, error) {
	dst = append(dst, `"node":`...)
	dst = appendString(dst, ev.Node)
	dst = appendField(dst, `,"kind":`, string(ev.Kind))
	dst = appendOptional(dst, `,"flow":`, ev.Flow)
	dst = appendOptional(dst, `,"session":`, ev.Session)
	var err error
	if ev.Principal != nil {
		if dst, err = appendPrincipal(append(dst, `,"principal":`...), ev.Principal); err != nil {
			return dst, err
		}
	}
	if ev.Process != nil {
		dst = appendProcess(append(dst, `,"process":`...), ev.Process)
	}
	dst = appendOptional(dst, `,"backend":`, ev.Backend)
	dst = appendOptional(dst, `,"protocol":`, ev.Protocol)
	dst = appendOptional(dst, `,"destination":`, ev.Destination)
	dst = appendOptional(dst, `,"database":`, ev.Database)
	dst = appendOptional(dst, `,"login":`, ev.Login)
	if ev.Action != nil {
		dst = appendAction(append(dst, `,"action":`...), ev.Action)
	}
	dst = appendOptional(dst, `,"verdict":`, ev.Verdict)
	dst = appendOptional(dst, `,"rule":`, ev.Rule)
	dst = appendOptional(dst, `,"policy":`, ev.Policy)
	dst = appendOptional(dst, `,"reason":`, ev.Reason)
	if ev.Approval != nil {
		if dst, err = appendRare(append(dst, `,"approval":`...), ev.Approval); err != nil {
			return dst, err
		}
	}
	if len(ev.Masks) > 0 {
		dst = appendMasks(append(dst, `,"masks":`...), ev.Masks)
	}
	if ev.Result != nil {
		dst = appendResult(append(dst, `,"result":`...), ev.Result)
	}
	if ev.Upstream != nil {
		dst = appendField(dst, `,"upstream":{"address":`, ev.Upstream.Address)
		dst = appendOptionalUint(dst, `,"pid":`, uint64(ev.Upstream.PID))
		dst = append(dst, '}')
	}
	if ev.Gap != nil {
		if dst, err = appendRare(append(dst, `,"gap":`...), ev.Gap); err != nil {
			return dst, err
		}
	}
	if ev.Retention != nil {
		if dst, err = appendRare(append(dst, `,"retention":`...), ev.Retention); err != nil {
			return dst, err
		}
	}
	if len(ev.PolicyFiles) > 0 {
		if dst, err = appendRare(append(dst, `,"policy_files":`...), ev.PolicyFiles); err != nil {
			return dst, err
		}
	}
	if ev.Evidence != nil {
		if dst, err = appendRare(append(dst, `,"evidence":`...), ev.Evidence); err != nil {
			return dst, err
		}
	}
	if ev.Completeness != nil {
		if dst, err = appendRare(append(dst, `,"completeness":`...), ev.Completeness); err != nil {
			return dst, err
		}
	}
	if ev.Recording != nil {
		if dst, err = appendRare(append(dst, `,"recording":`...), ev.Recording); err != nil {
			return dst, err
		}
	}
	dst = appendOptional(dst, `,"assurance":`, ev.Assurance)
	if ev.Log != nil {
		if dst, err = appendRare(append(dst, `,"log":`...), ev.Log); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// appendRare is for what occurs too seldom to be worth code of its own.
func appendRare(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func appendPrincipal(dst []byte, p *Principal) ([]byte, error) {
	dst = appendField(dst, `{"issuer":`, p.Issuer)
	dst = appendField(dst, `,"subject":`, p.Subject)
	dst = appendField(dst, `,"user":`, p.User)
	dst = append(dst, `,"groups":`...)
	if p.Groups == nil {
		dst = append(dst, `null`...)
	} else {
		dst = appendStrings(dst, p.Groups)
	}
	dst = appendField(dst, `,"kind":`, p.Kind)
	dst = appendOptional(dst, `,"token_id":`, p.TokenID)
	if p.Actor != nil {
		dst = appendActor(append(dst, `,"actor":`...), p.Actor)
	}
	if p.Expires != nil {
		b, err := p.Expires.MarshalJSON()
		if err != nil {
			return dst, errors.New("the expiry of the sign-in is no time that can be recorded")
		}
		dst = append(append(dst, `,"expires":`...), b...)
	}
	return append(dst, '}'), nil
}

func appendActor(dst []byte, a *Actor) []byte {
	dst = append(dst, '{')
	if a.Issuer != "" {
		dst = append(appendField(dst, `"issuer":`, a.Issuer), ',')
	}
	dst = appendField(dst, `"subject":`, a.Subject)
	dst = appendOptional(dst, `,"user":`, a.User)
	if a.Actor != nil {
		dst = appendActor(append(dst, `,"actor":`...), a.Actor)
	}
	return append(dst, '}')
}

func appendProcess(dst []byte, p *Process) []byte {
	dst = strconv.AppendInt(append(dst, `{"pid":`...), int64(p.PID), 10)
	dst = appendOptional(dst, `,"exe":`, p.Exe)
	dst = appendOptional(dst, `,"comm":`, p.Comm)
	dst = strconv.AppendUint(append(dst, `,"uid":`...), uint64(p.UID), 10)
	if p.LoginUID != nil {
		dst = strconv.AppendUint(append(dst, `,"loginuid":`...), uint64(*p.LoginUID), 10)
	}
	if p.AuditSession != nil {
		dst = strconv.AppendUint(append(dst, `,"audit_session":`...), uint64(*p.AuditSession), 10)
	}
	dst = appendOptional(dst, `,"cgroup":`, p.Cgroup)
	if p.Pod != nil {
		dst = appendField(dst, `,"pod":{"namespace":`, p.Pod.Namespace)
		dst = appendField(dst, `,"name":`, p.Pod.Name)
		dst = appendField(dst, `,"uid":`, p.Pod.UID)
		dst = appendOptional(dst, `,"container":`, p.Pod.Container)
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

func appendAction(dst []byte, a *Action) []byte {
	dst = appendField(dst, `{"id":`, a.ID)
	dst = appendField(dst, `,"phase":`, a.Phase)
	if len(a.Verbs) > 0 {
		dst = appendStrings(append(dst, `,"verbs":`...), a.Verbs)
	}
	if len(a.Resources) > 0 {
		dst = appendStrings(append(dst, `,"resources":`...), a.Resources)
	}
	if len(a.Accesses) > 0 {
		dst = appendAccesses(append(dst, `,"accesses":`...), a.Accesses)
	}
	if len(a.Functions) > 0 {
		dst = appendStrings(append(dst, `,"functions":`...), a.Functions)
	}
	if len(a.Languages) > 0 {
		dst = appendStrings(append(dst, `,"languages":`...), a.Languages)
	}
	if a.SecurityDefiner {
		dst = append(dst, `,"security_definer":true`...)
	}
	if a.Columns != nil {
		dst = appendColumns(append(dst, `,"columns":`...), a.Columns)
	}
	if a.Cut != 0 {
		dst = strconv.AppendInt(append(dst, `,"cut":`...), a.Cut, 10)
	}
	if len(a.Tests) > 0 {
		dst = appendTests(append(dst, `,"tests":`...), a.Tests)
	}
	dst = appendOptional(dst, `,"text":`, a.Text)
	if len(a.Params) > 0 {
		dst = appendStrings(append(dst, `,"params":`...), a.Params)
	}
	dst = appendOptional(dst, `,"digest":`, a.Digest)
	if a.Bytes != 0 {
		dst = strconv.AppendInt(append(dst, `,"bytes":`...), a.Bytes, 10)
	}
	dst = appendOptional(dst, `,"refused_by":`, a.RefusedBy)
	return append(dst, '}')
}

func appendAccesses(dst []byte, list []Access) []byte {
	sep := byte('[')
	for i := range list {
		a := &list[i]
		dst = appendField(append(dst, sep), `{"verb":`, a.Verb)
		dst = appendOptional(dst, `,"resource":`, a.Resource)
		if a.Unrestricted {
			dst = append(dst, `,"unrestricted":true`...)
		}
		dst = append(dst, '}')
		sep = ','
	}
	return append(dst, ']')
}

func appendColumns(dst []byte, c *Columns) []byte {
	dst = append(dst, '{')
	if len(c.Read) > 0 {
		dst = append(appendStrings(append(dst, `"read":`...), c.Read), ',')
	}
	if len(c.Written) > 0 {
		dst = append(appendStrings(append(dst, `"written":`...), c.Written), ',')
	}
	if len(c.Tested) > 0 {
		dst = append(appendStrings(append(dst, `"tested":`...), c.Tested), ',')
	}
	if last := len(dst) - 1; dst[last] == ',' {
		dst = dst[:last]
	}
	return append(dst, '}')
}

func appendTests(dst []byte, list []Test) []byte {
	sep := byte('[')
	for i := range list {
		t := &list[i]
		dst = appendField(append(dst, sep), `{"policy":`, t.Policy)
		dst = appendField(dst, `,"mask":`, t.Mask)
		dst = appendField(dst, `,"column":`, t.Column)
		dst = strconv.AppendInt(append(dst, `,"tests":`...), t.Tests, 10)
		if t.Left != nil {
			dst = strconv.AppendInt(append(dst, `,"left":`...), *t.Left, 10)
		}
		dst = append(dst, '}')
		sep = ','
	}
	return append(dst, ']')
}

func appendMasks(dst []byte, masks []Mask) []byte {
	sep := byte('[')
	for i := range masks {
		m := &masks[i]
		dst = appendField(append(dst, sep), `{"column":`, m.Column)
		dst = appendField(dst, `,"method":`, m.Method)
		dst = appendField(dst, `,"source":`, m.Source)
		dst = appendOptional(dst, `,"detector":`, m.Detector)
		dst = strconv.AppendInt(append(dst, `,"count":`...), m.Count, 10)
		dst = append(dst, '}')
		sep = ','
	}
	return append(dst, ']')
}

func appendResult(dst []byte, r *Result) []byte {
	dst = appendField(dst, `{"status":`, r.Status)
	dst = appendOptional(dst, `,"code":`, r.Code)
	dst = strconv.AppendInt(append(dst, `,"rows":`...), r.Rows, 10)
	dst = strconv.AppendInt(append(dst, `,"bytes":`...), r.Bytes, 10)
	dst = strconv.AppendInt(append(dst, `,"duration_us":`...), r.DurationUS, 10)
	return append(dst, '}')
}

func appendField(dst []byte, name, value string) []byte {
	return appendString(append(dst, name...), value)
}

func appendOptional(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendField(dst, name, value)
}

func appendOptionalUint(dst []byte, name string, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return strconv.AppendUint(append(dst, name...), v, 10)
}

func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, s)
	}
	return append(dst, ']')
}

const hexDigits = "0123456789abcdef"

// appendString escapes as encoding/json does by default: HTML's characters and
// the JavaScript line separators too, bytes that are no UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b >= ' ' && b != '"' && b != '\\' && b != '<' && b != '>' && b != '&' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = appendEscape(dst, b)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(append(dst, s[start:i]...), `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029':
			dst = append(append(dst, s[start:i]...), `\u202`...)
			dst = append(dst, hexDigits[r&0xf])
			start = i + size
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, b byte) []byte {
	switch b {
	case '"', '\\':
		return append(dst, '\\', b)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&0xf])
}
