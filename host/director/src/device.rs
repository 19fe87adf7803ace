//! The TUN device that packets come from and go to.

mod driver;
mod frame;
mod interface;
mod packet_loop;
mod steering;

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use tun::AbstractDevice;

pub use driver::Offload;
use driver::{Attachment, Features};
pub(crate) use frame::PACKET_OCTETS_MAX;
use interface::Interface;
pub use packet_loop::{DeviceCounters, PacketLoop, PacketPulse};
pub use steering::Steering;

use crate::sysctl;

/// The longest name of a network device, in octets.
pub const NAME_OCTETS_MAX: usize = 15;

/// The smallest MTU that IPv4 works with (RFC 791).
pub const MTU_MIN: u16 = 68;

/// The most queues that a device may have.
pub const QUEUES_MAX: u16 = 64;

/// The most queues that it has unless told. Beyond that the table and the counters, which all
/// threads share, are what they wait for.
const QUEUES_AUTO_MAX: NonZeroU16 = NonZeroU16::new(8).unwrap();

/// Packets that wait for the director in each queue. The kernel's 500 are soon full when a burst
/// comes while the thread is not on a processor.
const QUEUE_PACKETS: u16 = 1_000;

/// What a device is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNeeds {
    /// Its name, see [`is_name`].
    pub name: String,
    /// Its MTU in octets.
    pub mtu: u16,
    /// How many queues, at most [`QUEUES_MAX`], each with a thread of its own; `None` for one for
    /// each processor, up to 8.
    pub queues: Option<NonZeroU16>,
    /// Whether packets of up to 64 KiB and unfinished checksums are taken where the kernel has them.
    pub offload: bool,
    /// The virtual addresses, by which both directions of a connection are led to one queue.
    pub vips: Vec<IpAddr>,
}

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
    /// There is a TUN device of this name already.
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
    queues: Vec<File>,
    has_virtio_header: bool,
    offload: Offload,
    interface: Interface,
    steering: Arc<Steering>,
}

impl Device {
    /// Makes a device and sets it up. Where the kernel does not have what is asked for, the device
    /// does without, and the log says so: one queue instead of several, no offload.
    ///
    /// # Errors
    /// See [`DeviceError`]. No device is left behind.
    pub fn open(needs: &DeviceNeeds) -> Result<Self, DeviceError> {
        let DeviceNeeds { name, mtu, queues, offload, vips } = needs;
        if !is_name(name) {
            return Err(DeviceError::Name { name: name.clone() });
        }
        let wanted = queues.unwrap_or_else(queues_auto).get();

        let first = driver::open().map_err(|error| refusal(name, error))?;
        let features = driver::features(&first).map_err(|error| refusal(name, error))?;
        let attachment = attachment(name, features, wanted, *offload);
        driver::create(&first, name, attachment).map_err(|error| refusal(name, error))?;
        let offload = if attachment.has_virtio_header {
            let offload = driver::set_offload(&first);
            if offload == Offload::Off {
                tracing::info!(device = name, "the kernel has no offload: packets pass one by one");
            }
            offload
        } else {
            Offload::Off
        };

        let mut queues = vec![first];
        let steering =
            attachment.is_one_of_several.then(|| steer(name, &queues[0], vips)).flatten();
        if steering.is_some() {
            for _ in 1..wanted {
                let queue = driver::open().map_err(failed(name, "given another queue"))?;
                driver::attach(&queue, name, attachment)
                    .map_err(failed(name, "given another queue"))?;
                queues.push(queue);
            }
        }
        driver::set_queue_packets(name, QUEUE_PACKETS)
            .map_err(failed(name, "given room in its queues"))?;
        configure(name, *mtu, &queues[0])?;
        let interface = Interface::find(name).map_err(failed(name, "watched"))?;
        Ok(Self {
            name: name.clone(),
            mtu: *mtu,
            queues,
            has_virtio_header: attachment.has_virtio_header,
            offload,
            interface,
            steering: Arc::new(steering.unwrap_or_default()),
        })
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

    /// How many queues it has.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Which packets it takes unfinished.
    #[must_use]
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Its queues, for whoever moves packets without a [`PacketLoop`]. A call reads or writes one
    /// packet, behind a virtio header of 10 octets where [`offload`](Self::offload) is not off, and
    /// never waits. The device vanishes with the last of them.
    #[must_use]
    pub fn into_queues(self) -> Vec<File> {
        self.queues
    }
}

/// One for each processor that this process may use.
fn queues_auto() -> NonZeroU16 {
    let processors = thread::available_parallelism().ok();
    processors
        .and_then(|processors| NonZeroU16::try_from(processors).ok())
        .map_or(NonZeroU16::MIN, |processors| processors.min(QUEUES_AUTO_MAX))
}

/// As asked for, as far as the kernel has it.
fn attachment(name: &str, features: Features, queues: u16, offload: bool) -> Attachment {
    let attachment = Attachment {
        is_one_of_several: queues > 1 && features.has_queues(),
        has_virtio_header: offload && features.has_virtio_header(),
    };
    if queues > 1 && !attachment.is_one_of_several {
        tracing::info!(device = name, "the kernel has no devices of several queues: using one");
    }
    if offload && !attachment.has_virtio_header {
        tracing::info!(device = name, "the kernel has no offload: packets pass one by one");
    }
    attachment
}

/// Gives the device its MTU and sets it up. `queue` is attached to it.
fn configure(name: &str, mtu: u16, queue: &File) -> Result<(), DeviceError> {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(name).raw_fd(queue.as_raw_fd()).close_fd_on_drop(false);
    let failed = |step| {
        move |error: tun::Error| DeviceError::Failed {
            name: name.to_owned(),
            step,
            source: error.into(),
        }
    };
    let mut device = tun::create(&configuration).map_err(failed("configured"))?;
    device.set_mtu(mtu).map_err(failed("given its MTU"))?;
    // Without a link-local address the kernel has nothing of its own to say on the device, such as
    // neighbour and router discovery. Where IPv6 is absent there is nothing to do.
    let _ = sysctl::write(&format!("net/ipv6/conf/{name}/addr_gen_mode"), "1");
    device.enabled(true).map_err(failed("set up"))
}

/// Has the kernel lead both directions of a connection to one queue, if it does. Without, several
/// queues would let packets overtake each other.
fn steer(name: &str, queue: &File, vips: &[IpAddr]) -> Option<Steering> {
    let steering = Steering::load(vips).and_then(|(steering, program)| {
        driver::set_steering(queue, &program)?;
        Ok(steering)
    });
    steering
        .inspect_err(|error| {
            tracing::info!(
                device = name,
                %error,
                "the kernel does not take the program that leads connections to queues, which needs \
                 root or the capability CAP_BPF: using one queue"
            );
        })
        .ok()
}

fn failed(name: &str, step: &'static str) -> impl Fn(io::Error) -> DeviceError {
    move |source| DeviceError::Failed { name: name.to_owned(), step, source }
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

fn refusal(name: &str, source: io::Error) -> DeviceError {
    let name = name.to_owned();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => DeviceError::NoDriver,
        Some(Errno::EPERM | Errno::EACCES) => DeviceError::NoRights { name },
        Some(Errno::EBUSY) if driver::is_of_other_kind(&name) => DeviceError::OtherKind { name },
        Some(Errno::EBUSY) => DeviceError::InUse { name },
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
            let needs = DeviceNeeds {
                name: name.to_owned(),
                mtu: 1500,
                queues: None,
                offload: true,
                vips: Vec::new(),
            };
            assert!(matches!(Device::open(&needs), Err(DeviceError::Name { .. })), "{name:?}");
        }
        for name in ["wvs0", "a", "fifteen-octets.", "eth0.100"] {
            assert!(is_name(name), "{name:?}");
        }
    }

    #[test]
    fn each_refusal_of_the_kernel_has_its_own_sentence() {
        let refusal_of = |errno: Errno| refusal("wvs-none", io::Error::from(errno)).to_string();
        assert!(refusal_of(Errno::ENOENT).contains("modprobe tun"));
        assert!(refusal_of(Errno::EPERM).contains("CAP_NET_ADMIN"));
        // There is none: whose it was has let go of it meanwhile.
        assert!(refusal_of(Errno::EBUSY).contains("another process"));
        let loopback = refusal("lo", io::Error::from(Errno::EBUSY)).to_string();
        assert!(loopback.contains("another kind"));
        assert!(refusal_of(Errno::ENOMEM).contains("could not be made"));
    }
}
