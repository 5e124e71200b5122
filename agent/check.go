package main

import (
	"errors"
	"fmt"

	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/ingest/broker/users"
)

// checkCommand is `weir check`.
type checkCommand struct {
	configured
	Secrets bool `help:"The secrets it names must exist, too."`
	JSON    bool `help:"Print JSON."`
}

// verdict is what check prints as JSON.
type verdict struct {
	OK       bool           `json:"ok"`
	Faults   []config.Fault `json:"faults"`
	Warnings []config.Fault `json:"warnings"`
}

func (k *checkCommand) Run(c *console) error {
	cfg, err := k.load(k.Secrets)
	if err == nil && k.Secrets && cfg.Ingest.Broker != nil && cfg.Ingest.Broker.UsersFile != "" {
		if _, bad := users.Load(cfg.Ingest.Broker.UsersFile); bad != nil {
			err = usage(fmt.Errorf("ingest.broker.users_file: %w", bad), "")
		}
	}
	out := verdict{OK: err == nil, Faults: []config.Fault{}, Warnings: []config.Fault{}}
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		out.Faults = faults
	case err != nil:
		return err
	case len(cfg.Warnings) > 0:
		out.Warnings = cfg.Warnings
	}
	if k.JSON {
		return errors.Join(c.printJSON(out), err)
	}
	for _, warning := range out.Warnings {
		fmt.Fprintln(c.stderr, "weir: warning: "+warning.String())
	}
	if err == nil {
		_, err = fmt.Fprintf(c.stdout, "%s: ok\n", k.Config)
	}
	return err
}
