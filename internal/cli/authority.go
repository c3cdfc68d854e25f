package cli

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) authorityCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "authority",
		Short: "Create, renew and show authorities",
		Long: `An authority is a mandate: its issuer lets the subject act within a scope for a
time. Tenants are bound to one, and act only while it is in force.`,
		Example: "  provost authority list\n  provost authority get auth-demo",
	}
	c.AddCommand(p.authorityCreate(),
		authorities.getCommand(p, words{"get ID", "Show an authority", "Shows the newest revision of an authority.", "  provost authority get auth-demo"}),
		authorities.listCommand(p, words{"list", "List authorities", "Lists the authorities that your tenant can be bound to.",
			"  provost authority list"}))
	return c
}

// authorities is how authorities are had and shown.
var authorities = resource[client.Authority]{
	list: func(ctx context.Context, s *session) iter.Seq2[client.Authority, error] {
		return s.Authorities.List(ctx)
	},
	get: func(ctx context.Context, s *session, id string) (client.Authority, error) {
		return s.Authorities.Get(ctx, id)
	},
	fields: authorityFields,
	columns: columns[client.Authority]{
		heads: []string{"ID", "ISSUER", "SUBJECT", "SCOPE", "VALID FROM", "VALID TO"},
		row: func(a client.Authority) []string {
			return []string{a.ID, a.Issuer, a.Subject, joined(a.Scope), formatTime(a.ValidFrom), formatTime(a.ValidTo)}
		},
		none: "no authorities",
	},
	name: func(a client.Authority) (string, string) { return a.ID, a.Subject },
}

func authorityFields(a client.Authority) []field {
	return []field{{"id", a.ID}, {"revision", fmt.Sprint(a.Revision)}, {"issuer", a.Issuer}, {"subject", a.Subject}, {"scope", joined(a.Scope)},
		{"valid from", formatTime(a.ValidFrom)}, {"valid to", formatTime(a.ValidTo)}, {"proof", a.Proof}, {"created", formatTime(a.CreatedAt)}}
}

// maxProof bounds the file of an authority's proof, in bytes.
const maxProof = 64 << 10

func (p *program) authorityCreate() *cobra.Command {
	var spec client.AuthoritySpec
	var from, to, validFor, proof string
	c := &cobra.Command{
		Use:   "create [ID]",
		Short: "Create an authority, or renew one by its id",
		Long: `Creates an authority. Under an id that exists it is a renewal, which keeps issuer
and subject and is in force at once for every tenant bound to it.`,
		Example: `  provost authority create auth-acme --issuer "Acme board" --subject acme --scope '*' --valid-for 52w
  provost authority create auth-acme --issuer "Acme board" --subject acme --scope workload \
    --valid-from 2026-01-01 --valid-to 2027-01-01 --proof mandate.txt`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				spec.ID = args[0]
			}
			if err := p.validity(&spec, from, to, validFor); err != nil {
				return err
			}
			if proof != "" {
				b, err := readInput(p.In, proof, maxProof)
				if err != nil {
					return err
				}
				spec.Proof = strings.TrimSpace(string(b))
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			a, r, err := s.Authorities.Create(c.Context(), spec)
			if err != nil {
				return err
			}
			p.done(r, "authority %s is in force until %s", a.ID, formatTime(a.ValidTo))
			return printOne(p, a, authorityFields)
		},
	}
	f := c.Flags()
	f.StringVar(&spec.Issuer, "issuer", "", "`who` grants it")
	f.StringVar(&spec.Subject, "subject", "", "`tenant` that may act under it, or * for any")
	f.StringSliceVar(&spec.Scope, "scope", nil, "`verbs` or resources it covers, such as workload or tenant.update; * for all")
	f.StringVar(&from, "valid-from", "", "begin, a `time` or date (default now)")
	f.StringVar(&to, "valid-to", "", "end, a `time` or date")
	f.StringVar(&validFor, "valid-for", "", "how long it lasts, such as 30d or 52w, instead of --valid-to")
	f.StringVar(&proof, "proof", "", "`file` with the mandate itself, - for standard input")
	c.MarkFlagsMutuallyExclusive("valid-to", "valid-for")
	c.MarkFlagsOneRequired("valid-to", "valid-for")
	return c
}

// validity fills in the time span of an authority.
func (p *program) validity(spec *client.AuthoritySpec, from, to, validFor string) (err error) {
	spec.ValidFrom = p.now().UTC().Truncate(time.Second)
	if from != "" {
		if spec.ValidFrom, err = p.optionalTime("valid-from", from); err != nil {
			return err
		}
	}
	if validFor == "" {
		spec.ValidTo, err = p.optionalTime("valid-to", to)
		return err
	}
	d, err := parseAge(validFor)
	if err != nil {
		return usagef("--valid-for: %w", err)
	}
	spec.ValidTo = spec.ValidFrom.Add(d)
	return nil
}
