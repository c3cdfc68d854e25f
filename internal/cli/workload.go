package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) workloadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "workload",
		Short: "Run workloads and read their output",
		Long: `A workload is an image that runs in an envelope: a container, isolated and limited.
It is admitted or refused when it is created, started afterwards, and restarted
as it asks for.`,
		Example: "  provost workload create --image demo/web@sha256:… --wait\n  provost workload logs -f ID",
	}
	c.AddCommand(p.workloadCreate(),
		workloads.getCommand(p, words{"get ID", "Show a workload", "Shows a workload as it is now: status, reason, exit code and what it runs.",
			"  provost workload get 0190…\n  provost workload get 0190… -o json | jq -r .status"}),
		workloads.listCommand(p, words{"list", "List workloads", "Lists your tenant's workloads.", "  provost workload list"}),
		workloads.deleteCommand(p, words{"delete ID", "Stop a workload for good", "Stops a workload for good and removes what it ran in.",
			"  provost workload delete 0190…"}, "workload %s is deleted"),
		p.workloadLogs())
	return c
}

// workloads is how workloads are had and shown.
var workloads = resource[client.Workload]{
	list: func(ctx context.Context, s *session) iter.Seq2[client.Workload, error] { return s.Workloads.List(ctx) },
	get: func(ctx context.Context, s *session, id string) (client.Workload, error) {
		return s.Workloads.Get(ctx, id)
	},
	remove: func(ctx context.Context, s *session, id string) (client.Receipt, error) {
		return s.Workloads.Delete(ctx, id)
	},
	fields: workloadFields,
	columns: columns[client.Workload]{
		heads: []string{"ID", "NAME", "STATUS", "EXIT", "ENVELOPE", "IMAGE", "CREATED"},
		row: func(w client.Workload) []string {
			return []string{w.ID, w.Name, w.Status, exitCodeOf(w), w.EnvelopeType, w.ImageRef, formatTime(w.CreatedAt)}
		},
		none: "no workloads",
	},
	name: func(w client.Workload) (string, string) { return w.ID, strings.TrimSpace(w.Name + " " + w.Status) },
}

func workloadFields(w client.Workload) []field {
	fs := []field{{"id", w.ID}, {"name", w.Name}, {"status", w.Status}, {"reason", w.StatusReason}, {"exit code", exitCodeOf(w)}, {"envelope", w.EnvelopeType},
		{"image", w.ImageRef}, {"digest", w.ImageDigest}, {"command", strings.Join(w.Command, " ")}}
	for _, name := range slices.Sorted(maps.Keys(w.Env)) {
		fs = append(fs, field{"env " + name, w.Env[name]})
	}
	if w.Resources.MemoryBytes > 0 {
		fs = append(fs, field{"memory", formatBytes(w.Resources.MemoryBytes)})
	}
	if w.Resources.CPUMillis > 0 {
		fs = append(fs, field{"cpu", fmt.Sprintf("%dm", w.Resources.CPUMillis)})
	}
	if w.Resources.PIDs > 0 {
		fs = append(fs, field{"pids", fmt.Sprint(w.Resources.PIDs)})
	}
	return append(fs, field{"restart", w.Restart}, field{"jurisdiction", w.Jurisdiction}, field{"classification", w.Classification},
		field{"policy", w.PolicyRef}, field{"placement", oneLine(w.Placement)}, field{"created", formatTime(w.CreatedAt)})
}

func exitCodeOf(w client.Workload) string {
	if w.ExitCode == nil {
		return ""
	}
	return fmt.Sprint(*w.ExitCode)
}

// oneLine is a JSON value on one line, a string without its quotes.
func oneLine(raw json.RawMessage) string {
	var s string
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &s) == nil {
		return s
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return ""
	}
	return b.String()
}

type workloadOptions struct {
	spec        client.WorkloadSpec
	command     []string
	env         []string
	memory, cpu string
	pids        int64
	wait        bool
	timeout     time.Duration
}

func (p *program) workloadCreate() *cobra.Command {
	var o workloadOptions
	c := &cobra.Command{
		Use:   "create --image REF [flags] [-- COMMAND [ARG]…]",
		Short: "Run an image",
		Long: `Asks for an image to run. Admission wants the image pinned by digest and, as
policy says, signed by a trusted key, with a bill of materials and build
provenance; what is missing is named. The command can be given after --, or with
--command for each of its words; without one the image's own runs.

With --wait the command returns when the workload runs or has ended, and fails
when that ended badly.`,
		Example: `  provost workload create --image demo/web@sha256:… --name web --memory 64Mi --cpu 500m --wait
  provost workload create --image demo/job@sha256:… --restart never --env MODE=once -- /bin/job --fast
  provost workload create --image demo/db@sha256:… --jurisdiction DE --classification restricted`,
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 0 && len(args) > 0 {
				return usagef("%q is not expected; the command follows --", args[0])
			}
			if err := o.complete(args); err != nil {
				return err
			}
			return p.createWorkload(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.spec.ImageRef, "image", "", "image as `REPOSITORY@sha256:…`")
	f.StringVar(&o.spec.Name, "name", "", "a `name` for people")
	f.StringVar(&o.spec.EnvelopeType, "envelope", "container", "`kind` of isolation: container or vm")
	f.StringArrayVar(&o.command, "command", nil, "one `word` of the command; repeat for each")
	f.StringArrayVar(&o.env, "env", nil, "environment variable as `NAME=VALUE`")
	f.StringVar(&o.memory, "memory", "", "memory `limit`, such as 64Mi")
	f.StringVar(&o.cpu, "cpu", "", "processor `limit`, such as 500m or 2")
	f.Int64Var(&o.pids, "pids", 0, "how many processes and threads")
	f.StringVar(&o.spec.Restart, "restart", "", "`when` to start it again: never, on-failure or always")
	f.StringVar(&o.spec.Jurisdiction, "jurisdiction", "", "country `code` it has to run in")
	f.StringVar(&o.spec.Classification, "classification", "", "`class` of the data it handles")
	f.StringVar(&o.spec.PolicyRef, "policy-ref", "", "`policy` that narrows its admission further, ID or ID@VERSION")
	f.BoolVar(&o.wait, "wait", false, "wait until it runs or has ended")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how `long` to wait at most")
	if err := c.MarkFlagRequired("image"); err != nil {
		panic(err) // the flag is defined above
	}
	for name, values := range map[string][]string{"envelope": {"container", "vm"}, "restart": {"never", "on-failure", "always"}} {
		if err := c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flags are defined above
		}
	}
	return c
}

// complete reads the flags that need reading.
func (o *workloadOptions) complete(args []string) (err error) {
	if len(args) > 0 && len(o.command) > 0 {
		return usagef("give the command after -- or with --command, not both")
	}
	o.spec.Command = append(o.command, args...)
	if o.spec.Env, err = parsePairs("env", o.env); err != nil {
		return err
	}
	r := client.Resources{PIDs: o.pids}
	if o.pids < 0 {
		return usagef("--pids: %d is not a number of processes", o.pids)
	}
	if o.memory != "" {
		if r.MemoryBytes, err = parseBytes(o.memory); err != nil {
			return usagef("--memory: %w", err)
		}
	}
	if o.cpu != "" {
		if r.CPUMillis, err = parseCPU(o.cpu); err != nil {
			return usagef("--cpu: %w", err)
		}
	}
	if r != (client.Resources{}) {
		o.spec.Resources = &r
	}
	return nil
}

func (p *program) createWorkload(ctx context.Context, o workloadOptions) error {
	s, err := p.open()
	if err != nil {
		return err
	}
	w, r, err := s.Workloads.Create(ctx, o.spec)
	if err != nil {
		return err
	}
	p.done(r, "workload %s is admitted", w.ID)
	if !o.wait {
		return printOne(p, w, workloadFields)
	}
	waiting, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	now, err := s.Workloads.Wait(waiting, w.ID)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return &client.Error{Code: "STILL_PENDING", Message: fmt.Sprintf("workload %s is still pending after %s", w.ID, o.timeout), Retryable: true,
			Fix: "provost workload get " + w.ID}
	}
	if err != nil {
		return err
	}
	if err := printOne(p, now, workloadFields); err != nil {
		return err
	}
	if now.Status == "failed" || now.ExitCode != nil && *now.ExitCode != 0 {
		return fmt.Errorf("workload %s is %s: %s", now.ID, now.Status, now.StatusReason)
	}
	return nil
}

func (p *program) workloadLogs() *cobra.Command {
	o := client.LogOptions{}
	c := &cobra.Command{
		Use:   "logs ID",
		Short: "Print a workload's output",
		Long: `Prints what a workload wrote to its standard output and error, as it wrote it.
With --follow it goes on until the workload ends.`,
		Example: `  provost workload logs 0190…
  provost workload logs -f --tail 20 0190…`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: workloads.complete(p),
		RunE: func(c *cobra.Command, args []string) error {
			if err := p.textOnly(); err != nil {
				return err
			}
			if o.Tail < 0 {
				return usagef("--tail: %d is not a number of lines", o.Tail)
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			r, err := s.Workloads.Logs(c.Context(), args[0], o)
			if err != nil {
				return err
			}
			defer r.Close()
			if _, err := io.Copy(p.Out, r); err != nil {
				return fmt.Errorf("read logs of %s: %w", args[0], firstError(context.Cause(c.Context()), err))
			}
			return nil
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on until the workload ends")
	f.IntVar(&o.Tail, "tail", 0, "only the last `lines` (0: all)")
	return c
}
