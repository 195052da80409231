package evidence

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"codeberg.org/go-pdf/fpdf"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/sfnt"
)

// Sizes of the PDF's pages: A4 across, millimetres.
const (
	pageWidth  = 297.0
	pageHeight = 210.0
	pageMargin = 14.0
	pageRows   = 40 // of a table; the rest is in the files
	textWidth  = pageWidth - 2*pageMargin
	// maxPDFCell bounds the text of a cell, characters.
	maxPDFCell = 400
)

// pdfColumns are the columns that the PDF has room for, with their share of the
// width. A table without a row here has all of its columns.
var pdfColumns = map[string][]struct {
	name  string
	share float64
}{
	"limits":      {{"severity", 1.1}, {"time", 2.6}, {"seq", 0.9}, {"what", 3}, {"detail", 8}},
	"access":      {{"in force from", 2.5}, {"policy", 1.4}, {"backends", 1.4}, {"rule", 2.6}, {"effect", 1}, {"groups", 1.6}, {"users", 1.5}, {"actions", 1.8}, {"resources", 1.8}, {"condition", 1.6}, {"approval", 2.6}},
	"use":         {{"user", 2.6}, {"backend", 1.3}, {"database", 1.3}, {"verb", 1}, {"resource", 2.6}, {"allowed", 0.9}, {"with approval", 1.1}, {"refused", 0.9}, {"first", 2.5}, {"last", 2.5}},
	"approvals":   {{"requested", 2.5}, {"requester", 2}, {"backend", 1.1}, {"action", 4}, {"status", 1.4}, {"approvers", 2}, {"reasons", 2.2}, {"proof", 0.9}, {"break glass", 0.8}, {"times used", 0.8}, {"outcome", 1}},
	"decisions":   {{"time", 2.5}, {"request", 2}, {"decided by", 2}, {"decision", 1.2}, {"reason", 3}, {"proof", 0.9}, {"token kept", 0.9}, {"note", 2}},
	"masks":       {{"backend", 1.2}, {"database", 1.2}, {"column", 3}, {"method", 1}, {"found by", 1.1}, {"detector", 1.2}, {"values masked", 1.2}, {"results", 1}, {"people", 1}},
	"denials":     {{"time", 2.5}, {"seq", 0.8}, {"user", 2}, {"backend", 1.1}, {"what", 4}, {"refused by", 1.1}, {"rule", 1.6}, {"reason", 3.4}},
	"identities":  {{"user", 2.4}, {"issuer", 2.8}, {"kind", 1}, {"groups", 2}, {"acted for them", 1.6}, {"sign-ins", 0.8}, {"ends", 0.8}, {"events", 0.9}, {"first", 2.5}, {"last", 2.5}},
	"policies":    {{"in force from", 2}, {"to", 2}, {"revision", 5}, {"files", 3}},
	"sample":      {{"case", 0.7}, {"position", 0.9}, {"time", 2.5}, {"seq", 0.8}, {"user", 2}, {"backend", 1.1}, {"what", 4}, {"verdict", 1}, {"rule", 2}, {"approvers", 1.8}, {"result", 0.9}},
	"checkpoints": {{"events in the log", 1.2}, {"root", 4}, {"signed by", 3}, {"place", 3}},
}

// printer writes the PDF. The same report gives the same bytes: its dates are those
// of the period.
type printer struct {
	*fpdf.Fpdf
	font *sfnt.Font
	buf  sfnt.Buffer
}

func (r *report) writePDF(w io.Writer) error {
	v := r.view(pageRows)
	p := &printer{Fpdf: fpdf.New("L", "mm", "A4", "")}
	var err error
	if p.font, err = sfnt.Parse(goregular.TTF); err != nil {
		return err
	}
	p.SetCatalogSort(true)
	p.SetCreationDate(r.m.To)
	p.SetModificationDate(r.m.To)
	p.SetTitle(p.text("Access evidence of "+r.m.Node), true)
	p.SetProducer("weir", true)
	p.AddUTF8FontFromBytes("Go", "", goregular.TTF)
	p.AddUTF8FontFromBytes("Go", "B", gobold.TTF)
	p.SetMargins(pageMargin, pageMargin, pageMargin)
	p.SetAutoPageBreak(true, pageMargin)
	p.SetFooterFunc(func() {
		p.SetY(-pageMargin + 4)
		p.SetFont("Go", "", 7)
		p.SetTextColor(90, 107, 118)
		p.CellFormat(textWidth-20, 4, p.text(fmt.Sprintf("Access evidence of %s, %s to %s", r.m.Node, v.From, v.To)), "", 0, "L", false, 0, "")
		p.CellFormat(20, 4, fmt.Sprintf("page %d", p.PageNo()), "", 0, "R", false, 0, "")
	})
	p.AddPage()
	p.front(r, v)
	p.heading(v.Limits.Title)
	p.para(fmt.Sprintf("%d warnings, %d notes. %s", v.Warnings, v.Notes, v.Limits.About), false)
	p.table(v.Limits)
	p.controls(v)
	for _, t := range v.Tables {
		if t.Name == "events" {
			continue
		}
		p.heading(t.Title)
		p.para(t.About, false)
		if t.Name == "sample" {
			p.para(v.Sample, false)
		}
		p.table(t)
	}
	return p.Output(w)
}

// text keeps what the font has glyphs for.
func (p *printer) text(s string) string {
	return strings.Map(func(r rune) rune {
		if g, err := p.font.GlyphIndex(&p.buf, r); err != nil || g == 0 || r > 0xffff {
			return square
		}
		return r
	}, s)
}

func (p *printer) ink() { p.SetTextColor(28, 42, 51) }

func (p *printer) front(r *report, v *view) {
	p.ink()
	p.SetFont("Go", "B", 20)
	p.CellFormat(textWidth, 10, p.text("Access evidence of "+r.m.Node), "", 1, "L", false, 0, "")
	p.SetFont("Go", "", 10)
	p.para(fmt.Sprintf("%s to %s (the end is not included), %s. Controls: %s.", v.From, v.To, v.Length, v.Framework), false)
	p.para(fmt.Sprintf("%s. All of them are in events.jsonl exactly as they were logged, and lead to the signed tree head %s of %d events.", v.EventsText, v.Root, v.Size), false)
	p.para("This page is worth as much as the file that it came in: `weir evidence verify PACK.zip --key log.pub` must say that the pack is intact, with a key that came on another way. readme.txt says how, also by hand.", true)
	p.Ln(1)
	width := textWidth / float64(len(v.Figures))
	x, y := p.GetX(), p.GetY()
	for i, f := range v.Figures {
		p.SetXY(x+float64(i)*width, y)
		p.SetDrawColor(213, 221, 226)
		p.Rect(x+float64(i)*width, y, width-2, 17, "D")
		p.SetFont("Go", "B", 15)
		p.ink()
		p.SetXY(x+float64(i)*width+1, y+1)
		p.CellFormat(width-4, 8, f[1], "", 2, "L", false, 0, "")
		p.SetFont("Go", "", 7.5)
		p.SetTextColor(90, 107, 118)
		p.MultiCell(width-4, 3.4, f[0], "", "L", false)
	}
	p.SetXY(x, y+19)
}

// heading begins a part; it does not stand alone at the end of a page.
func (p *printer) heading(s string) {
	if p.GetY() > pageHeight-pageMargin-35 {
		p.AddPage()
	} else {
		p.Ln(5)
	}
	p.ink()
	p.SetFont("Go", "B", 13)
	p.CellFormat(textWidth, 7, p.text(s), "", 1, "L", false, 0, "")
	p.Bookmark(p.text(s), 0, -1)
}

func (p *printer) para(s string, box bool) {
	p.ink()
	p.SetFont("Go", "", 9)
	if box {
		p.SetFillColor(255, 244, 224)
		p.MultiCell(textWidth, 4.6, p.text(s), "", "L", true)
	} else {
		p.MultiCell(textWidth, 4.4, p.text(s), "", "L", false)
	}
	p.Ln(1.2)
}

func (p *printer) table(t *tableView) {
	if t.All == 0 {
		p.para("None.", false)
		return
	}
	var at []int
	var shares []float64
	for _, c := range pdfColumns[t.Name] {
		if i := slices.Index(t.Head, c.name); i >= 0 {
			at, shares = append(at, i), append(shares, c.share)
		}
	}
	if at == nil {
		for i := range t.Head {
			at, shares = append(at, i), append(shares, 1)
		}
	}
	pick := func(row []string) []string {
		cells := make([]string, len(at))
		for i, n := range at {
			cells[i] = row[n]
		}
		return cells
	}
	rows := make([][]string, len(t.Rows))
	for i, row := range t.Rows {
		rows[i] = pick(row)
	}
	p.grid(pick(t.Head), shares, rows)
	if t.More > 0 {
		p.para(fmt.Sprintf("%d more rows are in tables/%s.csv.", t.More, t.Name), false)
	}
}

func (p *printer) controls(v *view) {
	p.heading("Controls")
	p.para("Which part of this pack speaks for which control of "+v.Framework+", and what it does not show. The words are Weir's own; read them beside the standard. Whether a control is met is the auditor's judgement.", false)
	var rows [][]string
	for _, c := range v.Controls {
		var where []string
		for _, t := range c.Tables {
			where = append(where, fmt.Sprintf("%s (%d)", t, v.Rows(t)))
		}
		rows = append(rows, []string{c.ID, c.Subject, c.Speaks, strings.Join(where, ", "), c.Not})
	}
	p.grid([]string{"control", "subject", "evidence here", "tables (rows)", "does not show"}, []float64{0.8, 2, 5, 2.4, 4}, rows)
}

const (
	lineHeight = 3.6
	cellPad    = 1.0
)

// grid draws a table, its head on every page.
func (p *printer) grid(head []string, shares []float64, rows [][]string) {
	all := 0.0
	for _, s := range shares {
		all += s
	}
	widths := make([]float64, len(shares))
	for i, s := range shares {
		widths[i] = textWidth * s / all
	}
	p.SetDrawColor(213, 221, 226)
	p.SetCellMargin(cellPad)
	p.row(head, widths, true)
	for _, r := range rows {
		if h := p.rowHeight(r, widths, false); p.GetY()+h > pageHeight-pageMargin {
			p.AddPage()
			p.SetDrawColor(213, 221, 226)
			p.row(head, widths, true)
		}
		p.row(r, widths, false)
	}
	p.Ln(1.5)
}

func (p *printer) cellLines(s string, width float64, head bool) []string {
	style := ""
	if head {
		style = "B"
	}
	p.SetFont("Go", style, 7)
	if r := []rune(s); len(r) > maxPDFCell {
		s = string(r[:maxPDFCell]) + "…"
	}
	return p.wrap(p.text(s), width-2*cellPad-0.2)
}

// wrap breaks text at spaces, and words that are too long anywhere.
func (p *printer) wrap(s string, width float64) []string {
	var lines []string
	line, used := "", 0.0
	space := p.GetStringWidth(" ")
	for _, word := range strings.Fields(s) {
		w := p.GetStringWidth(word)
		if line != "" && used+space+w <= width {
			line, used = line+" "+word, used+space+w
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		line, used = "", 0
		for w > width {
			n, part := 0, 0.0
			for i, r := range word {
				c := p.GetStringWidth(string(r))
				if part+c > width && i > 0 {
					n = i
					break
				}
				part += c
			}
			if n == 0 {
				break // one glyph wider than the cell
			}
			lines = append(lines, word[:n])
			word = word[n:]
			w = p.GetStringWidth(word)
		}
		line, used = word, w
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}

func (p *printer) rowHeight(cells []string, widths []float64, head bool) float64 {
	n := 1
	for i, c := range cells {
		n = max(n, len(p.cellLines(c, widths[i], head)))
	}
	return float64(n)*lineHeight + 1.2
}

func (p *printer) row(cells []string, widths []float64, head bool) {
	h := p.rowHeight(cells, widths, head)
	x, y := p.GetX(), p.GetY()
	for i, c := range cells {
		if head {
			p.SetFillColor(238, 242, 245)
			p.Rect(x, y, widths[i], h, "FD")
		} else {
			p.Rect(x, y, widths[i], h, "D")
		}
		p.ink()
		if !head && c == "warning" {
			p.SetTextColor(138, 75, 0)
		}
		for n, line := range p.cellLines(c, widths[i], head) {
			p.SetXY(x, y+0.6+float64(n)*lineHeight)
			p.CellFormat(widths[i], lineHeight, line, "", 0, "L", false, 0, "")
		}
		x += widths[i]
	}
	p.SetXY(pageMargin, y+h)
}
