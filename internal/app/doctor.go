package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	"provost.dev/provost/internal/fabric/runtime/oci"
	"provost.dev/provost/internal/kernel"
)

// DoctorOptions say what to look at.
type DoctorOptions struct {
	Config  string // of a server; "" for none
	DataDir string // of a dev server; "" for none
	Output  string // table, json or yaml
	Stdout  io.Writer
}

// ailment is one thing looked at.
type ailment struct {
	Name     string `json:"name" yaml:"name"`
	OK       bool   `json:"ok" yaml:"ok"`
	Required bool   `json:"required" yaml:"required"`
	Detail   string `json:"detail" yaml:"detail"`
	Fix      string `json:"fix,omitempty" yaml:"fix,omitempty"`
}

// Doctor says what this host can and cannot do for a server, and how to fix
// it. A required thing that is missing makes it kernel.Unavailable.
func Doctor(ctx context.Context, o DoctorOptions) error {
	cfg := &Config{DataDir: o.DataDir}
	if o.Config != "" || o.DataDir == "" {
		var err error
		if cfg, err = LoadConfig(o.Config, os.Environ()); err != nil && o.Config != "" {
			return err
		}
	}
	found := append(lookAtData(cfg), lookAtContainers(ctx, cfg)...)
	if err := printFindings(o, found); err != nil {
		return err
	}
	for _, f := range found {
		if f.Required && !f.OK {
			return &kernel.Error{Kind: kernel.Unavailable, Msg: f.Name + ": " + f.Detail, Fix: f.Fix}
		}
	}
	return nil
}

func lookAtContainers(ctx context.Context, cfg *Config) []ailment {
	report := oci.Probe(ctx, oci.Config{StateDir: filepath.Join(cfg.DataDir, "containers"), Runtime: cfg.Runtime.Path})
	var out []ailment
	for _, f := range report.Findings {
		out = append(out, ailment{Name: f.Name, OK: f.OK, Required: f.Required, Detail: f.Detail, Fix: f.Fix})
	}
	return out
}

func lookAtData(cfg *Config) []ailment {
	if cfg.DataDir == "" {
		return []ailment{{Name: "data directory", Detail: "none is configured", Fix: "name one with --data-dir, --config or PROVOST_DATA_DIR"}}
	}
	a := ailment{Name: "data directory", OK: true, Required: true, Detail: cfg.DataDir + " is writable"}
	probe, err := os.CreateTemp(cfg.DataDir, ".doctor-*")
	if err == nil {
		err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	if err != nil {
		a.OK, a.Detail, a.Fix = false, cfg.DataDir+" cannot be written", "make it, and let the server's user own it"
	}
	return []ailment{a}
}

func printFindings(o DoctorOptions, found []ailment) error {
	switch o.Output {
	case "json":
		e := json.NewEncoder(o.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(found)
	case "yaml":
		return yaml.NewEncoder(o.Stdout).Encode(found)
	}
	w := tabwriter.NewWriter(o.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "CHECK\tRESULT\tDETAIL")
	for _, f := range found {
		result := "ok"
		if !f.OK && f.Required {
			result = "MISSING"
		} else if !f.OK {
			result = "weak"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, result, f.Detail)
		if f.Fix != "" {
			fmt.Fprintf(w, "\t\tfix: %s\n", f.Fix)
		}
	}
	return w.Flush()
}
