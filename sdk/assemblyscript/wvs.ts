// The contract between a WVS director and a scheduler plugin, version 1.0. All integers are little
// endian; addresses stand in network order. docs/PLUGINS.md of WVS explains it.
//
// Generated from the contract of WVS; not to be edited.
//
// What a plugin exports:
//
//     export function wvs_abi(): u32
// Required. The version of this contract: the major one in the upper 16 bits, the minor one in the
// lower. Another major version or a higher minor one is refused.
//
//     export function wvs_caps(): u32
// Optional. What the plugin reads and promises. Without this export: that it reads the counters.
//
//     export function wvs_region(kind: u32, size: u32): usize
// Required. The address of at least `size` octets for this kind of region, a multiple of 8; 0 when
// there are none. A later call for the same kind ends the earlier region's life.
//
//     export function wvs_init(len: u32): i32
// Optional. `len` octets of JSON are in the config region, 0 when the service has no `config`. 0
// takes it. Anything else refuses it, and the reason is a NUL-terminated text in the same region. A
// plugin without this export takes no `config`.
//
//     export function wvs_servers_changed(n: u32): i32
// Optional. The server table was written, at the start or because membership or weights changed.
// Below 0 is a fault.
//
//     export function wvs_state_load(len: u32): i32
// Optional. `len` octets that the predecessor saved are in the state region, and the server table
// is written. 0 takes them; below 0 they mean nothing to this plugin, which then starts afresh: no
// fault.
//
//     export function wvs_schedule(n: u32): i32
// Required. One decision: the request is in its region, `n` servers in theirs.
//
//     export function wvs_event(kind: u32, index: u32, argument: u32): void
// Optional. Something happened to a connection of the server at `index`. Called in the order of
// events before the next decision, at the latest after a tenth of a second.
//
//     export function wvs_tick(): u32
// Optional. Called once when the plugin got its service, and then after as many milliseconds as it
// returns, at least 10; 0 for never again. The request region has the time and a random number, and
// is otherwise 0.
//
//     export function wvs_state_save(capacity: u32): i32
// Optional. The plugin is about to be replaced. It writes what its successor should know to the
// state region, at most `capacity` octets, and returns their number; below 0 for nothing. Where it
// has more to say, it returns how much that is, and is called once more with room for it, 65,536
// octets at most. It goes on deciding where its successor fails.

/** What `wvs_abi` returns. */
export const ABI_VERSION: u32 = 0x00010000;

/** Octets that a configuration has at most. */
export const CONFIG_OCTETS_MAX: u32 = 65536;

/** Octets of the state region at most. */
export const STATE_OCTETS_MAX: u32 = 65536;

/** Octets of one line of the log; the rest is cut off. */
export const LOG_OCTETS_MAX: u32 = 1024;

/** Milliseconds between two ticks at least. */
export const TICK_MS_MIN: u32 = 10;

/** Kinds of regions, the first argument of `wvs_region`. */
export const enum Region {
  /** The configuration as JSON text in UTF-8, and the reason of a refusal. */
  CONFIG = 0,
  /** One request record. */
  REQUEST = 1,
  /** One server record for each server. */
  SERVERS = 2,
  /** Octets carried from one instance to its successor. */
  STATE = 3,
  /** One server info record for each server, for plugins with the cap of that name. */
  SERVER_INFO = 4,
  /** One signals record for each server, for plugins with the cap of that name. */
  SIGNALS = 5,
}

/** Bits of the result of `wvs_caps`. */
export const enum Caps {
  /** Reads `active` and `inactive`: they are refreshed before each decision. */
  COUNTERS = 1,
  /** The same request over the same servers always gives the same answer. */
  PURE = 2,
  /** Wants the server info region. */
  SERVER_INFO = 4,
  /**
   * Wants the signals region: it is refreshed before decisions, at most once a millisecond, and
   * before each tick.
   */
  SIGNALS = 8,
}

/** Bits of a server's `flags`. */
export const enum ServerFlags {
  /** The server may be used as far as its health goes. */
  UP = 1,
  /** The server reached its upper connection threshold. */
  OVERLOADED = 2,
  /** The server finishes its connections and gets no new ones. */
  DRAINING = 4,
}

/** Negative results of `wvs_schedule`; 0 and above is the index of a server. */
export const enum Result {
  /** No server can take the connection. */
  NO_SERVER = -1,
  /** The plugin leaves this one to the director. */
  DEFER = -2,
}

/** The first argument of `wvs_event`. The second is the index of the server. */
export const enum Event {
  /** A connection was opened to the server, whoever chose it. The argument is 0. */
  BOUND = 1,
  /**
   * A connection to the server is over. The argument is the milliseconds from its first packet to
   * its last, to about a second.
   */
  UNBOUND = 2,
  /** A connection to the server did not come about. The argument says why. */
  CONNECT_FAILED = 3,
}

/** The argument of the event `CONNECT_FAILED`. */
export const enum ConnectFailed {
  /** The server answered with a reset. */
  REFUSED = 0,
  /** The server did not answer before the connection expired. */
  UNANSWERED = 1,
}

/** The first argument of `wvs.log`. */
export const enum LogLevel {
  /** Something does not work. */
  ERROR = 1,
  /** Something may not be as it should. */
  WARN = 2,
  /** Something that an operator may want to know. */
  INFO = 3,
  /** Something that an author wants to know. */
  DEBUG = 4,
}

/** The first packet of a connection. */
// @ts-ignore: decorator
@unmanaged
export class Request {
  /** 4 or 6. */
  family: u8;
  /** IP protocol number: 6 TCP, 17 UDP, 1 ICMP echo, 58 ICMPv6 echo. */
  protocol: u8;
  /** None defined in version 1: 0. */
  flags: u16;
  /** Firewall mark, 0 when there is none. */
  mark: u32;
  /** The client's port; for an echo request its identifier. */
  clientPort: u16;
  /** The port of the virtual service; 0 for an echo request. */
  virtualPort: u16;
  /** The virtual service's number, stable while it exists. */
  serviceId: u32;
  private clientAddressFirst: u64;
  private clientAddressRest: u64;
  /** The client's address, IPv4 in the first four octets. */
  get clientAddressAt(): usize {
    return changetype<usize>(this) + 16;
  }
  private virtualAddressFirst: u64;
  private virtualAddressRest: u64;
  /** The virtual address (VIP), IPv4 in the first four octets. */
  get virtualAddressAt(): usize {
    return changetype<usize>(this) + 32;
  }
  /** Milliseconds on the director's monotonic clock. */
  nowMs: u64;
  /** A number from the director's generator, new for each request. */
  random: u64;
}

if (offsetof<Request>() != 64) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("family") != 0) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("protocol") != 1) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("flags") != 2) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("mark") != 4) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("clientPort") != 8) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("virtualPort") != 10) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("serviceId") != 12) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("clientAddressFirst") != 16) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("virtualAddressFirst") != 32) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("nowMs") != 48) ERROR("Request is not laid out as agreed");
if (offsetof<Request>("random") != 56) ERROR("Request is not laid out as agreed");

/** One real server as a plugin sees it. */
// @ts-ignore: decorator
@unmanaged
export class Server {
  /** Stable while the server exists and never given to another one. */
  id: u32;
  /**
   * EFFECTIVE weight, 0 to 65535. Zero means that the server must not be picked, whatever the
   * reason: quiesced, down, draining or overloaded.
   */
  weight: u32;
  /** Connections in an active state (TCP: handshake and established). */
  active: u32;
  /** All other connections, UDP's among them. */
  inactive: u32;
  /** Bits: up, overloaded, draining. */
  flags: u32;
  /** The weight in the configuration, whatever became of it. */
  configuredWeight: u32;
  /** A hash of address, port and protocol: the same in every process, so that directors agree. */
  key: u64;
}

if (offsetof<Server>() != 32) ERROR("Server is not laid out as agreed");
if (offsetof<Server>("id") != 0) ERROR("Server is not laid out as agreed");
if (offsetof<Server>("weight") != 4) ERROR("Server is not laid out as agreed");
if (offsetof<Server>("active") != 8) ERROR("Server is not laid out as agreed");
if (offsetof<Server>("inactive") != 12) ERROR("Server is not laid out as agreed");
if (offsetof<Server>("flags") != 16) ERROR("Server is not laid out as agreed");
if (offsetof<Server>("configuredWeight") != 20) ERROR("Server is not laid out as agreed");
if (offsetof<Server>("key") != 24) ERROR("Server is not laid out as agreed");

/** What does not fit into a server record, for plugins that ask for it. */
// @ts-ignore: decorator
@unmanaged
export class ServerInfo {
  private addressFirst: u64;
  private addressRest: u64;
  /** The real server's address, IPv4 in the first four octets. */
  get addressAt(): usize {
    return changetype<usize>(this) + 0;
  }
  /** The real server's port. */
  port: u16;
  /** 4 or 6. */
  family: u16;
  /** Connections at which the server counts as overloaded; 0 when unset. */
  upperThreshold: u32;
  /** Connections below which it recovers; 0 when unset. */
  lowerThreshold: u32;
  /** Always 0 in version 1. */
  reserved: u32;
}

if (offsetof<ServerInfo>() != 32) ERROR("ServerInfo is not laid out as agreed");
if (offsetof<ServerInfo>("addressFirst") != 0) ERROR("ServerInfo is not laid out as agreed");
if (offsetof<ServerInfo>("port") != 16) ERROR("ServerInfo is not laid out as agreed");
if (offsetof<ServerInfo>("family") != 18) ERROR("ServerInfo is not laid out as agreed");
if (offsetof<ServerInfo>("upperThreshold") != 20) ERROR("ServerInfo is not laid out as agreed");
if (offsetof<ServerInfo>("lowerThreshold") != 24) ERROR("ServerInfo is not laid out as agreed");
if (offsetof<ServerInfo>("reserved") != 28) ERROR("ServerInfo is not laid out as agreed");

/**
 * How a server does, as the director sees it in passing, for plugins that ask for it. The counts
 * wrap around; what matters is how much they grew.
 */
// @ts-ignore: decorator
@unmanaged
export class Signals {
  /**
   * Microseconds from a client's SYN to the server's SYN-ACK, as a moving average in which a new
   * one counts an eighth; 0 before the first.
   */
  connectUs: u32;
  /** Handshakes that the server answered. */
  connects: u32;
  /** Connections that the server reset or refused. */
  resets: u32;
  /** Connections that the server did not answer before they expired. */
  timeouts: u32;
  /** Octets of packets to the server. */
  inOctets: u64;
  /** Octets of packets from the server. */
  outOctets: u64;
}

if (offsetof<Signals>() != 32) ERROR("Signals is not laid out as agreed");
if (offsetof<Signals>("connectUs") != 0) ERROR("Signals is not laid out as agreed");
if (offsetof<Signals>("connects") != 4) ERROR("Signals is not laid out as agreed");
if (offsetof<Signals>("resets") != 8) ERROR("Signals is not laid out as agreed");
if (offsetof<Signals>("timeouts") != 12) ERROR("Signals is not laid out as agreed");
if (offsetof<Signals>("inOctets") != 16) ERROR("Signals is not laid out as agreed");
if (offsetof<Signals>("outOctets") != 24) ERROR("Signals is not laid out as agreed");

/**
 * Writes a line of at most 1024 octets of UTF-8 to the director's log. Lines that come too fast are
 * counted and not written.
 */
// @ts-ignore: decorator
@external("wvs", "log")
export declare function log(level: u32, text: usize, len: u32): void;
