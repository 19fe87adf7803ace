/* Exports everything that there is, and saves an octet of all that it was told. */

#include "plugin.h"

static uint8_t told[7];

uint32_t wvs_caps(void) {
    return WVS_CAPS_COUNTERS | WVS_CAPS_SERVER_INFO | WVS_CAPS_SIGNALS;
}

int32_t wvs_init(uint32_t len) {
    told[0] = (uint8_t)wvs_config[len - 1];
    return 0;
}

int32_t wvs_servers_changed(uint32_t n) {
    told[1] = (uint8_t)wvs_server_info[n - 1].port;
    return 0;
}

int32_t wvs_schedule(uint32_t n) {
    told[2] = wvs_request.virtual_address[3];
    told[3] = (uint8_t)wvs_signals[n - 1].out_octets;
    return (int32_t)n - 1;
}

void wvs_event(uint32_t kind, uint32_t index, uint32_t argument) {
    told[4] = (uint8_t)(kind * 100 + index * 10 + argument);
}

uint32_t wvs_tick(void) {
    told[5] = (uint8_t)wvs_request.now_ms;
    wvs_log(WVS_LOG_LEVEL_INFO, "ticked", 6);
    return 1000;
}

int32_t wvs_state_save(uint32_t capacity) {
    told[6]++;
    for (uint32_t i = 0; i < sizeof told && i < capacity; i++) {
        wvs_state[i] = told[i];
    }
    return sizeof told;
}

int32_t wvs_state_load(uint32_t len) {
    if (len != sizeof told) {
        return -1;
    }
    for (uint32_t i = 0; i < sizeof told; i++) {
        told[i] = wvs_state[i];
    }
    return 0;
}
