package bypass

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// startDialer starts one; via are words in front of its command.
func startDialer(who string, via ...string) (*dialer, error) {
	sock := filepath.Join(w.Dir, fmt.Sprintf("%s%d.sock", who, len(via)))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append([]string{"--config", w.Node.ConfigFile(), "exec", "--token-file", w.Files[who], "--"}, via...)
	cmd := exec.Command(w.Weir, append(args, exe)...)
	cmd.Env = append(os.Environ(), roleVar+"="+sock)
	cmd.Stderr = os.Stderr
	if err := w.Node.Start(cmd); err != nil {
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

// do has the helper do something and returns the descriptor that comes back.
func (d *dialer) do(command string, give ...int) (*os.File, error) {
	if _, _, err := d.conn.WriteMsgUnix([]byte(command), unix.UnixRights(give...), nil); err != nil {
		return nil, err
	}
	text, fds, err := receive(d.conn)
	if err != nil {
		return nil, err
	}
	if len(fds) == 0 {
		return nil, errors.New(text)
	}
	return os.NewFile(uintptr(fds[0]), command), nil
}

// dial is a connection that the person's process made: how is a word of connect.
func (d *dialer) dial(how, addr string) (net.Conn, error) {
	f, err := d.do(how + " " + addr)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileConn(f)
}

func receive(conn *net.UnixConn) (text string, fds []int, err error) {
	buf, oob := make([]byte, 512), make([]byte, 64)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return "", nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err == nil && len(messages) > 0 {
		fds, err = unix.ParseUnixRights(&messages[0])
	}
	return string(buf[:n]), fds, err
}

// helper is the other end: it runs in the person's cgroup.
func helper(sock string) int {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		text, fds, err := receive(conn)
		if err != nil {
			return 0
		}
		how, addr, _ := strings.Cut(text, " ")
		fd, err := connectFD(how, addr, fds)
		if err != nil {
			_, _ = conn.Write([]byte(err.Error()))
			continue
		}
		_, _, err = conn.WriteMsgUnix([]byte("ok"), unix.UnixRights(fd), nil)
		_ = unix.Close(fd)
		if err != nil {
			return 1
		}
	}
}

// connectFD makes a connection in one of the ways that the kernel has.
func connectFD(how, addr string, given []int) (int, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil && how != "socket" {
		return -1, err
	}
	family, protocol := unix.AF_INET, 0
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if how == "mptcp" {
		protocol = unix.IPPROTO_MPTCP
	}
	var fd int
	if how == "given" {
		fd = given[0]
	} else if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol); err != nil {
		return -1, err
	}
	if err := connectSocket(fd, how, to); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("%s to %s: %w", how, addr, err)
	}
	return fd, nil
}

func connectSocket(fd int, how string, to netip.AddrPort) error {
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port()), Addr: [4]byte{127, 0, 0, 1}}
	if to.Addr().Is6() {
		sa = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	} else if to.IsValid() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	switch how {
	case "socket":
		return nil
	case "fastopen": // connects and sends in one call
		return unix.Sendto(fd, startupPacket(), unix.MSG_FASTOPEN, sa)
	case "fastopen-later": // connects with the first write
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
			return err
		}
	case "bound":
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 9}}); err != nil {
			return err
		}
	case "again": // AF_UNSPEC dissolves a connection
		if err := unix.Connect(fd, sa); err != nil {
			return err
		}
		if err := dissolve(fd); err != nil {
			return err
		}
	}
	return unix.Connect(fd, sa)
}
