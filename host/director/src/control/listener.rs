//! The control interface over TCP, for those who know the token.

use std::net::TcpListener;
use std::sync::Arc;
use std::{fmt, io};

use super::access::{AccessCounters, Guard, Token};
use super::socket::ClaimError;
use crate::config::TcpConfig;

/// A TCP listener whose clients have to know a token.
pub struct TokenListener {
    listener: TcpListener,
    guard: Arc<Guard>,
}

impl fmt::Debug for TokenListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenListener").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl TokenListener {
    /// Reads the token and listens; what happens to be refused is counted in `counters`.
    ///
    /// # Errors
    /// [`ClaimError::Token`] and [`ClaimError::Listen`].
    pub fn claim(config: &TcpConfig, counters: Arc<AccessCounters>) -> Result<Self, ClaimError> {
        let token = Token::read(&config.token_file)?;
        let failed = |source| ClaimError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, guard: Arc::new(Guard::new(token, counters)) })
    }

    /// Both for tokio.
    pub(super) fn into_parts(self) -> io::Result<(tokio::net::TcpListener, Arc<Guard>)> {
        Ok((tokio::net::TcpListener::from_std(self.listener)?, self.guard))
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn address(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }
}
