package policy

import (
	"fmt"
	"iter"

	"provost.dev/provost/internal/kernel"
)

// Snapshot is the canonical JSON that names everything a decision of b depends on beside
// its request: the schema and each set, by digest. Its digest identifies the policy in force.
//
//	{"extra":[],"platform":{"digest":"sha256:…","name":"platform","version":"1"},
//	 "schema":"sha256:…","tenant":{…}}
//
// A set that is missing is null.
func (b Bound) Snapshot() (doc []byte, sum string) {
	dst := []byte(`{"extra":[`)
	for i, set := range b.Extra {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = set.appendName(dst)
	}
	dst = append(dst, `],"platform":`...)
	dst = b.Platform.appendName(dst)
	dst = append(dst, `,"schema":`...)
	if b.Platform == nil || b.Platform.schema == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendText(dst, b.Platform.schema.digest)
	}
	dst = append(dst, `,"tenant":`...)
	dst = b.Tenant.appendName(dst)
	dst = append(dst, '}')
	return dst, digest(dst)
}

func (set *Set) appendName(dst []byte) []byte {
	if set == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, `{"digest":`...)
	dst = appendText(dst, set.digest)
	dst = append(dst, `,"name":`...)
	dst = appendText(dst, set.name)
	dst = append(dst, `,"version":`...)
	dst = appendText(dst, set.version)
	return append(dst, '}')
}

// Replay decides a recorded request again. Under the sets and schema it was
// recorded with, the decision is the recorded one.
func (b Bound) Replay(input []byte) (Decision, error) {
	_, d, err := b.replay(input)
	return d, err
}

func (b Bound) replay(input []byte) (*Request, Decision, error) {
	if b.Platform == nil || b.Platform.schema == nil {
		return nil, Decision{}, kernel.Errorf(kernel.Unavailable, "", "replay: no platform policy to decide under")
	}
	r, err := b.Platform.schema.ParseRequest(input)
	if err != nil {
		return nil, Decision{}, err
	}
	return r, b.Decide(r), nil
}

// Change is a recorded request which a proposed policy would decide otherwise.
type Change struct {
	Ref      string // what the caller calls the input, such as an event id
	Action   string
	Old, New Decision
	// Err says why the input could not be compared: it does not read, or does not fit
	// the schema in force now. The other fields but Ref may then be empty.
	Err error
}

// Rules are the ids that bring the change about: what forbids or no longer permits if
// the request would now be denied, what permits if it would now be allowed.
func (c Change) Rules() []string { return c.New.Rules }

// Diff decides recorded inputs under two policies and yields, in their order, those
// whose outcome differs and those which cannot be compared. inputs yields a
// reference and what [Request.AppendJSON] wrote.
func Diff(old, proposed Bound, inputs iter.Seq2[string, []byte]) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for ref, input := range inputs {
			c, same := compare(old, proposed, input)
			if same {
				continue
			}
			c.Ref = ref
			if !yield(c) {
				return
			}
		}
	}
}

// compare decides input under both policies; true says that they agree.
func compare(old, proposed Bound, input []byte) (Change, bool) {
	r, before, err := old.replay(input)
	if err != nil {
		return Change{Err: err}, false
	}
	after := proposed.Decide(r)
	c := Change{Action: r.Action, Old: before, New: after}
	for _, d := range []Decision{before, after} {
		switch d.Reason {
		case ReasonInput:
			c.Err = kernel.Errorf(kernel.Unprocessable, "", "replay: %s", d.Errors[0].Message)
			return c, false
		case ReasonInvalid:
			c.Err = fmt.Errorf("replay: the two policies were compiled for different schemas")
			return c, false
		}
	}
	return c, before.Allow == after.Allow
}
