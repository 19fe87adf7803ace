//! Kernel settings that keep packets from passing.

use std::collections::BTreeMap;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::finding::{Code, Finding};
use crate::route::Link;
use crate::route::inspect::WrongSetting;
use crate::sysctl::{self, Spelled};

/// A finding for each kind of setting that is wrong, with a command for each setting.
pub(super) fn wrong(settings: &[WrongSetting], device: &str) -> Vec<Finding> {
    let mut by_code: BTreeMap<Code, Vec<&WrongSetting>> = BTreeMap::new();
    for setting in settings {
        by_code.entry(code_of(&setting.name, device)).or_default().push(setting);
    }
    let finding = |(code, settings): (Code, Vec<&WrongSetting>)| {
        let values = settings.iter().map(|WrongSetting { name, is, wanted, .. }| {
            format!("{} is {is} and has to be {wanted}", Spelled(name))
        });
        let commands = settings.iter().map(|setting| command(&setting.name, &setting.wanted));
        Finding::new(code, values.collect::<Vec<_>>().join("; ")).commands(commands)
    };
    by_code.into_iter().map(finding).collect()
}

/// The settings among those that a start would change that it cannot change.
pub(super) fn read_only(settings: &[WrongSetting]) -> Option<Finding> {
    let is_writable =
        |name: &str| access(&Path::new("/proc/sys").join(name), AccessFlags::W_OK).is_ok();
    let stuck: Vec<_> = settings
        .iter()
        .filter(|setting| !setting.is_of_device && !is_writable(&setting.name))
        .map(|setting| format!("{}={}", Spelled(&setting.name), setting.wanted))
        .collect();
    if stuck.is_empty() {
        return None;
    }
    let what = format!("/proc/sys is read-only, and has to be set: {}", stuck.join(", "));
    let advice = "in a container set them from outside (docker run --sysctl), then the director finds \
                  them as it needs them";
    Some(
        Finding::new(Code::SettingsReadOnly, what)
            .advice(advice)
            .command("mount -o remount,bind,rw /proc/sys"),
    )
}

/// Where IPv4 is forwarded in general, but not from one of `links`, by which packets come in.
pub(super) fn links_that_do_not_forward(links: &[Link]) -> Vec<Finding> {
    if sysctl::read("net/ipv4/ip_forward").is_ok_and(|value| value == "0") {
        return Vec::new();
    }
    let is_off = |link: &&Link| {
        let name = format!("net/ipv4/conf/{}/forwarding", link.name);
        sysctl::read(&name).is_ok_and(|value| value == "0")
    };
    let finding = |link: &Link| {
        let name = format!("net/ipv4/conf/{}/forwarding", link.name);
        let what = format!("{} is 0 and has to be 1", Spelled(&name));
        Finding::new(Code::ForwardingOff, what).command(command(&name, "1"))
    };
    links.iter().filter(is_off).map(finding).collect()
}

fn command(name: &str, value: &str) -> String {
    format!("sysctl -w {}={value}", Spelled(name))
}

/// What it means that the setting `name` has another value than the plan's.
fn code_of(name: &str, device: &str) -> Code {
    let (folder, leaf) = name.rsplit_once('/').unwrap_or(("", name));
    let interface = folder.rsplit('/').next().unwrap_or_default();
    let is_of_device = interface == device;
    match leaf {
        "rp_filter" if is_of_device || interface == "all" => Code::RpFilter,
        "rp_filter" => Code::RpFilterStrict,
        "ip_early_demux" => Code::EarlyDemux,
        "send_redirects" => Code::Redirects,
        "accept_local" => Code::AcceptLocal,
        "accept_ra" | "disable_ipv6" if is_of_device => Code::DeviceIpv6,
        // `accept_ra` of other interfaces is changed only before forwarding is switched on.
        _ => Code::ForwardingOff,
    }
}
