package pglog

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Formats of the log: log_destination.
const (
	CSV    = "csvlog"
	JSON   = "jsonlog"
	Stderr = "stderr"
)

// Source is the server's log: its files in the order in which they were written.
type Source struct {
	Files  []string
	Format string // "": by the names, .csv and .json
	// Zone is log_timezone; nil: the log says UTC or an offset.
	Zone *time.Location
	// Prefix is log_line_prefix, for Stderr.
	Prefix string

	index  int
	file   *os.File
	parse  func([]byte) (line, bool)
	lines  records
	counts Counts
}

// Counts is what a Source has read.
type Counts struct {
	Lines      uint64 `json:"lines"`
	Statements uint64 `json:"statements"`
	// Foreign lines do not begin with the prefix: other programs write to stderr too.
	Foreign    uint64 `json:"foreign,omitempty"`
	Unreadable uint64 `json:"unreadable"`                 // records that could not be read
	Unfinished int    `json:"unfinished_bytes,omitempty"` // of a line at the end: a write under way
	// FirstUnreadable says where the first of them is, and why.
	FirstUnreadable string `json:"first_unreadable,omitempty"`
}

// Counts is what was read so far.
func (s *Source) Counts() Counts { return s.counts }

// Close closes the file that is open.
func (s *Source) Close() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// Next returns the next statement; io.EOF at the end of the last file.
func (s *Source) Next() (*Entry, error) {
	for {
		if s.file == nil {
			if s.index == len(s.Files) {
				return nil, io.EOF
			}
			if err := s.open(); err != nil {
				return nil, err
			}
		}
		rec, err := s.lines.read()
		switch {
		case err == io.EOF:
			s.Close()
			s.index++
			continue
		case errors.Is(err, errTooLong):
			s.unreadable(err.Error())
			continue
		case err != nil:
			return nil, fmt.Errorf("read the server's log: %w", err)
		}
		if len(rec) == 0 {
			continue
		}
		s.counts.Lines++
		l, ok := s.parse(rec)
		if !ok && s.lines.tabbed {
			s.counts.Foreign++
			continue
		}
		if !ok && s.index == len(s.Files)-1 && s.lines.unfinished && bytes.IndexByte(rec, '\n') < 0 {
			s.counts.Unfinished = len(rec) // the server is writing it
			continue
		}
		if !ok {
			s.unreadable("it is not of the form that was expected: " + strconv.Quote(string(rec[:min(len(rec), 80)])))
			continue
		}
		if l.statement() {
			s.counts.Statements++
			e := l.Entry
			e.Text = strings.ToValidUTF8(e.Text, "\uFFFD")
			return &e, nil
		}
	}
}

func (s *Source) unreadable(why string) {
	if s.counts.Unreadable++; s.counts.FirstUnreadable == "" {
		s.counts.FirstUnreadable = fmt.Sprintf("%s, record %d: %s", s.Files[s.index], s.counts.Lines, why)
	}
}

func (s *Source) open() error {
	name := s.Files[s.index]
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	s.lines = records{r: bufio.NewReaderSize(f, 256<<10)}
	format := s.Format
	if format == "" {
		switch filepath.Ext(name) {
		case ".csv":
			format = CSV
		case ".json":
			format = JSON
		default:
			format = Stderr
		}
	}
	c := clock{s.Zone}
	switch format {
	case CSV:
		s.lines.quoted, s.parse = true, c.csv
	case JSON:
		s.parse = c.json
	case Stderr:
		p, err := newPrefix(s.Prefix, c)
		if err != nil {
			f.Close()
			return err
		}
		s.lines.tabbed, s.parse = true, p.line
	default:
		f.Close()
		return fmt.Errorf("%q is no format of PostgreSQL's log: csvlog, jsonlog or stderr", format)
	}
	s.file = f
	return nil
}

// Columns of csvlog (PostgreSQL manual, 20.8.4). Later versions append to them.
const (
	csvTime = iota
	csvUser
	csvDatabase
	csvPID
	csvFrom
	csvSession
	csvLine
	csvTag
	csvStarted
	csvVXID
	csvXID
	csvSeverity
	csvState
	csvMessage
	csvApplication = 22
)

func (c clock) csv(rec []byte) (l line, ok bool) {
	r := csv.NewReader(bytes.NewReader(rec))
	r.FieldsPerRecord = -1
	f, err := r.Read()
	if err != nil || len(f) <= csvApplication {
		return l, false
	}
	pid, err := strconv.ParseUint(f[csvPID], 10, 32)
	if err != nil {
		return l, false
	}
	if l.Time, ok = c.read(f[csvTime]); !ok {
		return l, false
	}
	l.Started, _ = c.read(f[csvStarted])
	l.PID, l.User, l.Database, l.Application = uint32(pid), f[csvUser], f[csvDatabase], f[csvApplication]
	l.severity, l.message = f[csvSeverity], f[csvMessage]
	l.setClient(f[csvFrom])
	return l, true
}

// json reads a line of jsonlog (PostgreSQL manual, 20.8.5).
func (c clock) json(rec []byte) (l line, ok bool) {
	var j struct {
		Timestamp   string `json:"timestamp"`
		User        string `json:"user"`
		Database    string `json:"dbname"`
		PID         uint32 `json:"pid"`
		Host        string `json:"remote_host"`
		Port        int    `json:"remote_port"`
		Started     string `json:"session_start"`
		Severity    string `json:"error_severity"`
		Message     string `json:"message"`
		Application string `json:"application_name"`
	}
	if json.Unmarshal(rec, &j) != nil {
		return l, false
	}
	if l.Time, ok = c.read(j.Timestamp); !ok {
		return l, false
	}
	l.Started, _ = c.read(j.Started)
	l.PID, l.User, l.Database, l.Application, l.Client = j.PID, j.User, j.Database, j.Application, j.Host
	if j.Port > 0 {
		l.Port = strconv.Itoa(j.Port)
	}
	l.severity, l.message = j.Severity, j.Message
	return l, true
}
