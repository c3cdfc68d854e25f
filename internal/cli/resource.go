package cli

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
	"provost.dev/provost/internal/kernel"
)

// resource says how one kind of thing is had and shown. From it come the
// commands that are the same for all kinds: get, list, delete, and the
// completion of ids.
type resource[T document] struct {
	list func(context.Context, *session) iter.Seq2[T, error]
	// get is nil where the server only lists: the one is then looked for there.
	get    func(context.Context, *session, string) (T, error)
	remove func(context.Context, *session, string) (client.Receipt, error)
	// administered says that platform administrators manage these in any tenant.
	administered bool

	fields  func(T) []field
	columns columns[T]
	// name is the id that commands take, and a word on what it stands for.
	name func(T) (id, what string)
}

// words are what a command says about itself. All are required.
type words struct{ use, short, long, example string }

func (w words) command(args cobra.PositionalArgs, complete cobra.CompletionFunc, run func(c *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: w.use, Short: w.short, Long: w.long, Example: w.example, Args: args, ValidArgsFunction: complete, RunE: run}
}

// getCommand shows the one that its argument names.
func (r resource[T]) getCommand(p *program, w words) *cobra.Command {
	return w.command(cobra.ExactArgs(1), r.complete(p), func(c *cobra.Command, args []string) error {
		s, err := r.open(p)
		if err != nil {
			return err
		}
		item, err := r.find(c.Context(), s, args[0])
		if err != nil {
			return err
		}
		return printOne(p, item, r.fields)
	})
}

func (r resource[T]) find(ctx context.Context, s *session, id string) (T, error) {
	if r.get != nil {
		return r.get(ctx, s, id)
	}
	for item, err := range r.list(ctx, s) {
		if err != nil {
			return item, err
		}
		if name, _ := r.name(item); name == id {
			return item, nil
		}
	}
	var none T
	return none, &kernel.Error{Kind: kernel.NotFound, Msg: fmt.Sprintf("%s called %q", r.columns.none, id)}
}

func (r resource[T]) open(p *program) (*session, error) {
	if r.administered {
		return p.administer()
	}
	return p.open()
}

// listCommand shows all that the caller may see.
func (r resource[T]) listCommand(p *program, w words) *cobra.Command {
	return w.command(cobra.NoArgs, completeNothing, func(c *cobra.Command, _ []string) error {
		s, err := r.open(p)
		if err != nil {
			return err
		}
		return printList(p, r.list(c.Context(), s), 0, r.columns)
	})
}

// deleteCommand removes the one that its argument names; said is what became
// of it, with %s for its id.
func (r resource[T]) deleteCommand(p *program, w words, said string) *cobra.Command {
	return w.command(cobra.ExactArgs(1), r.complete(p), func(c *cobra.Command, args []string) error {
		s, err := r.open(p)
		if err != nil {
			return err
		}
		receipt, err := r.remove(c.Context(), s, args[0])
		if err != nil {
			return err
		}
		return p.removed(receipt, said, args[0])
	})
}

// Completion asks the server, so it has little time and offers little.
const (
	completeWithin = 2 * time.Second
	completeMost   = 100
	completeEvents = time.Hour // how old events may be
)

const noFiles = cobra.ShellCompDirectiveNoFileComp

// complete offers ids for the first argument: those that begin as typed. Errors
// are nobody's to see here.
func (r resource[T]) complete(p *program) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		s, err := r.open(p)
		if err != nil {
			return nil, noFiles
		}
		ctx, cancel := context.WithTimeout(c.Context(), completeWithin)
		defer cancel()
		var out []string
		for item, err := range r.list(ctx, s) {
			if err != nil || len(out) == completeMost {
				break
			}
			if id, what := r.name(item); strings.HasPrefix(id, typed) {
				out = append(out, cobra.CompletionWithDesc(plain(id), plain(what)))
			}
		}
		return out, noFiles
	}
}

// completeNothing keeps the shell from offering file names.
func completeNothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, noFiles
}
