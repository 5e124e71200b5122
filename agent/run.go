package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/agent/daemon"
	"github.com/weir-edge/weir/buffer"
)

// runCommand is `weir run`.
type runCommand struct {
	configured
	LogFormat string `name:"log-format" enum:"auto,text,json" default:"auto" help:"Form of the log on standard error: text, json, or auto (text on a terminal)."`
	LogLevel  string `name:"log-level" enum:"debug,info,warn,error" default:"info" help:"Least level that is logged."`
}

// configured are the flags that name a configuration.
type configured struct {
	Config    string `short:"c" required:"" placeholder:"FILE" help:"The configuration."`
	ConfigDir string `name:"config-dir" placeholder:"DIR" help:"Directory of further files, *.yaml, that add to it."`
}

func (r *runCommand) Run(ctx context.Context, c *console) error {
	logger, err := r.logger(c)
	if err != nil {
		return err
	}
	cfg, err := r.load(true)
	if err != nil {
		return err
	}
	warn(cfg, logger)
	daemon.LimitMemory(logger)
	node := daemon.New(cfg, daemon.Options{Logger: logger, Version: thisBuild().Version})
	var reloads sync.WaitGroup
	reloadCtx, stop := context.WithCancel(ctx)
	reloads.Go(func() { r.reloadOnHangup(reloadCtx, node, logger) })
	err = node.Run(ctx)
	stop()
	reloads.Wait()
	return logHint(err)
}

// logger makes the daemon's log on standard error.
func (r *runCommand) logger(c *console) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(r.LogLevel)); err != nil {
		return nil, usage(err, "")
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // else JSON has bare nanoseconds
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if r.LogFormat == "text" || r.LogFormat == "auto" && isTerminal(c.stderr) {
		return slog.New(slog.NewTextHandler(c.stderr, options)), nil
	}
	return slog.New(slog.NewJSONHandler(c.stderr, options)), nil
}

// reloadOnHangup reads the configuration anew at each SIGHUP; one with faults
// changes nothing.
func (r *runCommand) reloadOnHangup(ctx context.Context, node *daemon.Daemon, logger *slog.Logger) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		cfg, err := r.load(true)
		if err != nil {
			for _, line := range asFailure(err).lines() {
				logger.Error("the new configuration has a fault; the old one stays", "fault", line)
			}
			continue
		}
		warn(cfg, logger)
		node.Reload(cfg)
	}
}

// warn logs what is allowed and unwise.
func warn(cfg *config.Config, logger *slog.Logger) {
	for _, warning := range cfg.Warnings {
		logger.Warn("configuration", "warning", warning.String())
	}
}

// logHint adds what to do about a log that cannot be opened.
func logHint(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, buffer.ErrLocked):
		return failed(err, "stop the other one, or give this one a buffer.dir of its own")
	case errors.Is(err, buffer.ErrNewer):
		return failed(err, "run that version, or a newer one; nothing was touched")
	case errors.Is(err, fs.ErrNotExist):
		return failed(err, "make the directory that buffer.dir is in")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return failed(err, "let the user weir runs as write to buffer.dir")
	}
	return failed(err, "")
}

// load reads and checks the configuration; secrets says whether those it
// names must exist.
func (c configured) load(secrets bool) (*config.Config, error) {
	cfg, err := config.Load(c.Config, config.Options{Dir: c.ConfigDir, Secrets: secrets})
	var faults config.Faults
	switch {
	case err == nil:
		return cfg, nil
	case errors.As(err, &faults):
		return nil, &failure{code: exitUsage, err: err, each: true}
	}
	return nil, usage(fmt.Errorf("read configuration: %w", err), "name the file with -c FILE")
}
