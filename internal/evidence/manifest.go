package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Names of members.
const (
	manifestFile    = "manifest.json"
	noteFile        = "manifest.note"
	eventsFile      = "events.jsonl"
	keyFile         = "keys/log.pub"
	rangeFile       = "log/range.json"
	headFile        = "log/checkpoint"
	headsFile       = "log/checkpoints.jsonl"
	contextFile     = "log/context.jsonl"
	maxManifest     = 4 << 20
	maxNote         = 4 << 10
	manifestVersion = 1
)

// Manifest says what a pack is and names every other byte of it.
type Manifest struct {
	Version int    `json:"weir_evidence"`
	Node    string `json:"node"`
	Origin  string `json:"origin"` // of the log: the name of its tree heads
	Period
	Framework string `json:"framework"`
	Sample    int    `json:"sample"`
	Seed      string `json:"seed"`

	ExportedAt time.Time `json:"exported_at"`
	// Made is the program that made it; the same program makes the same bytes.
	Made string `json:"made_by"`
	// Recorded says whether the export is in the log itself.
	Recorded string   `json:"recorded"`
	Unsealed Unsealed `json:"unsealed"`

	Events uint64 `json:"events"`
	// Size and Root are those of the tree head in log/checkpoint.
	Size uint64        `json:"checkpoint_size"`
	Root auditlog.Hash `json:"-"`

	Members []Member `json:"members"`
	// Before covers the bytes of the file in front of manifest.json.
	Before Before `json:"before"`
}

// Period is what a pack is about; To is not included.
type Period struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Member is a member of the pack.
type Member struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	About  string `json:"about,omitempty"`
}

// Before is a digest of the beginning of the file.
type Before struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Unsealed counts events of the period that were in the node's spool only when the
// pack was made. They are not in it.
type Unsealed struct {
	Events uint64 `json:"events"`
	First  uint64 `json:"first_seq,omitempty"`
	Last   uint64 `json:"last_seq,omitempty"`
	// Unknown says why they could not be counted.
	Unknown string `json:"unknown,omitempty"`
}

func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(m)
	return b.Bytes(), err
}

// parseManifest reads the one form of a manifest.
func parseManifest(b []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := strict(b, m); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", manifestFile, err)
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("%s is of version %d, and this weir knows %d: use the version that made it (%q)", manifestFile, m.Version, manifestVersion, m.Made)
	}
	again, err := m.encode()
	if err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%s does not have the form that it should", manifestFile)
	}
	return m, nil
}

// strict decodes one JSON value without unknown fields, and nothing behind it.
func strict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("something is behind its end")
	}
	return nil
}

// noteText is what is signed (C2SP signed-note.md):
//
//	NODE/weir-evidence
//	manifest.json sha256 HEX
func noteText(key auditlog.PublicKey, manifest []byte) []byte {
	return fmt.Appendf(nil, "%s\n%s sha256 %x\n", key.ForEvidence().Name, manifestFile, sha256.Sum256(manifest))
}

// sealManifest makes the note.
func sealManifest(key auditlog.PublicKey, sign func([]byte) ([]byte, error), manifest []byte) ([]byte, error) {
	text := noteText(key, manifest)
	sig, err := sign(text)
	if err != nil {
		return nil, fmt.Errorf("sign the manifest: %w", err)
	}
	return append(text, auditlog.FormatSignature(key.ForEvidence(), sig)...), nil
}

// checkNote verifies the note to the byte.
func checkNote(key auditlog.PublicKey, manifest, note []byte) error {
	text := noteText(key, manifest)
	key = key.ForEvidence()
	rest, ok := bytes.CutPrefix(note, text)
	if !ok {
		return fmt.Errorf("%s is not about this %s, or of another key than %s", noteFile, manifestFile, key.Name)
	}
	prefix := fmt.Appendf(nil, "\n— %s ", key.Name)
	sig, ok := bytes.CutPrefix(rest, prefix)
	raw, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimSuffix(sig, []byte{'\n'})))
	if !ok || err != nil || len(raw) != 4+ed25519.SignatureSize || binary.BigEndian.Uint32(raw) != key.ID() {
		return fmt.Errorf("%s is not signed with this key", noteFile)
	}
	if !bytes.Equal(rest, auditlog.FormatSignature(key, raw[4:])) || !ed25519.Verify(key.Key, text, raw[4:]) {
		return fmt.Errorf("the signature in %s is wrong", noteFile)
	}
	return nil
}

// Digest is how the node's evidence.export event names a manifest.
func Digest(manifest []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(manifest)) }

func hexOf(sum []byte) string { return hex.EncodeToString(sum) }
