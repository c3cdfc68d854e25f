package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Write, test and put policies in force",
		Long: `A policy is a Cedar text under an id and a version; versions never change. A
tenant's baseline says which one is in force. What is denied is denied by a rule
with an id, or because no rule permits it.`,
		Example: `  provost policy test rules.cedar --since 7d
  provost policy create rules.cedar && provost policy use rules`,
	}
	c.AddCommand(p.policyCreate(), p.policyGet(),
		policies.listCommand(p, words{"list", "List policy versions", "Lists the versions of your tenant's policies and of the platform's.",
			"  provost policy list"}),
		p.policyDeprecate(), p.policyUse(), p.policySchema(), p.policyTest())
	return c
}

// maxPolicy bounds a policy file, in bytes: what the server takes in a body.
const maxPolicy = 1 << 20

// policies is how policies are had and shown.
var policies = resource[client.Policy]{
	list:   func(ctx context.Context, s *session) iter.Seq2[client.Policy, error] { return s.Policies.List(ctx) },
	fields: policyFields,
	columns: columns[client.Policy]{
		heads: []string{"ID", "VERSION", "STATUS", "HASH", "CREATED", "DESCRIPTION"},
		row: func(o client.Policy) []string {
			return []string{o.ID, o.Version, o.Status, shortDigest(o.Hash), formatTime(o.CreatedAt), o.Description}
		},
		none: "no policies",
	},
	name: func(o client.Policy) (string, string) { return o.ID + "@" + o.Version, o.Status },
}

func policyFields(o client.Policy) []field {
	return []field{{"id", o.ID}, {"version", o.Version}, {"status", o.Status}, {"hash", o.Hash}, {"scope", joined(o.Scope)},
		{"description", o.Description}, {"created", formatTime(o.CreatedAt)}}
}

func (p *program) policyCreate() *cobra.Command {
	var spec client.PolicySpec
	c := &cobra.Command{
		Use:   "create FILE",
		Short: "Add a version of a policy",
		Long: `Adds a version of a policy from a file of Cedar text, which must fit the schema
(provost policy schema). It decides nothing until it is in force: provost policy
use. Without --id the file's name is the id; without --version the version is
the number after the newest.`,
		Example: `  provost policy create acme-rules.cedar
  provost policy create rules.cedar --id acme-rules --version 2026-01 --description "no :latest"
  cat rules.cedar | provost policy create - --id acme-rules`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := readInput(p.In, args[0], maxPolicy)
			if err != nil {
				return err
			}
			spec.Cedar = string(text)
			if spec.ID == "" {
				if args[0] == "-" {
					return usagef("say the policy's --id")
				}
				spec.ID = strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0]))
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			if spec.Version == "" {
				if spec.Version, err = nextVersion(c.Context(), s, spec.ID); err != nil {
					return err
				}
			}
			o, r, err := s.Policies.Create(c.Context(), spec)
			if err != nil {
				return err
			}
			p.done(r, "policy %s@%s is created; put it in force with: provost policy use %[1]s@%[2]s", o.ID, o.Version)
			return printOne(p, o, policyFields)
		},
	}
	f := c.Flags()
	f.StringVar(&spec.ID, "id", "", "the policy's `id` (default: the file's name)")
	f.StringVar(&spec.Version, "version", "", "the new `version` (default: the next number)")
	f.StringSliceVar(&spec.Scope, "scope", nil, "`what` the policy is about, for people")
	f.StringVar(&spec.Description, "description", "", "what it is for")
	return c
}

// nextVersion is the number after the highest version that is a number. Two
// callers may get the same one; the server then refuses the second.
func nextVersion(ctx context.Context, s *session, id string) (string, error) {
	highest := int64(0)
	for o, err := range s.Policies.List(ctx) {
		if err != nil {
			return "", err
		}
		if n, err := strconv.ParseInt(o.Version, 10, 63); err == nil && o.ID == id {
			highest = max(highest, n)
		}
	}
	return strconv.FormatInt(highest+1, 10), nil
}

// splitVersion reads "id" or "id@version".
func splitVersion(s string) (id, version string, err error) {
	id, version, at := strings.Cut(s, "@")
	if id == "" || at && version == "" {
		return "", "", usagef("%q is not ID or ID@VERSION", s)
	}
	return id, version, nil
}

func (p *program) policyGet() *cobra.Command {
	var cedar bool
	c := &cobra.Command{
		Use:               "get ID[@VERSION]",
		Short:             "Show a policy version",
		Long:              "Shows a version of a policy, the newest unless one is named, followed by its text.",
		Example:           "  provost policy get policy-baseline\n  provost policy get rules@2 --cedar >rules.cedar",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: policies.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			id, version, err := splitVersion(args[0])
			if err != nil {
				return err
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			o, err := s.Policies.Get(c.Context(), id, version)
			if err != nil {
				return err
			}
			if cedar {
				if err := p.textOnly(); err != nil {
					return err
				}
				_, err := io.WriteString(p.Out, o.Cedar)
				return err
			}
			if err := printOne(p, o, policyFields); err != nil || p.output != "table" || o.Cedar == "" {
				return err
			}
			_, err = fmt.Fprintf(p.Out, "\n%s\n", strings.TrimRight(o.Cedar, "\n"))
			return err
		},
	}
	c.Flags().BoolVar(&cedar, "cedar", false, "print the Cedar text only, byte for byte")
	return c
}

// shortDigest is enough of a digest to recognise it in a table.
func shortDigest(d string) string {
	const shown = len("sha256:") + 12
	if len(d) > shown {
		return d[:shown]
	}
	return d
}

func (p *program) policyDeprecate() *cobra.Command {
	return &cobra.Command{
		Use:   "deprecate ID@VERSION",
		Short: "Take a version out of force",
		Long: `Takes a version out of force for good. A tenant whose baseline it is refuses every
governed action until it has another: put that in force first.`,
		Example:           "  provost policy deprecate acme-rules@1",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: policies.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			id, version, err := splitVersion(args[0])
			if err != nil {
				return err
			}
			if version == "" {
				return usagef("say which version: %s@VERSION", id)
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			o, r, err := s.Policies.Deprecate(c.Context(), id, version)
			if err != nil {
				return err
			}
			p.done(r, "policy %s@%s is deprecated", id, version)
			return printOne(p, o, policyFields)
		},
	}
}

func (p *program) policyUse() *cobra.Command {
	return &cobra.Command{
		Use:   "use ID[@VERSION]",
		Short: "Put a policy in force",
		Long: `Makes a policy your tenant's baseline. Without a version it is always the newest
one. It is in force with the answer, and can only narrow what the platform's own
rules allow.`,
		Example:           "  provost policy use acme-rules@2\n  provost policy use policy-baseline",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: policies.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			if _, _, err := splitVersion(args[0]); err != nil {
				return err
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			t, r, err := s.Tenants.Update(c.Context(), s.tenant, client.TenantPatch{PolicyBaseline: &args[0]})
			if err != nil {
				return err
			}
			p.done(r, "tenant %s is ruled by %s", s.tenant, args[0])
			return printOne(p, t, tenantFields)
		},
	}
}

func (p *program) policySchema() *cobra.Command {
	return &cobra.Command{
		Use:               "schema",
		Short:             "Print the Cedar schema",
		Long:              "Prints the Cedar schema that policies are checked against: every action, resource type and attribute.",
		Example:           "  provost policy schema >provost.cedarschema",
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := p.textOnly(); err != nil {
				return err
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			text, err := s.Policies.Schema(c.Context())
			if err != nil {
				return err
			}
			_, err = io.WriteString(p.Out, strings.TrimRight(text, "\n")+"\n")
			return err
		},
	}
}

func (p *program) policyTest() *cobra.Command {
	var since string
	var limit int
	c := &cobra.Command{
		Use:   "test FILE",
		Short: "Replay recorded decisions against a proposed policy",
		Long: `Decides again what was decided since a time, with the rules in FILE in place of
those in force, and prints each decision that would change: the event, the
action, the outcome then and now, and the rule that decides now. Nothing is
changed.`,
		Example: `  provost policy test rules.cedar --since 7d
  provost policy test rules.cedar --since 2026-01-01 -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := readInput(p.In, args[0], maxPolicy)
			if err != nil {
				return err
			}
			t, err := p.optionalTime("since", since)
			if err != nil {
				return err
			}
			test := client.PolicyTest{Cedar: string(text), Limit: limit}
			if !t.IsZero() {
				test.Since = &t
			}
			return p.testPolicy(c.Context(), test)
		},
	}
	f := c.Flags()
	f.StringVar(&since, "since", "7d", "how far back: a `time` or an age; empty is the log's beginning")
	f.IntVar(&limit, "limit", 0, "how many decisions at most (0: as many as the server replays)")
	return c
}

// replayTimeout bounds a replay: it decides every recorded decision again.
const replayTimeout = 5 * time.Minute

func (p *program) testPolicy(ctx context.Context, test client.PolicyTest) error {
	s, err := p.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	out, err := s.Policies.Test(ctx, test)
	if err != nil {
		return err
	}
	if p.output != "table" {
		return p.document(out.JSON())
	}
	fmt.Fprintf(p.Err, "%d decisions replayed, %d would change\n", out.Evaluated, len(out.Changed))
	if len(out.Changed) == 0 {
		return nil
	}
	t := p.table([]string{"EVENT", "SEQUENCE", "ACTION", "PRINCIPAL", "RESOURCE", "CHANGE", "RULE"})
	for _, d := range out.Changed {
		t.add(d.EventID, fmt.Sprint(d.Sequence), d.Action, d.Principal, d.Resource, d.Old+" → "+d.New, cmp.Or(d.Rule, "-"))
	}
	return t.flush()
}
