/* fill: one server after the other.
 *
 * Each new connection goes to the first server in the order of the configuration that has room: so
 * many active connections for each unit of its weight as the service's `config` says, a number.
 * Servers at the end of the list may sleep meanwhile. When all are full, the director decides. */

#include <stdbool.h>

#include "plugin.h"

static uint64_t room_per_weight = 100;

static bool is_full;

/* Without a `config` of the service `len` is 0. */
int32_t wvs_init(uint32_t len) {
    static const char reason[] = "config must be a number from 1 to 999999";
    uint32_t number = 0;
    bool is_number = len <= 6;
    for (uint32_t i = 0; i < len && is_number; i++) {
        is_number = '0' <= wvs_config[i] && wvs_config[i] <= '9';
        number = number * 10 + (uint32_t)(wvs_config[i] - '0');
    }
    if (len > 0 && (!is_number || number == 0)) {
        /* Why it is refused, for the person who wrote it. */
        for (uint32_t i = 0; i < sizeof reason; i++) {
            wvs_config[i] = reason[i];
        }
        return -1;
    }
    if (len > 0) {
        room_per_weight = number;
    }
    return 0;
}

int32_t wvs_schedule(uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        /* A server of weight 0, which must not be picked, never has room. */
        if (wvs_servers[i].active < room_per_weight * wvs_servers[i].weight) {
            is_full = false;
            return (int32_t)i;
        }
    }
    if (!is_full) {
        static const char line[] = "every server is full";
        wvs_log(WVS_LOG_LEVEL_WARN, line, sizeof line - 1);
        is_full = true;
    }
    return WVS_RESULT_DEFER;
}
