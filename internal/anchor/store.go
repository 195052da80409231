package anchor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Store is a bucket with Object Lock in an S3-compatible store. What is in it,
// taken to a directory, is a state directory that `weir audit verify --dir` checks.
type Store struct {
	Endpoint string // URL
	Region   string
	Bucket   string
	Prefix   string         // before the names of all objects
	Retain   time.Duration  // how long an object is locked, mode COMPLIANCE
	Roots    *x509.CertPool // nil: those of the system
	// Keys are the credentials, asked for each time anew.
	Keys func(ctx context.Context) (accessKey, secretKey string, err error)
	// Secure says that Endpoint is reached by TLS; Host is its host and port.
	Secure bool
	Host   string
}

// uploaded is STATE_DIR/log/uploaded: how far the copy is. Lost, all is copied
// once more, as further versions of the same objects.
type uploaded struct {
	Bucket string `json:"bucket"`
	Prefix string `json:"prefix"`
	Host   string `json:"host"`
	Size   uint64 `json:"size"` // of the tree whose full tiles are copied
	Head   uint64 `json:"head"` // of the tree whose head and partial tiles are copied
}

func uploadedFile(stateDir string) string { return filepath.Join(stateDir, "log", "uploaded") }

// upload copies what is new: the full tiles and bundles, which never change, then
// the partial ones of the head at hand, and at last the head itself.
func (a *Anchor) upload(ctx context.Context, tiles *auditlog.Tiles) error {
	s := a.Store
	have := a.uploaded()
	head := tiles.Head()
	if have.Head == head.Size {
		return nil
	}
	accessKey, secretKey, err := s.Keys(ctx)
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: s.Roots, MinVersion: tls.VersionTLS12}
	defer transport.CloseIdleConnections()
	c, err := minio.New(s.Host, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Secure: s.Secure, Region: s.Region, Transport: transport})
	if err != nil {
		return err
	}
	up := uploader{c: c, Store: s, stateDir: a.StateDir, until: time.Now().Add(s.Retain)}
	if have.Size == 0 {
		if err := up.file(ctx, "keys/"+filepath.Base(auditlog.PublicKeyFile(a.StateDir))); err != nil {
			return err
		}
	}
	for n := have.Size / auditlog.TileWidth; (n+1)*auditlog.TileWidth <= head.Size; n++ {
		if err := up.full(ctx, tiles, n); err != nil {
			return err
		}
		have.Size = (n + 1) * auditlog.TileWidth
		if n%64 == 63 {
			if err := a.keepUploaded(have); err != nil {
				return err
			}
		}
	}
	if err := up.edge(ctx, tiles); err != nil {
		return err
	}
	have.Head = head.Size
	return a.keepUploaded(have)
}

func (a *Anchor) uploaded() uploaded {
	fresh := uploaded{Bucket: a.Store.Bucket, Prefix: a.Store.Prefix, Host: a.Store.Host}
	b, err := os.ReadFile(uploadedFile(a.StateDir))
	var have uploaded
	if err != nil || json.Unmarshal(b, &have) != nil || have.Bucket != fresh.Bucket || have.Prefix != fresh.Prefix || have.Host != fresh.Host {
		return fresh
	}
	return have
}

func (a *Anchor) keepUploaded(u uploaded) error {
	b, err := json.Marshal(u)
	if err == nil {
		err = os.WriteFile(uploadedFile(a.StateDir)+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(uploadedFile(a.StateDir)+".new", uploadedFile(a.StateDir))
	}
	if err != nil {
		return fmt.Errorf("keep how far the copy is: %w", err)
	}
	return nil
}

type uploader struct {
	*Store
	c        *minio.Client
	stateDir string
	until    time.Time
}

// full copies the bundle and the tiles that leaf (n+1)*256 completed, and its long
// events.
func (u *uploader) full(ctx context.Context, tiles *auditlog.Tiles, n uint64) error {
	files := append(tiles.LongFiles(n), auditlog.BundleFile(n, auditlog.TileWidth))
	for level, at := 0, n; ; level++ {
		files = append(files, auditlog.TileFile(level, at, auditlog.TileWidth))
		if (at+1)%auditlog.TileWidth != 0 {
			break
		}
		at /= auditlog.TileWidth
	}
	return u.tiles(ctx, files)
}

// edge copies the partial tiles of the head, and the head.
func (u *uploader) edge(ctx context.Context, tiles *auditlog.Tiles) error {
	size := tiles.Head().Size
	var files []string
	if w := int(size % auditlog.TileWidth); w != 0 {
		n := size / auditlog.TileWidth
		files = append(append(files, tiles.LongFiles(n)...), auditlog.BundleFile(n, w))
	}
	for level, n := 0, size; n > 0; level, n = level+1, n/auditlog.TileWidth {
		if w := int(n % auditlog.TileWidth); w != 0 {
			files = append(files, auditlog.TileFile(level, n/auditlog.TileWidth, w))
		}
	}
	for _, f := range files {
		err := u.file(ctx, "log/tiles/"+f)
		if errors.Is(err, fs.ErrNotExist) {
			return errGrown
		}
		if err != nil {
			return err
		}
	}
	// The head that was read, not the file, which may be a newer one by now.
	return u.put(ctx, path.Join("log/tiles", auditlog.CheckpointFile), tiles.Head().Note)
}

// errGrown says that a partial tile is gone since the head was read, in favour of
// the full one.
var errGrown = errors.New("the log has grown meanwhile")

// tiles copies files of the sealed log. What retention removed is not copied.
func (u *uploader) tiles(ctx context.Context, files []string) error {
	for _, f := range files {
		if err := u.file(ctx, "log/tiles/"+f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (u *uploader) file(ctx context.Context, name string) error {
	b, err := os.ReadFile(filepath.Join(u.stateDir, name))
	if err != nil {
		return err
	}
	return u.put(ctx, name, b)
}

func (u *uploader) put(ctx context.Context, name string, b []byte) error {
	_, err := u.c.PutObject(ctx, u.Bucket, path.Join(u.Prefix, name), bytes.NewReader(b), int64(len(b)),
		minio.PutObjectOptions{Mode: minio.Compliance, RetainUntilDate: u.until.UTC(), SendContentMd5: true})
	return err
}
