package postgres

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificateLife is how long throw-away certificates are valid; they start an
// hour ago for clocks that are off.
const certificateLife = 7 * 24 * time.Hour

// makeTLS makes an authority and a server certificate and adds the settings.
func (s *Server) makeTLS(settings map[string]string) error {
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weir test database authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    append([]string{"localhost"}, s.config.ServerNames...),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, a := range s.config.Listen {
		leaf.IPAddresses = append(leaf.IPAddresses, a.AsSlice())
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return s.writeTLS(settings, caDER, der, keyDER)
}

func (s *Server) writeTLS(settings map[string]string, ca, cert, key []byte) error {
	s.CAFile = filepath.Join(s.config.Dir, "ca.crt")
	certFile, keyFile := filepath.Join(s.DataDir, "server.crt"), filepath.Join(s.DataDir, "server.key")
	for _, f := range []struct {
		path, kind string
		der        []byte
		mode       os.FileMode
	}{
		{s.CAFile, "CERTIFICATE", ca, 0o644},
		{certFile, "CERTIFICATE", cert, 0o644},
		{keyFile, "PRIVATE KEY", key, 0o600},
	} {
		block := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		if err := os.WriteFile(f.path, block, f.mode); err != nil {
			return err
		}
	}
	if err := s.account.own(keyFile); err != nil {
		return err
	}
	if err := s.account.own(certFile); err != nil {
		return err
	}
	settings["ssl"] = "on"
	settings["ssl_cert_file"], settings["ssl_key_file"] = certFile, keyFile
	return nil
}
