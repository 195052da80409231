package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// The scripts ask the binary itself for what may come next
// (--generate-bash-completion, urfave/cli).
const (
	bashCompletion = `_weir() {
  local cur=${COMP_WORDS[COMP_CWORD]} words
  if [[ $cur == -* ]]; then
    words=$("${COMP_WORDS[@]:0:COMP_CWORD}" "$cur" --generate-bash-completion 2>/dev/null)
  else
    words=$("${COMP_WORDS[@]:0:COMP_CWORD}" --generate-bash-completion 2>/dev/null)
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o bashdefault -o default -F _weir weir
`
	zshCompletion = `#compdef weir
_weir() {
  local -a words
  words=(${(f)"$(${words[@]:0:$((CURRENT-1))} --generate-bash-completion 2>/dev/null)"})
  _describe 'values' words
}
compdef _weir weir
`
	fishCompletion = `function __weir_complete
  set -l line (commandline -opc)
  $line --generate-bash-completion 2>/dev/null
end
complete -c weir -f -a '(__weir_complete)'
`
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "a completion script for bash, zsh or fish",
		ArgsUsage:   "bash|zsh|fish",
		Description: "For bash: weir completion bash > /etc/bash_completion.d/weir",
		Action: func(c *cli.Context) error {
			scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
			script, ok := scripts[c.Args().First()]
			if !ok || c.NArg() != 1 {
				return usagef("weir completion takes one of bash, zsh, fish")
			}
			fmt.Print(script)
			return nil
		},
	}
}
