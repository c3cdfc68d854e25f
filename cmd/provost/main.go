// Command provost is the whole product: the server, the client's commands, and
// the supervisor of one container.
package main

import (
	"context"
	"os"

	"provost.dev/provost/internal/app"
	"provost.dev/provost/internal/cli"
	"provost.dev/provost/internal/fabric/runtime/oci"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == oci.ShimArg {
		os.Exit(oci.ShimMain())
	}
	os.Exit(cli.Server{
		Dev: func(ctx context.Context, s cli.Streams, o cli.DevOptions) error {
			return app.Dev(ctx, app.DevOptions{DataDir: o.DataDir, Listen: o.Listen, S3Listen: o.S3Listen, Config: o.Config, Stdout: s.Out, Stderr: s.Err})
		},
		Serve: func(ctx context.Context, s cli.Streams, o cli.ServeOptions) error {
			return app.Run(ctx, app.ServeOptions{Config: o.Config, Stderr: s.Err})
		},
		Doctor: func(ctx context.Context, s cli.Streams, o cli.DoctorOptions) error {
			return app.Doctor(ctx, app.DoctorOptions{Config: o.Config, DataDir: o.DataDir, Output: o.Output, Stdout: s.Out})
		},
		ConfigPrint: func(_ context.Context, s cli.Streams, o cli.ServeOptions) error {
			cfg, err := app.LoadConfig(o.Config, os.Environ())
			if err != nil {
				return err
			}
			return cfg.Print(s.Out)
		},
	}.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
