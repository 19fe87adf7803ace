//! Persistence: clients that come back to the server they had.
//!
//! The first connection of a client leaves a *template* behind, which names its real server. Later
//! connections of the same client, or of the same network of clients, go there without asking the
//! scheduler. One service has one set of templates, whatever its addresses and ports, so that a
//! client has one server for all of them.
//!
//! A template lives as long as one of its connections, and for the timeout after the latest of them
//! was opened. (LVS renews it by 60 s at a time while connections live, and may forget the timeout
//! over that.)

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::real_server::RealServer;
use crate::stats::Counter;
use crate::time::Moment;

/// How the clients of a service are kept with their servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long a template lives after its latest connection was opened, at least.
    pub timeout: Duration,
    /// Leading bits of a client's address that make it the same client: 1 to 32 for IPv4, to 128
    /// for IPv6. More count as all of them.
    pub prefix: u8,
    /// What a template is worth whose server gets no new connections otherwise.
    pub quiesced: Quiesced,
    /// Templates of the service at most; the connections of further clients are scheduled one by
    /// one.
    pub templates_max: usize,
}

/// What a template is worth whose server has weight 0 or is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quiesced {
    /// The client stays with its server, as LVS has it by default.
    #[default]
    Honour,
    /// The client gets another server.
    Break,
}

/// The templates of one virtual service.
#[derive(Debug, Default)]
pub struct Templates {
    /// Whether there are any to look at: most services have none.
    is_on: AtomicBool,
    book: Mutex<Book>,
    refused: Counter,
}

/// Templates whose time may be over are looked at when others are opened, so many at most, and so
/// many when the service is attended to.
const LOOKS_PER_OPENING: usize = 4;
/// See [`LOOKS_PER_OPENING`].
const LOOKS_PER_ATTENDANCE: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Book {
    persistence: Option<Persistence>,
    templates: HashMap<IpAddr, Template, foldhash::fast::FixedState>,
    /// Each template once, in about the order in which they may expire.
    due: VecDeque<(IpAddr, Moment)>,
}

/// What is remembered of a client.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its real server.
    pub server: Arc<RealServer>,
    /// The generation of the scheduler that chose it; 0 when the director did.
    pub generation: u16,
    /// When it was made. Connections from before are none of its own.
    pub since: Moment,
    /// When it expires, unless connections keep it alive.
    pub expires: Moment,
    /// Connections that live by it.
    pub connections: u32,
}

impl Templates {
    /// Changes how clients are kept from now on. Without persistence all templates are gone; with
    /// another prefix too, since they are of other clients.
    pub fn set(&self, persistence: Option<Persistence>) {
        let book = &mut *self.lock();
        let prefix = |persistence: &Persistence| persistence.prefix;
        if persistence.as_ref().map(prefix) != book.persistence.as_ref().map(prefix) {
            book.templates = HashMap::default();
            book.due = VecDeque::new();
        }
        book.persistence = persistence;
        self.is_on.store(persistence.is_some(), Relaxed);
    }

    /// How clients are kept.
    #[must_use]
    pub fn persistence(&self) -> Option<Persistence> {
        self.lock().persistence
    }

    /// Whether clients are kept. Cost: one load.
    #[inline]
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Templates at this moment.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().templates.len()
    }

    /// Clients that got no template because there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// The template of a client, if its server may still be used for it.
    #[must_use]
    pub fn find(&self, client: IpAddr, now: Moment) -> Option<Template> {
        self.lock().find(client, now).cloned()
    }

    /// Keeps everybody else out while a new client's server is chosen: two first connections of one
    /// client then go to one server.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a client's new server.
    pub(crate) fn note(
        &self,
        book: &mut Book,
        client: IpAddr,
        server: &Arc<RealServer>,
        generation: u16,
        now: Moment,
    ) {
        if !book.note(client, server, generation, now) {
            self.refused.count();
        }
    }

    /// A connection of `client` to `server` is opened. To be told before anybody can end it.
    pub(crate) fn bind(&self, client: IpAddr, server: &RealServer, opened: Moment) {
        if self.are_on() {
            self.lock().bind(client, server, opened);
        }
    }

    /// A datagram of `client` that opens no connection went to `server`.
    pub(crate) fn renew(&self, client: IpAddr, server: &RealServer, now: Moment) {
        if self.are_on() {
            self.lock().renew(client, server, now);
        }
    }

    /// A connection of `client` to `server`, opened at that time, is over.
    pub(crate) fn release(&self, client: IpAddr, server: &RealServer, opened: Moment) {
        if self.are_on() {
            self.lock().release(client, server, opened);
        }
    }

    /// Forgets templates whose time is over, looking at a bounded number.
    pub(crate) fn sweep(&self, now: Moment) {
        if self.are_on() {
            self.lock().sweep(now, LOOKS_PER_ATTENDANCE);
        }
    }
}

impl Book {
    /// The client as templates know it.
    fn key(&self, client: IpAddr) -> IpAddr {
        self.persistence.map_or(client, |persistence| network(client, persistence.prefix))
    }

    /// The template of a client, if its server may still be used for it.
    pub(crate) fn find(&self, client: IpAddr, now: Moment) -> Option<&Template> {
        let persistence = self.persistence?;
        let template = self.templates.get(&self.key(client))?;
        let is_kept = match persistence.quiesced {
            Quiesced::Honour => !template.server.is_gone(),
            Quiesced::Break => !template.server.is_gone() && template.server.is_serving(),
        };
        (is_kept && !template.is_over(now)).then_some(template)
    }

    /// The same for a connection that is to be opened by it.
    pub(crate) fn follow(&mut self, client: IpAddr, now: Moment) -> Option<&Template> {
        self.find(client, now)?;
        let key = self.key(client);
        let template = self.templates.get_mut(&key)?;
        // The clock of the thread that made it may be a packet ahead.
        template.since = template.since.min(now);
        Some(template)
    }

    /// Notes a client's server, in place of the one it may have had. Whether there was room.
    fn note(
        &mut self,
        client: IpAddr,
        server: &Arc<RealServer>,
        generation: u16,
        now: Moment,
    ) -> bool {
        let Some(persistence) = self.persistence else { return true };
        self.sweep(now, LOOKS_PER_OPENING);
        let key = self.key(client);
        let expires = now.after(persistence.timeout);
        let server = Arc::clone(server);
        let template = Template { server, generation, since: now, expires, connections: 0 };
        if let Some(present) = self.templates.get_mut(&key) {
            *present = template;
            return true;
        }
        if self.templates.len() >= persistence.templates_max {
            return false;
        }
        self.templates.insert(key, template);
        self.due.push_back((key, expires));
        true
    }

    fn bind(&mut self, client: IpAddr, server: &RealServer, opened: Moment) {
        self.renew(client, server, opened);
        if let Some(template) = self.of_connection(client, server, opened) {
            template.connections = template.connections.saturating_add(1);
        }
    }

    fn renew(&mut self, client: IpAddr, server: &RealServer, now: Moment) {
        let Some(Persistence { timeout, .. }) = self.persistence else { return };
        let key = self.key(client);
        if let Some(template) = self.templates.get_mut(&key).filter(|held| held.is_of(server)) {
            template.expires = now.after(timeout);
        }
    }

    fn release(&mut self, client: IpAddr, server: &RealServer, opened: Moment) {
        if let Some(template) = self.of_connection(client, server, opened) {
            template.connections = template.connections.saturating_sub(1);
        }
    }

    /// The template that a connection lives by. What it began with may be gone: the client has
    /// another server now, or has this one anew.
    fn of_connection(
        &mut self,
        client: IpAddr,
        server: &RealServer,
        opened: Moment,
    ) -> Option<&mut Template> {
        let key = self.key(client);
        self.templates.get_mut(&key).filter(|held| held.is_of(server) && held.since <= opened)
    }

    fn sweep(&mut self, now: Moment, looks: usize) {
        for _ in 0..looks {
            let Some((client, due)) = self.due.front().copied() else { return };
            if due > now {
                return;
            }
            self.due.pop_front();
            let Some(template) = self.templates.get(&client) else { continue };
            if template.is_over(now) {
                self.templates.remove(&client);
            } else {
                // One that only connections keep alive is looked at again when it could have been
                // renewed for nothing.
                let timeout = self.persistence.map_or(Duration::ZERO, |held| held.timeout);
                let next =
                    if template.expires > now { template.expires } else { now.after(timeout) };
                self.due.push_back((client, next));
            }
        }
    }
}

impl Template {
    fn is_over(&self, now: Moment) -> bool {
        self.connections == 0 && self.expires <= now
    }

    fn is_of(&self, server: &RealServer) -> bool {
        self.server.id() == server.id()
    }
}

/// The address with all but the first `prefix` bits cleared.
#[must_use]
pub fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Protocol, ServiceAddress, Terms};

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn server(id: u32) -> Arc<RealServer> {
        let vip = Ipv4Addr::new(192, 0, 2, 1).into();
        let terms = Arc::new(Terms::new(
            "service",
            ServiceAddress { protocol: Protocol::Tcp, vip, port: 80 },
        ));
        let address = (Ipv4Addr::new(10, 0, 0, 1), 80).into();
        Arc::new(RealServer::new(id, address, 1, terms))
    }

    fn templates(prefix: u8, templates_max: usize) -> Templates {
        let templates = Templates::default();
        let quiesced = Quiesced::Honour;
        templates.set(Some(Persistence { timeout: TIMEOUT, prefix, quiesced, templates_max }));
        templates
    }

    fn client(last: u8) -> IpAddr {
        Ipv4Addr::new(198, 51, 100, last).into()
    }

    fn note(templates: &Templates, client: IpAddr, server: &Arc<RealServer>, now: Moment) {
        templates.note(&mut templates.lock(), client, server, 1, now);
    }

    const fn second(second: u64) -> Moment {
        Moment::from_millis(second * 1_000)
    }

    #[test]
    fn networks_are_cut_at_any_bit() {
        for (address, prefix, cut) in [
            ("198.51.100.77", 32, "198.51.100.77"),
            ("198.51.100.77", 24, "198.51.100.0"),
            ("198.51.100.77", 1, "128.0.0.0"),
            ("198.51.100.77", 0, "0.0.0.0"),
            ("198.51.100.77", 200, "198.51.100.77"),
            ("2001:db8:1:2::7", 128, "2001:db8:1:2::7"),
            ("2001:db8:1:2::7", 48, "2001:db8:1::"),
            ("2001:db8:1:2::7", 0, "::"),
        ] {
            assert_eq!(network(address.parse().unwrap(), prefix), cut.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn template_lives_for_the_timeout_after_its_latest_connection_was_opened() {
        let (templates, server) = (templates(32, 9), server(1));
        note(&templates, client(1), &server, second(0));
        templates.bind(client(1), &server, second(4));
        templates.release(client(1), &server, second(4));
        assert!(templates.find(client(1), second(13)).is_some());
        assert!(templates.find(client(1), second(14)).is_none());
        assert!(templates.find(client(2), second(1)).is_none());
        templates.sweep(second(14));
        assert_eq!(templates.count(), 0);
    }

    #[test]
    fn template_lives_as_long_as_one_of_its_connections_and_no_longer() {
        let (templates, server) = (templates(32, 9), server(1));
        note(&templates, client(1), &server, second(0));
        templates.bind(client(1), &server, second(0));
        for now in (0..100).map(second) {
            templates.sweep(now);
            assert!(templates.find(client(1), now).is_some());
        }
        templates.release(client(1), &server, second(0));
        assert!(templates.find(client(1), second(100)).is_none());
        templates.sweep(second(110));
        assert_eq!(templates.count(), 0);
    }

    #[test]
    fn connections_of_a_former_server_do_not_count_for_the_next() {
        let (templates, old, new) = (templates(32, 9), server(1), server(2));
        note(&templates, client(1), &old, second(0));
        templates.bind(client(1), &old, second(0));
        note(&templates, client(1), &new, second(1));
        templates.bind(client(1), &new, second(1));
        templates.release(client(1), &old, second(0));
        assert_eq!(templates.find(client(1), second(1)).unwrap().connections, 1);
        // Not when that one is the first one again, either.
        note(&templates, client(1), &old, second(2));
        templates.bind(client(1), &old, second(2));
        templates.release(client(1), &old, second(0));
        assert_eq!(templates.find(client(1), second(2)).unwrap().connections, 1);
        templates.release(client(1), &old, second(2));
        assert_eq!(templates.find(client(1), second(2)).unwrap().connections, 0);
    }

    #[test]
    fn connection_of_a_thread_whose_clock_is_behind_counts() {
        let (templates, server) = (templates(32, 9), server(1));
        let (now, behind) = (Moment::from_micros(1_000), Moment::from_micros(900));
        note(&templates, client(1), &server, now);
        assert!(templates.lock().follow(client(1), behind).is_some());
        templates.bind(client(1), &server, behind);
        assert_eq!(templates.find(client(1), now).unwrap().connections, 1);
        templates.release(client(1), &server, behind);
        assert_eq!(templates.find(client(1), now).unwrap().connections, 0);
    }

    #[test]
    fn network_of_clients_has_one_server_and_the_limit_holds() {
        let (templates, server) = (templates(24, 1), server(1));
        note(&templates, client(1), &server, second(0));
        assert!(templates.find(client(200), second(0)).is_some());
        note(&templates, Ipv4Addr::new(203, 0, 113, 1).into(), &server, second(0));
        assert_eq!((templates.count(), templates.refused()), (1, 1));
        templates.set(None);
        assert!(templates.find(client(1), second(0)).is_none());
        assert_eq!(templates.count(), 0);
    }
}
