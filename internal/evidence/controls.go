package evidence

import (
	"fmt"
	"slices"
)

// A framework is a list of controls, in the order of the standard. The words are
// Weir's own; no text of a standard is in them.
type framework struct {
	id, title string
	controls  []control
}

// control says which parts of a pack speak for a control, and what they leave open.
type control struct {
	ID      string
	Subject string
	Speaks  string
	Tables  []string
	Not     string
}

// Frameworks are the names that --framework knows.
func Frameworks() []string { return []string{"iso27001-2022", "iso27001-2013"} }

func frameworkOf(id string) *framework {
	all := []framework{iso2022(), iso2013()}
	if i := slices.IndexFunc(all, func(f framework) bool { return f.id == id }); i >= 0 {
		return &all[i]
	}
	return nil
}

const (
	notElsewhere = "Access by other ways than through this node, and accounts inside the databases themselves."
	notDecided   = "Whether the rules are the right ones: that is the owner's decision, and its reasons are not in the log."
	notIdentity  = "How the identity provider checks people before it signs for them, and how it makes and removes accounts."
)

func iso2022() framework {
	return framework{"iso27001-2022", "ISO/IEC 27001:2022, Annex A", []control{
		{"5.15", "Rules of access", "The rules in force, revision by revision, with their text and the times they applied; every refusal that they caused.", []string{"access", "policies", "denials"}, notDecided},
		{"5.16", "Identities over their life", "Everybody who was verified or acted, with issuer and subject, sign-ins and their ends.", []string{"identities"}, notIdentity},
		{"5.17", "Secrets that prove who somebody is", "Sign-ins rest on tokens of the provider; its key sets that verified approvers are kept. Clients hold no password of a backend.", []string{"identities", "keys"}, "Strength and storage of passwords and keys at the provider and at the backends."},
		{"5.18", "Granting, reviewing and taking away access", "Which groups and people each revision let in, from when to when, and what they then used: the two side by side show rights that nobody needs.", []string{"access", "use", "policies"}, "Who asked for a change of the rules and who agreed to it: that is in the system where the policy files are kept."},
		{"5.28", "Collecting evidence", "This pack: the exact events, their place in a signed log, an unbroken range of proofs, and what is missing, stated.", []string{"events", "checkpoints", "limits"}, "The chain of custody after the export: keep the pack's digest."},
		{"5.33", "Protecting records", "Each event is in a tree whose heads are signed; a record that is changed, removed or added does not lead to the signed root.", []string{"checkpoints", "limits"}, "A node that is wholly in an attacker's hands can stop recording, or record what did not happen; witnesses and copies elsewhere bound that."},
		{"5.34", "Privacy and personal data", "Values that were hidden before they left, by column, method and number of people who were shown the masked form.", []string{"masks"}, "Whether the right columns are masked, and the lawfulness of the processing."},
		{"8.2", "Privileged access", "Actions that needed consent: who asked, who agreed, why, with which proof, what came of it.", []string{"approvals", "decisions", "sample"}, notElsewhere},
		{"8.3", "Restricting access to information", "Every action with verb, resource and verdict; the refusals.", []string{"use", "denials", "bypass"}, notElsewhere},
		{"8.5", "Secure sign-in", "Nothing passes without a verified identity; each connection names it, and those without are among the refusals.", []string{"identities", "denials"}, notIdentity},
		{"8.11", "Masking of data", "Columns masked, how often, and by which rule or detector they were found.", []string{"masks"}, "Values that a user with the right to see them copied elsewhere."},
		{"8.12", "Keeping data from leaking", "Masks, refusals, budgets of tests on masked columns, and refused attempts to go round.", []string{"masks", "denials", "bypass"}, "Channels that do not pass through this node."},
		{"8.15", "Logging", "All events of the period, complete by number and by proof, and every interruption of the record; the kernel's own count of connections beside them.", []string{"events", "limits", "completeness"}, "Events of systems other than this gateway."},
		{"8.16", "Watching for what is unusual", "Refusals, refused attempts to go round, break-glass use, and interruptions, each by itself.", []string{"denials", "bypass", "approvals", "limits"}, "Who looked at them and what was done: that is in your own records."},
		{"8.17", "Clocks in step", "Every place where the node's clock went back between two events.", []string{"limits"}, "The distance of the node's clock from true time, unless a time stamp or a witness signed a tree head."},
	}}
}

func iso2013() framework {
	return framework{"iso27001-2013", "ISO/IEC 27001:2013, Annex A", []control{
		{"A.9.1", "What access is for", "The rules in force, revision by revision, with their text.", []string{"access", "policies"}, notDecided},
		{"A.9.2", "Users and their rights", "Identities that were verified, the groups that gave them rights, privileged actions with their approval, and rights that were used.", []string{"identities", "access", "use", "approvals"}, notIdentity},
		{"A.9.3", "What users owe", "Sign-ins rest on tokens of the provider; clients hold no password of a backend.", []string{"identities", "keys"}, "How people keep their own secrets."},
		{"A.9.4", "Access to systems and applications", "Every action with verb, resource and verdict; refusals; attempts to go round; masked columns.", []string{"use", "denials", "bypass", "masks"}, notElsewhere},
		{"A.12.4", "Logging and watching", "All events of the period with proofs, protected by signed tree heads; what administrators did, with approval; places where the clock went back; the kernel's own count of connections beside them.", []string{"events", "checkpoints", "approvals", "limits", "completeness"}, "Events of other systems, and the distance of the clock from true time."},
		{"A.18.1", "Duties by law and contract", "Records that are shown not to have been changed; personal data that was hidden.", []string{"checkpoints", "masks", "limits"}, "Which duties there are."},
		{"A.18.2", "Reviews", "A sample that the reviewer's own seed picks, each case with its proof and the events around it.", []string{"sample", "controls"}, "The reviewer's judgement."},
	}}
}

func (r *report) table(name string) *table {
	for _, t := range r.tables {
		if t.name == name {
			return t
		}
	}
	return nil
}

func (r *report) controlRows() {
	f := frameworkOf(r.m.Framework)
	for _, c := range f.controls {
		for i, name := range c.Tables {
			speaks, not := c.Speaks, c.Not
			if i > 0 {
				speaks, not = "", ""
			}
			n := r.table(name).rows
			if name == "controls" {
				n = len(f.controls)
			}
			r.controls.add(f.title, c.ID, c.Subject, speaks, "tables/"+name+".csv", fmt.Sprint(n), not)
		}
	}
}
