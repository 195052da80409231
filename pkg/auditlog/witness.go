package auditlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// algCosignature is the type of a cosignature's key (C2SP tlog-cosignature.md).
const algCosignature = 4

// WitnessKey verifies the cosignatures of a witness: somebody outside of the node
// who has seen that each head of the log continues the one before.
type WitnessKey struct {
	Name string
	Key  ed25519.PublicKey
}

// ParseWitnessKey reads a verifier key, NAME+HASH+BASE64, of the type Ed25519 or
// cosignature/v1: the key of a witness has both names.
func ParseWitnessKey(text string) (WitnessKey, error) {
	bad := errors.New("this is no public key of a witness (NAME+HASH+KEY)")
	parts := strings.SplitN(strings.TrimSpace(text), "+", 3)
	if len(parts) != 3 || !ValidOrigin(parts[0]) {
		return WitnessKey{}, bad
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algCosignature && raw[0] != algEd25519 {
		return WitnessKey{}, bad
	}
	k := WitnessKey{Name: parts[0], Key: raw[1:]}
	if fmt.Sprintf("%08x", k.id(raw[0])) != parts[1] {
		return WitnessKey{}, errors.New("the public key of the witness does not have the hash that it states")
	}
	return k, nil
}

func (k WitnessKey) id(alg byte) uint32 {
	h := sha256.New()
	h.Write([]byte(k.Name))
	h.Write([]byte{'\n', alg})
	h.Write(k.Key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// String is the key as cosignature/v1.
func (k WitnessKey) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.Name, k.id(algCosignature), base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, k.Key...)))
}

// Cosigned returns when the witness signed this head, by its clock; false when it
// did not.
func (h TreeHead) Cosigned(k WitnessKey) (time.Time, bool) {
	text := h.Text()
	_, signatures, _ := strings.Cut(string(h.Note), "\n\n")
	for line := range strings.SplitSeq(signatures, "\n") {
		name, sig, ok := strings.Cut(strings.TrimPrefix(line, "— "), " ")
		if !ok || name != k.Name {
			continue
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(sig)
		if err != nil || len(raw) != 4+8+ed25519.SignatureSize || binary.BigEndian.Uint32(raw) != k.id(algCosignature) {
			continue
		}
		at := binary.BigEndian.Uint64(raw[4:])
		signed := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text)
		if at < 1<<40 && ed25519.Verify(k.Key, signed, raw[12:]) {
			return time.Unix(int64(at), 0).UTC(), true
		}
	}
	return time.Time{}, false
}
