package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/spf13/cobra"

	"provost.dev/provost/client"
)

func (p *program) eventsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "events",
		Short: "Read, follow and prove the log",
		Long: `A tenant's log holds an event for everything that was done or refused, chained by
hashes and in a Merkle tree, so that none can be changed or left out unnoticed.`,
		Example: "  provost events list --outcome refused --from 24h\n  provost events proof ID",
	}
	c.AddCommand(p.eventsList(),
		events.getCommand(p, words{"get ID", "Show an event",
			"Shows an event. The json output has all its fields; events proof shows that it is\nin the log.", "  provost events get 0190… -o json"}),
		p.eventsFollow(), p.eventsProof())
	return c
}

// events is how events are had and shown. Listing all has its own command;
// this list is for completion.
var events = resource[client.Event]{
	list: func(ctx context.Context, s *session) iter.Seq2[client.Event, error] {
		return s.Events.List(ctx, client.EventFilter{From: s.p.now().Add(-completeEvents), PageSize: completeMost})
	},
	get:     func(ctx context.Context, s *session, id string) (client.Event, error) { return s.Events.Get(ctx, id) },
	fields:  eventFields,
	columns: columns[client.Event]{heads: eventHeads, row: eventRow, none: "no events"},
	name:    func(e client.Event) (string, string) { return e.ID, e.Type + " " + e.ResourceID },
}

// eventFilter is the flags that select events.
type eventFilter struct {
	client.EventFilter
	from, to string
}

func (o *eventFilter) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.Type, "type", "", "only this event `type`, such as execution.refuse")
	f.StringVar(&o.Outcome, "outcome", "", "only accepted, refused or failed ones")
	f.StringVar(&o.Actor, "actor", "", "only what this `actor` did, name or name@tenant")
	f.StringVar(&o.ResourceID, "resource", "", "only what was done to this `resource`, such as workload/ID")
	f.StringVar(&o.CorrelationID, "correlation", "", "only events of this correlation `id`")
	f.StringVar(&o.from, "from", "", "from this `time` on: 2026-01-02T15:04:05Z, 2026-01-02 or an age such as 24h or 7d")
	f.StringVar(&o.to, "to", "", "before this `time`")
	f.Int64Var(&o.FromSequence, "from-sequence", 0, "from this sequence `number` on")
	f.Int64Var(&o.ToSequence, "to-sequence", 0, "up to this sequence `number`")
	err := c.RegisterFlagCompletionFunc("outcome", cobra.FixedCompletions([]string{"accepted", "refused", "failed"}, noFiles))
	if err != nil {
		panic(err) // the flag is defined above
	}
}

func (o *eventFilter) complete(p *program) (f client.EventFilter, err error) {
	if o.From, err = p.optionalTime("from", o.from); err != nil {
		return f, err
	}
	o.To, err = p.optionalTime("to", o.to)
	return o.EventFilter, err
}

var eventHeads = []string{"SEQ", "TIME", "OUTCOME", "TYPE", "ACTOR", "RESOURCE", "RULE", "ID"}

func eventRow(e client.Event) []string {
	return []string{fmt.Sprint(e.Sequence), formatTime(e.OccurredAt), e.Outcome, e.Type, e.Actor, e.ResourceID, e.RefusalCode, e.ID}
}

func eventFields(e client.Event) []field {
	return []field{{"id", e.ID}, {"sequence", fmt.Sprint(e.Sequence)}, {"type", e.Type}, {"time", e.OccurredAt.UTC().Format(time.RFC3339Nano)},
		{"outcome", e.Outcome}, {"actor", e.Actor}, {"action", e.Action}, {"resource", e.ResourceID}, {"correlation", e.CorrelationID},
		{"refusal class", e.RefusalClass}, {"refusal code", e.RefusalCode}, {"refusal reason", e.RefusalReason},
		{"policy snapshot", e.PolicySnapshotID}, {"authority snapshot", e.AuthoritySnapshotID}, {"evidence", e.EvidencePointer},
		{"hash", e.EventHash}, {"previous", e.PrevHash}, {"payload", oneLine(e.Payload)}}
}

func (p *program) eventsList() *cobra.Command {
	var o eventFilter
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List events in the order of the log",
		Long: `Lists the events that match all filters, oldest first. Without --limit the first
100; --limit 0 lists all.`,
		Example: `  provost events list --outcome refused --from 24h
  provost events list --resource workload/0190… --limit 0 -o json
  provost events list --correlation 0190… --from-sequence 100`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := o.complete(p)
			if err != nil {
				return err
			}
			if limit < 0 {
				return usagef("--limit: %d is not a number of events", limit)
			}
			f.PageSize = client.MaxPage
			if limit > 0 {
				f.PageSize = min(limit, client.MaxPage)
			}
			s, err := p.open()
			if err != nil {
				return err
			}
			return printList(p, s.Events.List(c.Context(), f), limit, events.columns)
		},
	}
	o.flags(c)
	c.Flags().IntVar(&limit, "limit", 100, "how `many` at most; 0 is all")
	return c
}

func (p *program) eventsFollow() *cobra.Command {
	var o eventFilter
	var after string
	c := &cobra.Command{
		Use:   "follow",
		Short: "Print events as they happen",
		Long: `Prints the events that match all filters as they are committed, beginning now, at
--from, or after an event. When the connection breaks it is made again where it
broke: none is missed and none comes twice. With -o json each event is one line.`,
		Example: `  provost events follow --outcome refused
  provost events follow --after 4711 -o json | jq -r .event_type`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := o.complete(p)
			if err != nil {
				return err
			}
			return p.follow(c.Context(), client.Follow{Filter: f, LastEventID: after})
		},
	}
	o.flags(c)
	c.Flags().StringVar(&after, "after", "", "begin after the event with this sequence number or `id`")
	return c
}

func (p *program) follow(ctx context.Context, f client.Follow) error {
	s, err := p.open()
	if err != nil {
		return err
	}
	f.Lost = func(err error, wait time.Duration) {
		fmt.Fprintf(p.Err, "connection lost (%s); trying again in %s\n", plain(err.Error()), wait.Round(100*time.Millisecond))
	}
	t := p.table(nil)
	if p.output == "table" {
		t = p.table(eventHeads)
		t.widths = []int{6, 20, 8, 26, 20, 46, 24} // a stream cannot wait for its widest cell
		if err := t.flush(); err != nil {
			return err
		}
	}
	for e, err := range s.Events.Stream(ctx, f) {
		if err != nil {
			return err
		}
		if err := p.streamed(t, e); err != nil {
			return err
		}
	}
	return nil
}

// streamed prints one event of a stream at once.
func (p *program) streamed(t *table, e client.Event) error {
	switch p.output {
	case "json":
		_, err := fmt.Fprintf(p.Out, "%s\n", e.JSON())
		return err
	case "yaml":
		if _, err := fmt.Fprintln(p.Out, "---"); err != nil {
			return err
		}
		return writeYAML(p.Out, e.JSON())
	}
	t.add(eventRow(e)...)
	return t.flush()
}

// proved is what events proof shows.
type proved struct {
	EventID    string `json:"event_id"`
	Sequence   int64  `json:"sequence"`
	Type       string `json:"event_type"`
	Verified   bool   `json:"verified"`
	Fault      string `json:"fault,omitempty"`
	Log        string `json:"log,omitempty"`
	TreeSize   int64  `json:"tree_size,omitempty"`
	RootHash   []byte `json:"root_hash,omitempty"`
	Key        string `json:"key"`
	KeyFrom    string `json:"key_from"`
	Checkpoint string `json:"checkpoint"`
}

func (p *program) eventsProof() *cobra.Command {
	var given string
	c := &cobra.Command{
		Use:   "proof ID",
		Short: "Prove that an event is in the log",
		Long: `Fetches an event and its inclusion proof and checks here, trusting the server with
nothing, that the event's hash leads to the root of a checkpoint, and that the
log's key signed the checkpoint. The key is --key, else the one pinned at
sign-in, else the server's own word. Exits 6 when the proof does not hold.`,
		Example: `  provost events proof 0190…
  provost events proof 0190… --key provost/demo+1234abcd+A…`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: events.complete(p),
		RunE:              func(c *cobra.Command, args []string) error { return p.prove(c.Context(), args[0], given) },
	}
	c.Flags().StringVar(&given, "key", "", "the log's verifier `key`, or a file that holds it")
	return c
}

func (p *program) prove(ctx context.Context, id, given string) error {
	s, err := p.open()
	if err != nil {
		return err
	}
	v, err := s.prover(given)
	if err != nil {
		return err
	}
	got, err := v.event(ctx, id)
	if err != nil && !errors.Is(err, client.ErrUnverified) {
		return err
	}
	out := proved{EventID: id, Sequence: got.event.Sequence, Type: got.event.Type, Verified: err == nil, Key: v.key, KeyFrom: v.from, Checkpoint: got.proof.Checkpoint}
	if err != nil {
		out.Fault = err.Error()
	} else {
		out.Log, out.TreeSize, out.RootHash = got.checkpoint.Origin, got.checkpoint.TreeSize, got.checkpoint.RootHash[:]
	}
	return firstError(p.printProof(out), err)
}

func (p *program) printProof(out proved) error {
	if p.output != "table" {
		return p.value(out)
	}
	status := "verified"
	if !out.Verified {
		status = "failed"
	}
	return p.fields([]field{{"event", out.EventID}, {"sequence", fmt.Sprint(out.Sequence)}, {"type", out.Type}, {"proof", status}, {"fault", out.Fault},
		{"log", out.Log}, {"tree size", fmt.Sprint(out.TreeSize)}, {"root", fmt.Sprintf("%x", out.RootHash)}, {"key", out.Key}, {"key from", out.KeyFrom}})
}
