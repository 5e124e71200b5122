// Package acceptance holds the tests of weir as its users have it: the binary
// as it is built, a real mosquitto on one side, a real nats-server on the
// other, and between them everything that goes wrong in the field. There is
// nothing in it but tests.
//
// They are ordinary tests and run with all others; with -short they publish
// fewer messages. `make soak` repeats the drills for an hour.
package acceptance
