//! Exports everything that there is, and saves an octet of all that it was told.

const plugin = @import("plugin.zig");
const wvs = @import("wvs.zig");

var told: [7]u8 = @splat(0);

export fn wvs_caps() u32 {
    return wvs.caps.counters | wvs.caps.server_info | wvs.caps.signals;
}

export fn wvs_init(len: u32) i32 {
    told[0] = plugin.config[len - 1];
    return 0;
}

export fn wvs_servers_changed(n: u32) i32 {
    told[1] = @truncate(plugin.server_info[n - 1].port);
    return 0;
}

export fn wvs_schedule(n: u32) i32 {
    told[2] = plugin.request.virtual_address[3];
    told[3] = @truncate(plugin.signals[n - 1].out_octets);
    return @intCast(n - 1);
}

export fn wvs_event(kind: u32, index: u32, argument: u32) void {
    told[4] = @truncate(kind * 100 + index * 10 + argument);
}

export fn wvs_tick() u32 {
    told[5] = @truncate(plugin.request.now_ms);
    wvs.log(wvs.log_level.info, "ticked", 6);
    return 1000;
}

export fn wvs_state_save(capacity: u32) i32 {
    if (capacity < told.len) return -1;
    told[6] += 1;
    @memcpy(plugin.state[0..told.len], &told);
    return told.len;
}

export fn wvs_state_load(len: u32) i32 {
    if (len != told.len) return -1;
    @memcpy(&told, plugin.state[0..told.len]);
    return 0;
}
