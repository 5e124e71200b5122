package ingest

import (
	"log/slog"
	"maps"
	"slices"
)

// Trouble is which streams the log takes nothing for at the moment. Each is
// logged once when it begins and once when it ends. The zero value is ready; the
// owner guards it.
type Trouble struct {
	streams map[string]string // why, by stream
}

// Note takes the outcome of an append to stream; nil ends its trouble.
func (t *Trouble) Note(stream string, err error, logger *slog.Logger) {
	_, before := t.streams[stream]
	if err == nil {
		if before {
			delete(t.streams, stream)
			logger.Info("the log takes records again", "stream", stream)
		}
		return
	}
	if t.streams == nil {
		t.streams = map[string]string{}
	}
	t.streams[stream] = err.Error()
	if !before {
		logger.Error("the log takes nothing; nothing is acknowledged until it does", "stream", stream, "error", err)
	}
}

// Text is why the log takes nothing, for one of the streams; "" when it takes
// everything.
func (t *Trouble) Text() string {
	for _, stream := range slices.Sorted(maps.Keys(t.streams)) {
		return t.streams[stream]
	}
	return ""
}
