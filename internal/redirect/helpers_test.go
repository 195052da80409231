package redirect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/testkit"
)

func TestMain(m *testing.M) {
	testkit.Main(m, map[string]func([]string) int{
		"client": clientMain, "agent": agentMain, "upstream": upstreamMain, "wait": waitMain, "makesocket": makeSocketMain, "holder": holderMain,
	})
}

// attempt is what a client saw of one step.
type attempt struct {
	Step  string
	Err   string // name of the errno, "" for none
	Peer  string // getpeername(2)
	Local string // getsockname(2)
	Reply string // all that the peer sent, when it was asked for
}

// clientMain runs steps on one socket and prints an attempt for each, as JSON lines.
//
//	tcp4 | tcp6 | mapped ADDR   connect, then say "hi" and read to the end
//	nonblock ADDR               the same on a non-blocking socket
//	dissolve                    connect(2) to AF_UNSPEC on the socket
//	again ADDR                  connect the same socket once more
//	udp ADDR, udpconn ADDR      send a datagram; connect a datagram socket
//	bind ADDR                   bind and listen
//	inherited ADDR              connect descriptor 3
//	many N ADDR                 N connects one after the other
//	quit ADDR                   connect and close at once
//	go                          wait for a line on stdin
func clientMain(args []string) int {
	out := json.NewEncoder(os.Stdout)
	fd := -1
	for len(args) > 0 {
		step := args[0]
		args = args[1:]
		arg := func() (s string) { s, args = args[0], args[1:]; return s }
		a := attempt{Step: step}
		var err error
		switch step {
		case "tcp4":
			fd, err = connectTo(unix.AF_INET, arg(), false)
			a.look(fd, err)
		case "tcp6", "mapped":
			fd, err = connectTo(unix.AF_INET6, arg(), false)
			a.look(fd, err)
		case "nonblock":
			fd, err = connectTo(unix.AF_INET, arg(), true)
			a.look(fd, err)
		case "dissolve":
			err = dissolve(fd)
		case "again":
			err = connectSocket(fd, arg())
			a.look(fd, err)
		case "inherited":
			fd = 3
			err = connectSocket(fd, arg())
			a.look(fd, err)
		case "udp", "udpconn":
			err = datagram(arg(), step == "udpconn")
		case "bind":
			err = bindTo(arg())
		case "many":
			n, _ := strconv.Atoi(arg())
			to := arg()
			for range n {
				if fd, err = connectTo(unix.AF_INET, to, false); err != nil {
					break
				}
				a.look(fd, nil)
				unix.Close(fd)
				if !strings.HasPrefix(a.Reply, "agent ") {
					err = io.ErrUnexpectedEOF
					break
				}
			}
		case "quit":
			fd, err = connectTo(unix.AF_INET, arg(), false)
			unix.Close(fd)
		case "go":
			var b [1]byte
			os.Stdin.Read(b[:])
		default:
			fmt.Fprintln(os.Stderr, "client: unknown step", step)
			return 2
		}
		a.Err = errnoName(err)
		out.Encode(a)
	}
	return 0
}

func errnoName(err error) string {
	var e unix.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func connectTo(family int, to string, nonblock bool) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	if !nonblock {
		return fd, connectSocket(fd, to)
	}
	unix.SetNonblock(fd, true)
	err = connectSocket(fd, to)
	if !errors.Is(err, unix.EINPROGRESS) {
		return fd, fmt.Errorf("a non-blocking connect came back with %w", err)
	}
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(p, 10000); err == nil && n == 1 {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return fd, unix.ETIMEDOUT
		}
	}
	unix.SetNonblock(fd, false)
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return fd, err
}

// connectSocket gives the socket the address in its own family: an IPv4 address goes
// into an IPv6 socket in mapped form.
func connectSocket(fd int, to string) error {
	ap := netip.MustParseAddrPort(to)
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	for {
		if family == unix.AF_INET6 {
			err = unix.Connect(fd, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()})
		} else {
			err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func dissolve(fd int) error {
	var sa unix.RawSockaddr // family AF_UNSPEC
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), sockaddrPointer(&sa), unix.SizeofSockaddrInet4)
	if e != 0 {
		return e
	}
	return nil
}

func (a *attempt) look(fd int, err error) {
	if err != nil {
		return
	}
	if sa, err := unix.Getpeername(fd); err == nil {
		a.Peer = addrOf(sa)
	}
	if sa, err := unix.Getsockname(fd); err == nil {
		a.Local = addrOf(sa)
	}
	unix.Write(fd, []byte("hi"))
	unix.Shutdown(fd, unix.SHUT_WR)
	var all []byte
	for buf := make([]byte, 256); ; {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			all = append(all, "!"+errnoName(err)...)
		}
		if n <= 0 {
			break
		}
		all = append(all, buf[:n]...)
	}
	a.Reply = string(all)
}

func addrOf(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String()
	}
	return "?"
}

func datagram(to string, connected bool) error {
	ap := netip.MustParseAddrPort(to)
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if ap.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if connected {
		return unix.Connect(fd, sa)
	}
	return unix.Sendto(fd, []byte("x"), 0, sa)
}

func bindTo(addr string) error {
	ap := netip.MustParseAddrPort(addr)
	family := unix.AF_INET
	if ap.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return unix.Bind(fd, sockaddr(ap))
}

// agentMain is an agent of its own process: it opens a redirector, answers like
// serve, prints "ready", and closes on end of stdin.
func agentMain(args []string) int {
	var c Config
	if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r, err := Open(c)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	done := make(chan struct{})
	go func() { defer close(done); serve(r, nil) }()
	fmt.Println("ready", r.agent.path)
	io.Copy(io.Discard, os.Stdin)
	r.Close()
	<-done
	return 0
}

// serve answers every connection with what its record says and closes it.
func serve(r *Redirector, seen func(*Conn)) {
	for {
		c, err := r.Accept(contextForever)
		if err != nil {
			return
		}
		if seen != nil {
			seen(c)
		}
		fmt.Fprintf(c, "agent %s backend %d", c.Record.Destination, c.Record.Backend)
		c.CloseWrite()
		go func() {
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			io.Copy(io.Discard, c)
			c.Close()
		}()
	}
}

// upstreamMain listens on its arguments and greets with "upstream" and the address
// of the client.
func upstreamMain(args []string) int {
	for _, addr := range args {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "upstream for %s", c.RemoteAddr())
				c.Close()
			}
		}()
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func waitMain([]string) int {
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// process is a helper that runs until its stdin is closed.
type process struct {
	t     testing.TB
	stdin io.WriteCloser
	proc  *os.Process
	wait  func() error
}

// start runs a helper in a cgroup and a namespace and waits for its first line,
// which it returns.
func start(t testing.TB, cgroup string, ns *testkit.Namespace, name string, args ...string) (*process, string) {
	t.Helper()
	cmd := testkit.Helper(t, name, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := testkit.StartIn(cgroup, ns, cmd); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, stdin: stdin, proc: cmd.Process, wait: cmd.Wait}
	t.Cleanup(p.stop)
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := stdout.Read(b)
		if n == 0 || err != nil || b[0] == '\n' {
			return p, string(line)
		}
		line = append(line, b[0])
	}
}

func (p *process) stop() {
	if p.proc == nil {
		return
	}
	p.stdin.Close()
	p.wait()
	p.proc = nil
}

func (p *process) kill() {
	p.proc.Signal(syscall.SIGKILL)
	p.wait()
	p.proc = nil
}

// client runs a client's steps in a cgroup and a namespace.
func client(t testing.TB, cgroup string, ns *testkit.Namespace, steps ...string) []attempt {
	t.Helper()
	return clientWith(t, cgroup, ns, nil, steps...)
}

func clientWith(t testing.TB, cgroup string, ns *testkit.Namespace, extra *os.File, steps ...string) []attempt {
	t.Helper()
	cmd := testkit.Helper(t, "client", steps...)
	if extra != nil {
		cmd.ExtraFiles = []*os.File{extra}
	}
	var buf strings.Builder
	cmd.Stdout = &buf
	if err := testkit.RunIn(cgroup, ns, cmd); err != nil {
		t.Fatalf("client %v: %v", steps, err)
	}
	var out []attempt
	for dec := json.NewDecoder(strings.NewReader(buf.String())); ; {
		var a attempt
		if err := dec.Decode(&a); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
}
