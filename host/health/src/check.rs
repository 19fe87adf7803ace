//! What is checked, and how.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use crate::command::Command;
use crate::dns::Dns;
use crate::finding::Finding;
use crate::grpc::Grpc;
use crate::http::Http;
use crate::judge::Standing;
use crate::tcp;
use crate::udp::Udp;

/// Whose health it is: a server of a service. The same server in two services is checked for each,
/// since they may ask different things.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey {
    /// The service's name.
    pub service: String,
    /// The real server's address in the service, which need not be what is checked.
    pub server: SocketAddr,
}

/// How a server is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: Kind,
    /// Where.
    pub target: SocketAddr,
    /// From the beginning of one check to that of the next while the server is up, on average: each
    /// time up to a tenth is added or left out.
    pub interval: Duration,
    /// The same while it is down.
    pub down_interval: Duration,
    /// After which a check is bad.
    pub timeout: Duration,
    /// Good checks in a row that make it up, at least 1.
    pub rise: u32,
    /// Bad checks in a row that make it down, at least 1.
    pub fall: u32,
    /// What it is before the first check.
    pub start: Standing,
}

/// What is asked of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// That it accepts a TCP connection, which is closed again.
    Tcp,
    /// A response over HTTP/1.1, perhaps within TLS.
    Http(Http),
    /// That a datagram is answered, or at least not refused.
    Udp(Udp),
    /// That a DNS question is answered, over UDP.
    Dns(Dns),
    /// That a program says so.
    Command(Command),
    /// That `grpc.health.v1` says that it serves, over HTTP/2 without TLS.
    Grpc(Grpc),
}

/// Why a check could never be good.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The file with the certificates to trust is not usable.
    #[error("{}: {reason}; give a PEM file with the certificate that signed the server's", file.display())]
    Ca {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The program cannot be run.
    #[error("{}: {reason}; give the path of an executable file", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.server, self.service)
    }
}

impl Kind {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(Http { tls: None, .. }) => "http",
            Self::Http(Http { tls: Some(_), .. }) => "https",
            Self::Udp(_) => "udp",
            Self::Dns(_) => "dns",
            Self::Command(_) => "command",
            Self::Grpc(_) => "grpc",
        }
    }

    /// Looks at the files that it needs, without asking any server.
    ///
    /// # Errors
    /// [`ProbeError`] for a file that is missing or is not what it should be.
    pub fn probe(&self) -> Result<(), ProbeError> {
        match self {
            Self::Http(http) => http.tls.as_ref().map_or(Ok(()), |tls| tls.probe()),
            Self::Command(command) => command.probe(),
            Self::Tcp | Self::Udp(_) | Self::Dns(_) | Self::Grpc(_) => Ok(()),
        }
    }
}

impl Check {
    /// Asks once, and takes `timeout` at most; a command that does not end then has a second more
    /// to tidy up.
    pub async fn ask(&self, key: &ServerKey) -> Finding {
        let Self { kind, target, timeout: limit, .. } = self;
        let asked = async {
            match kind {
                Kind::Tcp => tcp::ask(*target).await,
                Kind::Http(http) => http.ask(*target).await,
                Kind::Udp(udp) => udp.ask(*target, *limit).await,
                Kind::Dns(dns) => dns.ask(*target).await,
                Kind::Command(command) => return command.ask(key, *target, *limit).await,
                Kind::Grpc(grpc) => grpc.ask(*target).await,
            }
        };
        // These end by themselves, since for them the end of the time is more than a failure.
        if matches!(kind, Kind::Udp(_) | Kind::Command(_)) {
            return asked.await;
        }
        timeout(*limit, asked).await.unwrap_or_else(|_| Finding::late(*limit))
    }
}
