/** The contract between a WVS director and a scheduler plugin, version 1.0. All integers are little
 *  endian; addresses stand in network order. docs/PLUGINS.md of WVS explains it. */

/** Generated from the contract of WVS; not to be edited. */

#ifndef WVS_H
#define WVS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What `wvs_abi` returns. */
#define WVS_ABI_VERSION UINT32_C(0x00010000)

/** Octets that a configuration has at most. */
#define WVS_CONFIG_OCTETS_MAX 65536

/** Octets of the state region at most. */
#define WVS_STATE_OCTETS_MAX 65536

/** Octets of one line of the log; the rest is cut off. */
#define WVS_LOG_OCTETS_MAX 1024

/** Milliseconds between two ticks at least. */
#define WVS_TICK_MS_MIN 10

/** Kinds of regions, the first argument of `wvs_region`. */
enum {
    /** The configuration as JSON text in UTF-8, and the reason of a refusal. */
    WVS_REGION_CONFIG = 0,
    /** One request record. */
    WVS_REGION_REQUEST = 1,
    /** One server record for each server. */
    WVS_REGION_SERVERS = 2,
    /** Octets carried from one instance to its successor. */
    WVS_REGION_STATE = 3,
    /** One server info record for each server, for plugins with the cap of that name. */
    WVS_REGION_SERVER_INFO = 4,
    /** One signals record for each server, for plugins with the cap of that name. */
    WVS_REGION_SIGNALS = 5,
};

/** Bits of the result of `wvs_caps`. */
enum {
    /** Reads `active` and `inactive`: they are refreshed before each decision. */
    WVS_CAPS_COUNTERS = 1,
    /** The same request over the same servers always gives the same answer. */
    WVS_CAPS_PURE = 2,
    /** Wants the server info region. */
    WVS_CAPS_SERVER_INFO = 4,
    /** Wants the signals region: it is refreshed before decisions, at most once a millisecond, and
     *  before each tick. */
    WVS_CAPS_SIGNALS = 8,
};

/** Bits of a server's `flags`. */
enum {
    /** The server may be used as far as its health goes. */
    WVS_SERVER_FLAGS_UP = 1,
    /** The server reached its upper connection threshold. */
    WVS_SERVER_FLAGS_OVERLOADED = 2,
    /** The server finishes its connections and gets no new ones. */
    WVS_SERVER_FLAGS_DRAINING = 4,
};

/** Negative results of `wvs_schedule`; 0 and above is the index of a server. */
enum {
    /** No server can take the connection. */
    WVS_RESULT_NO_SERVER = -1,
    /** The plugin leaves this one to the director. */
    WVS_RESULT_DEFER = -2,
};

/** The first argument of `wvs_event`. The second is the index of the server. */
enum {
    /** A connection was opened to the server, whoever chose it. The argument is 0. */
    WVS_EVENT_BOUND = 1,
    /** A connection to the server is over. The argument is the milliseconds from its first packet
     *  to its last, to about a second. */
    WVS_EVENT_UNBOUND = 2,
    /** A connection to the server did not come about. The argument says why. */
    WVS_EVENT_CONNECT_FAILED = 3,
};

/** The argument of the event `CONNECT_FAILED`. */
enum {
    /** The server answered with a reset. */
    WVS_CONNECT_FAILED_REFUSED = 0,
    /** The server did not answer before the connection expired. */
    WVS_CONNECT_FAILED_UNANSWERED = 1,
};

/** The first argument of `wvs.log`. */
enum {
    /** Something does not work. */
    WVS_LOG_LEVEL_ERROR = 1,
    /** Something may not be as it should. */
    WVS_LOG_LEVEL_WARN = 2,
    /** Something that an operator may want to know. */
    WVS_LOG_LEVEL_INFO = 3,
    /** Something that an author wants to know. */
    WVS_LOG_LEVEL_DEBUG = 4,
};

/** The first packet of a connection. */
struct wvs_request {
    /** 4 or 6. */
    uint8_t family;
    /** IP protocol number: 6 TCP, 17 UDP, 1 ICMP echo, 58 ICMPv6 echo. */
    uint8_t protocol;
    /** None defined in version 1: 0. */
    uint16_t flags;
    /** Firewall mark, 0 when there is none. */
    uint32_t mark;
    /** The client's port; for an echo request its identifier. */
    uint16_t client_port;
    /** The port of the virtual service; 0 for an echo request. */
    uint16_t virtual_port;
    /** The virtual service's number, stable while it exists. */
    uint32_t service_id;
    /** The client's address, IPv4 in the first four octets. */
    uint8_t client_address[16];
    /** The virtual address (VIP), IPv4 in the first four octets. */
    uint8_t virtual_address[16];
    /** Milliseconds on the director's monotonic clock. */
    uint64_t now_ms;
    /** A number from the director's generator, new for each request. */
    uint64_t random;
};
_Static_assert(sizeof(struct wvs_request) == 64, "Request");
_Static_assert(offsetof(struct wvs_request, family) == 0, "family");
_Static_assert(offsetof(struct wvs_request, protocol) == 1, "protocol");
_Static_assert(offsetof(struct wvs_request, flags) == 2, "flags");
_Static_assert(offsetof(struct wvs_request, mark) == 4, "mark");
_Static_assert(offsetof(struct wvs_request, client_port) == 8, "client_port");
_Static_assert(offsetof(struct wvs_request, virtual_port) == 10, "virtual_port");
_Static_assert(offsetof(struct wvs_request, service_id) == 12, "service_id");
_Static_assert(offsetof(struct wvs_request, client_address) == 16, "client_address");
_Static_assert(offsetof(struct wvs_request, virtual_address) == 32, "virtual_address");
_Static_assert(offsetof(struct wvs_request, now_ms) == 48, "now_ms");
_Static_assert(offsetof(struct wvs_request, random) == 56, "random");

/** One real server as a plugin sees it. */
struct wvs_server {
    /** Stable while the server exists and never given to another one. */
    uint32_t id;
    /** EFFECTIVE weight, 0 to 65535. Zero means that the server must not be picked, whatever the
     *  reason: quiesced, down, draining or overloaded. */
    uint32_t weight;
    /** Connections in an active state (TCP: handshake and established). */
    uint32_t active;
    /** All other connections, UDP's among them. */
    uint32_t inactive;
    /** Bits: up, overloaded, draining. */
    uint32_t flags;
    /** The weight in the configuration, whatever became of it. */
    uint32_t configured_weight;
    /** A hash of address, port and protocol: the same in every process, so that directors agree. */
    uint64_t key;
};
_Static_assert(sizeof(struct wvs_server) == 32, "Server");
_Static_assert(offsetof(struct wvs_server, id) == 0, "id");
_Static_assert(offsetof(struct wvs_server, weight) == 4, "weight");
_Static_assert(offsetof(struct wvs_server, active) == 8, "active");
_Static_assert(offsetof(struct wvs_server, inactive) == 12, "inactive");
_Static_assert(offsetof(struct wvs_server, flags) == 16, "flags");
_Static_assert(offsetof(struct wvs_server, configured_weight) == 20, "configured_weight");
_Static_assert(offsetof(struct wvs_server, key) == 24, "key");

/** What does not fit into a server record, for plugins that ask for it. */
struct wvs_server_info {
    /** The real server's address, IPv4 in the first four octets. */
    uint8_t address[16];
    /** The real server's port. */
    uint16_t port;
    /** 4 or 6. */
    uint16_t family;
    /** Connections at which the server counts as overloaded; 0 when unset. */
    uint32_t upper_threshold;
    /** Connections below which it recovers; 0 when unset. */
    uint32_t lower_threshold;
    /** Always 0 in version 1. */
    uint32_t reserved;
};
_Static_assert(sizeof(struct wvs_server_info) == 32, "ServerInfo");
_Static_assert(offsetof(struct wvs_server_info, address) == 0, "address");
_Static_assert(offsetof(struct wvs_server_info, port) == 16, "port");
_Static_assert(offsetof(struct wvs_server_info, family) == 18, "family");
_Static_assert(offsetof(struct wvs_server_info, upper_threshold) == 20, "upper_threshold");
_Static_assert(offsetof(struct wvs_server_info, lower_threshold) == 24, "lower_threshold");
_Static_assert(offsetof(struct wvs_server_info, reserved) == 28, "reserved");

/** How a server does, as the director sees it in passing, for plugins that ask for it. The counts
 *  wrap around; what matters is how much they grew. */
struct wvs_signals {
    /** Microseconds from a client's SYN to the server's SYN-ACK, as a moving average in which a new
     *  one counts an eighth; 0 before the first. */
    uint32_t connect_us;
    /** Handshakes that the server answered. */
    uint32_t connects;
    /** Connections that the server reset or refused. */
    uint32_t resets;
    /** Connections that the server did not answer before they expired. */
    uint32_t timeouts;
    /** Octets of packets to the server. */
    uint64_t in_octets;
    /** Octets of packets from the server. */
    uint64_t out_octets;
};
_Static_assert(sizeof(struct wvs_signals) == 32, "Signals");
_Static_assert(offsetof(struct wvs_signals, connect_us) == 0, "connect_us");
_Static_assert(offsetof(struct wvs_signals, connects) == 4, "connects");
_Static_assert(offsetof(struct wvs_signals, resets) == 8, "resets");
_Static_assert(offsetof(struct wvs_signals, timeouts) == 12, "timeouts");
_Static_assert(offsetof(struct wvs_signals, in_octets) == 16, "in_octets");
_Static_assert(offsetof(struct wvs_signals, out_octets) == 24, "out_octets");

#define WVS_EXPORT(name) __attribute__((export_name(name)))
#define WVS_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

/** Required. The version of this contract: the major one in the upper 16 bits, the minor one in the
 *  lower. Another major version or a higher minor one is refused. */
WVS_EXPORT("wvs_abi")
uint32_t wvs_abi(void);

/** Optional. What the plugin reads and promises. Without this export: that it reads the counters. */
WVS_EXPORT("wvs_caps")
uint32_t wvs_caps(void);

/** Required. The address of at least `size` octets for this kind of region, a multiple of 8; 0 when
 *  there are none. A later call for the same kind ends the earlier region's life. */
WVS_EXPORT("wvs_region")
void *wvs_region(uint32_t kind, uint32_t size);

/** Optional. `len` octets of JSON are in the config region, 0 when the service has no `config`. 0
 *  takes it. Anything else refuses it, and the reason is a NUL-terminated text in the same region.
 *  A plugin without this export takes no `config`. */
WVS_EXPORT("wvs_init")
int32_t wvs_init(uint32_t len);

/** Optional. The server table was written, at the start or because membership or weights changed.
 *  Below 0 is a fault. */
WVS_EXPORT("wvs_servers_changed")
int32_t wvs_servers_changed(uint32_t n);

/** Optional. `len` octets that the predecessor saved are in the state region, and the server table
 *  is written. 0 takes them; below 0 they mean nothing to this plugin, which then starts afresh: no
 *  fault. */
WVS_EXPORT("wvs_state_load")
int32_t wvs_state_load(uint32_t len);

/** Required. One decision: the request is in its region, `n` servers in theirs. */
WVS_EXPORT("wvs_schedule")
int32_t wvs_schedule(uint32_t n);

/** Optional. Something happened to a connection of the server at `index`. Called in the order of
 *  events before the next decision, at the latest after a tenth of a second. */
WVS_EXPORT("wvs_event")
void wvs_event(uint32_t kind, uint32_t index, uint32_t argument);

/** Optional. Called once when the plugin got its service, and then after as many milliseconds as it
 *  returns, at least 10; 0 for never again. The request region has the time and a random number,
 *  and is otherwise 0. */
WVS_EXPORT("wvs_tick")
uint32_t wvs_tick(void);

/** Optional. The plugin is about to be replaced. It writes what its successor should know to the
 *  state region, at most `capacity` octets, and returns their number; below 0 for nothing. Where it
 *  has more to say, it returns how much that is, and is called once more with room for it, 65,536
 *  octets at most. It goes on deciding where its successor fails. */
WVS_EXPORT("wvs_state_save")
int32_t wvs_state_save(uint32_t capacity);

/** Writes a line of at most 1024 octets of UTF-8 to the director's log. Lines that come too fast
 *  are counted and not written. */
WVS_IMPORT("wvs", "log")
void wvs_log(uint32_t level, const char *text, uint32_t len);

#ifdef __cplusplus
}
#endif

#endif
