package policy

import (
	"fmt"
	"maps"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
)

// Identity is what is known of a caller when its credential has been checked.
type Identity struct {
	Type   string // User, Service or System
	ID     string // unique within its type; with Type it is the Cedar entity id
	Tenant string
	Name   string // for people to read
	Kind   string // what sort of actor, such as "human", "service" or "delegate"

	Roles, Permissions, Groups []string

	Attributes Record // those which declarations add to Principal
}

// Principal is an Identity made ready for decisions. Make it once for each
// verified credential and share it: it is immutable and safe for concurrent use.
type Principal struct {
	schema *Schema
	entity types.Entity
	attrs  Record   // all of them, the base ones included
	key    string   // of the entity, as index keys are written
	member []string // keys of its roles and groups
	json   []byte   // its canonical form
}

// NewPrincipal checks id against the schema. It keeps the slices and records of
// id, which must not change afterwards.
func (s *Schema) NewPrincipal(id Identity) (*Principal, error) {
	switch id.Type {
	case User, Service, System:
	default:
		return nil, fmt.Errorf("principal type %q: want %s, %s or %s", id.Type, User, Service, System)
	}
	if id.ID == "" || !utf8.ValidString(id.ID) {
		return nil, fmt.Errorf("principal id %q: want a non-empty UTF-8 string", id.ID)
	}
	attrs := Record{"id": id.ID, "tenant": id.Tenant, "name": id.Name, "kind": id.Kind,
		"roles": sortedSet(id.Roles), "permissions": sortedSet(id.Permissions), "groups": sortedSet(id.Groups)}
	for name, v := range id.Attributes {
		if _, ok := attrs[name]; ok {
			return nil, fmt.Errorf("principal attribute %q is a field of Identity", name)
		}
		attrs[name] = v
	}
	if err := s.principal.check(attrs); err != nil {
		return nil, fmt.Errorf("principal %s %q: %w", id.Type, id.ID, err)
	}

	uid := types.NewEntityUID(types.EntityType(id.Type), types.String(id.ID))
	p := &Principal{schema: s, attrs: attrs, key: entityKey(uid)}
	var parents []types.EntityUID
	for _, r := range attrs["roles"].([]string) {
		parents = append(parents, types.NewEntityUID(roleType, types.String(r)))
	}
	for _, g := range attrs["groups"].([]string) {
		parents = append(parents, types.NewEntityUID(groupType, types.String(g)))
	}
	for _, uid := range parents {
		p.member = append(p.member, entityKey(uid))
	}
	p.entity = types.Entity{
		UID:        uid,
		Parents:    types.NewEntityUIDSet(parents...),
		Attributes: new(projector).project(s.principal, attrs, &all),
	}
	p.json = p.appendJSON(nil)
	return p, nil
}

// entityKey writes an entity as an index key. Types have no quote, so no two
// entities share a key.
func entityKey(uid types.EntityUID) string { return string(uid.Type) + `::"` + string(uid.ID) }

// Type is User, Service or System.
func (p *Principal) Type() string { return string(p.entity.UID.Type) }

// ID is unique among the principals of one Type.
func (p *Principal) ID() string { return string(p.entity.UID.ID) }

// Attributes are what rules see of the principal, `id` included. It is a copy.
func (p *Principal) Attributes() Record { return maps.Clone(p.attrs) }

// holds reports whether the principal has a permission.
func (p *Principal) holds(permission string) bool {
	for _, have := range p.attrs["permissions"].([]string) {
		if have == permission {
			return true
		}
	}
	return false
}

// Resource is what an action is done to.
type Resource struct {
	Type       string // a declared ResourceType
	ID         string // empty for actions on no one resource, such as a list
	Attributes Record // as declared, `tenant` included
}

// Request asks for one decision. Building it costs no conversion, and it may be
// decided by any number of goroutines as long as nobody changes it.
type Request struct {
	Principal *Principal
	Action    string // a declared verb
	Resource  Resource
	Context   Record // nil where the action declares nothing
}

// check finds the declared action of r and reports the first way in which r does
// not fit the schema.
func (r *Request) check(s *Schema) (*action, error) {
	a, ok := s.actions[r.Action]
	switch {
	case !ok:
		return nil, fmt.Errorf("action %q is not declared", r.Action)
	case r.Principal == nil:
		return nil, fmt.Errorf("no principal")
	case r.Principal.schema != s:
		return nil, fmt.Errorf("the principal was made for another schema")
	case r.Resource.Type != a.Resource:
		return nil, fmt.Errorf("%s applies to a %s, not to a %q", r.Action, a.Resource, r.Resource.Type)
	case !utf8.ValidString(r.Resource.ID):
		return nil, fmt.Errorf("the resource id is not valid UTF-8")
	}
	if err := a.resource.check(r.Resource.Attributes); err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	if err := a.context.check(r.Context); err != nil {
		return nil, fmt.Errorf("context: %w", err)
	}
	return a, nil
}
