package ingest

import (
	"testing"
	"testing/synctest"
)

func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRoom(10)
		if !r.Take(6, nil, nil) || !r.Over(5) || r.Over(6) {
			t.Fatal("six of ten are not taken")
		}
		took := make(chan bool, 1)
		stop := make(chan struct{})
		go func() { took <- r.Take(5, stop, nil) }()
		synctest.Wait()
		select {
		case <-took:
			t.Fatal("eleven of ten are taken")
		default:
		}
		r.Give(6)
		if !<-took {
			t.Fatal("what was given back is not taken")
		}
		go func() { took <- r.Take(6, nil, stop) }()
		synctest.Wait()
		close(stop)
		if <-took {
			t.Fatal("taken after the end")
		}
		r.Give(5)
		if !r.Take(100, nil, nil) {
			t.Fatal("what is larger than all of it does not go alone")
		}
	})
}
