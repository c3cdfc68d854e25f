package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"provost.dev/provost/internal/kernel"
)

func (p *program) contextCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "context",
		Short: "List saved sign-ins and choose between them",
		Long: `A context is a saved sign-in: a server, a tenant and a user. Commands act in the
current one unless --context, --tenant or the environment says otherwise.`,
		Example: "  provost context list\n  provost context use auditor@demo",
	}
	c.AddCommand(p.contextList(), p.contextUse(), p.contextGet(), p.contextDelete())
	return c
}

// savedContext is a context as it is shown: without its tokens.
type savedContext struct {
	Name     string `json:"name"`
	Current  bool   `json:"current"`
	URL      string `json:"url"`
	Tenant   string `json:"tenant"`
	Username string `json:"username"`
	LogKey   string `json:"log_key,omitempty"`
	Until    string `json:"session_until,omitempty"`
}

func show(c *contexts, name string) savedContext {
	f := c.Contexts[name]
	until := f.RefreshExpires
	if f.RefreshToken == "" {
		until = f.AccessExpires
	}
	return savedContext{Name: name, Current: name == c.Current, URL: f.URL, Tenant: f.Tenant, Username: f.Username, LogKey: f.LogKey, Until: formatTime(until)}
}

// saved reads the file of contexts.
func (p *program) saved() (*contexts, error) {
	path, err := contextsPath()
	if err != nil {
		return nil, err
	}
	return readContexts(path)
}

func noContext(name string) error {
	if name == "" {
		return &kernel.Error{Kind: kernel.NotFound, Msg: "no context is current", Fix: "provost context use NAME, or provost login"}
	}
	return &kernel.Error{Kind: kernel.NotFound, Msg: fmt.Sprintf("there is no context %q", name), Fix: "provost context list shows them, provost login makes one"}
}

func contextNames(c *contexts) []string {
	names := make([]string, 0, len(c.Contexts))
	for name := range c.Contexts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (p *program) contextList() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "List the saved contexts",
		Long:              "Lists the saved contexts; the current one is marked.",
		Example:           "  provost context list",
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE: func(*cobra.Command, []string) error {
			c, err := p.saved()
			if err != nil {
				return err
			}
			items := []savedContext{}
			for _, name := range contextNames(c) {
				items = append(items, show(c, name))
			}
			if p.output != "table" {
				return p.value(map[string]any{"items": items})
			}
			if len(items) == 0 {
				fmt.Fprintln(p.Err, "no contexts; provost login makes one")
				return nil
			}
			t := p.table([]string{"", "NAME", "URL", "TENANT", "USER", "SESSION UNTIL"})
			for _, i := range items {
				mark := ""
				if i.Current {
					mark = "*"
				}
				t.add(mark, i.Name, i.URL, i.Tenant, i.Username, i.Until)
			}
			return t.flush()
		},
	}
}

func (p *program) contextUse() *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Make a context the current one",
		Long:              "Makes a context the current one: commands act in it from then on.",
		Example:           "  provost context use auditor@demo",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			return p.changeContext(args[0], func(c *contexts) { c.Current = args[0] }, "context %s is current")
		},
	}
}

func (p *program) contextDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Forget a context",
		Long: `Forgets a context and its tokens without telling the server. To end the session
there, too, use provost logout.`,
		Example:           "  provost context delete auditor@demo",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			return p.changeContext(args[0], func(c *contexts) {
				delete(c.Contexts, args[0])
				if c.Current == args[0] {
					c.Current = ""
				}
			}, "context %s is forgotten")
		},
	}
}

func (p *program) changeContext(name string, change func(*contexts), said string) error {
	path, err := contextsPath()
	if err != nil {
		return err
	}
	err = changeContexts(path, func(c *contexts) error {
		if c.Contexts[name] == nil {
			return noContext(name)
		}
		change(c)
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Err, said+"\n", plain(name))
	return nil
}

func (p *program) contextGet() *cobra.Command {
	return &cobra.Command{
		Use:               "get [NAME]",
		Short:             "Show a context",
		Long:              "Shows a context, the current one unless it is named. Tokens are not shown.",
		Example:           "  provost context get\n  provost context get auditor@demo -o json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.saved()
			if err != nil {
				return err
			}
			name := c.Current
			if len(args) > 0 {
				name = args[0]
			}
			if c.Contexts[name] == nil {
				return noContext(name)
			}
			s := show(c, name)
			if p.output != "table" {
				return p.value(s)
			}
			return p.fields([]field{{"name", s.Name}, {"current", yesNo(s.Current)}, {"url", s.URL}, {"tenant", s.Tenant}, {"user", s.Username},
				{"session until", s.Until}, {"log key", s.LogKey}})
		},
	}
}
