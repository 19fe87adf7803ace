// my-scheduler: weighted least connections.
//
// Each new connection goes to the server with the least load for its weight, of equals to the first
// in the order of the configuration. An active connection counts as 256 inactive ones.
package main

import "scheduler/wvs"

func load(server *wvs.Server) uint64 {
	return uint64(server.Active)*256 + uint64(server.Inactive)
}

//go:wasmexport wvs_schedule
func wvsSchedule(n uint32) int32 {
	best := int32(wvs.ResultNoServer)
	// Stands for an infinite load: any load on any weight above 0 is less, and weight 0 never.
	leastLoad, leastWeight := uint64(1), uint64(0)
	for i := range wvs.Servers[:n] {
		server := &wvs.Servers[i]
		weight := uint64(server.Weight)
		// Nothing is divided: a / b < c / d is compared as a * d < c * b. No product overflows,
		// since a load stays below 2^41 and a weight below 2^16.
		if load(server)*leastWeight < leastLoad*weight {
			best = int32(i)
			leastLoad, leastWeight = load(server), weight
		}
	}
	return best
}

// Go wants a main; a plugin's is never called.
func main() {}
