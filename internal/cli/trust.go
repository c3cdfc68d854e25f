package cli

import (
	"context"
	"iter"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) trustCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trust",
		Short: "Say whose signatures on images count",
		Long: `Trust keys are the public keys whose signatures your tenant believes on images,
their build provenance and their bills of materials. An image signed by nobody
trusted is not admitted.`,
		Example: "  provost trust add ci cosign.pub\n  provost trust list",
	}
	c.AddCommand(p.trustAdd(),
		trustKeys.getCommand(p, words{"get NAME", "Show a trust key", "Shows a trust key; the key itself is in the json and yaml output.",
			"  provost trust get ci -o json"}),
		trustKeys.listCommand(p, words{"list", "List trust keys", "Lists the keys whose signatures your tenant believes.", "  provost trust list"}),
		trustKeys.deleteCommand(p, words{"delete NAME", "Stop trusting a key",
			"Stops trusting a key. What runs already goes on; what it alone vouched for is not admitted again.", "  provost trust delete ci"},
			"key %s is no longer trusted"))
	return c
}

// trustKeys is how trust keys are had and shown.
var trustKeys = resource[client.TrustKey]{
	list: func(ctx context.Context, s *session) iter.Seq2[client.TrustKey, error] { return s.TrustKeys.List(ctx) },
	get: func(ctx context.Context, s *session, id string) (client.TrustKey, error) {
		return s.TrustKeys.Get(ctx, id)
	},
	remove: func(ctx context.Context, s *session, id string) (client.Receipt, error) {
		return s.TrustKeys.Delete(ctx, id)
	},
	fields: trustFields,
	columns: columns[client.TrustKey]{
		heads: []string{"NAME", "USES", "FINGERPRINT", "CREATED"},
		row: func(k client.TrustKey) []string {
			return []string{k.Name, joined(k.Uses), shortDigest(k.Fingerprint), formatTime(k.CreatedAt)}
		},
		none: "no trusted keys; provost trust add NAME FILE adds one",
	},
	name: func(k client.TrustKey) (string, string) { return k.Name, joined(k.Uses) },
}

func trustFields(k client.TrustKey) []field {
	return []field{{"name", k.Name}, {"uses", joined(k.Uses)}, {"fingerprint", k.Fingerprint}, {"created", formatTime(k.CreatedAt)}}
}

func (p *program) trustAdd() *cobra.Command {
	var uses []string
	c := &cobra.Command{
		Use:   "add NAME FILE",
		Short: "Trust a public key",
		Long: `Trusts the PEM public key in FILE, such as cosign generate-key-pair writes, for
all uses unless --use names some. Images pushed earlier are looked at again.`,
		Example: `  provost trust add ci cosign.pub
  provost trust add builder tekton.pub --use provenance,sbom`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			pem, err := readInput(p.In, args[1], maxKey)
			if err != nil {
				return err
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			k, r, err := s.TrustKeys.Create(c.Context(), client.TrustKeySpec{Name: args[0], PublicKey: string(pem), Uses: uses})
			if err != nil {
				return err
			}
			p.done(r, "key %s is trusted for %s", k.Name, joined(k.Uses))
			return printOne(p, k, trustFields)
		},
	}
	c.Flags().StringSliceVar(&uses, "use", []string{"signature", "provenance", "sbom"}, "`what` its signatures count for")
	return c
}
