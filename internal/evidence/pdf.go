package evidence

import (
	"io"

	"codeberg.org/go-pdf/fpdf"
)

func (r *report) writePDF(w io.Writer) error {
	p := fpdf.New("L", "mm", "A4", "")
	p.AddPage()
	return p.Output(w)
}
