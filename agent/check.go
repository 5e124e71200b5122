package main

import (
	"fmt"
	"strings"
)

// checkCommand is `weir check`.
type checkCommand struct {
	configured
	Secrets bool `help:"The secrets it names must exist, too."`
	JSON    bool `help:"Print JSON."`
}

func (k *checkCommand) Run(c *console) error {
	_, err := k.load(k.Secrets)
	if k.JSON {
		faults := []string{}
		if err != nil {
			faults = strings.Split(strings.TrimSpace(asFailure(err).err.Error()), "\n")
		}
		if printErr := c.printJSON(map[string]any{"ok": err == nil, "faults": faults}); printErr != nil {
			return printErr
		}
	}
	if err == nil && !k.JSON {
		_, err = fmt.Fprintf(c.stdout, "%s: ok\n", k.Config)
	}
	return err
}
