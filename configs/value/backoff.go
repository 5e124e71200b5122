package value

import "time"

// Backoff is how long to wait between tries: decorrelated jitter between Min
// and Max. Each wait is drawn between Min and three times the one before, so
// that a thousand boxes that lost the same peer do not come back together.
// Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog.
type Backoff struct {
	Min Duration `yaml:"min"`
	Max Duration `yaml:"max"`
}

// Next returns the wait after previous (0: the first one); random is in [0,1).
func (b Backoff) Next(previous time.Duration, random float64) time.Duration {
	low, high := b.Min.Std(), max(3*previous, b.Min.Std())
	return min(low+time.Duration(random*float64(high-low)), b.Max.Std())
}
