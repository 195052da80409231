package policy

import (
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
)

func verbSet(words string) map[flow.Verb]bool {
	set := make(map[flow.Verb]bool)
	for _, w := range strings.Fields(words) {
		set[flow.Verb(w)] = true
	}
	return set
}

// The verbs of each protocol (contract, section 3), without "unknown".
var (
	sqlVerbs = verbSet(`connect select insert update delete truncate merge create alter drop grant
		copy_in copy_out call set lock listen explain maintain`)

	// The API's request verbs and its connect-type subresources
	// (kubernetes.io, "Authorization overview: request verbs").
	kubeVerbs = verbSet(`connect get list watch create update patch delete deletecollection
		exec attach portforward proxy nonresource`)

	sshVerbs = verbSet(`connect shell exec subsystem sftp_read sftp_write sftp_remove sftp_other scp
		forward_local forward_remote agent_forward x11 env`)

	// The IANA registry of HTTP methods in lower case (without PRI and *), and
	// upgrade.
	httpVerbs = verbSet(`acl baseline-control bind checkin checkout connect copy delete get head label
		link lock merge mkactivity mkcalendar mkcol mkredirectref mkworkspace move options orderpatch
		patch post propfind proppatch put query rebind report search trace unbind uncheckout unlink
		unlock update updateredirectref version-control upgrade`)

	tcpVerbs = verbSet(`connect`)

	verbsOf = map[flow.Protocol]map[flow.Verb]bool{
		flow.Postgres: sqlVerbs, flow.MySQL: sqlVerbs, flow.Kubernetes: kubeVerbs,
		flow.SSH: sshVerbs, flow.HTTP: httpVerbs, flow.TCP: tcpVerbs,
	}

	// knownVerbs is what a rule without actions is about. "unknown" is not in it:
	// what could not be read must be named to be allowed.
	knownVerbs = allVerbs()
)

func allVerbs() map[flow.Verb]bool {
	all := make(map[flow.Verb]bool)
	for _, set := range verbsOf {
		for v := range set {
			all[v] = true
		}
	}
	return all
}

// verbForms is which forms the resources of an SQL verb can have, for warnings
// about what a rule's patterns leave open. A verb that is not in it has the one
// form that formOf says.
var verbForms = map[flow.Verb]form{
	flow.Connect:  formDatabase,
	flow.Create:   formRelation | formFunction | formRole | formDatabase,
	flow.Alter:    formRelation | formFunction | formRole | formDatabase | formSetting,
	flow.Drop:     formRelation | formFunction | formRole | formDatabase,
	flow.Grant:    formRelation | formFunction | formRole | formDatabase,
	flow.Call:     formFunction,
	flow.Set:      formSetting | formRole,
	flow.Lock:     formRelation | formFunction,
	flow.Explain:  formRelation,
	flow.Listen:   formChannel,
	flow.Maintain: formRelation,
}

// formsOf is which forms the resources of a verb can have under a protocol.
func formsOf(p flow.Protocol, v flow.Verb) form {
	switch {
	case v == flow.Unknown:
		return formNone
	case p == flow.Postgres || p == flow.MySQL:
		if f, ok := verbForms[v]; ok {
			return f
		}
		return formRelation
	case p == flow.Kubernetes && v == "nonresource":
		return formPath
	case p == flow.SSH && formOfSSH(v, "") == formNone:
		return formLogin
	}
	return formOf(p, v, "x")
}

// protocolsWith lists the protocols among ps that know the verb.
func protocolsWith(v flow.Verb, ps []flow.Protocol) []flow.Protocol {
	var with []flow.Protocol
	for _, p := range ps {
		if verbsOf[p][v] || v == flow.Unknown {
			with = append(with, p)
		}
	}
	return with
}

// verbList is what a person can choose from, sorted.
func verbList(ps []flow.Protocol) []string {
	var list []string
	for _, p := range ps {
		for v := range verbsOf[p] {
			if !slices.Contains(list, string(v)) {
				list = append(list, string(v))
			}
		}
	}
	slices.Sort(list)
	return append(list, string(flow.Unknown))
}
