package cli

import (
	"context"
	"iter"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) userCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "user",
		Short: "Manage the people of a tenant",
		Long: `Users are people's accounts in a tenant. What they may do comes from their roles
and, for exceptions, from permissions of their own. The platform's administrators
manage those of any tenant, named with --tenant.`,
		Example: "  provost user create ada --role developer\n  provost user update ada --disabled",
	}
	c.AddCommand(p.userCreate(),
		users.getCommand(p, words{"get USERNAME", "Show a user", "Shows a user of the tenant.", "  provost user get ada"}),
		users.listCommand(p, words{"list", "List users", "Lists the users of the tenant.", "  provost user list"}),
		p.userUpdate(),
		users.deleteCommand(p, words{"delete USERNAME", "Delete a user", "Deletes a user and ends their sessions. What they did stays in the log.",
			"  provost user delete ada"}, "user %s is deleted"))
	return c
}

// users is how users are had and shown.
var users = resource[client.User]{
	list: func(ctx context.Context, s *session) iter.Seq2[client.User, error] { return s.Users.List(ctx) },
	get:  func(ctx context.Context, s *session, id string) (client.User, error) { return s.Users.Get(ctx, id) },
	remove: func(ctx context.Context, s *session, id string) (client.Receipt, error) {
		return s.Users.Delete(ctx, id)
	},
	fields:       userFields,
	administered: true,
	columns: columns[client.User]{
		heads: []string{"USERNAME", "ROLES", "PERMISSIONS", "GROUPS", "DISABLED", "CREATED"},
		row: func(u client.User) []string {
			return []string{u.Username, joined(u.Roles), joined(u.Permissions), joined(u.Groups), yesNo(u.Disabled), formatTime(u.CreatedAt)}
		},
		none: "no users",
	},
	name: func(u client.User) (string, string) { return u.Username, joined(u.Roles) },
}

func userFields(u client.User) []field {
	return []field{{"username", u.Username}, {"roles", joined(u.Roles)}, {"permissions", joined(u.Permissions)}, {"groups", joined(u.Groups)},
		{"disabled", yesNo(u.Disabled)}, {"created", formatTime(u.CreatedAt)}}
}

func (p *program) userCreate() *cobra.Command {
	var spec client.UserSpec
	var piped, without bool
	c := &cobra.Command{
		Use:   "create USERNAME",
		Short: "Create a user",
		Long: `Creates a user of the tenant. On a terminal the password is asked for; with
--no-password nobody can sign in as the user until one is set.`,
		Example: `  provost user create ada --role developer
  provost user create ada --role developer,auditor --password-stdin <password.txt`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, args []string) (err error) {
			spec.Username = args[0]
			if !without {
				if spec.Password, err = p.password("Password of "+spec.Username, piped); err != nil {
					return err
				}
			}
			s, err := p.administer()
			if err != nil {
				return err
			}
			u, r, err := s.Users.Create(c.Context(), spec)
			if err != nil {
				return err
			}
			p.done(r, "user %s is created", u.Username)
			return printOne(p, u, userFields)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&spec.Roles, "role", nil, "`roles` to have")
	f.StringSliceVar(&spec.Permissions, "permission", nil, "`permissions` beside the roles'")
	f.StringSliceVar(&spec.Groups, "group", nil, "`groups` to be in")
	f.BoolVar(&spec.Disabled, "disabled", false, "may not sign in yet")
	f.BoolVar(&piped, "password-stdin", false, "read the password from standard input")
	f.BoolVar(&without, "no-password", false, "set no password")
	c.MarkFlagsMutuallyExclusive("password-stdin", "no-password")
	return c
}

func (p *program) userUpdate() *cobra.Command {
	var roles, permissions, groups []string
	var disabled, password, piped bool
	c := &cobra.Command{
		Use:   "update USERNAME",
		Short: "Change a user",
		Long: `Changes what the flags name and leaves the rest as it is. --role, --permission and
--group name all that the user is to have afterwards; give them an empty value
for none. A disabled user's sessions end.`,
		Example: `  provost user update ada --role developer,auditor
  provost user update ada --disabled
  provost user update ada --disabled=false --password`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: users.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			var patch client.UserPatch
			for flag, set := range map[string]func(){"role": func() { patch.Roles = &roles }, "permission": func() { patch.Permissions = &permissions },
				"group": func() { patch.Groups = &groups }, "disabled": func() { patch.Disabled = &disabled }} {
				if c.Flags().Changed(flag) {
					set()
				}
			}
			if password || piped {
				secret, err := p.password("New password of "+args[0], piped)
				if err != nil {
					return err
				}
				patch.Password = &secret
			}
			if patch == (client.UserPatch{}) {
				return usagef("say what to change")
			}
			s, err := p.administer()
			if err != nil {
				return err
			}
			u, r, err := s.Users.Update(c.Context(), args[0], patch)
			if err != nil {
				return err
			}
			p.done(r, "user %s is changed", args[0])
			return printOne(p, u, userFields)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&roles, "role", nil, "`roles` to have")
	f.StringSliceVar(&permissions, "permission", nil, "`permissions` beside the roles'")
	f.StringSliceVar(&groups, "group", nil, "`groups` to be in")
	f.BoolVar(&disabled, "disabled", false, "may no longer sign in")
	f.BoolVar(&password, "password", false, "ask for a new password")
	f.BoolVar(&piped, "password-stdin", false, "read a new password from standard input")
	return c
}
