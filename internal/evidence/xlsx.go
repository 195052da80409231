package evidence

import (
	"archive/zip"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"unicode/utf16"

	"github.com/xuri/excelize/v2"
)

// workbook is all tables in one file, a sheet each. Cells are text: numbers too, so
// that nothing is read as anything else.
type workbook struct {
	file   *excelize.File
	heads  int // style of the first row
	sheets []*sheet
}

type sheet struct {
	t   *table
	w   *excelize.StreamWriter
	row int
}

func newWorkbook() (*workbook, error) {
	b := &workbook{file: excelize.NewFile()}
	style, err := b.file.NewStyle(&excelize.Style{Font: &excelize.Font{Bold: true}, Fill: excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{"DDE6ED"}}})
	b.heads = style
	return b, err
}

func (b *workbook) close() { _ = b.file.Close() }

// sheet begins the sheet of a table and returns what adds a row.
func (b *workbook) sheet(t *table) (func(cells []string) error, error) {
	if len(b.sheets) == 0 {
		if err := b.file.SetSheetName("Sheet1", t.name); err != nil {
			return nil, err
		}
	} else if _, err := b.file.NewSheet(t.name); err != nil {
		return nil, err
	}
	w, err := b.file.NewStreamWriter(t.name)
	if err != nil {
		return nil, err
	}
	s := &sheet{t: t, w: w}
	b.sheets = append(b.sheets, s)
	for i := range t.head {
		if err := w.SetColWidth(i+1, i+1, widthOf(t.head[i])); err != nil {
			return nil, err
		}
	}
	if err := w.SetPanes(&excelize.Panes{Freeze: true, YSplit: 1, TopLeftCell: "A2", ActivePane: "bottomLeft"}); err != nil {
		return nil, err
	}
	if err := s.add(t.head, b.heads); err != nil {
		return nil, err
	}
	return func(cells []string) error { return s.add(cells, 0) }, nil
}

// widthOf is the width of a column by what it is for, characters.
func widthOf(head string) float64 {
	switch head {
	case "time", "first", "last", "requested", "in force from", "to":
		return 28
	case "detail", "action", "text", "reason", "reasons", "what", "evidence here", "does not show", "about", "digest", "root", "policy revision", "revision", "resources", "condition":
		return 48
	case "seq", "case", "draw", "count", "rows", "bytes":
		return 10
	}
	return 20
}

// maxCellUnits is the longest text of a cell (ECMA-376: 32,767 UTF-16 units).
const maxCellUnits = 32767

func (s *sheet) add(cells []string, style int) error {
	s.row++
	row := make([]any, len(cells))
	for i, c := range cells {
		if len(utf16.Encode([]rune(c))) > maxCellUnits {
			c = string([]rune(c)[:maxCellUnits/2])
		}
		row[i] = excelize.Cell{StyleID: style, Value: c}
	}
	return s.w.SetRow(fmt.Sprintf("A%d", s.row), row)
}

func (b *workbook) write(w io.Writer) error {
	for _, s := range b.sheets {
		if s.t.rows > maxSheet {
			if err := s.add([]string{fmt.Sprintf("%d more rows are in tables/%s.csv", s.t.rows-maxSheet, s.t.name)}, b.heads); err != nil {
				return err
			}
		}
		if err := s.w.Flush(); err != nil {
			return err
		}
	}
	packed, err := b.file.WriteToBuffer()
	if err != nil {
		return err
	}
	return repack(w, packed.Bytes())
}

// repack gives a zip file's members an order and one time: the library writes them
// as its maps have them.
func repack(w io.Writer, packed []byte) error {
	r, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		return err
	}
	rank := func(name string) int {
		if name == "[Content_Types].xml" { // some readers want it first (ECMA-376 part 2)
			return 0
		}
		return 1
	}
	slices.SortFunc(r.File, func(a, b *zip.File) int {
		return cmp.Or(rank(a.Name)-rank(b.Name), cmp.Compare(a.Name, b.Name))
	})
	z := zip.NewWriter(w)
	for _, f := range r.File {
		from, err := f.Open()
		if err != nil {
			return err
		}
		to, err := z.CreateHeader(&zip.FileHeader{Name: f.Name, Method: zip.Deflate})
		if err == nil {
			_, err = io.Copy(to, from) //nolint:gosec // it was made just now
		}
		if err != nil {
			return err
		}
	}
	return z.Close()
}
