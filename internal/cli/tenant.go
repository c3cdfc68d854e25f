package cli

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) tenantCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "tenant",
		Short: "Create, change, suspend and delete tenants",
		Long: `A tenant is an isolation unit: its workloads, images, users and log are its own.
It acts under an authority, within a jurisdiction and a classification ceiling,
by the rules of its policy baseline. The platform's administrators manage
tenants; everybody else sees their own.`,
		Example: "  provost tenant list\n  provost tenant get demo",
	}
	c.AddCommand(p.tenantCreate(), p.tenantGet(),
		tenants.listCommand(p, words{"list", "List tenants", "Lists the tenants you may see: all for the platform's administrators, else your own.",
			"  provost tenant list\n  provost tenant list -o json | jq -r '.items[].id'"}),
		p.tenantUpdate(), p.tenantSuspend(), p.tenantResume(),
		tenants.deleteCommand(p, words{"delete ID", "Delete a tenant; its log stays",
			"Deletes a tenant for good: its id is never used again. Its log stays readable,\nso that what it did can still be proved.",
			"  provost tenant delete acme"}, "tenant %s is deleted"))
	return c
}

// tenants is how tenants are had and shown.
var tenants = resource[client.Tenant]{
	list: func(ctx context.Context, s *session) iter.Seq2[client.Tenant, error] { return s.Tenants.List(ctx) },
	get:  func(ctx context.Context, s *session, id string) (client.Tenant, error) { return s.Tenants.Get(ctx, id) },
	remove: func(ctx context.Context, s *session, id string) (client.Receipt, error) {
		return s.Tenants.Delete(ctx, id)
	},
	fields: tenantFields,
	columns: columns[client.Tenant]{
		heads: []string{"ID", "STATUS", "JURISDICTION", "CEILING", "AUTHORITY", "POLICY", "CREATED"},
		row: func(t client.Tenant) []string {
			return []string{t.ID, t.Status, t.Jurisdiction, t.ClassificationCeiling, t.AuthorityBinding, t.PolicyBaseline, formatTime(t.CreatedAt)}
		},
		none: "no tenants",
	},
	name: func(t client.Tenant) (string, string) { return t.ID, t.Status },
}

func tenantFields(t client.Tenant) []field {
	fs := []field{{"id", t.ID}, {"status", t.Status}, {"jurisdiction", t.Jurisdiction}, {"classification ceiling", t.ClassificationCeiling},
		{"authority binding", t.AuthorityBinding}, {"policy baseline", t.PolicyBaseline}, {"owner", t.Owner}, {"contact", t.Contact}}
	for _, name := range slices.Sorted(maps.Keys(t.Quotas)) {
		fs = append(fs, field{"quota " + name, fmt.Sprint(t.Quotas[name])})
	}
	return append(fs, field{"created", formatTime(t.CreatedAt)}, field{"updated", formatTime(t.UpdatedAt)})
}

func (p *program) tenantCreate() *cobra.Command {
	var spec client.TenantSpec
	var quotas []string
	c := &cobra.Command{
		Use:   "create ID",
		Short: "Create a tenant",
		Long: `Creates a tenant, active from the start, with a log whose first event is its
bootstrap. The authority it is bound to and its policy baseline must exist and
be in force.`,
		Example: `  provost tenant create acme --authority-binding auth-acme --jurisdiction DE \
    --classification-ceiling restricted --policy-baseline policy-baseline
  provost tenant create acme … --owner "Acme GmbH" --quota workloads=20 --quota memory_bytes=8Gi`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, args []string) (err error) {
			spec.ID = args[0]
			if spec.Quotas, err = parseCounts("quota", quotas); err != nil {
				return err
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			t, r, err := s.Tenants.Create(c.Context(), spec)
			if err != nil {
				return err
			}
			p.done(r, "tenant %s is created", t.ID)
			return printOne(p, t, tenantFields)
		},
	}
	f := c.Flags()
	f.StringVar(&spec.AuthorityBinding, "authority-binding", "", "`id` of the authority it acts under")
	f.StringVar(&spec.Jurisdiction, "jurisdiction", "", "ISO 3166 country `code`")
	f.StringVar(&spec.ClassificationCeiling, "classification-ceiling", "", "highest `class` of data: public, internal, restricted or secret")
	f.StringVar(&spec.PolicyBaseline, "policy-baseline", "", "`policy` in force: id (newest version) or id@version")
	f.StringVar(&spec.Owner, "owner", "", "who the tenant belongs to")
	f.StringVar(&spec.Contact, "contact", "", "whom to reach")
	f.StringArrayVar(&quotas, "quota", nil, "limit as `NAME=NUMBER`: workloads, cpu_millis, memory_bytes")
	return c
}

func (p *program) tenantGet() *cobra.Command {
	return &cobra.Command{
		Use:               "get [ID]",
		Short:             "Show a tenant",
		Long:              "Shows a tenant, your own unless another is named. A deleted one is still shown.",
		Example:           "  provost tenant get\n  provost tenant get acme -o json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: tenants.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := p.open()
			if err != nil {
				return err
			}
			id := s.tenant
			if len(args) > 0 {
				id = args[0]
			}
			t, err := s.Tenants.Get(c.Context(), id)
			if err != nil {
				return err
			}
			return printOne(p, t, tenantFields)
		},
	}
}

func (p *program) tenantUpdate() *cobra.Command {
	var authority, jurisdiction, ceiling, policy, owner, contact string
	var quotas []string
	c := &cobra.Command{
		Use:   "update ID",
		Short: "Change a tenant",
		Long: `Changes what the flags name and leaves the rest as it is. A new policy baseline
or authority is in force with the answer.`,
		Example: `  provost tenant update acme --policy-baseline acme-rules@3
  provost tenant update acme --contact ops@acme.example`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: tenants.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			set := func(flag string, v *string) *string {
				if c.Flags().Changed(flag) {
					return v
				}
				return nil
			}
			patch := client.TenantPatch{AuthorityBinding: set("authority-binding", &authority), Jurisdiction: set("jurisdiction", &jurisdiction),
				ClassificationCeiling: set("classification-ceiling", &ceiling), PolicyBaseline: set("policy-baseline", &policy),
				Owner: set("owner", &owner), Contact: set("contact", &contact)}
			if len(quotas) > 0 {
				m, err := parseCounts("quota", quotas)
				if err != nil {
					return err
				}
				patch.Quotas = &m
			}
			if patch == (client.TenantPatch{}) {
				return usagef("say what to change")
			}
			return p.changeTenant(args[0], "changed", func(s *session, id string) (client.Tenant, client.Receipt, error) {
				return s.Tenants.Update(c.Context(), id, patch)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&authority, "authority-binding", "", "`id` of the authority it acts under")
	f.StringVar(&jurisdiction, "jurisdiction", "", "ISO 3166 country `code`")
	f.StringVar(&ceiling, "classification-ceiling", "", "highest `class` of data")
	f.StringVar(&policy, "policy-baseline", "", "`policy` in force: id (newest version) or id@version")
	f.StringVar(&owner, "owner", "", "who the tenant belongs to")
	f.StringVar(&contact, "contact", "", "whom to reach")
	f.StringArrayVar(&quotas, "quota", nil, "limit as `NAME=NUMBER`; all that are to hold")
	return c
}

// changeTenant is the frame of commands that change one and show the result.
func (p *program) changeTenant(id, how string, change func(*session, string) (client.Tenant, client.Receipt, error)) error {
	s, err := p.open()
	if err != nil {
		return err
	}
	t, r, err := change(s, id)
	if err != nil {
		return err
	}
	p.done(r, "tenant %s is %s", id, how)
	if len(t.JSON()) == 0 {
		return nil
	}
	return printOne(p, t, tenantFields)
}

func (p *program) tenantSuspend() *cobra.Command {
	return &cobra.Command{
		Use:               "suspend ID",
		Short:             "Suspend a tenant: it refuses every change",
		Long:              "Suspends a tenant. Until it is resumed it refuses every change, and records the refusals.",
		Example:           "  provost tenant suspend acme",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: tenants.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			return p.changeTenant(args[0], "suspended", func(s *session, id string) (client.Tenant, client.Receipt, error) {
				return s.Tenants.Suspend(c.Context(), id)
			})
		},
	}
}

func (p *program) tenantResume() *cobra.Command {
	return &cobra.Command{
		Use:               "resume ID",
		Short:             "Let a suspended tenant act again",
		Long:              "Makes a suspended tenant active again.",
		Example:           "  provost tenant resume acme",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: tenants.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			return p.changeTenant(args[0], "active again", func(s *session, id string) (client.Tenant, client.Receipt, error) {
				return s.Tenants.Resume(c.Context(), id)
			})
		},
	}
}

// joined is what a cell holds several of.
func joined(values []string) string { return strings.Join(values, ",") }
