package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/weir-edge/weir/agent/config"
	"github.com/weir-edge/weir/configs"
)

// initCommand is `weir init`.
type initCommand struct {
	Output string `short:"o" placeholder:"FILE" help:"Where to write it; standard output if it is not given."`
	Force  bool   `help:"Replace the file if it is there."`
	Node   string `placeholder:"ID" help:"Name of this machine; the host's name if it is not given."`
	Dir    string `placeholder:"DIR" help:"Directory of the log; /var/lib/weir if it is not given."`
}

// Run writes the sample. It is checked first, so what is written is valid.
func (i *initCommand) Run(c *console) error {
	text, err := i.text()
	if err != nil {
		return err
	}
	if _, err := config.Parse(configs.Main, text, config.Options{}); err != nil {
		return &failure{code: exitUsage, err: err, each: true}
	}
	if i.Output == "" {
		_, err = c.stdout.Write(text)
		return err
	}
	switch err := i.write(text); {
	case errors.Is(err, fs.ErrExist):
		return failed(fmt.Errorf("%s is there already", i.Output), "--force replaces it")
	case err != nil:
		return failed(fmt.Errorf("write configuration: %w", err), "")
	}
	_, err = fmt.Fprintf(c.stdout, "%s: written; next: weir check -c %s\n", i.Output, i.Output)
	return err
}

// The lines of the sample that a flag replaces.
var (
	sampleNode = regexp.MustCompile(`(?m)^  id: .*$`)
	sampleDir  = regexp.MustCompile(`(?m)^  dir: .*$`)
)

// text is the sample with what the flags say. Without --node no id is set: one
// that two machines share would make their records the same at the centre.
func (i *initCommand) text() ([]byte, error) {
	sample, err := configs.Read(configs.Main)
	if err != nil {
		return nil, err
	}
	node := "  #id: gw-17"
	if i.Node != "" {
		node = "  id: " + quoted(i.Node)
	}
	text, err := replaceLine(string(sample), sampleNode, node)
	if err == nil && i.Dir != "" {
		text, err = replaceLine(text, sampleDir, "  dir: "+quoted(i.Dir))
	}
	return []byte(text), err
}

func replaceLine(text string, line *regexp.Regexp, by string) (string, error) {
	if n := len(line.FindAllString(text, -1)); n != 1 {
		return "", fmt.Errorf("the sample has %d lines %s", n, line)
	}
	return line.ReplaceAllLiteralString(text, by), nil
}

// quoted is value as a YAML scalar that stands for itself.
func quoted(value string) string {
	return strconv.Quote(strings.ReplaceAll(value, "${", "$${"))
}

// write makes the file, or leaves what is there as it was. Its group may read
// it: in /etc/weir that is the daemon's.
func (i *initCommand) write(text []byte) (err error) {
	name := i.Output
	if i.Force { // in one step, so that there is never half of one
		name = i.Output + ".new"
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(name))
		}
	}()
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if i.Force {
		return os.Rename(name, i.Output)
	}
	return nil
}
