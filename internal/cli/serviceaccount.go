package cli

import (
	"context"
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) serviceAccountCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "service-account",
		Short: "Manage the accounts of programs",
		Long: `A service account is a program's: it signs in with a client id and a secret that is
shown once, and does what its permissions and work role allow. The platform's
administrators manage those of any tenant, named with --tenant.`,
		Example: "  provost service-account create ci --permission workload.create",
	}
	c.AddCommand(p.serviceAccountCreate(),
		serviceAccounts.getCommand(p, words{"get CLIENT-ID", "Show a service account", "Shows a service account, without its secret.",
			"  provost service-account get ci"}),
		serviceAccounts.listCommand(p, words{"list", "List service accounts", "Lists the service accounts of the tenant.",
			"  provost service-account list"}),
		serviceAccounts.deleteCommand(p, words{"delete CLIENT-ID", "Delete a service account",
			"Deletes a service account. Its tokens are worth nothing from then on.", "  provost service-account delete ci"},
			"service account %s is deleted"))
	return c
}

// serviceAccounts is how service accounts are had and shown.
var serviceAccounts = resource[client.ServiceAccount]{
	list: func(ctx context.Context, s *session) iter.Seq2[client.ServiceAccount, error] {
		return s.ServiceAccounts.List(ctx)
	},
	remove: func(ctx context.Context, s *session, id string) (client.Receipt, error) {
		return s.ServiceAccounts.Delete(ctx, id)
	},
	fields:       serviceAccountFields,
	administered: true,
	columns: columns[client.ServiceAccount]{
		heads: []string{"CLIENT ID", "ROLE ID", "PERMISSIONS", "CREATED"},
		row: func(a client.ServiceAccount) []string {
			return []string{a.ClientID, a.RoleID, joined(a.Permissions), formatTime(a.CreatedAt)}
		},
		none: "no service accounts",
	},
	name: func(a client.ServiceAccount) (string, string) { return a.ClientID, a.RoleID },
}

func serviceAccountFields(a client.ServiceAccount) []field {
	return []field{{"client id", a.ClientID}, {"role id", a.RoleID}, {"permissions", joined(a.Permissions)}, {"created", formatTime(a.CreatedAt)},
		{"client secret", a.ClientSecret}}
}

func (p *program) serviceAccountCreate() *cobra.Command {
	var spec client.ServiceAccountSpec
	c := &cobra.Command{
		Use:               "create CLIENT-ID",
		Short:             "Create a service account",
		Long:              "Creates a service account of the tenant and prints its secret, which cannot be had again.",
		Example:           "  provost service-account create ci --permission workload.create\n  provost service-account create planner --role-id PLAN -o json | jq -r .client_secret",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, args []string) error {
			spec.ClientID = args[0]
			s, err := p.administer()
			if err != nil {
				return err
			}
			a, r, err := s.ServiceAccounts.Create(c.Context(), spec)
			if err != nil {
				return err
			}
			p.done(r, "service account %s is created", a.ClientID)
			if a.ClientSecret != "" {
				fmt.Fprintln(p.Err, "  keep the secret: it is not shown again")
			}
			return printOne(p, a, serviceAccountFields)
		},
	}
	c.Flags().StringVar(&spec.RoleID, "role-id", "", "work `role`, such as PLAN")
	c.Flags().StringSliceVar(&spec.Permissions, "permission", nil, "`permissions` to have")
	return c
}
