//! Every key of the configuration: its name, default, range and meaning, in one place. The reader
//! accepts what stands here and nothing else; `docs/CONFIG.md` shows these tables, and
//! `json_schema` tells editors.

use std::fmt;
use std::time::Duration;

use wvs_plugin::builtin;

use super::kind::Kind;

/// Seconds of a day.
const DAY: u64 = 24 * 3_600;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// One key of a mapping.
#[derive(Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// What holds without it; `None` when it must be given.
    pub default: Option<&'static str>,
    /// What may be written.
    pub kind: Kind,
    /// What it does.
    pub meaning: &'static str,
}

/// The keys of one kind of mapping.
#[derive(Debug)]
pub struct Table {
    /// Where such a mapping stands; empty for the file itself.
    pub path: &'static str,
    /// Its keys, in the order in which people would write them.
    pub keys: &'static [Key],
}

impl Key {
    const fn required(name: &'static str, kind: Kind, meaning: &'static str) -> Self {
        Self { name, default: None, kind, meaning }
    }

    const fn optional(
        name: &'static str,
        default: &'static str,
        kind: Kind,
        meaning: &'static str,
    ) -> Self {
        Self { name, default: Some(default), kind, meaning }
    }
}

/// The key for what keepalived calls so.
pub(super) fn of_lvs(name: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 12] = [
        ("connect_timeout", "timeout"),
        ("delay_loop", "interval"),
        ("ip", "vip"),
        ("lb_algo", "scheduler"),
        ("lb_kind", "forward"),
        ("lvs_method", "forward"),
        ("lvs_sched", "scheduler"),
        ("persistence_granularity", "prefix"),
        ("persistence_timeout", "persistence"),
        ("real_server", "servers"),
        ("retry", "fall"),
        ("virtual_server", "services"),
    ];
    NAMES.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
}

impl Table {
    /// The key of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// What may be written as the value of this key.
    pub(super) fn values(&self, name: &str) -> String {
        self.find(name).map_or_else(|| "a value".to_owned(), |key| key.kind.to_string())
    }
}

/// The table as Markdown, as `docs/CONFIG.md` has it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Key | Values | Default | Meaning |")?;
        writeln!(f, "| --- | --- | --- | --- |")?;
        for Key { name, default, kind, meaning } in self.keys {
            match default {
                Some(default) => writeln!(f, "| `{name}` | {kind} | {default} | {meaning} |")?,
                None => writeln!(f, "| `{name}` | {kind} | *required* | {meaning} |")?,
            }
        }
        Ok(())
    }
}

/// A range of ports above 0.
const PORTS: Kind =
    Kind::Form("a range of ports, as in `10000-65535`", "^ *[0-9]{1,5} *- *[0-9]{1,5} *$");

/// Statuses of HTTP that follow each other.
const STATUSES: Kind = Kind::Form("a range such as `200-299`", "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$");

/// How a server is checked, or that it is not.
const CHECK: Kind = Kind::Either(&[
    Kind::Words(&["none", "tcp", "http", "https", "udp", "dns", "grpc"]),
    Kind::Mapping(&HEALTH),
]);

/// Every table, in the order of the documentation.
pub static TABLES: &[&Table] = &[
    &FILE,
    &DEVICE,
    &ADMIN,
    &LIMITS,
    &METRICS,
    &CONNECTION_LOG,
    &PLUGIN,
    &PLUGIN_LIMITS,
    &SERVICE,
    &SCHEDULER,
    &SHADOW,
    &POOL,
    &PERSISTENCE,
    &TIMEOUTS,
    &DRAIN,
    &SORRY_SERVER,
    &SERVER,
    &HEALTH,
    &HEALTH_HTTP,
    &HEALTH_HTTPS,
    &HEALTH_UDP,
    &HEALTH_DNS,
    &HEALTH_COMMAND,
    &HEALTH_GRPC,
    &HEALTH_PASSIVE,
];

/// The file itself.
pub static FILE: Table = Table {
    path: "",
    keys: &[
        Key::optional(
            "device",
            "as below",
            Kind::Mapping(&DEVICE),
            "The TUN device that packets come in by and leave by.",
        ),
        Key::optional(
            "routing",
            "`managed`",
            Kind::Words(&["managed", "print", "off"]),
            "Who sets routes, policy rules and sysctls: the director, which takes them \
             back when it stops; you, from the commands that the director prints; or \
             you, without being told.",
        ),
        Key::optional(
            "watch",
            "`false`",
            Kind::Truth,
            "Whether the director reads this file again by itself when it changed, as `wvs reload` \
             does. What is wrong with it then is in the log.",
        ),
        Key::optional(
            "admin",
            "as below",
            Kind::Mapping(&ADMIN),
            "How `wvs list` and other commands reach the running director.",
        ),
        Key::optional("limits", "as below", Kind::Mapping(&LIMITS), "What the director may use."),
        Key::optional(
            "echo",
            "`reply`",
            Kind::Words(&["reply", "drop"]),
            "What becomes of a ping to a VIP that has no `icmp` service.",
        ),
        Key::optional(
            "closed_port",
            "`reject`",
            Kind::Words(&["reject", "drop"]),
            "What becomes of a packet to a port of a VIP that no service has. `reject` \
             answers TCP with a reset and anything else with ICMP port unreachable.",
        ),
        Key::optional("metrics", "as below", Kind::Options(&METRICS), "What `GET /metrics` tells."),
        Key::optional(
            "connection_log",
            "none",
            Kind::Mapping(&CONNECTION_LOG),
            "A log with a line for each beginning and each end of a connection.",
        ),
        Key::optional(
            "plugins",
            "none",
            Kind::Named("plugins", &PLUGIN, 256),
            "Scheduler plugins of your own, each under a name that `scheduler` can use.",
        ),
        Key::required(
            "services",
            Kind::List("services", &Kind::Mapping(&SERVICE), 1..=4_096),
            "The virtual services.",
        ),
    ],
};

/// `device`.
pub static DEVICE: Table = Table {
    path: "device",
    keys: &[
        Key::optional(
            "name",
            "`wvs0`",
            Kind::Text(
                "1 to 15 letters, digits, `.`, `_` or `-`; not `lo`, `all` or `default`",
                "^[A-Za-z0-9._-]{1,15}$",
            ),
            "The device's name. Two directors on one host need two names.",
        ),
        Key::optional(
            "mtu",
            "`auto`",
            Kind::Either(&[Kind::Words(&["auto"]), Kind::Integer(576..=65_535)]),
            "The longest packet in octets. `auto` takes the smallest MTU on the ways to \
             the real servers and of the default routes, so that clients learn of it, and \
             follows it when links and routes change; IPv6 needs 1280 or more.",
        ),
        Key::optional(
            "queues",
            "`auto`",
            Kind::Either(&[Kind::Words(&["auto"]), Kind::Integer(1..=64)]),
            "How many queues the device has, each with a thread of its own. `auto` is one \
             for each processor, 8 at most. Where the kernel cannot keep a connection in \
             one queue, there is one.",
        ),
        Key::optional(
            "offload",
            "`true`",
            Kind::Truth,
            "Whether packets may come in pieces of up to 64 KiB and without their \
             checksums, to be cut up and finished where they leave the host. Where the \
             kernel cannot, they come one by one.",
        ),
    ],
};

/// `admin`.
pub static ADMIN: Table = Table {
    path: "admin",
    keys: &[
        Key::optional(
            "socket",
            "`/run/wvs/wvs.sock`",
            Kind::Text("a path of at most 107 octets", "^.{1,107}$"),
            "The Unix socket of the running director. Its folder is made when missing. A relative \
             path starts at the configuration's folder.",
        ),
        Key::optional(
            "mode",
            "`\"0660\"`",
            Kind::Text("an octal number from 0600 to 0666 without x bits", "^0?6[0246]{2}$"),
            "The permissions of the socket. Who may write to it may use it.",
        ),
        Key::optional(
            "group",
            "the process's",
            Kind::Text("a group's name or number, up to 31 characters", "^.{1,31}$"),
            "The group of the socket, which must exist.",
        ),
        Key::optional(
            "listen",
            "nothing",
            Kind::Form(
                "an IP address with a port, as `127.0.0.1:9180` or `\"[::1]:9180\"`",
                "^.+:[0-9]{1,5}$",
            ),
            "A TCP listener for programs, with the same interface; only together with `token_file`.",
        ),
        Key::optional(
            "token_file",
            "none",
            Kind::Text("the path of a file that not everybody may read", "^.+$"),
            "What clients of `listen` have to send along: 16 to 512 letters, digits and signs. It is \
             read at the start. A relative path starts at the configuration's folder.",
        ),
    ],
};

/// `limits`.
pub static LIMITS: Table = Table {
    path: "limits",
    keys: &[
        Key::optional(
            "connections",
            "1048576",
            Kind::Integer(1..=16_777_216),
            "Connections at once, all services together. The next one is refused and \
             counted as `table_full`, unless a half-open one makes way.",
        ),
        Key::optional(
            "half_open",
            "65536",
            Kind::Integer(1..=16_777_216),
            "TCP connections at once whose client has not answered the real server yet. The \
             oldest makes way for the next one and is counted as evicted, so that a flood of \
             SYNs shuts nobody out.",
        ),
        Key::optional(
            "templates",
            "262144",
            Kind::Integer(1..=16_777_216),
            "Clients of each service with `persistence` whose server is remembered. Those of \
             further ones are scheduled one by one, and counted.",
        ),
        Key::optional(
            "checks",
            "512",
            Kind::Integer(1..=65_536),
            "Health checks at once, each with a file descriptor or a process. The next one waits.",
        ),
        Key::optional(
            "replies",
            "1000",
            Kind::Integer(0..=1_000_000),
            "Answers of the director's own a second: resets, ICMP errors, echo replies. \
             More are counted as `reply_limit` and not sent.",
        ),
    ],
};

/// `metrics`.
pub static METRICS: Table = Table {
    path: "metrics",
    keys: &[Key::optional(
        "servers",
        "`false`",
        Kind::Truth,
        "Whether there are series for each real server besides those for each service. A \
             service of 16 servers has 144 more of them.",
    )],
};

/// `connection_log`.
pub static CONNECTION_LOG: Table = Table {
    path: "connection_log",
    keys: &[
        Key::required(
            "file",
            Kind::Text("the path of a file, or `stderr`", "^.+$"),
            "Lines go to the end of this file, made when missing with mode 0640, or to \
             standard error. A relative path starts at the configuration's folder.",
        ),
        Key::optional(
            "format",
            "`text`",
            Kind::Words(&["text", "json"]),
            "`text` is a line for people, `json` an object a line for programs.",
        ),
        Key::optional(
            "rate",
            "1000",
            Kind::Integer(1..=1_000_000),
            "Lines a second. More are left out and counted, and once a second a line says so.",
        ),
    ],
};

/// `plugins.NAME`.
pub static PLUGIN: Table = Table {
    path: "plugins.NAME",
    keys: &[
        Key::required(
            "file",
            Kind::Text("the path of a WebAssembly module", "^.+$"),
            "The plugin. A relative path starts at the configuration's folder.",
        ),
        Key::optional(
            "sha256",
            "not checked",
            Kind::Text("64 hexadecimal digits", "^[0-9A-Fa-f]{64}$"),
            "Refuses any other file than the one with this SHA-256 hash.",
        ),
        Key::optional(
            "watch",
            "`false`",
            Kind::Truth,
            "Whether the director puts the file to work by itself when it has changed. Not \
             together with `sha256`.",
        ),
        Key::optional(
            "limits",
            "as below",
            Kind::Mapping(&PLUGIN_LIMITS),
            "What the plugin may use.",
        ),
    ],
};

/// `plugins.NAME.limits`.
pub static PLUGIN_LIMITS: Table = Table {
    path: "plugins.NAME.limits",
    keys: &[
        Key::optional(
            "memory",
            "16MiB",
            Kind::Size(64 * KIB..=GIB),
            "Memory of each instance; there is one instance for each service.",
        ),
        Key::optional(
            "fuel",
            "1000000",
            Kind::Integer(1_000..=100_000_000),
            "Fuel for one decision, about one for each WebAssembly instruction. A \
             plugin that needs more is stopped, and the director decides instead.",
        ),
        Key::optional(
            "setup_fuel",
            "50000000",
            Kind::Integer(1_000..=1_000_000_000),
            "Fuel for reading the configuration, and for each new list of servers.",
        ),
        Key::optional(
            "start_fuel",
            "200000000",
            Kind::Integer(1_000..=1_000_000_000),
            "Fuel for starting the module's runtime, which some languages have.",
        ),
        Key::optional("module", "4MiB", Kind::Size(KIB..=16 * MIB), "Octets of the file."),
        Key::optional(
            "function",
            "64KiB",
            Kind::Size(KIB..=MIB),
            "Octets of one function of it: compiling takes more than linear time.",
        ),
    ],
};

/// `services[]`.
pub static SERVICE: Table = Table {
    path: "services[]",
    keys: &[
        Key::required(
            "name",
            Kind::Text(
                "1 to 63 letters, digits, `.`, `_` or `-`, the first a letter or digit",
                "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
            ),
            "The service's name in listings and logs, once in the file.",
        ),
        Key::required(
            "vip",
            Kind::Said(
                "an IPv4 or IPv6 address, or a list of up to 64 of one family",
                &Kind::Either(&[Kind::Address, Kind::List("addresses", &Kind::Address, 1..=64)]),
            ),
            "The virtual address that clients connect to. It must not be an address of \
             the host's own.",
        ),
        Key::optional(
            "port",
            "required for `tcp` and `udp`",
            Kind::Said(
                "1 to 65535, a range as in `8000-8100`, a list of up to 256 of both, or 0",
                &Kind::Either(&[
                    Kind::Integer(0..=65_535),
                    PORTS,
                    Kind::List(
                        "ports",
                        &Kind::Either(&[Kind::Integer(1..=65_535), PORTS]),
                        1..=256,
                    ),
                ]),
            ),
            "The virtual port. 0 stands for every port of the VIP that no other service has. \
             An `icmp` service has none.",
        ),
        Key::optional(
            "protocol",
            "`tcp`",
            Kind::Words(&["tcp", "udp", "icmp"]),
            "What the service carries; `icmp` is echo requests and their replies.",
        ),
        Key::optional(
            "scheduler",
            "`wlc`",
            Kind::Either(&[
                Kind::Words(builtin::NAMES),
                Kind::Text("the name of a plugin", "^.+$"),
                Kind::Mapping(&SCHEDULER),
            ]),
            "Which plugin chooses the real server of a new connection.",
        ),
        Key::optional(
            "forward",
            "`nat`",
            Kind::Words(&["nat", "fullnat"]),
            "What real servers see. `nat`: the client, and their way back to it must lead through \
             the director. `fullnat`: an address of `pool`, and they need no way back.",
        ),
        Key::optional(
            "pool",
            "the VIP",
            Kind::Mapping(&POOL),
            "What stands in for clients with `fullnat`.",
        ),
        Key::optional(
            "persistence",
            "none",
            Kind::Said(
                "a duration from 1s to 31d, or a mapping",
                &Kind::Either(&[
                    Kind::Duration(Duration::from_secs(1)..=Duration::from_secs(31 * DAY)),
                    Kind::Mapping(&PERSISTENCE),
                ]),
            ),
            "For how long a client that comes back gets the server it had, whatever the \
             scheduler would say.",
        ),
        Key::optional(
            "one_packet",
            "`false`",
            Kind::Truth,
            "`udp`: every datagram is scheduled by itself and opens no connection; answers still \
             come from the VIP. For a single `vip`, and `forward: nat`.",
        ),
        Key::optional(
            "timeouts",
            "as below",
            Kind::Mapping(&TIMEOUTS),
            "How long a connection may be silent before it is forgotten.",
        ),
        Key::optional(
            "on_no_server",
            "`reset`",
            Kind::Words(&["reset", "icmp", "drop"]),
            "What a client gets when no real server may take its connection. `reset` \
             answers TCP with a reset and anything else with ICMP port unreachable, \
             `icmp` answers everything with ICMP port unreachable, as IPVS does.",
        ),
        Key::optional(
            "on_stray",
            "`reset`",
            Kind::Words(&["reset", "drop", "pickup"]),
            "What becomes of a TCP segment in the middle of a connection that the \
             director does not know. `pickup` schedules it like a first one, so that \
             with a scheduler such as `sh` some connections survive a restart; see below.",
        ),
        Key::optional(
            "quorum",
            "1",
            Kind::Integer(1..=268_431_360),
            "The servers are too few when the weights of those that are up add up to less than \
             this; then those with `backup` help out, and if that is too little `sorry_server` does.",
        ),
        Key::optional(
            "hysteresis",
            "0",
            Kind::Said("0 to the quorum less 1", &Kind::Integer(0..=268_431_359)),
            "How far below `quorum` the sum has to fall, and how far above it to rise again, for \
             that to change.",
        ),
        Key::optional(
            "sorry_server",
            "none",
            Kind::Mapping(&SORRY_SERVER),
            "Gets the connections that no real server may take.",
        ),
        Key::optional(
            "slow_start",
            "none",
            Kind::Duration(Duration::from_secs(1)..=Duration::from_secs(3_600)),
            "How long a server that came up or was added takes to get all that the scheduler \
             gives it, whatever the scheduler.",
        ),
        Key::optional(
            "on_down",
            "`keep`",
            Kind::Words(&["keep", "reset"]),
            "What becomes of the TCP connections of a server that is down: they go on as long as \
             packets come, or both sides get a reset. Those of UDP go to another server at once.",
        ),
        Key::optional(
            "drain",
            "as below",
            Kind::Mapping(&DRAIN),
            "What becomes of the connections of a server that is drained, or no longer in the file.",
        ),
        Key::optional(
            "health",
            "`none`",
            CHECK,
            "How the director finds out which real servers are well. `none`: it takes all of them \
             to be.",
        ),
        Key::required(
            "servers",
            Kind::List("real servers", &Kind::Mapping(&SERVER), 0..=4_096),
            "The real servers, in the order that the scheduler sees them in.",
        ),
    ],
};

/// `services[].scheduler`, where it is a mapping.
pub static SCHEDULER: Table = Table {
    path: "services[].scheduler",
    keys: &[
        Key::required(
            "plugin",
            Kind::Text("the name of a built-in scheduler or of a plugin", "^.+$"),
            "As `scheduler` without a mapping.",
        ),
        Key::optional(
            "config",
            "none",
            Kind::Said("any value, up to 64KiB as JSON", &Kind::Any),
            "Handed to the plugin as JSON text. What it may hold is the plugin's affair.",
        ),
        Key::optional(
            "probation",
            "1000",
            Kind::Integer(0..=1_000_000_000),
            "For so many decisions of a plugin that took another one's place, the old one is kept at \
             hand: at a fault it decides instead and has its place back. 0: never.",
        ),
        Key::optional(
            "record",
            "nothing",
            Kind::Size(64 * KIB..=32 * MIB),
            "So much of the latest of what the plugin was told and answered is kept, for \
             `wvs plugin record` and `wvs plugin simulate --replay`.",
        ),
        Key::optional(
            "shadow",
            "none",
            Kind::Said(
                "the name of a built-in scheduler or of a plugin, or a mapping",
                &Kind::Either(&[Kind::Text("", "^.+$"), Kind::Mapping(&SHADOW)]),
            ),
            "A candidate that is asked the same and compared, without being obeyed.",
        ),
        Key::optional(
            "canary",
            "0%",
            Kind::Percent,
            "The share of the clients, always the same ones, for which the `shadow` is obeyed.",
        ),
    ],
};

/// `services[].scheduler.shadow`, where it is a mapping.
pub static SHADOW: Table = Table {
    path: "services[].scheduler.shadow",
    keys: &[
        Key::required(
            "plugin",
            Kind::Text("the name of a built-in scheduler or of a plugin", "^.+$"),
            "As `shadow` without a mapping.",
        ),
        Key::optional(
            "config",
            "none",
            Kind::Said("any value, up to 64KiB as JSON", &Kind::Any),
            "Handed to the candidate as JSON text.",
        ),
        Key::optional(
            "faults",
            "3",
            Kind::Integer(1..=1_000_000),
            "After so many faults of the candidate's the trial stops by itself.",
        ),
        Key::optional(
            "skew",
            "30%",
            Kind::Percent,
            "A canary stops by itself when more than this part of all connections would go to \
             other servers than without it. 100%: never.",
        ),
    ],
};

/// `services[].pool`.
pub static POOL: Table = Table {
    path: "services[].pool",
    keys: &[
        Key::optional(
            "addresses",
            "the VIP",
            Kind::List("addresses of the same family as `vip`", &Kind::Address, 1..=256),
            "Routed to the director like the VIP; no address of the host's own.",
        ),
        Key::optional(
            "ports",
            "1024-65535",
            PORTS,
            "The ports of each address. Every real server can have as many connections as there \
             are addresses times ports; the next one is refused as if it had no server.",
        ),
    ],
};

/// `services[].persistence`, where it is a mapping.
pub static PERSISTENCE: Table = Table {
    path: "services[].persistence",
    keys: &[
        Key::optional(
            "timeout",
            "6m",
            Kind::Duration(Duration::from_secs(1)..=Duration::from_secs(31 * DAY)),
            "How long a client's server is remembered after its latest connection was opened; \
             longer while one of them lives.",
        ),
        Key::optional(
            "prefix",
            "32, or 128 for IPv6",
            Kind::Said("1 to 32, or to 128 for IPv6", &Kind::Integer(1..=128)),
            "Clients that have so many leading bits of their addresses in common count as one.",
        ),
        Key::optional(
            "quiesced",
            "`honour`",
            Kind::Words(&["honour", "break"]),
            "Whether clients stay with a server of weight 0, or one that is drained. With one \
             that is down they never do.",
        ),
    ],
};

const TIMEOUT: Kind = Kind::Duration(Duration::from_millis(100)..=Duration::from_secs(31 * DAY));

/// `services[].timeouts`.
pub static TIMEOUTS: Table = Table {
    path: "services[].timeouts",
    keys: &[
        Key::optional("established", "15m", TIMEOUT, "TCP, both sides talk."),
        Key::optional("syn_sent", "2m", TIMEOUT, "TCP, a SYN came from the real server."),
        Key::optional("syn_recv", "1m", TIMEOUT, "TCP, a SYN came from the client."),
        Key::optional("fin_wait", "2m", TIMEOUT, "TCP, the real server closed its side."),
        Key::optional("time_wait", "2m", TIMEOUT, "TCP, both sides closed."),
        Key::optional("close", "10s", TIMEOUT, "TCP, reset or refused."),
        Key::optional("close_wait", "1m", TIMEOUT, "TCP, the client closed its side."),
        Key::optional("last_ack", "30s", TIMEOUT, "TCP, the last acknowledgement is awaited."),
        Key::optional("udp", "5m", TIMEOUT, "UDP."),
        Key::optional("icmp", "30s", TIMEOUT, "ICMP echo."),
    ],
};

/// `services[].drain`.
pub static DRAIN: Table = Table {
    path: "services[].drain",
    keys: &[
        Key::optional(
            "deadline",
            "none",
            Kind::Duration(Duration::from_secs(0)..=Duration::from_secs(31 * DAY)),
            "How long the server's connections may go on.",
        ),
        Key::optional(
            "then",
            "`reset`",
            Kind::Words(&["keep", "reset"]),
            "What becomes of TCP connections that are left at the deadline: they go on, or both \
             sides get a reset.",
        ),
    ],
};

/// `services[].sorry_server`.
pub static SORRY_SERVER: Table = Table {
    path: "services[].sorry_server",
    keys: &[
        Key::required(
            "address",
            Kind::Said("an IP address of the same family as `vip`", &Kind::Address),
            "The server's address, as with the others.",
        ),
        Key::optional("port", "the service's", Kind::Integer(1..=65_535), "The server's port."),
    ],
};

/// `services[].servers[]`.
pub static SERVER: Table = Table {
    path: "services[].servers[]",
    keys: &[
        Key::required(
            "address",
            Kind::Said("an IP address of the same family as `vip`", &Kind::Address),
            "The real server's address. Unless `forward` is `fullnat`, its way back to the \
             clients must lead through the director.",
        ),
        Key::optional(
            "port",
            "the service's",
            Kind::Integer(1..=65_535),
            "The real server's port. Without one, and with several ports of the service, it is \
             the one that the client connects to.",
        ),
        Key::optional(
            "weight",
            "1",
            Kind::Integer(0..=65_535),
            "Its share beside the others', for schedulers that heed it. 0 quiesces it: \
             no new connections, existing ones go on.",
        ),
        Key::optional(
            "upper_threshold",
            "none",
            Kind::Integer(1..=16_777_216),
            "With so many connections, active or not, it gets no new ones.",
        ),
        Key::optional(
            "lower_threshold",
            "three quarters of the upper one",
            Kind::Said("1 to the upper one", &Kind::Integer(1..=16_777_216)),
            "With fewer than so many it gets new ones again.",
        ),
        Key::optional(
            "backup",
            "`false`",
            Kind::Truth,
            "Whether it gets connections only while the others are too few; see `quorum`.",
        ),
        Key::optional(
            "health",
            "the service's",
            Kind::Said("as the service's", &CHECK),
            "What is different for this server; keys that are not given are the service's. \
             `none`: it is not checked.",
        ),
    ],
};

/// `services[].health`, where it is a mapping, and that of a server.
pub static HEALTH: Table = Table {
    path: "services[].health",
    keys: &[
        Key::optional(
            "tcp",
            "not asked",
            Kind::Options(&HEALTH_TCP),
            "Good is a server that accepts a connection.",
        ),
        Key::optional(
            "http",
            "not asked",
            Kind::Options(&HEALTH_HTTP),
            "Good is the right response to an HTTP request.",
        ),
        Key::optional(
            "https",
            "not asked",
            Kind::Options(&HEALTH_HTTPS),
            "The same within TLS, with a certificate that can be verified.",
        ),
        Key::optional(
            "udp",
            "not asked",
            Kind::Options(&HEALTH_UDP),
            "Good is the right answer to a datagram, or none at all but no ICMP error either.",
        ),
        Key::optional(
            "dns",
            "not asked",
            Kind::Options(&HEALTH_DNS),
            "Good is an answer to a question over UDP, also that there is no such name.",
        ),
        Key::optional(
            "command",
            "not asked",
            Kind::Mapping(&HEALTH_COMMAND),
            "A program that says what is good.",
        ),
        Key::optional(
            "grpc",
            "not asked",
            Kind::Options(&HEALTH_GRPC),
            "Good is `SERVING` from `grpc.health.v1.Health/Check`, over HTTP/2 without TLS.",
        ),
        Key::optional("address", "the server's", Kind::Address, "What is asked."),
        Key::optional("port", "the server's", Kind::Integer(1..=65_535), "The port that is asked."),
        Key::optional(
            "interval",
            "2s",
            Kind::Duration(Duration::from_millis(100)..=Duration::from_secs(DAY)),
            "From the beginning of one check to that of the next, a tenth more or less. The first \
             comes within the first interval.",
        ),
        Key::optional(
            "down_interval",
            "as `interval`",
            Kind::Duration(Duration::from_millis(100)..=Duration::from_secs(DAY)),
            "The same while the server is down.",
        ),
        Key::optional(
            "timeout",
            "1s",
            Kind::Duration(Duration::from_millis(10)..=Duration::from_secs(5 * 60)),
            "A check that takes longer is bad.",
        ),
        Key::optional(
            "rise",
            "2",
            Kind::Integer(1..=100),
            "So many good checks in a row make a server up that is down.",
        ),
        Key::optional(
            "fall",
            "3",
            Kind::Integer(1..=100),
            "So many bad checks in a row make a server down that is up.",
        ),
        Key::optional(
            "start",
            "`up`",
            Kind::Words(&["up", "down"]),
            "What a new server is until its first check, which then decides alone.",
        ),
        Key::optional(
            "passive",
            "none",
            Kind::Either(&[Kind::Options(&HEALTH_PASSIVE), Kind::Words(&["none"])]),
            "Whether clients' connections tell, too. Only for `tcp`.",
        ),
    ],
};

/// `tcp` of `health`, which has no options.
pub static HEALTH_TCP: Table = Table { path: "services[].health.tcp", keys: &[] };

const HTTP_PATH: Key = Key::optional(
    "path",
    "`/`",
    Kind::Text("a path that begins with `/`, perhaps a query", "^/"),
    "What is asked for.",
);
const HTTP_HOST: Key = Key::optional(
    "host",
    "what is asked, with its port",
    Kind::Text("a name or address, perhaps with a port", "^[^@]+$"),
    "The `Host` header.",
);
const HTTP_METHOD: Key = Key::optional(
    "method",
    "`GET`",
    Kind::Words(&["GET", "HEAD", "OPTIONS", "POST"]),
    "The request's method.",
);
const HTTP_EXPECT: Key = Key::optional(
    "expect",
    "200-299",
    Kind::Said(
        "a status from 100 to 599, a range such as `200-299`, or a list of both",
        &Kind::Either(&[
            Kind::Integer(100..=599),
            STATUSES,
            Kind::List(
                "statuses",
                &Kind::Either(&[Kind::Integer(100..=599), STATUSES]),
                1..=65_536,
            ),
        ]),
    ),
    "The good statuses. Redirections are not followed.",
);
const HTTP_BODY: Key = Key::optional(
    "body",
    "any",
    Kind::Text("a text of 1 to 1024 octets", r"^[\s\S]{1,1024}$"),
    "What must be in the first 64KiB of the response's body.",
);

/// `http` of `health`.
pub static HEALTH_HTTP: Table = Table {
    path: "services[].health.http",
    keys: &[HTTP_PATH, HTTP_HOST, HTTP_METHOD, HTTP_EXPECT, HTTP_BODY],
};

/// `https` of `health`.
pub static HEALTH_HTTPS: Table = Table {
    path: "services[].health.https",
    keys: &[
        HTTP_PATH,
        HTTP_HOST,
        HTTP_METHOD,
        HTTP_EXPECT,
        HTTP_BODY,
        Key::optional(
            "verify",
            "`true`",
            Kind::Truth,
            "Whether the server's certificate must be valid and of somebody trusted.",
        ),
        Key::optional(
            "ca",
            "the system's certificates",
            Kind::Text("the path of a PEM file of at most 1MiB", "^.+$"),
            "Who alone is trusted. A relative path starts at the configuration's folder; the file \
             is read again when it has changed.",
        ),
        Key::optional(
            "server_name",
            "the host of `host`, or else the address asked",
            Kind::Text("a name or an IP address", "^.+$"),
            "Whom the certificate must be for, and who is asked for in TLS.",
        ),
    ],
};

/// `udp` of `health`.
pub static HEALTH_UDP: Table = Table {
    path: "services[].health.udp",
    keys: &[
        Key::optional(
            "send",
            "nothing",
            Kind::Text("a text of 1 to 1024 octets", r"^[\s\S]{1,1024}$"),
            "What the datagram holds.",
        ),
        Key::optional(
            "send_hex",
            "nothing",
            Kind::Text(
                "1 to 1024 octets, two hexadecimal digits each",
                "^([0-9A-Fa-f]{2}){1,1024}$",
            ),
            "The same as octets.",
        ),
        Key::optional(
            "expect",
            "any answer, or none",
            Kind::Text("a text of 1 to 1024 octets", r"^[\s\S]{1,1024}$"),
            "What must be in the first 8KiB of the first answer.",
        ),
        Key::optional(
            "expect_hex",
            "any answer, or none",
            Kind::Text(
                "1 to 1024 octets, two hexadecimal digits each",
                "^([0-9A-Fa-f]{2}){1,1024}$",
            ),
            "The same as octets.",
        ),
    ],
};

/// `dns` of `health`.
pub static HEALTH_DNS: Table = Table {
    path: "services[].health.dns",
    keys: &[
        Key::optional(
            "name",
            "`.`",
            Kind::Text("a domain name", "^([A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*[.]?|[.])$"),
            "What is asked for.",
        ),
        Key::optional(
            "type",
            "`SOA`",
            Kind::Words(&["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"]),
            "Which records are asked for.",
        ),
    ],
};

/// `command` of `health`.
pub static HEALTH_COMMAND: Table = Table {
    path: "services[].health.command",
    keys: &[
        Key::required(
            "run",
            Kind::List("texts", &Kind::Text("", ""), 1..=64),
            "The path of a program, and its arguments. There is no shell and no search in `PATH`; a \
             relative path starts at the configuration's folder.",
        ),
        Key::optional(
            "weight",
            "`false`",
            Kind::Truth,
            "`false`: exit code 0 is good, anything else bad. `true`: 0 is good with the configured \
             weight, 1 is bad, and 2 to 255 are good with a weight of 0 to 253.",
        ),
    ],
};

/// `grpc` of `health`.
pub static HEALTH_GRPC: Table = Table {
    path: "services[].health.grpc",
    keys: &[Key::optional(
        "service",
        "the server as a whole",
        Kind::Text("a text of at most 127 octets", "^.{0,127}$"),
        "The gRPC service that is asked about.",
    )],
};

/// `passive` of `health`.
pub static HEALTH_PASSIVE: Table = Table {
    path: "services[].health.passive",
    keys: &[
        Key::optional(
            "failures",
            "5",
            Kind::Integer(1..=1_000),
            "So many connections in a row, refused or never answered, make a server down.",
        ),
        Key::optional(
            "for",
            "30s",
            Kind::Duration(Duration::from_secs(1)..=Duration::from_secs(DAY)),
            "How long it is down then.",
        ),
    ],
};
