package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) decisionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "decision",
		Short:   "Ask policy without acting",
		Long:    `Asks what policy would decide. The question and its answer are recorded; nothing else happens.`,
		Example: "  provost decision create --action workload.create --resource Workload/web",
	}
	c.AddCommand(p.decisionCreate())
	return c
}

func (p *program) decisionCreate() *cobra.Command {
	var action, resource, as, kind string
	var attributes, facts, roles, permissions, groups []string
	c := &cobra.Command{
		Use:   "create",
		Short: "Ask whether an action would be allowed",
		Long: `Asks whether you, or with --principal somebody else of your tenant, may do an
action to a resource now. Values that are JSON keep their type, all others are
strings. Exits 4 when the answer is deny.`,
		Example: `  provost decision create --action workload.create --resource Workload/web --attribute jurisdiction=DE
  provost decision create --principal developer --role developer --action tenant.update --resource Tenant/demo`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, _ []string) error {
			typ, id, _ := strings.Cut(resource, "/")
			q := client.Question{Action: action, Resource: client.QuestionResource{Type: typ, ID: id}}
			var err error
			if q.Resource.Attributes, err = parseValues("attribute", attributes); err != nil {
				return err
			}
			if q.Context, err = parseValues("fact", facts); err != nil {
				return err
			}
			if as != "" {
				q.Principal = &client.QuestionPrincipal{Name: as, Kind: kind, Roles: roles, Permissions: permissions, Groups: groups}
			} else if len(roles)+len(permissions)+len(groups) > 0 || kind != "" {
				return usagef("--kind, --role, --permission and --group describe --principal")
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			d, r, err := s.Decisions.Create(c.Context(), q)
			if err != nil {
				return err
			}
			p.done(r, "policy says %s", d.Decision)
			if err := printOne(p, d, decisionFields); err != nil || d.Decision == "allow" {
				return err
			}
			return &quietError{exitDenied}
		},
	}
	f := c.Flags()
	f.StringVar(&action, "action", "", "`verb` to decide, such as workload.create")
	f.StringVar(&resource, "resource", "", "what it would be done to, as `TYPE/ID`")
	f.StringArrayVar(&attributes, "attribute", nil, "attribute of the resource as `NAME=VALUE`")
	f.StringArrayVar(&facts, "fact", nil, "fact of the decision's context as `NAME=VALUE`")
	f.StringVar(&as, "principal", "", "ask for somebody else: their `name`")
	f.StringVar(&kind, "kind", "", "human or service")
	f.StringSliceVar(&roles, "role", nil, "`roles` of --principal")
	f.StringSliceVar(&permissions, "permission", nil, "`permissions` of --principal")
	f.StringSliceVar(&groups, "group", nil, "`groups` of --principal")
	for _, name := range []string{"action", "resource"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return c
}

func decisionFields(d client.Decision) []field {
	return []field{{"decision", d.Decision}, {"rules", joined(d.Rules)}, {"reason", d.Reason}, {"fix", d.Fix},
		{"policy snapshot", d.PolicySnapshotID}, {"authority snapshot", d.AuthoritySnapshotID}, {"evidence", d.EvidencePointer}}
}
