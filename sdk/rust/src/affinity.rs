//! What was decided for an address, remembered while it is used.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::state;

/// A table of addresses with a value each. It holds a limited number of them: when another one
/// comes, the one that was not used for the longest time is forgotten. So is each that was not
/// used for longer than the table's expiration.
///
/// There is no order but that of the addresses, so the same calls lead to the same table anywhere.
/// A look-up is a binary search.
#[derive(Clone, Debug)]
pub struct Affinity<T> {
    /// In the order of the addresses.
    entries: Vec<Entry<T>>,
    capacity: usize,
    expiration_ms: u64,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    address: IpAddr,
    used_ms: u64,
    value: T,
}

impl<T> Affinity<T> {
    /// An empty table for at most `capacity` addresses.
    #[must_use]
    pub const fn new(capacity: usize, expiration_ms: u64) -> Self {
        Self { entries: Vec::new(), capacity, expiration_ms }
    }

    /// The value of `address`, which is used thereby.
    pub fn get(&mut self, address: IpAddr, now_ms: u64) -> Option<&mut T> {
        let index = self.find(address).ok()?;
        if now_ms.saturating_sub(self.entries[index].used_ms) > self.expiration_ms {
            self.entries.remove(index);
            return None;
        }
        let entry = &mut self.entries[index];
        entry.used_ms = now_ms;
        Some(&mut entry.value)
    }

    /// Remembers `value` for `address`, in place of what there was.
    pub fn insert(&mut self, address: IpAddr, now_ms: u64, value: T) {
        let entry = Entry { address, used_ms: now_ms, value };
        match self.find(address) {
            Ok(index) => self.entries[index] = entry,
            Err(_) if self.capacity == 0 => {}
            Err(_) => {
                if self.entries.len() >= self.capacity {
                    self.forget_least_recent();
                }
                let (Ok(index) | Err(index)) = self.find(address);
                self.entries.insert(index, entry);
            }
        }
    }

    /// Forgets the address that was not used for the longest time.
    pub fn forget_least_recent(&mut self) {
        let entries = self.entries.iter().enumerate();
        let oldest = entries.min_by_key(|(_, entry)| entry.used_ms).map(|(index, _)| index);
        if let Some(index) = oldest {
            self.entries.remove(index);
        }
    }

    /// The values in the order of their addresses.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.value)
    }

    /// The values in the order of their addresses, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|entry| &mut entry.value)
    }

    /// The table as [`state`] octets behind `mark`; `write` gives the words of a value.
    pub fn save(&self, mark: [u8; 4], write: impl Fn(&T) -> Vec<u64>) -> Vec<u8> {
        let words = |entry: &Entry<T>| {
            let (family, bits) = match entry.address {
                IpAddr::V4(address) => (4, u128::from(address.to_bits())),
                IpAddr::V6(address) => (6, address.to_bits()),
            };
            #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
            let [high, low] = [(bits >> 64) as u64, bits as u64];
            [family, high, low, entry.used_ms].into_iter().chain(write(&entry.value))
        };
        state::to_octets(mark, self.entries.iter().flat_map(words))
    }

    /// Takes over what [`save`](Self::save) wrote; `read` takes the words of a value, `None` when
    /// they are none. `false` when the octets are something else, and then the table is as it was.
    pub fn load(
        &mut self,
        mark: [u8; 4],
        octets: &[u8],
        read: impl Fn(&mut dyn Iterator<Item = u64>) -> Option<T>,
    ) -> bool {
        let Some(mut words) = state::from_octets(mark, octets) else { return false };
        let mut loaded = Self::new(self.capacity, self.expiration_ms);
        while let Some(family) = words.next() {
            let [Some(high), Some(low), Some(used_ms)] = [(); 3].map(|()| words.next()) else {
                return false;
            };
            let address = match (family, u32::try_from(low)) {
                (4, Ok(bits)) if high == 0 => Ipv4Addr::from_bits(bits).into(),
                (6, _) => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
                _ => return false,
            };
            let Some(value) = read(&mut words) else { return false };
            loaded.insert(address, used_ms, value);
        }
        *self = loaded;
        true
    }

    fn find(&self, address: IpAddr) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&address, |entry| entry.address)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const A: &str = "192.0.2.1";
    const B: &str = "2001:db8::1";
    const C: &str = "192.0.2.3";

    fn known(table: &Affinity<u64>) -> Vec<u64> {
        table.values().copied().collect()
    }

    #[test]
    fn value_is_known_until_it_was_not_used_for_too_long() {
        let mut table = Affinity::new(2, 1_000);
        table.insert(address(A), 0, 1);
        assert_eq!(table.get(address(A), 1_000), Some(&mut 1));
        assert_eq!(table.get(address(A), 2_000), Some(&mut 1), "used meanwhile");
        assert_eq!(table.get(address(A), 3_001), None);
        assert_eq!(known(&table), []);
    }

    #[test]
    fn least_recently_used_makes_way() {
        let mut table = Affinity::new(2, 1_000);
        table.insert(address(A), 1, 1);
        table.insert(address(B), 2, 2);
        table.get(address(A), 3);
        table.insert(address(C), 4, 3);
        assert_eq!(known(&table), [1, 3]);
        table.insert(address(C), 5, 4);
        assert_eq!(known(&table), [1, 4], "a known address makes nobody way");
        table.forget_least_recent();
        assert_eq!(known(&table), [4]);
    }

    #[test]
    fn table_without_room_stays_empty() {
        let mut table = Affinity::new(0, 1_000);
        table.insert(address(A), 1, 1);
        assert_eq!(known(&table), []);
    }

    #[test]
    fn loaded_table_is_the_saved_one() {
        let mut table = Affinity::new(2, 1_000);
        table.insert(address(A), 1, 7);
        table.insert(address(B), 2, 8);
        let octets = table.save(*b"test", |value| vec![*value]);
        let mut loaded = Affinity::new(2, 1_000);
        assert!(loaded.load(*b"test", &octets, |words| words.next()));
        assert_eq!(loaded.get(address(A), 1_001), Some(&mut 7));
        assert_eq!(loaded.get(address(B), 1_003), None, "the time of its last use went along");
    }

    #[test]
    fn what_is_no_table_is_refused_and_changes_nothing() {
        let mut table = Affinity::new(2, 1_000);
        table.insert(address(A), 1, 7);
        let octets = table.save(*b"test", |value| vec![*value]);
        let mut odd_family = octets.clone();
        odd_family[4] = 5;
        for octets in [&octets[..12], &octets[..36], b"tset", &odd_family] {
            assert!(!table.load(*b"test", octets, |words| words.next()), "{octets:?}");
            assert_eq!(known(&table), [7]);
        }
        assert!(!table.load(*b"mark", &octets, |words| words.next()));
        assert!(table.load(*b"test", b"test", |words| words.next()), "an empty one");
        assert_eq!(known(&table), []);
    }
}
