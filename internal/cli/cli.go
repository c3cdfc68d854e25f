// Package cli is the commands a person types. They talk to a server through
// package client and to nothing else; what a server or this host does itself
// (dev, server, doctor, config) is handed in as a [Server].
//
//	args ─▶ cobra ─▶ command ─▶ session (which server, tenant, token) ─▶ client
//	                    │                                                  │
//	                    └──▶ printer (table, json, yaml) on stdout ◀───────┘
//	                         refusals, progress and other words on stderr
//
// Shared by all commands and kept in one place each: exit codes and the words
// of refusals (exit.go), tables and documents (print.go), the file of contexts
// (config.go), what a command acts on (session.go), quantities and times
// (values.go).
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

// Streams are what a command reads and writes. Data goes to Out, words to Err.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs the command that args name, without the program's name, and
// returns its exit code. See [Server] for the commands it cannot do by itself.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return Server{}.Main(args, stdin, stdout, stderr)
}

// Main is the package's Main with the server's commands beside the client's.
// SIGINT and SIGTERM end the command's context; a second one ends the process.
func (s Server) Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	p := newProgram(Streams{In: stdin, Out: stdout, Err: stderr}, s)
	return p.main(ctx, args)
}

// program is one run of the command line.
type program struct {
	Streams
	server Server
	now    func() time.Time
	root   *cobra.Command

	// Flags that every command has.
	output      string // table, json or yaml
	tenant      string
	contextName string
	correlation string

	ran bool // a command began: an error before that is the caller's usage
}

func newProgram(s Streams, server Server) *program {
	p := &program{Streams: s, server: server, now: time.Now}
	p.root = p.rootCommand()
	return p
}

func (p *program) main(ctx context.Context, args []string) int {
	p.root.SetArgs(args)
	p.root.SetIn(p.In)
	p.root.SetOut(p.Out)
	p.root.SetErr(p.Err)
	cmd, err := p.root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !p.ran {
		err = &usageError{err: err, command: cmd.CommandPath()}
	}
	p.explain(cmd, err)
	return exitCode(err)
}

const rootLong = `Provost runs workloads for tenants and proves what it did.

Every change goes through one door: it is authenticated, decided by policy,
carried out and written to the tenant's tamper-evident log in one transaction.
These commands talk to a server; "provost dev" starts one here.

Data is printed on standard output, words on standard error.

Exit codes:
  0    done
  1    failed, for a reason that none of the others names
  2    usage: an unknown command or flag, or a value that is not acceptable
  3    not found, or not visible to the caller
  4    denied: not signed in, or refused by policy or authority
  5    conflict: the present state does not allow it
  6    unverified: evidence, a bundle or a proof does not hold
  75   try again: the server is busy, away or cannot be reached
  130  interrupted

Environment:
  PROVOST_URL      the server, in place of the saved context's
  PROVOST_TENANT   the tenant, as --tenant
  PROVOST_TOKEN    an access token, in place of the saved one
  PROVOST_CONFIG   the file that contexts are kept in
                   (default: provost/config.yaml under $XDG_CONFIG_HOME)
  NO_COLOR         when set, nothing is printed in colour

A flag wins over the environment, the environment over the saved context.`

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "provost",
		Short: "Run workloads for tenants, and prove what was done",
		Long:  rootLong,
		Example: `  provost dev
  provost login --url http://127.0.0.1:8420 --tenant demo --username operator
  provost workload create --image demo/web@sha256:…
  provost why workload/ID`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	root.SetVersionTemplate("provost {{.Version}}\n")
	f := root.PersistentFlags()
	f.StringVarP(&p.output, "output", "o", "table", "`format` of data: table, json or yaml")
	f.StringVar(&p.tenant, "tenant", "", "act in this `tenant`; it needs a saved sign-in there")
	f.StringVar(&p.contextName, "context", "", "act in this saved context (see provost context list)")
	f.StringVar(&p.correlation, "correlation-id", "", "record what is done under this correlation `id`")
	add := func(title string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = title
		}
		root.AddCommand(cmds...)
		if len(cmds) > 0 {
			root.AddGroup(&cobra.Group{ID: title, Title: title})
		}
	}
	add("Tenants and what is in them:", p.tenantCommand(), p.authorityCommand(), p.policyCommand(), p.decisionCommand(), p.trustCommand(),
		p.imageCommand(), p.workloadCommand(), p.userCommand(), p.roleCommand(), p.serviceAccountCommand())
	add("Evidence:", p.eventsCommand(), p.exportCommand(), p.verifyCommand(), p.whyCommand())
	add("Signing in:", p.loginCommand(), p.logoutCommand(), p.whoamiCommand(), p.contextCommand())
	add("Running a server:", p.serverCommands()...)
	root.AddCommand(p.completionCommand(root), p.versionCommand())
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(p.helpCommand(root))
	root.InitDefaultHelpCmd()
	p.finish(root)
	return root
}

// finish gives every command what they have in common: groups that answer an
// unknown verb with a usage error, and the note that a command began.
func (p *program) finish(c *cobra.Command) {
	for _, sub := range c.Commands() {
		p.finish(sub)
	}
	if c.HasSubCommands() && c.RunE == nil && c.Run == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error { return p.chooseVerb(c, args) }
		return
	}
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			if p.output != "table" && p.output != "json" && p.output != "yaml" {
				return fmt.Errorf("there is no output format %q; use table, json or yaml", p.output)
			}
			p.ran = true
			ctx := c.Context()
			if p.correlation != "" {
				ctx = client.WithCorrelation(ctx, p.correlation)
			}
			c.SetContext(ctx)
			return run(c, args)
		}
	}
}

// chooseVerb is what a group such as "provost tenant" does on its own: show
// its help on stderr and fail, for a script that forgot the verb must notice.
func (p *program) chooseVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		if c == p.root {
			return c.Help()
		}
		c.SetOut(p.Err)
		return errors.Join(c.Help(), errors.New("say what to do"))
	}
	msg := fmt.Sprintf("there is no command %q", c.CommandPath()+" "+args[0])
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(msg)
}

func (p *program) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND]…",
		Short:             "Show a command's help",
		Long:              "Shows what a command does, its flags and examples, as --help does.",
		Example:           "  provost help workload create",
		ValidArgsFunction: completeNothing,
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q", "provost "+strings.Join(args, " "))
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}
