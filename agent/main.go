// Command weir turns a camera gateway into the first mile of a data stream:
// it takes sensor data and video, keeps both in a durable local log of shards,
// and forwards them to a central stream.
//
// This package is the whole program, daemon and tool: main.go dispatches, and
// each subcommand has one small file. `weir run` and `weir demo` build the
// daemon of agent/daemon; most others are clients of its HTTP API (agent/api).
//
// It prints results to standard output, as JSON with --json, and errors to
// standard error, one line each with a hint. It exits 0 when done, 1 when it
// failed or is incomplete, 2 on wrong usage or configuration. What the parts
// do is not here: see ARCHITECTURE.md beside this file.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the command line; kong reads it.
type commands struct {
	Run     runCommand     `cmd:"" help:"Run the daemon."`
	Demo    demoCommand    `cmd:"" help:"Show everything on this machine, with nothing to install."`
	Check   checkCommand   `cmd:"" help:"Check a configuration and print every fault."`
	Init    initCommand    `cmd:"" help:"Write a commented sample configuration."`
	Status  statusCommand  `cmd:"" help:"Show what a running weir does."`
	Streams streamsCommand `cmd:"" help:"Show the streams of the log."`
	Put     putCommand     `cmd:"" help:"Append standard input to a stream, one record a line."`
	Tail    tailCommand    `cmd:"" help:"Print the records of a stream."`
	Video   videoCommand   `cmd:"" help:"Show cameras and cut clips."`
	Bench   benchCommand   `cmd:"" help:"Measure this device."`
	Passwd  passwdCommand  `cmd:"" help:"Add or change a user of the MQTT broker."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// console is what a command has of the world.
type console struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal finds the default action again and ends weir at once.
	context.AfterFunc(ctx, stop)
	code := execute(ctx, os.Args[1:], &console{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv})
	stop()
	os.Exit(code)
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, c *console) int {
	exited, code := false, 0
	parser, err := kong.New(&commands{},
		kong.Name("weir"), kong.Description("The first mile of a data stream: sensors and cameras into a durable local log, and on to the centre."),
		kong.Writers(c.stdout, c.stderr), kong.Exit(func(n int) { exited, code = true, n }),
		kong.UsageOnError(), kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(c),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return c.report(err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	switch {
	case exited: // --help has been printed
		return code
	case err != nil:
		return c.report(usage(err, "weir --help shows the commands, weir COMMAND --help its flags"))
	}
	return c.report(command.Run())
}

// report prints err, if there is one, and returns the exit code it means.
func (c *console) report(err error) int {
	if err == nil {
		return exitDone
	}
	f := asFailure(err)
	for _, line := range f.lines() {
		fmt.Fprintln(c.stderr, line)
	}
	return f.code
}
