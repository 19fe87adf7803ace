//! What changes around a running director: MTUs on the way to servers and clients, and routes and
//! rules of its own that somebody removes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::RouteProtocol;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::netlink::{Netlink, News};
use super::step::{Rule, Step};
use super::{PROTOCOL, RouteError, RouteNeeds, Routing, left_over, smallest_mtu};

/// How long changes are gathered before they are looked at: one comes with others, as a link that
/// goes down takes its routes along.
const SETTLING: Duration = Duration::from_millis(200);

/// The same at most: it doubles each time that something had to be put back, so that whoever keeps
/// removing it and the director do not chase each other.
const SETTLING_MAX: Duration = Duration::from_secs(30);

/// A task that follows changes until it is stopped or dropped.
#[derive(Debug)]
pub struct Follower {
    task: JoinHandle<()>,
    view: Arc<Mutex<View>>,
    updated: Arc<Notify>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows `needs` from now on, and routes them if there is a `routing`, by
    /// [`Routing::update`]. Meanwhile nothing is put back; what changes is looked at afterwards, and
    /// with it whether the device's MTU is still right.
    ///
    /// # Errors
    /// Those of [`Routing::update`]; then it follows what it followed.
    pub async fn update(
        &self,
        needs: &RouteNeeds,
        routing: Option<&mut Routing>,
    ) -> Result<(), RouteError> {
        let mut view = self.view.lock().await;
        if let Some(routing) = routing {
            let result = routing.update(needs).await;
            view.steps.clone_from(&routing.done);
            result?;
        }
        view.needs = needs.clone();
        self.updated.notify_one();
        Ok(())
    }

    /// Ends the task. From then on it puts nothing back any more.
    pub async fn stop(mut self) {
        self.task.abort();
        // Cancelled is how it is meant to end.
        let _ = (&mut self.task).await;
    }
}

/// Follows what changes in the network namespace of the calling thread, within a tokio runtime.
///
/// Keeps `device_mtu` at the MTU of the director's device. With `is_mtu_auto` the device's MTU is set
/// anew whenever [`mtu`](super::mtu) is another. Routes and rules of `routing` that somebody removes,
/// say by setting the device down and up, are put back.
///
/// # Errors
/// [`RouteError::Netlink`] and [`RouteError::NoDevice`].
pub async fn follow(
    needs: RouteNeeds,
    is_mtu_auto: bool,
    device_mtu: Arc<AtomicU16>,
    routing: Option<&Routing>,
) -> Result<Follower, RouteError> {
    let (netlink, news) = Netlink::listen()?;
    let device = netlink.link(&needs.device).await;
    let device_index =
        device.map_err(|_| RouteError::NoDevice { device: needs.device.clone() })?.index;
    let steps = routing.map(|routing| routing.done.clone()).unwrap_or_default();
    let view =
        View { netlink, needs, device_index, is_mtu_auto, device_mtu, steps, was_down: false };
    let (view, updated) = (Arc::new(Mutex::new(view)), Arc::new(Notify::new()));
    let task = tokio::spawn(run(Arc::clone(&view), device_index, news, Arc::clone(&updated)));
    Ok(Follower { task, view, updated })
}

async fn run(view: Arc<Mutex<View>>, device_index: u32, mut news: News, updated: Arc<Notify>) {
    // Something may have changed between the start and the first news.
    let mut changes = Changes { way: true, own: false };
    let mut settling = SETTLING;
    loop {
        if changes != Changes::default() {
            let settled = sleep(settling);
            tokio::pin!(settled);
            loop {
                tokio::select! {
                    () = &mut settled => break,
                    message = news.next() => match message {
                        Some((message, _)) => changes.add(&message, device_index),
                        None => break,
                    },
                }
            }
            let has_put_back = view.lock().await.look(changes).await;
            if changes.own {
                let longer = settling.saturating_mul(2).min(SETTLING_MAX);
                settling = if has_put_back { longer } else { SETTLING };
            }
        }
        changes = Changes::default();
        tokio::select! {
            () = updated.notified() => changes.way = true,
            message = news.next() => {
                let Some((message, _)) = message else {
                    tracing::warn!("the kernel tells no more of routes; later changes go unnoticed");
                    return;
                };
                changes.add(&message, device_index);
            }
        }
    }
}

/// What may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changes {
    /// A link or route that packets may take.
    way: bool,
    /// The director's device, or a route or rule of a director's.
    own: bool,
}

impl Changes {
    fn add(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>, device_index: u32) {
        use RouteNetlinkMessage::{DelLink, DelRoute, DelRule, NewLink, NewRoute, NewRule};
        let ours = RouteProtocol::Other(PROTOCOL);
        match &message.payload {
            NetlinkPayload::InnerMessage(NewLink(link) | DelLink(link)) => {
                self.way = true;
                self.own |= link.header.index == device_index;
            }
            NetlinkPayload::InnerMessage(DelRoute(route)) if route.header.protocol == ours => {
                self.own = true;
            }
            NetlinkPayload::InnerMessage(DelRule(rule)) => self.own |= left_over::is_ours(rule),
            NetlinkPayload::InnerMessage(NewRoute(route)) if route.header.protocol == ours => {}
            NetlinkPayload::InnerMessage(NewRoute(_) | DelRoute(_) | NewRule(_)) => self.way = true,
            // Messages were lost.
            NetlinkPayload::Overrun(_) => *self = Self { way: true, own: true },
            _ => {}
        }
    }
}

#[derive(Debug)]
struct View {
    netlink: Netlink,
    needs: RouteNeeds,
    device_index: u32,
    is_mtu_auto: bool,
    device_mtu: Arc<AtomicU16>,
    steps: Vec<Step>,
    was_down: bool,
}

impl View {
    /// Sees to what may have changed. Whether something had to be put back.
    async fn look(&mut self, changes: Changes) -> bool {
        // Without its device the director ends by itself.
        let Ok(device) = self.netlink.link_at(self.device_index).await else { return false };
        let mut has_put_back = false;
        if changes.own && !self.steps.is_empty() {
            if device.is_up {
                has_put_back = self.put_back().await;
            } else if !self.was_down {
                // Whoever did it had a reason.
                let device = &self.needs.device;
                tracing::warn!(device, "the device was set down; no packet passes until it is up");
            }
            self.was_down = !device.is_up;
        }
        let mut mtu = device.mtu.and_then(|mtu| u16::try_from(mtu).ok());
        if self.is_mtu_auto
            // While a server has no route, the last one holds.
            && let Ok(wanted) = smallest_mtu(&self.netlink, &self.needs).await
            && mtu != Some(wanted)
        {
            match self.netlink.set_mtu(self.device_index, wanted).await {
                Ok(()) => {
                    tracing::info!(mtu = wanted, "the device follows the smallest MTU on the way");
                    mtu = Some(wanted);
                }
                Err(error) => tracing::warn!(mtu = wanted, %error, "cannot set the device's MTU"),
            }
        }
        if let Some(mtu) = mtu {
            self.device_mtu.store(mtu, Ordering::Relaxed);
        }
        has_put_back
    }

    async fn put_back(&self) -> bool {
        let missing = match self.missing().await {
            Ok(missing) => missing,
            Err(error) => {
                tracing::warn!(%error, "cannot see what is missing");
                return false;
            }
        };
        let orders = missing.iter().filter_map(|step| step.order(self.device_index)).collect();
        let (mut routes, mut rules) = (0, 0);
        for (step, result) in missing.iter().zip(self.netlink.give(orders).await) {
            match result {
                Ok(()) if matches!(step, Step::Rule(_)) => rules += 1,
                Ok(()) => routes += 1,
                // As it should be.
                Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {}
                Err(error) => tracing::warn!(%step, %error, "cannot put back what is missing"),
            }
        }
        let has_put_back = routes > 0 || rules > 0;
        if has_put_back {
            tracing::warn!(routes, rules, "put back what somebody removed");
        }
        has_put_back
    }

    /// The rules that are not there, and all routes: those that are there the kernel refuses, while it
    /// would take a rule a second time.
    async fn missing(&self) -> Result<Vec<&Step>, RouteError> {
        let there = self.netlink.rules().await?;
        let there: HashSet<Rule> = there.iter().filter_map(Rule::read).collect();
        let is_missing = |step: &&Step| match step {
            Step::Setting(_) => false,
            Step::Route(_) => true,
            Step::Rule(rule) => !there.contains(rule),
        };
        Ok(self.steps.iter().filter(is_missing).collect())
    }
}
