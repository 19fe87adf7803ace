// my-scheduler: weighted least connections.
//
// Each new connection goes to the server with the least load for its weight, of equals to the first
// in the order of the configuration. An active connection counts as 256 inactive ones.

import { server } from "./plugin";
import { Result, Server } from "./wvs";

export { wvs_abi, wvs_region } from "./plugin";

function loadOf(server: Server): u64 {
  return <u64>server.active * 256 + server.inactive;
}

export function wvs_schedule(n: u32): i32 {
  let best: i32 = Result.NO_SERVER;
  // Stands for an infinite load: any load on any weight above 0 is less, and weight 0 never.
  let leastLoad: u64 = 1;
  let leastWeight: u64 = 0;
  for (let index: u32 = 0; index < n; index++) {
    const candidate = server(index);
    // Nothing is divided: a / b < c / d is compared as a * d < c * b. No product overflows, since a
    // load stays below 2^41 and a weight below 2^16.
    if (loadOf(candidate) * leastWeight < leastLoad * candidate.weight) {
      best = index;
      leastLoad = loadOf(candidate);
      leastWeight = candidate.weight;
    }
  }
  return best;
}
