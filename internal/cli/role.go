package cli

import (
	"context"
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) roleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "role",
		Short:   "Manage roles: named sets of permissions",
		Long:    "A role is a named set of permissions that users can have. Some are built in. The\nplatform's administrators manage those of any tenant, named with --tenant.",
		Example: "  provost role list\n  provost role create release --permission workload.create,workload.delete",
	}
	c.AddCommand(p.roleCreate(),
		roles.getCommand(p, words{"get NAME", "Show a role", "Shows a role and its permissions.", "  provost role get developer"}),
		roles.listCommand(p, words{"list", "List roles", "Lists the roles of the tenant.", "  provost role list"}))
	return c
}

// roles is how roles are had and shown.
var roles = resource[client.Role]{
	list:         func(ctx context.Context, s *session) iter.Seq2[client.Role, error] { return s.Roles.List(ctx) },
	fields:       roleFields,
	administered: true,
	columns: columns[client.Role]{
		heads: []string{"NAME", "BUILT IN", "PERMISSIONS"},
		row: func(r client.Role) []string {
			return []string{r.Name, yesNo(r.BuiltIn), fmt.Sprint(len(r.Permissions))}
		},
		none: "no roles",
	},
	name: func(r client.Role) (string, string) { return r.Name, joined(r.Permissions) },
}

func roleFields(r client.Role) []field {
	return []field{{"name", r.Name}, {"built in", yesNo(r.BuiltIn)}, {"permissions", joined(r.Permissions)}, {"created", formatTime(r.CreatedAt)}}
}

func (p *program) roleCreate() *cobra.Command {
	var spec client.RoleSpec
	c := &cobra.Command{
		Use:               "create NAME",
		Short:             "Create a role",
		Long:              "Creates a role in the tenant.",
		Example:           "  provost role create release --permission workload.create,workload.delete",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, args []string) error {
			spec.Name = args[0]
			s, err := p.administer()
			if err != nil {
				return err
			}
			role, r, err := s.Roles.Create(c.Context(), spec)
			if err != nil {
				return err
			}
			p.done(r, "role %s is created", role.Name)
			return printOne(p, role, roleFields)
		},
	}
	c.Flags().StringSliceVar(&spec.Permissions, "permission", []string{}, "`permissions` that it gives")
	return c
}
