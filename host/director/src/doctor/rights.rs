//! What a start needs of the operating system: the capability and the TUN driver.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use rustix::thread::CapabilitySet;

use super::finding::{Code, Finding};
use crate::rights;

/// The driver's file.
const TUN: &str = "/dev/net/tun";

/// Where the driver shows that it is loaded.
const DRIVER: &str = "/sys/class/misc/tun";

/// What keeps this user from starting a director with the configuration `file`.
pub(super) fn look(file: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !rights::has(CapabilitySet::NET_ADMIN) {
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
        Err(error) if is_driver_missing(&error) => {
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

/// Whether packets can be sent in somebody else's name and those of others seen, as a probe has to.
pub(super) fn may_probe() -> bool {
    rights::has(CapabilitySet::NET_RAW)
}

/// Whether the file is there, but nothing behind it.
fn is_driver_missing(error: &io::Error) -> bool {
    [Errno::ENODEV, Errno::ENXIO].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}
