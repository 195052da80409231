package anchor

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
)

// Stamper is a time-stamping authority (RFC 3161) over HTTP.
type Stamper struct {
	URL   string
	Roots *x509.CertPool // nil: those of the system
}

// stamp has the authority say that this existed now, and returns its answer.
func (s *Stamper) stamp(ctx context.Context, what []byte) ([]byte, error) {
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	query, err := timestamp.CreateRequest(bytes.NewReader(what), &timestamp.RequestOptions{Hash: crypto.SHA256, Certificates: true, Nonce: nonce})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/timestamp-query")
	resp, err := client().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers with status %d", resp.StatusCode)
	}
	stamp, err := timestamp.ParseResponse(answer)
	if err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	sum := sha256.Sum256(what)
	if stamp.HashAlgorithm != crypto.SHA256 || !bytes.Equal(stamp.HashedMessage, sum[:]) || stamp.Nonce == nil || stamp.Nonce.Cmp(nonce) != 0 {
		return nil, errors.New("its answer is about something else")
	}
	if err := s.trust(stamp); err != nil {
		return nil, fmt.Errorf("its signature: %w", err)
	}
	return answer, nil
}

// trust verifies the signature up to a root, for the use of time stamping.
func (s *Stamper) trust(stamp *timestamp.Timestamp) error {
	p7, err := pkcs7.Parse(stamp.RawToken)
	if err != nil {
		return err
	}
	signer := p7.GetOnlySigner()
	if signer == nil {
		return errors.New("it has not one signer")
	}
	if err := p7.Verify(); err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, c := range p7.Certificates {
		between.AddCert(c)
	}
	_, err = signer.Verify(x509.VerifyOptions{Roots: s.Roots, Intermediates: between, CurrentTime: stamp.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}})
	return err
}
