package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	cedarschema "github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// Declaration is what one room adds to the schema. A plane writes it as one
// literal:
//
//	var Policy = policy.Declaration{
//		Resources: []policy.ResourceType{{
//			Name: "Workload",
//			Doc:  "A container or virtual machine of a tenant.",
//			Attributes: policy.Attributes{
//				"envelope": policy.String,
//				"image":    policy.Attributes{"digest": policy.String, "signed": policy.Bool},
//				"owner":    policy.Optional(policy.String),
//			},
//		}},
//		Actions: []policy.Action{{
//			Verb: "workload.create", Resource: "Workload", Permission: "workloads.write",
//			Groups: []string{"write"},
//		}},
//	}
type Declaration struct {
	Principal Attributes // added to User, Service and System alike
	Context   Attributes // added to the context of every action
	Resources []ResourceType
	Actions   []Action
}

// ResourceType declares what rules can say about one kind of resource. Every type
// has `tenant: String`, declared or not: it is what isolation rules compare.
type ResourceType struct {
	Name       string // capitalised Cedar identifier, unique, such as "Workload"
	Doc        string // one sentence, served with the schema
	Attributes Attributes
}

// Action declares one verb. It applies to one resource type and to every
// kind of principal.
type Action struct {
	Verb       string     // dotted lower case, unique, such as "workload.create"
	Resource   string     // the name of a declared ResourceType
	Permission string     // what a principal needs under the default rules; named when nothing permits
	Groups     []string   // action groups, for `action in Action::"write"`; declared by use
	Context    Attributes // what the request tells beyond principal and resource
	Doc        string     // one sentence, served with the schema
}

// The principal types, which every schema has. Roles and groups are their
// parents, so `principal in Role::"operator"` works as well as
// `principal.roles.contains("operator")`.
const (
	User    = "User"    // a person
	Service = "Service" // a service account or an agent
	System  = "System"  // the platform itself: jobs, timers, reconcilers

	roleType  = "Role"
	groupType = "Group"
)

var principalTypes = []string{Service, System, User}

// principalAttributes are what rules can ask of any principal.
var principalAttributes = Attributes{
	"id":          String,
	"tenant":      String,
	"name":        String,
	"kind":        String,
	"roles":       StringSet,
	"permissions": StringSet,
	"groups":      StringSet,
}

var (
	attributeName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	typeName      = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)
	verbName      = regexp.MustCompile(`^[a-z][a-z0-9_.-]*$`)

	reservedWord = map[string]bool{"true": true, "false": true, "if": true, "then": true, "else": true,
		"in": true, "like": true, "has": true, "is": true}
	reservedType = map[string]bool{User: true, Service: true, System: true, roleType: true, groupType: true,
		"Action": true, "String": true, "Long": true, "Bool": true, "Boolean": true, "Set": true, "Record": true, "Entity": true, "Extension": true}
)

// Schema is everything rules can speak about. It is immutable and safe for
// concurrent use.
type Schema struct {
	text, digest string

	principal *shape
	resources map[string]*shape
	actions   map[string]*action
	groups    []string // sorted
	verbs     []string // sorted

	validator  *validate.Validator
	validators map[string]*validate.Validator // by resource type: with its actions only
}

// action is a declared verb, resolved.
type action struct {
	Action
	entity   types.Entity // with its groups as parents
	resource *shape
	context  *shape
}

// NewSchema merges the declarations of all rooms. An error is a mistake in
// a declaration: a clash of names, or a name Cedar cannot spell.
func NewSchema(decls ...Declaration) (*Schema, error) {
	b := builder{
		schema:    &Schema{resources: map[string]*shape{}, actions: map[string]*action{}},
		principal: maps.Clone(principalAttributes),
		context:   Attributes{},
		entities:  ast.Entities{roleType: {}, groupType: {}},
		actions:   ast.Actions{},
	}
	for _, d := range decls {
		if err := merge(b.principal, d.Principal, "principal"); err != nil {
			return nil, err
		}
		if err := merge(b.context, d.Context, "context"); err != nil {
			return nil, err
		}
	}
	for _, d := range decls {
		for _, r := range d.Resources {
			if err := b.addResource(r); err != nil {
				return nil, fmt.Errorf("resource type %q: %w", r.Name, err)
			}
		}
	}
	for _, d := range decls {
		for _, a := range d.Actions {
			if err := b.addAction(a); err != nil {
				return nil, fmt.Errorf("action %q: %w", a.Verb, err)
			}
		}
	}
	return b.finish()
}

// builder gathers declarations into a Schema and its Cedar form.
type builder struct {
	schema    *Schema
	principal Attributes
	context   Attributes
	entities  ast.Entities
	actions   ast.Actions
}

// merge adds more to base, refusing a name that is there already.
func merge(base, more Attributes, where string) error {
	for name, t := range more {
		if _, ok := base[name]; ok {
			return fmt.Errorf("%s attribute %q is declared twice", where, name)
		}
		base[name] = t
	}
	return nil
}

func (b *builder) addResource(r ResourceType) error {
	if !typeName.MatchString(r.Name) || reservedType[r.Name] {
		return fmt.Errorf("want a capitalised Cedar identifier that is not reserved")
	}
	if _, ok := b.schema.resources[r.Name]; ok {
		return fmt.Errorf("declared twice")
	}
	attrs := maps.Clone(r.Attributes)
	if attrs == nil {
		attrs = Attributes{}
	}
	if t, ok := attrs["tenant"]; ok && t != String {
		return fmt.Errorf("attribute tenant must be a String")
	}
	attrs["tenant"] = String
	sh, err := newShape(attrs, 0)
	if err != nil {
		return err
	}
	b.schema.resources[r.Name] = sh
	b.entities[ast.Ident(r.Name)] = ast.Entity{Shape: attrs.record(), Annotations: doc(r.Doc)}
	return nil
}

func (b *builder) addAction(a Action) error {
	sh, ok := b.schema.resources[a.Resource]
	switch {
	case !verbName.MatchString(a.Verb):
		return fmt.Errorf("want a dotted lower-case name")
	case b.schema.actions[a.Verb] != nil:
		return fmt.Errorf("declared twice")
	case !ok:
		return fmt.Errorf("resource type %q is not declared", a.Resource)
	case a.Permission == "":
		return fmt.Errorf("no permission: a refusal could not say what is missing")
	}
	attrs := maps.Clone(b.context)
	if err := merge(attrs, a.Context, "context"); err != nil {
		return err
	}
	ctx, err := newShape(attrs, 0)
	if err != nil {
		return fmt.Errorf("context: %w", err)
	}
	var parents []types.EntityUID
	var refs []ast.ParentRef
	for _, g := range a.Groups {
		if !verbName.MatchString(g) {
			return fmt.Errorf("group %q: want a dotted lower-case name", g)
		}
		parents = append(parents, actionUID(g))
		refs = append(refs, ast.ParentRefFromID(types.String(g)))
		if !slices.Contains(b.schema.groups, g) {
			b.schema.groups = append(b.schema.groups, g)
		}
	}
	entity := types.Entity{UID: actionUID(a.Verb), Parents: types.NewEntityUIDSet(parents...)}
	b.schema.actions[a.Verb] = &action{Action: a, entity: entity, resource: sh, context: ctx}
	b.actions[types.String(a.Verb)] = a.cedar(refs, attrs)
	return nil
}

func (a Action) cedar(groups []ast.ParentRef, context Attributes) ast.Action {
	notes := doc(a.Doc)
	notes["permission"] = types.String(a.Permission)
	return ast.Action{Annotations: notes, Parents: groups, AppliesTo: &ast.AppliesTo{
		Principals: []ast.EntityTypeRef{Service, System, User},
		Resources:  []ast.EntityTypeRef{ast.EntityTypeRef(a.Resource)},
		Context:    context.record(),
	}}
}

func (b *builder) finish() (*Schema, error) {
	s := b.schema
	for _, g := range s.groups {
		if s.actions[g] != nil {
			return nil, fmt.Errorf("action %q: also used as the name of an action group", g)
		}
		b.actions[types.String(g)] = ast.Action{}
	}
	slices.Sort(s.groups)
	s.verbs = slices.Sorted(maps.Keys(s.actions))

	sh, err := newShape(b.principal, 0)
	if err != nil {
		return nil, fmt.Errorf("principal: %w", err)
	}
	s.principal = sh
	for _, t := range principalTypes {
		b.entities[ast.Ident(t)] = ast.Entity{
			ParentTypes: []ast.EntityTypeRef{groupType, roleType},
			Shape:       b.principal.record(),
		}
	}

	doc := cedarschema.NewSchemaFromAST(&ast.Schema{Entities: b.entities, Actions: b.actions})
	full, err := doc.Resolve()
	if err != nil {
		return nil, fmt.Errorf("resolve schema: %w", err)
	}
	s.validator = validate.New(full)
	s.validators = map[string]*validate.Validator{}
	for t := range s.resources {
		s.validators[t] = validate.New(s.only(full, t))
	}
	text, err := doc.MarshalCedar()
	if err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	s.text, s.digest = string(text), digest(text)
	return s, nil
}

// only returns full with the actions for resource type t left as they are and the
// others applying to nothing.
func (s *Schema) only(full *resolved.Schema, t string) *resolved.Schema {
	out := *full
	out.Actions = make(map[types.EntityUID]resolved.Action, len(full.Actions))
	for uid, a := range full.Actions {
		if d := s.actions[string(uid.ID)]; d != nil && d.Resource != t {
			a.AppliesTo = nil
		}
		out.Actions[uid] = a
	}
	return &out
}

func doc(text string) ast.Annotations {
	if text == "" {
		return ast.Annotations{}
	}
	return ast.Annotations{"doc": types.String(text)}
}

func actionUID(id string) types.EntityUID { return types.NewEntityUID("Action", types.String(id)) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Text is the schema in Cedar's schema language, as served to policy authors. Equal
// declarations give equal text, in whatever order they were made.
func (s *Schema) Text() string { return s.text }

// Digest is "sha256:" and the hex digest of Text.
func (s *Schema) Digest() string { return s.digest }

// Actions lists the declared actions by verb. It is a copy.
func (s *Schema) Actions() []Action {
	out := make([]Action, len(s.verbs))
	for i, v := range s.verbs {
		out[i] = s.actions[v].Action
	}
	return out
}

// Action returns the declaration of a verb.
func (s *Schema) Action(verb string) (Action, bool) {
	a, ok := s.actions[verb]
	if !ok {
		return Action{}, false
	}
	return a.Action, true
}
