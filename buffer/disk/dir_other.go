//go:build !linux

package disk

// Preallocation and fdatasync are what the log's promises rest on, and they
// are written for Linux alone.
const _ = weir_is_built_for_linux_only
