/* What every plugin has alike, once for all: its regions as static arrays, and the exports
 * `wvs_abi` and `wvs_region`. To be included by one source file.
 *
 * The director writes `wvs_request` and `wvs_servers` before it calls `wvs_schedule`. */

#ifndef WVS_PLUGIN_H
#define WVS_PLUGIN_H

#include "wvs.h"

/* How many servers there is room for. Define it before this file is included to have another
 * number; a service with more servers refuses the plugin. */
#ifndef WVS_SERVERS_MAX
#define WVS_SERVERS_MAX 1024
#endif

/* The request to decide on. */
static struct wvs_request wvs_request;

/* The servers to choose from, in the order of the configuration. */
static struct wvs_server wvs_servers[WVS_SERVERS_MAX];

/* More about the servers, in the same order, for plugins with WVS_CAPS_SERVER_INFO. */
static struct wvs_server_info wvs_server_info[WVS_SERVERS_MAX];

/* How the servers do, in the same order, for plugins with WVS_CAPS_SIGNALS. */
static struct wvs_signals wvs_signals[WVS_SERVERS_MAX];

/* The service's `config` as JSON text, and the reason of a refusal. */
static _Alignas(8) char wvs_config[WVS_CONFIG_OCTETS_MAX];

/* What goes to the successor or came from the predecessor. */
static _Alignas(8) uint8_t wvs_state[WVS_STATE_OCTETS_MAX];

uint32_t wvs_abi(void) { return WVS_ABI_VERSION; }

void *wvs_region(uint32_t kind, uint32_t size) {
    switch (kind) {
    case WVS_REGION_CONFIG: return size <= sizeof wvs_config ? wvs_config : 0;
    case WVS_REGION_REQUEST: return size <= sizeof wvs_request ? &wvs_request : 0;
    case WVS_REGION_SERVERS: return size <= sizeof wvs_servers ? wvs_servers : 0;
    case WVS_REGION_STATE: return size <= sizeof wvs_state ? wvs_state : 0;
    case WVS_REGION_SERVER_INFO: return size <= sizeof wvs_server_info ? wvs_server_info : 0;
    case WVS_REGION_SIGNALS: return size <= sizeof wvs_signals ? wvs_signals : 0;
    default: return 0;
    }
}

#endif
