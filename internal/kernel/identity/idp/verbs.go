package idp

import (
	_ "embed"

	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/policy"
)

// Rules are this room's part of the platform's policy.
//
//go:embed policy.cedar
var Rules string

// Declaration is what rules can say about accounts, roles, tokens and keys.
// The names User, Service, Role and Group are taken: they are the types of
// principals and of what these belong to.
var Declaration = policy.Declaration{
	Resources: []policy.ResourceType{
		{Name: "Account", Doc: "A person or service that can sign in.", Attributes: policy.Attributes{
			"name": policy.Optional(policy.String), "kind": policy.Optional(policy.String)}},
		{Name: "RoleDefinition", Doc: "A named list of permissions.", Attributes: policy.Attributes{
			"name": policy.Optional(policy.String), "permissions": policy.Optional(policy.StringSet)}},
		{Name: "Token", Doc: "A token asked for, shown or ended.", Attributes: policy.Attributes{
			"grant": policy.Optional(policy.String), "audience": policy.Optional(policy.String)}},
		{Name: "SigningKey", Doc: "A key that tokens are signed with."},
	},
	Actions: []policy.Action{
		{Verb: "identity.token.issue", Resource: "Token", Permission: "tokens.issue", Doc: "Sign in, or refresh a sign-in."},
		{Verb: "identity.token.reject", Resource: "Token", Permission: "tokens.issue", Doc: "Turn a credential away at a door."},
		{Verb: "identity.credential.accept", Resource: "Token", Permission: "tokens.issue", Doc: "Accept a name and password at a door."},
		{Verb: "identity.session.revoke", Resource: "Token", Permission: "tokens.write", Doc: "End a session and every token of it."},
		{Verb: "identity.whoami", Resource: "Account", Permission: "tokens.issue", Doc: "See oneself."},
		{Verb: "identity.key.rotate", Resource: "SigningKey", Permission: "signing-keys.write", Groups: []string{"write"}},
		{Verb: "identity.key.revoke", Resource: "SigningKey", Permission: "signing-keys.write", Groups: []string{"write"}},
		{Verb: "identity.user.create", Resource: "Account", Permission: "users.write", Groups: []string{"write"}},
		{Verb: "identity.user.update", Resource: "Account", Permission: "users.write", Groups: []string{"write"}},
		{Verb: "identity.user.delete", Resource: "Account", Permission: "users.write", Groups: []string{"write"}},
		{Verb: "identity.user.read", Resource: "Account", Permission: "users.read", Groups: []string{"read"}},
		{Verb: "identity.user.list", Resource: "Account", Permission: "users.read", Groups: []string{"read"}},
		{Verb: "identity.role.create", Resource: "RoleDefinition", Permission: "roles.write", Groups: []string{"write"}},
		{Verb: "identity.role.update", Resource: "RoleDefinition", Permission: "roles.write", Groups: []string{"write"}},
		{Verb: "identity.role.list", Resource: "RoleDefinition", Permission: "roles.read", Groups: []string{"read"}},
		{Verb: "identity.service-account.create", Resource: "Account", Permission: "service-accounts.write", Groups: []string{"write"}},
		{Verb: "identity.service-account.delete", Resource: "Account", Permission: "service-accounts.write", Groups: []string{"write"}},
		{Verb: "identity.service-account.list", Resource: "Account", Permission: "service-accounts.read", Groups: []string{"read"}},
		{Verb: "identity.workspace-secret.create", Resource: "Account", Permission: "service-accounts.write", Groups: []string{"write"}},
	},
}

// RejectToken is the verb under which doors record credentials they did not
// accept; Provider.Reject does it for them.
const RejectToken = "identity.token.reject"

// Verbs says what each verb leaves behind. Signing in needs no mandate, since
// that is how someone comes in who can renew it, and works in suspended
// tenants, which may still be read. What takes rights away governs: decisions
// made before it are made again. What adds an account or a role does not, for
// nobody has a token of it yet.
var Verbs = []govern.Verb{
	{Name: "identity.token.issue", WithoutAuthority: true, WhileSuspended: true},
	{Name: RejectToken, WithoutAuthority: true, WhileSuspended: true},
	{Name: "identity.credential.accept", WithoutAuthority: true, WhileSuspended: true},
	{Name: "identity.session.revoke", Governs: true, WithoutAuthority: true, WhileSuspended: true},
	{Name: "identity.whoami", Read: true},
	{Name: "identity.key.rotate", Governs: true, WithoutAuthority: true},
	{Name: "identity.key.revoke", Governs: true, WithoutAuthority: true},
	{Name: "identity.user.create"},
	{Name: "identity.user.update", Governs: true},
	{Name: "identity.user.delete", Governs: true},
	{Name: "identity.user.read", Read: true},
	{Name: "identity.user.list", Read: true},
	{Name: "identity.role.create"},
	{Name: "identity.role.update", Governs: true},
	{Name: "identity.role.list", Read: true},
	{Name: "identity.service-account.create"},
	{Name: "identity.service-account.delete", Governs: true},
	{Name: "identity.service-account.list", Read: true},
	{Name: "identity.workspace-secret.create"},
}
