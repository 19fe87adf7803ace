//! The plugin's side of the contract: what [`export!`](crate::export) calls. Not for authors.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;
use core::iter;

pub use wvs_abi::ABI_VERSION;
use wvs_abi::{Region, Request, Server, ServerInfo, Signals, caps, connect_failed, event, result};

use crate::{Event, Events, Pick, Scheduler, State, Ticks};

/// Any negative result that is not one of `wvs_schedule`'s.
const REFUSED: i32 = -1;

/// A scheduler and the regions that the director writes to between calls.
///
/// The director's writes are like those of any foreign code that was handed a pointer: they happen
/// while no reference to the region exists, because every export borrows the plugin only for its
/// own duration.
pub struct Plugin<S> {
    scheduler: Option<S>,
    // Words, not octets, for the alignment.
    config: Vec<u64>,
    request: Request,
    servers: Vec<Server>,
    /// Servers of the table; the regions may have room for more.
    n: usize,
    info: Vec<ServerInfo>,
    signals: Vec<Signals>,
    state: Vec<u64>,
}

impl<S: Scheduler> Plugin<S> {
    /// A plugin without a scheduler yet: `init` makes it.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only the macro makes one, in a constant")]
    pub const fn new() -> Self {
        Self {
            scheduler: None,
            config: Vec::new(),
            request: Request {
                family: 0,
                protocol: 0,
                flags: 0,
                mark: 0,
                client_port: 0,
                virtual_port: 0,
                service_id: 0,
                client_address: [0; 16],
                virtual_address: [0; 16],
                now_ms: 0,
                random: 0,
            },
            servers: Vec::new(),
            n: 0,
            info: Vec::new(),
            signals: Vec::new(),
            state: Vec::new(),
        }
    }

    /// The address of at least `size` octets for `kind`, 0 when there is no such region.
    pub fn region(&mut self, kind: u32, size: u32) -> usize {
        let size = size as usize;
        match Region::from_kind(kind) {
            Some(Region::Config) => resize(&mut self.config, size),
            Some(Region::Request) if size <= Request::SIZE => {
                (&raw mut self.request).expose_provenance()
            }
            Some(Region::Servers) => resize(&mut self.servers, size),
            Some(Region::ServerInfo) => resize(&mut self.info, size),
            Some(Region::Signals) => resize(&mut self.signals, size),
            Some(Region::State) => resize(&mut self.state, size),
            _ => 0,
        }
    }

    /// Makes the scheduler from the `len` octets of configuration in their region, or leaves there
    /// why not.
    pub fn init(&mut self, len: u32) -> i32 {
        let octets = octets(&self.config, len);
        let scheduler = match core::str::from_utf8(&octets) {
            Ok(config) => S::new(config),
            Err(_) => Err("the configuration is not UTF-8".to_owned()),
        };
        match scheduler {
            Ok(scheduler) => {
                self.scheduler = Some(scheduler);
                0
            }
            Err(reason) => {
                self.write_reason(&reason);
                REFUSED
            }
        }
    }

    /// Passes a new server table on.
    pub fn servers_changed(&mut self, n: u32) -> i32 {
        let (Some(scheduler), Some(servers)) =
            (&mut self.scheduler, self.servers.get(..n as usize))
        else {
            return REFUSED;
        };
        if S::CAPS & caps::SERVER_INFO != 0 {
            let Some(info) = self.info.get(..n as usize) else { return REFUSED };
            scheduler.server_info_changed(info);
        }
        scheduler.servers_changed(servers);
        self.n = n as usize;
        0
    }

    /// One decision.
    pub fn schedule(&mut self, n: u32) -> i32 {
        let (Some(scheduler), Some(servers)) =
            (&mut self.scheduler, self.servers.get(..n as usize))
        else {
            return result::DEFER;
        };
        // Where there are none, the director has none to show.
        if S::CAPS & caps::SIGNALS != 0
            && let Some(signals) = self.signals.get(..n as usize)
        {
            scheduler.signals_refreshed(signals);
        }
        match scheduler.schedule(&self.request, servers) {
            Pick::Server(index) => i32::try_from(index).unwrap_or(i32::MAX),
            Pick::NoServer => result::NO_SERVER,
            Pick::Defer => result::DEFER,
        }
    }

    /// Leaves `reason`, cut to what fits, NUL-terminated in the configuration's region.
    fn write_reason(&mut self, reason: &str) {
        let room = size_of_val(self.config.as_slice()).saturating_sub(1);
        let reason = &reason.as_bytes()[..reason.floor_char_boundary(room)];
        let mut octets = reason.iter().copied().chain(iter::repeat(0));
        for word in &mut self.config {
            *word = u64::from_ne_bytes(core::array::from_fn(|_| octets.next().unwrap_or(0)));
        }
    }
}

/// The first `len` octets of a region.
fn octets(region: &[u64], len: u32) -> Vec<u8> {
    let mut octets: Vec<u8> = region.iter().flat_map(|word| word.to_ne_bytes()).collect();
    octets.truncate(len as usize);
    octets
}

impl<S: State> Plugin<S> {
    /// Writes the scheduler's state to its region if it fits; the length, below 0 when there is none.
    pub fn state_save(&mut self, capacity: u32) -> i32 {
        let Some(scheduler) = &self.scheduler else { return REFUSED };
        let saved = scheduler.save();
        let room = size_of_val(self.state.as_slice()).min(capacity as usize);
        let length = i32::try_from(saved.len()).unwrap_or(REFUSED);
        if saved.is_empty() {
            return REFUSED;
        }
        if saved.len() > room {
            // More room comes with the next call.
            return length;
        }
        for (word, octets) in self.state.iter_mut().zip(saved.chunks(8)) {
            let mut padded = [0; 8];
            padded[..octets.len()].copy_from_slice(octets);
            *word = u64::from_ne_bytes(padded);
        }
        length
    }

    /// Hands the scheduler the `len` octets in the state's region.
    pub fn state_load(&mut self, len: u32) -> i32 {
        let Some(scheduler) = &mut self.scheduler else { return REFUSED };
        if scheduler.load(&octets(&self.state, len)) { 0 } else { REFUSED }
    }
}

impl<S: Ticks> Plugin<S> {
    /// Passes a tick on.
    pub fn tick(&mut self) -> u32 {
        let Some(scheduler) = &mut self.scheduler else { return 0 };
        if S::CAPS & caps::SIGNALS != 0 {
            scheduler.signals_refreshed(self.signals.get(..self.n).unwrap_or_default());
        }
        scheduler.tick(&self.request, self.servers.get(..self.n).unwrap_or_default())
    }
}

impl<S: Events> Plugin<S> {
    /// Passes an event on, unless it is of a kind that this version does not know.
    pub fn event(&mut self, kind: u32, index: u32, argument: u32) {
        let Some(scheduler) = &mut self.scheduler else { return };
        let event = match (kind, argument) {
            (event::BOUND, _) => Event::Bound,
            (event::UNBOUND, lifetime_ms) => Event::Unbound { lifetime_ms },
            (event::CONNECT_FAILED, connect_failed::REFUSED) => Event::Refused,
            (event::CONNECT_FAILED, connect_failed::UNANSWERED) => Event::Unanswered,
            _ => return,
        };
        scheduler.event(event, index as usize);
    }
}

/// Makes `region` at least `size` octets long and returns its address, 0 when memory is short.
///
/// Not to be copied to where each region is made: to the machine, most of them are alike.
#[inline(never)]
fn resize<T: Clone + Default>(region: &mut Vec<T>, size: usize) -> usize {
    let n = size.div_ceil(size_of::<T>());
    region.clear();
    if region.try_reserve_exact(n).is_err() {
        return 0;
    }
    region.resize(n, T::default());
    region.as_mut_ptr().expose_provenance()
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    struct Picky;

    impl Scheduler for Picky {
        fn new(config: &str) -> Result<Self, String> {
            if config.is_empty() { Ok(Self) } else { Err("täglich neu ".repeat(40)) }
        }

        fn schedule(&mut self, _: &Request, _: &[Server]) -> Pick {
            Pick::Server(0)
        }
    }

    #[test]
    fn regions_are_aligned_and_have_their_size() {
        let mut plugin = Plugin::<Picky>::new();
        for (kind, size) in
            [(0, 1), (0, 1000), (1, 64), (2, 32), (2, 32 * 256), (4, 64), (3, 65_536), (5, 96)]
        {
            let address = plugin.region(kind, size);
            assert!(address != 0 && address.is_multiple_of(8), "kind {kind}, size {size}");
        }
        assert_eq!(plugin.servers.len(), 256);
        assert_eq!(plugin.config.len(), 125);
    }

    #[test]
    fn unknown_kinds_and_oversize_requests_get_no_region() {
        let mut plugin = Plugin::<Picky>::new();
        assert_eq!(plugin.region(1, 65), 0);
        assert_eq!(plugin.region(6, 8), 0);
    }

    #[test]
    fn refused_config_leaves_its_reason_cut_at_a_character() {
        let mut plugin = Plugin::<Picky>::new();
        // 256 octets less the NUL end within a two-octet letter.
        plugin.region(0, 256);
        assert!(plugin.init(3) < 0);
        let octets: Vec<u8> = plugin.config.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let end = octets.iter().position(|octet| *octet == 0).unwrap();
        let reason = core::str::from_utf8(&octets[..end]).unwrap();
        assert!((250..256).contains(&end), "{end}");
        assert!("täglich neu ".repeat(40).starts_with(reason));
    }

    #[test]
    fn nothing_is_scheduled_before_init_or_beyond_the_table() {
        let mut plugin = Plugin::<Picky>::new();
        plugin.region(2, 32);
        assert_eq!(plugin.schedule(1), result::DEFER);
        assert!(plugin.servers_changed(1) < 0);
        assert_eq!(plugin.init(0), 0);
        assert_eq!(plugin.schedule(1), 0);
        assert_eq!(plugin.schedule(2), result::DEFER);
        assert!(plugin.servers_changed(2) < 0);
    }
}
