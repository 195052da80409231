package evidence

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"os"
	"strings"
)

// A pack is a zip file (PKWARE APPNOTE 6.3.10) of one form: local headers with all
// sizes, each right behind the member before it; the central directory; its end.
// There are no comments, extra fields, descriptors, flags and nothing between, so
// that the list of members and their packed bytes determine every other byte.
// Without zip64 a pack ends at 4 GiB.
const (
	localSignature   = 0x04034b50
	centralSignature = 0x02014b50
	endSignature     = 0x06054b50
	localSize        = 30
	centralSize      = 46
	endSize          = 22

	methodStore   = 0
	methodDeflate = 8
	zipVersion    = 20     // 2.0: deflate and folders
	zipUnix       = 3 << 8 // made by: the attributes are those of Unix
	zipMode       = 0o100644 << 16
	zipDate       = 1<<5 | 1 // 1980-01-01, the oldest there is; time 0

	// MaxPack is the length of the longest pack, and of its longest member, bytes.
	MaxPack = math.MaxUint32 - 1
	// maxMembers bounds the members of a pack.
	maxMembers = 4096
	maxName    = 120
)

// errTooLarge is for a period that does not fit.
var errTooLarge = errors.New("the pack would be larger than 4 GiB; export shorter periods, one pack each")

// entry is a member as the zip file's own structures describe it.
type entry struct {
	name   string
	method uint16
	crc    uint32
	packed uint32 // bytes in the file
	size   uint32 // bytes
	offset uint32 // of its local header
}

func (e *entry) data() int64 { return int64(e.offset) + localSize + int64(len(e.name)) }
func (e *entry) end() int64  { return e.data() + int64(e.packed) }

// fields are those that both headers have.
func (e *entry) fields(b []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, zipVersion)
	b = binary.LittleEndian.AppendUint16(b, 0) // flags
	b = binary.LittleEndian.AppendUint16(b, e.method)
	b = binary.LittleEndian.AppendUint16(b, 0) // time
	b = binary.LittleEndian.AppendUint16(b, zipDate)
	b = binary.LittleEndian.AppendUint32(b, e.crc)
	b = binary.LittleEndian.AppendUint32(b, e.packed)
	b = binary.LittleEndian.AppendUint32(b, e.size)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.name)))
	return binary.LittleEndian.AppendUint16(b, 0) // extra
}

func (e *entry) local() []byte {
	return append(e.fields(binary.LittleEndian.AppendUint32(nil, localSignature)), e.name...)
}

func (e *entry) central() []byte {
	b := binary.LittleEndian.AppendUint32(nil, centralSignature)
	b = e.fields(binary.LittleEndian.AppendUint16(b, zipVersion|zipUnix))
	b = binary.LittleEndian.AppendUint16(b, 0) // comment
	b = binary.LittleEndian.AppendUint16(b, 0) // disk
	b = binary.LittleEndian.AppendUint16(b, 0) // internal attributes
	b = binary.LittleEndian.AppendUint32(b, zipMode)
	b = binary.LittleEndian.AppendUint32(b, e.offset)
	return append(b, e.name...)
}

// ending is the central directory and its end, which begin at an offset.
func ending(list []entry, at uint32) []byte {
	var b []byte
	for i := range list {
		b = append(b, list[i].central()...)
	}
	size := uint32(len(b))
	b = binary.LittleEndian.AppendUint32(b, endSignature)
	b = binary.LittleEndian.AppendUint32(b, 0) // disks
	b = binary.LittleEndian.AppendUint16(b, uint16(len(list)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(list)))
	b = binary.LittleEndian.AppendUint32(b, size)
	b = binary.LittleEndian.AppendUint32(b, at)
	return binary.LittleEndian.AppendUint16(b, 0) // comment
}

// validName reports whether a member may have that name: lower-case letters,
// digits and "._-", in folders; no part begins with a dot.
func validName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || part[0] == '-' {
			return false
		}
		for _, c := range []byte(part) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
				return false
			}
		}
	}
	return true
}

// packer writes the zip file; what it writes it hashes.
type packer struct {
	w    io.Writer
	sum  hash.Hash
	at   int64
	list []entry
}

func newPacker(w io.Writer) *packer { return &packer{w: w, sum: sha256.New()} }

func (p *packer) write(b []byte) error {
	p.sum.Write(b)
	n, err := p.w.Write(b)
	p.at += int64(n)
	return err
}

// add adds a member out of its packed bytes.
func (p *packer) add(e entry, packed io.Reader) error {
	if !validName(e.name) {
		return fmt.Errorf("%q cannot be the name of a member", e.name)
	}
	if p.at+localSize+int64(len(e.name))+int64(e.packed) > MaxPack || len(p.list) == maxMembers {
		return errTooLarge
	}
	e.offset = uint32(p.at)
	if err := p.write(e.local()); err != nil {
		return err
	}
	n, err := io.Copy(io.MultiWriter(p.w, p.sum), packed)
	p.at += n
	if err == nil && n != int64(e.packed) {
		err = fmt.Errorf("%s has %d packed bytes, not %d", e.name, n, e.packed)
	}
	p.list = append(p.list, e)
	return err
}

// store adds a member that is not packed.
func (p *packer) store(name string, b []byte) error {
	return p.add(entry{name: name, method: methodStore, crc: crc32.ChecksumIEEE(b), packed: uint32(len(b)), size: uint32(len(b))}, bytes.NewReader(b))
}

func (p *packer) close() error {
	b := ending(p.list, uint32(p.at))
	if p.at+int64(len(b)) > MaxPack {
		return errTooLarge
	}
	return p.write(b)
}

// archive is a pack whose structure has been checked.
type archive struct {
	r    io.ReaderAt
	size int64
	list []entry
	by   map[string]*entry
}

// openArchive checks that a file is a pack to the last byte of its structure. What
// the members hold is not looked at.
func openArchive(r io.ReaderAt, size int64) (*archive, error) {
	if size < endSize || size > MaxPack {
		return nil, fmt.Errorf("a file of %d bytes is no evidence pack", size)
	}
	var end [endSize]byte
	if _, err := r.ReadAt(end[:], size-endSize); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint32(end[:]) != endSignature {
		return nil, errors.New("the file does not end like an evidence pack: it is cut off, or something is behind its end")
	}
	count, length, at := int(le.Uint16(end[10:])), int64(le.Uint32(end[12:])), int64(le.Uint32(end[16:]))
	if count == 0 || count > maxMembers || at+length+endSize != size || length > maxMembers*(centralSize+maxName) {
		return nil, errors.New("the zip file's directory is not where it should be")
	}
	directory := make([]byte, length)
	if _, err := r.ReadAt(directory, at); err != nil {
		return nil, err
	}
	a := &archive{r: r, size: size, by: make(map[string]*entry, count), list: make([]entry, 0, count)}
	next := int64(0)
	for rest := directory; len(rest) > 0; {
		if len(rest) < centralSize || len(a.list) == count {
			return nil, errors.New("the zip file's directory is malformed")
		}
		n := int(le.Uint16(rest[28:]))
		if n > maxName || len(rest) < centralSize+n {
			return nil, errors.New("the zip file's directory is malformed")
		}
		e := entry{name: string(rest[centralSize : centralSize+n]), method: le.Uint16(rest[10:]), crc: le.Uint32(rest[16:]),
			packed: le.Uint32(rest[20:]), size: le.Uint32(rest[24:]), offset: le.Uint32(rest[42:])}
		switch {
		case !validName(e.name):
			return nil, fmt.Errorf("the zip file has a member with the forbidden name %q", e.name)
		case a.by[e.name] != nil:
			return nil, fmt.Errorf("the zip file has two members with the name %s", e.name)
		case e.method != methodStore && e.method != methodDeflate, e.method == methodStore && e.packed != e.size:
			return nil, fmt.Errorf("%s is packed in a way that packs do not use", e.name)
		case int64(e.offset) != next || e.end() > at:
			return nil, fmt.Errorf("%s is not right behind the member before it", e.name)
		}
		rest, next = rest[centralSize+n:], e.end()
		local := make([]byte, localSize+n)
		if _, err := r.ReadAt(local, int64(e.offset)); err != nil {
			return nil, err
		}
		if !bytes.Equal(local, e.local()) {
			return nil, fmt.Errorf("the zip file says two things about %s", e.name)
		}
		a.list = append(a.list, e)
		a.by[e.name] = &a.list[len(a.list)-1]
	}
	if next != at || !bytes.Equal(append(directory, end[:]...), ending(a.list, uint32(at))) {
		return nil, errors.New("the zip file holds more than its members: bytes between them, comments, extra fields or flags")
	}
	return a, nil
}

// open reads a member. Reading to the end checks its length and CRC-32.
func (a *archive) open(name string) (io.ReadCloser, error) {
	e := a.by[name]
	if e == nil {
		return nil, fmt.Errorf("the pack has no %s", name)
	}
	return openPacked(io.NewSectionReader(a.r, e.data(), int64(e.packed)), e), nil
}

// openPacked reads the member that e describes out of its packed bytes.
func openPacked(packed io.Reader, e *entry) io.ReadCloser {
	m := &memberReader{e: e, left: int64(e.size), packed: &countReader{r: packed}, sum: crc32.NewIEEE()}
	m.r = io.NopCloser(m.packed)
	if e.method == methodDeflate {
		m.r = flate.NewReader(m.packed)
	}
	return m
}

// countReader is an io.ByteReader, so that flate reads no further than it needs.
type countReader struct {
	r   io.Reader
	n   int64
	buf [32 << 10]byte
	b   []byte
}

func (c *countReader) fill() error {
	if len(c.b) > 0 {
		return nil
	}
	n, err := c.r.Read(c.buf[:])
	c.b = c.buf[:n]
	if n > 0 {
		return nil
	}
	return err
}

func (c *countReader) Read(p []byte) (int, error) {
	if err := c.fill(); err != nil {
		return 0, err
	}
	n := copy(p, c.b)
	c.b = c.b[n:]
	c.n += int64(n)
	return n, nil
}

func (c *countReader) ReadByte() (byte, error) {
	if err := c.fill(); err != nil {
		return 0, err
	}
	b := c.b[0]
	c.b = c.b[1:]
	c.n++
	return b, nil
}

type memberReader struct {
	e      *entry
	r      io.ReadCloser
	packed *countReader
	left   int64
	sum    hash.Hash32
	done   bool
}

func (m *memberReader) Read(p []byte) (int, error) {
	if m.done {
		return 0, io.EOF
	}
	if int64(len(p)) > m.left+1 {
		p = p[:m.left+1] // one more than it may have
	}
	n, err := m.r.Read(p)
	m.sum.Write(p[:n])
	if m.left -= int64(n); m.left < 0 {
		return 0, fmt.Errorf("%s is longer than the zip file says", m.e.name)
	}
	switch {
	case err == io.EOF && m.left > 0, errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%s is shorter than the zip file says", m.e.name)
	case err == io.EOF && (m.packed.n != int64(m.e.packed) || m.sum.Sum32() != m.e.crc):
		return n, fmt.Errorf("%s is damaged", m.e.name)
	case err != nil && err != io.EOF:
		return n, fmt.Errorf("%s is damaged: %w", m.e.name, err)
	}
	m.done = err == io.EOF
	return n, err
}

func (m *memberReader) Close() error { return m.r.Close() }

// member is one that is being made: packed into a file of its own.
type member struct {
	name  string
	about string
	file  *os.File
	pack  *flate.Writer
	sum   hash.Hash
	crc   hash.Hash32
	size  int64
}

// newMember makes a member in dir; remove takes the file away.
func newMember(dir, name, about string) (*member, error) {
	f, err := os.CreateTemp(dir, "member-*")
	if err != nil {
		return nil, err
	}
	w, err := flate.NewWriter(f, flate.DefaultCompression)
	return &member{name: name, about: about, file: f, pack: w, sum: sha256.New(), crc: crc32.NewIEEE()}, err
}

func (m *member) Write(b []byte) (int, error) {
	if m.size += int64(len(b)); m.size > MaxPack {
		return 0, errTooLarge
	}
	m.sum.Write(b)
	m.crc.Write(b)
	return m.pack.Write(b)
}

// finish ends the writing.
func (m *member) finish() (entry, error) {
	if err := m.pack.Close(); err != nil {
		return entry{}, err
	}
	n, err := m.file.Seek(0, io.SeekEnd)
	if err == nil && n > MaxPack {
		err = errTooLarge
	}
	return entry{name: m.name, method: methodDeflate, crc: m.crc.Sum32(), packed: uint32(n), size: uint32(m.size)}, err
}
