package mask

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
)

// KeySize is the length of the secret that a Key is made of, bytes.
const KeySize = 64

const (
	tokenPrefix = "tok_"
	hashBytes   = 16
)

// tokenContext is the associated data of every token: tokens of one key mean the
// same in every column, so that joins work.
var tokenContext = []byte("weir mask token v1")

// Key makes hashes and tokens. It is safe for concurrent use.
type Key struct {
	macs sync.Pool // of hash.Hash, keyed
	siv  *subtle.AESSIV
}

// NewKey derives the keys of both methods from a secret of KeySize random bytes
// (HKDF-SHA-256, RFC 5869). It does not keep the secret.
func NewKey(secret []byte) (*Key, error) {
	if len(secret) != KeySize {
		return nil, fmt.Errorf("masking key: %d bytes, want %d random ones", len(secret), KeySize)
	}
	mac, err := hkdf.Key(sha256.New, secret, nil, "weir mask hash v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("masking key: %w", err)
	}
	enc, err := hkdf.Key(sha256.New, secret, nil, string(tokenContext), subtle.AESSIVKeySize)
	if err != nil {
		return nil, fmt.Errorf("masking key: %w", err)
	}
	siv, err := subtle.NewAESSIV(enc)
	if err != nil {
		return nil, fmt.Errorf("masking key: %w", err)
	}
	k := &Key{siv: siv}
	k.macs.New = func() any { return hmac.New(sha256.New, mac) }
	return k, nil
}

func (k *Key) appendHash(dst, v []byte) []byte {
	h := k.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(v)
	var sum [sha256.Size]byte
	dst = hex.AppendEncode(dst, h.Sum(sum[:0])[:hashBytes])
	k.macs.Put(h)
	return dst
}

func (k *Key) appendToken(dst, v []byte) []byte {
	ct, err := k.siv.EncryptDeterministically(v, tokenContext)
	if err != nil { // only for a value too long to encrypt
		return append(dst, Redacted...)
	}
	return base64.RawURLEncoding.AppendEncode(append(dst, tokenPrefix...), ct)
}

// Reveal undoes a token. It fails on anything that this key did not make.
func (k *Key) Reveal(token string) ([]byte, error) {
	text, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok {
		return nil, errors.New("this is no token: it does not start with " + tokenPrefix)
	}
	ct, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		var v []byte
		if v, err = k.siv.DecryptDeterministically(ct, tokenContext); err == nil {
			return v, nil
		}
	}
	return nil, errors.New("this token was not made with this key, or it is damaged")
}
