package main

import (
	"errors"
	"strings"
)

// The exit codes of weir.
const (
	exitDone   = 0
	exitFailed = 1 // failed or incomplete
	exitUsage  = 2 // wrong usage or configuration
)

// failure is an error with its exit code and a hint for the person who reads
// it.
type failure struct {
	code int
	err  error
	hint string
	each bool // err joins several: a line each
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failed makes a failure of exit code 1.
func failed(err error, hint string) error { return &failure{code: exitFailed, err: err, hint: hint} }

// usage makes a failure of exit code 2.
func usage(err error, hint string) error { return &failure{code: exitUsage, err: err, hint: hint} }

func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return &failure{code: exitFailed, err: err}
}

// lines is what standard error shows: one line, or one for each of several
// faults of a configuration.
func (f *failure) lines() []string {
	if f.each {
		var out []string
		for line := range strings.SplitSeq(strings.TrimSpace(f.err.Error()), "\n") {
			out = append(out, "weir: "+line)
		}
		return out
	}
	line := "weir: " + strings.Join(strings.Fields(strings.ReplaceAll(f.err.Error(), "\n", "; ")), " ")
	if f.hint != "" {
		line += " (" + f.hint + ")"
	}
	return []string{line}
}
