//! Cables between hosts, with addresses and default routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, State};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{Host, LabError};

/// The name of a host's own interface towards the director.
const INTERFACE: &str = "eth0";

/// How often, and how long apart, the network is looked at until it is up: for 10 s.
const WAIT_TRIES: u32 = 2000;
const WAIT_INTERVAL: Duration = Duration::from_millis(5);

/// Lays a cable from the interface `name` of `director`, with the addresses `gateways`, to `host`,
/// which gets `addresses` and `gateways` as its default routes.
pub(super) fn connect(
    director: &Host,
    name: &str,
    gateways: [IpAddr; 2],
    host: &Host,
    addresses: Vec<IpAddr>,
) -> Result<(), LabError> {
    let namespace = host.descriptor();
    let failed = |step| {
        let host = host.name().to_owned();
        move |source| LabError::Failed { step, host, source }
    };
    director
        .talk(async |handle| {
            let end = LinkUnspec::new_with_name(INTERFACE).setns_by_fd(namespace).build();
            let cable = LinkVeth::new(name, INTERFACE)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(end)))
                .build();
            handle.link().add(cable).execute().await?;
            let index = index_of(&handle, name).await?;
            set_up(&handle, index, &gateways).await
        })
        .map_err(failed("lay a cable"))?;
    host.talk(async |handle| {
        let index = index_of(&handle, INTERFACE).await?;
        set_up(&handle, index, &addresses).await?;
        for gateway in gateways {
            let route = match gateway {
                IpAddr::V4(gateway) => {
                    RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build()
                }
                IpAddr::V6(gateway) => {
                    RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build()
                }
            };
            handle.route().add(route).execute().await?;
        }
        Ok(())
    })
    .map_err(failed("set addresses and routes"))
}

/// Sets up the loopback interface of `host`.
pub(super) fn set_up_loopback(host: &Host) -> Result<(), LabError> {
    host.talk(async |handle| {
        let index = index_of(&handle, "lo").await?;
        set_up(&handle, index, &[]).await
    })
    .map_err(|source| LabError::Failed {
        step: "set up the loopback interface",
        host: host.name().to_owned(),
        source,
    })
}

/// Waits until all interfaces and addresses of `host` work: the kernel notices a cable only some
/// milliseconds after both its ends are up.
pub(super) fn wait_until_up(host: &Host) -> Result<(), LabError> {
    host.talk(async |handle| {
        for _ in 0..WAIT_TRIES {
            if is_up(&handle).await? {
                return Ok(());
            }
            tokio::time::sleep(WAIT_INTERVAL).await;
        }
        Err(rtnetlink::Error::RequestFailed)
    })
    .map_err(|source| LabError::Failed {
        step: "wait for the network",
        host: host.name().to_owned(),
        source,
    })
}

async fn is_up(handle: &Handle) -> Result<bool, rtnetlink::Error> {
    let links: Vec<_> = handle.link().get().execute().try_collect().await?;
    // The state of loopback is always unknown.
    let is_down = |attribute: &LinkAttribute| {
        matches!(attribute, LinkAttribute::OperState(state)
            if !matches!(state, State::Up | State::Unknown))
    };
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
    let is_tentative = |attribute: &AddressAttribute| {
        matches!(attribute, AddressAttribute::Flags(flags)
            if flags.contains(AddressFlags::Tentative))
    };
    Ok(!links.iter().any(|link| link.attributes.iter().any(is_down))
        && !addresses.iter().any(|address| address.attributes.iter().any(is_tentative)))
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let request = handle.link().get().match_name(name);
    let link = std::pin::pin!(request.execute()).try_next().await?;
    link.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)
}

async fn set_up(handle: &Handle, index: u32, addresses: &[IpAddr]) -> Result<(), rtnetlink::Error> {
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    for &address in addresses {
        let length = if address.is_ipv4() { 24 } else { 64 };
        handle.address().add(index, address, length).execute().await?;
    }
    Ok(())
}

impl Host {
    /// Has `talk` talk to the kernel about this host.
    fn talk(
        &self,
        talk: impl AsyncFnOnce(Handle) -> Result<(), rtnetlink::Error> + Send,
    ) -> io::Result<()> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                let connection = tokio::spawn(connection);
                let result = talk(handle).await;
                connection.abort();
                result.map_err(|error| match error {
                    rtnetlink::Error::NetlinkError(message) => message.to_io(),
                    error => io::Error::other(error.to_string()),
                })
            })
        })
    }

    fn descriptor(&self) -> RawFd {
        std::os::fd::AsRawFd::as_raw_fd(self.namespace())
    }
}
