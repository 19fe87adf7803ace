//! What the doctor can find: each thing under a code that stays, with why it matters.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The director does not start, or clients do not get what they should.
    Error,
    /// Something works less well than it could, or only as long as nothing else happens.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Declares [`Code`] from a table: name, severity, why it matters.
macro_rules! codes {
    ($($(#[$meta:meta])* $code:ident $name:literal $severity:ident $why:literal,)+) => {
        /// What is wrong. The names never change, so that programs can rely on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$meta])* $code,)+
        }

        impl Code {
            /// Every code, in the order of looking.
            pub const ALL: &[Self] = &[$(Self::$code),+];

            /// The name in answers and in the documentation.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$code => $name),+ }
            }

            /// How bad it is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$code => Severity::$severity),+ }
            }

            /// Why it matters, in a sentence.
            #[must_use]
            pub fn why(self) -> &'static str {
                match self { $(Self::$code => $why),+ }
            }
        }
    };
}

codes! {
    /// No `CAP_NET_ADMIN`.
    Rights "rights" Error
        "without it no device and no route can be made, and the director does not start",
    /// No `/dev/net/tun`.
    TunMissing "tun-missing" Error
        "packets come to the director through a TUN device; without the driver it does not start",
    /// `/dev/net/tun` may not be opened.
    TunForbidden "tun-forbidden" Error
        "packets come to the director through a TUN device, which it may not make here",
    /// Something has the device's name, and no director answers for it.
    DeviceInUse "device-in-use" Error
        "the director makes this device itself and refuses to start while another one has its name",
    /// The control socket does not answer as a director does.
    DirectorSilent "director-silent" Error
        "what cannot be asked cannot be operated: no listing, no reload, no change",
    /// The control socket may not be used by this user.
    SocketForbidden "socket-forbidden" Warning
        "what the running director has seen was not looked at",
    /// The director's device is down.
    DeviceDown "device-down" Error
        "no packet passes through a device that is down",
    /// A virtual or pool address is one of this host.
    VipLocal "vip-local" Error
        "the host itself takes packets to its own addresses, and the director never sees them",
    /// Somebody else routes a virtual or pool address.
    VipRouted "vip-routed" Error
        "packets take that route instead of the one to the director, which refuses to start beside it",
    /// A virtual or pool address, or a server's, cannot be one.
    AddressUnfit "address-unfit" Error
        "packets to such an address cannot be led to the director and from there to a server",
    /// Nobody announces a virtual address in its network.
    VipUnannounced "vip-unannounced" Warning
        "neighbours ask who has the address, and get no answer unless a router has a route to it",
    /// No route to a real server.
    ServerUnreachable "server-unreachable" Error
        "requests cannot be sent to it, and the director refuses to start",
    /// A real server is this host.
    ServerLocal "server-local" Error
        "replies of the host itself do not pass the director, and the client never gets them",
    /// Another director has a real server's replies.
    ServerTaken "server-taken" Error
        "a reply can be led to one director only",
    /// The kernel does not forward.
    ForwardingOff "forwarding-off" Error
        "the kernel drops what the director sends to servers and clients",
    /// The check of sources applies to the director's device.
    RpFilter "rp-filter" Error
        "what the director sends has sources that are routed elsewhere, and the check drops it; the \
         greater of `all` and the interface's own value counts",
    /// The strict check of sources applies to another interface.
    RpFilterStrict "rp-filter-strict" Warning
        "the strict check follows the director's rules and drops answers to the servers' pings",
    /// Sockets of the host get forwarded packets.
    EarlyDemux "early-demux" Warning
        "a socket of the host's own on a VIP's port, even one that is closing, swallows packets",
    /// The host tells of shorter ways.
    Redirects "redirects" Warning
        "servers and clients are told of a way past the director",
    /// Packets with the host's own sources are not taken from the device.
    AcceptLocal "accept-local" Warning
        "ICMP errors of the host's own about translated packets do not reach clients",
    /// IPv6 is off, or of the wrong kind, at the director's device.
    DeviceIpv6 "device-ipv6" Error
        "IPv6 packets do not get through the device as they should",
    /// Settings that a start changes are read-only.
    SettingsReadOnly "settings-read-only" Error
        "the director sets them when it starts, and refuses to start when it cannot",
    /// Routes or rules of the director are missing.
    RoutesMissing "routes-missing" Error
        "requests or replies do not come to the director",
    /// Packets take another way than through the director.
    PacketsAstray "packets-astray" Error
        "requests or replies do not come to the director, or do not leave it as they should",
    /// A real server's replies do not come back.
    NoRouteBack "no-route-back" Error
        "with NAT a server sees the client's address, and its reply has to come back by this host to \
         be translated",
    /// A real server does not answer at all.
    ServerSilent "server-silent" Warning
        "clients that are given to this server get no answer",
    /// A client is in a real server's own network.
    ClientBesideServer "client-beside-server" Error
        "with NAT the server answers its neighbour directly, past the director, from an address that \
         the client never asked",
    /// The director's device takes longer packets than the ways behind it.
    MtuDevice "mtu-device" Warning
        "packets come in that are too long to go on, and every client has to be told by ICMP, if it is \
         not filtered",
    /// Long packets vanish on the way to a real server.
    MtuHole "mtu-hole" Error
        "connections are made, but hang at the first long packet, since nobody tells the sender that \
         it is too long",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a sentence with the names and values at hand.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do where no command can do it, or what to know before giving it; in a sentence.
    pub advice: Option<String>,
    /// The host to give the commands on; `None` for this one.
    pub on: Option<IpAddr>,
    /// The commands that mend it, in this order.
    pub commands: Vec<String>,
}

impl Finding {
    /// Whether it is worse than a warning.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub(super) fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            what: what.into(),
            why: code.why(),
            advice: None,
            on: None,
            commands: Vec::new(),
        }
    }

    pub(super) fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    pub(super) fn on(self, host: IpAddr) -> Self {
        Self { on: Some(host), ..self }
    }

    pub(super) fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }

    pub(super) fn commands(mut self, commands: impl IntoIterator<Item = String>) -> Self {
        self.commands.extend(commands);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, severity, what, why, advice, on, commands } = self;
        write!(f, "{severity}: {what} [{code}]\n  {why}")?;
        if let Some(advice) = advice {
            write!(f, "\n  {advice}")?;
        }
        if let (Some(host), false) = (on, commands.is_empty()) {
            write!(f, "\n  on {host}:")?;
        }
        for command in commands {
            write!(f, "\n    {command}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of codes as Markdown, as the documentation has it.
    fn table() -> String {
        let mut table = "| code | severity | why it matters |\n| --- | --- | --- |\n".to_owned();
        for code in Code::ALL {
            table += &format!("| `{code}` | {} | {} |\n", code.severity(), code.why());
        }
        table
    }

    #[test]
    fn documentation_shows_every_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/OPERATIONS.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once("<!-- codes -->\n").unwrap();
        let (shown, after) = rest.split_once("<!-- end of codes -->").unwrap();
        let wanted = table();
        if std::env::var_os("WVS_UPDATE_DOCS").is_some() {
            let corrected = format!("{before}<!-- codes -->\n{wanted}<!-- end of codes -->{after}");
            std::fs::write(path, corrected).unwrap();
        } else {
            let hint = "docs/OPERATIONS.md is behind: run this with WVS_UPDATE_DOCS=1";
            assert!(shown == wanted, "{hint}");
        }
    }
}
