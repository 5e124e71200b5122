// Package boottest holds the tests of weir as a service: its real package in a
// real Debian with systemd as the first process, booted in a container. They
// show that the unit's sandbox lets through what weir needs and nothing more,
// that a hang ends in a restart with nothing lost, and that the package installs,
// upgrades and goes as an administrator expects.
//
// They have the build tag boot and are run by `make boot`: they need root,
// systemd-nspawn, debootstrap and some other programs, which
// `.ci/install-test-tools boot` installs, and a Debian mirror the first time.
// The Debian is kept in the user's cache directory for a month. Every test works
// on an overlay of it with a network of its own, and leaves nothing behind.
//
// checks_test.go is the list of what is checked in the running unit, and
// testdata/weir.yaml the configuration it has: who adds a source, a query or a
// sink to weir adds it in these two places.
package boottest
