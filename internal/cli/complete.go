package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

func (p *program) completionCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a shell's completion script",
		Long: `Prints the script that lets a shell complete commands, flags and the ids of what
the server has: bash, zsh, fish or powershell.`,
		Example: `  source <(provost completion bash)
  provost completion zsh >"${fpath[1]}/_provost"
  provost completion fish >~/.config/fish/completions/provost.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(_ *cobra.Command, args []string) error {
			if err := p.textOnly(); err != nil {
				return err
			}
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(p.Out, true)
			case "zsh":
				return root.GenZshCompletion(p.Out)
			case "fish":
				return root.GenFishCompletion(p.Out, true)
			}
			return root.GenPowerShellCompletionWithDesc(p.Out)
		},
	}
}

// completeContexts needs no server.
func (p *program) completeContexts(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	c, err := p.saved()
	if err != nil || len(args) > 0 {
		return nil, noFiles
	}
	var out []string
	for _, name := range contextNames(c) {
		if strings.HasPrefix(name, typed) {
			out = append(out, cobra.CompletionWithDesc(plain(name), plain(c.Contexts[name].URL)))
		}
	}
	return out, noFiles
}

// completeSubjects offers what provost why explains.
func (p *program) completeSubjects(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if kind, rest, ok := strings.Cut(typed, "/"); ok && kind == "workload" && len(args) == 0 {
		ids, directive := workloads.complete(p)(c, nil, rest)
		for i := range ids {
			ids[i] = "workload/" + ids[i]
		}
		return ids, directive
	}
	if len(args) == 1 && args[0] == "image" {
		return images.complete(p)(c, nil, typed)
	}
	if len(args) == 0 {
		return []string{"workload/", "event/", "tenant/", "image"}, noFiles | cobra.ShellCompDirectiveNoSpace
	}
	return nil, noFiles
}
