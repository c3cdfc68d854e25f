package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set at link time for releases (-ldflags "-X …/cli.release=v1.2.3").
var release string

// version is the release, else what the toolchain knows of the build.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev"
	}
	return info.Main.Version
}

// build is what "provost version" shows.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() build {
	b := build{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Show which build this is",
		Long:              "Shows this program's version, the revision it was built from, and what built it.",
		Example:           "  provost version\n  provost version -o json",
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			if p.output != "table" {
				return p.value(b)
			}
			modified := ""
			if b.Modified {
				modified = "yes"
			}
			return p.fields([]field{{"version", b.Version}, {"revision", b.Revision}, {"time", b.Time}, {"modified", modified}, {"go", b.Go}, {"platform", b.Platform}})
		},
	}
}
