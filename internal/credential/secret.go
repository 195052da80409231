package credential

import (
	"fmt"
	"io"
	"log/slog"
)

// maxSecret bounds a secret's length, bytes. Private keys are the longest.
const maxSecret = 64 << 10

// masked is what a Secret prints as.
const masked = "***"

// Secret is a copy of secret bytes that its holder wipes when done. It prints as
// "***" with every verb and in every encoding. The zero value is empty.
type Secret struct{ b []byte }

// NewSecret takes a copy of b.
func NewSecret(b []byte) Secret { return Secret{append([]byte(nil), b...)} }

// Reveal is the secret itself. The copy in the string cannot be wiped: hand it
// on, do not keep it.
func (s Secret) Reveal() string { return string(s.b) }

// Bytes are the secret's bytes, valid until Wipe.
func (s Secret) Bytes() []byte { return s.b }

// Empty reports whether there is nothing in it.
func (s Secret) Empty() bool { return len(s.b) == 0 }

// Wipe overwrites the secret.
func (s Secret) Wipe() { clear(s.b) }

func (s Secret) String() string               { return masked }
func (s Secret) GoString() string             { return masked }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(masked) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// Format covers the verbs that go round String (%x, %d, %#v).
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }
