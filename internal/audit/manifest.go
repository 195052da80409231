package audit

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// ManifestSigner returns what signs manifests of evidence packs with the node's log
// key, which it reads from the state directory: root exports, whether an agent runs
// or not. It signs under the name that auditlog.PublicKey.ForEvidence gives, and no
// other text: what it signs passes neither for a checkpoint nor for a tree head.
func ManifestSigner(stateDir string) (auditlog.PublicKey, func(text []byte) ([]byte, error), error) {
	path := filepath.Join(stateDir, "keys", keyFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return auditlog.PublicKey{}, nil, fmt.Errorf("read the log's key: %w", err)
	}
	s, err := parseSigner(string(text))
	if err != nil {
		return auditlog.PublicKey{}, nil, fmt.Errorf("the audit log's key %s: %w", path, err)
	}
	return s.public, s.signManifest, nil
}

func (s *signer) signManifest(text []byte) ([]byte, error) {
	if name := s.public.ForEvidence().Name; !strings.HasPrefix(string(text), name+"\n") {
		return nil, fmt.Errorf("this is no manifest of %s", name)
	}
	return ed25519.Sign(s.private, text), nil
}
