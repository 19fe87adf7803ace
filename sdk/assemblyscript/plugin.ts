// What every plugin has alike, once for all: its regions as static memory, and the exports
// `wvs_abi` and `wvs_region`.
//
// The director writes the request and the servers before it calls `wvs_schedule`.

import {
  ABI_VERSION, CONFIG_OCTETS_MAX, STATE_OCTETS_MAX,
  Region, Request, Server, ServerInfo, Signals,
} from "./wvs";

/** How many servers there is room for. A service with more servers refuses the plugin. */
export const SERVERS_MAX: u32 = 1024;

/** Where the service's `config` is as JSON text, and where the reason of a refusal goes. */
export const CONFIG: usize = memory.data(CONFIG_OCTETS_MAX, 8);

/** Where the state for the successor goes, and the predecessor's comes from. */
export const STATE: usize = memory.data(STATE_OCTETS_MAX, 8);

const REQUEST: usize = memory.data(offsetof<Request>(), 8);
const SERVERS: usize = memory.data(SERVERS_MAX * offsetof<Server>(), 8);
const SERVER_INFO: usize = memory.data(SERVERS_MAX * offsetof<ServerInfo>(), 8);
const SIGNALS: usize = memory.data(SERVERS_MAX * offsetof<Signals>(), 8);

/** The request to decide on. */
// @ts-ignore: decorator
@inline
export function request(): Request {
  return changetype<Request>(REQUEST);
}

/** The server at this index, in the order of the configuration. */
// @ts-ignore: decorator
@inline
export function server(index: u32): Server {
  return changetype<Server>(SERVERS + index * offsetof<Server>());
}

/** More about the server at this index, for plugins with `Caps.SERVER_INFO`. */
// @ts-ignore: decorator
@inline
export function serverInfo(index: u32): ServerInfo {
  return changetype<ServerInfo>(SERVER_INFO + index * offsetof<ServerInfo>());
}

/** How the server at this index does, for plugins with `Caps.SIGNALS`. */
// @ts-ignore: decorator
@inline
export function signals(index: u32): Signals {
  return changetype<Signals>(SIGNALS + index * offsetof<Signals>());
}

export function wvs_abi(): u32 {
  return ABI_VERSION;
}

export function wvs_region(kind: u32, size: u32): usize {
  switch (kind) {
    case Region.CONFIG: return size <= CONFIG_OCTETS_MAX ? CONFIG : 0;
    case Region.REQUEST: return size <= offsetof<Request>() ? REQUEST : 0;
    case Region.SERVERS: return size <= SERVERS_MAX * offsetof<Server>() ? SERVERS : 0;
    case Region.STATE: return size <= STATE_OCTETS_MAX ? STATE : 0;
    case Region.SERVER_INFO: return size <= SERVERS_MAX * offsetof<ServerInfo>() ? SERVER_INFO : 0;
    case Region.SIGNALS: return size <= SERVERS_MAX * offsetof<Signals>() ? SIGNALS : 0;
    default: return 0;
  }
}
