package mask

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Method is how a value is masked.
type Method uint8

// The methods of a policy's mask, from the least strict to the strictest: how
// much of the value can be learnt from what is left.
const (
	// Last4 turns every letter and every digit but the last four digits into *;
	// separators stay. Of a value with four digits or fewer none stays.
	Last4 Method = iota + 1
	// Email keeps the first letter and the top-level domain: a***@***.com. What is
	// not one e-mail address is redacted.
	Email
	// Token is "tok_" and the base64url of AES-SIV (RFC 5297): the same value
	// always gives the same token, and only the key's owner can undo it. A token's
	// length tells the value's.
	Token
	// Hash is the first 128 bits of HMAC-SHA-256, 32 hexadecimal digits: the same
	// value always gives the same digits, nobody can undo it, and without the key
	// nobody can test a guess.
	Hash
	// Redact is the text [masked].
	Redact
	// Null is the SQL NULL.
	Null
)

var methodNames = [...]string{Last4: "last4", Email: "email", Token: "token", Hash: "hash", Redact: "redact", Null: "null"}

// ParseMethod reads a method as a policy spells it.
func ParseMethod(s string) (Method, error) {
	for m, name := range methodNames {
		if name != "" && name == s {
			return Method(m), nil
		}
	}
	return 0, fmt.Errorf("unknown masking method %q: use redact, last4, null, hash, token or email", s)
}

// String is the policy's word for the method, "" for the zero value.
func (m Method) String() string {
	if int(m) < len(methodNames) {
		return methodNames[m]
	}
	return ""
}

// Strictest is the stricter of two methods; the zero value yields to any.
func Strictest(a, b Method) Method { return max(a, b) }

// Redacted is what stands for a value that is not shown at all. It needs no
// escaping in JSON, CSV, arrays and COPY.
const Redacted = "[masked]"

// keepDigits is the number of digits that Last4 shows.
const keepDigits = 4

// appendText appends v, masked by any method but Null. Hash and Token without a
// key redact.
func appendText(dst []byte, m Method, v []byte, key *Key) []byte {
	switch {
	case m == Last4:
		return appendLast4(dst, v)
	case m == Email:
		return appendEmail(dst, v)
	case m == Hash && key != nil:
		return key.appendHash(dst, v)
	case m == Token && key != nil:
		return key.appendToken(dst, v)
	}
	return append(dst, Redacted...)
}

func appendLast4(dst, v []byte) []byte {
	digits := 0
	for _, b := range v {
		if isDigit(b) {
			digits++
		}
	}
	hide := digits - keepDigits
	if hide <= 0 {
		hide = digits
	}
	for i := 0; i < len(v); {
		b := v[i]
		size := 1
		switch {
		case isDigit(b) && hide > 0:
			hide--
			dst = append(dst, '*')
		case isDigit(b), b < utf8.RuneSelf && !isLetter(b):
			dst = append(dst, b)
		default: // letters, and bytes of any other encoding one by one
			if b >= utf8.RuneSelf {
				_, size = utf8.DecodeRune(v[i:])
			}
			dst = append(dst, '*')
		}
		i += size
	}
	return dst
}

func appendEmail(dst, v []byte) []byte {
	at := bytes.IndexByte(v, '@')
	dot := bytes.LastIndexByte(v, '.')
	if at <= 0 || dot < at+2 || bytes.IndexByte(v[at+1:], '@') >= 0 || bytes.ContainsAny(v, " \t\r\n\"<>,;") {
		return append(dst, Redacted...)
	}
	first, size := utf8.DecodeRune(v)
	if first != utf8.RuneError && (unicode.IsLetter(first) || unicode.IsDigit(first)) {
		dst = append(dst, v[:size]...)
	}
	dst = append(dst, "***@***"...)
	tld := v[dot+1:]
	for _, b := range tld {
		if !isLetter(b) {
			return dst
		}
	}
	if len(tld) < 2 {
		return dst
	}
	return append(append(dst, '.'), tld...)
}

func isDigit(b byte) bool  { return b-'0' <= 9 }
func isLetter(b byte) bool { return b|0x20-'a' <= 'z'-'a' }
func isHex(b byte) bool    { return isDigit(b) || b|0x20-'a' <= 'f'-'a' }
func isAlnum(b byte) bool  { return isDigit(b) || isLetter(b) }
func isWord(b byte) bool   { return isAlnum(b) || b == '_' }
