// Package acceptance holds the tests of weir as its users have it: the binary
// as it is built, a real mosquitto on one side, a real nats-server on the
// other, and between them everything that goes wrong in the field. There is
// nothing in it but tests.
//
// They are ordinary tests and run with all others. With WEIR_SOAK=1h the
// drills of this package are repeated for so long.
package acceptance
