/* my-scheduler: weighted least connections.
 *
 * Each new connection goes to the server with the least load for its weight, of equals to the first
 * in the order of the configuration. An active connection counts as 256 inactive ones. */

#include "plugin.h"

static uint64_t load(const struct wvs_server *server) {
    return (uint64_t)server->active * 256 + server->inactive;
}

int32_t wvs_schedule(uint32_t n) {
    int32_t best = WVS_RESULT_NO_SERVER;
    /* Stands for an infinite load: any load on any weight above 0 is less, and weight 0 never. */
    uint64_t least_load = 1, least_weight = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct wvs_server *server = &wvs_servers[i];
        /* Nothing is divided: a / b < c / d is compared as a * d < c * b. No product overflows,
         * since a load stays below 2^41 and a weight below 2^16. */
        if (load(server) * least_weight < least_load * server->weight) {
            best = (int32_t)i;
            least_load = load(server);
            least_weight = server->weight;
        }
    }
    return best;
}
