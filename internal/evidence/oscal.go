package evidence

import (
	"crypto/sha1" //nolint:gosec // name-based UUIDs are made of it (RFC 9562 section 5.5); nothing rests on it
	"encoding/json"
	"fmt"
	"io"
	"time"

	oscal "github.com/defenseunicorns/go-oscal/src/types/oscal-1-1-3"
)

const oscalVersion = "1.1.3"

// uuid is a name-based UUID (version 5) of the pack's subject: the same pack has the
// same ones.
func (r *report) uuid(name string) string {
	h := sha1.New() //nolint:gosec // see above
	fmt.Fprintf(h, "weir evidence\n%s\n%s\n%s\n%s\n%s\n%x\n", r.m.Node, stamp(r.m.From), stamp(r.m.To), r.m.Framework, name, r.proof.Root)
	b := h.Sum(nil)[:16]
	b[6], b[8] = b[6]&0x0f|0x50, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// writeOSCAL writes the mapping to controls as assessment results: one observation
// for each control, which says what was found in the log and where, and a risk for
// what limits it. It makes no finding of conformity: that is the assessor's.
func (r *report) writeOSCAL(w io.Writer) error {
	f := frameworkOf(r.m.Framework)
	end := r.m.To
	var observations []oscal.Observation
	var included []oscal.AssessedControlsSelectControlById
	add := func(id, title, text string, collected time.Time, tables []string) {
		var evidence []oscal.RelevantEvidence
		for _, t := range tables {
			evidence = append(evidence, oscal.RelevantEvidence{Href: "../tables/" + t + ".csv", Description: fmt.Sprintf("%s: %d rows", r.table(t).title, r.table(t).rows)})
		}
		observations = append(observations, oscal.Observation{UUID: r.uuid("observation " + id), Title: title, Description: text, Methods: []string{"EXAMINE"},
			Types: &[]string{"historic"}, Collected: collected, RelevantEvidence: &evidence})
	}
	for _, c := range f.controls {
		included = append(included, oscal.AssessedControlsSelectControlById{ControlId: controlID(c.ID)})
		add(c.ID, c.ID+" "+c.Subject, c.Speaks+" It does not show: "+c.Not, end, c.Tables)
	}
	add("limits", "What limits this evidence", fmt.Sprintf("%d warnings and %d notes about interruptions, missing events, clocks and ends that were not recorded.", r.findingsBy["warning"], r.findingsBy["note"]), end, []string{"limits"})
	doc := oscal.OscalModels{AssessmentResults: &oscal.AssessmentResults{
		UUID: r.uuid("results"),
		Metadata: oscal.Metadata{Title: fmt.Sprintf("Access evidence of node %s, %s to %s", plain(r.m.Node), stamp(r.m.From), stamp(r.m.To)), Version: "1",
			OscalVersion: oscalVersion, LastModified: end,
			Remarks: "Made by weir evidence export. The file belongs to a signed pack; manifest.json names its digest."},
		ImportAp: oscal.ImportAp{Href: "../index.html", Remarks: "There is no assessment plan: the pack is evidence for an assessor's own."},
		Results: []oscal.Result{{
			UUID: r.uuid("result"), Title: "Access through the gateway", Start: r.m.From, End: &end,
			Description:      "What the tamper-evident log of the gateway says about the controls. Whether they are met is for the assessor to say.",
			ReviewedControls: oscal.ReviewedControls{Description: f.title, ControlSelections: []oscal.AssessedControls{{Description: f.title, IncludeControls: &included}}},
			Observations:     &observations,
		}},
	}}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// controlID is a control's number as an OSCAL token, which begins with a letter.
func controlID(id string) string {
	if id[0] >= '0' && id[0] <= '9' {
		return "A." + id
	}
	return id
}
