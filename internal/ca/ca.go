// Package ca is Weir's certificate authority: it owns the authority's key and
// the leaf certificates with which Weir ends its clients' TLS, and puts the
// authority's certificate into the system's trust store.
//
// Leaf keys live in memory only. The authority's key must never leave its file,
// and no leaf is ever made that could sign others.
package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Validity of what is made. Clocks of clients that are off by up to skew are
// forgiven.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 24 * time.Hour
	skew          = time.Hour
)

// Names of the files in Config.Dir.
const (
	KeyFile  = "ca.key" // PKCS #8, PEM, mode 0600
	CertFile = "ca.crt" // X.509, PEM
)

// Config is what a CA is made of.
type Config struct {
	Dir  string // keys/ of the state directory; made with mode 0700 when missing
	Node string
	Now  func() time.Time // default: time.Now
}

// CA makes leaf certificates. It is safe for concurrent use.
type CA struct {
	now    func() time.Time
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	bundle []byte
	leaves leaves
}

// Open loads the authority, and makes it when there is none. A start that was
// interrupted in between is completed by the next one.
func Open(c Config) (*CA, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("weir's CA: %w", err)
	}
	keyFile, certFile := filepath.Join(c.Dir, KeyFile), filepath.Join(c.Dir, CertFile)
	key, err := loadKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(certFile); err == nil {
			return nil, fmt.Errorf("weir's CA: %s is there without its key: put %s back, or remove the certificate to make a new authority (clients must then trust it anew)", certFile, keyFile)
		}
		key, err = makeKey(keyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("weir's CA: %w", err)
	}
	bundle, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		bundle, err = makeAuthority(certFile, key, c.Node, c.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("weir's CA: %w", err)
	}
	cert, err := parseAuthority(bundle, key)
	if err != nil {
		return nil, fmt.Errorf("weir's CA: %s: %w", certFile, err)
	}
	return &CA{now: c.Now, key: key, cert: cert, bundle: bundle, leaves: newLeaves()}, nil
}

// Bundle is the authority's certificate, PEM: what clients must trust.
func (c *CA) Bundle() []byte { return bytes.Clone(c.bundle) }

// Expires is when the authority's certificate ends.
func (c *CA) Expires() time.Time { return c.cert.NotAfter }

func loadKey(file string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM file", file)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s holds no PKCS #8 key", file)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s holds no P-256 key", file)
	}
	return key, nil
}

func makeKey(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(block)
	return key, writeFile(file, block, 0o600)
}

func makeAuthority(file string, key *ecdsa.PrivateKey, node string, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Weir CA " + node, Organization: []string{"Weir"}},
		NotBefore:    now.Add(-skew), NotAfter: now.Add(authorityLife),
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return bundle, writeFile(file, bundle, 0o644)
}

func parseAuthority(bundle []byte, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	block, _ := pem.Decode(bundle)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the certificate belongs to another key; put the right one back, or remove it to have it made anew")
	}
	return cert, nil
}

// newSerial is 128 random bits (CA/Browser Forum baseline: at least 64).
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
}

// writeFile makes the file whole and durable or not at all, and never replaces
// one: two agents that start at once must not end with different authorities.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = f.Chmod(mode)
	if err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
