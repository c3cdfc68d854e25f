package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

// exportTimeout is how long a bundle is waited for unless somebody says otherwise.
const exportTimeout = 10 * time.Minute

type exportOptions struct {
	spec        client.ExportSpec
	from, to    string // not read yet
	out, format string
	timeout     time.Duration
}

func (p *program) exportCommand() *cobra.Command {
	var o exportOptions
	c := &cobra.Command{
		Use:   "export --profile ID --out FILE",
		Short: "Export events as a bundle that can be verified offline",
		Long: `Asks for an evidence bundle, waits for it and writes it to a file: the events,
their chain, what they rest on, and proofs against a signed checkpoint. Anybody
can check it with provost verify, without a server.

Without a range it is the whole log. The profiles are ecs-evidence-baseline,
ecs-evidence-admissible, ecs-evidence-ncp and ecs-evidence-regulated-ml; the
part after ecs-evidence- is enough.`,
		Example: `  provost export --profile ecs-evidence-baseline --out evidence.tar.gz
  provost export --profile admissible --from 7d --out week.zip
  provost export --profile baseline --correlation 0190… --out case.tar.gz`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, t := range []struct {
				flag, text string
				into       **time.Time
			}{{"from", o.from, &o.spec.From}, {"to", o.to, &o.spec.To}} {
				at, err := p.optionalTime(t.flag, t.text)
				if err != nil {
					return err
				}
				if !at.IsZero() {
					*t.into = &at
				}
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			out, err := p.export(c.Context(), s, o)
			if err != nil {
				return err
			}
			return p.printExported(out)
		},
	}
	f := c.Flags()
	f.StringVar(&o.spec.ProfileID, "profile", "", "evidence `profile` to export by")
	f.StringVar(&o.out, "out", "", "`file` to write; - is standard output")
	f.StringVar(&o.format, "format", "", "tar.gz or zip (default: as the file's name says, else tar.gz)")
	f.StringVar(&o.from, "from", "", "events from this `time` on")
	f.StringVar(&o.to, "to", "", "events before this `time`")
	f.Int64Var(&o.spec.FromSequence, "from-sequence", 0, "events from this sequence `number` on")
	f.Int64Var(&o.spec.ToSequence, "to-sequence", 0, "events up to this sequence `number`")
	f.StringVar(&o.spec.CorrelationID, "correlation", "", "events of this correlation `id`")
	f.StringSliceVar(&o.spec.EventIDs, "event", nil, "these events, by `id`")
	f.DurationVar(&o.timeout, "timeout", exportTimeout, "how `long` to wait for the bundle")
	completeProfile := cobra.FixedCompletions(profiles, noFiles)
	if err := errors.Join(c.MarkFlagRequired("profile"), c.MarkFlagRequired("out"), c.RegisterFlagCompletionFunc("profile", completeProfile)); err != nil {
		panic(err) // the flags are defined above
	}
	return c
}

var profiles = []string{"ecs-evidence-baseline", "ecs-evidence-admissible", "ecs-evidence-ncp", "ecs-evidence-regulated-ml"}

// profileID lets people leave out what all profiles begin with.
func profileID(s string) string {
	if long := "ecs-evidence-" + s; slices.Contains(profiles, long) {
		return long
	}
	return s
}

// bundleFormat is the format asked for, else what the file's name says.
func bundleFormat(format, out string) (string, error) {
	switch {
	case format == client.TarGz || format == client.Zip:
		return format, nil
	case format != "":
		return "", usagef("--format: there is no %q; use tar.gz or zip", format)
	case strings.HasSuffix(out, ".zip"):
		return client.Zip, nil
	}
	return client.TarGz, nil
}

// exported is what provost export shows.
type exported struct {
	ExportID   string             `json:"export_id"`
	ProfileID  string             `json:"evidence_profile_id"`
	File       string             `json:"file"`
	Bytes      int64              `json:"bytes"`
	SHA256     string             `json:"sha256"` // of the file
	BundleHash string             `json:"bundle_hash"`
	Events     int64              `json:"events"`
	Scope      client.ExportScope `json:"scope"`
}

// export has a bundle made, waits for it and writes it to its file.
func (p *program) export(ctx context.Context, s *session, o exportOptions) (out exported, err error) {
	format, err := bundleFormat(o.format, o.out)
	if err != nil {
		return out, err
	}
	o.spec.ProfileID = profileID(o.spec.ProfileID)
	e, r, err := s.Exports.Create(ctx, o.spec)
	if err != nil {
		return out, err
	}
	p.done(r, "export %s is being made", e.ID)
	g := p.progress()
	defer g.end()
	g.show("waiting for export %s", e.ID)
	waiting, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	e, err = s.Exports.Wait(waiting, e.ID)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return out, &client.Error{Code: "STILL_PENDING", Message: fmt.Sprintf("export %s is not ready after %s", e.ID, o.timeout), Retryable: true}
	}
	if err != nil {
		return out, err
	}
	out = exported{ExportID: e.ID, ProfileID: e.ProfileID, File: o.out, BundleHash: e.BundleHash, Events: e.Events, Scope: e.Scope}
	out.Bytes, out.SHA256, err = p.download(ctx, s, e.ID, format, o.out, g)
	return out, err
}

func (p *program) printExported(out exported) error {
	fs := []field{{"file", out.File}, {"size", formatBytes(out.Bytes)}, {"sha256", out.SHA256}, {"profile", out.ProfileID},
		{"sequences", fmt.Sprintf("%d–%d", out.Scope.FromSequence, out.Scope.ToSequence)}, {"bundle hash", out.BundleHash}}
	if out.File == "-" { // the data on standard output is the bundle
		for _, f := range fs[1:] {
			fmt.Fprintf(p.Err, "  %-11s  %s\n", f.name, plain(f.value))
		}
		return nil
	}
	fmt.Fprintf(p.Err, "check it with: provost verify %s\n", out.File)
	if p.output != "table" {
		return p.value(out)
	}
	return p.fields(fs)
}

// download writes the bundle beside its file and renames it when it is whole:
// half a bundle never has the name of one.
func (p *program) download(ctx context.Context, s *session, id, format, out string, g *progress) (n int64, sum string, err error) {
	h := sha256.New()
	if out == "-" {
		n, err = s.Exports.Download(ctx, id, format, &counter{w: io.MultiWriter(p.Out, h), g: g, what: "downloading"})
		return n, "sha256:" + hex.EncodeToString(h.Sum(nil)), err
	}
	f, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+".*")
	if err != nil {
		return 0, "", fmt.Errorf("write bundle: %w", err)
	}
	n, err = s.Exports.Download(ctx, id, format, &counter{w: io.MultiWriter(f, h), g: g, what: "downloading"})
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), out)
	}
	if err != nil {
		return n, "", errors.Join(err, os.Remove(f.Name()))
	}
	return n, "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
