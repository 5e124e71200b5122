package uplinktest_test

import (
	"testing"

	"github.com/weir-edge/weir/uplink"
	"github.com/weir-edge/weir/uplink/uplinktest"
)

func TestCentreKeepsTheContract(t *testing.T) {
	uplinktest.Suite(t, func(t *testing.T) uplinktest.Harness {
		centre := &uplinktest.Centre{}
		return uplinktest.Harness{
			Open: func(*testing.T) uplink.Sink { centre.Reopen(); return centre },
			Stored: func(t *testing.T) []uplinktest.Stored {
				for _, fault := range centre.Faults() {
					t.Error(fault)
				}
				return centre.Stored()
			},
		}
	})
}
