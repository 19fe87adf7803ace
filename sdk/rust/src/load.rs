//! How loaded servers are, as LVS has it.

use crate::Server;

/// A server's connections as one number: `active * 256 + inactive`, so that an inactive one
/// (closing, or UDP) counts a little.
#[inline]
#[must_use]
pub fn overhead(server: &Server) -> u64 {
    u64::from(server.active) * 256 + u64::from(server.inactive)
}

/// The index of the candidate with the least load for its weight; of equals the first. Candidates
/// of weight 0 are passed over; `None` when there are no others.
///
/// A load must stay below 2^48: [`overhead`] does. Nothing is ever divided: `a / b < c / d` is
/// compared as `a * d < c * b`.
///
/// ```
/// use wvs_sdk::{Server, load};
///
/// let servers = [(1, 10), (3, 20), (1, 7)].map(|(weight, active)| Server { weight, active, ..Server::default() });
/// assert_eq!(load::least_loaded(servers.iter().enumerate(), load::overhead), Some(1));
/// ```
#[inline]
pub fn least_loaded<'s>(
    candidates: impl IntoIterator<Item = (usize, &'s Server)>,
    load: impl Fn(&Server) -> u64,
) -> Option<usize> {
    let mut best = None;
    // Stands for an infinite load: any load on any weight above 0 is less.
    let (mut least_load, mut least_weight) = (1, 0);
    for (index, server) in candidates {
        let (load, weight) = (load(server), u64::from(server.weight));
        if load * least_weight < least_load * weight {
            best = Some(index);
            (least_load, least_weight) = (load, weight);
        }
    }
    best
}

/// Whether `server` has more active connections than its weight says while another one has less
/// than half of what its own says: the point at which LVS's `lblc` and `lblcr` leave a server that
/// a destination is used to. For them a weight is a number of connections.
#[must_use]
pub fn is_overloaded(server: &Server, servers: &[Server]) -> bool {
    let has_room = |server: &Server| u64::from(server.active) * 2 < u64::from(server.weight);
    server.active > server.weight && servers.iter().any(has_room)
}

/// The greatest common divisor of the weights above 0, which counts as one unit of weight; 1 when
/// there are none.
pub fn weight_unit(weights: impl IntoIterator<Item = u32>) -> u32 {
    let divisor = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    weights.into_iter().fold(0, divisor).max(1)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn unit_of_weights_is_their_greatest_common_divisor() {
        assert_eq!(weight_unit([4, 0, 6]), 2);
        assert_eq!(weight_unit([65_535, 1]), 1);
        assert_eq!(weight_unit([0, 7]), 7);
        assert_eq!(weight_unit([0, 0]), 1);
        assert_eq!(weight_unit([]), 1);
    }

    fn servers(list: &[(u32, u32)]) -> Vec<Server> {
        let server = |&(weight, active)| Server { weight, active, ..Server::default() };
        list.iter().map(server).collect()
    }

    #[test]
    fn of_equals_the_first_candidate_wins() {
        let servers = servers(&[(2, 10), (1, 5), (0, 0)]);
        assert_eq!(least_loaded(servers.iter().enumerate(), overhead), Some(0));
        assert_eq!(least_loaded(servers.iter().enumerate().rev(), overhead), Some(1));
        assert_eq!(least_loaded([], overhead), None);
    }

    #[test]
    fn server_is_overloaded_only_while_another_has_room() {
        let is_overloaded = |list: &[_]| is_overloaded(&servers(list)[0], &servers(list));
        assert!(is_overloaded(&[(4, 5), (4, 1)]));
        assert!(!is_overloaded(&[(4, 5), (4, 2)]), "half of the weight is no room");
        assert!(!is_overloaded(&[(4, 4), (4, 0)]), "as many as the weight are not too many");
        assert!(!is_overloaded(&[(4, 5), (0, 0)]), "weight 0 has no room");
    }
}
