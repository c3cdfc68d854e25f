package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/evidence/bundle"
)

type verifyOptions struct {
	keys   []string
	strict bool
}

func (p *program) verifyCommand() *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify BUNDLE",
		Short: "Check an evidence bundle, offline",
		Long: `Checks a bundle, an archive or a folder, without server and network: every hash,
link, pointer and signature, and the Merkle proof of every event against the
checkpoint. What is wrong is named with its file, event and reason, and the exit
code is 6.

With --key only that log's signature counts; get it from somebody you trust, not
from whom the bundle is. Without it the bundle's own key is used, which shows
that the bundle is whole, not who made it. Bundles of other producers are
checked by the evidence contract's rules; --strict holds them to ours.`,
		Example: `  provost verify evidence.tar.gz
  provost verify evidence.zip --key provost/demo+1234abcd+A…
  provost verify bundle/ -o json | jq .first_fault`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return p.verify(c.Context(), args[0], o) },
	}
	c.Flags().StringArrayVar(&o.keys, "key", nil, "verifier `key` of the log, or a file that holds it; repeat for more")
	c.Flags().BoolVar(&o.strict, "strict", false, "hold bundles of other producers to our rules")
	return c
}

func (p *program) verify(ctx context.Context, path string, o verifyOptions) error {
	g := p.progress()
	defer g.end()
	opts := bundle.Options{Strict: o.strict, Now: p.now, Progress: func(pr bundle.Progress) {
		switch {
		case pr.Phase == "events" && pr.Total > 0:
			g.show("checking events: %d of %d (%d%%)", pr.Done, pr.Total, pr.Done*100/pr.Total)
		case pr.Phase == "events":
			g.show("checking events: %d", pr.Done)
		default:
			g.show("reading: %s", formatBytes(pr.Done))
		}
	}}
	for _, given := range o.keys {
		key, err := readKey(given)
		if err != nil {
			return err
		}
		opts.Keys = append(opts.Keys, key)
	}
	r, err := bundle.Verify(ctx, path, opts)
	g.end()
	if e, ok := errors.AsType[*kernel.Error](err); ok && e.Kind == kernel.Invalid && e.Field == "" {
		return unverified("%s", e.Error()) // a changed byte can make a bundle look like none
	}
	if err != nil {
		return err
	}
	if err := p.printReport(r); err != nil {
		return err
	}
	if r.OK {
		return nil
	}
	if r.First == nil {
		return unverified("the bundle has %d faults", r.Faults)
	}
	return unverified("%s", r.First)
}

func (p *program) printReport(r *bundle.Report) error {
	if p.output != "table" {
		return p.value(r)
	}
	t := p.table([]string{"STEP", "CHECK", "RESULT", "NOTE"})
	for _, s := range r.Steps {
		note := s.Note
		switch {
		case s.Fault != nil:
			note = s.Fault.String()
		case s.Warning != nil:
			note = s.Warning.String()
		}
		if n := s.Faults + s.Warnings; n > 1 {
			note += fmt.Sprintf(" (and %d more)", n-1)
		}
		t.add(fmt.Sprint(s.Number), s.Name, string(s.Status), note)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(p.Out); err != nil {
		return err
	}
	return p.fields(reportFields(r))
}

func reportFields(r *bundle.Report) []field {
	result := "verified"
	if !r.OK {
		result = "failed"
	}
	fs := []field{{"result", result}, {"bundle", r.Bundle}, {"tenant", r.TenantID}, {"provider", r.ProviderID}, {"profile", r.Profile}, {"created", r.CreatedAt},
		{"events", fmt.Sprintf("%d, sequences %d to %d", r.Scope.Events, r.Scope.From, r.Scope.To)}, {"bundle hash", r.BundleHash}}
	if c := r.Checkpoint; c != nil {
		fs = append(fs, field{"checkpoint", fmt.Sprintf("%s at %d", c.Origin, c.TreeSize)})
	}
	if s := r.Signature; s != nil {
		fs = append(fs, field{"signed by", s.Key}, field{"trust", trustWords(s.Trust)})
	}
	if r.Foreign {
		fs = append(fs, field{"producer", "another one: what only a signed file list would protect is not protected"})
	}
	return fs
}

func trustWords(t bundle.Trust) string {
	if t == bundle.FirstUse {
		return "the bundle's own key: it is whole, but compare the key with one had elsewhere (--key)"
	}
	return "a key you gave"
}
