package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// TLS says how a connection to a backend is protected.
type TLS struct {
	// Mode is disable, prefer, require or verify-full. Empty: verify-full when
	// there is a CAFile, else prefer.
	Mode string
	// CAFile holds the PEM certificates that a server's certificate must chain to.
	// When it is set, the chain is checked in every mode that uses TLS (as
	// libpq's require does with a root file); verify-full checks the name too.
	// verify-full without it trusts the system's CAs.
	CAFile string
	// ServerName is the name that the certificate must carry and that is sent as
	// SNI. Empty: the host of the backend's Dial, else any of its Names, else the
	// address.
	ServerName string
}

// Modes of TLS.
const (
	Disable    = "disable"
	Prefer     = "prefer"
	Require    = "require"
	VerifyFull = "verify-full"
)

type tlsPolicy struct {
	mode       string
	roots      *x509.CertPool // nil: the system's, if anything is verified
	checkChain bool
	checkName  bool
	serverName string
}

func newTLSPolicy(b Backend) (tlsPolicy, error) {
	p := tlsPolicy{mode: b.TLS.Mode, serverName: b.TLS.ServerName}
	if p.mode == "" {
		p.mode = Prefer
		if b.TLS.CAFile != "" {
			p.mode = VerifyFull
		}
	}
	switch p.mode {
	case Disable, Prefer, Require, VerifyFull:
	default:
		return p, fmt.Errorf("tls mode %q is none of disable, prefer, require, verify-full", p.mode)
	}
	p.checkName = p.mode == VerifyFull
	p.checkChain = p.checkName || b.TLS.CAFile != ""
	if b.TLS.CAFile == "" || p.mode == Disable {
		return p, nil
	}
	pem, err := os.ReadFile(b.TLS.CAFile)
	if err != nil {
		return p, fmt.Errorf("tls ca_file: %w", err)
	}
	p.roots = x509.NewCertPool()
	if !p.roots.AppendCertsFromPEM(pem) {
		return p, fmt.Errorf("tls ca_file %s holds no PEM certificate", b.TLS.CAFile)
	}
	return p, nil
}

// config is the client's side of a handshake on c.
func (b *backend) tlsConfig(c net.Conn, alpn string) *tls.Config {
	names := b.serverNames(c)
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{alpn},
		// VerifyConnection below does what the mode asks for.
		InsecureSkipVerify: true,
	}
	for _, n := range names {
		if _, err := netip.ParseAddr(n); err != nil { // an address is no SNI (RFC 6066, 3)
			conf.ServerName = n
			break
		}
	}
	if b.tls.checkChain {
		conf.VerifyConnection = func(s tls.ConnectionState) error { return b.tls.verify(s.PeerCertificates, names) }
	}
	return conf
}

// verify checks the chain and, in verify-full, that the certificate carries one
// of the names. The chain is built once for all of them.
func (p *tlsPolicy) verify(certs []*x509.Certificate, names []string) error {
	if len(certs) == 0 {
		return errors.New("the server sent no certificate")
	}
	opts := x509.VerifyOptions{Roots: p.roots, Intermediates: x509.NewCertPool()}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := certs[0].Verify(opts); err != nil {
		return err
	}
	if !p.checkName {
		return nil
	}
	var last error = errors.New("no name to check the certificate against: set tls server_name")
	for _, n := range names {
		if last = certs[0].VerifyHostname(n); last == nil {
			return nil
		}
	}
	return last
}

// handshake runs TLS on c within ctx.
func (d *Dialer) handshake(ctx context.Context, b *backend, f *flow.Flow, c net.Conn, alpn string) (net.Conn, error) {
	t := tls.Client(c, b.tlsConfig(c, alpn))
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, d.fail(f, tlsFailed(b, err))
	}
	return t, nil
}

func tlsFailed(b *backend, err error) *Error {
	return &Error{Kind: TLSFailed, cause: err,
		text: fmt.Sprintf("no TLS to backend %q: %s; tell whoever keeps weir's configuration", b.name, tlsReason(err))}
}

func tlsReason(err error) string {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &authority):
		return "its certificate comes from an authority that is not trusted"
	case errors.As(err, &host):
		return "its certificate is for another name"
	case errors.As(err, &invalid):
		if invalid.Reason == x509.Expired {
			return "its certificate has expired or is not valid yet"
		}
		return "its certificate is not valid"
	case errors.Is(err, errNoTLS):
		return err.Error()
	}
	return "the handshake failed"
}

var errNoTLS = errors.New("the server does not offer it and the backend's tls mode wants it")

// deadline puts ctx's deadline and cancellation on c until the returned function
// is called, which clears both.
func deadline(ctx context.Context, c net.Conn) (release func()) {
	if t, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(t)
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(fired); _ = c.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if !stop() {
			<-fired // else its deadline could come after ours is cleared
		}
		_ = c.SetDeadline(time.Time{})
	}
}
