package record

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// maxSequence is how much of an escape sequence is waited for, bytes.
const maxSequence = 4 << 10

// Harmless lets through of a recorded terminal's output what draws, and nothing that
// makes the terminal that it is replayed on answer, remember or reach further: no
// device reports, titles, clipboards, links, mouse or keyboard modes, and no strings
// of control (ECMA-48, xterm's ctlseqs). It keeps what is not whole for the next call.
type Harmless struct {
	parser *ansi.Parser
	rest   string
}

// Text is the harmless part of a piece of output.
func (h *Harmless) Text(s string) string {
	if h.parser == nil {
		h.parser = ansi.NewParser()
	}
	s = h.rest + s
	h.rest = ""
	var out strings.Builder
	for len(s) > 0 {
		h.parser.Reset()
		seq, width, n, state := ansi.DecodeSequence(s, ansi.NormalState, h.parser)
		if n <= 0 {
			break
		}
		if state != ansi.NormalState {
			if len(s) <= maxSequence {
				h.rest = s
			}
			break
		}
		if width > 0 || h.draws(seq) {
			out.WriteString(seq)
		}
		s = s[n:]
	}
	return out.String()
}

// draws reports whether a control or an escape sequence only draws.
func (h *Harmless) draws(seq string) bool {
	if len(seq) == 0 {
		return false
	}
	if seq[0] != 0x1b {
		return len(seq) == 1 && strings.IndexByte("\n\r\t\b\v\f\x0e\x0f", seq[0]) >= 0
	}
	if len(seq) < 2 {
		return false
	}
	cmd := ansi.Cmd(h.parser.Command())
	switch seq[1] {
	case '[':
		switch {
		case cmd.Intermediate() != 0:
			return false
		case cmd.Prefix() == '?' && (cmd.Final() == 'h' || cmd.Final() == 'l'):
			mode, ok := h.parser.Param(0, 0)
			return ok && len(h.parser.Params()) == 1 && (mode == 6 || mode == 7 || mode == 25 || mode == 47 || mode == 1047 || mode == 1049)
		case cmd.Prefix() != 0:
			return false
		}
		return strings.IndexByte("@ABCDEFGHIJKLMPSTXZ`adefmrsu", cmd.Final()) >= 0
	case '(', ')':
		return len(seq) == 3 && strings.IndexByte("0AB", seq[2]) >= 0
	case '7', '8', 'D', 'E', 'M':
		return len(seq) == 2
	}
	return false
}
