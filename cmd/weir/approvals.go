package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/identity"
)

const aboutIDs = "ID is a request's id as `list` shows it; its last characters are enough, 6 of them at least, as long as no other ends the same."

func approvalsCommand() *cli.Command {
	return &cli.Command{
		Name:  "approvals",
		Usage: "decide on actions that wait for another person",
		Description: "A rule with `effect: approve` stops an action in mid-flight until other people have agreed to it.\n\n" +
			"To approve means: exactly this action, of exactly this person, on exactly this database and with exactly these\n" +
			"settings may run; one byte changed is another request. Your approval is on record under your name, as a rule with\n" +
			"the identity provider's signature on it. Nobody approves what they ask for themselves.\n\n" +
			"Start with `weir approvals watch`, which shows what waits for you and takes your decisions.\n" + aboutIDs + "\n\n" +
			"Exit status: 0 done, 1 failed, 2 usage, 3 refused (you may not do this; the request is as it was).",
		Subcommands: []*cli.Command{
			approvalsListCommand(), approvalsShowCommand(), approvalsApproveCommand(),
			decideCommand("deny", "refuse a request; it ends",
				"The action is not carried out, and its client is told so. You have to be signed in (`weir login`) and in one of\n"+
					"the groups that may decide.", false),
			decideCommand("withdraw", "take back your own request, or a grant",
				"Ends a request of your own that waits, or a grant that goes on: what runs under it is cut within a second.\n"+
					"Members of the groups that decide can end grants as well.", false),
			decideCommand("break-glass", "let your own request through at once, with a reason",
				"For emergencies, where the rule allows it: your own request goes on without an approval. Your reason is on record,\n"+
					"and the request is marked until another person has reviewed it.", true),
			decideCommand("review", "close the review of a break-glass",
				"Says that you have looked at what somebody let through at once. It has to be another person than the one who did.", false),
			approvalsWatchCommand(),
		},
	}
}

func reasonFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "reason", Usage: usage}
}

func signInFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "issuer", Usage: "sign in at `URL` (default: the only one, or that of your own sign-in)"},
		&cli.BoolFlag{Name: "device", Usage: "sign in with a code on another device; few providers can do that for an approval"},
	}
}

func newApprover(c *cli.Context) *approver {
	return &approver{agent: client(c), login: identity.Login, issuer: c.String("issuer"), device: c.Bool("device")}
}

func approvalsListCommand() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "what waits for a decision",
		Description: "Lists the requests that you may see: your own, and those that your groups decide. Root sees all of them.\n" +
			"On a narrow terminal only the end of each ID is shown; it is enough for the other commands.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "also those that have ended"},
			outputFlag(),
		},
		Action: func(c *cli.Context) error {
			args, err := arguments(c)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				return usagef("`weir approvals list` takes no arguments; `weir approvals show ID` shows one request")
			}
			asJSON, err := wantJSON(c)
			if err != nil {
				return err
			}
			path := "/v1/approvals"
			if c.Bool("all") {
				path += "?all=1"
			}
			list := []approval.Request{}
			if err := client(c).Call(c.Context, http.MethodGet, path, nil, &list); err != nil {
				return denied(err)
			}
			if asJSON {
				return printJSON(os.Stdout, list)
			}
			return printApprovals(os.Stdout, list, time.Now(), terminalWidth(os.Stdout))
		},
	}
}

func approvalsShowCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "everything about one request, and how to decide it",
		ArgsUsage: "ID",
		Description: "Shows who asks for what and where, the statement and what it would do, whose approval it needs, and the command lines to\n" +
			"decide. That you have seen it is on record. Characters that do not show stand as <U+202E>.\n\n" + aboutIDs,
		Flags: []cli.Flag{outputFlag()},
		Action: func(c *cli.Context) error {
			id, err := oneID(c)
			if err != nil {
				return err
			}
			asJSON, err := wantJSON(c)
			if err != nil {
				return err
			}
			a := newApprover(c)
			if id, err = fullIDOf(c.Context, a.agent, id); err != nil {
				return denied(err)
			}
			r, err := a.request(c.Context, id)
			if err != nil {
				return denied(err)
			}
			if asJSON {
				return printJSON(os.Stdout, r)
			}
			return printApproval(os.Stdout, r, time.Now(), terminalWidth(os.Stdout))
		},
	}
}

func approvalsApproveCommand() *cli.Command {
	return &cli.Command{
		Name:      "approve",
		Usage:     "agree that a request goes on; signs in at the identity provider",
		ArgsUsage: "ID",
		Description: "Shows what is asked, then signs you in at the identity provider with the request's digest as the nonce: the token that\n" +
			"comes back is the provider's signature that you, now, agree to this very request. It counts for nothing else, and it is\n" +
			"kept in the audit log. Where the rule is content with your sign-in at this node (proof: session), that is used instead.\n\n" +
			"With --token-file you bring such a token from elsewhere: an ID token with the nonce that `weir approvals show ID` prints,\n" +
			"made after the request.\n\n" + aboutIDs,
		Flags: append(signInFlags(),
			reasonFlag("why you agree, for the record; some rules require it (`TEXT`)"),
			&cli.StringFlag{Name: "token-file", Usage: "an ID token made elsewhere for the request's nonce, in `FILE`; - is the standard input"},
			outputFlag()),
		Action: approveAction,
	}
}

func approveAction(c *cli.Context) error {
	id, err := oneID(c)
	if err != nil {
		return err
	}
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	if c.IsSet("token-file") && (c.IsSet("issuer") || c.Bool("device")) {
		return usagef("--token-file excludes --issuer and --device: a token is there already")
	}
	a := newApprover(c)
	token := ""
	if c.IsSet("token-file") {
		if token, err = readToken(c.String("token-file"), os.Stdin); err != nil {
			return err
		}
	}
	if id, err = fullIDOf(c.Context, a.agent, id); err != nil {
		return denied(err)
	}
	var r *approval.Request
	if token != "" {
		r, err = a.decide(c.Context, "approve", id, token, c.String("reason"))
	} else {
		r, err = lookAndApprove(c, a, id)
	}
	if err != nil {
		return denied(err)
	}
	return printDecision(asJSON, "approve", r)
}

// lookAndApprove shows a request and approves it.
func lookAndApprove(c *cli.Context, a *approver, id string) (*approval.Request, error) {
	r, err := a.request(c.Context, id)
	if err != nil {
		return nil, err
	}
	if r.Status != approval.Pending {
		return nil, fmt.Errorf("request %s is not waiting any more: it is %s", r.ID, statusLine(r, time.Now()))
	}
	if wantsReason(r) && strings.TrimSpace(c.String("reason")) == "" {
		return nil, usagef("approving this wants a reason: add --reason TEXT")
	}
	fmt.Fprintln(os.Stderr, strings.Join(brief(r, time.Now(), terminalWidth(os.Stderr)), "\n"))
	fmt.Fprintln(os.Stderr)
	return a.approve(c.Context, r, c.String("reason"), os.Stderr)
}

// briefText is how many lines of a statement an approver is shown before the sign-in.
const briefText = 30

// brief says in one block what is about to be approved.
func brief(r *approval.Request, now time.Time, width int) []string {
	f := []field{{label: "Approving", lines: []string{summary(r)}}}
	for _, a := range actionsOf(r) {
		lines := textLines(a.Text)
		if more := len(lines) - briefText; more > 0 {
			lines = append(lines[:briefText:briefText], fmt.Sprintf("... AND %d LINES MORE: read them with `weir approvals show %s`", more, oneLine(r.ID)))
		}
		f = append(f, field{lines: lines, text: true})
	}
	for i := range r.Preview {
		if n := r.Preview[i].Rows; n != nil {
			f = append(f, field{label: "Preview", lines: []string{fmt.Sprintf("it would touch %d rows", *n)}})
		}
	}
	f = append(f,
		field{label: "For", lines: []string{requesterName(r)}},
		field{label: "Where", lines: []string{where(r)}},
		field{label: "Request", lines: []string{oneLine(r.ID) + ", " + statusLine(r, now)}})
	return lay(f, width)
}

// decideCommand is a command that the caller's own sign-in decides.
func decideCommand(verb, usage, description string, required bool) *cli.Command {
	why := "why, for the record (`TEXT`)"
	if required {
		why = "why, for the record and the review; required (`TEXT`)"
	}
	return &cli.Command{
		Name:        verb,
		Usage:       usage,
		ArgsUsage:   "ID",
		Description: description + "\n\n" + aboutIDs,
		Flags:       []cli.Flag{reasonFlag(why), outputFlag()},
		Action: func(c *cli.Context) error {
			id, err := oneID(c)
			if err != nil {
				return err
			}
			asJSON, err := wantJSON(c)
			if err != nil {
				return err
			}
			reason := strings.TrimSpace(c.String("reason"))
			if required && reason == "" {
				return usagef("`weir approvals %s` wants a reason: add --reason TEXT", verb)
			}
			a := newApprover(c)
			if id, err = fullIDOf(c.Context, a.agent, id); err != nil {
				return denied(err)
			}
			r, err := a.decide(c.Context, verb, id, "", reason)
			if err != nil {
				return denied(err)
			}
			return printDecision(asJSON, verb, r)
		},
	}
}

func printDecision(asJSON bool, verb string, r *approval.Request) error {
	if asJSON {
		return printJSON(os.Stdout, r)
	}
	_, err := fmt.Println(decisionText(verb, r))
	return err
}

func approvalsWatchCommand() *cli.Command {
	return &cli.Command{
		Name:  "watch",
		Usage: "an inbox in the terminal: what waits, and your decisions",
		Description: "Shows what waits as it comes, with everything there is to know about it, and takes your decisions; the keys are at the\n" +
			"bottom of the screen. To approve means that exactly what you see may run, and is on record under your name.\n\n" +
			"Without a terminal, or with --plain, it prints a block for each new request and a line for each end, and takes no input.\n" +
			"With -o json it prints a request in a line each time that one changes. It goes on when the agent is started anew.",
		Flags: append(signInFlags(), &cli.BoolFlag{Name: "plain", Usage: "print lines, also in a terminal"}, outputFlag()),
		Action: func(c *cli.Context) error {
			args, err := arguments(c)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				return usagef("`weir approvals watch` takes no arguments")
			}
			asJSON, err := wantJSON(c)
			if err != nil {
				return err
			}
			a := newApprover(c)
			f := &feed{agent: a.agent, retry: feedRetry}
			switch {
			case asJSON:
				return denied(f.run(c.Context, jsonLines(os.Stdout, os.Stderr)))
			case c.Bool("plain") || !interactive():
				p := &plainInbox{out: os.Stdout, errs: os.Stderr, now: time.Now}
				return denied(f.run(c.Context, p.take))
			}
			return denied(runInbox(c.Context, a, f))
		},
	}
}
