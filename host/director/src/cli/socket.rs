//! The director that a command is for.

use std::future::Future;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{FAILED, REFUSED, complain, runtime};
use crate::config::{Config, Reading};
use crate::control::AskError;

/// Names the control socket where the command line does not.
const SOCKET_VARIABLE: &str = "WVS_SOCKET";

/// The director that a command is for.
#[derive(Debug, Args)]
pub(super) struct SocketArg {
    /// The director's control socket [default: what the variable `WVS_SOCKET` says, else
    /// /run/wvs/wvs.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,

    /// The configuration that the director runs with, which names its control socket.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SocketArg {
    /// Has a conversation with the director.
    ///
    /// # Errors
    /// There is none, and why has been said: the status to end with.
    pub(super) fn converse<T, F: Future<Output = Result<T, AskError>>>(
        &self,
        conversation: impl FnOnce(PathBuf) -> F,
    ) -> Result<T, u8> {
        let socket = self.path()?;
        let failed = |error: &dyn std::fmt::Display| {
            complain(error);
            FAILED
        };
        let runtime = runtime().map_err(|error| failed(&error))?;
        runtime.block_on(conversation(socket)).map_err(|error| failed(&error))
    }

    fn path(&self) -> Result<PathBuf, u8> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, None) => Ok(std::env::var_os(SOCKET_VARIABLE)
                .map_or_else(|| Config::default().socket, PathBuf::from)),
            (None, Some(config)) => socket_of(config),
        }
    }
}

fn socket_of(config: &Path) -> Result<PathBuf, u8> {
    match Reading::of_file(config).into_config() {
        Ok((config, _)) => Ok(config.socket),
        Err(error) => {
            complain(error);
            Err(REFUSED)
        }
    }
}
