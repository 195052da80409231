package bypass

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// roleVar makes the test binary a helper that connects as somebody and hands the
// connections over: the attack itself then runs in the test.
const roleVar = "WEIR_BYPASS_HELPER"

// dialer is a process under `weir exec` that connects on request.
type dialer struct {
	cmd  *exec.Cmd
	conn *net.UnixConn
}

func startDialer(who string) (*dialer, error) {
	sock := filepath.Join(w.dir, who+".sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(w.weir, "--config", w.node.ConfigFile(), "exec", "--token-file", w.files[who], "--", exe)
	cmd.Env = append(os.Environ(), roleVar+"="+sock)
	cmd.Stderr = os.Stderr
	if err := w.node.Start(cmd); err != nil {
		return nil, err
	}
	d := &dialer{cmd: cmd}
	_ = l.SetDeadline(time.Now().Add(time.Minute))
	if d.conn, err = l.AcceptUnix(); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("the helper of %s did not come: %w", who, err)
	}
	return d, nil
}

// stop ends the helper: it leaves when its connection ends.
func (d *dialer) stop() error {
	_ = d.conn.Close()
	return d.cmd.Wait()
}

// dial is a connection that the person's process made to addr.
func (d *dialer) dial(addr string) (net.Conn, error) {
	if _, err := d.conn.Write([]byte(addr)); err != nil {
		return nil, err
	}
	buf, oob := make([]byte, 512), make([]byte, 64)
	n, oobn, _, _, err := d.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return nil, errors.New(string(buf[:n]))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "connection")
	defer f.Close()
	return net.FileConn(f)
}

// helper is the other end: it runs in the person's cgroup.
func helper(sock string) int {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, io.EOF) || n == 0 {
			return 0
		}
		if err != nil {
			return 1
		}
		if err := handOver(conn, string(buf[:n])); err != nil {
			_, _ = conn.Write([]byte(err.Error()))
		}
	}
}

func handOver(conn *net.UnixConn, addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, err = conn.WriteMsgUnix([]byte("ok"), unix.UnixRights(int(f.Fd())), nil)
	return err
}
