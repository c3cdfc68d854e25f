package cli

import (
	"cmp"
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// Server is the commands that need a server's code, supplied by whoever has
// it. A nil field's command does not exist. Errors are rendered as all
// others: a kernel.Error decides the exit code by its kind. A context that
// ends asks for an orderly stop, after which nil means that it was one.
type Server struct {
	// Dev runs a server with demo tenants.
	Dev func(context.Context, Streams, DevOptions) error
	// Serve runs a server as its configuration says.
	Serve func(context.Context, Streams, ServeOptions) error
	// Doctor says what this host can and cannot do, and how to fix it.
	Doctor func(context.Context, Streams, DoctorOptions) error
	// ConfigPrint writes the configuration that a server would run with,
	// secrets left out.
	ConfigPrint func(context.Context, Streams, ServeOptions) error
}

// DevOptions are the flags of "provost dev".
type DevOptions struct {
	DataDir  string // never empty
	Listen   string // HOST:PORT
	S3Listen string // HOST:PORT
	Config   string // file merged over the demo defaults; may be empty
}

// ServeOptions are the flags of "provost server" and "provost config print".
type ServeOptions struct {
	Config string // file; may be empty
}

// DoctorOptions are the flags of "provost doctor".
type DoctorOptions struct {
	Config  string // file of the server to look at; may be empty
	DataDir string // of a dev server to look at; may be empty
	Output  string // table, json or yaml
}

func (p *program) serverCommands() []*cobra.Command {
	var cmds []*cobra.Command
	if p.server.Dev != nil {
		cmds = append(cmds, p.devCommand())
	}
	if p.server.Serve != nil {
		cmds = append(cmds, p.serveCommand())
	}
	if p.server.Doctor != nil {
		cmds = append(cmds, p.doctorCommand())
	}
	if p.server.ConfigPrint != nil {
		cmds = append(cmds, p.configCommand())
	}
	return cmds
}

func (p *program) devCommand() *cobra.Command {
	var o DevOptions
	c := &cobra.Command{
		Use:   "dev",
		Short: "Start a server with demo tenants on this machine",
		Long: `Starts everything in one process, listening on loopback, with the demo tenants
"demo" and "rival" and their users, and prints how to sign in. Addresses and
passwords are also written to dev.json in the data directory. Everything is
kept there: delete it for a clean slate. SIGTERM stops it in order.`,
		Example: `  provost dev
  provost dev --data-dir /tmp/demo --listen 127.0.0.1:0`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if o.DataDir, err = devDir(o.DataDir); err != nil {
				return err
			}
			return p.server.Dev(c.Context(), p.Streams, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.DataDir, "data-dir", "", "`directory` that everything is kept in (default: $PROVOST_DATA_DIR, else provost/dev under $XDG_DATA_HOME)")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8420", "`address` of the API, the registry and the console")
	f.StringVar(&o.S3Listen, "s3-listen", "127.0.0.1:8430", "`address` of the object storage")
	f.StringVar(&o.Config, "config", "", "`file` of settings merged over the demo's")
	return c
}

// devDir is the data directory asked for, else PROVOST_DATA_DIR, else one that
// follows the XDG base directory specification.
func devDir(flag string) (string, error) {
	if dir := cmp.Or(flag, os.Getenv("PROVOST_DATA_DIR")); dir != "" {
		return dir, nil
	}
	if base := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "provost", "dev"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "share", "provost", "dev"), nil
}

func (p *program) serveCommand() *cobra.Command {
	var o ServeOptions
	c := &cobra.Command{
		Use:   "server",
		Short: "Run a server",
		Long: `Runs a server as its configuration says until SIGTERM, which it answers by
finishing what is under way. Every key of the file can be overridden by an
environment variable: PROVOST_ and the key's path in capitals. Unknown keys
are errors.`,
		Example: `  provost server --config /etc/provost/provost.yaml
  PROVOST_LISTEN=0.0.0.0:8420 provost server --config provost.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return p.server.Serve(c.Context(), p.Streams, o) },
	}
	c.Flags().StringVar(&o.Config, "config", "", "configuration `file`")
	return c
}

func (p *program) doctorCommand() *cobra.Command {
	var o DoctorOptions
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can and cannot do, and how to fix it",
		Long: `Tries what a server needs of this host (an OCI runtime, cgroups, namespaces,
disk, clock, and with --config or --data-dir that server's files) and says for
each thing that is missing how to get it. Fails when something needed is.`,
		Example: `  provost doctor
  provost doctor --config /etc/provost/provost.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Output = p.output
			o.DataDir = cmp.Or(o.DataDir, os.Getenv("PROVOST_DATA_DIR"))
			return p.server.Doctor(c.Context(), p.Streams, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Config, "config", "", "configuration `file` of the server to look at")
	f.StringVar(&o.DataDir, "data-dir", "", "data `directory` of the dev server to look at (default: $PROVOST_DATA_DIR)")
	return c
}

func (p *program) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "config",
		Short:   "Show a server's configuration",
		Long:    `Shows the configuration that a server would run with.`,
		Example: `  provost config print --config provost.yaml`,
	}
	var o ServeOptions
	show := &cobra.Command{
		Use:   "print",
		Short: "Print the configuration in force, secrets left out",
		Long: `Reads the file, the environment and the defaults as "provost server" would and
prints the result as YAML with each key's meaning. Secrets are left out.`,
		Example: `  provost config print
  provost config print --config provost.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return p.server.ConfigPrint(c.Context(), p.Streams, o) },
	}
	show.Flags().StringVar(&o.Config, "config", "", "configuration `file`")
	c.AddCommand(show)
	return c
}
