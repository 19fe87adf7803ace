//! Everything that a director changes on its host, as one text, to be compared.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use wvs::lab::Host;
use wvs::sysctl;

use crate::stage::run_well;

/// Rules, routes and settings of `host`.
pub(crate) fn host_state(host: &Host) -> String {
    let mut state = String::new();
    for arguments in [
        &["-4", "rule", "show"][..],
        &["-6", "rule", "show"],
        &["-4", "route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
        &["-brief", "link", "show"],
    ] {
        state += &format!("# ip {}\n{}", arguments.join(" "), run_well(host, "ip", arguments));
    }
    host.run(|| {
        for name in ["net/ipv4/ip_forward", "net/ipv4/ip_early_demux"] {
            state += &format!("{name}={}\n", sysctl::read(name).unwrap());
        }
        for folder in ["net/ipv4/conf", "net/ipv6/conf"] {
            for leaf in
                ["forwarding", "rp_filter", "send_redirects", "accept_redirects", "accept_ra"]
            {
                for name in sysctl::names_below(folder, leaf).unwrap() {
                    if let Ok(value) = sysctl::read(&name) {
                        state += &format!("{name}={value}\n");
                    }
                }
            }
        }
    });
    state
}

/// Asserts that `host` is as it was, or is in a moment: a device that this process had is gone only
/// when the programs that other tests are just starting have let go of it as well.
#[track_caller]
pub(crate) fn assert_unchanged(host: &Host, before: &str) {
    for _ in 0..100 {
        if host_state(host) == before {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_same(before, &host_state(host));
}

/// Asserts that two states are the same, naming the lines that differ.
#[track_caller]
pub(crate) fn assert_same(before: &str, after: &str) {
    let difference = |from: &str, to: &str| {
        let lines: Vec<&str> = to.lines().collect();
        from.lines().filter(|line| !lines.contains(line)).collect::<Vec<_>>().join("\n")
    };
    let (gone, new) = (difference(before, after), difference(after, before));
    assert!(before == after, "gone:\n{gone}\nnew:\n{new}");
}

/// The files in `folder`, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The inode of `host`'s network namespace, by which state files tell hosts apart.
pub(crate) fn namespace_of(host: &Host) -> u64 {
    host.run(|| fs::metadata("/proc/thread-self/ns/net").unwrap().ino())
}

/// The state files of directors on `host`, sorted. Those of other tests are in the same folder.
pub(crate) fn state_files(host: &Host) -> Vec<String> {
    let part = format!("-{}.json", namespace_of(host));
    files(Path::new(sysctl::STATE_FOLDER)).into_iter().filter(|name| name.contains(&part)).collect()
}
