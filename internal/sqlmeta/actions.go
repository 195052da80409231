package sqlmeta

import (
	"crypto/sha256"
	"encoding/hex"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/flow"
)

// Actions makes one action of each statement, for the gate. IDs and parameters
// are the caller's to fill in; the slices are shared with the statements and must
// not be changed.
func Actions(list []*Statement) []flow.Action {
	out := make([]flow.Action, len(list))
	for i, st := range list {
		out[i] = flow.Action{
			Accesses:  st.Accesses,
			Functions: st.Functions,
			Languages: st.Languages, SecurityDefiner: st.SecurityDefiner, Columns: st.Uses,
			Text:    capped(st.Text),
			Digest:  Digest(st.Text),
			Bytes:   int64(len(st.Text)),
			Problem: st.Problem,
		}
	}
	return out
}

// Digest is "sha256:" and the hexadecimal SHA-256 of a statement's exact bytes.
func Digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// capped cuts text to what is recorded, at a character's boundary.
func capped(text string) string {
	if len(text) <= flow.MaxRecordedText {
		return text
	}
	end := flow.MaxRecordedText
	for end > flow.MaxRecordedText-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
