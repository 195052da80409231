package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Checkpoint is a signed statement of where the log stands. Its text is a signed
// note (C2SP signed-note.md): six lines, an empty one, the signature.
//
//	node-a/weir-spool          origin, the name of the key
//	1742                       seq of the last event
//	(base64)                   chain value
//	segment 3 offset 81920
//	time 2026-11-23T06:07:34.5Z
//	state open                 or closed: the agent stopped, nothing follows in this segment;
//	                           then " inside" when it was signed to stand in the log
//
// One that stands in the log is no checkpoint of the log: else whoever cuts the
// log off in front of it would find there what proves the rest to be whole.
type Checkpoint struct {
	Origin   string
	Position Position
	Time     time.Time
	Closed   bool
	Inside   bool
}

// maxCheckpoint bounds the text of a checkpoint, bytes.
const maxCheckpoint = 2 << 10

// Text is the part of a checkpoint that is signed.
func (c Checkpoint) Text() []byte {
	state := "open"
	if c.Closed {
		state = "closed"
	}
	if c.Inside {
		state += " inside"
	}
	return fmt.Appendf(nil, "%s\n%d\n%s\nsegment %d offset %d\ntime %s\nstate %s\n", c.Origin, c.Position.Seq,
		base64.StdEncoding.EncodeToString(c.Position.Chain[:]), c.Position.Segment, c.Position.Offset,
		c.Time.UTC().Format(time.RFC3339Nano), state)
}

// algEd25519 is the type of a signature in a note's key (signed-note.md).
const algEd25519 = 1

// PublicKey verifies a log's checkpoints. Its text form is that of a note's
// verifier key: NAME+HASH+BASE64.
type PublicKey struct {
	Name string
	Key  ed25519.PublicKey
}

// ID is the key's hash as notes carry it: the first four bytes of the SHA-256 of
// name, newline, algorithm and key.
func (k PublicKey) ID() uint32 {
	h := sha256.New()
	h.Write([]byte(k.Name))
	h.Write([]byte{'\n', algEd25519})
	h.Write(k.Key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

func (k PublicKey) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.Name, k.ID(),
		base64.StdEncoding.EncodeToString(append([]byte{algEd25519}, k.Key...)))
}

// ParsePublicKey reads the text form of a key.
func ParsePublicKey(text string) (PublicKey, error) {
	parts := strings.SplitN(strings.TrimSpace(text), "+", 3)
	if len(parts) != 3 {
		return PublicKey{}, errors.New("this is no public key of a log (NAME+HASH+KEY)")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algEd25519 || !ValidOrigin(parts[0]) {
		return PublicKey{}, errors.New("this is no Ed25519 public key of a log (NAME+HASH+KEY)")
	}
	k := PublicKey{Name: parts[0], Key: raw[1:]}
	if k.String() != strings.TrimSpace(text) {
		return PublicKey{}, errors.New("the public key of the log does not have the hash that it states")
	}
	return k, nil
}

// ValidOrigin reports whether s can name a key: a note's syntax has no room for
// spaces, plus signs and control characters in it.
func ValidOrigin(s string) bool {
	return s != "" && len(s) <= MaxNode+32 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '+' || r == 0x7f || r > 0x7e })
}

// FormatSignature is the last line of a checkpoint's note.
func FormatSignature(k PublicKey, sig []byte) []byte {
	raw := binary.BigEndian.AppendUint32(nil, k.ID())
	return fmt.Appendf(nil, "\n— %s %s\n", k.Name, base64.StdEncoding.EncodeToString(append(raw, sig...)))
}

// ParseCheckpoint verifies a note and reads the checkpoint in it.
func ParseCheckpoint(note []byte, key PublicKey) (Checkpoint, error) {
	if len(note) > maxCheckpoint {
		return Checkpoint{}, errors.New("the checkpoint is too long")
	}
	text, sigLine, ok := bytes.Cut(note, []byte("\n\n— "))
	if !ok {
		return Checkpoint{}, errors.New("the checkpoint has no signature")
	}
	text = append(text[:len(text):len(text)], '\n')
	rest, ok := bytes.CutPrefix(sigLine, []byte(key.Name+" "))
	if !ok {
		return Checkpoint{}, errors.New("the checkpoint is not signed with this key")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimSuffix(rest, []byte{'\n'})))
	if err != nil || len(raw) != 4+ed25519.SignatureSize || binary.BigEndian.Uint32(raw) != key.ID() {
		return Checkpoint{}, errors.New("the checkpoint is not signed with this key")
	}
	if !ed25519.Verify(key.Key, text, raw[4:]) {
		return Checkpoint{}, errors.New("the checkpoint's signature is wrong")
	}
	c, err := parseText(text)
	if err != nil {
		return Checkpoint{}, err
	}
	// One checkpoint has one form: a changed byte anywhere, also one that base64
	// or a parser would forgive, is a changed checkpoint.
	if c.Origin != key.Name || !bytes.Equal(note, append(c.Text(), FormatSignature(key, raw[4:])...)) {
		return Checkpoint{}, errors.New("the checkpoint is malformed")
	}
	return c, nil
}

func parseText(text []byte) (Checkpoint, error) {
	bad := errors.New("the checkpoint is malformed")
	lines := strings.Split(string(text), "\n")
	if len(lines) != 7 {
		return Checkpoint{}, bad
	}
	state, inside := strings.CutSuffix(lines[5], " inside")
	c := Checkpoint{Origin: lines[0], Closed: state == "state closed", Inside: inside}
	chain, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || copy(c.Position.Chain[:], chain) != sha256.Size {
		return Checkpoint{}, bad
	}
	if c.Position.Seq, err = strconv.ParseUint(lines[1], 10, 64); err != nil {
		return Checkpoint{}, bad
	}
	if _, err := fmt.Sscanf(lines[3], "segment %d offset %d", &c.Position.Segment, &c.Position.Offset); err != nil {
		return Checkpoint{}, bad
	}
	if c.Time, err = time.Parse("time "+time.RFC3339Nano, lines[4]); err != nil {
		return Checkpoint{}, bad
	}
	return c, nil
}
