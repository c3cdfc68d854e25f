package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

type whyOptions struct {
	key     string
	bundle  string
	profile string
}

func (o *whyOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.key, "key", "", "the log's verifier `key`, or a file that holds it")
	c.Flags().StringVar(&o.bundle, "bundle", "", "also export exactly these events to `FILE`")
	c.Flags().StringVar(&o.profile, "profile", "ecs-evidence-baseline", "evidence `profile` of --bundle")
}

func (p *program) whyCommand() *cobra.Command {
	var o whyOptions
	c := &cobra.Command{
		Use:   "why SUBJECT",
		Short: "Explain why something is as it is, with proofs",
		Long: `Prints, as a tree, what let a workload run, what is known about an image, what led
to an event, or how a tenant, trust key, policy or authority came about: the
events, rules, signatures and people. Each event is fetched with its proof and
checked here against the log's signed checkpoint:

  ✓  proved to be in the log        ✗  not proved: exits 6
  ·  not an event of the log

--bundle exports exactly these events, for provost verify.`,
		Example: `  provost why workload/0190…
  provost why image sha256:…
  provost why event/0190… --bundle case.tar.gz
  provost why tenant/demo`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: p.completeSubjects,
		RunE: func(c *cobra.Command, args []string) error {
			subject, err := parseSubject(args)
			if err != nil {
				return err
			}
			return p.why(c.Context(), subject, o)
		},
	}
	o.flags(c)
	return c
}

var subjectKinds = []string{"workload", "image", "event", "tenant", "trust-key", "policy", "authority"}

// parseSubject reads "kind/id", "kind id" and a bare image digest.
func parseSubject(args []string) (string, error) {
	s := strings.Join(args, "/")
	if strings.HasPrefix(s, "sha256:") {
		s = "image/" + s
	}
	kind, id, _ := strings.Cut(s, "/")
	if !slices.Contains(subjectKinds, kind) || id == "" {
		return "", usagef("%q is not a subject; give workload/ID, image/sha256:…, event/ID or tenant/ID", strings.Join(args, " "))
	}
	return s, nil
}

// Bounds of an explanation that is believed to be one.
const (
	maxReasons = 10_000
	maxNesting = 64
)

// explanation is a tree with the proofs of its events.
type explanation struct {
	root     client.Reason
	verdicts map[string]verdict // by event id
	ids      []string           // in the tree's order
	keyFrom  string
}

func (p *program) why(ctx context.Context, subject string, o whyOptions) error {
	if o.bundle == "-" {
		return usagef("--bundle wants a file: the explanation is on standard output")
	}
	s, err := p.open()
	if err != nil {
		return err
	}
	x := explanation{}
	if x.root, err = p.explanationOf(ctx, s, subject); err != nil {
		return err
	}
	if x.ids, err = eventIDs(x.root); err != nil {
		return err
	}
	v, err := s.prover(o.key)
	if err != nil {
		return err
	}
	x.keyFrom = v.from
	g := p.progress()
	defer g.end()
	x.verdicts, err = v.all(ctx, x.ids, func(n int64) { g.show("proving event %d of %d", n, len(x.ids)) })
	g.end()
	if err != nil {
		return err
	}
	failed := x.compare(x.root)
	if err := p.printWhy(x); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if o.bundle == "" {
		return nil
	}
	if len(x.ids) == 0 {
		return usagef("there is no event to export")
	}
	out, err := p.export(ctx, s, exportOptions{spec: client.ExportSpec{ProfileID: o.profile, EventIDs: x.ids}, out: o.bundle, timeout: exportTimeout})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Err, "%d events are in %s, bundle hash %s; check it with: provost verify %[2]s\n", len(x.ids), out.File, out.BundleHash)
	return nil
}

// explanationOf asks the server. Who may not read the log may still read the
// event of a refusal they met, and is shown that much.
func (p *program) explanationOf(ctx context.Context, s *session, subject string) (client.Reason, error) {
	r, err := s.Why(ctx, subject)
	id, isEvent := strings.CutPrefix(subject, "event/")
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != http.StatusForbidden || !isEvent {
		return r, err
	}
	ev, readErr := s.Events.Get(ctx, id)
	if readErr != nil {
		return r, err
	}
	fmt.Fprintln(p.Err, "you may read this event, and not what it rests on: somebody who may read the log can")
	detail := fmt.Sprintf("%s by %s at %s", ev.Action, ev.Actor, formatTime(ev.OccurredAt))
	if ev.RefusalReason != "" {
		detail += ": " + ev.RefusalReason
	}
	return client.Reason{Title: ev.Type, Detail: detail, EventID: ev.ID, Sequence: ev.Sequence, Outcome: ev.Outcome, Pointer: ev.EvidencePointer, Rule: ev.RefusalCode}, nil
}

// eventIDs lists the tree's events once each.
func eventIDs(root client.Reason) (ids []string, err error) {
	seen := map[string]bool{}
	nodes := 0
	var walk func(r client.Reason, depth int) error
	walk = func(r client.Reason, depth int) error {
		if nodes++; nodes > maxReasons || depth > maxNesting {
			return &client.Error{Code: client.CodeProtocol, Message: "the explanation is larger than this program takes"}
		}
		if r.EventID != "" && !seen[r.EventID] {
			seen[r.EventID] = true
			ids = append(ids, r.EventID)
		}
		for _, c := range r.Children {
			if err := walk(c, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return ids, walk(root, 0)
}

// compare holds what the tree says about its events against the proven events
// themselves, and returns the first fault.
func (x *explanation) compare(r client.Reason) error {
	var first error
	if r.EventID != "" {
		v := x.verdicts[r.EventID]
		if v.fault == nil {
			v.fault = contradiction(r, v.event)
			x.verdicts[r.EventID] = v
		}
		if v.fault != nil {
			first = fmt.Errorf("event %s: %w", r.EventID, v.fault)
			if !errors.Is(first, client.ErrUnverified) {
				first = unverified("event %s: %v", r.EventID, v.fault)
			}
		}
	}
	for _, c := range r.Children {
		first = firstError(first, x.compare(c))
	}
	return first
}

// contradiction is what a node says about its event and the event does not.
func contradiction(r client.Reason, e client.Event) error {
	switch {
	case r.Sequence != 0 && r.Sequence != e.Sequence:
		return unverified("the explanation says it is number %d, the log says %d", r.Sequence, e.Sequence)
	case r.Outcome != "" && r.Outcome != e.Outcome:
		return unverified("the explanation says it was %s, the log says %s", r.Outcome, e.Outcome)
	case r.Pointer != "" && r.Pointer != e.EvidencePointer:
		return unverified("the explanation points to other evidence than the log")
	}
	return nil
}

func (p *program) printWhy(x explanation) error {
	if p.output != "table" {
		return p.value(x.document(x.root))
	}
	var b strings.Builder
	x.draw(&b, x.root, "", "", colored(p.Out))
	if _, err := p.Out.Write([]byte(b.String())); err != nil {
		return err
	}
	if len(x.ids) > 0 {
		held := 0
		for _, v := range x.verdicts {
			if v.fault == nil {
				held++
			}
		}
		fmt.Fprintf(p.Err, "%d of %d events proved against the log's key (%s)\n", held, len(x.ids), x.keyFrom)
	}
	return nil
}

// whyNode is a node of the json and yaml output: the server's, and our verdict.
type whyNode struct {
	client.Reason
	Verified *bool     `json:"verified,omitempty"` // absent where there is no event
	Fault    string    `json:"fault,omitempty"`
	Children []whyNode `json:"children,omitempty"`
}

func (x *explanation) document(r client.Reason) whyNode {
	n := whyNode{Reason: r}
	if r.EventID != "" {
		fault := x.verdicts[r.EventID].fault
		ok := fault == nil
		n.Verified = &ok
		if !ok {
			n.Fault = fault.Error()
		}
	}
	for _, c := range r.Children {
		n.Children = append(n.Children, x.document(c))
	}
	return n
}

// draw writes a node after first, and its children after rest.
func (x *explanation) draw(b *strings.Builder, r client.Reason, first, rest string, color bool) {
	paint := func(c, s string) string {
		if !color || s == "" {
			return s
		}
		return c + s + reset
	}
	tick := paint(dim, "·")
	var fault string
	if r.EventID != "" {
		tick = paint(green, "✓")
		if err := x.verdicts[r.EventID].fault; err != nil {
			tick, fault = paint(red, "✗"), plain(err.Error())
		}
	}
	b.WriteString(first + tick + " " + paint(bold, plain(r.Title)))
	if r.Outcome != "" && r.Outcome != "accepted" {
		b.WriteString(" " + paint(wordColors[r.Outcome], plain(r.Outcome)))
	}
	if r.Detail != "" {
		b.WriteString(": " + plain(r.Detail))
	}
	if r.Rule != "" && !strings.Contains(r.Title, r.Rule) {
		b.WriteString("  rule " + plain(r.Rule))
	}
	if r.EventID != "" {
		b.WriteString(paint(dim, fmt.Sprintf("  #%d event/%s", r.Sequence, plain(r.EventID))))
	}
	b.WriteByte('\n')
	if fault != "" {
		b.WriteString(rest + "  " + paint(red, fault) + "\n")
	}
	for i, c := range r.Children {
		if i == len(r.Children)-1 {
			x.draw(b, c, rest+"└─ ", rest+"   ", color)
		} else {
			x.draw(b, c, rest+"├─ ", rest+"│  ", color)
		}
	}
}
