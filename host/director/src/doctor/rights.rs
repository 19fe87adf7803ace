//! What a start needs of the operating system: the capability and the TUN driver.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::finding::{Code, Finding};

/// `CAP_NET_ADMIN` in the kernel's numbering: links, routes and rules.
const NET_ADMIN: u32 = 12;

/// `CAP_NET_RAW`: packets in somebody else's name, and those of others.
const NET_RAW: u32 = 13;

/// The driver's file.
const TUN: &str = "/dev/net/tun";

/// Where the driver shows that it is loaded.
const DRIVER: &str = "/sys/class/misc/tun";

/// What keeps this user from starting a director with the configuration `file`.
pub(super) fn look(file: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !has(NET_ADMIN) {
        let finding = Finding::new(Code::Rights, "this user has no capability CAP_NET_ADMIN")
            .advice("run the director as root; in a container: docker run --cap-add NET_ADMIN")
            .command(format!("sudo wvs run -c {}", file.display()));
        // Whoever lacks it is told of nothing else that root would not meet.
        return vec![finding];
    }
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let finding = Finding::new(Code::TunMissing, format!("{TUN} is missing"))
                .advice("in a container: docker run --device /dev/net/tun");
            findings.push(if Path::new(DRIVER).exists() {
                finding.command(format!("mkdir -p /dev/net && mknod -m 666 {TUN} c 10 200"))
            } else {
                finding.command("modprobe tun")
            });
        }
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => {
            let what = format!("there is no driver behind {TUN}");
            findings.push(Finding::new(Code::TunMissing, what).command("modprobe tun"));
        }
        Err(error) => {
            let finding =
                Finding::new(Code::TunForbidden, format!("{TUN} cannot be opened: {error}"))
                    .advice("in a container: docker run --device /dev/net/tun")
                    .command(format!("chmod 666 {TUN}"));
            findings.push(finding);
        }
    }
    findings
}

/// Whether packets can be sent and seen as a probe has to.
pub(super) fn may_probe() -> bool {
    has(NET_RAW)
}

/// Whether this process has the capability. One that the kernel does not tell about is not missed.
fn has(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_none_or(|set| set >> capability & 1 == 1)
}
