package credential

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// ageIdentityEnv names the identity file when the configuration names none.
const ageIdentityEnv = "WEIR_AGE_IDENTITY"

var errEmpty = errors.New("the secret is empty")

func (s *Store) fromEnv(name string) (Secret, error) {
	v, ok := s.Getenv(name)
	if !ok {
		return Secret{}, fmt.Errorf("env:%s: the agent's environment has no such variable; set it where the agent is started", name)
	}
	if v == "" {
		return Secret{}, fmt.Errorf("env:%s: %w", name, errEmpty)
	}
	return Secret{[]byte(v)}, nil
}

func (s *Store) fromFile(path string) (Secret, error) {
	b, err := s.readFile(path)
	if err != nil {
		return Secret{}, fmt.Errorf("file:%s: %w", path, err)
	}
	return Secret{trim(b)}, nil
}

// readFile reads a secret's file and complains once about one that others may
// read.
func (s *Store) readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, reasonOf(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, reasonOf(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	s.warnMode(path, info.Mode().Perm())
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return nil, reasonOf(err)
	case len(b) > maxSecret:
		return nil, fmt.Errorf("longer than %d bytes", maxSecret)
	case len(trim(b)) == 0:
		return nil, errEmpty
	}
	return b, nil
}

func (s *Store) warnMode(path string, mode fs.FileMode) {
	if mode&0o044 == 0 {
		return
	}
	s.mu.Lock()
	seen := s.warned[path]
	s.warned[path] = true
	s.mu.Unlock()
	if !seen {
		s.Log.Warn("others on this machine may read a secret's file: chmod 600 it", "file", path, "mode", mode.String())
	}
}

// reasonOf leaves the path out of a file error: the caller names it.
func reasonOf(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (s *Store) fromAge(path string) (Secret, error) {
	ids, err := s.ageIdentities()
	if err != nil {
		return Secret{}, fmt.Errorf("age:%s: %w", path, err)
	}
	b, err := s.readAge(path, ids)
	if err != nil {
		return Secret{}, fmt.Errorf("age:%s: %w", path, err)
	}
	return Secret{b}, nil
}

func (s *Store) readAge(path string, ids []age.Identity) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, reasonOf(err)
	}
	defer f.Close()
	buf := bufio.NewReader(f)
	var in io.Reader = buf
	if start, _ := buf.Peek(len(armor.Header)); bytes.Equal(start, []byte(armor.Header)) {
		in = armor.NewReader(buf)
	}
	plain, err := age.Decrypt(in, ids...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return nil, errors.New("not encrypted to any of the agent's age identities")
		}
		return nil, errors.New("not a readable age file")
	}
	b, err := io.ReadAll(io.LimitReader(plain, maxSecret+1))
	switch {
	case err != nil:
		return nil, errors.New("the age file is damaged")
	case len(b) > maxSecret:
		return nil, fmt.Errorf("longer than %d bytes", maxSecret)
	case len(trim(b)) == 0:
		return nil, errEmpty
	}
	return trim(b), nil
}

func (s *Store) ageIdentities() ([]age.Identity, error) {
	files := s.AgeIdentities
	if len(files) == 0 {
		if f, ok := s.Getenv(ageIdentityEnv); ok && f != "" {
			files = []string{f}
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no age identity: name its file in %s", ageIdentityEnv)
	}
	var all []age.Identity
	for _, f := range files {
		b, err := s.readFile(f)
		if err != nil {
			return nil, fmt.Errorf("identity file %s: %w", f, err)
		}
		ids, err := age.ParseIdentities(bytes.NewReader(b))
		clear(b)
		if err != nil {
			// age quotes the line, which may be the key.
			return nil, fmt.Errorf("identity file %s: not a file of age identities (age-keygen makes one)", f)
		}
		all = append(all, ids...)
	}
	return all, nil
}

// execWait is how long a killed command's output may still be open, held by
// children that escaped its process group.
const execWait = time.Second

// fromExec runs a command as the agent does, with an environment of PATH, HOME
// and LANG only. Its standard error is thrown away: it may hold the secret.
func (s *Store) fromExec(ctx context.Context, line string) (Secret, error) {
	args, err := splitCommand(line)
	if err != nil {
		return Secret{}, fmt.Errorf("exec: %w", err)
	}
	name := args[0]
	cmd := exec.CommandContext(ctx, name, args[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	if home, ok := s.Getenv("HOME"); ok {
		cmd.Env = append(cmd.Env, "HOME="+home)
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = execWait
	out := &bounded{left: maxSecret}
	cmd.Stdout = out
	err = cmd.Run()
	b := out.buf.Bytes()
	if err == nil && !out.over && len(trim(b)) > 0 {
		return Secret{trim(b)}, nil
	}
	clear(b)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Secret{}, fmt.Errorf("exec: %s did not finish within %s", name, fetchTimeout)
	case out.over:
		return Secret{}, fmt.Errorf("exec: %s printed more than %d bytes", name, maxSecret)
	case errors.As(err, &exit):
		return Secret{}, fmt.Errorf("exec: %s failed (%s); run it by hand as the agent's user to see why", name, exit.ProcessState)
	case err != nil:
		return Secret{}, fmt.Errorf("exec: %s could not be run: %w", name, execReason(err))
	}
	return Secret{}, fmt.Errorf("exec: %s: %w", name, errEmpty)
}

func execReason(err error) error {
	var e *exec.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return reasonOf(err)
}

// bounded keeps the first bytes of an output and notes that there were more. It
// fails then, so that the command gets SIGPIPE instead of running on.
type bounded struct {
	buf  bytes.Buffer
	left int
	over bool
}

func (w *bounded) Write(b []byte) (int, error) {
	if len(b) > w.left {
		w.over = true
		return 0, errors.New("too long")
	}
	w.left -= len(b)
	return w.buf.Write(b)
}

// splitCommand splits a command line into words as sh does with quotes and
// backslashes, without any expansion.
func splitCommand(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a single quote is not closed")
			}
			word.WriteString(line[i+1 : i+1+end])
			i += end + 1
			inWord = true
		case '"':
			n, err := doubleQuoted(line[i+1:], &word)
			if err != nil {
				return nil, err
			}
			i += n
			inWord = true
		case '\\':
			if i+1 == len(line) {
				return nil, errors.New("nothing follows the last backslash")
			}
			i++
			word.WriteByte(line[i])
			inWord = true
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("no command is named")
	}
	return words, nil
}

// doubleQuoted reads up to the closing quote and returns how many bytes it took,
// the quote included. A backslash escapes only what it does in sh.
func doubleQuoted(s string, word *strings.Builder) (int, error) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return i + 1, nil
		case s[i] == '\\' && i+1 < len(s) && strings.IndexByte("\"\\$`", s[i+1]) >= 0:
			i++
			word.WriteByte(s[i])
		default:
			word.WriteByte(s[i])
		}
	}
	return 0, errors.New("a double quote is not closed")
}
