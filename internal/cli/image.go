package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) imageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "Show images and what is proved about them",
		Long: `Images are pushed to the server's own registry with any OCI client (crane, docker,
oras), with the name user@tenant and the user's password. When one is pushed,
its signatures, provenance and bill of materials are checked against the
tenant's trust keys; admission goes by what was found.`,
		Example: "  provost image list\n  provost image get sha256:…",
	}
	c.AddCommand(p.imageList(),
		images.getCommand(p, words{"get DIGEST", "Show an image and its verification report",
			"Shows an image and what was found with it: who signed it, who built it, and what\nwas wrong with anything that was found. The whole report is in the json and yaml\noutput.",
			"  provost image get sha256:…\n  provost image get sha256:… -o json"}),
		p.imageTags(), p.imageWhy())
	return c
}

func (p *program) imageList() *cobra.Command {
	var repository string
	c := &cobra.Command{
		Use:               "list",
		Short:             "List images",
		Long:              "Lists the images in your tenant's registry, and whether what admission asks for was found with them.",
		Example:           "  provost image list\n  provost image list --repository demo/web",
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := p.open()
			if err != nil {
				return err
			}
			return printList(p, ofRepository(s.Images.List(c.Context()), repository), 0, images.columns)
		},
	}
	c.Flags().StringVar(&repository, "repository", "", "only images of this `repository`")
	return c
}

// ofRepository leaves out the images of others; "" leaves out none.
func ofRepository(seq iter.Seq2[client.Image, error], repository string) iter.Seq2[client.Image, error] {
	return func(yield func(client.Image, error) bool) {
		for i, err := range seq {
			if err == nil && repository != "" && i.Repository != repository {
				continue
			}
			if !yield(i, err) {
				return
			}
		}
	}
}

// imageReport is what table output shows of a verification report.
type imageReport struct {
	Signature  reportPart `json:"signature"`
	Provenance reportPart `json:"provenance"`
	SBOM       reportPart `json:"sbom"`
	Findings   []struct {
		Kind   string `json:"kind"`
		Reason string `json:"reason"`
		Detail string `json:"detail"`
	} `json:"findings"`
}

type reportPart struct {
	Status string `json:"status"`
	Proofs []struct {
		Keys []struct {
			Name string `json:"name"`
		} `json:"keys"`
		Build struct {
			BuilderID string `json:"builder_id"`
		} `json:"build"`
	} `json:"proofs"`
}

// words are a part's status, and the keys and builders behind it.
func (r reportPart) words() string {
	var by []string
	add := func(s string) {
		if s != "" && !slices.Contains(by, s) {
			by = append(by, s)
		}
	}
	for _, proof := range r.Proofs {
		for _, k := range proof.Keys {
			add("key " + k.Name)
		}
		add(proof.Build.BuilderID)
	}
	if len(by) == 0 {
		return r.Status
	}
	return r.Status + " by " + strings.Join(by, ", ")
}

// images is how images are had and shown.
var images = resource[client.Image]{
	list:   func(ctx context.Context, s *session) iter.Seq2[client.Image, error] { return s.Images.List(ctx) },
	get:    func(ctx context.Context, s *session, id string) (client.Image, error) { return s.Images.Get(ctx, id) },
	fields: imageFields,
	columns: columns[client.Image]{
		heads: []string{"REPOSITORY", "TAGS", "DIGEST", "SIZE", "SIGNATURE", "PROVENANCE", "SBOM", "PUSHED"},
		row: func(i client.Image) []string {
			return []string{i.Repository, joined(i.Tags), i.Digest, formatBytes(i.Size), i.Signature, i.Provenance, i.SBOM, formatTime(i.PushedAt)}
		},
		none: "no images",
	},
	name: func(i client.Image) (string, string) { return i.Digest, i.Repository + " " + joined(i.Tags) },
}

func imageFields(i client.Image) []field {
	fs := []field{{"digest", i.Digest}, {"repository", i.Repository}, {"tags", joined(i.Tags)}, {"media type", i.MediaType}, {"size", formatBytes(i.Size)},
		{"pushed", strings.TrimSpace(formatTime(i.PushedAt) + " " + i.PushedBy)}}
	var r imageReport
	if len(i.Report) == 0 || json.Unmarshal(i.Report, &r) != nil { // without a report, or one of a form unknown here
		return append(fs, field{"signature", i.Signature}, field{"provenance", i.Provenance}, field{"sbom", i.SBOM})
	}
	fs = append(fs, field{"signature", r.Signature.words()}, field{"provenance", r.Provenance.words()}, field{"sbom", r.SBOM.words()})
	for _, f := range r.Findings {
		fs = append(fs, field{"finding", strings.TrimSpace(f.Kind + " " + f.Reason + ": " + f.Detail)})
	}
	return fs
}

func (p *program) imageTags() *cobra.Command {
	return &cobra.Command{
		Use:               "tags [REPOSITORY]",
		Short:             "List tags and the digests they stand for",
		Long:              "Lists the tags of a repository, or of all. A tag can move; workloads name digests.",
		Example:           "  provost image tags demo/web",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := p.open()
			if err != nil {
				return err
			}
			repository := ""
			if len(args) > 0 {
				repository = args[0]
			}
			tags := []imageTag{}
			for i, err := range ofRepository(s.Images.List(c.Context()), repository) {
				if err != nil {
					return err
				}
				for _, name := range i.Tags {
					tags = append(tags, imageTag{i.Repository, name, i.Digest})
				}
			}
			return p.printTags(tags)
		},
	}
}

type imageTag struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag"`
	Digest     string `json:"digest"`
}

func (p *program) printTags(tags []imageTag) error {
	if p.output != "table" {
		return p.value(map[string]any{"items": tags})
	}
	if len(tags) == 0 {
		fmt.Fprintln(p.Err, "no tags")
		return nil
	}
	t := p.table([]string{"REPOSITORY", "TAG", "DIGEST"})
	for _, g := range tags {
		t.add(g.Repository, g.Tag, g.Digest)
	}
	return t.flush()
}

func (p *program) imageWhy() *cobra.Command {
	var o whyOptions
	c := &cobra.Command{
		Use:               "why DIGEST",
		Short:             "Explain what is known about an image, with proofs",
		Long:              "Explains an image as provost why does: who pushed and signed it, and what let it run.",
		Example:           "  provost image why sha256:…",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: images.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			return p.why(c.Context(), "image/"+args[0], o)
		},
	}
	o.flags(c)
	return c
}
