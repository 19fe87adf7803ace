//! The real servers: HTTP servers that answer with their name.

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use super::config::SERVER_PORT;
use super::host_runtime::HostRuntime;
use super::{DemoError, failed};
use crate::lab::{self, Lab};

/// One HTTP server on each of the lab's servers.
#[derive(Debug)]
pub(super) struct Servers(Vec<HostRuntime>);

impl Servers {
    pub(super) fn start(lab: &Lab) -> Result<Self, DemoError> {
        let mut servers = Vec::new();
        for (number, host) in (1..).zip(&lab.servers) {
            let runtime = HostRuntime::start(host)?;
            let address = lab::server_address(number, false);
            let name = host.name().to_owned();
            let (tell, started) = std::sync::mpsc::channel();
            runtime.handle().spawn(async move {
                let listener = TcpListener::bind((address, SERVER_PORT)).await;
                let listener = match listener {
                    Ok(listener) => listener,
                    Err(error) => {
                        let _ = tell.send(Err(error));
                        return;
                    }
                };
                let _ = tell.send(Ok(()));
                let router =
                    Router::new().route("/", get(move || async move { format!("{name}\n") }));
                // Runs until the runtime ends.
                let _ = axum::serve(listener, router).await;
            });
            let gone = |_| Err(std::io::ErrorKind::BrokenPipe.into());
            started.recv().unwrap_or_else(gone).map_err(failed("start a server"))?;
            servers.push(runtime);
        }
        Ok(Self(servers))
    }

    pub(super) fn stop(self) {
        for server in self.0 {
            server.stop();
        }
    }
}
