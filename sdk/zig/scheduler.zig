//! my-scheduler: weighted least connections.
//!
//! Each new connection goes to the server with the least load for its weight, of equals to the
//! first in the order of the configuration. An active connection counts as 256 inactive ones.

const plugin = @import("plugin.zig");
const wvs = @import("wvs.zig");

fn load(server: wvs.Server) u64 {
    return @as(u64, server.active) * 256 + server.inactive;
}

export fn wvs_schedule(n: u32) i32 {
    var best: i32 = wvs.result.no_server;
    // Stands for an infinite load: any load on any weight above 0 is less, and weight 0 never.
    var least_load: u64 = 1;
    var least_weight: u64 = 0;
    for (plugin.servers[0..n], 0..) |server, index| {
        // Nothing is divided: a / b < c / d is compared as a * d < c * b. No product overflows,
        // since a load stays below 2^41 and a weight below 2^16.
        if (load(server) * least_weight < least_load * server.weight) {
            best = @intCast(index);
            least_load = load(server);
            least_weight = server.weight;
        }
    }
    return best;
}
