package cli

import (
	"context"
	"iter"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) roleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "role",
		Short:   "Manage roles: named sets of permissions",
		Long:    "A role is a named set of permissions that users can have. Some are built in.",
		Example: "  provost role list\n  provost role create release --permission workload.create,workload.delete",
	}
	c.AddCommand(p.roleCreate(),
		roles.getCommand(p, words{"get NAME", "Show a role", "Shows a role and its permissions.", "  provost role get developer"}),
		roles.listCommand(p, words{"list", "List roles", "Lists the roles of your tenant.", "  provost role list"}),
		roles.deleteCommand(p, words{"delete NAME", "Delete a role", "Deletes a role. Who had it loses what it gave with their next request.",
			"  provost role delete release"}, "role %s is deleted"))
	return c
}

// roles is how roles are had and shown.
var roles = resource[client.Role]{
	list: func(ctx context.Context, s *session) iter.Seq2[client.Role, error] { return s.Roles.List(ctx) },
	get:  func(ctx context.Context, s *session, id string) (client.Role, error) { return s.Roles.Get(ctx, id) },
	remove: func(ctx context.Context, s *session, id string) (client.Receipt, error) {
		return s.Roles.Delete(ctx, id)
	},
	fields: roleFields,
	columns: columns[client.Role]{
		heads: []string{"NAME", "PERMISSIONS"},
		row: func(r client.Role) []string {
			return []string{r.Name, joined(r.Permissions)}
		},
		none: "no roles",
	},
	name: func(r client.Role) (string, string) { return r.Name, joined(r.Permissions) },
}

func roleFields(r client.Role) []field {
	return []field{{"name", r.Name}, {"permissions", joined(r.Permissions)}}
}

func (p *program) roleCreate() *cobra.Command {
	var spec client.RoleSpec
	c := &cobra.Command{
		Use:               "create NAME",
		Short:             "Create a role",
		Long:              "Creates a role in your tenant.",
		Example:           "  provost role create release --permission workload.create,workload.delete",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, args []string) error {
			spec.Name = args[0]
			s, err := p.open()
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
