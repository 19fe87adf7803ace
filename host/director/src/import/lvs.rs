//! What both programs have in common: LVS's own names and numbers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use wvs_core::connection::state::State;
use wvs_core::real_server::WEIGHT_MAX;

use super::rules::{Server, Service};
use crate::config::THRESHOLD_MAX;

/// Timeouts, each by its key of `timeouts` and with its state.
pub(super) type Timeouts = Vec<(&'static str, State, Duration)>;

/// How long clients are kept at their servers where no time is given.
pub(super) const PERSISTENCE: Duration = Duration::from_secs(360);

/// The longest time, in seconds: 31 days.
const SECONDS_MAX: u64 = 2_678_400;

/// The schedulers of LVS, all of which WVS has.
const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "twos", "dh", "sh", "mh", "lblc", "lblcr"];

/// The timeouts that both programs set for all services together, in seconds. 0, and what is the
/// default anyway, is left out.
pub(super) fn timeouts(tcp: u64, tcp_fin: u64, udp: u64) -> Timeouts {
    let states = [
        ("established", State::Established, tcp),
        ("fin_wait", State::FinWait, tcp_fin),
        ("udp", State::Udp, udp),
    ];
    states
        .into_iter()
        .map(|(key, state, seconds)| (key, state, Duration::from_secs(seconds.min(SECONDS_MAX))))
        .filter(|(_, state, timeout)| !timeout.is_zero() && *timeout != state.default_timeout())
        .collect()
}

/// A time to keep clients at their servers, in seconds; without a number the default one.
pub(super) fn persistence(written: &str) -> Option<Duration> {
    match written.parse() {
        Ok(seconds @ 1..=SECONDS_MAX) => Some(Duration::from_secs(seconds)),
        Err(_) if written.is_empty() => Some(PERSISTENCE),
        _ => None,
    }
}

/// The length of a mask; `None` within for one that covers the whole address.
pub(super) fn mask(written: &str, vip: IpAddr) -> Option<Option<u8>> {
    let bits = if vip.is_ipv4() { 32 } else { 128 };
    let length = if let (IpAddr::V4(_), Ok(mask)) = (vip, written.parse::<Ipv4Addr>()) {
        let mask = mask.to_bits();
        (mask.leading_ones() + mask.trailing_zeros() >= 32).then(|| mask.leading_ones())?
    } else {
        written.trim_start_matches('/').parse().ok()?
    };
    let length = u8::try_from(length).ok().filter(|length| (1..=bits).contains(length))?;
    Some((length < bits).then_some(length))
}

/// A weight, and what to say if it is not the one that was written.
pub(super) fn weight(written: &str) -> Result<(u32, Option<&'static str>), &'static str> {
    match written.parse::<u32>() {
        Ok(weight @ ..=WEIGHT_MAX) => Ok((weight, None)),
        Ok(_) => Ok((WEIGHT_MAX, Some("weights end at 65535, which it is now"))),
        Err(_) => Err("no weight; it is 1 now"),
    }
}

/// Thresholds of connections; 0 is none.
pub(super) fn set_thresholds(
    server: &mut Server,
    upper: u32,
    lower: u32,
) -> Result<(), &'static str> {
    if upper == 0 && lower > 0 {
        return Err("a lower threshold without an upper one does nothing; left out");
    }
    if lower > upper {
        return Err("the lower threshold is above the upper one; both left out");
    }
    if upper > THRESHOLD_MAX {
        return Err("thresholds end at 16777216; both left out");
    }
    server.upper = (upper > 0).then_some(upper);
    server.lower = (lower > 0).then_some(lower);
    Ok(())
}

/// The scheduler of this name.
pub(super) fn set_scheduler(service: &mut Service, name: &str) -> Result<(), &'static str> {
    let known = SCHEDULERS.iter().find(|known| **known == name);
    service.scheduler = known.ok_or("WVS has no scheduler of this name; it is wlc now")?;
    Ok(())
}

/// A flag of the service's scheduler.
pub(super) fn add_scheduler_flag(service: &mut Service, flag: &str) -> Result<(), &'static str> {
    let key = match (service.scheduler, flag) {
        ("sh", "sh-fallback" | "flag-1") | ("mh", "mh-fallback" | "flag-1") => "fallback",
        ("sh", "sh-port" | "flag-2") | ("mh", "mh-port" | "flag-2") => "port",
        _ => return Err("the service's scheduler has no such flag; left out"),
    };
    if !service.scheduler_config.contains(&key) {
        service.scheduler_config.push(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn masks_are_lengths_unless_they_cover_everything_or_have_holes() {
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
        for (written, vip, length) in [
            ("255.255.255.0", v4, Some(Some(24))),
            ("255.255.255.255", v4, Some(None)),
            ("24", v4, Some(Some(24))),
            ("255.0.255.0", v4, None),
            ("0.0.0.0", v4, None),
            ("33", v4, None),
            ("64", v6, Some(Some(64))),
            ("128", v6, Some(None)),
            ("0", v6, None),
            ("255.255.255.0", v6, None),
        ] {
            assert_eq!(mask(written, vip), length, "{written}");
        }
    }
}
