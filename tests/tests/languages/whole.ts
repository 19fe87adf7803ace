// Exports everything that there is, and saves an octet of all that it was told.

import { CONFIG, STATE, request, serverInfo, signals } from "./plugin";
import { Caps, LogLevel, log } from "./wvs";

export { wvs_abi, wvs_region } from "./plugin";

const TOLD: u32 = 7;
const told: usize = memory.data(7);
const line: usize = memory.data<u8>([116, 105, 99, 107, 101, 100]);

export function wvs_caps(): u32 {
  return Caps.COUNTERS | Caps.SERVER_INFO | Caps.SIGNALS;
}

export function wvs_init(len: u32): i32 {
  store<u8>(told, load<u8>(CONFIG + len - 1));
  return 0;
}

export function wvs_servers_changed(n: u32): i32 {
  store<u8>(told, <u8>serverInfo(n - 1).port, 1);
  return 0;
}

export function wvs_schedule(n: u32): i32 {
  store<u8>(told, load<u8>(request().virtualAddressAt, 3), 2);
  store<u8>(told, <u8>signals(n - 1).outOctets, 3);
  return n - 1;
}

export function wvs_event(kind: u32, index: u32, argument: u32): void {
  store<u8>(told, <u8>(kind * 100 + index * 10 + argument), 4);
}

export function wvs_tick(): u32 {
  store<u8>(told, <u8>request().nowMs, 5);
  log(LogLevel.INFO, line, 6);
  return 1000;
}

export function wvs_state_save(capacity: u32): i32 {
  if (capacity < TOLD) return -1;
  store<u8>(told, load<u8>(told, 6) + 1, 6);
  memory.copy(STATE, told, TOLD);
  return TOLD;
}

export function wvs_state_load(len: u32): i32 {
  if (len != TOLD) return -1;
  memory.copy(told, STATE, TOLD);
  return 0;
}
