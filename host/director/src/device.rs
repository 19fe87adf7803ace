//! The TUN device that packets come from and go to.

mod packet_loop;

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use nix::errno::Errno;
use tun::AbstractDevice;

pub use packet_loop::{DeviceCounters, PacketLoop};

use crate::sysctl;

/// The longest name of a network device, in octets.
pub const NAME_OCTETS_MAX: usize = 15;

/// The smallest MTU that IPv4 works with (RFC 791).
pub const MTU_MIN: u16 = 68;

/// Why there is no device, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel would not take the name, or would take it for a pattern.
    #[error(
        "{name:?} cannot name a network device: use 1 to {NAME_OCTETS_MAX} letters, digits, '-', '_' or '.'"
    )]
    Name {
        /// The name asked for.
        name: String,
    },
    /// No TUN driver.
    #[error(
        "/dev/net/tun is missing: load the driver with `modprobe tun`, or give the container the \
         device (docker: `--device /dev/net/tun`)"
    )]
    NoDriver,
    /// Not allowed to make devices.
    #[error(
        "no right to make the network device {name}: run as root or with the capability \
         CAP_NET_ADMIN, and with access to /dev/net/tun"
    )]
    NoRights {
        /// The name asked for.
        name: String,
    },
    /// Some process holds a device of this name.
    #[error(
        "the network device {name} is in use by another process, probably a second director: stop \
         it, or choose another `device.name`"
    )]
    InUse {
        /// The name asked for.
        name: String,
    },
    /// A device of this name exists and is no TUN device.
    #[error("a network device {name} of another kind exists already: choose another `device.name`")]
    OtherKind {
        /// The name asked for.
        name: String,
    },
    /// The kernel refused for a reason that is not ours to explain.
    #[error("the network device {name} could not be {step}: {source}")]
    Failed {
        /// The name asked for.
        name: String,
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device was deleted under the running director.
    #[error("the network device {name} is gone: somebody deleted it while the director ran")]
    Gone {
        /// Its name.
        name: String,
    },
    /// A bug of ours.
    #[error(
        "the packet thread panicked: this is a bug in wvs, please report the panic message above"
    )]
    Panicked,
}

/// An open TUN device, up, in the network namespace of the thread that opened it. It vanishes when
/// this value is dropped.
#[derive(Debug)]
pub struct Device {
    name: String,
    mtu: u16,
    file: File,
}

impl Device {
    /// Makes the device `name` with an MTU of `mtu` octets and sets it up.
    ///
    /// # Errors
    /// See [`DeviceError`]. No device is left behind.
    pub fn open(name: &str, mtu: u16) -> Result<Self, DeviceError> {
        if !is_name(name) {
            return Err(DeviceError::Name { name: name.to_owned() });
        }
        let mut configuration = tun::Configuration::default();
        configuration.tun_name(name);
        let mut device = tun::create(&configuration).map_err(|error| refusal(name, error))?;
        let failed = |step| {
            move |error: tun::Error| DeviceError::Failed {
                name: name.to_owned(),
                step,
                source: error.into(),
            }
        };
        device.set_mtu(mtu).map_err(failed("given its MTU"))?;
        // Without a link-local address the kernel has nothing of its own to say on the device,
        // such as neighbour and router discovery. Where IPv6 is absent there is nothing to do.
        let _ = sysctl::write(&format!("net/ipv6/conf/{name}/addr_gen_mode"), "1");
        device.enabled(true).map_err(failed("set up"))?;
        device.set_nonblock().map_err(|source| failed("made non-blocking")(source.into()))?;
        // SAFETY: `into_raw_fd` hands over the only owner of an open file descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
        Ok(Self { name: name.to_owned(), mtu, file: File::from(fd) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its MTU in octets.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }
}

/// Whether the kernel takes `name` for a device as it stands. It would also take other characters;
/// `%` would be a pattern, and the rest is asking for trouble in scripts.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_OCTETS_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet))
}

fn refusal(name: &str, error: tun::Error) -> DeviceError {
    let source = io::Error::from(error);
    let name = name.to_owned();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => DeviceError::NoDriver,
        Some(Errno::EPERM | Errno::EACCES) => DeviceError::NoRights { name },
        Some(Errno::EBUSY) => DeviceError::InUse { name },
        Some(Errno::EINVAL) => DeviceError::OtherKind { name },
        _ => DeviceError::Failed { name, step: "made", source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_not_take_as_they_stand_are_refused() {
        for name in ["", "sixteen-octets-x", "a b", "a/b", "a:b", "wvs%d", ".", "..", "ä"] {
            assert!(!is_name(name), "{name:?}");
            assert!(matches!(Device::open(name, 1500), Err(DeviceError::Name { .. })), "{name:?}");
        }
        for name in ["wvs0", "a", "fifteen-octets.", "eth0.100"] {
            assert!(is_name(name), "{name:?}");
        }
    }

    #[test]
    fn each_refusal_of_the_kernel_has_its_own_sentence() {
        let refusal_of = |errno: Errno| {
            refusal("wvs0", tun::Error::Io(io::Error::from_raw_os_error(errno as i32))).to_string()
        };
        assert!(refusal_of(Errno::ENOENT).contains("modprobe tun"));
        assert!(refusal_of(Errno::EPERM).contains("CAP_NET_ADMIN"));
        assert!(refusal_of(Errno::EBUSY).contains("second director"));
        assert!(refusal_of(Errno::EINVAL).contains("another kind"));
        assert!(refusal_of(Errno::ENOMEM).contains("could not be made"));
    }
}
