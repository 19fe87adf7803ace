// Exports everything that there is, and saves an octet of all that it was told.
package main

import "scheduler/wvs"

var told [7]byte

//go:wasmexport wvs_caps
func wvsCaps() uint32 {
	return wvs.CapsCounters | wvs.CapsServerInfo | wvs.CapsSignals
}

//go:wasmexport wvs_init
func wvsInit(len uint32) int32 {
	told[0] = wvs.Config()[len-1]
	return 0
}

//go:wasmexport wvs_servers_changed
func wvsServersChanged(n uint32) int32 {
	told[1] = byte(wvs.ServerInfos[n-1].Port)
	return 0
}

//go:wasmexport wvs_schedule
func wvsSchedule(n uint32) int32 {
	told[2] = wvs.TheRequest.VirtualAddress[3]
	told[3] = byte(wvs.ServerSignals[n-1].OutOctets)
	return int32(n) - 1
}

//go:wasmexport wvs_event
func wvsEvent(kind uint32, index uint32, argument uint32) {
	told[4] = byte(kind*100 + index*10 + argument)
}

//go:wasmexport wvs_tick
func wvsTick() uint32 {
	told[5] = byte(wvs.TheRequest.NowMs)
	wvs.Log(wvs.LogLevelInfo, "ticked")
	return 1000
}

//go:wasmexport wvs_state_save
func wvsStateSave(capacity uint32) int32 {
	told[6]++
	return int32(copy(wvs.State()[:capacity], told[:]))
}

//go:wasmexport wvs_state_load
func wvsStateLoad(n uint32) int32 {
	if int(n) != len(told) {
		return -1
	}
	copy(told[:], wvs.State())
	return 0
}

func main() {}
