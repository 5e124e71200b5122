package bench

import "testing"

func TestLogMeasures(t *testing.T) {
	r, err := Log(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]float64{
		"4KiB": r.WA4KiB, "64KiB": r.WA64KiB, "256KiB": r.WA256KiB, "1MiB": r.WA1MiB,
		"over raw 1MiB": r.OverRaw1MiB, "replay": r.ReplayPerSecond, "single": r.SingleOverRaw,
	} {
		if v <= 0 {
			t.Errorf("%s: %v", name, v)
		}
	}
	t.Logf("%+v", r)
}
