//! What every plugin has alike, once for all: its regions as static arrays, and the exports
//! `wvs_abi` and `wvs_region`.
//!
//! The director writes `request` and `servers` before it calls `wvs_schedule`.

const wvs = @import("wvs.zig");

/// How many servers there is room for. A service with more servers refuses the plugin.
pub const servers_max = 1024;

/// The request to decide on.
pub var request: wvs.Request = undefined;

/// The servers to choose from, in the order of the configuration.
pub var servers: [servers_max]wvs.Server = undefined;

/// More about the servers, in the same order, for plugins with `caps.server_info`.
pub var server_info: [servers_max]wvs.ServerInfo = undefined;

/// How the servers do, in the same order, for plugins with `caps.signals`.
pub var signals: [servers_max]wvs.Signals = undefined;

/// The service's `config` as JSON text, and the reason of a refusal.
pub var config: [wvs.config_octets_max]u8 align(8) = undefined;

/// What goes to the successor or came from the predecessor.
pub var state: [wvs.state_octets_max]u8 align(8) = undefined;

export fn wvs_abi() u32 {
    return wvs.abi_version;
}

export fn wvs_region(kind: u32, size: u32) ?*anyopaque {
    return switch (kind) {
        wvs.region.config => room(&config, size),
        wvs.region.request => room(&request, size),
        wvs.region.servers => room(&servers, size),
        wvs.region.state => room(&state, size),
        wvs.region.server_info => room(&server_info, size),
        wvs.region.signals => room(&signals, size),
        else => null,
    };
}

/// The address of `region` if it has `size` octets.
fn room(region: anytype, size: u32) ?*anyopaque {
    return if (size <= @sizeOf(@TypeOf(region.*))) region else null;
}
