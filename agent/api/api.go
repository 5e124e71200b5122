// Package api is the local HTTP API of a weir node: health, metrics, status,
// streams with their records, consumers, and what its cameras recorded. The
// command line of weir is one of its clients; openapi.yaml describes it, and a
// test compares that file with the routes.
//
// Server is the main type. It reads the log through the interfaces of package
// buffer and everything else through a Node, which the daemon gives it; it owns
// no state of its own except counters. Answers are JSON; an error is
// {"error": …, "hint": …} with a fitting status code.
//
// On loopback anyone on the machine may call it, but no web page: the Host
// header must be a loopback name and an Origin must be the API's own, which
// stops DNS rebinding. Elsewhere a bearer token or a client certificate is
// needed for everything but /healthz. Every request has limits: header, body,
// time, and how many run at once.
//
// It does not speak the Kinesis protocol, serve pages, or change the
// configuration.
package api
