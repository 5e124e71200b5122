//go:build slim

package demo

// slim says whether the centre was left out of this binary.
const slim = true

func startCentre(_, _ string) (centre, error) { return nil, ErrSlim }
